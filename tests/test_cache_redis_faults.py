"""What a Redis backend does when its server crashes, hangs, refuses or lies, and when its callers leave."""

from __future__ import annotations

import asyncio
import gc
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme

from oidc_middleware.cache import TYPES, Entry, RedisBackend
from oidc_middleware.clock import SystemClock
from oidc_middleware.errors import BackendUnavailable
from oidc_middleware.testing import ManualClock

from redis_kit import LOOPBACK, PATIENCE, RedisServer, free_port, proxy_of, until

pytestmark = pytest.mark.anyio

TOKEN, GENERAL, BLACKLIST = TYPES["token"], TYPES["general"], TYPES["blacklist"]
HOUR = 3600.0
BUDGET = 0.25
TOLERANCE = 0.15
"""What a machine that is busy with other tests may add to a budget."""

CLOCK = SystemClock()


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., RedisBackend]]:
    """Open backends that are closed in the end."""
    backends: list[RedisBackend] = []

    def open_(url: str, **options: Any) -> RedisBackend:
        backends.append(RedisBackend(url, **{"clock": CLOCK, "budget": BUDGET, **options}))
        return backends[-1]

    yield open_
    await asyncio.gather(*(backend.close() for backend in backends))


Opened = Callable[..., RedisBackend]


def end(seconds: float = HOUR) -> float:
    return CLOCK.now() + seconds


async def fails(work: Any, kind: str) -> BackendUnavailable:
    """Await what must fail within the budget, in this way."""
    begun = time.monotonic()
    with pytest.raises(BackendUnavailable) as caught:
        await work
    assert caught.value.kind == kind, str(caught.value)
    assert time.monotonic() - begun < BUDGET + TOLERANCE
    return caught.value


def all_ended(backend: RedisBackend) -> bool:
    """Tell whether this side has learnt that the server ended every connection."""
    assert backend._session is not None
    connections = [link._connection for link in backend._session.links if link._connection is not None]
    return all(connection._reader.at_eof() for connection in connections)


