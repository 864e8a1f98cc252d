"""Several nodes load one key: who goes first, who waits, and what becomes of them when one or the store is gone."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware.cache import (
    RAW,
    TYPES,
    Backend,
    HybridBackend,
    Kept,
    Loading,
    LoadingCache,
    MemoryBackend,
    RedisBackend,
    TypedCache,
    kept,
    msgpack,
)
from oidc_middleware.cache.hybrid.watchers import Watchers
from oidc_middleware.cache.loader.turns import lock_key
from oidc_middleware.clock import Clock
from oidc_middleware.errors import BackendUnavailable, ProviderUnavailable
from oidc_middleware.testing import ManualClock

from load_peer import KEY, LoadPeer
from redis_kit import BUDGET, CLOCK, PATIENCE, RedisServer, until
from tier_kit import Tier, turns
from time_kit import within

pytestmark = pytest.mark.anyio

GENERAL = TYPES["general"]
LOCK = lock_key(KEY)
NODES, CALLERS = 3, 64
LONG = 60.0
"""A lock that outlives any test: who gets on before did not wait for its end."""


class Node:
    """A node of a fleet, and the loads that it began. A load takes `seconds`, or until the test opens `gate`."""

    def __init__(self, backend: HybridBackend, clock: Clock, loading: Loading, chance: float) -> None:
        self.backend = backend
        self.inner = TypedCache(GENERAL, backend, kept(RAW))
        self.cache = LoadingCache(self.inner, clock, loading, random=lambda: chance)
        self.loads = 0
        self.seconds = 0.0
        self.value = b"v"
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self) -> bytes:
        self.loads += 1
        value = self.value
        await asyncio.sleep(self.seconds)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return value

    async def ask(self) -> bytes | None:
        return await self.cache.get_or_load(KEY, self.load)

    def asking(self) -> asyncio.Task[bytes | None]:
        return asyncio.create_task(self.ask())


MakeNodes = Callable[..., list[Node]]
MakeFollowing = Callable[..., Awaitable[list[Node]]]


@pytest.fixture
async def close_later() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def nodes_over(close_later: AsyncExitStack) -> MakeNodes:
    def make(
        share: Callable[[], Backend],
        loading: Loading,
        clock: Clock = CLOCK,
        budget: float = PATIENCE,
        count: int = NODES,
    ) -> list[Node]:
        made = []
        for number in range(count):
            backend = HybridBackend(MemoryBackend(clock), share(), clock=clock, budget=budget)
            node = Node(backend, clock, loading, chance=number / max(1, count - 1))
            close_later.push_async_callback(backend.close)
            close_later.push_async_callback(node.cache.aclose)
            made.append(node)
        return made

    return make


@pytest.fixture
def over_redis(nodes_over: MakeNodes, redis_server: RedisServer) -> MakeFollowing:
    """Nodes over a server, each of which follows the others already: what it forgets at first, it has forgotten."""

    async def make(loading: Loading, budget: float = PATIENCE, count: int = NODES) -> list[Node]:
        nodes = nodes_over(
            lambda: RedisBackend(redis_server.url, clock=CLOCK, budget=budget), loading, CLOCK, budget, count
        )
        for node in nodes:
            node.backend.start()
        await until(lambda: all(node.backend.overview().gaps for node in nodes))
        return nodes

    return make


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(now=1_800_000_000.0)


@pytest.fixture
def over_memory(nodes_over: MakeNodes, clock: ManualClock) -> MakeNodes:
    """Nodes whose shared tier is a store in this process, on a clock that the test moves."""
    store = MemoryBackend(clock)

    def make(loading: Loading, count: int = NODES) -> list[Node]:
        return nodes_over(lambda: Tier(clock, store), loading, clock, PATIENCE, count)

    return make


def locking(**changes: Any) -> Loading:
    return Loading(**{"lock": True, "lock_life": LONG, "poll": 0.05, "refresh_ahead": 1.0, "jitter": 0.0, **changes})


def loads(nodes: list[Node]) -> int:
    return sum(node.loads for node in nodes)


async def storm(nodes: list[Node]) -> set[bytes | None]:
    return set(await asyncio.gather(*(node.ask() for node in nodes for _ in range(CALLERS))))


# ---------------------------------------------------------------------------------------------------------- a cold key


async def test_a_fleet_that_locks_loads_once(over_redis: MakeFollowing) -> None:
    """D-stampede: 192 callers on three nodes are one load."""
    nodes = await over_redis(locking())
    for node in nodes:
        node.seconds = 0.05
    assert await storm(nodes) == {b"v"}
    assert loads(nodes) == 1
    await until(lambda: len(nodes[0].backend._coherence._watchers) == 0)


async def test_a_fleet_that_does_not_lock_loads_once_a_node_at_most(over_redis: MakeFollowing) -> None:
    """D-stampede."""
    nodes = await over_redis(locking(lock=False))
    for node in nodes:
        node.seconds = 0.05
    assert await storm(nodes) == {b"v"}
    assert all(node.loads <= 1 for node in nodes)
    assert loads(nodes) >= 1


async def test_nodes_that_spread_out_load_once(over_redis: MakeFollowing) -> None:
    """A second look after a moment that each node draws for itself: where a load is cheap, that is enough."""
    nodes = await over_redis(locking(lock=False, spread=1.0))
    assert await storm(nodes) == {b"v"}
    assert [node.loads for node in nodes] == [1, 0, 0]


async def test_what_one_node_loaded_the_others_have(over_redis: MakeFollowing) -> None:
    nodes = await over_redis(locking(lock=False))
    assert await nodes[0].ask() == b"v"
    await until(lambda: nodes[0].backend.overview().queued == 0)
    assert await nodes[1].ask() == await nodes[2].ask() == b"v"
    assert loads(nodes) == 1


async def test_the_lock_is_given_back_after_the_value_is_there(over_redis: MakeFollowing) -> None:
    first, second, third = await over_redis(locking())
    await first.ask()
    assert await second.backend.get_shared(GENERAL, LOCK) is None
    await second.cache.delete(KEY)
    third.value = b"newer"
    assert await third.ask() == b"newer", "nobody waits for a lock that was given back"


async def test_the_lock_is_kept_while_the_value_is_on_its_way(over_memory: MakeNodes) -> None:
    """What leaves in one batch may arrive in any order, and one that finds no lock and no value would load again."""
    holder, other = over_memory(locking(), count=2)
    tier = holder.backend.shared
    assert isinstance(tier, Tier)
    tier.hold("set", "set_many")
    first = holder.asking()
    await until(lambda: tier.calls["set"] + tier.calls["set_many"])
    await turns()
    second = other.asking()
    await turns()
    assert tier.calls["delete"] == 0
    tier.release()
    assert await first == await second == b"v"
    assert (holder.loads, other.loads) == (1, 0)


async def test_those_who_wait_are_woken_by_the_news(over_redis: MakeFollowing) -> None:
    """The change log tells that the lock is gone; they don't look again before."""
    holder, waiter = await over_redis(locking(poll=LONG / 2), count=2)
    holder.gate.clear()
    first = holder.asking()
    await until(lambda: holder.loads)
    second = waiter.asking()
    await until(lambda: len(waiter.backend._coherence._watchers) == 1)
    holder.gate.set()
    assert await first == b"v"
    waiter.backend.invalidate(GENERAL, LOCK)
    async with asyncio.timeout(PATIENCE):
        assert await second == b"v"
    assert waiter.loads == 0


