"""The log as one node follows it: entries that follow on each other without a gap, and nothing else."""

from __future__ import annotations

from typing import NamedTuple

from oidc_middleware.core.ledger.records import LogEntry, Position

_REMEMBERED = 4096
_LONGEST_AHEAD = 4096


class Mark(NamedTuple):
    """Where a line was when something was asked."""

    line: Line
    number: int


class Line:
    """One past of the store, from where a node came to it.

    Servers may have several pasts: a fail-over loses the end of one and begins another with the same numbers. Whatever
    any answer says about a position is held against the line: what was passed must have been the same entry, and
    what lies ahead must turn out to be. So a write that was acknowledged, or a page that was read, by a server with
    another past is noticed, however late.
    """

    __slots__ = ("_ahead", "_passed", "farthest", "position")

    def __init__(self, start: Position) -> None:
        self.position: Position = start
        """Up to where all entries were applied."""
        self.farthest: int = start.number
        """The largest number that the store is known to have had."""
        self._passed = {start.number: start.last_id}
        self._ahead: dict[int, bytes] = {}

    def mark(self) -> Mark:
        """Return what is known now, to hold an answer against."""
        return Mark(self, self.farthest)

    def fits(self, position: Position, asked_at: int) -> bool:
        """Tell whether the store can have been there on this line, and hold the log to it from now on.

        `asked_at` is what `farthest` was when the store was asked: it does not go back. A place that is so far behind
        that it was forgotten does not fit.
        """
        epoch, number, last_id = position
        if epoch != self.position.epoch or number < asked_at:
            return False
        if number <= self.position.number:
            return self._passed.get(number) == last_id
        self.farthest = max(self.farthest, number)
        return self._ahead.setdefault(number, last_id) == last_id and len(self._ahead) <= _LONGEST_AHEAD

    def follow(self, entry: LogEntry) -> bool:
        """Go on to an entry; False, without a step, if it is not the next one."""
        at = self.position
        if (entry.epoch, entry.number, entry.previous_id) != (at.epoch, at.number + 1, at.last_id):
            return False
        if self._ahead.pop(entry.number, entry.id) != entry.id:
            return False
        self.position = entry.position
        self.farthest = max(self.farthest, entry.number)
        self._passed[entry.number] = entry.id
        self._passed.pop(entry.number - _REMEMBERED, None)
        return True
