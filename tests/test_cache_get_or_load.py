"""Loading on demand: one load for all, windows for old values, short lives for negative answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware.cache import (
    RAW,
    TYPES,
    HybridBackend,
    Kept,
    Loaded,
    Loading,
    LoadingCache,
    MemoryBackend,
    TieredBackend,
    TypedCache,
    kept,
    msgpack,
)
from oidc_middleware.cache.loader.pauses import Pauses
from oidc_middleware.cache.loader.turns import lock_key
from oidc_middleware.clock import SystemClock
from oidc_middleware.errors import BackendUnavailable, ProviderUnavailable
from oidc_middleware.testing import ManualClock

from redis_kit import until
from tier_kit import Tier, turns

pytestmark = pytest.mark.anyio

GENERAL = TYPES["general"]
LIFE = 50.0
PLAIN = Loading(life=LIFE, jitter=0.0, refresh_ahead=1.0)


def with_windows(**changes: Any) -> Loading:
    return Loading(**{"life": LIFE, "jitter": 0.0, "refresh_ahead": 1.0, **changes})


def always(chance: float) -> Callable[[], float]:
    return lambda: chance


NEVER_LESS = always(1.0)


class Source:
    """Where values come from: numbered answers, or what the test wants, when the test lets them go."""

    def __init__(self) -> None:
        self.loads = 0
        self.answer: Any = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> Any:
        self.loads += 1
        number = self.loads
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return b"%d" % number if self.answer is None else self.answer


MakeCache = Callable[..., LoadingCache[bytes]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(now=1_800_000_000.0)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def make(clock: ManualClock) -> AsyncIterator[MakeCache]:
    opened: list[LoadingCache[bytes]] = []

    def make(
        loading: Loading = PLAIN, backend: TieredBackend | None = None, random: Callable[[], float] = NEVER_LESS
    ) -> LoadingCache[bytes]:
        tiers = MemoryBackend(clock) if backend is None else backend
        cache = LoadingCache(TypedCache(GENERAL, tiers, kept(RAW)), clock, loading, random=random)
        opened.append(cache)
        return cache

    yield make
    for cache in opened:
        await cache.aclose()


@pytest.fixture
async def tier(clock: ManualClock) -> Tier:
    return Tier(clock)


@pytest.fixture
async def hybrid(clock: ManualClock, tier: Tier) -> AsyncIterator[HybridBackend]:
    backend = HybridBackend(MemoryBackend(clock), tier, clock=clock)
    yield backend
    tier.heal()
    await backend.close()


# ---------------------------------------------------------------------------------------------------------- one for all


async def test_what_is_there_is_not_loaded(make: MakeCache, source: Source, clock: ManualClock) -> None:
    cache = make()
    assert await cache.get_or_load(b"k", source) == b"1"
    clock.advance(LIFE - 0.001)
    assert await cache.get_or_load(b"k", source) == cache.peek(b"k") == b"1"
    clock.advance(0.001)
    assert cache.peek(b"k") is None
    assert await cache.get_or_load(b"k", source) == b"2"


async def test_a_value_in_memory_is_served_without_going_round_the_loop(make: MakeCache, source: Source) -> None:
    cache = make()
    await cache.get_or_load(b"k", source)
    served = cache.get_or_load(b"k", source)
    with pytest.raises(StopIteration) as ended:
        served.send(None)
    assert ended.value.value == b"1"


async def test_a_thousand_who_ask_at_once_are_one_load(make: MakeCache, source: Source) -> None:
    """D-stampede, J-singleflight: the first is cancelled, and nobody else notices."""
    cache = make()
    source.gate.clear()
    asking = [asyncio.create_task(cache.get_or_load(b"k", source)) for _ in range(1000)]
    await turns()
    asking[0].cancel()
    source.gate.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert set(answers[1:]) == {b"1"}
    assert source.loads == 1


async def test_an_error_is_shared_and_not_cached(make: MakeCache, source: Source) -> None:
    cache = make()
    source.answer = ProviderUnavailable("down")
    answers = await asyncio.gather(*(cache.get_or_load(b"k", source) for _ in range(10)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {ProviderUnavailable}
    assert source.loads == 1
    source.answer = None
    assert await cache.get_or_load(b"k", source) == b"2"


async def test_a_load_sees_nothing_of_the_request_that_caused_it(make: MakeCache, clock: ManualClock) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="nothing")
    variable.set("a request's secret")
    seen: list[str] = []

    async def load() -> bytes:
        seen.append(variable.get())
        return b"v"

    cache = make(with_windows(stale_while_revalidate=10.0))
    await cache.get_or_load(b"k", load)
    clock.advance(LIFE)
    await cache.get_or_load(b"k", load)
    await turns()
    assert seen == ["nothing", "nothing"]


async def test_what_can_be_changed_is_an_error_of_who_loads_it(make: MakeCache, source: Source) -> None:
    """C-mutable."""
    source.answer = bytearray(b"v")
    with pytest.raises(TypeError, match="can be changed"):
        await make().get_or_load(b"k", source)


# ---------------------------------------------------------------------------------------------------------------- lives


async def test_the_time_of_loading_is_part_of_the_life(make: MakeCache, source: Source, clock: ManualClock) -> None:
    """Seed 11: a life begins when the source is asked, not when it has answered."""
    cache = make()
    source.gate.clear()
    asking = asyncio.create_task(cache.get_or_load(b"k", source))
    await turns()
    clock.advance(40)
    source.gate.set()
    assert await asking == b"1"
    clock.advance(9)
    assert cache.peek(b"k") == b"1"
    clock.advance(1)
    assert cache.peek(b"k") is None


async def test_a_load_that_outlasts_its_value_is_stored_nowhere(
    make: MakeCache, source: Source, clock: ManualClock
) -> None:
    cache = make(with_windows(stale_while_revalidate=100.0))
    source.gate.clear()
    asking = asyncio.create_task(cache.get_or_load(b"k", source))
    await turns()
    clock.advance(LIFE)
    source.gate.set()
    assert await asking == b"1"
    assert await cache.get_or_load(b"k", source) == b"2"


async def test_a_loader_that_knows_the_end_can_shorten_the_life(
    make: MakeCache, source: Source, clock: ManualClock
) -> None:
    cache = make()
    source.answer = Loaded(b"v", clock.now() + 10)
    assert await cache.get_or_load(b"short", source) == b"v"
    source.answer = Loaded(b"v", clock.now() + 1000)
    await cache.get_or_load(b"long", source)
    source.answer = Loaded(b"v", float("inf"))
    await cache.get_or_load(b"endless", source)
    clock.advance(10)
    assert [cache.peek(key) for key in (b"short", b"long", b"endless")] == [None, b"v", b"v"]
    clock.advance(40)
    assert [cache.peek(key) for key in (b"long", b"endless")] == [None, None]


async def test_a_value_that_is_over_when_it_comes_ends_the_one_before(
    make: MakeCache, source: Source, clock: ManualClock
) -> None:
    """A source that says 'do not keep this' is obeyed at once, also where an old value could still be served."""
    cache = make(with_windows(stale_if_error=1000.0))
    assert await cache.get_or_load(b"k", source) == b"1"
    clock.advance(LIFE)
    source.answer = Loaded(b"once", clock.now())
    assert await cache.get_or_load(b"k", source) == b"once"
    source.answer = ProviderUnavailable("down")
    with pytest.raises(ProviderUnavailable):
        await cache.get_or_load(b"k", source)


async def test_an_end_that_is_no_time_is_refused(make: MakeCache, source: Source) -> None:
    source.answer = Loaded(b"v", float("nan"))
    with pytest.raises(ValueError, match="some time"):
        await make().get_or_load(b"k", source)


@given(st.data())
def test_no_life_is_ever_lengthened(data: st.DataObject) -> None:
    """Neither chance, nor the loader, nor the time of loading, nor a window makes a value fresh for longer."""
    life, took, window = (data.draw(st.floats(0, 1e6), label=label) for label in ("life", "took", "window"))
    jitter, chance = data.draw(st.floats(0, 0.99), label="jitter"), data.draw(st.floats(0, 1), label="chance")
    end, value = data.draw(st.floats(-1e6, 2e6), label="end"), data.draw(st.sampled_from([None, b"", b"v"]))

    async def check() -> None:
        clock = ManualClock(now=1_800_000_000.0)
        began, memory = clock.now(), MemoryBackend(clock)
        loading = Loading(life=life, negative_life=life / 2, jitter=jitter, stale_if_error=window)
        cache = LoadingCache(TypedCache(GENERAL, memory, kept(RAW)), clock, loading, random=always(chance))

        async def load() -> Any:
            clock.advance(took)
            return Loaded(value, began + end)

        assert await cache.get_or_load(b"k", load) == value
        longest = life if value else life / 2
        bound = min(began + longest, began + end)
        assert cache.peek(b"k") is None or clock.now() < bound
        entry = await memory.get(GENERAL, b"k")
        if entry is None:
            return
        item = kept(RAW).decode(entry.value)
        assert item.loaded_at == began
        assert item.fresh_until <= bound
        assert entry.expires_at <= bound + (window if value else 0)
        assert item.fresh_until >= min(bound, began + longest * (1 - jitter)) - 1e-3, "nor cut by more than that"

    asyncio.run(check())


@given(st.lists(st.tuples(st.floats(0, 40), st.booleans()), max_size=30), st.floats(0, 60), st.floats(0, 60))
def test_no_value_is_served_after_its_end_unless_a_window_allows_it(
    steps: list[tuple[float, bool]], while_revalidate: float, if_error: float
) -> None:
    """Whatever the source does: what is served is fresh, or old by less than the window, or just came."""

    async def check() -> None:
        clock = ManualClock(now=1_800_000_000.0)
        loading = with_windows(stale_while_revalidate=while_revalidate, stale_if_error=if_error, retry_after=5.0)
        cache = LoadingCache(TypedCache(GENERAL, MemoryBackend(clock), kept(msgpack(float))), clock, loading)
        works = True

        async def load() -> float:
            if not works:
                raise ProviderUnavailable
            return clock.now()

        for passed, works in steps:
            clock.advance(passed)
            try:
                loaded_at = await cache.get_or_load(b"k", load)
            except ProviderUnavailable:
                assert not works
                continue
            assert loaded_at is not None
            age = clock.now() - loaded_at
            assert age < LIFE + max(while_revalidate, if_error) or age == 0
            await turns(5)
        await cache.aclose()

    asyncio.run(check())


def is_gone(cache: LoadingCache[bytes]) -> bool:
    return cache.peek(b"k") is None


def has_loaded(source: Source, before: int) -> bool:
    return source.loads > before


async def how_long(clock: ManualClock, condition: Callable[[], object], ask: Callable[[], Any] | None = None) -> int:
    """Let seconds pass until a condition holds, asking each time; return how many passed."""
    for passed in range(1000):
        if condition():
            return passed
        clock.advance(1)
        if ask is not None:
            await ask()
        await turns(3)
    raise AssertionError("it never holds")


async def test_the_lives_of_a_fleet_differ_and_none_is_longer(
    make: MakeCache, source: Source, clock: ManualClock
) -> None:
    lives = []
    for chance in (0.0, 0.5, 1.0):
        cache = make(with_windows(jitter=0.2), random=always(chance))
        await cache.get_or_load(b"k", source)
        lives.append(await how_long(clock, partial(is_gone, cache)))
    assert lives == [50, 45, 40]


# ----------------------------------------------------------------------------------------------------- negative answers


@pytest.mark.parametrize("nothing", [None, b""])
async def test_a_negative_answer_is_kept_for_a_short_time(
    make: MakeCache, source: Source, clock: ManualClock, nothing: bytes | None
) -> None:
    cache = make(with_windows(negative_life=5.0, stale_while_revalidate=100.0, stale_if_error=100.0))
    source.answer = Loaded(nothing, clock.now() + LIFE)
    for _ in range(3):
        assert await cache.get_or_load(b"k", source) == nothing
    assert source.loads == 1
    clock.advance(5)
    source.answer = ProviderUnavailable("down")
    with pytest.raises(ProviderUnavailable):  # no window lets an old "there is none" live on
        await cache.get_or_load(b"k", source)


async def test_a_flood_of_negative_answers_evicts_no_value(clock: ManualClock, source: Source) -> None:
    """I-neg-dos."""
    negative = GENERAL.negative
    assert negative is not None
    inner = TypedCache(GENERAL, MemoryBackend(clock), kept(RAW))
    cache = LoadingCache(inner, clock, PLAIN)
    assert await cache.get_or_load(b"good", source) == b"1"

    async def nothing() -> None:
        return None

    for number in range(negative.max_entries + 100):
        await cache.get_or_load(b"%d" % number, nothing)
    assert inner.stats().entries <= negative.max_entries + 1
    assert cache.peek(b"good") == b"1"


# -------------------------------------------------------------------------------------------------------------- windows


async def test_an_old_value_is_served_at_once_while_one_reload_runs(
    make: MakeCache, source: Source, clock: ManualClock
) -> None:
    """RFC 5861 §3."""
    cache = make(with_windows(stale_while_revalidate=30.0))
    await cache.get_or_load(b"k", source)
    clock.advance(LIFE + 29.9)
    source.gate.clear()
    assert [await cache.get_or_load(b"k", source) for _ in range(100)] == [b"1"] * 100
    assert cache.peek(b"k") is None, "whoever peeks wants it fresh"
    await turns()
    assert source.loads == 2
    source.gate.set()
    await until(lambda: cache.peek(b"k") == b"2")
    clock.advance(LIFE + 30)
    source.gate.clear()
    waits = asyncio.create_task(cache.get_or_load(b"k", source))
    await turns()
    assert not waits.done(), "past the window whoever asks waits"
    source.gate.set()
    assert await waits == b"3"


async def test_an_old_value_is_served_only_where_the_reload_failed(
    make: MakeCache, source: Source, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """RFC 5861 §4."""
    cache = make(with_windows(stale_if_error=30.0, retry_after=5.0))
    await cache.get_or_load(b"k", source)
    clock.advance(LIFE)
    source.answer = ProviderUnavailable("no answer from the issuer")
    with caplog.at_level(logging.WARNING):
        assert await cache.get_or_load(b"k", source) == b"1"
        assert source.loads == 2
        assert await cache.get_or_load(b"k", source) == b"1"
        assert source.loads == 2, "a source that failed is left alone for a moment"
        clock.advance(5)
        assert await cache.get_or_load(b"k", source) == b"1"
        assert source.loads == 3
    assert [record.getMessage() for record in caplog.records] == [
        "A reload of general failed, the old value serves: provider_unavailable: no answer from the issuer"
    ]
    clock.advance(24.9)
    assert await cache.get_or_load(b"k", source) == b"1"
    clock.advance(0.1)
    with pytest.raises(ProviderUnavailable):
        await cache.get_or_load(b"k", source)
    source.answer = None
    assert await cache.get_or_load(b"k", source) == b"6"


async def test_an_outage_is_told_once_and_the_next_one_again(
    make: MakeCache, source: Source, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    cache = make(with_windows(stale_if_error=30.0, retry_after=0.0))
    await cache.get_or_load(b"k", source)
    for _ in range(2):
        clock.advance(LIFE)
        source.answer = ProviderUnavailable("down")
        for _ in range(3):
            await cache.get_or_load(b"k", source)
        source.answer = None
        await cache.get_or_load(b"k", source)
    levels = [record.levelno for record in caplog.records if record.name == "oidc_middleware.cache"]
    assert levels.count(logging.WARNING) == 2


async def test_a_background_reload_that_fails_is_logged_and_pauses(
    make: MakeCache, source: Source, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The text of an error that is not ours may hold anything, and is not logged."""
    cache = make(with_windows(stale_while_revalidate=30.0, retry_after=5.0))
    await cache.get_or_load(b"k", source)
    clock.advance(LIFE)
    source.answer = RuntimeError("a token")
    for _ in range(10):
        assert await cache.get_or_load(b"k", source) == b"1"
        await turns()
    assert source.loads == 2
    assert [record.getMessage() for record in caplog.records] == [
        "A reload of general failed, the old value serves: RuntimeError"
    ]
    clock.advance(5)
    source.answer = None
    assert await cache.get_or_load(b"k", source) == b"1"
    await until(lambda: cache.peek(b"k") == b"3")