class TestAServerThatIsAway:
    async def test_nothing_listens(self, opened: Opened) -> None:
        backend = opened(f"redis://{LOOPBACK}:{free_port()}")
        await fails(backend.get(TOKEN, b"k"), "link")
        await fails(backend.set(TOKEN, b"k", b"v", end()), "link")
        await fails(backend.delete(TOKEN, b"k"), "link")
        await fails(backend.get_many(TOKEN, [b"k", b"l"]), "link")
        await fails(backend.clear(TOKEN), "link")
        health = await backend.ping()
        assert not health.healthy
        assert "Connect" in health.detail
        assert backend.traffic().failures == {"link": 6}

    async def test_it_comes_back_with_nothing(self, server: RedisServer, opened: Opened) -> None:
        """Y-restart-empty, and an idle connection that the server has closed meanwhile costs no request."""
        backend = opened(server.url)
        await backend.set(TOKEN, b"k", b"v", end())
        await backend.get(TOKEN, b"k")
        server.restart()
        await until(lambda: all_ended(backend))
        assert await backend.get(TOKEN, b"k") is None
        await backend.set(TOKEN, b"k", b"w", end())
        assert (await backend.get_many(TOKEN, [b"k"]))[b"k"].value == b"w"

    async def test_flushall(self, server: RedisServer, opened: Opened) -> None:
        """Y-flushall."""
        backend = opened(server.url)
        await backend.set(TOKEN, b"k", b"v", end())
        server.admin.flushall()
        assert await backend.get(TOKEN, b"k") is None

    async def test_killed_while_200_writes_run(self, server: RedisServer, opened: Opened) -> None:
        """Y-kill-midwrite: whoever was not told of a success was told of a failure; nobody hangs."""
        lost: list[tuple[str, bytes]] = []
        backend = opened(server.url, on_lost=lambda keys, _: lost.extend(keys))
        await backend.set(BLACKLIST, b"before", b"1", end())
        acknowledged: set[bytes] = set()

        async def revoke(n: int) -> None:
            await asyncio.sleep(n / 10_000)
            await backend.set(BLACKLIST, b"%d" % n, b"1", end())
            acknowledged.add(b"%d" % n)
            if len(acknowledged) == 100:
                server.kill()

        results = await asyncio.gather(*(revoke(n) for n in range(200)), return_exceptions=True)
        failed = {b"%d" % n for n, result in enumerate(results) if result is not None}
        assert {type(result) for result in results} == {type(None), BackendUnavailable}
        assert len(acknowledged) >= 100
        assert acknowledged | failed == {b"%d" % n for n in range(200)}
        assert {key for _, key in lost} == failed
        assert {kind for kind, _ in lost} == {"blacklist"}
        server.start()
        await backend.set(BLACKLIST, b"after", b"1", end())

    async def test_frozen_every_call_answers_within_its_budget(self, server: RedisServer, opened: Opened) -> None:
        """Y-stop: redis-py alone takes 59 s."""
        backend = opened(server.url)
        await backend.set(TOKEN, b"k", b"v", end())
        server.stop()
        waits: list[float] = []

        async def request(n: int) -> None:
            await asyncio.sleep(n / 50)
            begun = time.monotonic()
            key = b"%d" % n
            calls = (
                lambda: backend.get(TOKEN, key),
                lambda: backend.set(TOKEN, key, b"v", end()),
                lambda: backend.delete(TOKEN, key),
            )
            with pytest.raises(BackendUnavailable) as caught:
                await calls[n % 3]()
            assert caught.value.kind == "timeout"
            waits.append(time.monotonic() - begun)

        await asyncio.gather(*(request(n) for n in range(50)))
        assert max(waits) < BUDGET + TOLERANCE
        assert not (await backend.ping()).healthy
        server.cont()
        await backend.set(TOKEN, b"k", b"w", end())
        assert await backend.get(TOKEN, b"k") is not None

    async def test_50_readers_and_few_connections(self, server: RedisServer, opened: Opened) -> None:
        """Y-pool: no reader is turned away because all connections are in use, also when the server hangs."""
        backend = opened(server.url)
        await backend.set_many(TOKEN, {b"%d" % n: Entry(b"v", end()) for n in range(50)})
        entries = await asyncio.gather(*(backend.get(TOKEN, b"%d" % n) for n in range(50)))
        assert all(entries)
        server.stop()
        begun = time.monotonic()
        results = await asyncio.gather(*(backend.get(TOKEN, b"%d" % n) for n in range(50)), return_exceptions=True)
        assert {getattr(result, "kind", None) for result in results} == {"timeout"}
        assert time.monotonic() - begun < BUDGET + TOLERANCE
        server.cont()
        assert len(server.admin.client_list()) <= 4

    async def test_close_while_it_hangs(self, server: RedisServer) -> None:
        backend = RedisBackend(server.url, clock=CLOCK, budget=BUDGET)
        await backend.set(GENERAL, b"k", b"v", end(), wait=True)
        server.stop()
        await backend.set(GENERAL, b"k", b"w", end())
        reading = asyncio.ensure_future(backend.get(GENERAL, b"other"))
        begun = time.monotonic()
        await asyncio.gather(backend.close(), backend.close())
        assert time.monotonic() - begun < 3 * BUDGET + TOLERANCE
        with pytest.raises(BackendUnavailable):
            await reading
        assert backend.traffic().writes.lost == 1
        with pytest.raises(BackendUnavailable, match="closed"):
            await backend.get(GENERAL, b"k")


