"""Writing what depends on what is there: adding where there is nothing, and replacing an older version."""

from __future__ import annotations

from oidc_middleware.cache.backend import Entry
from oidc_middleware.cache.hybrid.reads import Reads
from oidc_middleware.cache.hybrid.rooms import Room
from oidc_middleware.cache.hybrid.tiers import Tiers
from oidc_middleware.cache.hybrid.writes import Writes
from oidc_middleware.errors import BackendUnavailable


class Conditional:
    """`add` and `update` over one event loop: the shared tier decides, after everything that waits to be written.

    Of the types that are irreplaceable, what the shared tier did not acknowledge is kept, and sent when it is back.
    """

    def __init__(self, tiers: Tiers, reads: Reads, writes: Writes) -> None:
        self._tiers = tiers
        self._reads = reads
        self._writes = writes

    async def add(self, room: Room, key: bytes, entry: Entry) -> bool:
        """Add an entry to both tiers, to memory unless the key changed meanwhile; tell whether it was new.

        Raises:
            BackendUnavailable: nobody knows whether it was added.
        """
        tiers, full = self._tiers, room.prefix + key
        if not tiers.now() < entry.expires_at or await tiers.memory.exists(room.kind, key):
            return False
        known = self._reads.known(full)
        if known is not None and known.entry is not None:
            return False
        try:
            if known is not None:
                await self._writes.delete(full)
            return await self._add(room, key, entry)
        except BackendUnavailable:
            if self._may_keep(room, full) and not await tiers.memory.exists(room.kind, key):
                await tiers.memory.set_many(room.kind, {key: entry})
                tiers.unsettled.must_add(full, entry)
            raise

    def _may_keep(self, room: Room, full: bytes) -> bool:
        """Tell whether an entry that was not added is kept: not while what is there is still to be deleted.

        It would be taken for one that others added since, and come back. What is revoked may: it is revoked again.
        """
        if self._tiers.unsettled.is_to_be_deleted(full) and room.kind.coherence != "replicated":
            return False
        return room.kind.name in self._tiers.irreplaceable

    async def _add(self, room: Room, key: bytes, entry: Entry) -> bool:
        tiers, full = self._tiers, room.prefix + key
        note = tiers.placeholders.put(full)
        try:
            added = await self._writes.try_to_add(room, key, entry)
        finally:
            is_newest = tiers.placeholders.take(full, note) and not note.is_outdated
        if added and is_newest:
            await tiers.memory.set_many(room.kind, {key: entry})
        return added

    async def update(self, room: Room, key: bytes, entry: Entry) -> bool:
        """Put an entry in the place of an older version in both tiers; tell whether that was done.

        Memory has it at once if it had an older one. If the shared tier then has none to replace, memory lets go of it.

        Raises:
            BackendUnavailable: nobody knows whether it was done.
        """
        tiers, full = self._tiers, room.prefix + key
        if not tiers.now() < entry.expires_at or not self._may_update(room, key, entry):
            return False
        lives = self._reads.known(full) is not None or tiers.memory.version_of(room.kind, key) is not None
        note = tiers.placeholders.put_update(full)
        await tiers.memory.update(room.kind, key, *entry)
        stored = False
        failure: BackendUnavailable | None = None
        try:
            stored = await self._update(room, key, entry)
        except BackendUnavailable as error:
            failure = error
        finally:
            is_unchanged = tiers.placeholders.take_update(full, note)
        if failure is not None:
            if is_unchanged:
                self._account_for(room, full, entry, lives=lives)
            raise failure
        kept = tiers.unsettled.kept(full)
        if kept is not None and kept.version <= entry.version:
            tiers.unsettled.discard(full)
        if not (stored and is_unchanged) or note.is_outdated:
            tiers.memory.expire(room.kind, key)
        elif (tiers.memory.version_of(room.kind, key) or 0) <= entry.version:
            await tiers.memory.set_many(room.kind, {key: entry})
        return stored

    def _may_update(self, room: Room, key: bytes, entry: Entry) -> bool:
        """Tell whether nothing stands against an update that is known here: a deletion, or a version as high."""
        known = self._reads.known(room.prefix + key)
        versions = [self._tiers.memory.version_of(room.kind, key)]
        if known is not None:
            if known.entry is None:
                return False
            versions.append(known.entry.version)
        return all(version is None or version < entry.version for version in versions)

    async def _update(self, room: Room, key: bytes, entry: Entry) -> bool:
        writer = self._writes.writer
        if writer.peek(room.prefix + key) is not None:
            await writer.flush()
        return await self._writes.make_up(room, key, entry)

    def _account_for(self, room: Room, full: bytes, entry: Entry, *, lives: bool) -> None:
        """Account for an update that failed or whose outcome is unknown.

        To send it again changes nothing if it was done. What has another source is to be deleted instead.
        """
        unsettled = self._tiers.unsettled
        if room.kind.name in self._tiers.irreplaceable:
            unsettled.must_update(full, entry, lives=lives)
        elif not unsettled.must_delete(full):
            unsettled.must_clear(room.prefix)
        self._tiers.standing.ring()
