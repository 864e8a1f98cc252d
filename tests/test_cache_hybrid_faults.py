"""What a node does when its Redis hangs, refuses, forgets or is out of reach: each test names the case it is."""

from __future__ import annotations

import asyncio
import datetime as dt
import signal
import ssl
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest
import redis
import trustme

from oidc_middleware.cache import TYPES, CacheType, Entry
from oidc_middleware.errors import BackendUnavailable
from oidc_middleware.testing import ManualClock

from hybrid_kit import Node, OpenNode, fails, opened, stored
from redis_kit import (
    BUDGET,
    LOOPBACK,
    PATIENCE,
    TOLERANCE,
    RedisServer,
    done,
    end,
    free_port,
    proxy_of,
    until,
)
from time_kit import Stopwatch, Turns, best_of, within

pytestmark = pytest.mark.anyio

GENERAL, TOKEN, BLACKLIST, SESSION = TYPES["general"], TYPES["token"], TYPES["blacklist"], TYPES["session"]
MARGIN = 0.02


async def request(node: Node, number: int) -> float:
    """Do what a request does, with a fault at every step; return how long all of it took, by a stopwatch."""
    key = b"%d" % number
    with Stopwatch() as passed:
        assert await node.hybrid.get(TOKEN, key) is None
        with pytest.raises(BackendUnavailable):
            await node.hybrid.exists(BLACKLIST, key)
        with pytest.raises(BackendUnavailable):
            await node.hybrid.set(TOKEN, key, b"v", end())
        await node.hybrid.set(GENERAL, key, b"v", end())
        return passed()


async def median_of(calls: int, work: Callable[[int], Awaitable[object]]) -> float:
    """Return how long a call takes, in seconds: one that is cheap shows that it is also on a busy machine."""
    taken = []
    for number in range(calls):
        begun = time.perf_counter()
        await work(number)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