class TestAServerThatRefuses:
    async def test_no_memory(self, server: RedisServer, opened: Opened) -> None:
        """Y-oom: writes fail and are told apart, reads go on."""
        backend = opened(server.url)
        await backend.set(TOKEN, b"k", b"v", end())
        server.admin.config_set("maxmemory-policy", "noeviction")
        server.admin.config_set("maxmemory", "1")
        await fails(backend.set(BLACKLIST, b"k", b"1", end()), "full")
        assert await backend.get(TOKEN, b"k") is not None
        assert await backend.delete(TOKEN, b"k"), "deletes work"
        server.admin.config_set("maxmemory", "0")
        await backend.set(BLACKLIST, b"k", b"1", end())

    async def test_a_replica(self, server: RedisServer, opened: Opened) -> None:
        """Y-readonly: the write is reported, and the next one goes out on a new connection."""
        backend = opened(server.url)
        await backend.set(TOKEN, b"k", b"v", end())
        server.admin.replicaof(LOOPBACK, free_port())
        await fails(backend.set(BLACKLIST, b"k", b"1", end()), "readonly")
        connects = backend.traffic().connects
        server.admin.replicaof("NO", "ONE")
        await backend.set(BLACKLIST, b"k", b"1", end())
        assert backend.traffic().connects == connects + 1

    async def test_the_password_is_changed(self, server: RedisServer, opened: Opened) -> None:
        """Y-auth: old connections go on working, so that the fault shows when one is made anew."""
        backend = opened(server.url)
        await backend.set(TOKEN, b"k", b"v", end())
        await backend.get(TOKEN, b"k")
        server.admin.config_set("requirepass", "new")
        assert await backend.get(TOKEN, b"k") is not None
        for client in server.admin.client_list(_type="normal"):
            if client["addr"] != server.admin.client_info()["addr"]:
                server.admin.client_kill_filter(_id=client["id"])
        await until(lambda: all_ended(backend))
        await fails(backend.get(TOKEN, b"k"), "auth")
        await fails(backend.set(BLACKLIST, b"k", b"1", end()), "auth")
        health = await backend.ping()
        assert not health.healthy
        assert "NOAUTH" in health.detail or "Authentication" in health.detail

        right = opened(server.url.replace("//", "//:new@"))
        assert await right.get(TOKEN, b"k") is not None
        wrong = opened(server.url.replace("//", "//:wr0ng@"))
        error = await fails(wrong.get(TOKEN, b"k"), "auth")
        assert "wr0ng" not in f"{error!r} {error} {wrong!r} {wrong.__dict__}"

    @pytest.mark.parametrize("form", ["tcp", "unix"])
    async def test_wrong_credentials_over(self, server: RedisServer, opened: Opened, form: str) -> None:
        server.admin.acl_setuser("node", enabled=True, passwords=["+secret"], commands=["+@all"], keys=["oidc:*"])
        url = server.url if form == "tcp" else server.unix_url
        await fails(opened(url.replace("//", "//node:wrong@")).set(TOKEN, b"k", b"v", end()), "auth")
        await opened(url.replace("//", "//node:secret@")).set(TOKEN, b"k", b"v", end())

    async def test_a_user_limited_to_the_prefix(self, server: RedisServer, opened: Opened) -> None:
        """The permissions that the documentation names are enough, and a key beyond the prefix is refused."""
        commands = ["mget", "getrange", "set", "del", "unlink", "scan", "ping", "client|info", "client|kill"]
        server.admin.execute_command(
            *("ACL", "SETUSER", "node", "reset", "on", ">secret", "~oidc:*", *(f"+{name}" for name in commands))
        )
        backend = opened(server.url.replace("//", "//node:secret@"))
        await backend.set(TOKEN, b"k", b"v", end())
        assert await backend.get(TOKEN, b"k") is not None
        assert await backend.delete(TOKEN, b"k")
        await backend.clear(TOKEN)
        assert (await backend.ping()).healthy
        beyond = opened(server.url.replace("//", "//node:secret@"), prefix=b"other")
        await fails(beyond.get(TOKEN, b"k"), "auth")
        await fails(beyond.set(TOKEN, b"k", b"v", end()), "auth")

    async def test_it_loads_its_data(self, server: RedisServer, opened: Opened) -> None:
        """Y-loading."""
        server.kill()
        server.options |= {
            "key-load-delay": "2000",
            "loading-process-events-interval-bytes": "1024",
            "rdbcompression": "no",
        }
        if server.kind != "redis-6.2":
            server.options |= {"enable-debug-command": "yes"}
        server.start()
        admin = server.admin
        with admin.pipeline() as pipe:
            for n in range(500):
                pipe.set(f"filler-{n}", bytes(100))
            pipe.execute()
        admin.save()
        backend = opened(server.url, budget=1)
        reloading = asyncio.create_task(asyncio.to_thread(admin.execute_command, "DEBUG", "RELOAD", "NOSAVE"))
        kinds = set()
        while not reloading.done():
            try:
                await backend.set(TOKEN, b"k", b"v", end())
            except BackendUnavailable as error:
                kinds.add(error.kind)
            await asyncio.sleep(0.01)
        await reloading
        assert "busy" in kinds
        assert kinds <= {"busy", "timeout"}
        await backend.set(TOKEN, b"k", b"v", end())

    async def test_a_script_holds_it(self, server: RedisServer, opened: Opened) -> None:
        """Y-loading, BUSY."""
        server.admin.config_set("busy-reply-threshold" if server.kind != "redis-6.2" else "lua-time-limit", "20")
        backend = opened(server.url)
        await backend.set(TOKEN, b"k", b"v", end())
        holding = asyncio.create_task(asyncio.to_thread(self.hold, server))
        kinds: set[str] = set()
        while "busy" not in kinds and not holding.done():
            try:
                await backend.get(TOKEN, b"k")
            except BackendUnavailable as error:
                kinds.add(error.kind)
            await asyncio.sleep(0.01)
        with redis.Redis(unix_socket_path=server.socket) as other:
            other.script_kill()
        await holding
        assert "busy" in kinds
        assert await backend.get(TOKEN, b"k") is not None

    @staticmethod
    def hold(server: RedisServer) -> None:
        with pytest.raises(redis.ResponseError):
            server.admin.eval("while true do end", 0)

    async def test_one_command_of_a_pipeline_fails(self, server: RedisServer, opened: Opened) -> None:
        """Y-pipeline: its neighbours are applied and acknowledged, it alone fails."""
        server.admin.execute_command("ACL", "SETUSER", "node", "reset", "on", ">secret", "+@all", "~oidc:token:good*")
        backend = opened(server.url.replace("//", "//node:secret@"))
        results = await asyncio.gather(
            *(backend.set(TOKEN, key, b"v", end()) for key in (b"good1", b"bad", b"good2")), return_exceptions=True
        )
        assert [getattr(result, "kind", result) for result in results] == [None, "auth", None]
        assert backend.traffic().writes.batches == 1
        assert server.admin.exists("oidc:token:good1", "oidc:token:good2", "oidc:token:bad") == 2

    async def test_too_many_clients(self, server: RedisServer, opened: Opened) -> None:
        server.admin.config_set("maxclients", "1")
        await fails(opened(server.url).get(TOKEN, b"k"), "link")


