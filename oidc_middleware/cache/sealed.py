"""A shared tier that learns nothing: names are keyed digests, values are sealed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing

from oidc_middleware.cache.backend import Backend, Counts, Entry, Health, checked_entry, suspend
from oidc_middleware.cache.changes import Change, changing
from oidc_middleware.cache.envelope import LARGEST_VALUE, Sealer
from oidc_middleware.cache.keys import KeysByName
from oidc_middleware.cache.strangers import Strangers
from oidc_middleware.cache.types import CacheType
from oidc_middleware.clock import Clock

_MOST_NAMES = 32_768


class SealedBackend:
    """A `Backend` over another one that others can read and write.

    Entries are written under the first secret and found under all. Where there are several, a write also deletes what
    lies under the names of the others: it is outdated, and would be found when the newer entry has ended. What does not
    open is a miss, counted by the sealer. A value that is too large for an envelope is not stored, and what its key had
    before is deleted.

    Changes that the tier beneath tells by name are told by key here, as far as the key was asked for or written here
    as lately as memory above may remember; others are nobody's business here. Where too many names (`most_names` of a
    type) came in that time, a change of an unknown one is told as one of any key of its type.

    `ping` finds out whether other nodes seal with other secrets, and says so.
    """

    def __init__(self, backend: Backend, sealer: Sealer, clock: Clock, *, most_names: int = _MOST_NAMES) -> None:
        self._backend = backend
        self._sealer = sealer
        self._clock = clock
        self._now = clock.now
        self._most_names = most_names
        self._keys: KeysByName | None = None
        self._strangers = Strangers(backend, sealer, clock)

    @property
    def strangers(self) -> int:
        """How many sets of secrets were seen, 16 at most, that have none in common with those of this node."""
        return len(self._strangers)

    async def get(self, kind: CacheType, key: bytes) -> Entry | None:
        """Return the entry, None when there is none or it does not open."""
        names = self._names(kind, key)
        if len(names) > 1 or self._keys is not None:
            return (await self.get_many(kind, (key,))).get(key)
        return self._opened(kind, key, await self._backend.get(kind, names[0]))

    async def set(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, wait: bool | None = None) -> None:  # noqa: FBT001
        """Seal and store a copy of `value` until `expires_at`; an end in the past deletes the key.

        Raises:
            ValueError: `expires_at` is not a finite number.
            TypeError: `value` is not bytes-like.
            BackendUnavailable: as the tier beneath raises it.
        """
        entry = checked_entry(value, expires_at)
        name, *others = names = self._names(kind, key)
        self._remember(kind, dict.fromkeys(names, key))
        await self._delete_all(kind, others)
        blob = self._sealed(kind, key, entry)
        await self._backend.set(kind, name, blob.value, blob.expires_at, wait)

    async def add(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, version: int = 0) -> bool:
        """Seal and store as `set` does unless there is an entry; tell whether it was stored.

        Raises:
            ValueError: `expires_at` is not a finite number, or there is no such `version`.
            TypeError: `value` is not bytes-like, or `version` no integer.
            BackendUnavailable: as the tier beneath raises it.
        """
        entry = checked_entry(value, expires_at, version)
        if len(entry.value) > LARGEST_VALUE:
            return False
        name, *others = names = self._names(kind, key)
        if others and await self.get(kind, key) is not None:
            return False
        self._remember(kind, dict.fromkeys(names, key))
        return await self._backend.add(kind, name, *self._sealed(kind, key, entry))

    async def update(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, version: int) -> bool:
        """Replace an entry of a lower version, under the name where it lies; tell whether that was done.

        Raises:
            ValueError: `expires_at` is not a finite number, or there is no such `version`.
            TypeError: `value` is not bytes-like, or `version` no integer.
            BackendUnavailable: as the tier beneath raises it.
        """
        entry = checked_entry(value, expires_at, version)
        if len(entry.value) > LARGEST_VALUE:
            return False
        name, *others = names = self._names(kind, key)
        self._remember(kind, dict.fromkeys(names, key))
        if others:
            blobs = await self._backend.get_many(kind, (name, *others))
            opening = (every for every in (name, *others) if self._opened(kind, key, blobs.get(every)) is not None)
            name = next(opening, name)
        return await self._backend.update(kind, name, *self._sealed(kind, key, entry))

    async def delete(self, kind: CacheType, key: bytes) -> bool:
        """Delete the entry; tell whether there was one."""
        return await self._delete_all(kind, self._names(kind, key))

    async def exists(self, kind: CacheType, key: bytes) -> bool:
        """Tell whether there is an entry that opens."""
        return await self.get(kind, key) is not None

    async def clear(self, kind: CacheType) -> None:
        """Delete every entry of the type."""
        await self._backend.clear(kind)

    async def get_many(self, kind: CacheType, keys: Iterable[bytes]) -> dict[bytes, Entry]:
        """Return the entries that there are and that open, by key."""
        names_of, type_name = self._sealer.names, kind.name
        names = {name: key for key in dict.fromkeys(keys) for name in names_of(type_name, key)}
        known = self._keys
        if known is None:
            return await self._found(kind, names)
        with known.asking(kind, names):
            found = await self._found(kind, names)
            known.remember(kind, {name: key for name, key in names.items() if key in found})
        return found

    async def _found(self, kind: CacheType, names: Mapping[bytes, bytes]) -> dict[bytes, Entry]:
        """Return the entries under names that open, by key; of several names of a key the first one counts."""
        blobs = await self._backend.get_many(kind, names)
        found: dict[bytes, Entry] = {}
        open_, now = self._sealer.open, self._now()
        for name, key in names.items():
            blob = blobs.get(name)
            if blob is not None and key not in found:
                entry = open_(kind.name, key, blob.value, now, blob.version)
                if entry is not None:
                    found[key] = entry
        return found

    async def set_many(self, kind: CacheType, entries: Mapping[bytes, Entry], wait: bool | None = None) -> None:  # noqa: FBT001
        """Do what `set` does, for many, each with its version; when one of them is wrong, none is stored."""
        checked = {key: checked_entry(*entry) for key, entry in entries.items()}
        names = {key: self._names(kind, key) for key in checked}
        self._remember(kind, {name: key for key, some in names.items() for name in some})
        await self._delete_all(kind, [other for _, *others in names.values() for other in others])
        sealed = {names[key][0]: self._sealed(kind, key, entry) for key, entry in checked.items()}
        await self._backend.set_many(kind, sealed, wait)

    async def changes(self) -> AsyncGenerator[Change]:
        """Yield what others change, by key, as the tier beneath does; see `ChangingBackend.changes`."""
        beneath = changing(self._backend)
        if beneath is None:
            return
        keys = self._keys = (
            self._keys if self._keys is not None else KeysByName(self._clock.monotonic, self._most_names)
        )
        async with aclosing(beneath.changes()) as changes:
            async for change in changes:
                translated = keys.translate(change)
                if translated is not None:
                    yield translated

    def staleness(self) -> float | None:
        """Return how many seconds ago all changes had been yielded for certain; None: never yet, or nobody follows."""
        beneath = changing(self._backend)
        return beneath.staleness() if beneath is not None else None

    async def ping(self) -> Health:
        """Tell whether the tier beneath answers; the detail says so where other nodes have other secrets."""
        health = await self._backend.ping()
        if not health.healthy:
            return health
        await self._strangers.look()
        return Health(healthy=True, detail="; ".join(filter(None, (self._strangers.complaint, health.detail))))

    def stats(self) -> Mapping[str, Counts]:
        """Return the counts of the tier beneath; what did not open is in those of the sealer."""
        return self._backend.stats()

    async def suspend(self) -> None:
        """Have the tier beneath let go of what it holds."""
        await suspend(self._backend)

    async def close(self) -> None:
        """Close the tier beneath."""
        await self._backend.close()

    def _names(self, kind: CacheType, key: bytes) -> list[bytes]:
        """Return every name of an entry without namespace and type: the tier beneath knows those."""
        return self._sealer.names(kind.name, key)

    def _remember(self, kind: CacheType, names: Mapping[bytes, bytes]) -> None:
        """Remember the keys of the names of what is written: memory above has it, too."""
        if self._keys is not None:
            self._keys.remember(kind, names)

    async def _delete_all(self, kind: CacheType, names: Iterable[bytes]) -> bool:
        deleting = [self._backend.delete(kind, name) for name in names]
        if len(deleting) == 1:
            return await deleting[0]
        return any(await asyncio.gather(*deleting))

    def _sealed(self, kind: CacheType, key: bytes, entry: Entry) -> Entry:
        """Return what is stored instead of an entry; one that is not to be stored ends before it begins."""
        now = self._now()
        if not now < entry.expires_at or len(entry.value) > LARGEST_VALUE:
            return Entry(b"", min(entry.expires_at, now), entry.version)
        blob = self._sealer.seal(kind.name, key, entry.value, entry.expires_at, now, version=entry.version)
        return entry._replace(value=blob)

    def _opened(self, kind: CacheType, key: bytes, blob: Entry | None) -> Entry | None:
        return None if blob is None else self._sealer.open(kind.name, key, blob.value, self._now(), blob.version)