class TestAServerThatHangs:
    async def test_frozen(self, redis_server: RedisServer, open_node: OpenNode) -> None:
        """Y-stop: a request waits for one budget in all, then for nothing; known tokens stay fast."""
        node = open_node(redis_server.url, budget=BUDGET)
        await done(lambda: node.hybrid.set(TOKEN, b"known", b"v", end()))
        known = await median_of(200, lambda _: node.hybrid.get(TOKEN, b"known"))
        redis_server.stop()
        taken = [await request(node, number) for number in range(3)]
        taken += await asyncio.gather(*(request(node, number) for number in range(100, 150)))
        assert max(taken) < BUDGET + MARGIN + TOLERANCE
        await opened(node)
        assert node.hybrid.fallback
        assert await best_of(5, 0.001, lambda: median_of(200, lambda number: request(node, 1000 + number))) < 0.001
        bound = 2 * known + 0.0001
        assert await best_of(5, bound, lambda: median_of(200, lambda _: node.hybrid.get(TOKEN, b"known"))) < bound
        redis_server.cont()
        await node.recovered()
        assert redis_server.admin.exists(node.name(TOKEN, b"known"))

    async def test_a_slow_link(self, redis_server: RedisServer, open_node: OpenNode) -> None:
        """Y-slow: 2 s more for every answer cost no request more than its budget, and the loop nothing."""
        async with proxy_of(redis_server) as proxy:
            node = open_node(proxy.url, budget=BUDGET)
            await done(lambda: node.hybrid.set(TOKEN, b"k", b"v", end()))
            proxy.to_client = 2.0
            with Turns() as turns:
                taken = await asyncio.gather(*(request(node, number) for number in range(100)))
            assert max(taken) < BUDGET + MARGIN + TOLERANCE
            assert turns.longest < TOLERANCE
            proxy.to_client = 0.0
            await node.recovered()
            assert await node.hybrid.get(BLACKLIST, b"absent") is None

    async def test_50_readers(self, redis_server: RedisServer, open_node: OpenNode) -> None:
        """Y-pool: nobody is turned away for want of a connection; what it means that there is no answer is policy."""
        node = open_node(redis_server.url, budget=BUDGET)
        await done(lambda: node.hybrid.set(TOKEN, b"k", b"v", end()))
        redis_server.stop()
        with within(BUDGET + TOLERANCE):
            found = await asyncio.gather(
                *(node.hybrid.get(kind, b"%d" % number) for number in range(50) for kind in (TOKEN, SESSION)),
                return_exceptions=True,
            )
        assert set(found[::2]) == {None}
        assert {getattr(error, "kind", error) for error in found[1::2]} == {"timeout"}
        redis_server.cont()
        await node.recovered()
        # Four of the node and one of the test, as soon as the server has noticed which ones were given up.
        await until(lambda: len(redis_server.admin.client_list()) <= 5)

    async def test_a_cancelled_reader_leaves_no_answer_behind(
        self, redis_server: RedisServer, open_node: OpenNode
    ) -> None:
        """Y-cancel-dirty."""
        async with proxy_of(redis_server) as proxy:
            node, other = open_node(proxy.url), open_node(redis_server.url)
            entries = {b"%d" % number: Entry(b"%d" % number, end()) for number in range(100)}
            await other.hybrid.set_many(TOKEN, entries)
            proxy.to_client = 0.005
            for number in range(0, 100, 2):
                reading = asyncio.ensure_future(node.hybrid.get(TOKEN, b"%d" % number))
                await asyncio.sleep(0.002)
                reading.cancel()
                entry = await node.hybrid.get(TOKEN, b"%d" % (number + 1))
                assert entry is not None
                assert entry.value == b"%d" % (number + 1)
            assert node.redis.traffic().connects <= 4

    async def test_100_001_queued_writes(self, redis_server: RedisServer, open_node: OpenNode) -> None:
        """Y-queue-overflow: the oldest sets become deletes, what finds no room is counted, and no old value is left."""
        news: list[bool] = []
        node = open_node(redis_server.url, on_fallback=news.append, budget=4 * BUDGET)
        count = 100_001
        old = [b"%d" % number for number in range(0, count, 1000)]
        await done(lambda: node.hybrid.set_many(GENERAL, {key: Entry(b"old", end()) for key in old}, wait=True))
        redis_server.stop()
        revoking = asyncio.ensure_future(node.hybrid.set(BLACKLIST, b"revoked", b"1", end()))
        await asyncio.sleep(0)
        for number in range(count):
            await node.hybrid.set(GENERAL, b"%d" % number, b"new", end())
        overview = node.hybrid.overview()
        assert overview.queued_bytes <= 16 * 1024 * 1024
        assert overview.writer.dropped + overview.writer.refused >= count - 2 * 1000
        assert overview.l1["general"].entries <= GENERAL.limits.max_entries  # type: ignore[union-attr]
        with pytest.raises(BackendUnavailable):
            await revoking
        await until(lambda: node.hybrid.overview().queued == 0)
        deletes, adds, clears = node.unsettled
        assert deletes <= 50_000
        assert (adds, clears) == (1, 1), "too many to delete one by one: the type is cleared"
        assert await node.hybrid.exists(BLACKLIST, b"revoked")
        redis_server.cont()
        await node.recovered()
        assert redis_server.admin.exists(node.name(BLACKLIST, b"revoked"))
        assert set(stored(redis_server)) <= {node.name(BLACKLIST, b"revoked"), node.name(GENERAL, b"probe")}
        assert news[0] is True
        assert news[-1] is False

    async def test_a_full_queue_ends_no_session_and_takes_back_no_revocation(
        self, redis_server: RedisServer, open_node: OpenNode
    ) -> None:
        """Y-queue-overflow: what has no other source does not become a delete when room is needed."""
        async with proxy_of(redis_server) as proxy:
            node, other = open_node(proxy.url, budget=PATIENCE, queue_size=10), open_node(redis_server.url)
            await node.hybrid.set(SESSION, b"session", b"begun", end(), wait=True)
            proxy.to_client = 0.2
            await node.hybrid.set(GENERAL, b"on the wire", b"v", end())
            await asyncio.sleep(0.01)
            await node.hybrid.set(SESSION, b"session", b"touched", end())
            await node.hybrid.set(BLACKLIST, b"revoked", b"1", end(), wait=False)
            for number in range(30):
                await node.hybrid.set(GENERAL, b"%d" % number, b"v", end())
            assert node.hybrid.overview().writer.dropped == 22
            proxy.to_client = 0.0
            await node.recovered()
            entry = await other.hybrid.get(SESSION, b"session")
            assert entry is not None
            assert entry.value == b"touched"
            assert await other.hybrid.exists(BLACKLIST, b"revoked")