class TestWhatLiesInRedis:
    @pytest.mark.parametrize(
        "make",
        [
            pytest.param(lambda r, key: r.rpush(key, "v"), id="Y-wrong-type-list"),
            pytest.param(lambda r, key: r.hset(key, "f", "v"), id="Y-wrong-type-hash"),
            pytest.param(lambda r, key: r.xadd(key, {"f": "v"}), id="Y-wrong-type-stream"),
        ],
    )
    async def test_another_type_is_a_miss(self, server: RedisServer, opened: Opened, make: Any) -> None:
        """Y-wrong-type."""
        backend = opened(server.url)
        make(server.admin, "oidc:token:k")
        assert await backend.get(TOKEN, b"k") is None
        assert not await backend.exists(TOKEN, b"k")
        assert backend.stats()["token"].misses == 1
        assert not await backend.delete(TOKEN, b"k")
        assert not server.admin.exists("oidc:token:k")
        make(server.admin, "oidc:token:k")
        await backend.set(TOKEN, b"k", b"v", end())
        assert await backend.get(TOKEN, b"k") is not None

    @pytest.mark.parametrize(
        "stored",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"\x01", id="short"),
            pytest.param(b"cos\nsystem\n(S'true'\ntR.", id="C-serial-pickle"),
            pytest.param(b'{"sub": "admin"}' * 9, id="C-serial-json"),
            pytest.param(b"\x02" + bytes(8) + b"v", id="C-keyspace-other-version"),
            pytest.param(b"\x01\x7f\xf8" + bytes(6) + b"v", id="C-serial-nan"),
            pytest.param(b"\x01\x7f\xf0" + bytes(6) + b"v", id="C-serial-endless"),
            pytest.param(bytes(10_000_000), id="C-serial-large"),
        ],
    )
    async def test_what_we_did_not_write_is_a_miss_and_counted(
        self, server: RedisServer, opened: Opened, stored: bytes
    ) -> None:
        backend = opened(server.url, budget=PATIENCE)
        server.admin.set("oidc:token:k", stored)
        assert await backend.get(TOKEN, b"k") is None
        assert await backend.get_many(TOKEN, [b"k"]) == {}
        assert not await backend.exists(TOKEN, b"k")
        counts = backend.stats()["token"]
        assert (counts.hits, counts.misses, counts.refused) == (0, 2, 2)

    async def test_a_large_value_is_refused_here(self, server: RedisServer, opened: Opened) -> None:
        """Y-big-value: it is not sent, and the value that it should have replaced is gone."""
        backend = opened(server.url, max_value_bytes=1_000_000)
        await backend.set(TOKEN, b"k", b"v", end())
        before = server.admin.info()["total_net_input_bytes"]
        await backend.set(TOKEN, b"k", bytes(2_000_000), end())
        assert server.admin.info()["total_net_input_bytes"] - before < 10_000
        assert await backend.get(TOKEN, b"k") is None
        assert backend.stats()["token"].refused == 1

    async def test_two_prefixes_share_one_database(self, server: RedisServer, opened: Opened) -> None:
        """C-keyspace."""
        one, other = opened(server.url, prefix=b"one"), opened(server.url, prefix=b"other")
        await one.set(TOKEN, b"k", b"1", end())
        assert await other.get(TOKEN, b"k") is None
        await other.set(TOKEN, b"k", b"2", end())
        await one.clear(TOKEN)
        assert await one.get(TOKEN, b"k") is None
        assert await other.get(TOKEN, b"k") is not None

    async def test_clear_leaves_what_looks_like_a_pattern(self, server: RedisServer, opened: Opened) -> None:
        """C-jti-glob: a prefix is never a pattern."""
        starry = opened(server.url, prefix=b"*")
        server.admin.set("oidc:token:k", b"v")
        await starry.set(TOKEN, b"k", b"v", end())
        await starry.clear(TOKEN)
        assert server.admin.keys("*") == [b"oidc:token:k"]

    async def test_clear_of_5000_keys(self, server: RedisServer, opened: Opened) -> None:
        backend = opened(server.url, budget=PATIENCE)
        await backend.set_many(TOKEN, {b"%d" % n: Entry(b"v", end()) for n in range(900)})
        server.admin.mset({f"oidc:token:more-{n}": b"v" for n in range(4100)})
        await backend.clear(TOKEN)
        assert server.admin.dbsize() == 0

    async def test_databases(self, server: RedisServer, opened: Opened) -> None:
        one, other = opened(server.url), opened(server.url[:-1] + "1")
        await one.set(TOKEN, b"k", b"v", end())
        assert await other.get(TOKEN, b"k") is None
        assert await opened(server.unix_url + "?db=0").get(TOKEN, b"k") is not None


