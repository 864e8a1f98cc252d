"""What Redis tells of the changes of others, and what happens when it loses that, or itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware.cache import TYPES, Change, Entry, RedisBackend
from oidc_middleware.cache.changes import EVERYTHING
from oidc_middleware.cache.redis.notices import KEPT, Notices, notice, read
from oidc_middleware.errors import BackendUnavailable

from changes_kit import listening
from redis_kit import BUDGET, CLOCK, HOUR, PATIENCE, OpenRedis, RedisServer, end, programs, proxy_of, until
from time_kit import within

pytestmark = pytest.mark.anyio

GENERAL, TOKEN, SESSION, BLACKLIST = TYPES["general"], TYPES["token"], TYPES["session"], TYPES["blacklist"]
LOG = "oidc:{log}:changes"
SOON = 1.0


@pytest.fixture(params=list(programs()))
def any_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(request.param) as server:
        yield server


async def replicate(primary: RedisServer, replica: RedisServer, port: int) -> None:
    """Make a server the replica of another one, which it reaches at this port."""
    primary.admin.config_set("repl-diskless-sync-delay", 0)
    replica.admin.replicaof("127.0.0.1", port)
    await until_true(lambda: replica.admin.info("replication")["master_link_status"] == "up")


async def until_true(condition: Callable[[], bool]) -> None:
    """Wait for a state of a server, which takes a while to ask for and is reached through this process."""
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110  there is no event to wait for
            await asyncio.sleep(0.02)


def clients(server: RedisServer, command: str) -> list[Any]:
    """Return the connections whose last command was this one."""
    return [client for client in server.admin.client_list() if client["cmd"].startswith(command)]


class TestWhatIsTold:
    async def test_changes_of_others_come_at_once_and_own_ones_do_not(
        self, any_server: RedisServer, open_redis: OpenRedis
    ) -> None:
        here, there = open_redis(any_server.url), open_redis(any_server.url)
        async with listening(here.changes()) as ear:
            await here.set(GENERAL, b"mine", b"v", end(), wait=True)
            await here.delete(GENERAL, b"mine")
            with within(SOON):
                await there.set(GENERAL, b"k", b"v", end(), wait=True)
                await ear.hears("general", b"k")
                await there.delete(TOKEN, b"t")
                await ear.hears("token", b"t")
                await there.set(BLACKLIST, b"b", b"1", end())
                await ear.hears("blacklist", b"b")
                assert await there.add(SESSION, b"s", b"1", end())
                await ear.hears("session", b"s")
                await there.clear(SESSION)
                await ear.hears("session")
            assert ear.heard == []

    async def test_what_a_revocation_drops_is_told_when_it_is_deleted_only(
        self, redis_server: RedisServer, open_redis: OpenRedis
    ) -> None:
        here, there = open_redis(redis_server.url), open_redis(redis_server.url)
        async with listening(here.changes()) as ear:
            for kind in (TOKEN, TYPES["introspection"]):
                await there.set(kind, b"k", b"v", end(), wait=True)
                await there.set(kind, b"k", b"w", end(), wait=True)
                await there.add(kind, b"l", b"w", end())
            await there.set(TOKEN, b"expired", b"v", end(-1))
            await ear.hears("token", b"expired")
            await there.delete(GENERAL, b"last")
            await ear.hears("general", b"last")
            assert ear.heard == []

    async def test_a_batch_is_one_entry_that_follows_its_writes(
        self, redis_server: RedisServer, open_redis: OpenRedis
    ) -> None:
        there = open_redis(redis_server.url)
        await there.set_many(GENERAL, {b"%d" % n: Entry(b"v", end()) for n in range(100)}, wait=True)
        assert redis_server.admin.xlen(LOG) == 1
        async with listening(open_redis(redis_server.url).changes()) as ear:
            await there.set_many(GENERAL, {b"%d" % n: Entry(b"w", end()) for n in range(100)}, wait=True)
            await ear.hears("general", *(b"%d" % n for n in range(100)))

    async def test_too_many_names_are_told_as_the_type(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        here, there = open_redis(redis_server.url), open_redis(redis_server.url)
        async with listening(here.changes()) as ear:
            entries = {b"%d" % n * 100: Entry(b"v", end()) for n in range(200)}
            await there.set_many(GENERAL, entries, wait=True)
            await ear.hears("general")

    async def test_whoever_reads_after_a_change_finds_what_it_was_changed_to(
        self, redis_server: RedisServer, open_redis: OpenRedis
    ) -> None:
        here, there = open_redis(redis_server.url), open_redis(redis_server.url)
        seen: list[tuple[int, int]] = []

        async def follow() -> None:
            async for change in here.changes():
                if change != EVERYTHING:
                    entry = await here.get(GENERAL, b"k")
                    assert entry is not None
                    seen.append((len(seen), int(entry.value)))

        task = asyncio.create_task(follow())
        await until(lambda: here.staleness() is not None)
        for n in range(200):
            await there.set(GENERAL, b"k", b"%d" % n, end(), wait=True)
        await until(lambda: len(seen) == 200)
        task.cancel()
        assert all(value >= number for number, value in seen)

    async def test_the_stream_is_bounded(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        there = open_redis(redis_server.url)
        with redis_server.admin.pipeline(transaction=False) as pipe:
            for _ in range(KEPT * 2):
                pipe.xadd(LOG, {"s": b"x", "k": b"\x80"})
            pipe.execute()
        await there.delete(GENERAL, b"k")
        assert redis_server.admin.xlen(LOG) < KEPT * 1.1

    async def test_prefixes_have_nothing_in_common(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        here = open_redis(redis_server.url)
        async with listening(here.changes()) as ear:
            await open_redis(redis_server.url, prefix=b"other").delete(GENERAL, b"k")
            await open_redis(redis_server.url).delete(GENERAL, b"l")
            await ear.hears("general", b"l")
            assert ear.heard == []


class TestThePlaceInTheStream:
    @pytest.fixture
    def redis_server(self, any_server: RedisServer) -> RedisServer:
        """Every kind of server must lose the entry that was read last, or keep all after it."""
        return any_server

    @pytest.fixture
    def here(self, redis_server: RedisServer, open_redis: OpenRedis) -> RedisBackend:
        return open_redis(redis_server.url)

    @pytest.fixture
    def there(self, redis_server: RedisServer, open_redis: OpenRedis) -> RedisBackend:
        return open_redis(redis_server.url)

    @pytest.mark.parametrize(
        "lose",
        [
            lambda admin: admin.flushall(),
            lambda admin: admin.delete(LOG),
            lambda admin: admin.unlink(LOG),
            lambda admin: admin.xtrim(LOG, maxlen=0),
            lambda admin: admin.rename(LOG, "elsewhere"),
        ],
        ids=["flush", "delete", "unlink", "trim", "rename"],
    )
    async def test_a_stream_that_lost_its_entries(
        self, redis_server: RedisServer, here: RedisBackend, there: RedisBackend, lose: Any
    ) -> None:
        async with listening(here.changes()) as ear:
            await there.delete(GENERAL, b"before")
            await ear.hears("general", b"before")
            lose(redis_server.admin)
            await ear.loses_track()
            await there.delete(GENERAL, b"after")
            await ear.hears("general", b"after")
            assert ear.heard == []

    @pytest.mark.parametrize("number", ["1-1", "9999999999999-1"], ids=["lower", "higher"])
    async def test_a_new_stream_whose_numbers_begin_elsewhere(
        self, redis_server: RedisServer, here: RedisBackend, there: RedisBackend, number: str
    ) -> None:
        async with listening(here.changes()) as ear:
            with redis_server.admin.pipeline(transaction=True) as pipe:
                pipe.delete(LOG)
                pipe.xadd(LOG, {"s": b"x", "k": b"\x80"}, id=number)
                pipe.execute()
            await ear.loses_track()
            await there.delete(GENERAL, b"after")
            await ear.hears("general", b"after")

    async def test_the_same_number_with_another_content(
        self, redis_server: RedisServer, here: RedisBackend, there: RedisBackend
    ) -> None:
        """A primary that lost its tail may give out a number again, in the same millisecond."""
        async with listening(here.changes()) as ear:
            await there.delete(GENERAL, b"k")
            await ear.hears("general", b"k")
            ((number, _),) = redis_server.admin.xrevrange(LOG, count=1)
            with redis_server.admin.pipeline(transaction=True) as pipe:
                pipe.delete(LOG)
                pipe.xadd(LOG, {"s": b"x", "k": b"\x80"}, id=number)
                pipe.execute()
            await ear.loses_track()

    async def test_a_reader_that_is_far_behind(
        self, redis_server: RedisServer, here: RedisBackend, there: RedisBackend
    ) -> None:
        """He reads what there is, in order, where all of it is still there, and else hears that it is not."""
        changes = here.changes()
        assert await anext(changes) == EVERYTHING
        for n in range(1000):
            await there.delete(GENERAL, b"%d" % n)
        for n in range(1000):
            assert await anext(changes) == Change("general", frozenset({b"%d" % n}))
        await there.delete(GENERAL, b"lost")
        redis_server.admin.xtrim(LOG, maxlen=0)
        assert await anext(changes) == EVERYTHING
        await changes.aclose()


class TestThePlaceOnAnotherServer:
    async def test_a_stream_that_is_evicted(self, open_redis: OpenRedis) -> None:
        with RedisServer(options={"maxmemory": "8mb", "maxmemory-policy": "allkeys-random"}) as server:
            here, there = open_redis(server.url), open_redis(server.url)
            async with listening(here.changes()) as ear:
                number = 0
                while not ear.gaps:
                    server.admin.set(f"filler-{number}", bytes(50_000))
                    number += 1
                    await asyncio.sleep(0)
                ear.heard.clear()
                server.admin.config_set("maxmemory-policy", "noeviction")
                server.admin.config_set("maxmemory", 0)
                while not ear.named:  # the stream may have gone once more before that
                    ear.heard.clear()
                    await there.delete(GENERAL, b"k")
                    await until(lambda: ear.heard)
                assert set(ear.named) == {Change("general", frozenset({b"k"}))}

    async def test_a_primary_that_lost_its_tail(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        """The entry that was read last is not on the replica that was promoted."""
        with RedisServer() as replica:
            async with proxy_of(redis_server) as proxy, proxy_of(redis_server) as line:
                await replicate(redis_server, replica, line.port)
                here, there = open_redis(proxy.url), open_redis(proxy.url)
                async with listening(here.changes()) as ear:
                    await there.delete(GENERAL, b"replicated")
                    await ear.hears("general", b"replicated")
                    await until(lambda: replica.admin.xlen(LOG) == redis_server.admin.xlen(LOG))
                    line.to_client = HOUR
                    await there.delete(GENERAL, b"lost")
                    await ear.hears("general", b"lost")
                    redis_server.kill()
                    await line.cut()
                    replica.admin.replicaof("no", "one")
                    proxy._upstream = replica.port
                    await proxy.cut()
                    await ear.loses_track()
                    await there.delete(GENERAL, b"k")
                    await ear.hears("general", b"k")

    async def test_a_primary_whose_entry_was_not_read_yet(
        self, redis_server: RedisServer, open_redis: OpenRedis
    ) -> None:
        """Its last write was read, its entry was not, and both are lost: the place in the stream does not show that."""
        with RedisServer() as replica:
            async with proxy_of(redis_server) as proxy, proxy_of(redis_server) as line:
                await replicate(redis_server, replica, line.port)
                here, there = open_redis(proxy.url), open_redis(redis_server.url)
                async with listening(here.changes()) as ear:
                    await there.set(GENERAL, b"k", b"old", end(), wait=True)
                    await ear.hears("general", b"k")
                    await until_true(lambda: bool(replica.admin.exists("oidc:general:k")))
                    line.to_client = HOUR
                    proxy.refuse = True
                    await proxy.cut()
                    await there.set(GENERAL, b"k", b"lost", end(), wait=True)
                    redis_server.kill()
                    await line.cut()
                    replica.admin.replicaof("no", "one")
                    proxy._upstream = replica.port
                    proxy.refuse = False
                    await ear.loses_track()
                    entry = await here.get(GENERAL, b"k")
                    assert entry is not None
                    assert entry.value == b"old"

    async def test_a_primary_that_becomes_a_replica(
        self, redis_server: RedisServer, open_redis: OpenRedis, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The connection stays; what is there is another's."""
        with RedisServer() as other:
            here = open_redis(redis_server.url)
            async with listening(here.changes()) as ear:
                await open_redis(other.url).delete(GENERAL, b"before")
                await replicate(other, redis_server, other.port)
                await ear.loses_track()
                await open_redis(other.url).delete(GENERAL, b"k")
                await ear.hears("general", b"k")
        assert caplog.records == []


