"""Bounds of memory: what stays, what goes, and what it costs."""

from __future__ import annotations

import gc
import itertools
import math
import random
import tracemalloc
from collections import Counter
from hashlib import sha256

import pytest

from oidc_middleware.cache.footprint import footprint
from oidc_middleware.cache.shelf import OVERHEAD, Shelf
from oidc_middleware.cache.types import TYPES, CacheType, Limits
from oidc_middleware.testing.clock import ManualClock

HOUR = 3600.0
MUCH = 1 << 40


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(now=1_800_000_000.0)


def key(name: object) -> bytes:
    return sha256(str(name).encode()).digest()


def shelf_of(clock: ManualClock, entries: int, size: int = MUCH, negative: Limits | None = None) -> Shelf[str]:
    return Shelf(clock, Limits(entries, size, min(size, 1 << 20)), negative)


def put(shelf: Shelf[str], clock: ManualClock, name: object, size: int = 100, life: float = HOUR) -> bool:
    return shelf.put(key(name), "value", clock.now() + life, size)


def put_hot(shelf: Shelf[str], clock: ManualClock, count: int, size: int = 100) -> list[bytes]:
    names = [("hot", n) for n in range(count)]
    for name in names:
        put(shelf, clock, name, size)
        shelf.peek(key(name))
    return [key(name) for name in names]


# --------------------------------------------------------------------------------------------------------------- floods


@pytest.mark.parametrize("filled", [False, True], ids=["into an empty cache", "into a full cache"])
def test_a_flood_evicts_nothing_that_was_asked_for_twice(clock: ManualClock, filled: bool) -> None:
    """D-memory, I-neg-dos: a million keys that come once pass through the tenth that is on probation."""
    shelf = shelf_of(clock, 1000)
    for n in range(2000 if filled else 0):
        put(shelf, clock, ("cold", n))
    hot = put_hot(shelf, clock, 400)
    for n in range(50_000):
        put(shelf, clock, ("flood", n))
    assert [k for k in hot if shelf.end_of(k) is None] == []
    assert shelf.stats().entries == 1000


def test_a_flood_of_large_values_evicts_nothing_that_was_asked_for_twice(clock: ManualClock) -> None:
    shelf = shelf_of(clock, 100_000, 4_000_000)
    hot = put_hot(shelf, clock, 2000)
    for n in range(3000):
        put(shelf, clock, ("flood", n), size=200_000)
    assert [k for k in hot if shelf.end_of(k) is None] == []
    assert shelf.stats().bytes <= 4_000_000


def test_a_flood_that_comes_twice_does_not_evict_what_is_in_use(clock: ManualClock) -> None:
    """Who knows how eviction works sends each key again soon after it was evicted, to get it into the main lane."""
    shelf = shelf_of(clock, 1000)
    hot = put_hot(shelf, clock, 300)
    lost = 0
    for n in range(20_000):
        put(shelf, clock, ("flood", n))
        put(shelf, clock, ("flood", n - 150))
        asked = hot[n % len(hot)]
        if shelf.peek(asked) is None:
            lost += 1
            shelf.put(asked, "value", clock.now() + HOUR, 100)
    assert lost <= 20


def test_who_comes_back_soon_after_it_was_evicted_is_kept(clock: ManualClock) -> None:
    shelf = shelf_of(clock, 1000)
    for n in range(2000):
        put(shelf, clock, ("flood", n))
    put(shelf, clock, "regular")
    for n in range(2000, 2500):
        put(shelf, clock, ("flood", n))
    assert shelf.end_of(key("regular")) is None
    put(shelf, clock, "regular")
    for n in range(2500, 10_000):
        put(shelf, clock, ("flood", n))
    assert shelf.end_of(key("regular")) is not None


def test_what_was_in_use_makes_way_for_what_is(clock: ManualClock) -> None:
    """Hits wear off: yesterday's working set does not keep today's out."""
    shelf = shelf_of(clock, 1000)
    for k in put_hot(shelf, clock, 1000) * 5:
        shelf.peek(k)
    today = [key(("today", n)) for n in range(800)]
    for _ in range(30):
        for k in today:
            if shelf.peek(k) is None:
                shelf.put(k, "value", clock.now() + HOUR, 100)
    assert sum(shelf.end_of(k) is None for k in today) <= 8