class TestTime:
    @pytest.mark.parametrize("skew", [-120.0, 120.0])
    async def test_a_node_with_a_wrong_clock(self, server: RedisServer, opened: Opened, skew: float) -> None:
        """Y-skew: what it writes is there, and ends for everybody when it should."""
        wrong = ManualClock()
        wrong.jump(skew)
        node, other = opened(server.url, clock=wrong), opened(server.url)
        await node.set(BLACKLIST, b"k", b"1", end(300))
        found = await other.get(BLACKLIST, b"k")
        assert found is not None
        assert found.remaining(CLOCK.now()) == pytest.approx(300, abs=5)
        assert server.admin.pttl("oidc:blacklist:k") == pytest.approx((300 - skew) * 1000, abs=5000)

    async def test_time_in_the_queue_does_not_lengthen_a_life(self, server: RedisServer, opened: Opened) -> None:
        """Seed 11: the life that Redis is told is computed when the write leaves."""
        clock = ManualClock()
        backend = opened(server.url, clock=clock, budget=PATIENCE)
        await backend.set(GENERAL, b"first", b"v", clock.now() + 300, wait=True)
        server.stop()
        on_wire = asyncio.ensure_future(backend.set(GENERAL, b"on wire", b"v", clock.now() + 300, wait=True))
        await until(lambda: backend.traffic().writes.batches == 2)
        late = asyncio.ensure_future(backend.set(GENERAL, b"late", b"v", clock.now() + 300, wait=True))
        ends = asyncio.ensure_future(backend.set(GENERAL, b"ends", b"v", clock.now() + 50, wait=True))
        await asyncio.sleep(0)
        clock.advance(100)
        server.cont()
        await asyncio.gather(on_wire, late, ends)
        assert server.admin.pttl("oidc:general:late") == pytest.approx(200_000, abs=5000)
        assert not server.admin.exists("oidc:general:ends")

    @pytest.mark.parametrize("expires_at", [1e300, 2.0**63, 1e13])
    async def test_an_end_beyond_what_redis_can_count(
        self, server: RedisServer, opened: Opened, expires_at: float
    ) -> None:
        """C-bl-expired: no PX error, and the end comes back as it was."""
        backend = opened(server.url)
        await backend.set(TOKEN, b"k", b"v", expires_at)
        assert await backend.get(TOKEN, b"k") == Entry(b"v", expires_at)

    async def test_redis_forgets_by_itself(self, server: RedisServer, opened: Opened) -> None:
        backend = opened(server.url)
        await backend.set(TOKEN, b"k", b"v", end(0.05))
        await until(lambda: not server.admin.exists("oidc:token:k"))


