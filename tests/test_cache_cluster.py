"""What a Redis backend does when slots and primaries of a cluster move, hang, or are gone."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from functools import partial

import pytest

from oidc_middleware.cache import TYPES, Entry, RedisBackend
from oidc_middleware.cache.redis.cluster import Cluster
from oidc_middleware.cache.redis.route import Request
from oidc_middleware.cache.redis.slots import key_slot
from oidc_middleware.cache.redis.wire import command, seal_end
from oidc_middleware.errors import BackendUnavailable

from changes_kit import listening
from load_kit import Load
from redis_kit import CLOCK, LOOPBACK, PATIENCE, TOLERANCE, OpenRedis, RedisServer, end, fails, free_port, until
from topology_kit import BUDGET, FAIL_OVER, ClusterGroup

pytestmark = pytest.mark.anyio

TOKEN, GENERAL, BLACKLIST = TYPES["token"], TYPES["general"], TYPES["blacklist"]


@pytest.fixture
def open_redis(open_redis: OpenRedis) -> OpenRedis:
    """Open backends that tell a server which hangs from one that is late."""
    return partial(open_redis, budget=BUDGET)


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterGroup]:
    with ClusterGroup() as group:
        yield group


@pytest.fixture
def group(cluster: ClusterGroup) -> Iterator[ClusterGroup]:
    """A cluster that is well; a test leaves it so that it becomes well again."""
    cluster.flush()
    yield cluster
    for server in cluster.servers:
        if not server.is_running:
            server.start()
    cluster.until_well()


@pytest.fixture
def steadfast(group: ClusterGroup) -> Iterator[ClusterGroup]:
    """The cluster while none of its nodes is given up, however long it hangs."""
    for server in group.servers:
        server.admin.config_set("cluster-node-timeout", 60_000)
    yield group
    for server in group.servers:
        server.cont()
        server.admin.config_set("cluster-node-timeout", 1000)


def route_of(backend: RedisBackend) -> Cluster:
    assert backend._session is not None
    route = backend._session.route
    assert isinstance(route, Cluster)
    return route


class TestKeys:
    @pytest.mark.parametrize("key", [b"{", b"}", b"{}", b"a{b}c", b"{{b}}", b"}{", b"\0{\xff}"], ids=repr)
    async def test_braces(self, group: ClusterGroup, open_redis: OpenRedis, key: bytes) -> None:
        """Whatever a key is, it is where every other client looks for it."""
        backend = open_redis(group.url())
        await backend.set(TOKEN, key, b"v", end())
        assert await backend.get(TOKEN, key) is not None
        assert group.owner(b"oidc:token:" + key).admin.exists(b"oidc:token:" + key)
        assert "busy" not in backend.traffic().failures
        assert await backend.delete(TOKEN, key)

    async def test_many_of_all_nodes_and_of_one_slot(self, group: ClusterGroup, open_redis: OpenRedis) -> None:
        backend = open_redis(group.url())
        entries = {b"%d" % n: Entry(b"v%d" % n, end()) for n in range(300)}
        entries |= {b"{tag}%d" % n: Entry(b"t%d" % n, end()) for n in range(300)}
        await backend.set_many(TOKEN, entries)
        found = await backend.get_many(TOKEN, [*entries, b"absent", b"{tag}absent"])
        assert {key: entry.value for key, entry in found.items()} == {key: e.value for key, e in entries.items()}
        assert backend.traffic().failures == {}
        assert len(route_of(backend)._nodes) == 3
        await backend.clear(TOKEN)
        assert await backend.get_many(TOKEN, entries) == {}

    async def test_a_prefix_with_a_tag_is_one_slot(self, group: ClusterGroup, open_redis: OpenRedis) -> None:
        backend = open_redis(group.url(), prefix=b"{app}")
        await backend.set_many(TOKEN, {b"%d" % n: Entry(b"v", end()) for n in range(100)})
        assert len(await backend.get_many(TOKEN, [b"%d" % n for n in range(100)])) == 100
        assert group.owner(b"{app}").admin.dbsize() == 100


class TestSeeds:
    async def test_the_first_is_gone(self, group: ClusterGroup, open_redis: OpenRedis) -> None:
        url = group.url().replace("//", f"//{LOOPBACK}:{free_port()},")
        for _ in range(5):
            await open_redis(url).set(TOKEN, b"k", b"v", end())

    async def test_a_replica_will_do(self, group: ClusterGroup, open_redis: OpenRedis) -> None:
        await open_redis(group.url(group.replica_of(group.owner(b"k")))).set(TOKEN, b"k", b"v", end())

    async def test_one_hangs(self, steadfast: ClusterGroup, open_redis: OpenRedis) -> None:
        replica = steadfast.replica_of(steadfast.owner(b"k"))
        replica.stop()
        try:
            backend = open_redis(steadfast.url(replica, *steadfast.servers[:3]))
            await backend.set(TOKEN, b"k", b"v", end())
        finally:
            replica.cont()

    async def test_all_are_away(self, open_redis: OpenRedis) -> None:
        backend = open_redis(f"redis+cluster://{LOOPBACK}:{free_port()},{LOOPBACK}:{free_port()}")
        await fails(backend.get(TOKEN, b"k"), "link")
        await fails(backend.set(TOKEN, b"k", b"v", end()), "link")
        await fails(backend.get_many(TOKEN, [b"k", b"l"]), "link")
        await fails(backend.clear(TOKEN), "link")
        assert not (await backend.ping()).healthy

    async def test_a_server_that_is_in_no_cluster(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        backend = open_redis(redis_server.url.replace("redis:", "redis+cluster:").removesuffix("/0"))
        error = await fails(backend.get(TOKEN, b"k"), "refused")
        assert "cluster support disabled" in error.detail


class TestSlotsThatMove:
    @pytest.fixture
    def ends(self, group: ClusterGroup) -> tuple[int, RedisServer, RedisServer]:
        """The slot of the keys `oidc:token:{tag}…`, its primary, and another one."""
        slot = key_slot(b"oidc:token:{tag}")
        source = group.owner(b"oidc:token:{tag}")
        primaries = {group.owner(b"%d" % n).port for n in range(100)} - {source.port}
        return slot, source, group.at(min(primaries))

    async def test_moved(
        self, group: ClusterGroup, ends: tuple[int, RedisServer, RedisServer], open_redis: OpenRedis
    ) -> None:
        """Y-loading, MOVED: one call follows, the next ones know."""
        slot, source, target = ends
        backend = open_redis(group.url())
        await backend.set(TOKEN, b"{tag}k", b"v", end())
        assert await backend.get(TOKEN, b"{tag}k") is not None
        group.begin_move(slot, source, target)
        group.move_keys(slot, source, target)
        group.end_move(slot, target)
        assert await backend.get(TOKEN, b"{tag}k") is not None
        await backend.set(TOKEN, b"{tag}k", b"w", end())
        assert target.admin.exists("oidc:token:{tag}k")
        moved = backend.traffic().failures
        assert moved == {"busy": 1}
        for _ in range(5):
            assert await backend.get(TOKEN, b"{tag}k") is not None
        assert backend.traffic().failures == moved
        group.begin_move(slot, target, source)
        group.move_keys(slot, target, source)
        group.end_move(slot, source)
        assert await backend.delete(TOKEN, b"{tag}k")

    async def test_in_the_middle_of_a_move(
        self, group: ClusterGroup, ends: tuple[int, RedisServer, RedisServer], open_redis: OpenRedis
    ) -> None:
        """Y-loading, ASK and TRYAGAIN: each key is read, written and deleted where it is."""
        slot, source, target = ends
        backend = open_redis(group.url())
        keys = [b"{tag}%d" % n for n in range(6)]
        await backend.set_many(TOKEN, {key: Entry(b"v" + key, end()) for key in keys})
        group.begin_move(slot, source, target)
        try:
            assert group.move_keys(slot, source, target, 3) == 3
            found = await backend.get_many(TOKEN, [*keys, b"{tag}absent"])
            assert {key: entry.value for key, entry in found.items()} == {key: b"v" + key for key in keys}
            for key in keys:
                await backend.set(TOKEN, key, b"w" + key, end())
                entry = await backend.get(TOKEN, key)
                assert entry is not None
                assert entry.value == b"w" + key
            await backend.set(TOKEN, b"{tag}new", b"v", end())
            assert target.admin.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot) == 4
            assert await backend.add(TOKEN, b"{tag}newer", b"v", end())
            assert not await backend.add(TOKEN, b"{tag}newer", b"v", end())
            for key in [*keys, b"{tag}new", b"{tag}newer"]:
                assert await backend.delete(TOKEN, key), key
                assert not await backend.delete(TOKEN, key)
            assert set(backend.traffic().failures) == {"busy"}
        finally:
            group.end_move(slot, source)

    async def test_writes_keep_their_order_while_a_slot_moves(
        self, group: ClusterGroup, ends: tuple[int, RedisServer, RedisServer], open_redis: OpenRedis
    ) -> None:
        """Nobody waits for these writes, so that they are queued and on the wire when the slot goes."""
        slot, source, target = ends
        backend = open_redis(group.url(), budget=2)
        keys = [b"{tag}%d" % n for n in range(20)]
        await backend.set_many(GENERAL, {key: Entry(b"0", end()) for key in keys}, wait=True)
        turn = 0

        async def write() -> None:
            nonlocal turn
            while True:
                turn += 1
                await backend.set_many(GENERAL, {key: Entry(b"%d" % turn, end()) for key in keys}, wait=False)
                found = await backend.get_many(GENERAL, keys)
                assert {entry.value for entry in found.values()} == {b"%d" % turn}
                await asyncio.sleep(0)

        writing = asyncio.create_task(write())
        for begin, goal in ((source, target), (target, source)) * 2:
            await asyncio.to_thread(group.begin_move, slot, begin, goal)
            for _ in range(5):
                await asyncio.to_thread(group.move_keys, slot, begin, goal, 4)
            await asyncio.to_thread(group.end_move, slot, goal)
        assert not writing.done()
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await until(lambda: backend.traffic().queued == 0)
        found = await backend.get_many(GENERAL, keys)
        assert {entry.value for entry in found.values()} == {b"%d" % turn}
        assert backend.traffic().writes.lost == 0

    async def test_a_slot_that_nobody_serves(self, group: ClusterGroup, open_redis: OpenRedis) -> None:
        """Y-loading, CLUSTERDOWN: its keys fail, all others do not."""
        slot, owner = key_slot(b"oidc:token:lost"), group.owner(b"oidc:token:lost")
        backend, late = open_redis(group.url()), open_redis(group.url())
        await backend.set(TOKEN, b"k", b"v", end())
        for server in group.servers:
            if server.admin.info("replication")["role"] == "master":
                server.admin.execute_command("CLUSTER", "DELSLOTS", slot)
        try:
            for one in (backend, late):
                await fails(one.get(TOKEN, b"lost"), "busy")
                await fails(one.set(TOKEN, b"lost", b"v", end()), "busy")
                await one.set(TOKEN, b"k", b"v", end())
                assert await one.get(TOKEN, b"k") is not None
            await until(lambda: not route_of(late)._topology.map.is_complete)  # type: ignore[union-attr]
            assert "no node" in (await late.ping()).detail
        finally:
            owner.admin.execute_command("CLUSTER", "ADDSLOTS", slot)
        await asyncio.to_thread(group.until_well)
        for one in (backend, late):
            await until_served(one, b"lost")


async def until_served(backend: RedisBackend, key: bytes) -> None:
    """Wait until a key can be written again."""
    async with asyncio.timeout(FAIL_OVER):
        while True:
            try:
                return await backend.set(TOKEN, key, b"v", end())
            except BackendUnavailable:
                await asyncio.sleep(0.01)


class TestNodesThatFail:
    @staticmethod
    def keys_by_node(group: ClusterGroup, count: int = 30) -> dict[int, list[bytes]]:
        found: dict[int, list[bytes]] = {}
        for n in range(count):
            found.setdefault(group.owner(b"oidc:blacklist:%d" % n).port, []).append(b"%d" % n)
        return found

    async def test_one_hangs(self, steadfast: ClusterGroup, open_redis: OpenRedis) -> None:
        """Y-stop: its keys fail within the budget, those of the others do not notice."""
        keys = self.keys_by_node(steadfast)
        victim = steadfast.owner(b"oidc:blacklist:0")
        backend = open_redis(steadfast.url())
        async with Load(backend, [key for some in keys.values() for key in some]) as load:
            begun = time.monotonic()
            victim.stop()
            await until(lambda: set(keys[victim.port]) <= load.failed)
            load.longest_success = 0.0
            await fails(backend.get_many(TOKEN, [b"%d" % n for n in range(30)]), "timeout", budget=BUDGET)
            health = await backend.ping()
            assert load.failed == set(keys[victim.port])
            assert load.kinds == {"timeout"}
            assert route_of(backend)._topology.refreshes < 2 + 4 * (time.monotonic() - begun), "four times a second"
            assert load.longest < BUDGET + TOLERANCE
            assert load.longest_success < BUDGET / 2, "nobody waits for a node that has none of his keys"
            assert not health.healthy
            assert f"{LOOPBACK}:{victim.port}: no answer" in health.detail
            victim.cont()
            await load.all_well(FAIL_OVER)

    async def test_one_is_killed(self, group: ClusterGroup, open_redis: OpenRedis) -> None:
        """Y-loading, Y-failover-lost: the others serve their keys all the time, and its replica is found."""
        keys = self.keys_by_node(group)
        victim = group.owner(b"oidc:blacklist:0")
        replica = group.replica_of(victim)
        backend = open_redis(group.url(), budget=PATIENCE)
        async with Load(backend, [key for some in keys.values() for key in some]) as load:
            victim.kill()
            await until(lambda: set(keys[victim.port]) <= load.failed)
            assert f"{LOOPBACK}:{victim.port}" in (await backend.ping()).detail
            await load.all_well(FAIL_OVER)
            assert load.failed == set(keys[victim.port])
            assert load.kinds <= {"link", "busy", "timeout"}
            assert load.longest < BUDGET + TOLERANCE
        assert replica.admin.exists("oidc:blacklist:0")
        assert (await backend.ping()).healthy
        assert len(route_of(backend)._nodes) <= 4
        victim.start()
        await asyncio.to_thread(group.until_well)
        assert await backend.get(BLACKLIST, b"0") is not None

    async def test_ping_alone_finds_the_new_primary(self, group: ClusterGroup, open_redis: OpenRedis) -> None:
        """A node without requests is well again as soon as the cluster is."""
        backend = open_redis(group.url())
        assert (await backend.ping()).healthy
        victim = group.owner(b"k")
        await asyncio.to_thread(group.fail_over, victim)
        victim.kill()
        assert f"{LOOPBACK}:{victim.port}" in (await backend.ping()).detail
        async with asyncio.timeout(FAIL_OVER):
            while not (await backend.ping()).healthy:  # noqa: ASYNC110  there is no event to wait for
                await asyncio.sleep(0.05)

    async def test_it_changes_places_with_its_replica(self, group: ClusterGroup, open_redis: OpenRedis) -> None:
        """Nobody asks the replica for what it may not have yet, and connections to it are let go of in time."""
        backend = open_redis(group.url())
        await backend.set_many(TOKEN, {b"%d" % n: Entry(b"v", end()) for n in range(30)})
        for _ in range(3):
            owner = group.owner(b"oidc:token:0")
            replica = await asyncio.to_thread(group.fail_over, owner)
            assert await backend.get(TOKEN, b"0") is not None
            await backend.set(TOKEN, b"0", b"w", end())
            assert replica.admin.info("commandstats")["cmdstat_mget"]["calls"] >= 1
            assert len(route_of(backend)._nodes) <= 4
        assert len(await backend.get_many(TOKEN, [b"%d" % n for n in range(30)])) == 30


def home_failed(backend: RedisBackend) -> bool:
    """Tell whether a write went through although others could not be told of it."""
    traffic = backend.traffic()
    return traffic.failures.get("timeout", 0) > 0 and traffic.queued == 0


class TestLife:
    def test_a_loop_that_is_closed_is_left_behind(self, group: ClusterGroup, recwarn: pytest.WarningsRecorder) -> None:
        backend = RedisBackend(group.url(), clock=CLOCK, budget=PATIENCE)

        async def request(n: int) -> None:
            await backend.set(TOKEN, b"%d" % n, b"v", end())
            assert await backend.get(TOKEN, b"%d" % n) is not None

        for n in range(5):
            asyncio.run(request(n))
        asyncio.run(backend.close())
        gc.collect()
        assert [str(warning.message) for warning in recwarn] == []

    async def test_closed_while_it_looks_for_the_cluster(self, redis_server: RedisServer) -> None:
        """Whoever waits for it is told; nobody is cancelled."""
        redis_server.stop()
        backend = RedisBackend(f"redis+cluster://{LOOPBACK}:{redis_server.port}", clock=CLOCK, budget=PATIENCE)
        pinging, reading = asyncio.ensure_future(backend.ping()), asyncio.ensure_future(backend.get(TOKEN, b"k"))
        await asyncio.sleep(0.02)
        await backend.close()
        assert (await pinging).detail == "closed"
        with pytest.raises(BackendUnavailable, match="closed"):
            await reading

    async def test_lanes_and_connections_are_those_of_the_primaries(
        self, group: ClusterGroup, open_redis: OpenRedis
    ) -> None:
        backend = open_redis(group.url())
        for n in range(50):
            await backend.set(TOKEN, b"%d" % n, b"v", end())
            await backend.get(TOKEN, b"%d" % n)
        assert backend._session is not None
        assert len(backend._session.lanes) == 3
        assert len(route_of(backend)._nodes) == 3
        traffic = backend.traffic()
        assert (traffic.writes.batches, traffic.writes.sent, traffic.read_batches) == (50, 50, 50)
        assert traffic.connects == 6, "to each a connection for reads and one for writes"


class TestForOthers:
    async def test_a_request_that_comes_after_the_others(self, group: ClusterGroup, open_redis: OpenRedis) -> None:
        """What tells others of a batch is sent to the node of its own key, when the batch has been answered."""
        backend = open_redis(group.url())
        await backend.set(TOKEN, b"k", b"v", end())
        hung = group.owner(b"oidc:token:k")
        log = next(key for n in range(100) if group.owner(key := b"oidc:{log%d}" % n) is not hung)
        told = Request(log, (command(b"XADD", log, b"*", b"f", b"v"),))
        requests = [Request(b"oidc:token:%d" % n, (command(b"SET", b"oidc:token:%d" % n, b"v"),)) for n in range(30)]
        *answers, last = await route_of(backend).send("writing", requests, told)
        assert answers == [[b"OK"]] * 30
        assert not isinstance(last, BackendUnavailable)
        assert group.owner(log).admin.xlen(log) == 1
        hung.stop()
        try:
            *answers, last = await route_of(backend).send("writing", requests, told)
        finally:
            hung.cont()
        assert {getattr(answer, "kind", "none") for answer in answers} == {"none", "timeout"}
        assert not isinstance(last, BackendUnavailable), "it has time of its own"
        assert group.owner(log).admin.xlen(log) == 2

    async def test_what_others_change_is_heard_wherever_the_log_is(
        self, group: ClusterGroup, open_redis: OpenRedis
    ) -> None:
        """The log is in one slot, what it names in all; when its node is replaced some may have been missed."""
        one, other = open_redis(group.url()), open_redis(group.url())
        keys = [b"%d" % n for n in range(6)]
        async with listening(other.changes()) as ear:
            for key in keys:
                await one.set(GENERAL, key, b"v", end(), wait=True)
                await ear.hears("general", key)
            await one.clear(GENERAL)
            await ear.hears("general")
            await asyncio.to_thread(group.fail_over, group.owner(b"oidc:{log}:changes"))
            await ear.loses_track()
            await one.set(GENERAL, b"k", b"v", end(), wait=True)
            await ear.hears("general", b"k")
        assert other.staleness() is None

    async def test_the_node_of_the_log_is_away(self, steadfast: ClusterGroup, open_redis: OpenRedis) -> None:
        """No write fails for that; what could not be told is told when the node is back."""
        one, other = open_redis(steadfast.url()), open_redis(steadfast.url())
        home = steadfast.owner(b"oidc:{log}:changes")
        key = next(b"%d" % n for n in range(100) if steadfast.owner(b"oidc:general:%d" % n) is not home)
        async with listening(other.changes()) as ear:
            home.stop()
            await one.set(GENERAL, key, b"v", end())
            await until(lambda: home_failed(one))
            home.cont()
            await until_served(one, b"k")
            assert (await one.ping()).healthy
            await ear.hears("general", key)

    async def test_a_connection_of_their_own_to_the_node_of_a_key(
        self, group: ClusterGroup, open_redis: OpenRedis
    ) -> None:
        """What follows a log needs one, and finds the log again where it has moved."""
        backend = open_redis(group.url())
        await backend.set(TOKEN, b"k", b"v", end())
        key = b"oidc:token:k"
        link = route_of(backend).link_of(key, BUDGET)
        (length,) = await link.ask(command(b"STRLEN", key))
        assert length == len(seal_end(b"v", 0.0))
        await asyncio.to_thread(group.fail_over, group.owner(key))
        (moved,) = await link.ask(command(b"STRLEN", key))
        assert isinstance(moved, BackendUnavailable)
        assert moved.kind == "busy"
        (length,) = await link.ask(command(b"STRLEN", key))
        assert length == len(seal_end(b"v", 0.0))
        await link.aclose()
