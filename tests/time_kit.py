"""A clock for bounds on time that no busy machine breaks: it stands still while the test has no turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
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

    def _next(self) -> asyncio.TimerHandle:
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


class Turns:
    """Measure the longest turn of the loop, in seconds, without the time for which this process had no core."""

    def __enter__(self) -> Self:
        self.longest = 0.0
        self._last = self._looked = perf_counter()
        self._starved = _starved()
        self._next = asyncio.get_running_loop().call_soon(self._turn)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._next.cancel()
        self._look()

    def _turn(self) -> None:
        self._look()
        self._next = asyncio.get_running_loop().call_soon(self._turn)

    def _look(self) -> None:
        now = perf_counter()
        took = now - self._last
        if now - self._looked > TICK:  # to look at every turn would take longer than the turns
            starved = _starved()
            took -= max(0.0, starved - self._starved)
            self._looked, self._starved = now, starved
        self.longest = max(self.longest, took)
        self._last = perf_counter()


def _starved() -> float:
    """Return for how many seconds threads of this process could have run and had no core, 0.0 where nothing says so."""
    return sum(int(file.read_text().split()[1]) for file in Path("/proc/self/task").glob("*/schedstat")) / 1e9


async def best_of(tries: int, bound: float, measure: Callable[[], Awaitable[float]]) -> float:
    """Measure until it is below a bound, and return the least: a machine's slow moment passes, slow code stays."""
    least = await measure()
    for _ in range(tries - 1):
        if least >= bound:
            least = min(least, await measure())
    return least
