"""The ledger over Sentinel and over Cluster: the contract, and what it does when another server is the primary."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from test_cache_topology import CLUSTERS, OF_A_SENTINEL

from oidc_middleware.cache.redis.ledger import RedisLedger
from oidc_middleware.cache.redis.slots import key_slot
from oidc_middleware.core.ledger.records import Position
from oidc_middleware.errors import BackendUnavailable

from ledger_redis_kit import COMMANDS, LEDGER, LOG, OpenLedger, add_user
from ledger_store_contract import HOUR, LedgerStoreContract, OpenStore, contents, follows, logged, token
from redis_kit import PATIENCE, RedisServer, fails
from topology_kit import FAIL_OVER, SERVICE, ClusterGroup, SentinelGroup

pytestmark = pytest.mark.anyio

IN_A_CLUSTER = "cluster|slots"
BEHIND_SENTINELS = "role"
BUDGET = 1.0


@pytest.fixture(scope="module")
def sentinels() -> Iterator[SentinelGroup]:
    """Sentinels and servers that let in only a user who may do what the documentation names, and nothing beyond."""
    with SentinelGroup() as group:
        for server in group.data:
            add_user(server, *COMMANDS, BEHIND_SENTINELS)
        for sentinel in group.sentinels:
            sentinel.admin.execute_command("ACL", "SETUSER", "node", "reset", "on", ">secret", OF_A_SENTINEL)
        yield group


@pytest.fixture(scope="module", params=CLUSTERS)
def any_cluster(request: pytest.FixtureRequest) -> Iterator[ClusterGroup]:
    with ClusterGroup(request.param) as group:
        for server in group.servers:
            add_user(server, *COMMANDS, IN_A_CLUSTER)
        yield group


@pytest.fixture
def doomed() -> Iterator[SentinelGroup]:
    """Servers for a test that may do to them what it likes."""
    with SentinelGroup() as group:
        yield group


@pytest.fixture
def cluster(any_cluster: ClusterGroup) -> Iterator[ClusterGroup]:
    """A cluster that is well; a test leaves it so that it becomes well again."""
    any_cluster.flush()
    yield any_cluster
    for server in any_cluster.servers:
        if not server.is_running:
            server.start()
    any_cluster.until_well()


@pytest.fixture
def now() -> int:
    return int(time.time())


class TestSentinel(LedgerStoreContract):
    @pytest.fixture
    def open_store(self, sentinels: SentinelGroup, open_ledger: OpenLedger) -> OpenStore:
        sentinels.flush()
        options = "?sentinel_username=node&sentinel_password=secret"
        return partial(open_ledger, sentinels.url(login="node:secret@", options=options))


class TestCluster(LedgerStoreContract):
    @pytest.fixture
    def open_store(self, any_cluster: ClusterGroup, open_ledger: OpenLedger) -> OpenStore:
        any_cluster.flush()
        return partial(open_ledger, any_cluster.url(login="node:secret@"))


async def until_true(condition: Callable[[], bool]) -> None:
    """Wait for a state of the servers."""
    async with asyncio.timeout(FAIL_OVER + PATIENCE):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110  there is no event to wait for
            await asyncio.sleep(0.02)


async def until_it_looks(ledger: RedisLedger, fits: Callable[[Position], bool] = lambda _: True) -> Position:
    """Look until that succeeds, and finds what is expected."""
    async with asyncio.timeout(FAIL_OVER + PATIENCE):
        while True:
            try:
                position = await ledger.look()
            except BackendUnavailable:
                await asyncio.sleep(0.05)
                continue
            if fits(position):
                return position


class TestFailOverBySentinels:
    async def test_the_primary_is_killed(self, doomed: SentinelGroup, open_ledger: OpenLedger, now: int) -> None:
        """Every connection finds the new primary, and what was replicated is there under the same place."""
        ledger, other = (open_ledger(doomed.url(), budget=BUDGET) for _ in range(2))
        begin = await ledger.look()
        place = await ledger.write([token(1, now + HOUR)])
        assert doomed.primary.admin.wait(2, int(PATIENCE * 1000)) == 2
        reading = asyncio.create_task(other.read(place, PATIENCE))
        await asyncio.to_thread(doomed.primary.kill)
        with pytest.raises(BackendUnavailable):
            await reading
        assert await until_it_looks(ledger) == place
        assert await until_it_looks(other) == place
        later = await ledger.write([token(2, now + HOUR)])
        assert [entry.position for entry in await other.read(place, PATIENCE)] == [later]
        assert follows(await logged(other, begin), begin)
        assert await contents(other) == {token(n, now + HOUR) for n in (1, 2)}

    async def test_the_primary_changes_places_with_a_replica(
        self, doomed: SentinelGroup, open_ledger: OpenLedger, now: int
    ) -> None:
        ledger, old = open_ledger(doomed.url(), budget=BUDGET), doomed.primary
        place = await ledger.write([token(1, now + HOUR)])
        assert old.admin.wait(2, int(PATIENCE * 1000)) == 2
        doomed.sentinels[0].admin.execute_command("SENTINEL", "FAILOVER", SERVICE)
        await until_true(lambda: old.admin.info("replication")["role"] == "slave")
        assert await until_it_looks(ledger) == place
        written = await open_ledger(doomed.url()).write([token(2, now + HOUR)])
        assert [entry.position for entry in await ledger.read(place, PATIENCE)] == [written]
        assert doomed.primary.admin.zcard(LEDGER) == 3

    async def test_a_primary_that_is_alone_on_its_side_is_left(
        self, doomed: SentinelGroup, open_ledger: OpenLedger, now: int
    ) -> None:
        """It still answers to whoever was connected; that it misses its replicas makes us ask the sentinels again.

        Who looks at one server and reads the log of the other would load everything again and again.
        """
        old = doomed.primary
        for server in doomed.data:
            server.admin.config_set("min-replicas-to-write", 1)
            server.admin.config_set("min-replicas-max-lag", 1)
        ledger = open_ledger(doomed.url(), budget=BUDGET)
        place = await ledger.write([token(1, now + HOUR)])
        assert await ledger.read(place, 0) == []
        await ledger.scan(b"")
        assert old.admin.wait(2, int(PATIENCE * 1000)) == 2
        ours = connections_of_ledgers(old)
        assert len(ours) == 3
        cut_off(old)
        await until_true(lambda: doomed.primary is not old)
        assert connections_of_ledgers(old) == ours
        found = await until_it_looks(ledger)
        assert found == place
        written = await open_ledger(doomed.url()).write([token(2, now + HOUR)])
        assert [entry.position for entry in await ledger.read(place, PATIENCE)] == [written]
        assert (await ledger.write([token(3, now + HOUR)])).number == 3
        assert old.admin.zcard(LEDGER) == 2


def connections_of_ledgers(server: RedisServer) -> set[str]:
    return {client["id"] for client in server.admin.client_list() if client["cmd"] in {"eval", "evalsha", "xread"}}


def cut_off(server: RedisServer) -> None:
    """Let nobody in any more who is not there already, and send away the sentinels and replicas."""
    server.admin.config_set("requirepass", "unknown")
    for client in server.admin.client_list():
        if client["name"].startswith("sentinel") or client["flags"] in {"S", "P"}:
            server.admin.client_kill_filter(_id=client["id"])


class TestSlotsAndNodesThatMove:
    async def test_both_keys_are_in_one_slot(self, cluster: ClusterGroup, open_ledger: OpenLedger, now: int) -> None:
        await open_ledger(cluster.url()).write([token(1, now + HOUR)])
        assert key_slot(LEDGER.encode()) == key_slot(LOG.encode())
        owner = cluster.owner(LEDGER.encode())
        assert owner.admin.exists(LEDGER, LOG) == 2

    async def test_the_primary_changes_places_with_its_replica(
        self, cluster: ClusterGroup, open_ledger: OpenLedger, now: int
    ) -> None:
        ledger = open_ledger(cluster.url(), budget=BUDGET)
        begin = place = await ledger.look()
        for n in range(3):
            place = await ledger.write([token(n, now + HOUR)])
            owner = cluster.owner(LEDGER.encode())
            await asyncio.to_thread(cluster.fail_over, owner)
            assert await until_it_looks(ledger) == place
        assert follows(await logged(ledger, begin), begin)
        assert len(await contents(ledger)) == 3

    async def test_the_primary_is_killed(self, cluster: ClusterGroup, open_ledger: OpenLedger, now: int) -> None:
        ledger = open_ledger(cluster.url(), budget=BUDGET)
        place = await ledger.write([token(1, now + HOUR)])
        owner = cluster.owner(LEDGER.encode())
        assert owner.admin.wait(1, int(PATIENCE * 1000)) == 1
        reading = asyncio.create_task(ledger.read(place, PATIENCE))
        await asyncio.to_thread(owner.kill)
        with pytest.raises(BackendUnavailable):
            await reading
        assert await until_it_looks(ledger) == place
        later = await ledger.write([token(2, now + HOUR)])
        assert [entry.position for entry in await ledger.read(place, PATIENCE)] == [later]

    async def test_the_slot_moves(self, cluster: ClusterGroup, open_ledger: OpenLedger, now: int) -> None:
        """While it moves the ledger is at neither end; a part that was read before belongs to the old server."""
        slot, source = key_slot(LEDGER.encode()), cluster.owner(LEDGER.encode())
        target = next(server for server in cluster.primaries if server is not source)
        ledger = open_ledger(cluster.url(), budget=BUDGET)
        begin = place = await ledger.look()
        for part in range(3):
            place = await ledger.write([token(1000 * part + n, now + HOUR) for n in range(1000)])
        page = await ledger.scan(b"")
        assert page.cursor
        await asyncio.to_thread(cluster.begin_move, slot, source, target)
        assert await ledger.look() == place
        for _ in range(2):  # one key, then the other
            await asyncio.to_thread(cluster.move_keys, slot, source, target, 1)
            for call in (ledger.look, lambda: ledger.scan(b""), lambda: ledger.write([])):
                await fails(call(), "busy")
        await asyncio.to_thread(cluster.end_move, slot, target)
        assert await until_it_looks(ledger) == place
        with pytest.raises(BackendUnavailable):
            await ledger.scan(page.cursor)
        assert len(await contents(ledger)) == 3000
        assert (await ledger.write([token(9999, now + HOUR)])).number == place.number + 1
        assert follows(await logged(ledger, begin), begin)
        await asyncio.to_thread(cluster.begin_move, slot, target, source)
        await asyncio.to_thread(cluster.move_keys, slot, target, source)
        await asyncio.to_thread(cluster.end_move, slot, source)
