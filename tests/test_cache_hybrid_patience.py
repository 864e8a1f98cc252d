"""A tier that hangs is waited for once, however often one request asks it."""

from __future__ import annotations

import asyncio

import pytest

from oidc_middleware.cache import TYPES, HybridBackend, MemoryBackend, RedisBackend
from oidc_middleware.errors import BackendUnavailable

from redis_kit import BUDGET, CLOCK, PATIENCE, TOLERANCE, RedisServer, end
from time_kit import within

pytestmark = pytest.mark.anyio

TOKEN, GENERAL, SESSION = TYPES["token"], TYPES["general"], TYPES["session"]


def hybrid(server: RedisServer) -> HybridBackend:
    return HybridBackend(MemoryBackend(CLOCK), RedisBackend(server.url, clock=CLOCK), clock=CLOCK)


async def a_request(backend: HybridBackend, name: bytes) -> None:
    """Ask and write as a request may that finds nothing in memory."""
    assert await backend.get(TOKEN, name) is None
    assert await backend.get(GENERAL, name + b"1") is None
    assert await backend.get_many(GENERAL, [name + b"2", name + b"3"]) == {}
    for work in (
        backend.set(TOKEN, name, b"v", end()),
        backend.add(GENERAL, name + b"4", b"v", end()),
        backend.get(SESSION, name),
    ):
        with pytest.raises(BackendUnavailable):
            await work


async def test_all_waits_of_a_request_are_one_budget(redis_server: RedisServer) -> None:
    """Y-stop: of six waits the first takes the budget, the others a small part of it."""
    backend = hybrid(redis_server)
    await backend.set(TOKEN, b"known", b"v", end())
    redis_server.stop()
    try:
        with within(BUDGET + 6 * 0.01 + TOLERANCE):
            await asyncio.gather(*(a_request(backend, b"%d" % number) for number in range(50)))
        with within(BUDGET / 4):
            assert await backend.get(TOKEN, b"known") is not None
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


async def test_a_probe_that_waits_to_be_written_is_no_answer(redis_server: RedisServer) -> None:
    """The tier beneath answers reads of what it has yet to write: a read probe must ask for something else."""
    redis = RedisBackend(redis_server.url, clock=CLOCK, budget=1.0)
    backend = HybridBackend(MemoryBackend(CLOCK), redis, clock=CLOCK, budget=1.0, random=lambda: 0.0)
    standing = backend._standing
    await backend.set(TOKEN, b"known", b"v", end())
    redis_server.stop()
    async with asyncio.timeout(PATIENCE):
        while standing.reads.is_closed or standing.writes.is_closed:
            assert await backend.get(GENERAL, b"other") is None
            await backend.set(GENERAL, b"k", b"v", end())
            await asyncio.sleep(0)
    for _ in range(4):
        assert not await backend.check()
        assert not standing.reads.is_closed
        assert not standing.writes.is_closed
    redis_server.cont()
    await backend.close()
