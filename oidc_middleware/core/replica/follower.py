"""Follow the log of a store, and say since when everything in it is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from oidc_middleware.core.ledger.records import LogEntry, Position, Record
from oidc_middleware.core.replica.backoff import Backoff
from oidc_middleware.core.replica.events import FollowCommand, Look, Read
from oidc_middleware.core.replica.line import Line, Mark

LOOK_EVERY = 0.5
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0


class Follower:
    """Look where the log is, read on to there, and again: one question at a time.

    Each look begins before half a second has passed since the last one, also while entries flow all the time. Looks
    alone prove something: the answer to a read shows what there is, never that there is no more.

    When anything does not fit the line, the line is given up; the next look begins another.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self.line: Line | None = None
        self.reached_at: float | None = None
        """When the last look was sent whose position was reached on this line."""
        self._backoff = Backoff(random, _FIRST_PAUSE, _LONGEST_PAUSE)
        self._detours = Backoff(random, _FIRST_PAUSE, _LONGEST_PAUSE)
        self._is_asking = False
        self._asked_at: Mark | None = None
        self._sent_at = 0.0
        self._must_read = False
        # Where looks found the log, and when they were sent: of those ahead, the oldest and the newest.
        self._goals: list[tuple[int, float]] = []

    def next(self, now: float) -> FollowCommand | None:
        """Return what to ask now, if anything."""
        if now < self.due:
            return None
        self._is_asking = True
        self._asked_at = self.mark()
        left = self._sent_at + LOOK_EVERY - now
        if self.line is not None and (self._must_read or left > 0):
            self._must_read = False
            return Read(self.line.position, 0.0 if self._goals else max(0.0, left))
        self._sent_at = now
        return Look()

    @property
    def due(self) -> float:
        """When there is something to ask; infinity if an answer is awaited."""
        if self._is_asking:
            return math.inf
        return self._backoff.until if self.line is not None else max(self._backoff.until, self._detours.until)

    def looked(self, position: Position, now: float) -> bool:
        """Take in where the log is; return whether a new line begins there."""
        self._is_asking = False
        self._backoff.succeeded()
        is_new = self.line is None
        if self.line is None:
            self.line = Line(position)
        elif not self.check(position, self._asked_at, now):
            return False
        self._must_read = True
        self._goals[1:] = [(position.number, self._sent_at)]
        self._note_reached()
        return is_new

    def look_failed(self, now: float) -> None:
        """Look again, after a pause."""
        self._is_asking = False
        self._sent_at = -math.inf
        self._backoff.failed(now)

    def got(self, entries: Sequence[LogEntry], now: float) -> Sequence[Record]:
        """Follow entries as far as they fit; return what they tell."""
        self._is_asking = False
        line = self.line
        if line is None or self._asked_at is None or line is not self._asked_at.line:
            return ()
        records: list[Record] = []
        for entry in entries:
            if not line.follow(entry):
                self.give_up(now)
                break
            records += entry.records
        else:
            if not entries and self._goals:
                self.give_up(now)
            self._note_reached()
        return records

    def read_failed(self, now: float) -> None:
        """Look first, after a pause."""
        self._is_asking = False
        self._must_read = False
        self._sent_at = -math.inf
        self._backoff.failed(now)

    def mark(self) -> Mark | None:
        """Return where the line is, to hold an answer against that is asked for now."""
        return self.line.mark() if self.line is not None else None

    def check(self, position: Position, asked_at: Mark | None, now: float) -> bool:
        """Hold a position that the store named against the line, and give the line up where it does not fit.

        What was asked for on an earlier line says nothing: tell whether it was asked on this one, and fits.
        """
        if self.line is None or asked_at is None or asked_at.line is not self.line:
            return False
        if not self.line.fits(position, asked_at.number):
            self.give_up(now)
            return False
        return True

    def give_up(self, now: float) -> None:
        """Leave the line: what is known stays, what is new is proven on the next one."""
        self.line = None
        self.reached_at = None
        self._goals.clear()
        self._must_read = False
        self._detours.failed(now)

    def arrived(self) -> None:
        """Note that all was read on this line: the next detour may begin at once."""
        self._detours.succeeded()

    def _note_reached(self) -> None:
        while self.line is not None and self._goals and self.line.position.number >= self._goals[0][0]:
            self.reached_at = self._goals.pop(0)[1]
