"""What a ledger in Redis does when its server refuses, hangs or crashes: it fails in time, says how, loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import redis

from oidc_middleware.cache.redis.ledger import RedisLedger
from oidc_middleware.core.ledger.records import Position, Record
from oidc_middleware.errors import BackendUnavailable

from ledger_redis_kit import COMMANDS, LEDGER, LOG, OpenLedger, add_user, place_in
from ledger_store_contract import HOUR, contents, follows, logged, token
from redis_kit import (
    BUDGET,
    LOOPBACK,
    PATIENCE,
    Proxy,
    RedisServer,
    fails,
    free_port,
    most_of,
    programs,
    proxy_of,
    until,
)
from time_kit import Stopwatch

pytestmark = pytest.mark.anyio

NOWHERE = Position(b"", 0, b"")
READ_BUDGET = 1.0
"""What a read may take besides its wait."""


@pytest.fixture(params=list(programs()))
def any_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(request.param) as server:
        yield server


@pytest.fixture
def now() -> int:
    return int(time.time())


def calls_of(ledger: RedisLedger, now: int, digest: int = 999) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return the calls that ask whether the server would take a write."""
    return {
        "look": ledger.look,
        "scan": lambda: ledger.scan(b""),
        "write": lambda: ledger.write([token(digest, now + HOUR)]),
    }


async def kinds_of(ledger: RedisLedger, now: int) -> dict[str, str | None]:
    """Return what becomes of each call, and that nobody waits for the time to pass."""
    kinds: dict[str, str | None] = {}
    for name, call in calls_of(ledger, now).items():
        with Stopwatch() as passed:
            try:
                await call()
            except BackendUnavailable as error:
                kinds[name] = error.kind
                assert passed() < most_of(error), str(error)
            else:
                kinds[name] = None
    return kinds


def all_of(kind: str | None) -> dict[str, str | None]:
    return dict.fromkeys(("look", "scan", "write"), kind)


