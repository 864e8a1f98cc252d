"""The contract of a cache tier over Sentinel and over Cluster, with users who may do nothing else, and over TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trustme
from test_cache_redis import TestRedisBackend as OverOneServer
from test_cache_redis_faults import tls_context

from oidc_middleware.cache import (
    TYPES,
    Backend,
    Entry,
    HybridBackend,
    MemoryBackend,
    RedisBackend,
    SealedBackend,
    Sealer,
)
from oidc_middleware.testing import BackendContract, ManualClock

from redis_kit import LOOPBACK, PATIENCE, OpenRedis, Proxy, RedisServer, end, newest, programs, until
from topology_kit import ClusterGroup, SentinelGroup

pytestmark = pytest.mark.anyio

TOKEN = TYPES["token"]
SECRET = "s" * 32
COMMANDS = "+mget +getrange +set +del +unlink +scan +ping +info +client|info +client|kill"
COMMANDS += " +xadd +xread +xrange +xrevrange +evalsha +eval"
"""What docs/redis.md says that the user of a node needs; and then:"""
BEHIND_SENTINELS = f"{COMMANDS} +role"
OF_A_SENTINEL = "+sentinel|get-master-addr-by-name"
IN_A_CLUSTER = f"{COMMANDS} +cluster|slots +asking"
CLUSTERS = sorted({newest(), *(name for name in programs() if name.startswith("valkey"))})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(now=1_800_000_000.0)


@pytest.fixture(scope="module")
def sentinels() -> Iterator[SentinelGroup]:
    """Sentinels and servers that let in only a user who may do what the documentation names, and nothing beyond."""
    with SentinelGroup() as group:
        for server in group.data:
            add_user(server, f"~oidc:* {BEHIND_SENTINELS}")
        for sentinel in group.sentinels:
            add_user(sentinel, OF_A_SENTINEL)
        yield group


@pytest.fixture(scope="module", params=CLUSTERS)
def any_cluster(request: pytest.FixtureRequest) -> Iterator[ClusterGroup]:
    with ClusterGroup(request.param) as group:
        for server in group.servers:
            add_user(server, f"~oidc:* {IN_A_CLUSTER}")
        yield group


def add_user(server: RedisServer, rules: str) -> None:
    server.admin.execute_command("ACL", "SETUSER", "node", "reset", "on", ">pass", *rules.split())


def sentinel_url(group: SentinelGroup) -> str:
    return group.url(login="node:pass@", options="?sentinel_username=node&sentinel_password=pass")


class TestSentinel(BackendContract):
    @pytest.fixture
    async def backend(self, sentinels: SentinelGroup, clock: ManualClock) -> AsyncIterator[Backend]:
        sentinels.flush()
        backend = RedisBackend(sentinel_url(sentinels), clock=clock, budget=PATIENCE)
        yield backend
        await backend.close()

    test_ping_and_stats = OverOneServer.test_ping_and_stats


class TestCluster(BackendContract):
    @pytest.fixture
    async def backend(self, any_cluster: ClusterGroup, clock: ManualClock) -> AsyncIterator[Backend]:
        any_cluster.flush()
        backend = RedisBackend(any_cluster.url(login="node:pass@"), clock=clock, budget=PATIENCE)
        yield backend
        await backend.close()

    test_ping_and_stats = OverOneServer.test_ping_and_stats


class TestHybridOverSealedSentinel(BackendContract):
    @pytest.fixture
    async def backend(self, sentinels: SentinelGroup, clock: ManualClock) -> AsyncIterator[Backend]:
        sentinels.flush()
        redis = RedisBackend(sentinel_url(sentinels), clock=clock, budget=PATIENCE)
        sealed = SealedBackend(redis, Sealer([SECRET], "app"), clock)
        backend = HybridBackend(MemoryBackend(clock), sealed, clock=clock, budget=PATIENCE)
        yield backend
        await backend.close()


class TestHybridOverSealedCluster(BackendContract):
    @pytest.fixture
    async def backend(self, any_cluster: ClusterGroup, clock: ManualClock) -> AsyncIterator[Backend]:
        any_cluster.flush()
        redis = RedisBackend(any_cluster.url(login="node:pass@"), clock=clock, budget=PATIENCE)
        sealed = SealedBackend(redis, Sealer([SECRET], "app"), clock)
        backend = HybridBackend(MemoryBackend(clock), sealed, clock=clock, budget=PATIENCE)
        yield backend
        await backend.close()


async def test_a_cluster_over_tls(open_redis: OpenRedis, tmp_path: Path) -> None:
    """Every node that the cluster names is reached over TLS, and its certificate is looked at."""
    authority = trustme.CA()
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    async with AsyncExitStack() as stack:
        group = stack.enter_context(ClusterGroup(replicas=0))
        proxies = []
        for server in group.servers:
            proxy = await stack.enter_async_context(Proxy(server.port, tls_context(authority, LOOPBACK)))
            server.admin.config_set("cluster-announce-port", proxy.port)
            proxies.append(proxy)
        ports = {proxy.port for proxy in proxies}
        await until(lambda: all(announced(server) == ports for server in group.servers))
        url = f"rediss+cluster://{LOOPBACK}:{proxies[0].port}"
        backend = open_redis(url, ca_file=str(tmp_path / "ca.pem"), budget=2)
        await backend.set_many(TOKEN, {b"%d" % n: Entry(b"v", end()) for n in range(50)})
        assert len(await backend.get_many(TOKEN, [b"%d" % n for n in range(50)])) == 50
        assert all(proxy.accepted for proxy in proxies)
        health = await open_redis(url, budget=2).ping()
        assert not health.healthy
        assert "certificate" in health.detail


def announced(server: RedisServer) -> set[int]:
    return {primary[1] for _, _, primary in server.admin.execute_command("CLUSTER", "SLOTS")}
