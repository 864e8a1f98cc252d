"""A clock for bounds on time that no busy machine breaks: it stands still while the test has no turn."""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from types import TracebackType
from typing import Self

TICK = 0.005
MOST = 0.01
"""Seconds between two looks at the clock, and how many of them count at most."""


class Stopwatch:
    """Measure how long code waits, in seconds, and not for how long the machine had no time for it.

    While code waits the loop is free: a timer of 5 ms is called in time, and every second counts. When the machine
    stops the process, or the loop has much to do, that timer is late as the code is, and of the gap 10 ms count. So a
    wait that is too long shows, and a late wake-up does not. What holds up the loop itself does not show here.
    """

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begin at zero; needs a loop that runs."""
        self._passed, self._last = 0.0, perf_counter()
        self._timer = self._next()

    def stop(self) -> None:
        """Look at the clock no more."""
        self._timer.cancel()

    def __call__(self) -> float:
        """Return the seconds since it began."""
        now = perf_counter()
        self._passed, self._last = self._passed + min(now - self._last, MOST), now
        return self._passed

    def _next(self) -> TimerHandle:
        return asyncio.get_running_loop().call_later(TICK, self._tick)

    def _tick(self) -> None:
        self()
        self._timer = self._next()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail unless the block ends in less than so many seconds of a stopwatch."""
    with Stopwatch() as passed:
        yield
        took = passed()
    assert took < seconds, f"it took {took:.3f} s"
