"""A tier that hangs is waited for once, however often one request asks it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import nullcontext
from time import perf_counter

import pytest

from oidc_middleware.cache import TYPES, HybridBackend, MemoryBackend, RedisBackend
from oidc_middleware.errors import BackendUnavailable

from redis_kit import BUDGET, CLOCK, PATIENCE, TOLERANCE, RedisServer, end

pytestmark = pytest.mark.anyio

TOKEN, GENERAL, SESSION = TYPES["token"], TYPES["general"], TYPES["session"]


def hybrid(server: RedisServer) -> HybridBackend:
    return HybridBackend(MemoryBackend(CLOCK), RedisBackend(server.url, clock=CLOCK), clock=CLOCK)


async def a_request(backend: HybridBackend, name: bytes) -> list[float]:
    """Ask and write as a request may that finds nothing in memory; return how long it waited each time."""
    waits = []

    async def timed(work: Awaitable[object], *, fails: bool = False) -> None:
        start = perf_counter()
        with pytest.raises(BackendUnavailable) if fails else nullcontext():
            assert not await work
        waits.append(perf_counter() - start)

    await timed(backend.get(TOKEN, name))
    await timed(backend.get(GENERAL, name + b"1"))
    await timed(backend.get_many(GENERAL, [name + b"2", name + b"3"]))
    await timed(backend.set(TOKEN, name, b"v", end()), fails=True)
    await timed(backend.add(GENERAL, name + b"4", b"v", end()), fails=True)
    await timed(backend.get(SESSION, name), fails=True)
    return waits


async def test_all_waits_of_a_request_are_one_budget(redis_server: RedisServer) -> None:
    """Y-stop: the first wait takes the budget, the others a small part of it."""
    backend = hybrid(redis_server)
    await backend.set(TOKEN, b"known", b"v", end())
    redis_server.stop()
    try:
        for waits in await asyncio.gather(*(a_request(backend, b"%d" % number) for number in range(50))):
            first, *others = sorted(waits, reverse=True)
            assert first < BUDGET + TOLERANCE
            assert max(others) < TOLERANCE
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


async def test_a_probe_that_waits_to_be_written_is_no_answer(redis_server: RedisServer) -> None:
    """The tier beneath answers reads of what it has yet to write: a read probe must ask for something else."""
    redis = RedisBackend(redis_server.url, clock=CLOCK)
    backend = HybridBackend(MemoryBackend(CLOCK), redis, clock=CLOCK, random=lambda: 0.0)
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
