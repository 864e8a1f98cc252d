"""Several nodes over one store: what one of them changes, the others have no longer in memory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from sqlite_peer import peers

from oidc_middleware.cache import (
    EVERYTHING,
    TYPES,
    Backend,
    CacheType,
    Change,
    HybridBackend,
    MemoryBackend,
    RedisBackend,
    SealedBackend,
    Sealer,
    SqliteBackend,
)
from oidc_middleware.errors import BackendUnavailable

from redis_kit import CLOCK, PATIENCE, RedisServer, end, proxy_of, until
from tier_kit import Tier, turns

pytestmark = pytest.mark.anyio

GENERAL, TOKEN, SESSION, BLACKLIST = TYPES["general"], TYPES["token"], TYPES["session"], TYPES["blacklist"]
SOON = 1.0
OLD, NEW = "o" * 32, "n" * 32

Build = Callable[[], HybridBackend]
"""Makes one more node over the same store."""


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def node(shared: Backend, **options: Any) -> HybridBackend:
    return HybridBackend(MemoryBackend(CLOCK), shared, clock=CLOCK, **{"budget": PATIENCE, **options})


def sealed(backend: Backend, *secrets: str) -> SealedBackend:
    return SealedBackend(backend, Sealer(secrets, "app"), CLOCK)


STORES = ["redis", "sealed redis", "sealed redis in the midst of a rotation", "sqlite", "sealed sqlite"]


@pytest.fixture(params=STORES)
def build(request: pytest.FixtureRequest, server: RedisServer, tmp_path: Path) -> Build:
    count = 0

    def build() -> HybridBackend:
        nonlocal count
        count += 1
        if "redis" in request.param:
            store: Backend = RedisBackend(server.url, clock=CLOCK, budget=PATIENCE)
        else:
            store = SqliteBackend(tmp_path / "cache.db", clock=CLOCK, budget=PATIENCE)
        if "rotation" in request.param:
            return node(sealed(store, *([OLD, NEW] if count % 2 else [NEW, OLD])))
        return node(sealed(store, OLD) if "sealed" in request.param else store)

    server.admin.flushall()
    return build


@contextlib.asynccontextmanager
async def following(*nodes: HybridBackend) -> AsyncIterator[None]:
    """Start nodes, and return when each knows what the others change."""
    for one in nodes:
        one.start()
    await until(lambda: all(one.overview().staleness is not None for one in nodes))
    try:
        yield
    finally:
        await asyncio.gather(*(one.close() for one in nodes))


async def learns(one: HybridBackend, kind: CacheType, key: bytes, value: bytes) -> None:
    """Have a node read what another one wrote until it keeps it: the news of the write may come after the answer."""
    async with asyncio.timeout(SOON):
        while True:
            entry = await one.get(kind, key)
            assert entry is not None
            assert entry.value == value
            if await one.memory.exists(kind, key):
                return
            await asyncio.sleep(0.001)


async def forgets(one: HybridBackend, kind: CacheType, key: bytes) -> None:
    """Wait until a node's memory has nothing of a key."""
    async with asyncio.timeout(SOON):
        while await one.memory.exists(kind, key):  # noqa: ASYNC110  no event says so
            await asyncio.sleep(0.001)


def has_answered(server: RedisServer, *words: bytes) -> bool:
    """Tell whether the server, which logs all commands, has one with these words behind it."""
    return any(all(word in entry["command"] for word in words) for entry in server.admin.slowlog_get(100))