async def test_a_value_is_reloaded_ahead_of_its_end(make: MakeCache, source: Source, clock: ManualClock) -> None:
    cache = make(with_windows(refresh_ahead=0.8))
    await cache.get_or_load(b"k", source)
    clock.advance(39.9)
    assert await cache.get_or_load(b"k", source) == b"1"
    await turns()
    assert source.loads == 1
    clock.advance(0.2)
    assert await cache.get_or_load(b"k", source) == b"1"
    await until(lambda: cache.peek(b"k") == b"2")
    assert source.loads == 2


async def test_the_nodes_of_a_fleet_reload_at_different_moments(
    make: MakeCache, source: Source, clock: ManualClock
) -> None:
    moments = []
    for chance in (0.0, 0.5, 1.0):
        cache = make(with_windows(refresh_ahead=0.75, jitter=0.5, life=128.0), random=always(chance))
        await cache.set(b"k", b"v", clock.now() + 128)
        before, ask = source.loads, partial(cache.get_or_load, b"k", source)
        moments.append(await how_long(clock, partial(has_loaded, source, before), ask))
    assert moments == [96, 72, 48]


# ------------------------------------------------------------------------------------------------ changed while loading


@pytest.mark.parametrize("change", ["delete", "clear", "set"])
async def test_what_changes_while_it_is_loaded_is_not_overwritten(
    make: MakeCache, source: Source, clock: ManualClock, change: str
) -> None:
    """Those who asked before get what was loaded; whoever asks later gets what is true now."""
    cache = make()
    source.gate.clear()
    before = asyncio.create_task(cache.get_or_load(b"k", source))
    await turns()
    match change:
        case "delete":
            await cache.delete(b"k")
        case "clear":
            await cache.clear()
        case _:
            await cache.set(b"k", b"set", clock.now() + 10)
    after = asyncio.create_task(cache.get_or_load(b"k", source))
    await turns()
    source.gate.set()
    assert await before == b"1"
    expected = b"set" if change == "set" else b"2"
    assert await after == expected
    assert cache.peek(b"k") == expected