class TestAServerThatRefuses:
    @pytest.mark.parametrize(("case", "kind"), [("Y-oom", "full"), ("Y-readonly", "readonly")])
    async def test_writes_are_refused_and_reads_go_on(
        self, redis_server: RedisServer, open_node: OpenNode, case: str, kind: str
    ) -> None:
        news: list[bool] = []
        node, other = open_node(redis_server.url, on_fallback=news.append), open_node(redis_server.url)
        await other.hybrid.set_many(TOKEN, {b"%d" % number: Entry(b"v", end()) for number in range(10)})
        admin = redis_server.admin
        if case == "Y-oom":
            admin.config_set("maxmemory", "1")
        else:
            admin.replicaof(LOOPBACK, free_port())
        for number in range(4):
            error = await fails(node.hybrid.set(BLACKLIST, b"%d" % number, b"1", end()))
            assert error.kind == kind
            await node.hybrid.set(GENERAL, b"%d" % number, b"v", end())
        await until(lambda: news)
        assert news == [True]
        assert node.hybrid.overview().errors[kind] >= 4  # type: ignore[index]
        assert (await node.hybrid.ping()).detail != "shared cache: well"
        for number in range(10):
            assert await node.hybrid.get(TOKEN, b"%d" % number) is not None
            assert not await node.hybrid.exists(BLACKLIST, b"absent %d" % number)
        admin.config_set("maxmemory", "0")
        admin.replicaof("NO", "ONE")
        await node.recovered()
        assert news == [True, False]
        for number in range(4):
            assert await other.hybrid.exists(BLACKLIST, b"%d" % number)
            assert not await other.hybrid.exists(GENERAL, b"%d" % number), "has another source"

    async def test_the_password_is_changed(self, redis_server: RedisServer, open_node: OpenNode) -> None:
        """Y-auth: it shows when connections are made anew; a revocation fails aloud, and health is told."""
        node = open_node(redis_server.url)
        await node.hybrid.set(TOKEN, b"k", b"v", end())
        await node.hybrid.get(TOKEN, b"other")
        admin = redis_server.admin
        admin.config_set("requirepass", "new")
        assert await node.hybrid.get(TOKEN, b"another") is None
        assert not node.hybrid.fallback, "old connections go on"
        end_connections(redis_server)
        await opened(node)
        await fails(node.hybrid.set(BLACKLIST, b"revoked", b"1", end()), "auth")
        await fails(node.hybrid.exists(BLACKLIST, b"absent"), "auth")
        assert await node.hybrid.get(TOKEN, b"absent") is None
        health = await node.hybrid.ping()
        assert health.healthy
        assert "uthentication" in health.detail or "NOAUTH" in health.detail
        admin.config_set("requirepass", "")
        await node.recovered()
        assert admin.exists(node.name(BLACKLIST, b"revoked"))

    @pytest.mark.parametrize("answer", ["BUSY", "MASTERDOWN", "CLUSTERDOWN"])
    async def test_it_has_no_time(self, open_node: OpenNode, answer: str) -> None:
        """Y-loading: whoever asks is told that nobody knows, and the node is back when the server is."""
        options = {"replica-serve-stale-data": "no"} if answer == "MASTERDOWN" else {}
        options |= {"cluster-enabled": "yes"} if answer == "CLUSTERDOWN" else {}
        with RedisServer(options=options, port=port_of_a_cluster()) as server:
            node = open_node(server.url)
            blocked = begin_to_answer(server, answer)
            assert await node.hybrid.get(TOKEN, b"k") is None
            await opened(node)
            await fails(node.hybrid.exists(BLACKLIST, b"absent"), "busy")
            await fails(node.hybrid.set(BLACKLIST, b"revoked", b"1", end()), "busy", "readonly")
            assert await node.hybrid.exists(BLACKLIST, b"revoked")
            await end_to_answer(server, answer)
            await blocked
            await node.recovered()
            assert server.admin.exists(node.name(BLACKLIST, b"revoked"))

    async def test_one_command_of_a_pipeline_fails(self, redis_server: RedisServer, open_node: OpenNode) -> None:
        """Y-pipeline: every answer is looked at, and what failed alone is made up for."""
        admin = redis_server.admin
        admin.execute_command("ACL", "SETUSER", "node", "reset", "on", ">secret", "+@all", "~oidc:token:*")
        node = open_node(redis_server.url.replace("//", "//node:secret@"))
        results = await asyncio.gather(
            node.hybrid.set(TOKEN, b"one", b"v", end()),
            node.hybrid.set(GENERAL, b"two", b"v", end(), wait=True),
            node.hybrid.set(TOKEN, b"three", b"v", end()),
            return_exceptions=True,
        )
        assert [getattr(result, "kind", result) for result in results] == [None, "auth", None]
        assert admin.exists(node.name(TOKEN, b"one"), node.name(TOKEN, b"three")) == 2
        assert node.unsettled == (1, 0, 0)
        admin.execute_command("ACL", "SETUSER", "node", "allkeys")
        await node.recovered()

    async def test_a_key_of_another_type(self, redis_server: RedisServer, open_node: OpenNode) -> None:
        """Y-wrong-type: a miss that is counted; to write and to delete put it right."""
        node = open_node(redis_server.url)
        for key in (b"read", b"written", b"deleted"):
            redis_server.admin.rpush(node.name(TOKEN, key), "element")
        assert await node.hybrid.get_many(TOKEN, [b"read", b"written", b"deleted"]) == {}
        assert not await node.hybrid.exists(TOKEN, b"read")
        assert node.hybrid.stats()["token"].misses == 3
        await node.hybrid.set(TOKEN, b"written", b"v", end())
        assert not await node.hybrid.delete(TOKEN, b"deleted")
        assert not redis_server.admin.exists(node.name(TOKEN, b"deleted"))
        assert redis_server.admin.type(node.name(TOKEN, b"written")) == b"string"
        assert node.hybrid.overview().errors == {}

    @pytest.mark.parametrize(("kind", "size"), [(SESSION, 1_000_000), (GENERAL, 9_000_000), (TOKEN, 600_000_000)])
    async def test_a_value_that_is_too_large(
        self, redis_server: RedisServer, open_node: OpenNode, kind: CacheType, size: int
    ) -> None:
        """Y-big-value: it is refused here, and what its key had is gone."""
        node = open_node(redis_server.url)
        await node.hybrid.set(kind, b"k", b"v", end(), wait=True)
        before = redis_server.admin.info("stats")["total_net_input_bytes"]
        await node.hybrid.set(kind, b"k", bytes(size), end(), wait=True)
        assert await node.hybrid.get(kind, b"k") is None
        assert stored(redis_server) == []
        assert redis_server.admin.info("stats")["total_net_input_bytes"] - before < 10_000
        assert node.hybrid.overview().errors == {}
        assert node.hybrid.stats()[kind.name].refused == 1
        assert not await node.hybrid.add(kind, b"k", bytes(size), end())