def test_negative_answers_have_room_of_their_own(clock: ManualClock) -> None:
    """I-neg-dos: random opaque tokens fill the room of negative answers, and no more than that."""
    shelf = shelf_of(clock, 1000, negative=Limits(50, 10_000_000, 1000))
    for n in range(1000):
        put(shelf, clock, n)
    for n in range(20_000):
        shelf.put(key(("no", n)), "", clock.now() + 10, 50, negative=True)
    assert all(shelf.end_of(key(n)) for n in range(1000))
    assert shelf.stats().entries == 1050
    assert shelf.peek(key(("no", 19_999))) == ""
    assert shelf.peek(key(("no", 19_949))) is None


def test_negative_answers_are_bounded_in_bytes(clock: ManualClock) -> None:
    shelf = shelf_of(clock, 1000, negative=Limits(1000, 20 * (100 + 32 + OVERHEAD), 1000))
    for n in range(100):
        shelf.put(key(n), "", clock.now() + 10, 100, negative=True)
    assert shelf.stats().entries == 20
    assert not shelf.put(key("large"), "", clock.now() + 10, 1001, negative=True)


def test_a_key_changes_sides_when_its_answer_does(clock: ManualClock) -> None:
    """C-neg-poison: one entry a key, and the last answer is the one that holds."""
    shelf = shelf_of(clock, 10, negative=Limits(10, 100_000, 1000))
    shelf.put(b"k", "", clock.now() + 10, 0, negative=True)
    shelf.put(b"k", "yes", clock.now() + 10, 0)
    assert shelf.peek(b"k") == "yes"
    shelf.put(b"k", "", clock.now() + 10, 0, negative=True)
    assert (shelf.peek(b"k"), shelf.stats().entries) == ("", 1)
    for n in range(30):
        put(shelf, clock, n)
    assert shelf.peek(b"k") == ""


def test_without_a_partition_a_negative_answer_is_an_entry_like_others(clock: ManualClock) -> None:
    shelf = shelf_of(clock, 2)
    for n in range(5):
        shelf.put(key(n), "", clock.now() + 10, 0, negative=True)
    assert shelf.stats().entries == 2


# --------------------------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize("entries", [1, 2, 5, 10, 11, 100])
def test_count_is_bounded_at_every_moment(clock: ManualClock, entries: int) -> None:
    shelf = shelf_of(clock, entries)
    rng = random.Random(entries)
    for n in range(3000):
        put(shelf, clock, rng.randrange(entries * 3), life=rng.choice([1, HOUR]))
        shelf.peek(key(rng.randrange(entries * 3)))
        assert shelf.stats().entries <= entries
        clock.advance(0.01)
        if n % 7 == 0:
            shelf.delete(key(rng.randrange(entries * 3)))


def test_bytes_are_bounded_at_every_moment(clock: ManualClock) -> None:
    shelf = shelf_of(clock, 10_000, 100_000)
    rng = random.Random(1)
    for n in range(3000):
        put(shelf, clock, rng.randrange(200), size=rng.randrange(20_000))
        shelf.peek(key(rng.randrange(200)))
        assert shelf.stats().bytes <= 100_000, n


def test_replacing_counts_the_new_size_alone(clock: ManualClock) -> None:
    shelf = shelf_of(clock, 10)
    for size in (10, 5000, 10):
        put(shelf, clock, "k", size)
    assert shelf.stats().bytes == 10 + 32 + OVERHEAD
    shelf.delete(key("k"))
    assert shelf.stats().bytes == 0


def test_a_newcomer_finds_room_where_everything_is_in_use(clock: ManualClock) -> None:
    shelf = shelf_of(clock, 100)
    for _ in range(3):
        put_hot(shelf, clock, 100)
    assert put(shelf, clock, "new")
    assert shelf.peek(key("new")) == "value"


