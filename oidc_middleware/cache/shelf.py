"""The memory of one cache type: bounded by entries and bytes, and deaf to floods."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from oidc_middleware.cache.backend import Counts, checked_end
from oidc_middleware.cache.slots import MAIN, NEGATIVE, SMALL, Slots
from oidc_middleware.cache.types import Limits
from oidc_middleware.clock import Clock
from oidc_middleware.errors import BackendUnavailable

V = TypeVar("V")

# What Python adds to an entry: its cells in the columns, in the index and in the memory of evicted keys, the integer of
# its row and the head of its key. Measured.
OVERHEAD = 288
_MAX_HITS = 3
# Of the room, one part in so many is for entries that have yet to show that they are asked for again.
_PROBATION = 10
# Entries that a `put` looks at in search of one that nobody asked for.
_CHANCES = 64


class Shelf(Generic[V]):
    """Live values by key, each until its end; not for several threads.

    Eviction is S3-FIFO (Yang et al., SOSP 2023): a new entry waits in a small lane and moves to the main lane only if
    it was asked for meanwhile, or if it comes back soon after it was evicted. A flood of keys that nobody asks for
    twice passes through the small lane and evicts nothing else. A hit touches one small integer. Negative answers
    have a lane and limits of their own.

    No operation takes time in proportion to what is stored, except `clear` and, now and then, the growth of the index
    (8 ms where it was measured, at 131,072 entries).
    """

    def __init__(self, clock: Clock, limits: Limits | None, negative: Limits | None = None, stale: float = 0.0) -> None:
        self.life: float = math.inf
        """How long an entry may live here at most, in seconds."""
        self._now = clock.now
        self._limits = limits
        self._negative = negative
        self._stale = stale
        self._slots: Slots[V] = Slots()
        self._index: dict[bytes, int] = {}
        self._evicted_keys = _EvictedKeys()
        self._hand = 0
        self._misses = self._sets = self._evicted = self._expired = self._refused = 0
        self._closed = False
        self.peek: Callable[[bytes], V | None]
        self.peek, self._hits = self._build_peek()

    def _build_peek(self) -> tuple[Callable[[bytes], V | None], Callable[[], int]]:
        """Return the look-up, and what tells its hits.

        A closure, for it reads its variables in half the time that a method takes to find them on `self`.
        """
        find, now = self._index.get, self._now
        ends, values, hits = self._slots.ends, self._slots.values, self._slots.hits
        total = 0

        def peek(key: bytes) -> V | None:
            """Return the value, None when there is none or its end has come."""
            nonlocal total
            row = find(key)
            if row is None:
                self._misses += 1
                return None
            if now() < ends[row]:
                total += 1
                if hits[row] < _MAX_HITS:
                    hits[row] += 1
                return values[row]
            self._misses += 1
            self._drop_expired(row)
            return None

        return peek, lambda: total

    def peek_stale(self, key: bytes) -> V | None:
        """Return the value also if its end has come, as long as the type keeps it."""
        row = self._index.get(key)
        if row is None or self._is_gone(row, self._now()):
            return None
        return self._slots.values[row]

    def held(self, key: bytes) -> V | None:
        """Return the value, None when there is none or its end has come. Counts as no hit."""
        row = self._index.get(key)
        return self._slots.values[row] if row is not None and self._now() < self._slots.ends[row] else None

    def end_of(self, key: bytes) -> float | None:
        """Return when the entry ends (Unix time in seconds), None when there is none. Counts as no hit."""
        row = self._index.get(key)
        if row is None:
            return None
        end = self._slots.ends[row]
        return end if self._now() < end else None

    def version_of(self, key: bytes) -> int | None:
        """Return the version of the entry, None when there is none. Counts as no hit."""
        return None if self.end_of(key) is None else self._slots.versions[self._index[key]]

    def find(self, key: bytes) -> tuple[V, float, int] | None:
        """Return the value, the end that was given (that of its life here may be sooner), and the version."""
        value = self.peek(key)
        if value is None:
            return None
        row = self._index[key]
        return value, self._slots.full_ends[row], self._slots.versions[row]

    def put(
        self, key: bytes, value: V, expires_at: float, size: int, *, negative: bool = False, version: int = 0
    ) -> bool:
        """Store a value that takes `size` bytes; tell whether it is there now.

        One whose end has come, or that is too large, is not stored, and what the key had before is gone.

        Raises:
            ValueError: `expires_at` is not a finite number.
            BackendUnavailable: after `close`.
        """
        if self._closed:
            raise BackendUnavailable("the cache is closed")
        now = self._now()
        full_end = checked_end(expires_at)
        end = min(full_end, now + self.life)
        size += len(key) + OVERHEAD
        self._sweep(now)
        negative = negative and self._negative is not None
        limits = self._negative if negative else self._limits
        if now >= end or (limits is not None and size > limits.max_entry_bytes):
            self._refused += now < end
            self.delete(key)
            return False
        self._sets += 1
        self._store(key, value, (end, full_end), size, limits, negative=negative, version=version)
        if limits is None or not self._is_full(limits, negative=negative):
            return True
        (self._make_negative_room if negative else self._make_room)(limits, now)
        return key in self._index

    def delete(self, key: bytes) -> bool:
        """Delete the entry; tell whether there was one that had not ended."""
        row = self._index.get(key)
        if row is None:
            return False
        was_alive = self._now() < self._slots.ends[row]
        self._remove(row)
        return was_alive

    def expire(self, key: bytes) -> None:
        """Let the entry end now: it is deleted, or becomes a stale one where the type keeps those."""
        row = self._index.get(key)
        if row is None:
            return
        if not self._stale:
            self._remove(row)
            return
        self._slots.ends[row] = min(self._slots.ends[row], self._now())

    def expire_all(self) -> None:
        """Let every entry end now."""
        if not self._stale:
            self.clear()
            return
        for key in self._index:
            self.expire(key)

    def clear(self) -> None:
        """Delete every entry."""
        self._index.clear()
        self._slots.clear()
        self._evicted_keys.clear()

    def close(self) -> None:
        """Delete every entry and take no more."""
        self.clear()
        self._closed = True

    def refuse(self, key: bytes) -> None:
        """Count a value that cannot be stored; what the key had before is outdated and goes."""
        self._refused += 1
        self.delete(key)

    def stats(self) -> Counts:
        """Return what happened so far, and what is held now."""
        return Counts(
            hits=self._hits(),
            misses=self._misses,
            sets=self._sets,
            evicted=self._evicted,
            expired=self._expired,
            refused=self._refused,
            entries=len(self._index),
            bytes=sum(self._slots.totals),
        )

    def _store(
        self,
        key: bytes,
        value: V,
        ends: tuple[float, float],
        size: int,
        limits: Limits | None,
        *,
        negative: bool,
        version: int,
    ) -> None:
        slots, row = self._slots, self._index.get(key)
        if row is not None:
            if negative == (slots.lanes[row] == NEGATIVE):
                slots.replace(row, value, ends, size, version=version)
                return
            self._remove(row)
        in_main = limits is None or self._main_has_room(limits, size) or self._evicted_keys.discard(key)
        lane = NEGATIVE if negative else MAIN if in_main else SMALL
        self._index[key] = slots.add(key, value, ends, size, lane, version=version)

    def _main_has_room(self, limits: Limits, size: int) -> bool:
        """Tell whether one more entry fits into the main lane's part: while it does, nobody has to show anything."""
        count, total = self._slots.counts[MAIN] + 1, self._slots.totals[MAIN] + size
        part = (_PROBATION - 1) / _PROBATION
        return count <= limits.max_entries * part and total <= limits.max_bytes * part

    # ------------------------------------------------------------------------------------------------------------- room

    def _is_full(self, limits: Limits, *, negative: bool = False) -> bool:
        """Tell whether more is held than may be."""
        counts, totals = self._slots.counts, self._slots.totals
        if negative:
            return counts[NEGATIVE] > limits.max_entries or totals[NEGATIVE] > limits.max_bytes
        return counts[SMALL] + counts[MAIN] > limits.max_entries or totals[SMALL] + totals[MAIN] > limits.max_bytes

    def _make_negative_room(self, limits: Limits, now: float) -> None:
        while self._is_full(limits, negative=True):
            self._evict(self._slots.oldest(NEGATIVE), now)

    def _make_room(self, limits: Limits, now: float) -> None:
        counts, totals = self._slots.counts, self._slots.totals
        while (
            counts[SMALL] * _PROBATION > limits.max_entries or totals[SMALL] * _PROBATION > limits.max_bytes
        ) and counts[SMALL] > 1:
            self._judge(limits, now)
        while self._is_full(limits):
            self._evict(self._victim(now), now)

    def _judge(self, limits: Limits, now: float) -> None:
        """Take the oldest entry out of the small lane: into the main lane if it was asked for or there is room."""
        slots = self._slots
        row = slots.oldest(SMALL)
        if slots.hits[row] or not self._is_full(limits):
            slots.hits[row] = 0
            slots.move(row, MAIN)
            return
        if now < slots.ends[row]:
            self._evicted_keys.add(slots.keys[row], keep=slots.counts[MAIN])
        self._evict(row, now)

    def _victim(self, now: float) -> int:
        """Return the oldest entry of the main lane that was not asked for since it was last looked at.

        The search ends after a number of steps that does not depend on what is stored: where so many in a row are in
        use, one on probation goes instead, if there is any besides the newcomer.
        """
        slots = self._slots
        for _ in range(min(_CHANCES, slots.counts[MAIN])):
            row = slots.oldest(MAIN)
            if not slots.hits[row] or now >= slots.ends[row]:
                return row
            slots.hits[row] -= 1
            slots.move(row, MAIN)
        return slots.oldest(SMALL if slots.counts[SMALL] > 1 else MAIN)

    def _evict(self, row: int, now: float) -> None:
        if now < self._slots.ends[row]:
            self._evicted += 1
        else:
            self._expired += 1
        self._remove(row)

    def _remove(self, row: int) -> None:
        del self._index[self._slots.keys[row]]
        self._slots.remove(row)

    # ----------------------------------------------------------------------------------------------------------- expiry

    def _is_gone(self, row: int, now: float) -> bool:
        return now >= self._slots.ends[row] + self._stale

    def _drop_expired(self, row: int) -> None:
        if self._is_gone(row, self._now()):
            self._expired += 1
            self._remove(row)

    def _sweep(self, now: float) -> None:
        """Look at the next row: the hand passes all of them before they double, and never holds the loop."""
        ends = self._slots.ends
        row = self._hand + 1
        self._hand = row = row if row < len(ends) else 0
        if now >= ends[row] + self._stale:
            self._expired += 1
            self._remove(row)


class _EvictedKeys:
    """Keys that were evicted lately, as hashes: who comes back so soon should have stayed."""

    __slots__ = ("_hashes", "_order")

    def __init__(self) -> None:
        self._hashes: set[int] = set()
        self._order: deque[int] = deque()

    def add(self, key: bytes, keep: int) -> None:
        """Remember a key, and no more than `keep` in all."""
        digest = hash(key)
        if digest not in self._hashes:
            self._hashes.add(digest)
            self._order.append(digest)
        while len(self._order) > keep:
            self._hashes.discard(self._order.popleft())

    def discard(self, key: bytes) -> bool:
        """Forget a key; tell whether it was known. Its place in the order is given up when its turn comes."""
        digest = hash(key)
        if digest in self._hashes:
            self._hashes.discard(digest)
            return True
        return False

    def clear(self) -> None:
        """Forget all."""
        self._hashes.clear()
        self._order.clear()
