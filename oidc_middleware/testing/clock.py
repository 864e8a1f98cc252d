"""A clock that moves only when a test says so."""

from __future__ import annotations

import time


class ManualClock:
    """Wall and monotonic time that stand still until `advance` or `jump` is called.

    Wall time begins at `now` (absent: the machine's time at creation, so that tokens minted under it are also valid for
    software that reads the machine's clock). Monotonic time begins at 0, as on a machine that has just started.
    """

    def __init__(self, now: float | None = None) -> None:
        self._now = time.time() if now is None else float(now)
        self._monotonic = 0.0

    def now(self) -> float:
        """Return Unix time in seconds."""
        return self._now

    def monotonic(self) -> float:
        """Return a time in seconds that never goes back."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass on both clocks.

        Raises:
            ValueError: `seconds` is negative; time does not pass backwards (see `jump`).
        """
        if seconds < 0:
            raise ValueError(f"cannot advance by {seconds} s: use jump() to set the wall clock back")
        self._now += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Move the wall clock alone, forward or back, as a correction of the machine's time does."""
        self._now += seconds
