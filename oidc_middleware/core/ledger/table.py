"""Digests with a number and an end: a dict while they are few, then sorted arrays in shards.

A shard holds what begins with the same bits, digests and values in two arrays of eight bytes an entry. An array grows
by a sixteenth at a time and a shard is small, so nothing that is done to a table takes longer than a few microseconds
for each entry that it is done to, but for the one move from the dict to the shards, about a millisecond.

A hash table of open slots would be read in 0.2 µs less, but takes half as much memory again (16 bytes a slot, and half
of them empty: twice as much), must be built anew to grow, to forget and to be paged through in a stable order, and can
be made slow by digests that are chosen to meet in one slot.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable
from enum import IntEnum
from itertools import compress, repeat
from typing import Final

FEW: Final = 2048
"""What a dict holds at most."""

LAST_DIGEST: Final = 2**64 - 1
_BITS = 13
_SHARDS = 1 << _BITS
_SHIFT = 64 - _BITS
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

    __slots__ = ("_count", "_digests", "_few", "_values", "get")

    def __init__(self) -> None:
        self._few: dict[int, int] | None = {}
        self._count = 0
        # The same empty array stands for all empty shards: it is replaced, never written to.
        self._digests: list[array[int]] = []
        self._values: list[array[int]] = []
        self.get: Callable[[int], int | None] = self._few.get
        """Return the value of a digest, None when it is not there. It is another function once there are many."""

    def __len__(self) -> int:
        return self._count if self._few is None else len(self._few)

    @property
    def memory_bytes(self) -> int:
        """About how much memory it takes."""
        if self._few is None:
            return self._count * _ENTRY + _SHARDS * _SHARD
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
        for shard in range(start >> _SHIFT, _SHARDS):
            digests_here = self._digests[shard]
            if digests_here:
                at = bisect_left(digests_here, start)
                until = at + at_most - len(page)
                page += zip(digests_here[at:until], self._values[shard][at:until], strict=True)
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
        for shard in range(start >> _SHIFT, _SHARDS):
            if at_most <= 0:
                return max(start, shard << _SHIFT), 0
            digests = self._digests[shard]
            if digests:
                at = bisect_left(digests, start)
                until = min(at + at_most, len(digests))
                at_most -= until - at
                if until < len(digests):
                    go_on = digests[until]
                    self._sweep_shard(shard, at, until, before)
                    return go_on, 0
                self._sweep_shard(shard, at, until, before)
        return LAST_DIGEST + 1, at_most

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
        part = values[at:until]
        least = before << 32
        if not part or min(part) >= least:
            return
        is_kept = list(map(least.__le__, part))
        digests[at:until] = array("Q", compress(digests[at:until], is_kept))
        values[at:until] = array("Q", compress(part, is_kept))
        self._count -= len(is_kept) - sum(is_kept)

    def _spread(self, few: dict[int, int]) -> None:
        """Move from the dict to the shards."""
        nothing = array("Q")
        self._digests = list(repeat(nothing, _SHARDS))
        self._values = list(repeat(nothing, _SHARDS))
        self._few = None
        self.get = self._build_get()
        for digest, value in few.items():
            self._join_shard(digest, value & _NUMBER, value >> 32)

    def _build_get(self) -> Callable[[int], int | None]:
        """Return the look-up in shards: a closure, for it reads its variables faster than a method finds them."""
        shards, shards_of_values, bisect = self._digests, self._values, bisect_left

        def get(digest: int) -> int | None:
            digests = shards[digest >> _SHIFT]
            at = bisect(digests, digest)
            if at < len(digests) and digests[at] == digest:
                return shards_of_values[digest >> _SHIFT][at]
            return None

        return get

    def _join_shard(self, digest: int, number: int, end: int) -> Joined:
        shard = digest >> _SHIFT
        digests = self._digests[shard]
        if not digests:
            self._digests[shard] = array("Q", (digest,))
            self._values[shard] = array("Q", (end << 32 | number,))
            self._count += 1
            return Joined.NUMBER
        at = bisect_left(digests, digest)
        values = self._values[shard]
        if at < len(digests) and digests[at] == digest:
            joined, values[at] = _joined(values[at], number, end)
            return joined
        digests.insert(at, digest)
        values.insert(at, end << 32 | number)
        self._count += 1
        return Joined.NUMBER


def _joined(value: int, number: int, end: int) -> tuple[Joined, int]:
    old_number, old_end = value & _NUMBER, value >> 32
    if number > old_number:
        return Joined.NUMBER, max(end, old_end) << 32 | number
    if end > old_end:
        return Joined.END, end << 32 | old_number
    return Joined.NOTHING, value
