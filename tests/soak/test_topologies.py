"""Sentinel and Cluster for minutes: every primary is lost in every way, and slots move all the time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from random import Random
from time import monotonic

import pytest

from oidc_middleware.cache import RedisBackend
from oidc_middleware.cache.redis.slots import key_slot

from load_kit import Load
from redis_kit import TOLERANCE, OpenRedis, RedisServer, programs, until
from topology_kit import BUDGET, FAIL_OVER, ClusterGroup, SentinelGroup

pytestmark = pytest.mark.anyio

KINDS = sorted(programs())
KEYS = [b"%d" % n for n in range(60)] + [b"{tag}%d" % n for n in range(20)]
MOVING = 20.0
"""Seconds."""


@pytest.fixture
def open_redis(open_redis: OpenRedis) -> OpenRedis:
    """Open backends that tell a server which hangs from one that is late."""
    return partial(open_redis, budget=BUDGET)


@pytest.fixture(params=KINDS)
def cluster(request: pytest.FixtureRequest) -> Iterator[ClusterGroup]:
    with ClusterGroup(request.param) as group:
        yield group


@pytest.fixture
def sentinels() -> Iterator[SentinelGroup]:
    with SentinelGroup() as group:
        yield group


async def lose(server: RedisServer, how: str, load: Load) -> None:
    """Take a primary away until everybody is served again, and bring it back."""
    if how == "kill":
        server.kill()
        await load.all_well(FAIL_OVER)
        server.start()
    elif how == "restart":
        server.restart()
    else:
        server.stop()
        await asyncio.sleep(0.6 if how == "pause" else 6.0)
        server.cont()
    await load.all_well(FAIL_OVER)


@pytest.mark.parametrize("how", ["kill", "restart", "pause", "freeze"])
async def test_every_primary_of_a_cluster_is_lost(cluster: ClusterGroup, open_redis: OpenRedis, how: str) -> None:
    """Restarted it is back with nothing before anybody takes over; paused it thaws before, and frozen after that."""
    backend = open_redis(cluster.url())
    async with Load(backend, KEYS, may_miss=how == "restart") as load:
        for key in (b"0", b"1", b"2", b"{tag}0", b"4"):
            await lose(cluster.owner(b"oidc:blacklist:" + key), how, load)
            await asyncio.to_thread(cluster.until_well)
        assert load.longest < BUDGET + TOLERANCE
        assert load.kinds <= {"link", "timeout", "busy", "readonly"}
    assert (await backend.ping()).healthy
    check_bounds(backend, 6)


@pytest.mark.parametrize("how", ["kill", "restart", "pause", "freeze"])
async def test_the_primary_is_lost_again_and_again(sentinels: SentinelGroup, open_redis: OpenRedis, how: str) -> None:
    backend = open_redis(sentinels.url())
    async with Load(backend, KEYS, may_miss=how == "restart") as load:
        for _ in range(3):
            await lose(sentinels.primary, how, load)
            await until(lambda: sentinels.primary.is_running, FAIL_OVER)
            await asyncio.sleep(3)  # a sentinel that has just taken part in an election does not begin another one
        assert load.longest < BUDGET + TOLERANCE
    assert (await backend.ping()).healthy


# After a few hundred moves the nodes of 6.2 do not always come to agree about a slot, whoever asks them.
@pytest.mark.parametrize("cluster", [kind for kind in KINDS if kind != "redis-6.2"], indirect=True)
async def test_slots_move_all_the_time(cluster: ClusterGroup, open_redis: OpenRedis) -> None:
    """No call fails: whoever asks the wrong node, or in the middle of a move, is sent on in time."""
    random = Random(7)
    backend = open_redis(cluster.url(), budget=2)
    slots = [key_slot(b"oidc:blacklist:" + key) for key in KEYS[-21:]]
    async with Load(backend, KEYS) as load:
        began = monotonic()
        while monotonic() < began + MOVING:
            await asyncio.to_thread(move, cluster, random.choice(slots), random)
        await load.all_well(FAIL_OVER)
        assert load.kinds == set()
    check_bounds(backend, 6)


def move(cluster: ClusterGroup, slot: int, random: Random) -> None:
    source = cluster.owner_of(slot)
    others = [server for server in cluster.primaries if server is not source]
    target = random.choice(others)
    cluster.begin_move(slot, source, target)
    while cluster.move_keys(slot, source, target, 3):
        pass
    cluster.end_move(slot, target)


def check_bounds(backend: RedisBackend, nodes: int) -> None:
    """No more lanes and connections than nodes, however often they changed."""
    assert backend._session is not None
    assert len(backend._session.lanes) <= nodes
    assert len(list(backend._session.route.links)) <= 3 * nodes
