"""A shared tier that learns nothing: names are keyed digests, values are sealed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from oidc_middleware.cache.backend import Backend, Counts, Entry, Health, checked_end, checked_value, suspend
from oidc_middleware.cache.envelope import LARGEST_VALUE, Sealer
from oidc_middleware.cache.types import CacheType
from oidc_middleware.clock import Clock


class SealedBackend:
    """A `Backend` over another one that others can read and write.

    Entries are written under the first secret and found under all. Where there are several, a write also deletes what
    lies under the names of the others: it is outdated, and would be found when the newer entry has ended. What does not
    open is a miss, counted by the sealer. A value that is too large for an envelope is not stored, and what its key had
    before is deleted.
    """

    def __init__(self, backend: Backend, sealer: Sealer, clock: Clock) -> None:
        self._backend = backend
        self._sealer = sealer
        self._now = clock.now

    async def get(self, kind: CacheType, key: bytes) -> Entry | None:
        """Return the entry, None when there is none or it does not open."""
        name, *others = self._names(kind, key)
        if others:
            return (await self.get_many(kind, (key,))).get(key)
        return self._opened(kind, key, await self._backend.get(kind, name))

    async def set(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, wait: bool | None = None) -> None:  # noqa: FBT001
        """Seal and store a copy of `value` until `expires_at`; an end in the past deletes the key.

        Raises:
            ValueError: `expires_at` is not a finite number.
            TypeError: `value` is not bytes-like.
            BackendUnavailable: as the tier beneath raises it.
        """
        entry = Entry(checked_value(value), checked_end(expires_at))
        name, *others = self._names(kind, key)
        await self._delete_all(kind, others)
        await self._backend.set(kind, name, *self._sealed(kind, key, entry), wait)

    async def add(self, kind: CacheType, key: bytes, value: bytes, expires_at: float) -> bool:
        """Seal and store as `set` does unless there is an entry; tell whether it was stored.

        Raises:
            ValueError: `expires_at` is not a finite number.
            TypeError: `value` is not bytes-like.
            BackendUnavailable: as the tier beneath raises it.
        """
        entry = Entry(checked_value(value), checked_end(expires_at))
        if len(entry.value) > LARGEST_VALUE:
            return False
        name, *others = self._names(kind, key)
        if others and await self.get(kind, key) is not None:
            return False
        return await self._backend.add(kind, name, *self._sealed(kind, key, entry))

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
        names = {key: self._names(kind, key) for key in keys}
        blobs = await self._backend.get_many(kind, [name for some in names.values() for name in some])
        found: dict[bytes, Entry] = {}
        for key, some in names.items():
            opened = (self._opened(kind, key, blobs.get(name)) for name in some)
            entry = next((entry for entry in opened if entry is not None), None)
            if entry is not None:
                found[key] = entry
        return found

    async def set_many(self, kind: CacheType, entries: Mapping[bytes, Entry], wait: bool | None = None) -> None:  # noqa: FBT001
        """Do what `set` does, for many; when one of them is wrong, none is stored."""
        checked = {key: Entry(checked_value(value), checked_end(end)) for key, (value, end) in entries.items()}
        names = {key: self._names(kind, key) for key in checked}
        await self._delete_all(kind, [other for _, *others in names.values() for other in others])
        sealed = {names[key][0]: self._sealed(kind, key, entry) for key, entry in checked.items()}
        await self._backend.set_many(kind, sealed, wait)

    async def ping(self) -> Health:
        """Tell whether the tier beneath answers."""
        return await self._backend.ping()

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
        return [name[self._beginning(kind) :] for name in self._sealer.digests(kind.name, key)]

    def _beginning(self, kind: CacheType) -> int:
        return len(self._sealer.namespace) + len(kind.name) + 2

    async def _delete_all(self, kind: CacheType, names: Iterable[bytes]) -> bool:
        deleting = [self._backend.delete(kind, name) for name in names]
        if len(deleting) == 1:
            return await deleting[0]
        return any(await asyncio.gather(*deleting))

    def _sealed(self, kind: CacheType, key: bytes, entry: Entry) -> Entry:
        """Return what is stored instead of an entry; one that is not to be stored ends before it begins."""
        now = self._now()
        if not now < entry.expires_at or len(entry.value) > LARGEST_VALUE:
            return Entry(b"", min(entry.expires_at, now))
        return Entry(self._sealer.seal(kind.name, key, entry.value, entry.expires_at, now), entry.expires_at)

    def _opened(self, kind: CacheType, key: bytes, blob: Entry | None) -> Entry | None:
        return None if blob is None else self._sealer.open(kind.name, key, blob.value, self._now())
