"""Read all that a store holds, once for each line."""

from __future__ import annotations

import math
from collections.abc import Callable

from oidc_middleware.core.ledger.records import Position
from oidc_middleware.core.replica.backoff import Backoff
from oidc_middleware.core.replica.events import Scan
from oidc_middleware.core.replica.line import Line, Mark

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


class Loader:
    """Scan from the beginning to the end, while the log of the same line is followed.

    A part that fails begins it anew: a cursor says nothing to another server.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._backoff = Backoff(random, _FIRST_PAUSE, _LONGEST_PAUSE)
        self._line: Line | None = None
        self._cursor = b""
        self._is_asking = False
        self._asked_at: Mark | None = None
        self._is_scanned = False
        self._farthest = 0

    def begin(self, line: Line) -> None:
        """Load what is known to a line."""
        self._line = line
        self._cursor = b""
        self._is_scanned = False
        self._farthest = line.position.number

    def next(self, now: float, line: Line | None) -> Scan | None:
        """Return what to read now, if anything."""
        if line is None or now < self.due(line):
            return None
        self._is_asking = True
        self._asked_at = line.mark()
        return Scan(self._cursor)

    def due(self, line: Line | None) -> float:
        """When the next part is to be asked for; infinity if none is, or an answer is awaited."""
        if self._is_asking or self._is_scanned or line is not self._line or line is None:
            return math.inf
        return self._backoff.until

    def answered(self) -> Mark | None:
        """Note that a part came; return where the line was when it was asked for."""
        self._is_asking = False
        return self._asked_at

    def scanned(self, cursor: bytes, position: Position) -> None:
        """Take in that a part fits the line."""
        self._backoff.succeeded()
        self._cursor = cursor
        self._is_scanned = not cursor
        self._farthest = max(self._farthest, position.number)

    def failed(self, now: float) -> None:
        """Begin anew, after a pause."""
        self._is_asking = False
        self._cursor = b""
        self._backoff.failed(now)

    def is_done(self, line: Line | None) -> bool:
        """Tell whether everything was read that belongs to a line, and the line has come to where the last part was."""
        return line is not None and line is self._line and self._is_scanned and line.position.number >= self._farthest
