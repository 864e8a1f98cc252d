"""What a Redis backend does when its server crashes, hangs or refuses, or when its link fails."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme

from oidc_middleware.cache import TYPES, Entry, RedisBackend
from oidc_middleware.errors import BackendUnavailable

from changes_kit import listening
from redis_kit import (
    BUDGET,
    CLOCK,
    LOOPBACK,
    TOLERANCE,
    OpenRedis,
    RedisServer,
    done,
    end,
    fails,
    free_port,
    proxy_of,
    until,
)
from time_kit import within

pytestmark = pytest.mark.anyio

TOKEN, GENERAL, BLACKLIST = TYPES["token"], TYPES["general"], TYPES["blacklist"]


def all_ended(backend: RedisBackend) -> bool:
    """Tell whether this side has learnt that the server ended every connection."""
    assert backend._session is not None
    connections = [link._connection for link in backend._session.links if link._connection is not None]
    return all(connection._reader.at_eof() for connection in connections)


def tls_context(authority: trustme.CA, host: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(host).configure_cert(context)
    return context


async def fails_for_any_reason(work: Any) -> BackendUnavailable:
    with pytest.raises(BackendUnavailable) as caught:
        await work
    assert caught.value.kind in {"link", "timeout"}
    return caught.value


def open_files() -> int:
    """Return how many files and sockets this process has open."""
    return len(list(Path("/dev/fd").iterdir()))


class TestAServerThatIsAway:
    async def test_nothing_listens(self, open_redis: OpenRedis) -> None:
        backend = open_redis(f"redis://{LOOPBACK}:{free_port()}")
        await fails(backend.get(TOKEN, b"k"), "link")
        await fails(backend.set(TOKEN, b"k", b"v", end()), "link")
        await fails(backend.delete(TOKEN, b"k"), "link")
        await fails(backend.get_many(TOKEN, [b"k", b"l"]), "link")
        await fails(backend.clear(TOKEN), "link")
        health = await backend.ping()
        assert not health.healthy
        assert "Connect" in health.detail
        assert backend.traffic().failures == {"link": 6}

    async def test_it_comes_back_with_nothing(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        """Y-restart-empty, and an idle connection that the server has closed meanwhile costs no request."""
        backend = open_redis(redis_server.url)
        await backend.set(TOKEN, b"k", b"v", end())
        await backend.get(TOKEN, b"k")
        redis_server.restart()
        await until(lambda: all_ended(backend))
        assert await backend.get(TOKEN, b"k") is None
        await backend.set(TOKEN, b"k", b"w", end())
        assert (await backend.get_many(TOKEN, [b"k"]))[b"k"].value == b"w"

    async def test_flushall(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        """Y-flushall."""
        backend = open_redis(redis_server.url)
        await backend.set(TOKEN, b"k", b"v", end())
        redis_server.admin.flushall()
        assert await backend.get(TOKEN, b"k") is None

    async def test_killed_while_200_writes_run(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        """Y-kill-midwrite: whoever was not told of a success was told of a failure; nobody hangs."""
        lost: list[tuple[str, bytes]] = []
        backend = open_redis(redis_server.url, on_lost=lambda keys, _: lost.extend(keys))
        await backend.set(BLACKLIST, b"before", b"1", end())
        acknowledged: set[bytes] = set()
        killed = asyncio.Event()

        async def revoke(n: int) -> None:
            await asyncio.sleep(n / 10_000)
            if n >= 150:  # some come too late, however slowly the others go
                await killed.wait()
            await backend.set(BLACKLIST, b"%d" % n, b"1", end())
            acknowledged.add(b"%d" % n)
            if len(acknowledged) == 100:
                redis_server.kill()
                killed.set()

        results = await asyncio.gather(*(revoke(n) for n in range(200)), return_exceptions=True)
        failed = {b"%d" % n for n, result in enumerate(results) if result is not None}
        assert {type(result) for result in results} == {type(None), BackendUnavailable}
        assert len(acknowledged) >= 100
        assert acknowledged | failed == {b"%d" % n for n in range(200)}
        assert {key for _, key in lost} == failed
        assert {kind for kind, _ in lost} == {"blacklist"}
        redis_server.start()
        await backend.set(BLACKLIST, b"after", b"1", end())

    async def test_frozen_every_call_answers_within_its_budget(
        self, redis_server: RedisServer, open_redis: OpenRedis
    ) -> None:
        """Y-stop: redis-py alone takes 59 s."""
        backend = open_redis(redis_server.url, budget=BUDGET)
        await done(lambda: backend.set(TOKEN, b"k", b"v", end()))
        redis_server.stop()

        async def request(n: int) -> None:
            await asyncio.sleep(n / 50)
            key = b"%d" % n
            calls = (
                lambda: backend.get(TOKEN, key),
                lambda: backend.set(TOKEN, key, b"v", end()),
                lambda: backend.delete(TOKEN, key),
            )
            await fails(calls[n % 3](), "timeout")

        await asyncio.gather(*(request(n) for n in range(50)))
        assert not (await backend.ping()).healthy
        redis_server.cont()
        await done(lambda: backend.set(TOKEN, b"k", b"w", end()))
        assert await backend.get(TOKEN, b"k") is not None

    async def test_50_readers_and_few_connections(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        """Y-pool: no reader is turned away because all connections are in use, also when the server hangs."""
        backend = open_redis(redis_server.url, budget=BUDGET)
        await done(lambda: backend.set_many(TOKEN, {b"%d" % n: Entry(b"v", end()) for n in range(50)}))
        entries = await asyncio.gather(*(backend.get(TOKEN, b"%d" % n) for n in range(50)))
        assert all(entries)
        redis_server.stop()
        with within(BUDGET + TOLERANCE):
            results = await asyncio.gather(*(backend.get(TOKEN, b"%d" % n) for n in range(50)), return_exceptions=True)
        assert {getattr(result, "kind", None) for result in results} == {"timeout"}
        redis_server.cont()
        await until(lambda: len(redis_server.admin.client_list()) <= 4)  # once it has noticed which ones were given up

    async def test_close_while_it_hangs(self, redis_server: RedisServer) -> None:
        backend = RedisBackend(redis_server.url, clock=CLOCK, budget=BUDGET)
        await done(lambda: backend.set(GENERAL, b"k", b"v", end(), wait=True))
        redis_server.stop()
        await backend.set(GENERAL, b"k", b"w", end())
        reading = asyncio.ensure_future(backend.get(GENERAL, b"other"))
        with within(3 * BUDGET + TOLERANCE):
            await asyncio.gather(backend.close(), backend.close())
        with pytest.raises(BackendUnavailable):
            await reading
        assert backend.traffic().writes.lost == 1
        with pytest.raises(BackendUnavailable, match="closed"):
            await backend.get(GENERAL, b"k")

    async def test_frozen_it_costs_no_connection_and_no_memory(
        self, redis_server: RedisServer, open_redis: OpenRedis
    ) -> None:
        """What a frozen server has not taken is given up with its connection, not sent later."""
        backend = open_redis(redis_server.url, budget=BUDGET)
        await done(lambda: backend.set(TOKEN, b"k", b"v", end()))
        redis_server.stop()
        before = open_files()
        await fails(backend.set(TOKEN, b"k", bytes(7_000_000), end()), "timeout")
        await until(lambda: open_files() < before)
        await fails(backend.set(TOKEN, b"k", bytes(7_000_000), end()), "timeout")
        await until(lambda: open_files() < before)


class TestAServerThatRefuses:
    async def test_no_memory(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        """Y-oom: writes fail and are told apart, reads go on."""
        backend = open_redis(redis_server.url)
        await backend.set(TOKEN, b"k", b"v", end())
        redis_server.admin.config_set("maxmemory-policy", "noeviction")
        redis_server.admin.config_set("maxmemory", "1")
        await fails(backend.set(BLACKLIST, b"k", b"1", end()), "full")
        assert await backend.get(TOKEN, b"k") is not None
        assert await backend.delete(TOKEN, b"k"), "deletes work"
        redis_server.admin.config_set("maxmemory", "0")
        await backend.set(BLACKLIST, b"k", b"1", end())

    async def test_a_replica(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        """Y-readonly: the write is reported, and the next one goes out on a new connection."""
        backend = open_redis(redis_server.url)
        await backend.set(TOKEN, b"k", b"v", end())
        redis_server.admin.replicaof(LOOPBACK, free_port())
        await fails(backend.set(BLACKLIST, b"k", b"1", end()), "readonly")
        connects = backend.traffic().connects
        redis_server.admin.replicaof("NO", "ONE")
        await backend.set(BLACKLIST, b"k", b"1", end())
        assert backend.traffic().connects == connects + 1

    async def test_the_password_is_changed(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        """Y-auth: old connections go on working, so that the fault shows when one is made anew."""
        backend = open_redis(redis_server.url)
        await backend.set(TOKEN, b"k", b"v", end())
        await backend.get(TOKEN, b"k")
        redis_server.admin.config_set("requirepass", "new")
        assert await backend.get(TOKEN, b"k") is not None
        for client in redis_server.admin.client_list(_type="normal"):
            if client["addr"] != redis_server.admin.client_info()["addr"]:
                redis_server.admin.client_kill_filter(_id=client["id"])
        await until(lambda: all_ended(backend))
        await fails(backend.get(TOKEN, b"k"), "auth")
        await fails(backend.set(BLACKLIST, b"k", b"1", end()), "auth")
        health = await backend.ping()
        assert not health.healthy
        assert "NOAUTH" in health.detail or "Authentication" in health.detail

        right = open_redis(redis_server.url.replace("//", "//:new@"))
        assert await right.get(TOKEN, b"k") is not None
        wrong = open_redis(redis_server.url.replace("//", "//:wr0ng@"))
        error = await fails(wrong.get(TOKEN, b"k"), "auth")
        assert "wr0ng" not in f"{error!r} {error} {wrong!r} {wrong.__dict__}"

    @pytest.mark.parametrize("form", ["tcp", "unix"])
    async def test_wrong_credentials_over(self, redis_server: RedisServer, open_redis: OpenRedis, form: str) -> None:
        redis_server.admin.acl_setuser("node", enabled=True, passwords=["+secret"], commands=["+@all"], keys=["oidc:*"])
        url = redis_server.url if form == "tcp" else redis_server.unix_url
        await fails(open_redis(url.replace("//", "//node:wrong@")).set(TOKEN, b"k", b"v", end()), "auth")
        await open_redis(url.replace("//", "//node:secret@")).set(TOKEN, b"k", b"v", end())

    async def test_a_user_limited_to_the_prefix(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        """The permissions that the documentation names are enough, and a key beyond the prefix is refused."""
        commands = ["mget", "getrange", "set", "del", "unlink", "scan", "ping", "info", "client|info", "client|kill"]
        commands += ["xadd", "xread", "xrange", "xrevrange"]
        redis_server.admin.execute_command(
            *("ACL", "SETUSER", "node", "reset", "on", ">secret", "~oidc:*", *(f"+{name}" for name in commands))
        )
        backend = open_redis(redis_server.url.replace("//", "//node:secret@"))
        await backend.set(TOKEN, b"k", b"v", end())
        assert await backend.get(TOKEN, b"k") is not None
        assert await backend.delete(TOKEN, b"k")
        await backend.clear(TOKEN)
        assert (await backend.ping()).healthy
        async with listening(backend.changes()) as ear:
            await open_redis(redis_server.url).delete(TOKEN, b"k")
            await ear.hears("token", b"k")
        assert backend.traffic().failures == {}
        beyond = open_redis(redis_server.url.replace("//", "//node:secret@"), prefix=b"other")
        await fails(beyond.get(TOKEN, b"k"), "auth")
        await fails(beyond.set(TOKEN, b"k", b"v", end()), "auth")

    async def test_it_loads_its_data(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        """Y-loading."""
        redis_server.kill()
        redis_server.options |= {
            "key-load-delay": "2000",
            "loading-process-events-interval-bytes": "1024",
            "rdbcompression": "no",
        }
        if redis_server.kind != "redis-6.2":
            redis_server.options |= {"enable-debug-command": "yes"}
        redis_server.start()
        admin = redis_server.admin
        with admin.pipeline() as pipe:
            for n in range(500):
                pipe.set(f"filler-{n}", bytes(100))
            pipe.execute()
        admin.save()
        backend = open_redis(redis_server.url, budget=1)
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

    async def test_a_script_holds_it(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        """Y-loading, BUSY."""
        redis_server.admin.config_set(
            "busy-reply-threshold" if redis_server.kind != "redis-6.2" else "lua-time-limit", "20"
        )
        backend = open_redis(redis_server.url)
        await backend.set(TOKEN, b"k", b"v", end())
        holding = asyncio.create_task(asyncio.to_thread(self.hold, redis_server))
        kinds: set[str] = set()
        while "busy" not in kinds and not holding.done():
            try:
                await backend.get(TOKEN, b"k")
            except BackendUnavailable as error:
                kinds.add(error.kind)
            await asyncio.sleep(0.01)
        with redis.Redis(unix_socket_path=redis_server.socket) as other:
            other.script_kill()
        await holding
        assert "busy" in kinds
        assert await backend.get(TOKEN, b"k") is not None

    @staticmethod
    def hold(redis_server: RedisServer) -> None:
        with pytest.raises(redis.ResponseError):
            redis_server.admin.eval("while true do end", 0)

    async def test_one_command_of_a_pipeline_fails(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        """Y-pipeline: its neighbours are applied and acknowledged, it alone fails."""
        redis_server.admin.execute_command(
            "ACL", "SETUSER", "node", "reset", "on", ">secret", "+@all", "~oidc:token:good*"
        )
        backend = open_redis(redis_server.url.replace("//", "//node:secret@"))
        results = await asyncio.gather(
            *(backend.set(TOKEN, key, b"v", end()) for key in (b"good1", b"bad", b"good2")), return_exceptions=True
        )
        assert [getattr(result, "kind", result) for result in results] == [None, "auth", None]
        assert backend.traffic().writes.batches == 1
        assert redis_server.admin.exists("oidc:token:good1", "oidc:token:good2", "oidc:token:bad") == 2

    async def test_too_many_clients(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        redis_server.admin.config_set("maxclients", "1")
        await fails(open_redis(redis_server.url).get(TOKEN, b"k"), "link")


class TestALinkThatFails:
    async def test_a_slow_link(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        """Y-slow: 2 s."""
        async with proxy_of(redis_server) as proxy:
            backend = open_redis(proxy.url, budget=BUDGET)
            await done(lambda: backend.set(TOKEN, b"k", b"v", end()))
            proxy.to_client = 2.0
            await fails(backend.get(TOKEN, b"k"), "timeout")
            await fails(backend.set(TOKEN, b"k", b"v", end()), "timeout")
            proxy.to_client = 0.0
            assert await backend.get(TOKEN, b"k") is not None

    async def test_a_half_open_link(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        async with proxy_of(redis_server) as proxy:
            backend = open_redis(proxy.url, budget=BUDGET)
            await done(lambda: backend.set(TOKEN, b"k", b"v", end()))
            proxy.swallow = True
            await asyncio.gather(
                fails(backend.get(TOKEN, b"k"), "timeout"), fails(backend.set(TOKEN, b"k", b"v", end()), "timeout")
            )
            proxy.swallow = False
            assert await backend.get(TOKEN, b"k") is not None

    async def test_a_link_that_is_cut_under_way(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        async with proxy_of(redis_server) as proxy:
            backend = open_redis(proxy.url)
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
        self, redis_server: RedisServer, open_redis: OpenRedis
    ) -> None:
        """A link that delays one segment: the new connection ends the old one on the server before it says a word."""
        async with proxy_of(redis_server) as proxy:
            backend = open_redis(proxy.url, budget=BUDGET)
            await done(lambda: backend.set(GENERAL, b"first", b"v", end(), wait=True))
            proxy.to_server = 0.5
            await fails(backend.set(GENERAL, b"k", b"late", end(), wait=True), "timeout")
            proxy.to_server = 0.0
            assert not await backend.delete(GENERAL, b"k")
            await asyncio.sleep(0.5)
            assert not redis_server.admin.exists("oidc:general:k")

    async def test_without_the_permission_it_may_land_late_and_ends_with_its_life(
        self, redis_server: RedisServer, open_redis: OpenRedis
    ) -> None:
        redis_server.admin.execute_command(
            "ACL", "SETUSER", "node", "reset", "on", ">secret", "~*", "+@all", "-client|kill"
        )
        lost: list[tuple[str, bytes]] = []
        async with proxy_of(redis_server) as proxy:
            backend = open_redis(
                proxy.url.replace("//", "//node:secret@"), on_lost=lambda keys, _: lost.extend(keys), budget=BUDGET
            )
            await done(lambda: backend.set(GENERAL, b"first", b"v", end(), wait=True))
            proxy.to_server = 0.4
            await fails(backend.set(GENERAL, b"k", b"late", end(1), wait=True), "timeout")
            proxy.to_server = 0.0
            assert not await backend.delete(GENERAL, b"k")
            await until(lambda: redis_server.admin.exists("oidc:general:k"))
            assert lost == [("general", b"k")], "who keeps account of it was told"
            await until(lambda: not redis_server.admin.exists("oidc:general:k"))

    async def test_tls(self, redis_server: RedisServer, open_redis: OpenRedis, tmp_path: Path) -> None:
        """Y-tls: with the authority's certificate; plain text on a TLS port and an unknown authority do not work."""
        authority = trustme.CA()
        (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
        async with proxy_of(redis_server, tls_context(authority, "localhost")) as proxy:
            backend = open_redis(proxy.url, ca_file=str(tmp_path / "ca.pem"), budget=2)
            await backend.set(TOKEN, b"k", b"v", end())
            assert await backend.get(TOKEN, b"k") is not None
            await fails_for_any_reason(open_redis(proxy.url, budget=2).get(TOKEN, b"k"))
            plain = open_redis(f"redis://{LOOPBACK}:{proxy.port}", budget=BUDGET)
            await fails_for_any_reason(plain.get(TOKEN, b"k"))
        async with proxy_of(redis_server, tls_context(authority, "elsewhere.example")) as proxy:
            error = await fails_for_any_reason(
                open_redis(proxy.url, ca_file=str(tmp_path / "ca.pem"), budget=2).get(TOKEN, b"k")
            )
            assert "localhost" in error.detail
        plain_port = open_redis(
            redis_server.url.replace("redis", "rediss"), ca_file=str(tmp_path / "ca.pem"), budget=BUDGET
        )
        await fails_for_any_reason(plain_port.get(TOKEN, b"k"))