async def test_those_who_wait_look_where_no_news_come(over_redis: MakeFollowing) -> None:
    """Whether there is a change log or not; it only makes this faster."""
    holder, *waiters = await over_redis(locking(poll=0.5))
    holder.gate.clear()
    first = holder.asking()
    await until(lambda: holder.loads)
    others = [node.asking() for node in waiters]
    await until(lambda: all(len(node.backend._coherence._watchers) for node in waiters))
    assert not any(task.done() for task in others)
    holder.gate.set()
    assert {await first, *await asyncio.gather(*others)} == {b"v"}
    assert loads(waiters) == 0


# --------------------------------------------------------------------------------------------------- a holder that ends


async def test_a_cancelled_caller_leaves_the_load_and_the_lock_alone(over_redis: MakeFollowing) -> None:
    nodes = await over_redis(locking())
    nodes[0].gate.clear()
    caller = nodes[0].asking()
    await until(lambda: nodes[0].loads)
    others = [node.asking() for node in nodes[1:]]
    caller.cancel()
    await asyncio.wait((caller,))
    await turns()
    nodes[0].gate.set()
    assert set(await asyncio.gather(*others)) == {b"v"}
    assert loads(nodes) == 1


async def test_a_node_that_stops_gives_the_lock_back(over_redis: MakeFollowing) -> None:
    """Those who wait take over at once, not when the lock ends."""
    holder, *waiters = await over_redis(locking())
    holder.gate.clear()
    given_up = holder.asking()
    await until(lambda: holder.loads)
    others = [node.asking() for node in waiters]
    await holder.cache.aclose()
    with pytest.raises(BackendUnavailable):
        await given_up
    async with asyncio.timeout(PATIENCE):
        assert set(await asyncio.gather(*others)) == {b"v"}
    assert loads(waiters) == 1


