"""Write back what the store has lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from oidc_middleware.core.ledger.records import GRACE, Record
from oidc_middleware.core.replica.mirror import Mirror, covers

LATEST = GRACE // 2
"""Seconds after its end until which a record is written back.

Half of what the store keeps it for: a store whose clock is ahead would sweep it at once, and be healed again.
"""
_SLICE = 500
_BATCH = 500
_LONGEST_PAUSE = 2.0
_SHORTEST_PAUSE = 0.01


class Healer:
    """Walk through the mirror after a load, for what was neither shown by the scan nor told by the log since.

    Many nodes find the same to be lost. Each batch waits for a random time, and what others have written meanwhile is
    left out. Whoever was first has shorter pauses from then on, the others longer ones: one leads, at full speed, and
    when it dies another one does.
    """

    def __init__(self, mirror: Mirror, new_mirror: Callable[[], Mirror], random: Callable[[], float]) -> None:
        self._mirror = mirror
        self._new_mirror = new_mirror
        self._random = random
        self._shown: Mirror | None = None
        self._is_walking = False
        self._after: Record | None = None
        self._found: list[Record] = []
        self._is_at_end = False
        self._pause = _LONGEST_PAUSE
        self.due: float = math.inf
        """When there is something to do; infinity while it does not walk."""

    @property
    def is_busy(self) -> bool:
        """Whether something may be left to be written back."""
        return self._shown is not None

    @property
    def found(self) -> int:
        """How many records are known to be missing so far: a batch at most."""
        return len(self._found)

    def begin(self, *, is_needed: bool) -> None:
        """Note from now on what the store is known to have, unless there is nothing that it could lack."""
        self.stop()
        self._shown = self._new_mirror() if is_needed else None

    def stop(self) -> None:
        """Forget what the store is known to have: nobody knows any more."""
        self._shown = None
        self._is_walking = False
        self._found = []
        self.due = math.inf

    def shown(self, records: Sequence[Record]) -> None:
        """Note that the store has these."""
        if self._shown is not None:
            self._shown.merge(records)

    def walk(self, now: float) -> None:
        """Begin to look for what is missing: the store has shown everything."""
        if self._shown is not None:
            self._is_walking = True
            self._after = None
            self._is_at_end = False
            self._pause = _LONGEST_PAUSE
            self.due = now

    def next(self, now: float, wall: float) -> Sequence[Record]:
        """Go on by a slice; return what to write back now, if anything. `shown` or `walk` says what becomes of it."""
        if now < self.due:
            return ()
        if self._is_at_end or len(self._found) >= _BATCH:
            return self._take()
        if slice_ := self._mirror.records(self._after, _SLICE):
            self._after = slice_[-1]
            self._found += self._missing(record for record in slice_ if record.end + LATEST > wall)
        else:
            self._is_at_end = True
        if self._found and (self._is_at_end or len(self._found) >= _BATCH):
            self.due = now + self._pause * self._random()
        return ()

    def failed(self, records: Sequence[Record], now: float) -> None:
        """Write a batch again, later."""
        if self._is_walking:
            self._found = [*records, *self._found]
            self.due = now + _LONGEST_PAUSE * self._random()

    def _take(self) -> Sequence[Record]:
        found, self._found = self._found, []
        missing = list(self._missing(found))
        if found:
            is_first = 2 * len(missing) > len(found)
            self._pause = max(_SHORTEST_PAUSE, self._pause / 2) if is_first else _LONGEST_PAUSE
        if self._is_at_end and not missing:
            self.stop()
        return missing

    def _missing(self, records: Iterable[Record]) -> Iterator[Record]:
        shown = self._shown
        if shown is None:
            return
        for record in records:
            if not covers(shown.find(record.kind, record.key_id, record.digest), record):
                yield record
