"""What callers of a Redis backend may do: leave, write too much, come back on another loop, name a wrong URL."""

from __future__ import annotations

import asyncio
import gc
import time

import pytest

from oidc_middleware.cache import TYPES, Entry, RedisBackend
from oidc_middleware.errors import BackendUnavailable

from redis_kit import (
    CLOCK,
    PATIENCE,
    OpenRedis,
    RedisServer,
    end,
    proxy_of,
    until,
)

pytestmark = pytest.mark.anyio

TOKEN, GENERAL, BLACKLIST = TYPES["token"], TYPES["general"], TYPES["blacklist"]


def until_alone(redis_server: RedisServer) -> bool:
    """Tell whether all connections but our own end."""
    deadline = time.monotonic() + PATIENCE
    while len(redis_server.admin.client_list()) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(redis_server.admin.client_list()) == 1


class TestCallersThatLeave:
    async def test_the_next_reader_gets_its_own_answer(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        """Y-cancel-dirty, and seed 1: a cancelled request harms nobody."""
        async with proxy_of(redis_server) as proxy:
            backend = open_redis(proxy.url, budget=PATIENCE)
            await backend.set_many(TOKEN, {b"%d" % n: Entry(b"value %d" % n, end()) for n in range(100)})
            connects = backend.traffic().connects + 1
            proxy.to_client = 0.002
            for n in range(100):
                leaving = asyncio.ensure_future(backend.get(TOKEN, b"%d" % n))
                await asyncio.sleep(0.001 * (n % 5))
                leaving.cancel()
                found = await backend.get(TOKEN, b"%d" % ((n + 1) % 100))
                assert found is not None
                assert found.value == b"value %d" % ((n + 1) % 100)
            assert backend.traffic().connects == connects
            assert backend.traffic().failures == {}

    async def test_a_write_goes_on_without_its_caller(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        """Seed 2."""
        backend = open_redis(redis_server.url)
        leaving = asyncio.ensure_future(backend.set(TOKEN, b"k", b"v", end()))
        await asyncio.sleep(0)
        leaving.cancel()
        await until(lambda: redis_server.admin.exists("oidc:token:k"))
        assert backend.traffic().failures == {}

    async def test_a_cancelled_ping_costs_one_connection(
        self, redis_server: RedisServer, open_redis: OpenRedis
    ) -> None:
        backend = open_redis(redis_server.url)
        redis_server.stop()
        leaving = asyncio.ensure_future(backend.ping())
        await asyncio.sleep(0.05)
        leaving.cancel()
        redis_server.cont()
        assert (await backend.ping()).healthy


class TestItsOwnQueue:
    async def test_a_queued_write_is_read_here_at_once(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        backend = open_redis(redis_server.url)
        await backend.set(GENERAL, b"k", b"v", end(), wait=True)
        redis_server.stop()
        await backend.set(GENERAL, b"k", b"w", end())
        found = await backend.get(GENERAL, b"k")
        assert found is not None
        assert found.value == b"w"
        assert list(await backend.get_many(GENERAL, [b"k"])) == [b"k"]
        assert await backend.exists(GENERAL, b"k")
        deleting = asyncio.ensure_future(backend.delete(GENERAL, b"k"))
        await asyncio.sleep(0)
        assert await backend.get(GENERAL, b"k") is None
        redis_server.cont()
        assert await deleting
        assert await backend.get(GENERAL, b"k") is None

    async def test_100_001_queued_writes_while_it_hangs(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        """Y-queue-overflow: memory is bounded; the oldest go first, and what they should have replaced goes too."""
        backend = open_redis(redis_server.url, queue_size=1000, queue_bytes=2_000_000)
        await backend.set(GENERAL, b"0", b"outdated", end(), wait=True)
        redis_server.stop()
        refused = 0
        for n in range(100_001):
            try:
                await backend.set(GENERAL, b"%d" % n, b"new", end())
            except BackendUnavailable as error:
                assert error.kind == "local"
                refused += 1
            if n % 10_000 == 0:
                assert backend.traffic().queued_bytes <= 2_000_000
        writes = backend.traffic().writes
        assert refused == writes.refused > 0
        assert writes.dropped > 0
        redis_server.cont()
        await until(lambda: backend.traffic().queued == 0)
        assert redis_server.admin.get("oidc:general:0") is None

    async def test_queued_writes_are_written_by_close(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        backend = open_redis(redis_server.url)
        for n in range(900):
            await backend.set(GENERAL, b"%d" % n, b"v", end())
        await backend.close()
        assert len(redis_server.admin.keys("oidc:general:*")) == 900


class TestLoops:
    def test_a_loop_that_is_closed_is_left_behind(
        self, redis_server: RedisServer, recwarn: pytest.WarningsRecorder
    ) -> None:
        lost: list[tuple[str, bytes]] = []
        backend = RedisBackend(
            redis_server.url, clock=CLOCK, budget=PATIENCE, on_lost=lambda keys, _: lost.extend(keys)
        )

        async def request(key: bytes) -> None:
            await backend.set(TOKEN, key, b"v", end())
            assert await backend.get(TOKEN, key) is not None

        for n in range(3):
            asyncio.run(request(b"%d" % n))
        asyncio.run(backend.set(GENERAL, b"queued", b"v", end()))
        asyncio.run(request(b"last"))
        assert lost == [("general", b"queued")]
        asyncio.run(backend.close())
        gc.collect()
        assert [str(warning.message) for warning in recwarn] == []
        assert until_alone(redis_server)

    async def test_two_loops_at_once_are_an_error(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        backend = open_redis(redis_server.url)
        await backend.set(TOKEN, b"k", b"v", end())
        with pytest.raises(RuntimeError, match="two event loops"):
            await asyncio.to_thread(lambda: asyncio.run(backend.get(TOKEN, b"k")))


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://localhost", "scheme 'http'"),
        ("localhost:6379", "scheme 'localhost'"),
        ("", "scheme ''"),
        ("redis://", "needs a host"),
        ("redis://localhost/one", "nothing but the number"),
        ("redis://localhost:0", "needs a host"),
        ("redis://localhost:port", "Port"),
        ("redis://localhost?socket_timeout=99", "option 'socket_timeout'"),
        ("rediss://localhost?ssl_cert_reqs=none", "option 'ssl_cert_reqs'"),
        ("unix://", "path of a socket"),
    ],
)
def test_a_url_that_cannot_work_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        RedisBackend(url, clock=CLOCK)
