"""Writing to the shared tier: in order, in batches, and with an account of what was lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from oidc_middleware.cache.backend import Entry
from oidc_middleware.cache.changes import Change
from oidc_middleware.cache.hybrid.delivery import Results, deliver, failure_of
from oidc_middleware.cache.hybrid.rooms import Room
from oidc_middleware.cache.hybrid.tiers import Tiers
from oidc_middleware.cache.writer import GroupCommitWriter, Write
from oidc_middleware.errors import BackendUnavailable

_LOGGER = logging.getLogger("oidc_middleware.cache")

OnWritten = Callable[[Sequence[Change]], None]


class Writes:
    """The ordered writer of one event loop, and what becomes of its batches. Keys come with their prefix."""

    def __init__(self, tiers: Tiers, queue_size: int, queue_bytes: int, on_written: OnWritten | None) -> None:
        self._tiers = tiers
        self._on_written = on_written
        self.writer: GroupCommitWriter = GroupCommitWriter(
            self._send, tiers.budget, max_items=queue_size, max_bytes=queue_bytes, on_lost=self._account_for
        )

    async def try_to_add(self, room: Room, key: bytes, entry: Entry) -> bool:
        """Add an entry to the shared tier alone; tell whether it was new there.

        Raises:
            BackendUnavailable: nobody knows whether it was added.
        """
        return await self._try(room, key, lambda: self._tiers.shared.add(room.kind, key, *entry))

    async def try_to_update(self, room: Room, key: bytes, entry: Entry) -> bool:
        """Put an entry in the place of an older version in the shared tier alone; tell whether there was one.

        Raises:
            BackendUnavailable: nobody knows whether it was done.
        """
        return await self._try(room, key, lambda: self._tiers.shared.update(room.kind, key, *entry))

    async def make_up(self, room: Room, key: bytes, entry: Entry) -> bool:
        """Add an entry that is kept as one to be added, or put it in the place of an older version.

        Of one whose birth has an unknown outcome the tier may have an older version. Returns whether it has this one.

        Raises:
            BackendUnavailable: nobody knows.
        """
        if self._tiers.unsettled.is_born(room.prefix + key) and await self.try_to_add(room, key, entry):
            return True
        return entry.version > 0 and await self.try_to_update(room, key, entry)

    async def _try(self, room: Room, key: bytes, work: Callable[[], Awaitable[bool]]) -> bool:
        tiers, standing = self._tiers, self._tiers.standing
        if not standing.writes.is_closed:
            raise standing.refusal(standing.writes)
        failure: BackendUnavailable | None = None
        stored = False
        try:
            async with asyncio.timeout(tiers.patience):
                stored = await work()
        except Exception as error:  # noqa: BLE001  whatever a tier raises belongs to who asked
            failure = failure_of(error)
        standing.report(standing.writes, failure)
        if failure is not None:
            raise failure
        if stored:
            room.writes += 1
            self.tell([Change(room.kind.name, frozenset({key}))])
        return stored

    async def delete(self, full: bytes) -> None:
        """Delete a key in the shared tier, after everything that waits to be written.

        Raises:
            BackendUnavailable: it was not acknowledged.
        """
        await self.write([Write(full, None)], wait=True)

    async def store(self, room: Room, entries: Mapping[bytes, Entry], *, wait: bool) -> None:
        """Store entries in memory, then in the shared tier; what memory cannot keep is deleted in both.

        Raises:
            BackendUnavailable: one was not acknowledged, or found no room; memory has it.
        """
        tiers, kind = self._tiers, room.kind
        droppable = kind.name not in tiers.irreplaceable
        writes = []
        for key, entry in entries.items():
            full, value = room.prefix + key, entry.value if tiers.keeps(kind, entry) else None
            tiers.placeholders.drop(full)
            tiers.memory.fill(kind, key, entry)
            writes.append(Write(full, value, entry.expires_at, version=entry.version, droppable=droppable))
        await self.write(writes, wait=wait)

    async def write(self, writes: Sequence[Write], *, wait: bool) -> bool:
        """Hand writes to the writer in one go; with `wait` return when they are done.

        Returns whether there was something before, where a single write asks for that.

        Raises:
            BackendUnavailable: one was not acknowledged, or found no room.
        """
        standing = self._tiers.standing
        try:
            if len(writes) == 1:
                return await self.writer.write(writes[0], wait=wait, hurried=standing.hangs)
            await self.writer.write_many(writes, wait=wait, hurried=standing.hangs)
        except BackendUnavailable as error:
            standing.suspect(error)
            raise
        return False

    async def _send(self, writes: Sequence[Write]) -> Results:
        tiers = self._tiers
        standing = tiers.standing
        if not standing.writes.is_closed:
            results: Results = [standing.refusal(standing.writes)] * len(writes)
        else:
            results = await deliver(tiers.shared, tiers.rooms, writes, tiers.budget)
            failures = [result for result in results if isinstance(result, BackendUnavailable)]
            telling = next((failure for failure in failures if failure.kind != "refused"), None)
            standing.report(standing.writes, telling or (failures[0] if failures else None))
        done = [
            write for write, result in zip(writes, results, strict=True) if not isinstance(result, BackendUnavailable)
        ]
        for write in done:
            tiers.unsettled.discard(write.key)
            tiers.rooms.split(write.key)[0].writes += 1
        self._tell_of(done)
        return results

    def _account_for(self, writes: Sequence[Write], _: BackendUnavailable) -> None:
        for write in writes:
            self._lose(write)
        self._tiers.standing.ring()

    def _lose(self, write: Write) -> None:
        """Account for a write that failed or whose outcome is unknown.

        What has another source is to be deleted, so that nobody reads what is outdated. Of the rest, revocations and
        what was born while the tier was away are kept until they can be added; what was changed stays what it was, for
        to delete it would end a session.
        """
        tiers = self._tiers
        room, _ = tiers.rooms.split(write.key)
        if write.value is not None and room.kind.name in tiers.irreplaceable:
            if room.kind.coherence == "replicated" or tiers.unsettled.is_born(write.key):
                tiers.unsettled.must_add(write.key, Entry(write.value, write.expires_at, write.version))
        elif not tiers.unsettled.must_delete(write.key) and room.kind.coherence != "replicated":
            tiers.unsettled.must_clear(room.prefix)

    def _tell_of(self, writes: Sequence[Write]) -> None:
        keys: dict[str, list[bytes]] = {}
        for write in writes if self._on_written is not None else ():
            room, key = self._tiers.rooms.split(write.key)
            keys.setdefault(room.kind.name, []).append(key)
        if keys:
            self.tell([Change(kind, frozenset(changed)) for kind, changed in keys.items()])

    def tell(self, changes: Sequence[Change]) -> None:
        """Tell what was changed in the shared tier."""
        if self._on_written is None:
            return
        try:
            self._on_written(changes)
        except Exception:
            _LOGGER.exception("whoever passes changes on failed")