def end_connections(server: RedisServer) -> None:
    """End every connection of a server besides that of the test."""
    mine = server.admin.client_info()["id"]
    for client in server.admin.client_list(_type="normal"):
        if int(client["id"]) != int(mine):
            server.admin.client_kill_filter(_id=client["id"])


def port_of_a_cluster() -> int:
    """Return a free port that leaves room for the one of the cluster's own talk, 10,000 higher."""
    return next(port for port in iter(free_port, 0) if port < 55_536)


def begin_to_answer(server: RedisServer, answer: str) -> Awaitable[object]:
    """Make a server give this answer to everything; return what is to be awaited when it has ended to."""
    if answer == "BUSY":
        server.admin.config_set("busy-reply-threshold" if server.kind != "redis-6.2" else "lua-time-limit", "20")
        return asyncio.create_task(asyncio.to_thread(hold, server))
    if answer == "MASTERDOWN":
        server.admin.replicaof(LOOPBACK, free_port())
    return asyncio.sleep(0)


async def end_to_answer(server: RedisServer, answer: str) -> None:
    """Make all well again."""
    if answer == "BUSY":
        with redis.Redis(unix_socket_path=server.socket) as other:
            other.script_kill()
    elif answer == "MASTERDOWN":
        server.admin.replicaof("NO", "ONE")
    else:
        server.admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)


