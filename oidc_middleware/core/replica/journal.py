"""Keep the revocations of this host on its disk, and hear of those that its other processes keep."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeAlias

from oidc_middleware.core.ledger.records import GRACE, Record
from oidc_middleware.core.replica.backoff import Backoff
from oidc_middleware.core.replica.events import (
    Acknowledge,
    JournalCommand,
    Keep,
    Kept,
    LoadJournal,
    ReadJournal,
    Receipt,
    Revoked,
    SweepJournal,
)
from oidc_middleware.core.replica.mirror import join
from oidc_middleware.core.replica.writer import Thing

BATCH = 500
"""Records of one transaction, at most, unless one revocation alone has more."""
LARGEST = 100_000
"""How many records may wait in the background; the oldest are given up then, for memory is finite."""
NEWS_EVERY = 0.1
"""Seconds between readings while the store does not tell what other processes do."""
NEWS_EVERY_WHEN_WELL = 5.0
_SWEEP_EVERY = 60.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0

Queue: TypeAlias = OrderedDict[Thing, Record]


class Journaling:
    """What has to go to the journal: what somebody waits for first, the rest in the background.

    `receipts` is where the receipts go of those who waited.
    """

    def __init__(self, random: Callable[[], float], receipts: list[Receipt], *, has_journal: bool) -> None:
        self.has_journal = has_journal
        self.is_loaded: bool = not has_journal
        """Whether all that it had was told."""
        self.is_tried: bool = not has_journal
        """Whether it was loaded, or cannot be for now."""
        self.given_up: int = 0
        """How many records never got into the journal, because it failed for so long."""
        self._receipts = receipts
        self._backoff = Backoff(random, _FIRST_PAUSE, _LONGEST_PAUSE)
        self._urgent: deque[Revoked] = deque()
        # Unacknowledged records that should be in the journal and are not, acknowledged ones that should be, and those
        # that are there without their acknowledgement.
        self._lacking: Queue = OrderedDict()
        self._shared: Queue = OrderedDict()
        self._acknowledged: Queue = OrderedDict()
        self._under_way: JournalCommand | None = None
        self._tickets: list[Hashable] = []
        self._read_at = -math.inf
        self._sweep_at = -math.inf

    @property
    def pending(self) -> int:
        """How many records wait."""
        return len(self._urgent) + len(self._tickets) + sum(map(len, self._queues))

    @property
    def _queues(self) -> tuple[Queue, Queue, Queue]:
        return self._lacking, self._shared, self._acknowledged

    def keep(self, revoked: Revoked) -> None:
        """Keep what the store may not have; a receipt follows."""
        if self.has_journal:
            self._urgent.append(revoked)
        else:
            self._receipts.append(Receipt(revoked.ticket, "local"))

    def keep_shared(self, records: Iterable[Record]) -> None:
        """Keep what the store has, in the background."""
        self._put(self._shared, records)

    def acknowledge(self, records: Iterable[Record]) -> None:
        """Note of what was kept that the store has it by now."""
        for record in records:
            lacking = self._lacking.pop(record[:3], None)
            self._put(self._acknowledged if lacking is None else self._shared, [record])

    def next(self, now: float, wall: float, *, is_well: bool) -> JournalCommand | None:
        """Return what to do now, if anything."""
        if not self.has_journal or self._under_way is not None:
            return None
        self._under_way = self._take_urgent() or self._take_quiet(now, wall, is_well=is_well)
        return self._under_way

    def due(self, now: float, *, is_well: bool) -> float:
        """When there is something to do; infinity if there never is, or an answer is awaited."""
        if not self.has_journal or self._under_way is not None:
            return math.inf
        if self._urgent:
            return now
        if not self.is_loaded or any(self._queues):
            return max(now, self._backoff.until)
        return max(self._backoff.until, min(self._read_at + self._news_every(is_well=is_well), self._sweep_at))

    def done(self) -> None:
        """Take in that it is on the disk."""
        self._backoff.succeeded()
        self._answer("journaled")
        self._under_way = None

    def told(self) -> None:
        """Take in that it told what it has, or what is new."""
        self._backoff.succeeded()
        self.is_loaded = self.is_tried = True
        self._under_way = None

    def failed(self, now: float) -> None:
        """Take in that it failed: who waits learns it, the rest is tried again."""
        command, self._under_way = self._under_way, None
        self._backoff.failed(now)
        self._answer("local")
        match command:
            case LoadJournal():
                self.is_tried = True
            case Keep(records, is_acknowledged):
                self._put(self._shared if is_acknowledged else self._lacking, records)
            case Acknowledge(records):
                self._put(self._acknowledged, records)
            case _:
                pass

    def _answer(self, kept: Kept) -> None:
        self._receipts += [Receipt(ticket, kept) for ticket in self._tickets]
        self._tickets = []

    def _put(self, queue: Queue, records: Iterable[Record]) -> None:
        if not self.has_journal:
            return
        for record in records:
            thing = record[:3]
            queue[thing] = join(queue.get(thing), record)
        while len(queue) > LARGEST:
            queue.popitem(last=False)
            self.given_up += 1

    def _take_urgent(self) -> Keep | None:
        records: list[Record] = []
        while self._urgent and (not records or len(records) + len(self._urgent[0].records) <= BATCH):
            revoked = self._urgent.popleft()
            records += revoked.records
            self._tickets.append(revoked.ticket)
        return Keep(records, is_acknowledged=False) if self._tickets else None

    def _take_quiet(self, now: float, wall: float, *, is_well: bool) -> JournalCommand | None:
        if now < self._backoff.until:
            return None
        if not self.is_loaded:
            return LoadJournal()
        if now >= self._read_at + self._news_every(is_well=is_well):
            self._read_at = now
            return ReadJournal()
        if self._lacking:
            return Keep(_take(self._lacking), is_acknowledged=False)
        if self._shared:
            return Keep(_take(self._shared), is_acknowledged=True)
        if self._acknowledged:
            return Acknowledge(_take(self._acknowledged))
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_EVERY
            return SweepJournal(wall - GRACE)
        return None

    @staticmethod
    def _news_every(*, is_well: bool) -> float:
        return NEWS_EVERY_WHEN_WELL if is_well else NEWS_EVERY


def _take(queue: Queue) -> Sequence[Record]:
    return [queue.popitem(last=False)[1] for _ in range(min(BATCH, len(queue)))]
