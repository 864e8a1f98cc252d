"""Bring revocations to the store: one write at a time, and what waits meanwhile leaves together."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple, TypeAlias

from oidc_middleware.core.ledger.records import Kind, Record
from oidc_middleware.core.replica.events import Revoked, Write
from oidc_middleware.core.replica.line import Mark
from oidc_middleware.core.replica.mirror import covers, is_over, join
from oidc_middleware.core.replica.outlook import Outlook

BATCH = 500
"""Records of a write, at most, unless one revocation alone has more."""

Thing: TypeAlias = tuple[Kind, bytes, int]


class Batch(NamedTuple):
    """What is on the wire: records, who waits for them, and where the line was."""

    records: Sequence[Record]
    revoked: Sequence[Revoked]
    is_healing: bool
    asked_at: Mark | None


class Writer:
    """Hold what the store has not acknowledged, and the order in which it goes there.

    New revocations first, with them what failed before, then what is written back. While the store is not to be
    counted on nobody waits for it: what comes is unacknowledged at once.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self.outlook: Outlook = Outlook(random)
        self.unacknowledged: OrderedDict[Thing, Record] = OrderedDict()
        self._waiting: deque[Revoked] = deque()
        self._on_wire: Batch | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is awaited."""
        return self._on_wire is not None

    @property
    def pending(self) -> int:
        """How many revocations wait for the store, and how many records are on the wire."""
        return len(self._waiting) + (len(self._on_wire.records) if self._on_wire else 0)

    def due(self, now: float, healing_due: float) -> float:
        """When there may be something to write, unless an event says so; `healing_due` is when the healer has more."""
        if self._on_wire is not None:
            return math.inf
        due = now if self.unacknowledged else healing_due
        return due if self.outlook.may_repeat(now) else max(due, self.outlook.due(now))

    def revoked(self, revoked: Revoked, now: float) -> bool:
        """Take in a revocation; False if nobody should wait for the store: it is unacknowledged then."""
        if self._may_wait(now):
            self._waiting.append(revoked)
            return True
        self.repeat(revoked.records)
        return False

    def repeat(self, records: Sequence[Record]) -> None:
        """Write these until the store acknowledges them."""
        for record in records:
            thing = record[:3]
            self.unacknowledged[thing] = join(self.unacknowledged.get(thing), record)

    def next(self, now: float, wall: float, asked_at: Mark | None) -> Write | None:
        """Return what to write now, if anything."""
        if self._on_wire is not None:
            return None
        records: list[Record] = []
        revoked: list[Revoked] = []
        while self._waiting and (not records or len(records) + len(self._waiting[0].records) <= BATCH):
            revoked.append(self._waiting.popleft())
            records += revoked[-1].records
        if self.unacknowledged and self.outlook.may_repeat(now):
            self.forget_ended(wall, BATCH)
            records += islice(self.unacknowledged.values(), max(0, BATCH - len(records)))
        return self.send(records, revoked, asked_at) if records else None

    def send(
        self, records: Sequence[Record], revoked: Sequence[Revoked], asked_at: Mark | None, *, is_healing: bool = False
    ) -> Write:
        """Put records on the wire."""
        self._on_wire = Batch(records, revoked, is_healing, asked_at)
        return Write(records)

    def written(self) -> Batch:
        """Take in that the store has the batch; return it."""
        self.outlook.written()
        return self._take_from_wire()

    def failed(self, now: float) -> Batch:
        """Take in that nobody knows about the batch; return it. Its records are unacknowledged, unless they heal."""
        self.outlook.write_failed(now)
        batch = self._take_from_wire()
        if not batch.is_healing:
            self.repeat(batch.records)
        return batch

    def shared(self, records: Sequence[Record]) -> list[Record]:
        """Take in that the store has these; return those that were unacknowledged."""
        if not self.unacknowledged:
            return []
        return [known for record in records if (known := self._shared(record)) is not None]

    def _shared(self, record: Record) -> Record | None:
        known = self.unacknowledged.get(record[:3])
        if known is None or not covers(record, known):
            return None
        return self.unacknowledged.pop(record[:3])

    def turn_away(self, now: float) -> list[Revoked]:
        """Return those who wait for the store while nobody should; they are unacknowledged then."""
        if self._may_wait(now):
            return []
        turned_away = list(self._waiting)
        self._waiting.clear()
        for revoked in turned_away:
            self.repeat(revoked.records)
        return turned_away

    def forget_ended(self, wall: float, at_most: int) -> None:
        """Drop what ended long ago, among those that wait for the longest time."""
        for _ in range(min(at_most, len(self.unacknowledged))):
            thing, record = next(iter(self.unacknowledged.items()))
            if is_over(record, wall):
                del self.unacknowledged[thing]
            else:
                self.unacknowledged.move_to_end(thing)

    def _may_wait(self, now: float) -> bool:
        return self.outlook.is_closed or (self._on_wire is None and self.outlook.may_repeat(now))

    def _take_from_wire(self) -> Batch:
        batch = self._on_wire
        if batch is None:
            raise RuntimeError("nothing was written")
        self._on_wire = None
        return batch