def hold(server: RedisServer) -> None:
    with pytest.raises(redis.ResponseError):
        server.admin.eval("while true do end", 0)


class TestAServerThatForgets:
    async def test_flushall_during_traffic(self, redis_server: RedisServer, open_node: OpenNode) -> None:
        """Y-flushall: no call fails, revocations hold where they are known, the next write is stored."""
        node, other = open_node(redis_server.url), open_node(redis_server.url)
        await node.hybrid.set(BLACKLIST, b"revoked", b"1", end())
        ending = asyncio.get_running_loop().time() + 0.3

        async def traffic(node: Node, worker: int) -> None:
            number = 0
            while asyncio.get_running_loop().time() < ending:
                number += 1
                key = b"%d %d" % (worker, number)
                await node.hybrid.set(TOKEN, key, b"v", end())
                assert await node.hybrid.get(TOKEN, key) is not None, "memory has it"
                await node.hybrid.get(GENERAL, key)

        running = asyncio.gather(*(traffic(node, worker) for worker, node in enumerate([node, other] * 3)))
        for _ in range(10):
            await asyncio.sleep(0.02)
            redis_server.admin.flushall()
        await running
        assert await node.hybrid.exists(BLACKLIST, b"revoked")
        assert node.hybrid.overview().errors == {}
        await node.hybrid.set(TOKEN, b"afterwards", b"v", end())
        assert await other.hybrid.get(TOKEN, b"afterwards") is not None

    async def test_a_restart_without_its_data(self, redis_server: RedisServer, open_node: OpenNode) -> None:
        """Y-restart-empty: revocations hold where they are known; what is asked for next is a miss, not an error."""
        node, other = open_node(redis_server.url), open_node(redis_server.url)
        await node.hybrid.set(BLACKLIST, b"revoked", b"1", end())
        await node.hybrid.set(TOKEN, b"k", b"v", end())
        redis_server.kill()
        await fails(node.hybrid.set(BLACKLIST, b"revoked meanwhile", b"1", end()), "link")
        redis_server.start()
        await node.recovered()
        assert await node.hybrid.exists(BLACKLIST, b"revoked")
        assert await other.hybrid.exists(BLACKLIST, b"revoked meanwhile")
        assert await other.hybrid.get(TOKEN, b"k") is None
        await node.hybrid.set(TOKEN, b"k", b"w", end())
        assert await other.hybrid.get(TOKEN, b"k") is not None

    async def test_killed_while_200_revocations_run(self, redis_server: RedisServer, open_node: OpenNode) -> None:
        """Y-kill-midwrite: what was acknowledged holds on its node, what was not was said, and is written later."""
        node, other = open_node(redis_server.url), open_node(redis_server.url)

        acknowledged, killed = 0, asyncio.Event()

        async def revoke(number: int) -> None:
            nonlocal acknowledged
            await asyncio.sleep(number / 5000)
            if number >= 150:  # some come too late, however slowly the others go
                await killed.wait()
            await node.hybrid.set(BLACKLIST, b"%d" % number, b"1", end())
            acknowledged += 1
            if acknowledged == 100:
                redis_server.kill()
                killed.set()

        results = await asyncio.gather(*(revoke(number) for number in range(200)), return_exceptions=True)
        assert {type(result) for result in results} == {type(None), BackendUnavailable}
        for number in range(200):
            assert await node.hybrid.exists(BLACKLIST, b"%d" % number)
        redis_server.start()
        await node.recovered()
        failed = [b"%d" % number for number, result in enumerate(results) if result is not None]
        assert set(await other.hybrid.get_many(BLACKLIST, failed)) == set(failed)

    async def test_the_node_is_killed_with_1000_queued_writes(
        self, redis_server: RedisServer, open_node: OpenNode
    ) -> None:
        """Y-crash-async: no revocation was ever in the queue alone; what is lost can be had again."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, redis_server.url, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout
        assert await process.stdout.readline() == b"1000\n"
        process.kill()
        assert await process.wait() == -signal.SIGKILL
        node = open_node(redis_server.url)
        assert await node.hybrid.exists(BLACKLIST, b"revoked")
        assert len(stored(redis_server)) == 1, "the test would show nothing if the queue had been written"
        for number in range(1000):
            assert await node.hybrid.get(GENERAL, b"%d" % number) is None
        await node.hybrid.set(GENERAL, b"1", b"had again", end(), wait=True)


async def die_with_a_full_queue(url: str) -> None:
    """Be the node that is killed."""
    from hybrid_kit import new_node

    node = new_node(url)
    await node.hybrid.set(BLACKLIST, b"revoked", b"1", end())
    for number in range(1000):
        await node.hybrid.set(GENERAL, b"%d" % number, b"v", end())
    sys.stdout.write(f"{node.hybrid.overview().queued}\n")
    sys.stdout.flush()
    time.sleep(PATIENCE)  # noqa: ASYNC251  the loop never gets to write


class TestClocks:
    @pytest.mark.parametrize("skew", [-120.0, 120.0])
    async def test_a_node_whose_clock_is_wrong(
        self, redis_server: RedisServer, open_node: OpenNode, skew: float
    ) -> None:
        """Y-skew: what it writes is stored, and ends everywhere when it says by each node's own clock."""
        clock = ManualClock()
        clock.jump(skew)
        wrong, right = open_node(redis_server.url, clock=clock), open_node(redis_server.url)
        expires_at = end(300)
        await wrong.hybrid.set(BLACKLIST, b"revoked", b"1", expires_at)
        await right.hybrid.set(BLACKLIST, b"revoked there", b"1", expires_at)
        for node, key in ((right, b"revoked"), (wrong, b"revoked there")):
            entry = await node.hybrid.get(BLACKLIST, key)
            assert entry is not None
            assert entry.expires_at == expires_at
        clock.jump(-skew + 299)
        assert await wrong.hybrid.exists(BLACKLIST, b"revoked"), "to its end"
        clock.jump(2)
        assert not await wrong.hybrid.exists(BLACKLIST, b"revoked")

    async def test_a_clock_that_is_set_back(self, redis_server: RedisServer, open_node: OpenNode) -> None:
        """Y-skew: by a correction; breakers and budgets go by the other clock."""
        clock = ManualClock()
        node = open_node(redis_server.url, clock=clock)
        await node.hybrid.set(TOKEN, b"k", b"v", clock.now() + 60)
        clock.jump(-120)
        entry = await node.hybrid.get(TOKEN, b"k")
        assert entry is not None
        await node.hybrid.set(TOKEN, b"k", b"w", clock.now() + 60)
        assert redis_server.admin.pttl(node.name(TOKEN, b"k")) <= 60_000
        clock.jump(240)
        assert await node.hybrid.get(TOKEN, b"k") is None


