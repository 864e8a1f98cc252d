"""Write back what the store has lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from oidc_middleware.core.ledger.records import Record
from oidc_middleware.core.replica.mirror import Mirror, covers, is_over

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
        self._is_shown_all = False
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
        self._is_shown_all = False
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
        self._is_shown_all = True
        if self._shown is not None:
            self._is_walking = True
            self._after = None
            self._is_at_end = False
            self._pause = _LONGEST_PAUSE
            self.due = now
        self._bring(now)

    def add(self, records: Sequence[Record], now: float) -> None:
        """Bring back some more, unless the store shows them before their turn comes: no walk will meet them."""
        self._found += records
        if self._is_shown_all:
            self._bring(now)

    def _bring(self, now: float) -> None:
        if self._shown is None and self._found:
            self._shown = self._new_mirror()
            self._is_walking = self._is_at_end = True
            self._pause = _LONGEST_PAUSE
            self.due = now + self._pause * self._random()

    def next(self, now: float, wall: float) -> Sequence[Record]:
        """Go on by a slice; return what to write back now, if anything. `shown` or `walk` says what becomes of it."""
        if now < self.due:
            return ()
        if self._is_at_end or len(self._found) >= _BATCH:
            return self._take(now, wall)
        if slice_ := self._mirror.records(self._after, _SLICE):
            self._after = slice_[-1]
            self._found += self._missing(slice_, wall)
        else:
            self._is_at_end = True
        self._pause_before_writing(now)
        return ()

    def failed(self, records: Sequence[Record], now: float) -> None:
        """Write a batch again, later."""
        if self._is_walking:
            self._found = [*records, *self._found]
            self.due = now + _LONGEST_PAUSE * self._random()

    def _take(self, now: float, wall: float) -> Sequence[Record]:
        found, self._found = self._found[:_BATCH], self._found[_BATCH:]
        missing = list(self._missing(found, wall))
        if found:
            is_first = 2 * len(missing) > len(found)
            self._pause = max(_SHORTEST_PAUSE, self._pause / 2) if is_first else _LONGEST_PAUSE
        if self._is_at_end and not missing and not self._found:
            self.stop()
        else:
            self._pause_before_writing(now)
        return missing

    def _pause_before_writing(self, now: float) -> None:
        if self._found and (self._is_at_end or len(self._found) >= _BATCH):
            self.due = now + self._pause * self._random()

    def _missing(self, records: Iterable[Record], wall: float) -> Iterator[Record]:
        shown = self._shown
        if shown is None:
            return
        for record in records:
            if not is_over(record, wall) and not covers(shown.find(*record[:3]), record):
                yield record
