"""Redis and Valkey as a cache tier: the contract over every kind of server, and what only a server can show."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from redis._parsers import _AsyncRESP3Parser

from oidc_middleware.cache import TYPES, Backend, RedisBackend
from oidc_middleware.cache.redis.router import router
from oidc_middleware.testing import BackendContract, ManualClock

from redis_kit import PATIENCE, RedisServer, newest, programs

pytestmark = pytest.mark.anyio

TOKEN = TYPES["token"]
HOUR = 3600.0
KINDS = sorted(programs())


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(now=1_800_000_000.0)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, RedisServer]]:
    """One server of each kind, for tests that leave it as it was."""
    running = {kind: RedisServer(kind) for kind in KINDS}
    try:
        for server in running.values():
            server.start()
        yield running
    finally:
        for server in running.values():
            server.__exit__(None, None, None)


@pytest.fixture(params=KINDS)
def any_server(request: pytest.FixtureRequest, servers: dict[str, RedisServer]) -> RedisServer:
    server = servers[request.param]
    server.admin.flushall()
    return server


@pytest.fixture
def server(servers: dict[str, RedisServer]) -> RedisServer:
    server = servers[newest()]
    server.admin.flushall()
    return server


class TestRedisBackend(BackendContract):
    @pytest.fixture
    async def backend(self, any_server: RedisServer, clock: ManualClock) -> AsyncIterator[Backend]:
        backend = RedisBackend(any_server.url, clock=clock, budget=PATIENCE)
        yield backend
        await backend.close()

    async def test_ping_and_stats(self, backend: Backend, clock: ManualClock) -> None:
        """How much a server holds for everybody it does not tell to one of its users."""
        assert (await backend.ping()).healthy
        await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
        for key in (b"k", b"k", b"other"):
            await backend.get(TOKEN, key)
        counts = backend.stats()["token"]
        assert (counts.hits, counts.misses, counts.sets, counts.entries, counts.bytes) == (2, 1, 1, 0, 0)
        assert backend.stats()["session"].sets == 0


class TestRedisBackendWithoutHiredis(BackendContract):
    @pytest.fixture
    async def backend(self, server: RedisServer, clock: ManualClock) -> AsyncIterator[Backend]:
        backend = RedisBackend(server.url, clock=clock, budget=PATIENCE)
        backend._route = router(server.url, PATIENCE, parser_class=_AsyncRESP3Parser)
        yield backend
        await backend.close()

    test_ping_and_stats = TestRedisBackend.test_ping_and_stats


class TestRedisBackendOnAUnixSocket(BackendContract):
    @pytest.fixture
    async def backend(self, server: RedisServer, clock: ManualClock) -> AsyncIterator[Backend]:
        backend = RedisBackend(server.unix_url, clock=clock, budget=PATIENCE, prefix=b"a*[b]?\\:")
        yield backend
        await backend.close()

    test_ping_and_stats = TestRedisBackend.test_ping_and_stats
