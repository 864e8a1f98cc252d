"""The contract of a cache tier, over memory with a shared tier beneath it and over sealed ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from test_cache_contract import HOUR, TOKEN

from oidc_middleware.cache import (
    Backend,
    HybridBackend,
    MemoryBackend,
    RedisBackend,
    SealedBackend,
    Sealer,
    SqliteBackend,
)
from oidc_middleware.testing import BackendContract, ManualClock

from redis_kit import PATIENCE, RedisServer

pytestmark = pytest.mark.anyio

OLD, NEW = "o" * 32, "n" * 32


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(now=1_800_000_000.0)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def hybrid(shared: Backend, clock: ManualClock) -> HybridBackend:
    return HybridBackend(MemoryBackend(clock), shared, clock=clock, budget=PATIENCE)


class TestHybridOverMemory(BackendContract):
    @pytest.fixture
    async def backend(self, clock: ManualClock) -> AsyncIterator[Backend]:
        backend = hybrid(MemoryBackend(clock), clock)
        yield backend
        await backend.close()


class TestHybridOverHybrid(BackendContract):
    """Three tiers: whatever fulfils the contract can lie beneath."""

    @pytest.fixture
    async def backend(self, clock: ManualClock) -> AsyncIterator[Backend]:
        backend = hybrid(hybrid(MemoryBackend(clock), clock), clock)
        yield backend
        await backend.close()


class TestHybridOverSealedRedis(BackendContract):
    @pytest.fixture
    async def backend(self, server: RedisServer, clock: ManualClock) -> AsyncIterator[Backend]:
        server.admin.flushall()
        redis = RedisBackend(server.url, clock=clock, budget=PATIENCE)
        backend = hybrid(SealedBackend(redis, Sealer([NEW, OLD], "app"), clock), clock)
        yield backend
        await backend.close()


class TestHybridOverSealedSqlite(BackendContract):
    @pytest.fixture
    async def backend(self, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Backend]:
        sqlite = SqliteBackend(tmp_path / "cache.db", clock=clock, budget=PATIENCE)
        backend = hybrid(SealedBackend(sqlite, Sealer([NEW], "app"), clock), clock)
        yield backend
        await backend.close()


class TestSealedMemory(BackendContract):
    @pytest.fixture
    def backend(self, clock: ManualClock) -> Backend:
        return SealedBackend(MemoryBackend(clock), Sealer([NEW], "app"), clock)


class TestSealedMemoryWithTwoSecrets(BackendContract):
    @pytest.fixture
    def backend(self, clock: ManualClock) -> Backend:
        return SealedBackend(MemoryBackend(clock), Sealer([NEW, OLD], "app"), clock)

    async def test_ping_and_stats(self, backend: Backend, clock: ManualClock) -> None:
        """The tier beneath counts what it is asked for: two names for each key."""
        await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
        for key in (b"k", b"other"):
            await backend.get(TOKEN, key)
        counts = backend.stats()["token"]
        assert (counts.hits, counts.misses, counts.sets, counts.entries) == (1, 3, 1, 1)
