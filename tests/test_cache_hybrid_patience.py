"""A tier that hangs is waited for once, however often one request asks it."""

from __future__ import annotations

import asyncio
from time import perf_counter

import pytest

from oidc_middleware.cache import TYPES, HybridBackend, MemoryBackend, RedisBackend
from oidc_middleware.errors import BackendUnavailable

from redis_kit import BUDGET, CLOCK, PATIENCE, TOLERANCE, RedisServer, end

pytestmark = pytest.mark.anyio

TOKEN, GENERAL, SESSION = TYPES["token"], TYPES["general"], TYPES["session"]


def hybrid(server: RedisServer) -> HybridBackend:
    return HybridBackend(MemoryBackend(CLOCK), RedisBackend(server.url, clock=CLOCK), clock=CLOCK)


async def a_request(backend: HybridBackend, name: bytes) -> float:
    """Ask and write as a request may that finds nothing in memory; return how long all of it took."""
    start = perf_counter()
    assert await backend.get(TOKEN, name) is None
    assert await backend.get(GENERAL, name + b"1") is None
    assert await backend.get_many(GENERAL, [name + b"2", name + b"3"]) == {}
    with pytest.raises(BackendUnavailable):
        await backend.set(TOKEN, name, b"v", end())
    with pytest.raises(BackendUnavailable):
        await backend.add(GENERAL, name + b"4", b"v", end())
    with pytest.raises(BackendUnavailable):
        await backend.get(SESSION, name)
    return perf_counter() - start


async def test_all_waits_of_a_request_are_one_budget(redis_server: RedisServer) -> None:
    """Y-stop: the first wait takes the budget, the others little."""
    backend = hybrid(redis_server)
    await backend.set(TOKEN, b"known", b"v", end())
    redis_server.stop()
    try:
        took = await asyncio.gather(*(a_request(backend, b"%d" % number) for number in range(50)))
        assert max(took) < BUDGET + 6 * 0.01 + TOLERANCE
        start = perf_counter()
        assert await backend.get(TOKEN, b"known") is not None
        assert perf_counter() - start < TOLERANCE
    finally:
        redis_server.cont()
        await backend.close()


async def test_after_an_answer_the_budget_is_whole_again(redis_server: RedisServer) -> None:
    backend = hybrid(redis_server)
    await backend.set(GENERAL, b"k", b"v", end(), wait=True)
    redis_server.stop()
    assert await backend.get(GENERAL, b"one") is None
    assert backend._tiers.patience < BUDGET
    redis_server.cont()
    async with asyncio.timeout(PATIENCE):
        while not await backend.check():
            pass
    assert backend._tiers.patience == BUDGET
    await backend.close()
