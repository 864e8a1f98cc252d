"""Virtual time: what happens next, and by chance."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

EPOCH = 1_800_000_000.0
"""Unix time when a world begins."""


class World:
    """A clock that jumps from one event to the next; everything random comes from one seed."""

    def __init__(self, seed: int, *, is_traced: bool = False) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.leapt = 0.0
        """Seconds by which Unix time has gone ahead of what was lived through, everywhere."""
        self.leapt_at = 0.0
        self.told: deque[str] | None = deque(maxlen=4000) if is_traced else None
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def wall(self, skew: float) -> float:
        """Return the Unix time of a clock."""
        return EPOCH + self.now + self.leapt + skew

    def after(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call something later."""
        self._count += 1
        heappush(self._queue, (self.now + seconds, self._count, call, arguments))

    def run(self, until: float) -> None:
        """Let everything happen up to a time."""
        queue = self._queue
        while queue and queue[0][0] <= until:
            self.now, _, call, arguments = heappop(queue)
            call(*arguments)
        self.now = until

    def tell(self, *words: object) -> None:
        """Note what happens, if somebody wants to read it."""
        if self.told is not None:
            self.told.append(f"{self.now:9.4f}  " + " ".join(map(str, words)))