class TestALinkThatFails:
    async def test_a_slow_link(self, server: RedisServer, opened: Opened) -> None:
        """Y-slow: 2 s."""
        async with proxy_of(server) as proxy:
            backend = opened(proxy.url)
            await backend.set(TOKEN, b"k", b"v", end())
            proxy.to_client = 2.0
            await fails(backend.get(TOKEN, b"k"), "timeout")
            await fails(backend.set(TOKEN, b"k", b"v", end()), "timeout")
            proxy.to_client = 0.0
            assert await backend.get(TOKEN, b"k") is not None

    async def test_a_half_open_link(self, server: RedisServer, opened: Opened) -> None:
        async with proxy_of(server) as proxy:
            backend = opened(proxy.url)
            await backend.set(TOKEN, b"k", b"v", end())
            proxy.swallow = True
            await asyncio.gather(
                fails(backend.get(TOKEN, b"k"), "timeout"), fails(backend.set(TOKEN, b"k", b"v", end()), "timeout")
            )
            proxy.swallow = False
            assert await backend.get(TOKEN, b"k") is not None

    async def test_a_link_that_is_cut_under_way(self, server: RedisServer, opened: Opened) -> None:
        async with proxy_of(server) as proxy:
            backend = opened(proxy.url)
            await backend.set(TOKEN, b"k", b"v", end())
            await backend.get(TOKEN, b"k")
            proxy.to_client = 0.1
            reading = asyncio.ensure_future(backend.get(TOKEN, b"k"))
            writing = asyncio.ensure_future(backend.set(TOKEN, b"k", b"v", end()))
            await until(lambda: backend.traffic().writes.batches == 2)
            await asyncio.sleep(0.02)
            await proxy.cut()
            await fails(reading, "link")
            await fails(writing, "link")
            proxy.to_client = 0.0
            assert await backend.get(TOKEN, b"k") is not None

    async def test_a_set_that_timed_out_does_not_land_after_a_later_delete(
        self, server: RedisServer, opened: Opened
    ) -> None:
        """A link that delays one segment: the new connection ends the old one on the server before it says a word."""
        async with proxy_of(server) as proxy:
            backend = opened(proxy.url)
            await backend.set(GENERAL, b"first", b"v", end(), wait=True)
            proxy.to_server = 0.5
            await fails(backend.set(GENERAL, b"k", b"late", end(), wait=True), "timeout")
            proxy.to_server = 0.0
            assert not await backend.delete(GENERAL, b"k")
            await asyncio.sleep(0.5)
            assert not server.admin.exists("oidc:general:k")

    async def test_without_the_permission_it_may_land_late_and_ends_with_its_life(
        self, server: RedisServer, opened: Opened
    ) -> None:
        server.admin.execute_command("ACL", "SETUSER", "node", "reset", "on", ">secret", "~*", "+@all", "-client|kill")
        lost: list[tuple[str, bytes]] = []
        async with proxy_of(server) as proxy:
            backend = opened(proxy.url.replace("//", "//node:secret@"), on_lost=lambda keys, _: lost.extend(keys))
            await backend.set(GENERAL, b"first", b"v", end(), wait=True)
            proxy.to_server = 0.4
            await fails(backend.set(GENERAL, b"k", b"late", end(1), wait=True), "timeout")
            proxy.to_server = 0.0
            assert not await backend.delete(GENERAL, b"k")
            await until(lambda: server.admin.exists("oidc:general:k"))
            assert lost == [("general", b"k")], "who keeps account of it was told"
            await until(lambda: not server.admin.exists("oidc:general:k"))

    async def test_tls(self, server: RedisServer, opened: Opened, tmp_path: Path) -> None:
        """Y-tls: with the authority's certificate; plain text on a TLS port and an unknown authority do not work."""
        authority = trustme.CA()
        (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
        async with proxy_of(server, tls_context(authority, "localhost")) as proxy:
            backend = opened(proxy.url, ca_file=str(tmp_path / "ca.pem"), budget=2)
            await backend.set(TOKEN, b"k", b"v", end())
            assert await backend.get(TOKEN, b"k") is not None
            await fails_for_any_reason(opened(proxy.url, budget=2).get(TOKEN, b"k"))
            plain = opened(f"redis://{LOOPBACK}:{proxy.port}")
            await fails_for_any_reason(plain.get(TOKEN, b"k"))
        async with proxy_of(server, tls_context(authority, "elsewhere.example")) as proxy:
            error = await fails_for_any_reason(
                opened(proxy.url, ca_file=str(tmp_path / "ca.pem"), budget=2).get(TOKEN, b"k")
            )
            assert "localhost" in error.detail
        plain_port = opened(server.url.replace("redis", "rediss"), ca_file=str(tmp_path / "ca.pem"))
        await fails_for_any_reason(plain_port.get(TOKEN, b"k"))


def tls_context(authority: trustme.CA, host: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(host).configure_cert(context)
    return context


async def fails_for_any_reason(work: Any) -> BackendUnavailable:
    with pytest.raises(BackendUnavailable) as caught:
        await work
    assert caught.value.kind in {"link", "timeout"}
    return caught.value


class TestCallersThatLeave:
    async def test_the_next_reader_gets_its_own_answer(self, server: RedisServer, opened: Opened) -> None:
        """Y-cancel-dirty, and seed 1: a cancelled request harms nobody."""
        async with proxy_of(server) as proxy:
            backend = opened(proxy.url, budget=PATIENCE)
            await backend.set_many(TOKEN, {b"%d" % n: Entry(b"value %d" % n, end()) for n in range(100)})
            connects = backend.traffic().connects + 1
            proxy.to_client = 0.002
            for n in range(100):
                leaving = asyncio.ensure_future(backend.get(TOKEN, b"%d" % n))
                await asyncio.sleep(0.001 * (n % 5))
                leaving.cancel()
                found = await backend.get(TOKEN, b"%d" % ((n + 1) % 100))
                assert found is not None
                assert found.value == b"value %d" % ((n + 1) % 100)
            assert backend.traffic().connects == connects
            assert backend.traffic().failures == {}

    async def test_a_write_goes_on_without_its_caller(self, server: RedisServer, opened: Opened) -> None:
        """Seed 2."""
        backend = opened(server.url)
        leaving = asyncio.ensure_future(backend.set(TOKEN, b"k", b"v", end()))
        await asyncio.sleep(0)
        leaving.cancel()
        await until(lambda: server.admin.exists("oidc:token:k"))
        assert backend.traffic().failures == {}

    async def test_a_cancelled_ping_costs_one_connection(self, server: RedisServer, opened: Opened) -> None:
        backend = opened(server.url)
        server.stop()
        leaving = asyncio.ensure_future(backend.ping())
        await asyncio.sleep(0.05)
        leaving.cancel()
        server.cont()
        assert (await backend.ping()).healthy


class TestItsOwnQueue:
    async def test_a_queued_write_is_read_here_at_once(self, server: RedisServer, opened: Opened) -> None:
        backend = opened(server.url)
        await backend.set(GENERAL, b"k", b"v", end(), wait=True)
        server.stop()
        await backend.set(GENERAL, b"k", b"w", end())
        found = await backend.get(GENERAL, b"k")
        assert found is not None
        assert found.value == b"w"
        assert list(await backend.get_many(GENERAL, [b"k"])) == [b"k"]
        assert await backend.exists(GENERAL, b"k")
        deleting = asyncio.ensure_future(backend.delete(GENERAL, b"k"))
        await asyncio.sleep(0)
        assert await backend.get(GENERAL, b"k") is None
        server.cont()
        assert await deleting
        assert await backend.get(GENERAL, b"k") is None

    async def test_100_001_queued_writes_while_it_hangs(self, server: RedisServer, opened: Opened) -> None:
        """Y-queue-overflow: memory is bounded; the oldest go first, and what they should have replaced goes too."""
        backend = opened(server.url, queue_size=1000, queue_bytes=2_000_000)
        await backend.set(GENERAL, b"0", b"outdated", end(), wait=True)
        server.stop()
        refused = 0
        for n in range(100_001):
            try:
                await backend.set(GENERAL, b"%d" % n, b"new", end())
            except BackendUnavailable as error:
                assert error.kind == "local"
                refused += 1
            if n % 10_000 == 0:
                assert backend.traffic().queued_bytes <= 2_000_000
        writes = backend.traffic().writes
        assert refused == writes.refused > 0
        assert writes.dropped > 0
        server.cont()
        await until(lambda: backend.traffic().queued == 0)
        assert server.admin.get("oidc:general:0") is None

    async def test_queued_writes_are_written_by_close(self, server: RedisServer, opened: Opened) -> None:
        backend = opened(server.url)
        for n in range(900):
            await backend.set(GENERAL, b"%d" % n, b"v", end())
        await backend.close()
        assert server.admin.dbsize() == 900


class TestLoops:
    def test_a_loop_that_is_closed_is_left_behind(self, server: RedisServer, recwarn: pytest.WarningsRecorder) -> None:
        lost: list[tuple[str, bytes]] = []
        backend = RedisBackend(server.url, clock=CLOCK, budget=PATIENCE, on_lost=lambda keys, _: lost.extend(keys))

        async def request(key: bytes) -> None:
            await backend.set(TOKEN, key, b"v", end())
            assert await backend.get(TOKEN, key) is not None

        for n in range(3):
            asyncio.run(request(b"%d" % n))
        asyncio.run(backend.set(GENERAL, b"queued", b"v", end()))
        asyncio.run(request(b"last"))
        assert lost == [("general", b"queued")]
        asyncio.run(backend.close())
        gc.collect()
        assert [str(warning.message) for warning in recwarn] == []
        assert until_alone(server)

    async def test_two_loops_at_once_are_an_error(self, server: RedisServer, opened: Opened) -> None:
        backend = opened(server.url)
        await backend.set(TOKEN, b"k", b"v", end())
        with pytest.raises(RuntimeError, match="two event loops"):
            await asyncio.to_thread(lambda: asyncio.run(backend.get(TOKEN, b"k")))


def until_alone(server: RedisServer) -> bool:
    """Tell whether all connections but our own end."""
    deadline = time.monotonic() + PATIENCE
    while len(server.admin.client_list()) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(server.admin.client_list()) == 1


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://localhost", "scheme 'http'"),
        ("localhost:6379", "scheme 'localhost'"),
        ("", "scheme ''"),
        ("redis://", "needs a host"),
        ("redis://localhost/one", "nothing but the number"),
        ("redis://localhost:0", "needs a host"),
        ("redis://localhost:port", "Port"),
        ("redis://localhost?socket_timeout=99", "option 'socket_timeout'"),
        ("rediss://localhost?ssl_cert_reqs=none", "option 'ssl_cert_reqs'"),
        ("unix://", "path of a socket"),
    ],
)
def test_a_url_that_cannot_work_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        RedisBackend(url, clock=CLOCK)
