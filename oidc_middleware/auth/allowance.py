"""How much of something may still be done: so much at once, and so much more each second."""

from __future__ import annotations

from collections.abc import Callable


class Allowance:
    """Up to `burst` at once, and `rate` more each second. `now` is a monotonic clock in seconds."""

    def __init__(self, rate: float, burst: float, now: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._now = now
        self._left = burst
        self._as_of = now()

    @property
    def is_used_up(self) -> bool:
        """Whether nothing is left now."""
        return self._refilled() < 1

    def take(self) -> None:
        """Use one up. What was begun while some was left may take more than there is, and is waited for later."""
        self._left = self._refilled() - 1

    def _refilled(self) -> float:
        now = self._now()
        self._left = min(self._burst, self._left + self._rate * max(0.0, now - self._as_of))
        self._as_of = now
        return self._left