class TestOverEveryStore:
    async def test_what_one_node_changes_no_other_has_in_memory(self, build: Build) -> None:
        here, there = build(), build()
        async with following(here, there):
            for kind in (GENERAL, SESSION):
                await there.set(kind, b"k", b"old", end(), wait=True)
                await learns(here, kind, b"k", b"old")
                await there.set(kind, b"k", b"new", end(), wait=True)
                await forgets(here, kind, b"k")
                await learns(here, kind, b"k", b"new")
                await there.delete(kind, b"k")
                await forgets(here, kind, b"k")
                assert await here.get(kind, b"k") is None

    async def test_what_a_node_changes_it_keeps(self, build: Build) -> None:
        here, there = build(), build()
        async with following(here, there):
            await there.set(GENERAL, b"other", b"v", end(), wait=True)
            await learns(here, GENERAL, b"other", b"v")
            for n in range(20):
                await here.set(GENERAL, b"k", b"%d" % n, end(), wait=True)
            await there.delete(GENERAL, b"other")
            await forgets(here, GENERAL, b"other")
            assert await here.memory.exists(GENERAL, b"k")

    async def test_a_deleted_token_is_dropped_everywhere(self, build: Build) -> None:
        here, there = build(), build()
        async with following(here, there):
            await there.set(TOKEN, b"k", b"v", end())
            await learns(here, TOKEN, b"k", b"v")
            await there.delete(TOKEN, b"k")
            await forgets(here, TOKEN, b"k")

    async def test_what_both_wrote_ends_as_the_last_one_left_it(self, build: Build) -> None:
        here, there = build(), build()
        async with following(here, there):
            await here.set(GENERAL, b"k", b"mine", end(), wait=True)
            await there.set(GENERAL, b"k", b"theirs", end(), wait=True)
            await forgets(here, GENERAL, b"k")
            await learns(here, GENERAL, b"k", b"theirs")

    async def test_a_clear_is_one_everywhere(self, build: Build) -> None:
        here, there = build(), build()
        async with following(here, there):
            await there.set(GENERAL, b"k", b"v", end(), wait=True)
            await learns(here, GENERAL, b"k", b"v")
            await there.clear(GENERAL)
            await forgets(here, GENERAL, b"k")

    async def test_what_is_revoked_stays_in_memory(self, build: Build) -> None:
        """Whoever can write the store can delete an entry there and say so; nobody believes it."""
        here, there = build(), build()
        async with following(here, there):
            await there.set(BLACKLIST, b"revoked", b"1", end())
            await there.set(GENERAL, b"k", b"v", end(), wait=True)
            await learns(here, BLACKLIST, b"revoked", b"1")
            await learns(here, GENERAL, b"k", b"v")
            await there.delete(BLACKLIST, b"revoked")
            await there.delete(GENERAL, b"k")
            await forgets(here, GENERAL, b"k")
            assert await here.memory.exists(BLACKLIST, b"revoked")

    async def test_an_idle_node_knows_that_it_is_current(self, build: Build) -> None:
        here = build()
        async with following(here):
            assert here.overview().gaps == 1
            begun = time.monotonic()
            await until(lambda: time.monotonic() - begun > 0.8)
            assert (here.overview().staleness or 0) < SOON
            assert here.overview().gaps == 1

    async def test_a_node_that_was_let_go_of_follows_again(self, build: Build) -> None:
        here, there = build(), build()
        async with following(here, there):
            await there.set(GENERAL, b"k", b"v", end(), wait=True)
            await learns(here, GENERAL, b"k", b"v")
            await here.suspend()
            assert here.overview().staleness is None
            await there.delete(GENERAL, b"k")
            assert await here.memory.exists(GENERAL, b"k")
            here.start()
            await forgets(here, GENERAL, b"k")

    def test_one_loop_after_another(self, build: Build) -> None:
        here = build()

        async def follow(*, leave: bool) -> None:
            there = build()
            here.start()
            async with following(there):
                await until(lambda: here.overview().staleness is not None)
                await there.set(GENERAL, b"k", b"v", end(), wait=True)
                await learns(here, GENERAL, b"k", b"v")
                await there.delete(GENERAL, b"k")
                await forgets(here, GENERAL, b"k")
            if leave:
                await here.close()

        for leave in (False, False, True):
            asyncio.run(follow(leave=leave))

    async def test_close_leaves_no_task(self, build: Build) -> None:
        before = asyncio.all_tasks()
        async with following(build(), build()):
            pass
        await until(lambda: asyncio.all_tasks() == before)


async def test_another_process(tmp_path: Path) -> None:
    here = node(SqliteBackend(tmp_path / "cache.db", clock=CLOCK, budget=PATIENCE))
    with peers(tmp_path / "cache.db") as (peer,):
        async with following(here):
            peer.ask("backend.set(G, b'k', b'v', end)")
            await learns(here, GENERAL, b"k", b"v")
            peer.ask("backend.set(G, b'k', b'w', end)")
            await forgets(here, GENERAL, b"k")
            await learns(here, GENERAL, b"k", b"w")


