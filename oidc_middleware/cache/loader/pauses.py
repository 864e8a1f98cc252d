"""Keys that are left alone for a while."""

from __future__ import annotations

from typing import Final


class Pauses:
    """Until when a key is left alone, in the time of the caller; of so many keys that more are not left alone."""

    def __init__(self, limit: int = 1024) -> None:
        self._limit = limit
        self._ends: Final[dict[bytes, float]] = {}

    def begin(self, key: bytes, now: float, end: float) -> None:
        """Leave a key alone from `now` to `end`."""
        if len(self._ends) >= self._limit:
            for other in [other for other, over in self._ends.items() if now >= over]:
                del self._ends[other]
        if len(self._ends) < self._limit:
            self._ends[key] = end

    def is_on(self, key: bytes, now: float) -> bool:
        """Tell whether a key is left alone at `now`."""
        end = self._ends.get(key)
        if end is None:
            return False
        if now < end:
            return True
        del self._ends[key]
        return False