async def test_a_node_whose_load_fails_makes_room_for_the_next(over_redis: MakeFollowing) -> None:
    """The error is its own; another node tries for itself, at once."""
    holder, *waiters = await over_redis(locking())
    holder.gate.clear()
    holder.error = ProviderUnavailable("no answer")
    failing = holder.asking()
    await until(lambda: holder.loads)
    others = [node.asking() for node in waiters]
    holder.gate.set()
    with pytest.raises(ProviderUnavailable):
        await failing
    async with asyncio.timeout(PATIENCE):
        assert set(await asyncio.gather(*others)) == {b"v"}
    assert loads(waiters) == 1


async def test_when_the_holder_is_killed_the_lock_ends(over_redis: MakeFollowing, redis_server: RedisServer) -> None:
    """D-lock-die: one of the others goes on, and not before the lock has ended."""
    life = 1.5
    nodes = await over_redis(locking(lock_life=life))
    with LoadPeer(redis_server.url, life, "never") as peer, within(2 * life):
        asking = [node.asking() for node in nodes]
        peer.send(signal.SIGKILL)
        assert set(await asyncio.gather(*asking)) == {b"v"}
    assert loads(nodes) == 1


async def test_what_a_thawed_holder_brings_does_no_harm(over_redis: MakeFollowing, redis_server: RedisServer) -> None:
    """D-lock-die: it was frozen for longer than its lock; another loaded something newer meanwhile."""
    life = 0.5
    nodes = await over_redis(locking(lock_life=life))
    with LoadPeer(redis_server.url, life, "outdated") as peer:
        peer.send(signal.SIGSTOP)
        for node in nodes:
            node.value = b"newer"
        assert await nodes[0].ask() == b"newer"
        await until(lambda: nodes[0].backend.overview().queued == 0)
        peer.send(signal.SIGCONT)
        assert await asyncio.to_thread(peer.finish) == "newer", "its own callers get the newer one too"
        assert await nodes[1].ask() == b"newer"
    assert loads(nodes) == 1


async def test_a_late_holder_leaves_the_lock_of_another_alone(over_memory: MakeNodes, clock: ManualClock) -> None:
    late, holder, waiter = over_memory(locking(lock_life=10.0))
    late.gate.clear()
    holder.gate.clear()
    late.value, holder.value = b"outdated", b"newer"
    first = late.asking()
    await until(lambda: late.loads)
    clock.advance(10)
    second = holder.asking()
    await until(lambda: holder.loads)
    late.gate.set()
    assert await first == b"outdated", "nobody has anything newer yet"
    assert await waiter.backend.get_shared(GENERAL, LOCK) is not None
    holder.gate.set()
    assert await second == b"newer"
    assert await waiter.ask() == b"newer"
    assert waiter.loads == 0


async def test_a_lock_that_is_about_to_end_is_left_alone(over_memory: MakeNodes, clock: ManualClock) -> None:
    """The delete could arrive when the lock belongs to another."""
    holder, other = over_memory(locking(lock_life=10.0), count=2)
    holder.gate.clear()
    asking = holder.asking()
    await until(lambda: holder.loads)
    clock.advance(9)
    holder.gate.set()
    await asking
    assert await other.backend.get_shared(GENERAL, LOCK) is not None
    clock.advance(1)
    assert await other.backend.get_shared(GENERAL, LOCK) is None


