"""What ends at a time, by the second: one timer for all of it, and nothing is left of what ended before."""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heappop, heappush
from math import ceil
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Expiries(Generic[T]):
    """Things by the second (Unix time, rounded up) in which they end. Adding and discarding take no longer for many."""

    def __init__(self) -> None:
        self._by_second: dict[int, set[T]] = {}
        # The seconds of the dict, and those of which everything was discarded, until they pass: a heap, once each.
        self._seconds: list[int] = []
        self._queued: set[int] = set()

    def __len__(self) -> int:
        return sum(map(len, self._by_second.values()))

    @property
    def next(self) -> int | None:
        """When to look next, None while there is nothing."""
        while self._seconds and self._seconds[0] not in self._by_second:
            self._queued.discard(heappop(self._seconds))
        return self._seconds[0] if self._seconds else None

    def add(self, thing: T, end: float) -> None:
        """Remember when a thing ends."""
        second = ceil(end)
        things = self._by_second.get(second)
        if things is None:
            self._by_second[second] = {thing}
            if second not in self._queued:
                self._queued.add(second)
                heappush(self._seconds, second)
        else:
            things.add(thing)

    def discard(self, thing: T, end: float) -> None:
        """Forget a thing that was added with this end, if it is there."""
        second = ceil(end)
        things = self._by_second.get(second)
        if things is not None:
            things.discard(thing)
            if not things:
                del self._by_second[second]

    def due(self, now: float) -> list[T]:
        """Return what has ended by now, and forget it."""
        ended: list[T] = []
        while (second := self.next) is not None and second <= now:
            ended += self._by_second.pop(second)
        return ended
