"""When to try again what failed."""

from __future__ import annotations

import math
from collections.abc import Callable


class Backoff:
    """Pauses after failures: random between nothing and a bound that doubles (full jitter), so that no fleet marches.

    `random` returns a number from 0 to 1; `first` and `longest` are seconds.
    """

    __slots__ = ("_first", "_longest", "_random", "failures", "until")

    def __init__(self, random: Callable[[], float], first: float, longest: float) -> None:
        self._random = random
        self._first = first
        self._longest = longest
        self.failures: int = 0
        """How many came in a row."""
        self.until: float = -math.inf
        """When the pause is over."""

    def failed(self, now: float) -> None:
        """Begin a pause."""
        longest = min(self._longest, self._first * 2.0 ** min(self.failures, 32))
        self.failures += 1
        self.until = now + longest * self._random()

    def succeeded(self) -> None:
        """End the pause, and begin small the next time."""
        self.failures = 0
        self.until = -math.inf