async def test_nobody_waits_for_others_for_ever(over_memory: MakeNodes, clock: ManualClock) -> None:
    """Somebody holds the lock again and again and never brings a value: two lives of a lock are enough."""
    node, other = over_memory(locking(lock_life=0.2), count=2)
    end = clock.now() + LONG
    assert await other.inner.add(LOCK, Kept(None, clock.now(), end), end)
    start = perf_counter()
    assert await node.ask() == b"v"
    assert perf_counter() - start >= 0.4


# --------------------------------------------------------------------------------------------------- a store that fails


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_without_the_store_every_node_loads_for_itself(
    over_redis: MakeFollowing, redis_server: RedisServer, how: str
) -> None:
    """At most once a node, and no caller waits for longer than the waits for the store take."""
    nodes = await over_redis(locking(), budget=BUDGET)
    await asyncio.gather(*(node.inner.get(b"warm") for node in nodes))
    redis_server.kill() if how == "killed" else redis_server.stop()
    try:
        with within(6 * BUDGET):
            assert await storm(nodes) == {b"v"}
        assert await storm(nodes) == {b"v"}
        assert [node.loads for node in nodes] == [1, 1, 1]
    finally:
        if how == "frozen":
            redis_server.cont()


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_store_that_goes_while_one_loads(
    over_redis: MakeFollowing, redis_server: RedisServer, how: str
) -> None:
    """The holder's callers get their value; those who waited for it load for themselves."""
    nodes = await over_redis(locking(), budget=BUDGET)
    nodes[0].gate.clear()
    asking = [nodes[0].asking()]
    await until(lambda: nodes[0].loads)
    asking += [node.asking() for node in nodes[1:]]
    await until(lambda: all(len(node.backend._coherence._watchers) for node in nodes[1:]))
    redis_server.kill() if how == "killed" else redis_server.stop()
    try:
        nodes[0].gate.set()
        async with asyncio.timeout(PATIENCE):
            assert set(await asyncio.gather(*asking)) == {b"v"}
        assert [node.loads for node in nodes] == [1, 1, 1]
    finally:
        if how == "frozen":
            redis_server.cont()


# ------------------------------------------------------------------------------------------------------ a fleet in time


async def test_a_reload_ahead_is_one_of_the_fleet(over_memory: MakeNodes, clock: ManualClock) -> None:
    """Each node has its moment; who comes later finds what the first has brought, though its memory has the old one."""
    nodes = over_memory(Loading(life=50.0, refresh_ahead=0.8, jitter=0.2))
    for node in reversed(nodes):
        await node.ask()
        await turns(50)
        node.value = b"newer"
    assert [node.loads for node in nodes] == [0, 0, 1]
    for _ in range(45):
        clock.advance(1)
        await asyncio.gather(*(node.ask() for node in nodes))
        await turns(50)
    assert [node.cache.peek(KEY) for node in nodes] == [b"newer"] * 3
    assert loads(nodes) == 2


async def test_an_old_value_is_found_by_a_node_that_never_loaded_it(over_memory: MakeNodes, clock: ManualClock) -> None:
    """It lies in the shared tier for as long as it may be of use, with the time until when it was fresh."""
    first, fresh = over_memory(locking(life=50.0, stale_if_error=100.0), count=2)
    assert await first.ask() == b"v"
    await turns(50)
    clock.advance(149)
    fresh.error = ProviderUnavailable("down")
    assert await fresh.ask() == b"v"
    assert fresh.cache.peek(KEY) is None
    clock.advance(1)
    with pytest.raises(ProviderUnavailable):
        await fresh.ask()


async def test_a_newer_value_that_is_over_does_not_spare_a_load(over_memory: MakeNodes, clock: ManualClock) -> None:
    first, second = over_memory(locking(life=50.0, stale_if_error=100.0), count=2)
    await first.ask()
    await turns(50)
    assert await second.ask() == b"v"
    clock.advance(1)
    await first.cache.set(KEY, b"short", clock.now() + 10)
    await turns(50)
    clock.advance(49)
    second.value = b"newer"
    assert await second.ask() == b"newer"