@pytest.mark.parametrize("change", ["delete", "clear"])
async def test_what_is_deleted_while_it_is_loaded_does_not_come_back(
    make: MakeCache, source: Source, change: str
) -> None:
    cache = make()
    source.gate.clear()
    asking = asyncio.create_task(cache.get_or_load(b"k", source))
    await turns()
    await (cache.delete(b"k") if change == "delete" else cache.clear())
    source.gate.set()
    assert await asking == b"1"
    assert cache.peek(b"k") is None


async def test_news_that_come_with_the_answer_still_count(make: MakeCache, hybrid: HybridBackend) -> None:
    async def load() -> bytes:
        hybrid.invalidate(GENERAL, b"k")
        return b"outdated"

    cache = make(backend=hybrid)
    assert await cache.get_or_load(b"k", load) == b"outdated"
    assert cache.peek(b"k") is None


@pytest.mark.parametrize("everything", [False, True])
async def test_what_another_node_changes_while_it_is_loaded_is_not_kept(
    make: MakeCache, source: Source, hybrid: HybridBackend, everything: bool
) -> None:
    cache = make(backend=hybrid)
    source.gate.clear()
    before = asyncio.create_task(cache.get_or_load(b"k", source))
    await until(lambda: source.loads)
    if everything:
        hybrid.invalidate_all(GENERAL)
    else:
        hybrid.invalidate(GENERAL, b"other")
        hybrid.invalidate(GENERAL, b"k")
    await turns(2)
    after = asyncio.create_task(cache.get_or_load(b"k", source))
    await until(lambda: source.loads == 2)
    source.gate.set()
    assert (await before, await after) == (b"1", b"2")
    assert cache.peek(b"k") == b"2"