class TestAServerThatRefuses:
    async def test_a_replica(self, any_server: RedisServer, open_ledger: OpenLedger, now: int) -> None:
        """Y-readonly: nothing that it says about the log counts; what is there can be read."""
        ledger = open_ledger(any_server.url)
        begin = await ledger.look()
        place = await ledger.write([token(1, now + HOUR)])
        any_server.admin.replicaof(LOOPBACK, free_port())
        assert await kinds_of(ledger, now) == all_of("readonly")
        assert [entry.position for entry in await ledger.read(begin, 0)] == [place]
        any_server.admin.replicaof("NO", "ONE")
        assert await ledger.look() == place
        assert await contents(ledger) == {token(1, now + HOUR)}

    async def test_a_primary_that_misses_its_replicas(
        self, any_server: RedisServer, open_ledger: OpenLedger, now: int
    ) -> None:
        """It may be the old one, alone on its side of the network: it tells nobody that all is known."""
        ledger = open_ledger(any_server.url)
        place = await ledger.write([token(1, now + HOUR)])
        any_server.admin.config_set("min-replicas-to-write", 1)
        assert await kinds_of(ledger, now) == all_of("full")
        any_server.admin.config_set("min-replicas-to-write", 0)
        assert await ledger.look() == place
        assert await contents(ledger) == {token(1, now + HOUR)}

    async def test_no_memory(self, any_server: RedisServer, open_ledger: OpenLedger, now: int) -> None:
        """Y-oom: nothing is written, not even a part; where the log is stays known, for nothing is acknowledged."""
        ledger = open_ledger(any_server.url)
        place = await ledger.write([token(1, now + HOUR), token(2, 1)])
        any_server.admin.config_set("maxmemory", 1)
        assert await kinds_of(ledger, now) == {"look": None, "scan": None, "write": "full"}
        await fails(ledger.write([token(1, now + HOUR)]), "full")
        await fails(ledger.write([]), "full")
        assert await ledger.look() == place == place_in(any_server)
        assert await contents(ledger) == {token(1, now + HOUR)}
        assert any_server.admin.xlen(LOG) == 1
        any_server.admin.config_set("maxmemory", 0)
        assert (await ledger.write([token(999, now + HOUR)])).number == 2
        assert len(await logged(ledger, place)) == 1

    async def test_no_memory_from_the_beginning(
        self, any_server: RedisServer, open_ledger: OpenLedger, now: int
    ) -> None:
        ledger, other = open_ledger(any_server.url), open_ledger(any_server.url)
        any_server.admin.config_set("maxmemory", 1)
        assert await ledger.look() == await other.look()
        await fails(ledger.write([token(1, now + HOUR)]), "full")

    async def test_a_disk_that_takes_no_snapshot(
        self, any_server: RedisServer, open_ledger: OpenLedger, now: int
    ) -> None:
        ledger, admin = open_ledger(any_server.url), any_server.admin
        place = await ledger.write([token(1, now + HOUR)])
        (any_server.directory / "dump.rdb").mkdir()
        admin.config_set("save", "3600 1")
        admin.bgsave()
        await until(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err")
        assert await kinds_of(ledger, now) == all_of("full")
        admin.config_set("stop-writes-on-bgsave-error", "no")
        assert await ledger.look() == place

    async def test_something_else_lies_there(self, any_server: RedisServer, open_ledger: OpenLedger, now: int) -> None:
        """It is not ours to remove, and the error says who has to."""
        ledger, admin = open_ledger(any_server.url), any_server.admin
        for key in (LEDGER, LOG):
            admin.flushall()
            admin.set(key, "precious")
            assert await kinds_of(ledger, now) == all_of("refused")
            error = await fails(ledger.look(), "refused")
            assert LEDGER in error.detail
            assert LOG in error.detail
            assert admin.get(key) == b"precious"
            admin.delete(key)
            begin = await ledger.look()
            assert (await ledger.write([token(1, now + HOUR)])).number == 1
            assert follows(await ledger.read(begin, 0), begin)

    async def test_a_script_holds_it(self, any_server: RedisServer, open_ledger: OpenLedger, now: int) -> None:
        """Y-loading, BUSY."""
        any_server.admin.config_set("lua-time-limit", "20")
        ledger = open_ledger(any_server.url)
        place = await ledger.write([token(1, now + HOUR)])
        holding = asyncio.create_task(asyncio.to_thread(self.hold, any_server))
        kinds: set[str] = set()
        while "busy" not in kinds and not holding.done():
            try:
                await ledger.look()
            except BackendUnavailable as error:
                kinds.add(error.kind)
            await asyncio.sleep(0.01)
        assert await kinds_of(ledger, now) == all_of("busy")
        with redis.Redis(unix_socket_path=any_server.socket) as other:
            other.script_kill()
        await holding
        assert await ledger.look() == place

    @staticmethod
    def hold(server: RedisServer) -> None:
        with pytest.raises(redis.ResponseError):
            server.admin.eval("while true do end", 0)

    async def test_a_script_that_is_told_to_end_has_done_nothing_or_goes_on(
        self, redis_server: RedisServer, open_ledger: OpenLedger, now: int
    ) -> None:
        """`SCRIPT KILL` from somebody who is impatient ends no script that has begun to write."""
        redis_server.admin.config_set("lua-time-limit", "1")
        ledger = open_ledger(redis_server.url)
        begin = await ledger.look()
        acknowledged = 0
        with redis.Redis(unix_socket_path=redis_server.socket) as impatient:
            for part in range(20):
                records = [token(1000 * part + n, now + HOUR) for n in range(1000)]
                writing = asyncio.create_task(ledger.write(records))
                while not writing.done():
                    await asyncio.sleep(0)
                    with contextlib.suppress(redis.RedisError):
                        await asyncio.to_thread(impatient.script_kill)
                acknowledged += writing.exception() is None
        entries = await logged(ledger, begin)
        assert follows(entries, begin)
        assert all(len(entry.records) == 1000 for entry in entries)
        assert len(await contents(ledger)) == 1000 * len(entries)
        assert len(entries) >= acknowledged


class TestPermissions:
    async def test_the_password_is_changed(self, redis_server: RedisServer, open_ledger: OpenLedger, now: int) -> None:
        """Y-auth: old connections go on working, so that the fault shows when one is made anew."""
        ledger = open_ledger(redis_server.url)
        place = await ledger.write([token(1, now + HOUR)])
        redis_server.admin.config_set("requirepass", "new")
        assert await ledger.write([token(1, now + HOUR)]) == place
        redis_server.admin.client_kill_filter(_type="normal", skipme=True)
        await self.until_noticed(ledger)
        assert await kinds_of(ledger, now) == all_of("auth")
        await fails(ledger.read(place, 0), "auth")
        right = open_ledger(redis_server.url.replace("//", "//:new@"))
        assert await right.look() == place
        wrong = open_ledger(redis_server.url.replace("//", "//:wr0ng@"))
        assert await kinds_of(wrong, now) == all_of("auth")
        error = await fails(wrong.look(), "auth")
        assert "wr0ng" not in f"{error!r} {error} {wrong!r} {wrong.__dict__}"

    @staticmethod
    async def until_noticed(ledger: RedisLedger) -> None:
        """Wait until this side has learnt that its connections were ended, which is a failure of another kind."""
        for call in (ledger.look, lambda: ledger.write([]), lambda: ledger.read(NOWHERE, 0)):
            while True:
                try:
                    await call()
                except BackendUnavailable as error:
                    if error.kind == "auth":
                        break

    async def test_a_key_beyond_the_prefix(self, any_server: RedisServer, open_ledger: OpenLedger, now: int) -> None:
        beyond = open_ledger(add_user(any_server, *COMMANDS), prefix=b"other")
        assert await kinds_of(beyond, now) == all_of("auth")
        await fails(beyond.read(NOWHERE, 0), "auth")
        assert any_server.admin.dbsize() == 0

    def test_the_documentation_names_the_commands(self) -> None:
        text = (Path(__file__).parents[1] / "docs" / "redis.md").read_text()
        (words,) = [line for line in text.splitlines() if "+zadd" in line]
        assert set(re.findall(r"\+(\w+)", words)) == set(COMMANDS)

    @pytest.mark.parametrize("lacking", COMMANDS)
    async def test_without_one_of_the_commands_nothing_is_half_done(
        self, any_server: RedisServer, open_ledger: OpenLedger, lacking: str, now: int
    ) -> None:
        """A record that is there and was never told is never told again, for it is known then."""
        ledger = open_ledger(add_user(any_server, *COMMANDS))
        place = await ledger.write([token(1, now + HOUR)])
        any_server.admin.script_flush()
        if lacking == "unlink":  # which is needed when somebody else wrote to the log
            any_server.admin.xadd(LOG, {"x": "y"})
        add_user(any_server, *(name for name in COMMANDS if name != lacking))
        limited = open_ledger(any_server.url.replace("//", "//node:secret@"))
        kinds = await kinds_of(limited, now)
        assert set(kinds.values()) <= {"auth", None}
        if lacking == "zscan":
            assert kinds == {"look": None, "scan": "auth", "write": None}
            return
        assert kinds["write"] == "auth"
        assert any_server.admin.xrange(LOG)[0][0] == place.last_id
        add_user(any_server, *COMMANDS)
        assert await limited.look() == place
        assert await contents(limited) == {token(1, now + HOUR)}
        last = await limited.write([token(999, now + HOUR)])
        assert [entry.position for entry in await limited.read(place, 0)] == [last]


class TestAServerThatIsAway:
    async def test_nothing_listens(self, open_ledger: OpenLedger, now: int) -> None:
        ledger = open_ledger(f"redis://{LOOPBACK}:{free_port()}")
        assert await kinds_of(ledger, now) == all_of("link")
        await fails(ledger.read(NOWHERE, PATIENCE), "link")

    async def test_frozen_every_call_answers_within_its_budget(
        self, any_server: RedisServer, open_ledger: OpenLedger, now: int
    ) -> None:
        """Y-stop. What was sent may be done when it thaws: nobody knows, and writing it again changes nothing."""
        ledger = open_ledger(any_server.url, budget=BUDGET)
        begin = await ledger.look()
        await ledger.write([token(0, now + HOUR)])
        any_server.stop()
        reading = asyncio.create_task(fails(ledger.read(begin._replace(last_id=b"99"), 0.1), "timeout", budget=1.1))
        for n in range(1, 4):
            for call in calls_of(ledger, now, n).values():
                await fails(call(), "timeout")
        await reading
        any_server.cont()
        patient = open_ledger(any_server.url)
        for n in range(1, 4):
            await patient.write([token(n, now + HOUR)])
        entries = await logged(patient, begin)
        assert follows(entries, begin)
        assert len(entries) == 4
        assert await contents(patient) == {token(n, now + HOUR) for n in range(4)}
        await ledger.look()

    async def test_killed_while_200_are_written(
        self, redis_server: RedisServer, open_ledger: OpenLedger, now: int
    ) -> None:
        """Y-kill-midwrite: whoever was not told of a success is told of a failure; nobody hangs."""
        ledger = open_ledger(redis_server.url)
        begin = await ledger.look()
        reading = asyncio.create_task(ledger.read(begin._replace(last_id=b"99999999999999-0"), PATIENCE))
        done: list[int] = []

        async def write(n: int) -> None:
            await ledger.write([token(n, now + HOUR)])
            done.append(n)
            if len(done) == 100:
                redis_server.kill()

        results = await asyncio.gather(*(write(n) for n in range(200)), return_exceptions=True)
        kinds = {result.kind for result in results if isinstance(result, BackendUnavailable)}
        assert kinds == {"link"}
        assert sum(result is None for result in results) == len(done) >= 100
        with pytest.raises(BackendUnavailable):
            await reading
        redis_server.start()
        assert (await ledger.look()).epoch != begin.epoch
        assert (await ledger.write([token(1, now + HOUR)])).number == 1

    async def test_it_loads_its_data(self, redis_server: RedisServer, open_ledger: OpenLedger, now: int) -> None:
        """Y-loading: an epoch that is on the disk is not replaced by one that begins while it is read."""
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
            for n in range(300):
                pipe.set(f"filler-{n}", bytes(100))
            pipe.execute()
        ledger = open_ledger(redis_server.url)
        place = await ledger.write([token(1, now + HOUR)])
        admin.save()
        reloading = asyncio.create_task(asyncio.to_thread(admin.execute_command, "DEBUG", "RELOAD", "NOSAVE"))
        kinds = set()
        while not reloading.done():
            try:
                await ledger.look()
            except BackendUnavailable as error:
                kinds.add(error.kind)
            await asyncio.sleep(0.01)
        await reloading
        assert kinds == {"busy"}
        assert await ledger.look() == place
        assert await contents(ledger) == {token(1, now + HOUR)}


class TestALinkThatFails:
    async def test_a_link_that_is_cut_while_all_is_read(
        self, redis_server: RedisServer, open_ledger: OpenLedger, now: int
    ) -> None:
        """Another server has another order: what its part of a cursor is, is no part of the first one's."""
        filler = open_ledger(redis_server.url)
        for part in range(4):
            await filler.write([token(1000 * part + n, now + HOUR) for n in range(1000)])
        async with proxy_of(redis_server) as proxy:
            ledger = open_ledger(proxy.url)
            page = await ledger.scan(b"")
            await proxy.cut()
            for _ in range(2):
                await fails(ledger.scan(page.cursor), "link")
            assert len(await contents(ledger)) == 4000
            page = await ledger.scan(b"")
            await ledger.aclose()
            with pytest.raises(BackendUnavailable):
                await ledger.scan(page.cursor)

    async def test_a_slow_write_does_not_disturb_who_reads_all(
        self, redis_server: RedisServer, open_ledger: OpenLedger, now: int
    ) -> None:
        """Else nobody would ever have read all of a store that has much to do."""
        for part in range(4):
            await open_ledger(redis_server.url).write([token(1000 * part + n, now + HOUR) for n in range(1000)])
        ledger = open_ledger(redis_server.url, budget=0.5)
        found: set[Record] = set()
        cursor = b""
        while True:
            page = await ledger.scan(cursor)
            cursor, found = page.cursor, found | set(page.records)
            if not cursor:
                break
            redis_server.stop()
            await fails(ledger.write([token(9999, now + HOUR)]), "timeout", budget=0.5)
            redis_server.cont()
        assert len(found - {token(9999, now + HOUR)}) == 4000

    async def test_a_waiting_read_over_a_link_that_is_cut(
        self, redis_server: RedisServer, open_ledger: OpenLedger, now: int
    ) -> None:
        async with proxy_of(redis_server) as proxy:
            ledger = open_ledger(proxy.url)
            place = await ledger.look()
            reading = asyncio.create_task(ledger.read(place, PATIENCE))
            await until(lambda: redis_server.admin.info("clients")["blocked_clients"] == 1)
            await proxy.cut()
            with pytest.raises(BackendUnavailable) as caught:
                await reading
            assert caught.value.kind == "link"
            await open_ledger(redis_server.url).write([token(1, now + HOUR)])
            assert follows(await ledger.read(place, PATIENCE), place)

    async def test_a_half_open_link(self, redis_server: RedisServer, open_ledger: OpenLedger, now: int) -> None:
        async with proxy_of(redis_server) as proxy:
            ledger = open_ledger(proxy.url, budget=BUDGET)
            place = await ledger.look()
            proxy.swallow = True
            for call in calls_of(ledger, now).values():
                await fails(call(), "timeout")
            await fails(ledger.read(place, 0.2), "timeout", budget=0.2 + READ_BUDGET)
            proxy.swallow = False
            patient = open_ledger(redis_server.url)
            assert await patient.look() == place


class TestFailOver:
    async def test_one_that_lost_the_end(self, redis_server: RedisServer, open_ledger: OpenLedger, now: int) -> None:
        """Y-failover-lost: the same life goes on with numbers that were given before, and with other ids."""
        quick = {"repl-diskless-sync-delay": "0"}
        with RedisServer(options=quick) as primary, RedisServer(options=quick) as replica:
            async with proxy_of(primary) as replication, Proxy(primary.port) as front:
                replica.admin.replicaof(LOOPBACK, replication.port)
                await until_true(lambda: replica.admin.info("replication")["master_link_status"] == "up")
                ledger = open_ledger(front.url)
                begin = await ledger.look()
                kept = await ledger.write([token(1, now + HOUR)])
                await until_true(lambda: replica.admin.zcard(LEDGER) == 2)
                await replication.cut()
                replication.refuse = True
                lost = [await ledger.write([token(n, now + HOUR)]) for n in (2, 3)]
                reading = asyncio.create_task(ledger.read(lost[-1], PATIENCE))
                primary.kill()
                replica.admin.replicaof("NO", "ONE")
                with pytest.raises(BackendUnavailable):
                    await reading
                front._upstream = replica.port
                assert await ledger.look() == kept
                assert await contents(ledger) == {token(1, now + HOUR)}
                again = [await ledger.write([token(n, now + HOUR)]) for n in (2, 3, 4)]
                assert [place.number for place in again] == [2, 3, 4]
                assert again[0].epoch == begin.epoch
                assert not {place.last_id for place in again} & {place.last_id for place in lost}
                for place in lost:
                    assert not follows(await ledger.read(place, 0), place)
                assert follows(await logged(ledger, begin), begin)


async def until_true(condition: Callable[[], bool]) -> None:
    """Wait for a state of a server that is reached through this process."""
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110  there is no event to wait for
            await asyncio.sleep(0.02)
