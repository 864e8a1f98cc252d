"""The cache tier in this process's memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from oidc_middleware.cache.backend import Counts, Entry, Health, checked_entry
from oidc_middleware.cache.codec import RAW, Codec, V
from oidc_middleware.cache.footprint import footprint
from oidc_middleware.cache.shelf import Shelf
from oidc_middleware.cache.types import TYPES, CacheType
from oidc_middleware.cache.waiters import closed
from oidc_middleware.clock import Clock


class MemoryBackend:
    """A `Backend` whose entries live and die with the process.

    A typed cache shares the memory of its type (`share`) and keeps live values there: what other tiers or other
    callers store as bytes is decoded once, on its way in. For one event loop and its thread.
    """

    def __init__(self, clock: Clock, types: Iterable[CacheType] = tuple(TYPES.values())) -> None:
        self._shelves: dict[str, Shelf[Any]] = {
            kind.name: Shelf(clock, kind.limits, kind.negative, kind.stale) for kind in types
        }
        self._codecs: dict[str, Codec[Any]] = {}
        self._now = clock.now
        self._closed = False

    @property
    def memory(self) -> MemoryBackend:
        """The tier that can be read without waiting: itself."""
        return self

    def share(self, kind: CacheType, codec: Codec[V], life: float = math.inf) -> Shelf[V]:
        """Return the memory of a type, to hold what `codec` decodes, each value for `life` seconds at most.

        Raises:
            ValueError: the type's memory is shared already; two codecs would read each other's values.
        """
        if kind.name in self._codecs:
            raise ValueError(f"the memory of {kind.name!r} belongs to another typed cache")
        shelf = self._shelves[kind.name]
        shelf.clear()
        shelf.life = life
        self._codecs[kind.name] = codec
        return shelf

    def limit_life(self, kind: CacheType, life: float) -> None:
        """Forget what is stored of a type from now on after `life` seconds; its entries still tell their own ends."""
        self._shelves[kind.name].life = life

    def expire(self, kind: CacheType, key: bytes) -> None:
        """Let the entry end now; a type that keeps stale values keeps it as one."""
        self._shelves[kind.name].expire(key)

    def expire_all(self, kind: CacheType) -> None:
        """Let every entry of the type end now."""
        self._shelves[kind.name].expire_all()

    def holds(self, kind: CacheType, key: bytes) -> bool:
        """Tell whether there is an entry, without waiting. Counts as no hit."""
        return self._shelves[kind.name].end_of(key) is not None

    def find(self, kind: CacheType, key: bytes) -> Entry | None:
        """Return the entry, without waiting."""
        return self._read(kind, key)

    def fill(self, kind: CacheType, key: bytes, entry: Entry) -> None:
        """Keep what another tier has, without waiting; what cannot be decoded is refused and counted."""
        self._write(kind, key, entry)

    def version_of(self, kind: CacheType, key: bytes) -> int | None:
        """Return the version of the entry, None when there is none. Counts as no hit."""
        return self._shelves[kind.name].version_of(key)

    async def get(self, kind: CacheType, key: bytes) -> Entry | None:
        """Return the entry, None when there is none."""
        return self._read(kind, key)

    async def set(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, wait: bool | None = None) -> None:  # noqa: ARG002, FBT001 (memory never lets anybody wait)
        """Store a copy of `value` until `expires_at` (Unix time in seconds); an end in the past deletes the key.

        Raises:
            ValueError: `expires_at` is not a finite number.
            TypeError: `value` is not bytes-like.
            BackendUnavailable: after `close`.
        """
        self._write(kind, key, checked_entry(value, expires_at))

    async def add(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, version: int = 0) -> bool:
        """Store as `set` does unless there is an entry; tell whether it was stored."""
        entry = checked_entry(value, expires_at, version)
        shelf = self._shelves[kind.name]
        if shelf.end_of(key) is not None:
            return False
        self._write(kind, key, entry)
        return shelf.end_of(key) is not None

    async def update(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, version: int) -> bool:
        """Replace an entry of a lower version; tell whether that was done."""
        entry = checked_entry(value, expires_at, version)
        if self._closed:
            raise closed()
        shelf = self._shelves[kind.name]
        held = shelf.version_of(key)
        if held is None or held >= version or not self._now() < entry.expires_at:
            return False
        self._write(kind, key, entry)
        return shelf.end_of(key) is not None

    async def delete(self, kind: CacheType, key: bytes) -> bool:
        """Delete the entry; tell whether there was one."""
        return self._shelves[kind.name].delete(key)

    async def exists(self, kind: CacheType, key: bytes) -> bool:
        """Tell whether there is an entry."""
        return self._shelves[kind.name].end_of(key) is not None

    async def clear(self, kind: CacheType) -> None:
        """Delete every entry of the type."""
        self._shelves[kind.name].clear()

    async def get_many(self, kind: CacheType, keys: Iterable[bytes]) -> dict[bytes, Entry]:
        """Return the entries that there are, by key."""
        found = ((key, self._read(kind, key)) for key in keys)
        return {key: entry for key, entry in found if entry is not None}

    async def set_many(self, kind: CacheType, entries: Mapping[bytes, Entry], wait: bool | None = None) -> None:  # noqa: ARG002, FBT001
        """Do what `set` does, for many, each with its version; when one of them is wrong, none is stored."""
        checked = {key: checked_entry(*entry) for key, entry in entries.items()}
        for key, entry in checked.items():
            self._write(kind, key, entry)

    async def ping(self) -> Health:
        """Tell whether the tier answers."""
        return Health(healthy=not self._closed, detail="closed" if self._closed else "")

    def stats(self) -> dict[str, Counts]:
        """Return the counts by type name."""
        return {name: shelf.stats() for name, shelf in self._shelves.items()}

    async def close(self) -> None:
        """Let go of everything; a second time does nothing."""
        self._closed = True
        for shelf in self._shelves.values():
            shelf.close()

    def _read(self, kind: CacheType, key: bytes) -> Entry | None:
        found = self._shelves[kind.name].find(key)
        return None if found is None else Entry(self._codec(kind).encode(found[0]), *found[1:])

    def _write(self, kind: CacheType, key: bytes, entry: Entry) -> None:
        shelf, codec = self._shelves[kind.name], self._codec(kind)
        try:
            live = codec.decode(entry.value)
        except ValueError:
            shelf.refuse(key)
            return
        negative = codec.is_negative(live)
        shelf.put(key, live, entry.expires_at, footprint(live), negative=negative, version=entry.version)

    def _codec(self, kind: CacheType) -> Codec[Any]:
        return self._codecs.get(kind.name, RAW)