async def test_a_change_of_another_key_leaves_a_load_alone(
    make: MakeCache, source: Source, hybrid: HybridBackend
) -> None:
    cache = make(backend=hybrid)
    source.gate.clear()
    asking = asyncio.create_task(cache.get_or_load(b"k", source))
    await until(lambda: source.loads)
    hybrid.invalidate(GENERAL, b"other")
    hybrid.invalidate_all(TYPES["metadata"])
    source.gate.set()
    await asking
    assert cache.peek(b"k") == b"1"


@pytest.mark.parametrize("lock", [False, True])
@pytest.mark.parametrize("kind", ["token", "session"])
async def test_a_store_that_fails_is_one_that_has_nothing(source: Source, tier: Tier, kind: str, lock: bool) -> None:
    """Also of types whose reads or writes say so: what was loaded is what counts."""
    clock = SystemClock()
    hybrid = HybridBackend(MemoryBackend(clock), tier, clock=clock)
    cache = LoadingCache(TypedCache(TYPES[kind], hybrid, kept(RAW)), clock, Loading(lock=lock))
    tier.reads = tier.writes = "down"
    assert await cache.get_or_load(b"k", source) == b"1"
    assert cache.peek(b"k") == b"1"
    assert source.loads == 1
    await cache.aclose()
    await hybrid.close()