class TestNetworks:
    async def test_one_of_three_nodes_is_cut_off(self, redis_server: RedisServer, open_node: OpenNode) -> None:
        """Y-partition-one: it knows what it does not know, the others go on, and all agree soon afterwards."""
        async with AsyncExitStack() as stack:
            proxies = [await stack.enter_async_context(proxy_of(redis_server)) for _ in range(3)]
            one, two, cut_off = nodes = [open_node(proxy.url) for proxy in proxies]
            await one.hybrid.set(GENERAL, b"shared", b"old", end(), wait=True)
            for node in nodes:
                assert await node.hybrid.get(GENERAL, b"shared") is not None
            proxies[2].refuse = True
            await proxies[2].cut()
            await opened(cut_off)
            await fails(cut_off.hybrid.exists(BLACKLIST, b"absent"), "link")
            await fails(cut_off.hybrid.set(BLACKLIST, b"revoked there", b"1", end()), "link")
            await cut_off.hybrid.set(GENERAL, b"changed there", b"v", end())
            await one.hybrid.set(BLACKLIST, b"revoked here", b"1", end())
            assert await two.hybrid.exists(BLACKLIST, b"revoked here")
            assert not one.hybrid.fallback
            assert not two.hybrid.fallback
            proxies[2].refuse = False
            with within(3):
                await cut_off.recovered()
            for node in nodes:
                assert await node.hybrid.exists(BLACKLIST, b"revoked here")
                assert await node.hybrid.exists(BLACKLIST, b"revoked there")
                assert await node.hybrid.get(GENERAL, b"changed there") is None

    async def test_the_server_is_back_and_3000_callers_wait(self, open_node: OpenNode) -> None:
        """Y-reconnect-storm: a node makes three connections however many wait, and nodes come back one by one."""
        with RedisServer() as server:
            back = 0

            def tell(away: bool) -> None:
                nonlocal back
                back += not away

            nodes = [
                open_node(
                    server.url,
                    random=Random(number).random,
                    on_fallback=tell,
                )
                for number in range(3)
            ]
            server.kill()
            await asyncio.gather(*(opened(node) for node in nodes))
            connects = [node.redis.traffic().connects for node in nodes]
            answered = 0

            async def wait(node: Node, number: int) -> None:
                nonlocal answered
                while True:
                    try:
                        await node.hybrid.exists(BLACKLIST, b"%d" % number)
                    except BackendUnavailable:
                        await asyncio.sleep(0.4 + number / 5000)
                    else:
                        answered += 1
                        return

            waiting = asyncio.gather(*(wait(node, number) for node in nodes for number in range(1000)))
            await asyncio.sleep(1)
            tries = [node.redis.traffic().connects - before for node, before in zip(nodes, connects, strict=True)]
            assert max(tries) <= 40, "a second of an outage"
            due = [node.hybrid._standing.reads.due_at for node in nodes]
            assert max(due) - min(due) > 0.01
            server.start()
            await asyncio.wait_for(waiting, 4 * PATIENCE)
            assert answered == 3000
            await until(lambda: back == 3)
            await asyncio.gather(*(node.recovered() for node in nodes))
            assert server.admin.info("stats")["total_connections_received"] <= 3 * 4 + 6, "and those of the test"


