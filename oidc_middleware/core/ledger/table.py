"""Digests with a number and an end: a dict while they are few, then sorted arrays in shards.

A shard holds what begins with the same bits, digests and values in two arrays of eight bytes an entry. An array grows
by a sixteenth at a time and a shard is small, so nothing that is done to a table takes longer than a few microseconds
for each entry that it is done to, but for the one move from the dict to the shards, about two milliseconds. Most
digests that are looked for are not there; a map, of a bit for each cell of equal digests up to there, tells most so.

A hash table with open slots is read no faster, but takes twice the memory, must be built anew to grow, to forget and to
be paged through in an order that stays, and is made slow by digests that were chosen to meet in one slot.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable
from enum import IntEnum
from itertools import compress, islice
from typing import Final

FEW: Final = 2048
"""What a dict holds at most."""

LAST_DIGEST: Final = 2**64 - 1
_BITS = 13
_SHARDS = 1 << _BITS
_SHIFT = 64 - _BITS
# A cell is what begins with the same 23 bits; at a million entries one in eight is taken. A byte of the map has eight.
_CELL_SHIFT = 64 - 23
_MAP_SHIFT = _CELL_SHIFT + 3
_MAP_BYTES = 1 << 64 - _MAP_SHIFT
_NUMBER = 0xFFFF_FFFF

# Bytes: an entry in the dict beside the dict itself, an entry in the arrays with what these have in reserve, a shard.
_ENTRY_OF_FEW = 2 * 36
_ENTRY = 17
_SHARD = 2 * (8 + 64 + 16)


class Joined(IntEnum):
    """What an entry that was joined with a table changed there."""

    NOTHING = 0
    END = 1
    NUMBER = 2


class Table:
    """Digests (64 bits), each with a number and an end (32 bits each); joined entries keep the larger of both.

    Values are `end << 32 | number`, so that they are ordered by their end.
    """

    __slots__ = ("_count", "_digests", "_few", "_map", "_values", "get")

    def __init__(self) -> None:
        self._few: dict[int, int] | None = {}
        self._count = 0
        # The same empty array stands for all empty shards: it is replaced, never written to.
        self._digests: list[array[int]] = []
        self._values: list[array[int]] = []
        self._map = bytearray()
        self.get: Callable[[int], int | None] = self._few.get
        """Return the value of a digest, None when it is not there. It is another function once there are many."""

    def __len__(self) -> int:
        return self._count if self._few is None else len(self._few)

    @property
    def memory_bytes(self) -> int:
        """About how much memory it takes."""
        if self._few is None:
            return self._count * _ENTRY + _SHARDS * _SHARD + _MAP_BYTES
        return sys.getsizeof(self._few) + len(self._few) * _ENTRY_OF_FEW

    def join(self, digest: int, number: int, end: int) -> Joined:
        """Add an entry, or raise its number and its end to these."""
        few = self._few
        if few is None:
            return self._join_shard(digest, number, end)
        value = few.get(digest)
        if value is None:
            few[digest] = end << 32 | number
            if len(few) > FEW:
                self._spread(few)
            return Joined.NUMBER
        joined, few[digest] = _joined(value, number, end)
        return joined

    def page(self, start: int, at_most: int) -> list[tuple[int, int]]:
        """Return digests and values from the digest `start` on, in the order of digests."""
        if self._few is not None:
            digests = sorted(digest for digest in self._few if digest >= start)[:at_most]
            return [(digest, self._few[digest]) for digest in digests]
        page: list[tuple[int, int]] = []
        for digests_here in self._shards_from(start):
            at = bisect_left(digests_here, start)
            until = at + at_most - len(page)
            page += zip(digests_here[at:until], self._values[digests_here[0] >> _SHIFT][at:until], strict=True)
            if len(page) >= at_most:
                break
        return page

    def sweep(self, start: int, at_most: int, before: int) -> tuple[int, int]:
        """Remove what ended before `before`, looking at `at_most` entries from the digest `start` on.

        Return where to go on, beyond `LAST_DIGEST` when this was the last of them, and how many entries may still be
        looked at.
        """
        if self._few is not None:
            return self._sweep_few(self._few, start, at_most, before)
        for digests in self._shards_from(start):
            if at_most <= 0:
                return max(start, digests[0]), 0
            at = bisect_left(digests, start)
            until = min(at + at_most, len(digests))
            at_most -= until - at
            go_on = digests[until] if until < len(digests) else None
            self._sweep_shard(digests[0] >> _SHIFT, at, until, before)
            if go_on is not None:
                return go_on, 0
        return LAST_DIGEST + 1, at_most

    def _shards_from(self, start: int) -> Iterable[array[int]]:
        """Return the digests of each shard that has any, from that of `start` on; the first one tells which it is."""
        return filter(None, islice(self._digests, start >> _SHIFT, None))

    def _sweep_few(self, few: dict[int, int], start: int, at_most: int, before: int) -> tuple[int, int]:
        if at_most <= 0:
            return start, 0
        page = self.page(start, at_most)
        for digest, value in page:
            if value >> 32 < before:
                del few[digest]
        if len(page) < at_most:
            return LAST_DIGEST + 1, at_most - len(page)
        return page[-1][0] + 1, 0

    def _sweep_shard(self, shard: int, at: int, until: int, before: int) -> None:
        digests, values = self._digests[shard], self._values[shard]
        looked_at, part = digests[at:until], values[at:until]
        least = before << 32
        if not part or min(part) >= least:
            return
        is_kept = list(map(least.__le__, part))
        digests[at:until] = array("Q", compress(looked_at, is_kept))
        values[at:until] = array("Q", compress(part, is_kept))
        for digest in looked_at:
            self._map[digest >> _MAP_SHIFT] &= ~(1 << (digest >> _CELL_SHIFT & 7))
        kept = sum(is_kept)
        for digest in digests[max(0, at - 1) : at + kept + 1]:  # with the neighbours, which may be in the same cells
            self._map[digest >> _MAP_SHIFT] |= 1 << (digest >> _CELL_SHIFT & 7)
        self._count -= len(is_kept) - kept

    def _spread(self, few: dict[int, int]) -> None:
        """Move from the dict to the shards."""
        nothing = array("Q")
        self._digests = [nothing] * _SHARDS
        self._values = [nothing] * _SHARDS
        self._map = bytearray(_MAP_BYTES)
        self._few = None
        self.get = self._build_get()
        for digest, value in few.items():
            self._join_shard(digest, value & _NUMBER, value >> 32)

    def _build_get(self) -> Callable[[int], int | None]:
        """Return the look-up in shards: a closure, for it reads its variables faster than a method finds them."""
        taken, shards, shards_of_values, bisect = self._map, self._digests, self._values, bisect_left

        def get(digest: int) -> int | None:
            if taken[digest >> _MAP_SHIFT] >> (digest >> _CELL_SHIFT & 7) & 1:
                digests = shards[digest >> _SHIFT]
                at = bisect(digests, digest)
                if at < len(digests) and digests[at] == digest:
                    return shards_of_values[digest >> _SHIFT][at]
            return None

        return get

    def _join_shard(self, digest: int, number: int, end: int) -> Joined:
        shard = digest >> _SHIFT
        digests, values = self._digests[shard], self._values[shard]
        if not digests:
            digests, values = self._digests[shard], self._values[shard] = array("Q"), array("Q")
        at = bisect_left(digests, digest)
        if at < len(digests) and digests[at] == digest:
            joined, values[at] = _joined(values[at], number, end)
            return joined
        digests.insert(at, digest)
        values.insert(at, end << 32 | number)
        self._map[digest >> _MAP_SHIFT] |= 1 << (digest >> _CELL_SHIFT & 7)
        self._count += 1
        return Joined.NUMBER


def _joined(value: int, number: int, end: int) -> tuple[Joined, int]:
    old_number, old_end = value & _NUMBER, value >> 32
    if number > old_number:
        return Joined.NUMBER, max(end, old_end) << 32 | number
    if end > old_end:
        return Joined.END, end << 32 | old_number
    return Joined.NOTHING, value
