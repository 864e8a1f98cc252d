"""Entries in numbered slots, linked into lanes: a store that the garbage collector does not walk."""

from __future__ import annotations

import math
from array import array
from typing import Final, Generic, TypeVar

SMALL: Final = 0
MAIN: Final = 1
NEGATIVE: Final = 2

_LANES = (SMALL, MAIN, NEGATIVE)

V = TypeVar("V")


class Slots(Generic[V]):
    """Columns of equal length; an entry is a row, and its number is all that others keep of it.

    A lane is a doubly linked ring of row numbers, so that any entry leaves it in constant time. The first rows are
    the lanes' anchors: `after[anchor]` is the lane's oldest entry, `before[anchor]` its newest. Anchors and free rows
    end never (`ends` is infinite), so a sweep steps over them without asking.

    `full_ends` are the ends of the entries themselves, `ends` those of their life here, which may be shorter. No
    look-up reads `versions`.

    The columns are public: hot paths bind them once. They are the same objects for ever. Numbers lie in arrays, which
    the collector passes over in one step, and take eight bytes each.
    """

    __slots__ = (
        "after", "before", "counts", "ends", "free", "full_ends", "hits", "keys", "lanes", "sizes", "totals", "values",
        "versions",
    )  # fmt: skip

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.values: list[V | None] = []
        self.ends: array[float] = array("d")
        self.full_ends: array[float] = array("d")
        self.versions: array[int] = array("q")
        self.sizes: array[int] = array("q")
        self.hits: bytearray = bytearray()
        self.lanes: bytearray = bytearray()
        self.after: array[int] = array("q")
        self.before: array[int] = array("q")
        self.free: list[int] = []
        self.counts: list[int] = [0, 0, 0]
        self.totals: list[int] = [0, 0, 0]
        self.clear()

    def clear(self) -> None:
        """Free every row."""
        self.keys.clear()
        self.values.clear()
        del self.ends[:], self.full_ends[:]
        for column in self._counted():
            del column[:]
        self.free.clear()
        for lane in _LANES:
            self._add_row()
            self.after[lane] = self.before[lane] = lane
            self.counts[lane] = self.totals[lane] = 0

    def add(self, key: bytes, value: V, ends: tuple[float, float], size: int, lane: int, *, version: int = 0) -> int:
        """Put an entry, with its end here and its full end, at the new end of a lane; return its row."""
        row = self.free.pop() if self.free else self._add_row()
        self.keys[row] = key
        self.values[row] = value
        self.ends[row], self.full_ends[row] = ends
        self.versions[row] = version
        self.sizes[row] = size
        self.hits[row] = 0
        self._link(row, lane)
        return row

    def replace(self, row: int, value: V, ends: tuple[float, float], size: int, *, version: int = 0) -> None:
        """Give an entry another value where it stands."""
        self.totals[self.lanes[row]] += size - self.sizes[row]
        self.values[row] = value
        self.ends[row], self.full_ends[row] = ends
        self.versions[row] = version
        self.sizes[row] = size

    def remove(self, row: int) -> None:
        """Free a row."""
        self._unlink(row)
        self.keys[row] = b""
        self.values[row] = None
        self.ends[row] = self.full_ends[row] = math.inf
        self.free.append(row)

    def move(self, row: int, lane: int) -> None:
        """Put an entry at the new end of a lane, be it another or its own."""
        self._unlink(row)
        self._link(row, lane)

    def oldest(self, lane: int) -> int:
        """Return the row that is longest in the lane, the lane's anchor when it is empty."""
        return self.after[lane]

    def _add_row(self) -> int:
        self.keys.append(b"")
        self.values.append(None)
        self.ends.append(math.inf)
        self.full_ends.append(math.inf)
        for column in self._counted():
            column.append(0)
        return len(self.ends) - 1

    def _counted(self) -> tuple[array[int] | bytearray, ...]:
        return self.versions, self.sizes, self.hits, self.lanes, self.after, self.before

    def _link(self, row: int, lane: int) -> None:
        newest = self.before[lane]
        self.after[newest] = self.before[lane] = row
        self.before[row] = newest
        self.after[row] = lane
        self.lanes[row] = lane
        self.counts[lane] += 1
        self.totals[lane] += self.sizes[row]

    def _unlink(self, row: int) -> None:
        before, after = self.before[row], self.after[row]
        self.after[before] = after
        self.before[after] = before
        lane = self.lanes[row]
        self.counts[lane] -= 1
        self.totals[lane] -= self.sizes[row]