class TestTLS:
    async def test_an_expired_certificate(self, redis_server: RedisServer, open_node: OpenNode, tmp_path: Path) -> None:
        """Y-tls: no connection, whatever the clocks of tests say."""
        authority = trustme.CA()
        (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        expired = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
        authority.issue_cert("localhost", not_after=expired).configure_cert(context)
        async with proxy_of(redis_server, context) as proxy:
            node = open_node(proxy.url, redis={"ca_file": str(tmp_path / "ca.pem")}, budget=2)
            assert await node.hybrid.get(TOKEN, b"k") is None
            with pytest.raises(BackendUnavailable, match="expired"):
                await node.hybrid.set(BLACKLIST, b"revoked", b"1", end())
            assert "expired" in (await node.hybrid.ping()).detail
            await node.hybrid.close()  # or a handshake of the follower outlives the proxy
        assert stored(redis_server) == []

    async def test_no_plain_text_instead(self, open_node: OpenNode) -> None:
        """Y-tls: a `rediss://` URL to a port that speaks no TLS gets a handshake and not a word more."""
        heard: list[bytes] = []

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.read(65_536))
            writer.write(b"-ERR what is this?\r\n")
            writer.close()

        server = await asyncio.start_server(listen, LOOPBACK, 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            node = open_node(f"rediss://localhost:{port}/0")
            assert await node.hybrid.get(TOKEN, b"k") is None
            await fails(node.hybrid.set(BLACKLIST, b"revoked", b"1", end()))
            await fails(node.hybrid.exists(BLACKLIST, b"absent"))
            await node.hybrid.close()  # or a handshake of the follower outlives the server
        assert {hello[:2] for hello in heard if hello} == {b"\x16\x03"}, "TLS handshakes"


if __name__ == "__main__":
    asyncio.run(die_with_a_full_queue(sys.argv[1]))
