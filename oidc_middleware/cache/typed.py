"""A cache of live values of one type, read without waiting where memory has them."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable
from typing import Generic, Protocol, runtime_checkable

from oidc_middleware.cache.backend import Backend, Counts, Entry
from oidc_middleware.cache.codec import Codec, V
from oidc_middleware.cache.footprint import footprint
from oidc_middleware.cache.memory import MemoryBackend
from oidc_middleware.cache.types import CacheType


class TieredBackend(Backend, Protocol):
    """A backend whose first tier is memory. What it reads from further tiers it fills into that memory itself.

    So it alone decides whether a value that it read is still the newest, and nobody fills memory behind its back.
    """

    @property
    def memory(self) -> MemoryBackend:
        """The first tier."""


@runtime_checkable
class SharedTier(Protocol):
    """What a tiered backend whose further tier other nodes write to can do besides."""

    async def get_shared(self, kind: CacheType, key: bytes) -> Entry | None:
        """Return the entry of the shared tier, whatever memory has."""

    def invalidate(self, kind: CacheType, key: bytes) -> None:
        """Forget what memory has of a key."""

    def next_change(self, kind: CacheType, key: bytes) -> Future[None]:
        """Return a future that is done when somebody else changed the key; whoever waits no longer cancels it."""


class TypedCache(Generic[V]):
    """Values of one cache type, by digest.

    `peek`, `peek_stale` and `put` are memory alone and never wait. The other methods reach every tier. Values are
    shared with all who get them, so they must be such that nobody can change them. None means a miss and cannot be
    stored; an empty value is a negative answer (see `Codec.is_negative`) and must be told apart with `is None`.
    """

    def __init__(self, kind: CacheType, backend: TieredBackend, codec: Codec[V]) -> None:
        self.kind = kind
        self._backend = backend
        self._codec = codec
        self.is_shared: bool = backend is not backend.memory
        """Whether other tiers lie beneath memory."""
        self._shared_tier: SharedTier | None = backend if isinstance(backend, SharedTier) else None
        life = kind.memory_life(shared=self.is_shared)
        self._shelf = backend.memory.share(kind, codec, life)
        self.peek: Callable[[bytes], V | None] = self._shelf.peek
        """Return the value in memory, None when there is none or its end has come."""
        self.peek_stale: Callable[[bytes], V | None] = self._shelf.peek_stale
        """Return the value in memory also if its end has come, as long as the type keeps it."""
        self.is_negative: Callable[[V], bool] = codec.is_negative
        """Tell whether a value is a negative answer."""

    def put(self, key: bytes, value: V, expires_at: float, size: int | None = None) -> bool:
        """Store a value in memory until `expires_at` (Unix time in seconds); tell whether it is there now.

        `size` is what the value takes in bytes; None: it is measured, which sees into tuples and frozensets only. An
        end in the past deletes the key, and so does a value that is too large.

        Raises:
            ValueError: `expires_at` is not a finite number.
            TypeError: the value is None, or can be changed.
            BackendUnavailable: after `close`.
        """
        size = footprint(value) if size is None else size
        return self._shelf.put(key, value, expires_at, size, negative=self._codec.is_negative(value))

    async def get(self, key: bytes) -> V | None:
        """Return the value, None when no tier has it or what it has cannot be read.

        Raises:
            BackendUnavailable: memory does not have it and the other tiers cannot be asked.
        """
        value = self.peek(key)
        if value is not None or not self.is_shared:
            return value
        entry = await self._backend.get(self.kind, key)
        if entry is None:
            return None
        value = self._shelf.held(key)  # decoded on its way in
        return self._decoded(entry) if value is None else value

    async def get_newest(self, key: bytes) -> V | None:
        """Return the value that the shared tier has, though memory may have an older one, which is then forgotten.

        Without a shared tier: what `get` returns. None also when the shared tier cannot be asked.

        Raises:
            BackendUnavailable: as `get` does.
        """
        if self._shared_tier is None or self._shelf.end_of(key) is None:
            return await self.get(key)
        entry = await self._shared_tier.get_shared(self.kind, key)
        value = None if entry is None else self._decoded(entry)
        if value is None or value == self._shelf.peek_stale(key):
            return value
        self._shared_tier.invalidate(self.kind, key)
        return await self.get(key)

    def next_change(self, key: bytes) -> Future[None]:
        """Return a future that is done when another node changed the key, as far as that is told at all.

        Whoever waits no longer cancels it.
        """
        if self._shared_tier is None:
            return asyncio.get_running_loop().create_future()
        return self._shared_tier.next_change(self.kind, key)

    def _decoded(self, entry: Entry) -> V | None:
        try:
            return self._codec.decode(entry.value)
        except ValueError:
            return None  # counted by memory, which could not read it either

    async def set(self, key: bytes, value: V, expires_at: float, wait: bool | None = None) -> None:  # noqa: FBT001
        """Store a value in every tier until `expires_at` (Unix time in seconds); an end in the past deletes the key.

        `wait` tells whether to return only after the slowest tier has it; None: as the type's row says.

        Raises:
            ValueError: `expires_at` is not a finite number.
            TypeError: the value is None, or can be changed.
            BackendUnavailable: after `close`, or a tier that is waited for cannot be asked.
        """
        if not self.is_shared:
            self.put(key, value, expires_at)
            return
        footprint(value)
        await self._backend.set(self.kind, key, self._codec.encode(value), expires_at, wait)

    async def add(self, key: bytes, value: V, expires_at: float, version: int = 0) -> bool:
        """Store as `set` does unless a tier has a value; tell whether it was stored.

        Raises:
            ValueError: `expires_at` is not a finite number.
            TypeError: the value is None, or can be changed.
            BackendUnavailable: nobody knows whether it was stored; also after `close`.
        """
        footprint(value)
        return await self._backend.add(self.kind, key, self._codec.encode(value), expires_at, version)

    async def update(self, key: bytes, value: V, expires_at: float, version: int) -> bool:
        """Put a value in the place of one of a lower version, in every tier; tell whether that was done.

        Raises:
            ValueError: `expires_at` is not a finite number, or there is no such `version`.
            TypeError: the value is None, or can be changed.
            BackendUnavailable: nobody knows whether it was done; also after `close`.
        """
        footprint(value)
        return await self._backend.update(self.kind, key, self._codec.encode(value), expires_at, version)

    async def delete(self, key: bytes) -> bool:
        """Delete the value in every tier; tell whether there was one."""
        was_here = self._shelf.delete(key)
        return (self.is_shared and await self._backend.delete(self.kind, key)) or was_here

    async def exists(self, key: bytes) -> bool:
        """Tell whether a tier has the value."""
        if self._shelf.end_of(key) is not None:
            return True
        return self.is_shared and await self._backend.exists(self.kind, key)

    async def clear(self) -> None:
        """Delete every value of the type in every tier."""
        self._shelf.clear()
        if self.is_shared:
            await self._backend.clear(self.kind)

    def stats(self) -> Counts:
        """Return what happened in memory so far, and what it holds now."""
        return self._shelf.stats()