def test_no_put_takes_more_steps_than_a_fixed_number(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-loop: where 20,000 entries are all in use, one that comes in must not wait for all of them to be looked at."""
    shelf = shelf_of(clock, 20_000)
    hot = put_hot(shelf, clock, 20_000)
    for _ in range(3):
        for k in hot:
            shelf.peek(k)
    steps = Counter[int]()
    slots = shelf._slots
    kind = type(slots)
    move = kind.move

    def counted(self: object, row: int, lane: int) -> None:
        steps[n] += 1
        move(slots, row, lane)

    monkeypatch.setattr(kind, "move", counted)
    for n in range(3000):
        put(shelf, clock, ("new", n))
        shelf.peek(key(("new", n)))
    assert 0 < max(steps.values()) <= 70


@pytest.mark.parametrize("payload", [0, 500, 4000])
def test_counted_bytes_are_real_bytes(payload: int) -> None:
    """D-memory: what the limits bound is what the process takes, keys, index and eviction's memory included."""
    clock = ManualClock()
    gc.collect()
    tracemalloc.start()
    try:
        shelf: Shelf[tuple[float, int, bytes]] = Shelf(clock, Limits(3000, MUCH, MUCH))
        before = tracemalloc.get_traced_memory()[0]
        for n in range(9000):
            value = (clock.now() + n, 1_000_000 + n, bytes(payload) + b"%d" % n)
            shelf.put(key(n), value, clock.now() + HOUR + n, footprint(value))
            if n % 5 == 0:
                shelf.peek(key(n))
        gc.collect()
        real = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.7 * shelf.stats().bytes <= real <= 1.1 * shelf.stats().bytes


def test_memory_is_flat_over_many_distinct_keys(clock: ManualClock) -> None:
    """D-memory: every map is bounded, the one that remembers evicted keys included."""
    shelf = shelf_of(clock, 500)
    for n in range(30_000):
        put(shelf, clock, n, life=60)
        if n % 3 == 0:
            shelf.peek(key(n))
            put(shelf, clock, n - 300, life=60)
        if n % 11 == 0:
            shelf.delete(key(n - 1))
        clock.advance(0.01)
    columns = [getattr(shelf._slots, name) for name in ("keys", "values", "ends", "after", "before", "hits", "free")]
    assert max(map(len, columns)) <= 510
    assert len(shelf._index) <= 500
    assert len(shelf._evicted_keys._order) <= 500
    assert len(shelf._evicted_keys._hashes) <= 500


# --------------------------------------------------------------------------------------------------------------- expiry


def test_expired_entries_leave_without_being_asked_for(clock: ManualClock) -> None:
    shelf = shelf_of(clock, 10_000)
    for n in range(1000):
        put(shelf, clock, ("short", n), life=10)
    clock.advance(10)
    for n in range(1100):
        put(shelf, clock, ("long", n))
    assert shelf.stats().entries == 1100
    assert shelf.stats().expired == 1000
    assert shelf.stats().evicted == 0


def test_an_expired_entry_leaves_when_it_is_asked_for(clock: ManualClock) -> None:
    """C-exp-recheck: the end is looked at on every hit."""
    shelf = shelf_of(clock, 10)
    put(shelf, clock, "k", life=10)
    assert shelf.peek(key("k")) == "value"
    clock.advance(10)
    assert shelf.peek(key("k")) is None
    counts = shelf.stats()
    assert (counts.hits, counts.misses, counts.expired, counts.entries, counts.bytes) == (1, 1, 1, 0, 0)


def test_a_stale_value_is_there_for_who_asks_for_it_until_the_type_gives_it_up(clock: ManualClock) -> None:
    shelf: Shelf[str] = Shelf(clock, Limits(10, MUCH, MUCH), stale=100)
    put(shelf, clock, "k", life=10)
    clock.advance(10)
    assert shelf.peek(key("k")) is None
    assert shelf.end_of(key("k")) is None
    assert shelf.peek_stale(key("k")) == "value"
    assert not shelf.delete(key("unknown"))
    clock.advance(99)
    assert shelf.peek_stale(key("k")) == "value"
    clock.advance(1)
    assert shelf.peek_stale(key("k")) is None
    assert shelf.peek(key("k")) is None
    assert shelf.stats().entries == 0


def test_stale_values_make_room_first(clock: ManualClock) -> None:
    shelf: Shelf[str] = Shelf(clock, Limits(100, MUCH, MUCH), stale=HOUR)
    stale = put_hot(shelf, clock, 100)
    for n in range(20):
        put(shelf, clock, ("cold", n))
    for k in stale * 3:
        shelf.peek(k)
    clock.advance(HOUR)
    names = [("new", n) for n in range(80)]
    for name in names:
        put(shelf, clock, name)
        shelf.peek(key(name))
    assert all(shelf.end_of(key(name)) for name in names)


def test_life_here_is_capped(clock: ManualClock) -> None:
    shelf = shelf_of(clock, 10)
    shelf.life = 60
    put(shelf, clock, "long", life=HOUR)
    put(shelf, clock, "short", life=5)
    assert shelf.end_of(key("long")) == clock.now() + 60
    assert shelf.end_of(key("short")) == clock.now() + 5


def test_a_type_without_limits_evicts_nothing(clock: ManualClock) -> None:
    """C-bl-flood: what was revoked stays revoked, however much else is; its end alone takes an entry away."""
    blacklist = TYPES["blacklist"]
    assert not blacklist.evictable
    shelf: Shelf[str] = Shelf(clock, blacklist.limits)
    for n in range(50_000):
        shelf.put(key(n), "value", clock.now() + (10 if n % 2 else HOUR), 1 << 20)
    assert (shelf.stats().entries, shelf.stats().evicted) == (50_000, 0)
    clock.advance(10)
    for n in (*range(50_000), 0, 0, 0):  # a put looks at one row, and there are three besides the entries'
        put(shelf, clock, n - n % 2)
    assert shelf.stats().entries == 25_000


# ------------------------------------------------------------------------------------------------------------ hit ratio


def test_hit_ratio_is_that_of_s3_fifo() -> None:
    """Zipf(1.0), 1 % of the keys fit: 0.597; an LRU has 0.506."""
    clock = ManualClock()
    keys = [n.to_bytes(4, "big") for n in range(20_000)]
    weights = list(itertools.accumulate(1 / (n + 1) for n in range(20_000)))
    trace = random.Random(7).choices(keys, cum_weights=weights, k=200_000)
    shelf = shelf_of(clock, 200)
    for k in trace:
        if shelf.peek(k) is None:
            shelf.put(k, "value", clock.now() + HOUR, 1)
    counts = shelf.stats()
    assert counts.hits + counts.misses == len(trace)
    assert counts.hits / len(trace) >= 0.53  # the ratio of 20,000 keys; benchmarks/bench_cache.py has the larger one


# ------------------------------------------------------------------------------------------------------ table and sizes


def test_the_table_of_types() -> None:
    assert list(TYPES) == ["metadata", "jwk", "token", "blacklist", "session", "introspection", "general"]
    assert {name for name, kind in TYPES.items() if kind.write == "synchronous"} == {"token", "blacklist"}
    assert [name for name, kind in TYPES.items() if not kind.evictable] == ["blacklist"]
    with pytest.raises(TypeError):
        TYPES["token"] = TYPES["general"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "alone", "shared"),
    [
        ("metadata", math.inf, 600),
        ("jwk", math.inf, 600),
        ("token", 60, 60),
        ("blacklist", math.inf, math.inf),
        ("session", math.inf, 5),
        ("introspection", 60, 60),
        ("general", math.inf, 60),
    ],
)
def test_how_long_memory_answers(name: str, alone: float, shared: float) -> None:
    kind: CacheType = TYPES[name]
    assert (kind.memory_life(shared=False), kind.memory_life(shared=True)) == (alone, shared)


@pytest.mark.parametrize("numbers", [(0, 10, 1), (10, 0, 0), (10, 10, 11), (10, 10, 0)])
def test_limits_that_let_nothing_in_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="one entry must fit"):
        Limits(*numbers)


@pytest.mark.parametrize("value", [[], {}, set(), bytearray(b"x"), memoryview(b"x"), (1, (2, [])), (b"x", {})])
def test_what_can_be_changed_is_refused(value: object) -> None:
    """C-mutable."""
    with pytest.raises(TypeError, match="can be changed"):
        footprint(value)


def test_a_footprint_covers_what_tuples_hold() -> None:
    assert footprint((1.5, (b"x" * 1000, frozenset({"y" * 1000})))) > 2000
    with pytest.raises(TypeError, match="miss"):
        footprint(None)