async def test_what_a_node_deletes_no_window_brings_back(over_memory: MakeNodes, clock: ManualClock) -> None:
    first, second = over_memory(locking(life=50.0, stale_if_error=100.0, stale_while_revalidate=100.0), count=2)
    await first.ask()
    assert await second.ask() == b"v"
    assert await second.cache.delete(KEY)
    first.backend.invalidate(GENERAL, KEY)
    for node in (first, second):
        node.error = ProviderUnavailable("down")
        with pytest.raises(ProviderUnavailable):
            await node.ask()


async def test_a_store_with_rubbish_is_one_with_nothing(over_memory: MakeNodes, clock: ManualClock) -> None:
    """C-serial."""
    first, second = over_memory(locking(), count=2)
    await second.backend.set(GENERAL, KEY, b"rubbish", clock.now() + LONG)
    assert await first.ask() == b"v"


Step = tuple[str, int, float]
STEPS = st.tuples(
    st.sampled_from(["ask", "ask", "ask", "delete", "down", "up", "lost"]), st.integers(0, 1), st.floats(0, 40)
)


@given(st.lists(STEPS, max_size=30), st.booleans(), st.floats(0, 60), st.floats(0, 60))
def test_whatever_happens_between_two_nodes(
    steps: list[Step], lock: bool, while_revalidate: float, if_error: float
) -> None:
    """No value is served past its windows, and none that was deleted before it was asked for on the same node."""

    async def check() -> None:
        clock = ManualClock(now=1_800_000_000.0)
        store = MemoryBackend(clock)
        loading = locking(
            life=50.0, lock=lock, stale_while_revalidate=while_revalidate, stale_if_error=if_error, refresh_ahead=0.8
        )
        tiers = [Tier(clock, store) for _ in range(2)]
        backends = [HybridBackend(MemoryBackend(clock), tier, clock=clock, budget=PATIENCE) for tier in tiers]
        caches = [
            LoadingCache(TypedCache(GENERAL, backend, kept(msgpack(float))), clock, loading) for backend in backends
        ]
        deleted_at, works = [0.0, 0.0], True

        async def load() -> float:
            if not works:
                raise ProviderUnavailable
            return clock.now()

        for what, node, passed in steps:
            clock.advance(passed)
            if what == "delete":
                await caches[node].delete(KEY)
                deleted_at[node] = clock.now()
            elif what == "lost":
                await store.clear(GENERAL)
            elif what in {"down", "up"}:
                works = what == "up"
            else:
                try:
                    loaded_at = await caches[node].get_or_load(KEY, load)
                except ProviderUnavailable:
                    assert not works
                    continue
                assert loaded_at is not None
                age = clock.now() - loaded_at
                assert age == 0 or age < 50 + max(while_revalidate, if_error)
                assert loaded_at >= deleted_at[node]
            await turns(10)
        for cache, backend in zip(caches, backends, strict=True):
            await cache.aclose()
            await backend.close()

    asyncio.run(check())


# ------------------------------------------------------------------------------------------------------------- watchers


async def test_watchers_are_bounded_and_leave_nothing_behind() -> None:
    watchers = Watchers(limit=3)
    one, same, other = watchers.watch(b"1k"), watchers.watch(b"1k"), watchers.watch(b"2k")
    beyond = watchers.watch(b"1k")
    one.cancel()
    await turns(2)
    assert len(watchers) == 2
    watchers.wake(b"1k")
    watchers.wake(b"1k")
    await turns(2)
    assert (same.done(), other.done(), beyond.done(), len(watchers)) == (True, False, False, 1)
    watchers.wake_all(b"1")
    assert not other.done()
    watchers.wake_all()
    assert other.done()
    await turns(2)
    assert len(watchers) == 0


def test_a_watcher_of_a_loop_that_is_over_is_no_obstacle() -> None:
    """D-loop."""
    watchers = Watchers()

    async def watch() -> None:
        watchers.watch(b"k")

    asyncio.run(watch())
    watchers.wake(b"k")
    assert len(watchers) == 0