async def test_a_value_may_be_set_for_a_time_that_is_over(make: MakeCache, source: Source, clock: ManualClock) -> None:
    cache = make(with_windows(stale_while_revalidate=100.0))
    await cache.set(b"k", b"old", clock.now() + 10)
    await cache.set(b"k", b"over", clock.now())
    assert await cache.get_or_load(b"k", source) == b"1"


@pytest.mark.parametrize("end", [float("nan"), float("inf")])
async def test_a_value_cannot_be_set_for_a_time_that_is_none(make: MakeCache, end: float) -> None:
    cache = make()
    await cache.set(b"k", b"v", 1_800_000_010.0)
    with pytest.raises(ValueError, match="finite"):
        await cache.set(b"k", b"other", end)
    assert cache.peek(b"k") == b"v"


async def test_to_set_a_value_that_the_store_does_not_take_is_an_error(tier: Tier) -> None:
    clock = SystemClock()
    hybrid = HybridBackend(MemoryBackend(clock), tier, clock=clock)
    cache = LoadingCache(TypedCache(TYPES["token"], hybrid, kept(RAW)), clock)
    tier.writes = "down"
    with pytest.raises(BackendUnavailable):
        await cache.set(b"k", b"v", clock.now() + 10)
    assert cache.peek(b"k") == b"v"
    await hybrid.close()


