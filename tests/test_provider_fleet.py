"""Several nodes over one shared cache: who asks the issuer, and who takes what another node got."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest
from provider_kit import MINUTE, Bench, until

from oidc_middleware.cache import Caches, HybridBackend, MemoryBackend, RedisBackend, SqliteBackend
from oidc_middleware.testing import FakeIssuer, ManualClock

from redis_kit import PATIENCE, RedisServer

pytestmark = pytest.mark.anyio

NODES = 3
LIFE = 5 * MINUTE
"""How long the keys of the fake issuer are fresh."""
EARLIEST_REFRESH = 0.72 * LIFE


@pytest.fixture(params=["redis", "sqlite"])
async def fleet(
    request: pytest.FixtureRequest, tmp_path: Path, oidc_clock: ManualClock, redis_server: RedisServer
) -> AsyncIterator[list[Bench]]:
    """Three nodes that share a store."""
    issuer = FakeIssuer(algorithms=("ES256",))
    async with AsyncExitStack() as stack:
        nodes = []
        for number in range(NODES):
            shared = (
                RedisBackend(redis_server.url, clock=oidc_clock, budget=PATIENCE)
                if request.param == "redis"
                else SqliteBackend(tmp_path / "cache.db", clock=oidc_clock, budget=PATIENCE)
            )
            backend = HybridBackend(MemoryBackend(oidc_clock), shared, clock=oidc_clock, budget=PATIENCE)
            stack.push_async_callback(backend.close)
            node = Bench(issuer, oidc_clock, {"caches": Caches(oidc_clock, backend), "random": Random(number)})
            stack.push_async_callback(node.provider.stop)
            nodes.append(node)
        yield nodes


async def settle(node: Bench) -> None:
    """Wait until nothing is being renewed, and what was is in the store."""
    refresh, backend = node.provider._keys._refresh, node.caches.backend
    assert isinstance(backend, HybridBackend)
    await until(lambda: (refresh is None or refresh.done()) and backend.overview().queued == 0)


async def test_one_node_of_a_fleet_asks_the_issuer(fleet: list[Bench]) -> None:
    first, *others = fleet
    await first.find()
    await settle(first)
    for node in others:
        await node.find()
    assert first.fetches == (1, 1)


async def test_one_node_of_a_fleet_renews(fleet: list[Bench], oidc_clock: ManualClock) -> None:
    """Each node has its moment; who comes later finds what the first got, though its memory has the old version."""
    span = 4 * LIFE
    for _ in range(int(span / 3)):
        for node in fleet:
            await node.find()
            await settle(node)
        oidc_clock.advance(3)
    assert all(node.provider.peek_keys() for node in fleet)
    fetches = fleet[0].fetches[1]
    assert span / LIFE <= fetches <= 1 + span / EARLIEST_REFRESH


async def test_a_key_that_one_node_learns_reaches_the_others(fleet: list[Bench], oidc_clock: ManualClock) -> None:
    """An unknown kid makes one node ask; the next one finds the answer in the store, without asking."""
    for node in fleet:
        await node.find()
        await settle(node)
    fleet[0].issuer.rotate()
    oidc_clock.advance(MINUTE)
    (key,) = await fleet[0].find()
    assert key.kid == fleet[0].kid
    await settle(fleet[0])
    before = fleet[0].fetches
    for node in fleet[1:]:
        assert (await node.find())[0].kid == key.kid
    assert fleet[0].fetches == before


async def test_what_another_node_fetched_before_the_rotation_is_not_the_last_word(
    fleet: list[Bench], oidc_clock: ManualClock
) -> None:
    """It is newer than what this node has, and knows nothing of the new key: this node asks all the same."""
    first, second, _ = fleet
    for node in (first, second):
        await node.find()
        await settle(node)
    oidc_clock.advance(1)
    await second.provider._keys.renew()
    await settle(second)
    first.issuer.rotate()
    oidc_clock.advance(1)
    before = first.fetches[1]
    (key,) = await first.find()
    assert key.kid == first.kid
    assert first.fetches[1] == before + 1
    await first.find(kid="made-up")
    assert first.fetches[1] == before + 1, "one look in a cool-down, as ever"
