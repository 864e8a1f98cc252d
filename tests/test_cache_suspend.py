"""A backend that is let go of and taken up again, as a service that stops and starts does with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oidc_middleware.cache import (
    TYPES,
    Backend,
    HybridBackend,
    MemoryBackend,
    RedisBackend,
    SealedBackend,
    Sealer,
    SqliteBackend,
)
from oidc_middleware.cache.backend import Suspendable, suspend

from hybrid_kit import new_node
from redis_kit import BUDGET, CLOCK, PATIENCE, TOLERANCE, RedisServer, end, until
from tier_kit import Tier

pytestmark = pytest.mark.anyio

GENERAL = TYPES["general"]
Build = Callable[[RedisServer, Path], Any]


def redis(server: RedisServer, _: Path) -> RedisBackend:
    return RedisBackend(server.url, clock=CLOCK, budget=PATIENCE)


def sqlite(_: RedisServer, folder: Path) -> SqliteBackend:
    return SqliteBackend(folder / "cache.sqlite", clock=CLOCK, budget=PATIENCE)


def hybrid(beneath: Build) -> Build:
    def build(server: RedisServer, folder: Path) -> HybridBackend:
        sealed = SealedBackend(beneath(server, folder), Sealer(["s" * 32], "app"), CLOCK)
        return HybridBackend(MemoryBackend(CLOCK), sealed, clock=CLOCK, budget=PATIENCE)

    return build


BACKENDS = {"redis": redis, "sqlite": sqlite, "hybrid over redis": hybrid(redis), "hybrid over sqlite": hybrid(sqlite)}


@pytest.fixture(params=BACKENDS.values(), ids=list(BACKENDS))
def backend(request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path: Path) -> Any:
    return request.param(redis_server, tmp_path)


async def test_what_was_queued_is_written_and_the_next_call_works(backend: Any) -> None:
    keys = [b"%d" % number for number in range(600)]
    for key in keys:
        await backend.set(GENERAL, key, b"v", end(), wait=False)
    await backend.suspend()
    await backend.suspend()
    if isinstance(backend, HybridBackend):
        await backend.memory.clear(GENERAL)
    assert len(await backend.get_many(GENERAL, keys)) == 600
    await backend.set(GENERAL, b"again", b"v", end(), wait=True)
    await backend.suspend()
    assert await backend.exists(GENERAL, b"again")
    await backend.close()
    await backend.suspend()


async def test_nothing_is_left_of_it(backend: Any, redis_server: RedisServer) -> None:
    clients, tasks = len(redis_server.admin.client_list()), asyncio.all_tasks()
    await backend.set(GENERAL, b"k", b"v", end(), wait=True)
    await backend.get(GENERAL, b"other")
    await backend.suspend()
    assert asyncio.all_tasks() == tasks
    await until(lambda: len(redis_server.admin.client_list()) == clients)
    await backend.close()


async def test_it_may_be_used_meanwhile(backend: Any) -> None:
    """Order holds: what is written while it lets go comes after what was written before."""
    await backend.set(GENERAL, b"k", b"old", end(), wait=False)
    suspending = asyncio.create_task(backend.suspend())
    await asyncio.sleep(0)
    await backend.set(GENERAL, b"k", b"new", end(), wait=True)
    await suspending
    if isinstance(backend, HybridBackend):
        await backend.memory.clear(GENERAL)
    entry = await backend.get(GENERAL, b"k")
    assert entry is not None
    assert entry.value == b"new"
    await backend.close()


async def test_a_frozen_server_does_not_keep_it(redis_server: RedisServer) -> None:
    backend = new_node(redis_server.url, budget=BUDGET).hybrid
    await backend.set(GENERAL, b"k", b"v", end(), wait=True)
    redis_server.stop()
    await backend.set(GENERAL, b"k", b"w", end(), wait=False)
    async with asyncio.timeout(5 + 4 * BUDGET + TOLERANCE):
        await backend.suspend()
    redis_server.cont()
    async with asyncio.timeout(PATIENCE):
        while not await backend.check():
            pass
    assert await backend.memory.get(GENERAL, b"k") is None, "the write was lost, so nobody has an outdated value"
    await backend.close()


async def test_a_tier_that_cannot_be_suspended_is_left_as_it_is() -> None:
    tier = Tier(CLOCK)
    assert not isinstance(tier, Suspendable)
    backend = HybridBackend(MemoryBackend(CLOCK), tier, clock=CLOCK)
    await backend.set(GENERAL, b"k", b"v", end())
    await backend.suspend()
    await suspend(tier)
    assert tier.closed == 0
    assert (await tier.get(GENERAL, b"k")) is not None
    beneath: Backend = SealedBackend(tier, Sealer(["s" * 32], "app"), CLOCK)
    await suspend(beneath)
    await backend.close()