class TestRedis:
    @pytest.mark.parametrize("secrets", [(), (OLD,)], ids=["plain", "sealed"])
    @pytest.mark.parametrize("deleted", [True, False])
    async def test_an_answer_that_a_change_overtook_is_not_kept(
        self, server: RedisServer, secrets: tuple[str, ...], *, deleted: bool
    ) -> None:
        """It left the server before the change and comes after the news of it: good for him alone who asked."""

        def over(url: str) -> HybridBackend:
            store = RedisBackend(url, clock=CLOCK, budget=PATIENCE)
            return node(sealed(store, *secrets) if secrets else store)

        server.admin.flushall()
        async with proxy_of(server) as proxy:
            here, there = over(proxy.url), over(server.url)
            async with following(here, there):
                for key in (b"k", b"sign", b"first"):
                    await there.set(SESSION, key, b"old", end(), wait=True)
                await here.get(GENERAL, b"warms the connection")
                await learns(here, SESSION, b"sign", b"old")
                await learns(here, SESSION, b"first", b"old")
                await there.delete(SESSION, b"first")
                await forgets(here, SESSION, b"first")  # so the follower will hear nothing for half a second
                server.admin.config_set("slowlog-log-slower-than", 0)
                server.admin.slowlog_reset()
                proxy.to_client = 1.0
                reading = asyncio.create_task(here.get(SESSION, b"k"))
                await until(lambda: has_answered(server, b"MGET", b":session:"))
                await asyncio.sleep(0.05)  # the answer is on its way, through a relay that shows nothing of it
                proxy.to_client = 0.0
                if deleted:
                    await there.delete(SESSION, b"k")
                else:
                    await there.set(SESSION, b"k", b"new", end(), wait=True)
                await there.delete(SESSION, b"sign")
                await forgets(here, SESSION, b"sign")
                assert not reading.done()
                answer = await reading
                assert answer is not None
                assert answer.value == b"old"
                assert not await here.memory.exists(SESSION, b"k")
                answer = await here.get(SESSION, b"k")
                assert (None if answer is None else answer.value) == (None if deleted else b"new")

    async def test_a_flush_empties_what_others_may_have_changed(self, server: RedisServer) -> None:
        """Not what a revocation drops: its life in memory is short, and revocations have a way of their own."""
        server.admin.flushall()
        here = node(RedisBackend(server.url, clock=CLOCK, budget=PATIENCE))
        async with following(here):
            for kind in (GENERAL, SESSION, TOKEN, BLACKLIST, TYPES["introspection"]):
                await here.set(kind, b"k", b"v", end(), wait=True)
            server.admin.flushall()
            await forgets(here, GENERAL, b"k")
            await forgets(here, SESSION, b"k")
            assert here.overview().gaps == 2
            for kind in (TOKEN, BLACKLIST, TYPES["introspection"]):
                assert await here.memory.exists(kind, b"k")

    async def test_a_server_that_is_away(self, redis_server: RedisServer) -> None:
        """Staleness tells how long; afterwards all is as before."""
        here, there = (
            node(RedisBackend(redis_server.url, clock=CLOCK), budget=0.25),
            node(RedisBackend(redis_server.url, clock=CLOCK), budget=0.25),
        )
        async with following(here, there):
            await here.set(GENERAL, b"k", b"v", end(), wait=True)
            redis_server.kill()
            await until(lambda: (here.overview().staleness or 0) > 1.5)
            redis_server.start()
            await until(lambda: (here.overview().staleness or 9) < SOON)
            await forgets(here, GENERAL, b"k")
            await until(lambda: not there.fallback)
            await there.set(GENERAL, b"k", b"w", end(), wait=True)
            await learns(here, GENERAL, b"k", b"w")
            await there.delete(GENERAL, b"k")
            await forgets(here, GENERAL, b"k")

    async def test_a_reader_without_permission(
        self, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It works without following, and shows that it does not."""
        redis_server.admin.execute_command("ACL", "SETUSER", "default", "-xrevrange")
        here = node(RedisBackend(redis_server.url, clock=CLOCK))
        await here.set(GENERAL, b"k", b"v", end(), wait=True)
        await learns(here, GENERAL, b"k", b"v")
        await until(lambda: "cannot be followed" in caplog.text)
        assert here.overview().staleness is None
        assert not here.fallback
        await here.close()

    async def test_too_many_names_in_a_short_time(self, server: RedisServer) -> None:
        """What is not known by name any more is dropped with all of its type."""
        server.admin.flushall()
        store = RedisBackend(server.url, clock=CLOCK, budget=PATIENCE)
        here = node(SealedBackend(store, Sealer([OLD], "app"), CLOCK, most_names=10))
        there = node(sealed(RedisBackend(server.url, clock=CLOCK, budget=PATIENCE), OLD))
        async with following(here, there):
            await there.set(GENERAL, b"k", b"v", end(), wait=True)
            await learns(here, GENERAL, b"k", b"v")
            await there.set(GENERAL, b"unknown here", b"v", end(), wait=True)
            for n in range(50):
                await here.set(GENERAL, b"%d" % n, b"v", end(), wait=True)
            assert await here.memory.exists(GENERAL, b"k")
            await there.delete(GENERAL, b"k")
            await forgets(here, GENERAL, b"k")
            assert not await here.memory.exists(GENERAL, b"49")


class Talking(Tier):
    """A tier whose changes a test dictates: each a change, or an error to raise."""

    def __init__(self) -> None:
        super().__init__(CLOCK)
        self.script: asyncio.Queue[Change | Exception] = asyncio.Queue()
        self.listeners = 0
        self.context: str | None = None

    async def changes(self) -> AsyncGenerator[Change]:
        self.listeners += 1
        self.context = WHO.get(None)
        yield EVERYTHING
        while True:
            change = await self.script.get()
            if isinstance(change, Exception):
                raise change
            yield change

    def staleness(self) -> float | None:
        return 0.0 if self.listeners else None


WHO: ContextVar[str] = ContextVar("WHO")


class TestTheFollower:
    @pytest.fixture
    async def tier(self) -> Talking:
        return Talking()

    @pytest.fixture
    async def here(self, tier: Talking) -> AsyncIterator[HybridBackend]:
        here = node(tier, random=lambda: 0.0)
        WHO.set("a request")
        here.start()
        await until(lambda: tier.listeners)
        await turns()
        yield here
        await here.close()

    @pytest.mark.parametrize("error", [RuntimeError("a mistake"), BackendUnavailable("no", "link"), ValueError("no")])
    async def test_an_error_of_the_tier_ends_nothing(
        self, tier: Talking, here: HybridBackend, error: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        for times in range(1, 4):
            await here.set(GENERAL, b"k", b"v", end())
            await here.set(TOKEN, b"k", b"v", end())
            await turns()
            tier.script.put_nowait(error)
            await forgets(here, GENERAL, b"k")
            assert await here.memory.exists(TOKEN, b"k")
            await until(lambda times=times: tier.listeners == times + 1)
            await here.set(GENERAL, b"k", b"v", end())
            tier.script.put_nowait(Change("general", frozenset({b"k"})))
            await forgets(here, GENERAL, b"k")
        assert [record.levelno for record in caplog.records] == [logging.ERROR]

    async def test_what_is_told_of_types_that_are_unknown_here_is_nobody_s_business(
        self, tier: Talking, here: HybridBackend
    ) -> None:
        await here.set(GENERAL, b"k", b"v", end())
        for change in (
            Change("of a later version", frozenset({b"k"})),
            Change("of a later version"),
            Change("session"),
        ):
            tier.script.put_nowait(change)
        await turns(50)
        assert await here.memory.exists(GENERAL, b"k")
        assert tier.listeners == 1

    async def test_any_key_of_a_type(self, tier: Talking, here: HybridBackend) -> None:
        for kind in (GENERAL, TOKEN, BLACKLIST):
            await here.set(kind, b"k", b"v", end())
            tier.script.put_nowait(Change(kind.name))
        await turns(50)
        assert not await here.memory.exists(GENERAL, b"k")
        assert not await here.memory.exists(TOKEN, b"k")
        assert await here.memory.exists(BLACKLIST, b"k")

    async def test_it_carries_nothing_of_the_request_that_opened_the_backend(
        self, tier: Talking, here: HybridBackend
    ) -> None:
        assert tier.context is None

    async def test_many_changes_at_once_hold_up_nobody(self, tier: Talking, here: HybridBackend) -> None:
        for n in range(10_000):
            tier.script.put_nowait(Change("general", frozenset({b"%d %d" % (n, m) for m in range(10)})))
        turns = 0
        while not tier.script.empty():
            await asyncio.sleep(0)
            turns += 1
        assert turns > 1000, "others have their turn in between"

    async def test_a_tier_that_tells_nothing(self) -> None:
        for shared in (MemoryBackend(CLOCK), sealed(MemoryBackend(CLOCK), OLD), node(MemoryBackend(CLOCK))):
            here = node(shared)
            await here.set(GENERAL, b"k", b"v", end(), wait=True)
            await turns()
            assert here.overview().staleness is None
            assert here.overview().gaps == 0
            await here.close()
