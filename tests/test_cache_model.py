"""Memory against a plain dict, step by step, under hypothesis."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from oidc_middleware.cache import TYPES, Entry, Limits, MemoryBackend
from oidc_middleware.cache.shelf import Shelf
from oidc_middleware.testing.clock import ManualClock

T = TypeVar("T")

# Types that are not bound here by their size, so that the model needs no eviction.
KINDS = st.sampled_from([TYPES["token"], TYPES["general"], TYPES["blacklist"], TYPES["metadata"]])
KEYS = st.sampled_from([b"a", b"b", b"c", b"\0", b""])
VALUES = st.binary(max_size=8)
LIVES = st.one_of(st.floats(-5, 20), st.sampled_from([0.0, 1e-9, 5.0, 10, 1e9]))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, and show that it does not."""
    try:
        work.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    work.close()
    raise AssertionError("memory let its caller wait")


class MemoryAndModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(now=1_000_000.0)
        self.memory = MemoryBackend(self.clock)
        self.model: dict[tuple[str, bytes], Entry] = {}

    def expected(self, name: str, key: bytes) -> Entry | None:
        entry = self.model.get((name, key))
        return entry if entry is not None and self.clock.now() < entry.expires_at else None

    @rule(kind=KINDS, key=KEYS, value=VALUES, life=LIVES)
    def set(self, kind: Any, key: bytes, value: bytes, life: float) -> None:
        end = self.clock.now() + life
        run(self.memory.set(kind, key, value, end))
        self.model[kind.name, key] = Entry(value, end)

    @rule(kind=KINDS, entries=st.dictionaries(KEYS, st.tuples(VALUES, LIVES)))
    def set_many(self, kind: Any, entries: dict[bytes, tuple[bytes, float]]) -> None:
        many = {key: Entry(value, self.clock.now() + life) for key, (value, life) in entries.items()}
        run(self.memory.set_many(kind, many))
        self.model |= {(kind.name, key): entry for key, entry in many.items()}

    @rule(kind=KINDS, key=KEYS)
    def get(self, kind: Any, key: bytes) -> None:
        assert run(self.memory.get(kind, key)) == self.expected(kind.name, key)

    @rule(kind=KINDS, keys=st.lists(KEYS))
    def get_many(self, kind: Any, keys: list[bytes]) -> None:
        found = {key: self.expected(kind.name, key) for key in keys}
        assert run(self.memory.get_many(kind, keys)) == {key: entry for key, entry in found.items() if entry}

    @rule(kind=KINDS, key=KEYS)
    def exists(self, kind: Any, key: bytes) -> None:
        assert run(self.memory.exists(kind, key)) == (self.expected(kind.name, key) is not None)

    @rule(kind=KINDS, key=KEYS)
    def delete(self, kind: Any, key: bytes) -> None:
        assert run(self.memory.delete(kind, key)) == (self.expected(kind.name, key) is not None)
        self.model.pop((kind.name, key), None)

    @rule(kind=KINDS)
    def clear(self, kind: Any) -> None:
        run(self.memory.clear(kind))
        self.model = {at: entry for at, entry in self.model.items() if at[0] != kind.name}

    @rule(seconds=st.one_of(st.floats(0, 10), st.just(1e9)))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def nothing_is_held_that_was_not_stored(self) -> None:
        for name, counts in self.memory.stats().items():
            assert counts.entries <= sum(at[0] == name for at in self.model)
            assert (counts.entries == 0) == (counts.bytes == 0)
            assert counts.evicted == 0


class ShelfUnderPressure(RuleBasedStateMachine):
    """A shelf so small that it evicts all the time: it may forget, it never lies, and its books are right."""

    LIMITS = Limits(6, 6000, 3000)
    NEGATIVE = Limits(2, 2000, 1000)

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(now=1_000_000.0)
        self.shelf: Shelf[int] = Shelf(self.clock, self.LIMITS, self.NEGATIVE, stale=3)
        self.model: dict[bytes, tuple[int, float]] = {}
        self.count = 0

    @rule(
        key=st.integers(0, 20).map(lambda n: b"%d" % n), size=st.integers(0, 3500), life=LIVES, negative=st.booleans()
    )
    def put(self, key: bytes, size: int, life: float, negative: bool) -> None:
        self.count += 1
        end = self.clock.now() + life
        if self.shelf.put(key, self.count, end, size, negative=negative):
            assert self.shelf.end_of(key) == end
            self.model[key] = (self.count, end)
        else:
            assert self.shelf.end_of(key) is None
            self.model.pop(key, None)

    @rule(key=st.integers(0, 20).map(lambda n: b"%d" % n))
    def peek(self, key: bytes) -> None:
        value, end = self.model.get(key, (None, 0.0))
        assert self.shelf.peek(key) in {None, value if self.clock.now() < end else None}
        assert self.shelf.peek_stale(key) in {None, value if self.clock.now() < end + 3 else None}

    @rule(key=st.integers(0, 20).map(lambda n: b"%d" % n))
    def delete(self, key: bytes) -> None:
        self.shelf.delete(key)
        self.model.pop(key, None)

    @rule()
    def clear(self) -> None:
        self.shelf.clear()
        self.model.clear()

    @rule(seconds=st.floats(0, 10))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def the_books_are_right(self) -> None:
        slots, index = self.shelf._slots, self.shelf._index
        on_lanes: dict[bytes, int] = {}
        for lane in (0, 1, 2):
            rows, row = [], slots.after[lane]
            while row != lane:
                assert slots.after[slots.before[row]] == row == slots.before[slots.after[row]]
                assert slots.lanes[row] == lane
                rows.append(row)
                row = slots.after[row]
            assert slots.counts[lane] == len(rows)
            assert slots.totals[lane] == sum(slots.sizes[row] for row in rows)
            on_lanes |= {slots.keys[row]: row for row in rows}
        assert on_lanes == index
        assert sorted([*index.values(), *slots.free, 0, 1, 2]) == list(range(len(slots.ends)))
        assert all(slots.values[row] is None for row in slots.free)

    @invariant()
    def limits_hold(self) -> None:
        counts, totals = self.shelf._slots.counts, self.shelf._slots.totals
        assert counts[0] + counts[1] <= self.LIMITS.max_entries
        assert totals[0] + totals[1] <= self.LIMITS.max_bytes
        assert counts[2] <= self.NEGATIVE.max_entries
        assert totals[2] <= self.NEGATIVE.max_bytes
        assert len(self.shelf._evicted_keys._order) <= self.LIMITS.max_entries


TestMemoryAndModel = MemoryAndModel.TestCase
TestMemoryAndModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestShelfUnderPressure = ShelfUnderPressure.TestCase
TestShelfUnderPressure.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)


def test_run_tells_when_its_caller_would_wait() -> None:
    with pytest.raises(AssertionError, match="let its caller wait"):
        run(asyncio.sleep(0))