# -------------------------------------------------------------------------------------------------------------- closing


async def test_what_runs_is_ended_and_nothing_begins_after_closing(
    make: MakeCache, source: Source, clock: ManualClock
) -> None:
    cache = make(with_windows(stale_while_revalidate=30.0))
    await cache.get_or_load(b"k", source)
    clock.advance(LIFE)
    source.gate.clear()
    assert await cache.get_or_load(b"k", source) == b"1"
    waits = asyncio.create_task(cache.get_or_load(b"other", source))
    await turns()
    assert source.loads == 3
    await cache.aclose()
    with pytest.raises(BackendUnavailable):
        await waits
    assert await cache.get_or_load(b"k", source) == b"1", "what is there is still served"
    with pytest.raises(BackendUnavailable):
        await cache.get_or_load(b"other", source)
    assert source.loads == 3


def test_a_cache_works_from_one_event_loop_after_another(clock: ManualClock) -> None:
    """D-loop: a load that its loop took along is no obstacle."""
    cache = LoadingCache(TypedCache(GENERAL, MemoryBackend(clock), kept(RAW)), clock, PLAIN)

    async def first() -> None:
        gate = asyncio.Event()

        async def never() -> bytes:
            await gate.wait()
            return b"never"

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await cache.get_or_load(b"k", never)

    async def second() -> bytes | None:
        async def load() -> bytes:
            return b"v"

        return await cache.get_or_load(b"k", load)

    asyncio.run(first())
    assert asyncio.run(second()) == b"v"


