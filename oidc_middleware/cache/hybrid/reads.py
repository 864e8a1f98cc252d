"""Reading from the shared tier: in batches, and into memory unless the key changed meanwhile."""

from __future__ import annotations

import asyncio
import math
from asyncio import Future
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from oidc_middleware.cache.backend import Entry
from oidc_middleware.cache.hybrid.delivery import failure_of
from oidc_middleware.cache.hybrid.placeholders import Note
from oidc_middleware.cache.hybrid.rooms import Room
from oidc_middleware.cache.hybrid.tiers import Tiers
from oidc_middleware.cache.reader import ReadBatcher
from oidc_middleware.cache.writer import GroupCommitWriter
from oidc_middleware.errors import BackendUnavailable

_Answer = Entry | BackendUnavailable | None


class Known(NamedTuple):
    """What this node knows of a key without asking: the entry, or that there is none."""

    entry: Entry | None


class Reads:
    """What memory does not have, read from the shared tier, over one event loop.

    Keys come with their prefix. A key whose write still waits has the value of that write, whatever the tier says.
    """

    def __init__(self, tiers: Tiers, writer: GroupCommitWriter) -> None:
        self._tiers = tiers
        self._writer = writer
        self._batcher: ReadBatcher[_Answer] = ReadBatcher(self._fetch, tiers.budget)

    def ask(self, full: bytes) -> Future[_Answer]:
        """Return a future of the entry that the tier has, None when it has none, for one caller alone to await.

        It fails with BackendUnavailable where the tier does not say.

        Raises:
            BackendUnavailable: it is not asked for now.
        """
        self._check()
        return self._batcher.read(full, hurried=self._tiers.standing.hangs)

    async def read_many(self, keys: Iterable[bytes]) -> tuple[dict[bytes, Entry], BackendUnavailable | None]:
        """Return the entries that there are, and why some of the keys could not be asked for."""
        found: dict[bytes, Entry] = {}
        far: list[bytes] = []
        for full in keys:
            known = self.known(full)
            if known is None:
                far.append(full)
            elif known.entry is not None:
                found[full] = known.entry
        if not far:
            return found, None
        try:
            self._check()
            answers = await self._batcher.read_many(far, hurried=self._tiers.standing.hangs)
        except BackendUnavailable as error:
            self._tiers.standing.suspect(error)
            return found, error
        failures = [answer for answer in answers if isinstance(answer, BackendUnavailable)]
        found |= {full: answer for full, answer in zip(far, answers, strict=True) if isinstance(answer, Entry)}
        return found, failures[0] if failures else None

    def known(self, full: bytes) -> Known | None:
        """Return what is known of a key without asking, None when nothing is."""
        write = self._writer.peek(full)
        if write is not None:
            return Known(
                self._alive(None if write.value is None else Entry(write.value, write.expires_at, write.version))
            )
        unsettled = self._tiers.unsettled
        if not unsettled:
            return None
        kept = self._alive(unsettled.served(full))
        return Known(kept) if kept is not None or unsettled.is_unknown(full) else None

    async def aclose(self) -> None:
        """Give up what is under way and read no more."""
        await self._batcher.aclose()

    def _check(self) -> None:
        standing = self._tiers.standing
        if not standing.reads.is_closed:
            raise standing.refusal(standing.reads)

    def _alive(self, entry: Entry | None) -> Entry | None:
        return entry if entry is not None and self._tiers.now() < entry.expires_at < math.inf else None

    async def _fetch(self, keys: Sequence[bytes]) -> Sequence[_Answer]:
        """Read a batch: what became known while the keys waited is not asked for."""
        self._check()
        answers: dict[bytes, _Answer] = {}
        by_type: dict[bytes, list[bytes]] = {}
        knows_some = bool(self._writer) or bool(self._tiers.unsettled)
        for full in keys:
            known = self.known(full) if knows_some else None
            if known is not None:
                answers[full] = known.entry
            else:
                by_type.setdefault(self._tiers.rooms.prefix_of(full), []).append(full)
        if len(by_type) == 1:
            (wanted,) = by_type.values()
            answers |= await self._ask(wanted)
        else:
            for found in await asyncio.gather(*map(self._ask, by_type.values())):
                answers |= found
        if knows_some or len(by_type) > 1:  # one of them may have ended while the others were waited for
            return [self._alive(answer) if isinstance(answer, Entry) else answer for answer in map(answers.get, keys)]
        return [answers[full] for full in keys]

    async def _ask(self, fulls: Sequence[bytes]) -> dict[bytes, _Answer]:
        """Ask for keys of one type; return what came of each."""
        tiers = self._tiers
        standing, (room, _) = tiers.standing, tiers.rooms.split(fulls[0])
        keys = [tiers.rooms.split(full)[1] for full in fulls]
        notes = list(map(tiers.placeholders.put, fulls))
        failure: BackendUnavailable | None = None
        entries: dict[bytes, Entry] = {}
        try:
            async with asyncio.timeout(tiers.budget):
                entries = await tiers.shared.get_many(room.kind, keys)
        except Exception as error:  # noqa: BLE001  whatever a tier raises belongs to those who asked
            failure = failure_of(error)
        finally:
            stand = list(map(tiers.placeholders.take, fulls, notes))
        standing.report(standing.reads, failure)
        if failure is not None:
            return dict.fromkeys(fulls, failure)
        return {
            full: self._arrive(room, key, self._alive(entries.get(key)), note if stands else None)
            for full, key, note, stands in zip(fulls, keys, notes, stand, strict=True)
        }

    def _arrive(self, room: Room, key: bytes, entry: Entry | None, note: Note | None) -> Entry | None:
        """Fill memory with an answer unless there is something newer, here or elsewhere; return the newest known here.

        Who asked did so before another node's change was known here: the answer is good for him, and not to be kept.
        """
        memory = self._tiers.memory
        if note is None:
            known = self.known(room.prefix + key)
            return known.entry if known is not None else memory.find(room.kind, key)
        if entry is not None and not note.is_outdated and not memory.holds(room.kind, key):
            room.fills += 1
            memory.fill(room.kind, key, entry)
        return entry