class TestFaults:
    async def test_a_server_that_is_not_there_yet(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        redis_server.kill()
        here = open_redis(redis_server.url)
        changes = here.changes()
        first = asyncio.create_task(anext(changes))
        await until(lambda: here.traffic().failures.get("link", 0) >= 3)
        assert here.staleness() is None
        redis_server.start()
        assert await first == EVERYTHING
        await changes.aclose()

    async def test_it_comes_back_with_nothing(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        here, there = open_redis(redis_server.url), open_redis(redis_server.url)
        async with listening(here.changes()) as ear:
            redis_server.restart()
            await ear.loses_track()
            await there.delete(GENERAL, b"k")
            await ear.hears("general", b"k")

    async def test_a_link_that_was_cut_loses_nothing(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        there = open_redis(redis_server.url)
        async with proxy_of(redis_server) as proxy, listening(open_redis(proxy.url).changes()) as ear:
            for n in range(5):
                proxy.refuse = True
                await proxy.cut()
                await there.delete(GENERAL, b"%d" % n)
                proxy.refuse = False
                await ear.hears("general", b"%d" % n)
            assert ear.heard == []

    async def test_a_half_open_link(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        there = open_redis(redis_server.url)
        async with proxy_of(redis_server) as proxy:
            here = open_redis(proxy.url)
            async with listening(here.changes()) as ear:
                proxy.swallow = True
                await there.delete(GENERAL, b"k")
                await until(lambda: here.traffic().failures.get("timeout"))
                assert (here.staleness() or 0) > 1.0
                proxy.swallow = False
                await ear.hears("general", b"k")
                assert ear.heard == []

    async def test_a_server_that_freezes_for_longer_than_the_reader_waits(
        self, redis_server: RedisServer, open_redis: OpenRedis
    ) -> None:
        here, there = open_redis(redis_server.url), open_redis(redis_server.url)
        async with listening(here.changes()) as ear:
            redis_server.stop()
            try:
                await until(lambda: here.traffic().failures.get("timeout"))
            finally:
                redis_server.cont()
            await there.delete(GENERAL, b"k")
            await ear.hears("general", b"k")
            assert ear.heard == []

    @pytest.mark.parametrize(
        "fields",
        [
            {"a": b"b"},
            {"s": b"x", "k": b"\xc1"},
            {"s": b"x", "k": b"\x93" * 5000},
            {"k": b"\x80", "s": b"x"},
            {"s": b"x", "k": b"\x81\xa1\xff\x90"},
            {"s": b"x", "k": b"\x81\x01\x02"},
            {"s": b"x", "k": b"\x80", "more": b"z"},
            {"s": b"", "k": bytes(20_000_000)},
        ],
        ids=["other fields", "no message", "deep", "other order", "no text", "other shape", "more fields", "huge"],
    )
    async def test_garbage_in_the_stream(
        self, redis_server: RedisServer, open_redis: OpenRedis, fields: dict[str, bytes]
    ) -> None:
        here, there = open_redis(redis_server.url), open_redis(redis_server.url)
        async with listening(here.changes()) as ear:
            redis_server.admin.xadd(LOG, fields)
            await ear.loses_track()
            await there.delete(GENERAL, b"k")
            await ear.hears("general", b"k")

    async def test_something_else_lies_where_the_stream_should(
        self, redis_server: RedisServer, open_redis: OpenRedis, caplog: pytest.LogCaptureFixture
    ) -> None:
        """No write fails for it, both sides say so once, and all is well when it is gone."""
        here, there = open_redis(redis_server.url), open_redis(redis_server.url)
        async with listening(here.changes()) as ear:
            redis_server.admin.set(LOG, b"a string")
            await there.set(GENERAL, b"k", b"v", end(), wait=True)
            assert not await there.delete(GENERAL, b"l")
            await until(lambda: here.traffic().failures.get("refused", 0) >= 3)
            assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
            redis_server.admin.delete(LOG)
            await ear.loses_track()
            await there.delete(GENERAL, b"m")
            await until(lambda: {change.kind for change in ear.heard} == {"general"})
            assert Change("general") in ear.heard, "what could not be told before is told now"

    async def test_what_may_not_have_been_told_is_told_again(
        self, redis_server: RedisServer, open_redis: OpenRedis
    ) -> None:
        here = open_redis(redis_server.url)
        async with proxy_of(redis_server) as proxy, listening(here.changes()) as ear:
            there = open_redis(proxy.url, budget=BUDGET)
            await there.set(GENERAL, b"before", b"v", end(), wait=True)
            proxy.swallow = True
            with pytest.raises(BackendUnavailable):
                await there.set(GENERAL, b"k", b"v", end(), wait=True)
            proxy.swallow = False
            await there.ping()
            await until(lambda: any(b"k" in (change.keys or ()) for change in ear.heard))

    async def test_a_full_server_takes_the_delete_and_the_news_when_there_is_room(
        self, redis_server: RedisServer, open_redis: OpenRedis
    ) -> None:
        here, there = open_redis(redis_server.url), open_redis(redis_server.url)
        await there.set(GENERAL, b"k", b"v", end(), wait=True)
        async with listening(here.changes()) as ear:
            redis_server.admin.config_set("maxmemory", 1)
            assert await there.delete(GENERAL, b"k")
            assert there.traffic().failures == {"full": 1}
            redis_server.admin.config_set("maxmemory", 0)
            await there.ping()
            await ear.hears("general", b"k")


class TestPermissions:
    def user(self, server: RedisServer, *rules: str) -> str:
        server.admin.execute_command("ACL", "SETUSER", "node", "reset", "on", ">secret", "~oidc:*", "+@all", *rules)
        return server.url.replace("//", "//node:secret@")

    async def test_without_xadd_no_write_fails(
        self, redis_server: RedisServer, open_redis: OpenRedis, caplog: pytest.LogCaptureFixture
    ) -> None:
        there = open_redis(self.user(redis_server, "-xadd"))
        for n in range(100):
            await there.set(GENERAL, b"%d" % n, b"v", end(), wait=True)
        assert there.traffic().failures == {"auth": 100}
        assert there.traffic().writes.lost == 0
        assert len(caplog.records) == 1
        assert "do not learn" in caplog.text

    async def test_without_info_the_place_in_the_stream_decides(
        self, redis_server: RedisServer, open_redis: OpenRedis
    ) -> None:
        async with proxy_of(redis_server) as proxy:
            url = self.user(redis_server, "-info").replace(str(redis_server.port), str(proxy.port))
            async with listening(open_redis(url).changes()) as ear:
                await proxy.cut()
                await open_redis(redis_server.url).delete(GENERAL, b"k")
                await ear.hears("general", b"k")
                assert ear.heard == []

    async def test_without_xread_nobody_follows(
        self, redis_server: RedisServer, open_redis: OpenRedis, caplog: pytest.LogCaptureFixture
    ) -> None:
        here = open_redis(self.user(redis_server, "-xread"))
        changes = here.changes()
        assert await anext(changes) == EVERYTHING
        following = asyncio.create_task(anext(changes))
        await until(lambda: here.traffic().failures.get("auth", 0) >= 3)
        assert len(caplog.records) == 1
        assert "cannot be followed" in caplog.text
        self.user(redis_server, "+xread")
        await open_redis(redis_server.url).delete(GENERAL, b"k")
        assert await following == Change("general", frozenset({b"k"}))
        await changes.aclose()


class TestItsLife:
    async def test_it_has_a_connection_of_its_own_and_asks_twice_a_second(
        self, redis_server: RedisServer, open_redis: OpenRedis
    ) -> None:
        here = open_redis(redis_server.url)
        async with listening(here.changes()):
            assert here.traffic().connects == 1
            await here.get(GENERAL, b"k")
            assert here.traffic().connects == 2
            redis_server.admin.config_resetstat()
            begun = time.monotonic()
            await until(lambda: time.monotonic() - begun > 2.2)
            asked = redis_server.admin.info("commandstats")["cmdstat_xread"]["calls"]
            assert asked <= 5
            assert (here.staleness() or 0) < 1

    async def test_close_ends_it_at_once(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        here = open_redis(redis_server.url)
        async with listening(here.changes()) as ear:
            await until(lambda: clients(redis_server, "xread"))
            with within(0.3):
                await here.close()
                await until(lambda: ear.ended)
        assert [change async for change in here.changes()] == []
        await until(lambda: not clients(redis_server, "xread"))

    async def test_close_ends_it_while_the_server_is_away(
        self, redis_server: RedisServer, open_redis: OpenRedis
    ) -> None:
        here = open_redis(redis_server.url)
        async with listening(here.changes()) as ear:
            redis_server.kill()
            await until(lambda: here.traffic().failures.get("link", 0) >= 5)
            with within(0.3):
                await here.close()
                await until(lambda: ear.ended)

    async def test_suspend_ends_it_too(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        here = open_redis(redis_server.url)
        async with listening(here.changes()) as ear:
            await here.suspend()
            await until(lambda: ear.ended)
        async with listening(here.changes()) as ear:
            await open_redis(redis_server.url).delete(GENERAL, b"k")
            await ear.hears("general", b"k")

    async def test_a_listener_that_is_cancelled_leaves_nothing(
        self, redis_server: RedisServer, open_redis: OpenRedis
    ) -> None:
        here = open_redis(redis_server.url)
        for _ in range(20):
            async with listening(here.changes()):
                pass
        assert here.traffic().connects == 0
        assert here.staleness() is None
        await until(lambda: not clients(redis_server, "xread"))
        assert len(asyncio.all_tasks()) <= 2

    async def test_several_listeners(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        here, there = open_redis(redis_server.url), open_redis(redis_server.url)
        async with listening(here.changes()) as one, listening(here.changes()) as other:
            await there.delete(GENERAL, b"k")
            await one.hears("general", b"k")
            await other.hears("general", b"k")

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    def test_one_loop_after_another(self, redis_server: RedisServer, anyio_backend: str) -> None:
        here = RedisBackend(redis_server.url, clock=CLOCK)

        async def follow(key: bytes, *, leave: bool) -> None:
            async with contextlib.AsyncExitStack() as stack:
                ear = await stack.enter_async_context(listening(here.changes()))
                there = RedisBackend(redis_server.url, clock=CLOCK)
                await there.delete(GENERAL, key)
                await ear.hears("general", key)
                await there.close()
                if leave:
                    await here.close()

        asyncio.run(follow(b"1", leave=False))
        asyncio.run(follow(b"2", leave=False))
        asyncio.run(follow(b"3", leave=True))


class TestWhatIsPacked:
    @given(st.dictionaries(st.text(), st.none() | st.lists(st.binary(), max_size=5), max_size=5))
    def test_what_was_told_is_read(self, told: dict[str, list[bytes] | None]) -> None:
        *_, packed, _ = notice(b"log", b"source", told).rsplit(b"\r\n", 2)
        length, _, fields = notice(b"log", b"source", told).rpartition(b"$1\r\nk\r\n$")
        assert length
        packed = fields.partition(b"\r\n")[2][:-2]
        changes = read([b"s", b"source", b"k", packed], b"other")
        assert changes == [Change(kind, None if keys is None else frozenset(keys)) for kind, keys in told.items()]
        assert read([b"s", b"source", b"k", packed], b"source") == []

    @given(st.lists(st.binary(max_size=40), max_size=6))
    def test_anything_can_be_read(self, fields: list[bytes]) -> None:
        assert isinstance(read(fields, b"source"), list)

    @given(st.binary(max_size=60))
    def test_any_message_can_be_read(self, packed: bytes) -> None:
        assert all(isinstance(change, Change) for change in read([b"s", b"x", b"k", packed], b"source"))

    def test_what_is_owed_stays_bounded(self) -> None:
        notices = Notices(b"log", b"source")
        for n in range(100_000):
            notices.note("general", b"%d" % n * 10)
            if n % 1000 == 0:
                owed = notices.take()
                assert owed is not None
                assert len(owed.command) < 20_000
                notices.keep(owed)
        owed = notices.take()
        assert owed is not None
        assert owed.told == {"general": None}
        assert not notices