# ----------------------------------------------------------------------------------------------------------- the pieces


@pytest.mark.parametrize(
    "options",
    [
        {"life": -1.0}, {"life": float("inf")}, {"life": float("nan")}, {"negative_life": -1.0}, {"jitter": 1.0},
        {"jitter": -0.1}, {"refresh_ahead": 0.0}, {"refresh_ahead": 1.1}, {"lock_life": 0.0}, {"poll": 0.0},
        {"stale_while_revalidate": -1.0}, {"stale_if_error": float("inf")}, {"spread": -1.0}, {"retry_after": -1.0},
    ],
)  # fmt: skip
def test_options_that_cannot_be(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Loading(**options)  # type: ignore[arg-type]


@given(st.one_of(st.none(), st.binary(min_size=1)), st.floats(0, 1e12), st.floats(0, 1e12))
def test_what_is_kept_comes_back_as_it_was(value: bytes | None, loaded_at: float, life: float) -> None:
    codec, item = kept(RAW), Kept(value, loaded_at, loaded_at + life)
    assert codec.decode(codec.encode(item)) == item
    assert codec.is_negative(item) == (value is None)


@given(st.binary(max_size=40))
def test_bytes_that_are_nothing_kept_are_a_value_error_or_a_true_item(data: bytes) -> None:
    """C-serial: anybody may have written them."""
    try:
        item = kept(RAW).decode(data)
    except ValueError:
        return
    assert 0 <= item.fresh_until - item.loaded_at < float("inf")


@pytest.mark.parametrize(
    "times", [(2.0, 1.0), (float("nan"), 1.0), (1.0, float("nan")), (1.0, float("inf")), (float("-inf"), 1.0)]
)
def test_times_that_cannot_be_are_not_read(times: tuple[float, float]) -> None:
    codec = kept(RAW)
    with pytest.raises(ValueError, match="its times"):
        codec.decode(codec.encode(Kept(b"v", *times)))


def test_a_lock_is_no_entry_of_anybody() -> None:
    assert lock_key(b"k") == lock_key(b"k") != lock_key(b"l")
    assert len(lock_key(b"")) == 32


def test_pauses_are_bounded() -> None:
    pauses = Pauses(limit=2)
    pauses.begin(b"1", 0.0, 5.0)
    pauses.begin(b"2", 0.0, 9.0)
    pauses.begin(b"3", 0.0, 9.0)
    assert [pauses.is_on(key, 4.0) for key in (b"1", b"2", b"3")] == [True, True, False]
    pauses.begin(b"3", 5.0, 9.0)
    assert [pauses.is_on(key, 5.0) for key in (b"1", b"2", b"3")] == [False, True, True]
    assert not pauses.is_on(b"2", 9.0)
