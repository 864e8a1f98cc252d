"""The ledger over every Redis and Valkey that is here: the contract of a store, and what its scripts need."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme
from test_cache_redis_faults import open_files, tls_context

from oidc_middleware.cache.ledger import TOGETHER
from oidc_middleware.cache.redis.ledger import RedisLedger
from oidc_middleware.cache.redis.ledger.reading import entries_of
from oidc_middleware.core.ledger.records import LogEntry, Position, Record, pack
from oidc_middleware.errors import BackendUnavailable

from ledger_redis_kit import COMMANDS, LEDGER, LOG, OpenLedger, add_user
from ledger_store_contract import HOUR, LedgerStoreContract, OpenStore, contents, follows, logged, token
from redis_kit import LOOPBACK, PATIENCE, RedisServer, programs, proxy_of, until

pytestmark = pytest.mark.anyio

OLD = [kind for kind in programs() if kind == "redis-6.2"]


@pytest.fixture(scope="module", params=list(programs()))
def shared_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(request.param) as server:
        yield server


@pytest.fixture
def any_server(shared_server: RedisServer) -> RedisServer:
    shared_server.admin.flushall()
    return shared_server


@pytest.fixture
def now() -> int:
    return int(time.time())


class TestRedisLedger(LedgerStoreContract):
    """As a user who may do nothing but what the documentation names, on keys that begin with the prefix."""

    @pytest.fixture
    def open_store(self, any_server: RedisServer, open_ledger: OpenLedger) -> OpenStore:
        return partial(open_ledger, add_user(any_server, *COMMANDS))


class TestConnections:
    async def test_a_unix_socket(self, any_server: RedisServer, open_ledger: OpenLedger, now: int) -> None:
        here, there = open_ledger(any_server.unix_url), open_ledger(any_server.url)
        place = await here.write([token(1, now + HOUR)])
        assert await there.look() == place
        assert await contents(here) == {token(1, now + HOUR)}

    async def test_another_database(self, any_server: RedisServer, open_ledger: OpenLedger, now: int) -> None:
        ledger, elsewhere = open_ledger(any_server.url.replace("/0", "/3")), open_ledger(any_server.url)
        begin = await ledger.look()
        place = await ledger.write([token(1, now + HOUR)])
        assert [entry.position for entry in await ledger.read(begin, PATIENCE)] == [place]
        assert await contents(elsewhere) == set()

    @pytest.mark.parametrize("form", [list, dict], ids=["as RESP2 has it", "as RESP3 has it"])
    def test_either_protocol(self, form: Callable[[Any], Any], now: int) -> None:
        fields = [b"e", b"ab", b"n", b"7", b"p", b"1-1", b"r", pack([token(1, now)])]
        found = entries_of(form([(LOG.encode(), [[b"2-2", fields]])]))
        assert found == [LogEntry(b"ab", 7, b"1-1", b"2-2", (token(1, now),))]
        assert entries_of(form([])) == entries_of(None) == []

    async def test_tls(self, redis_server: RedisServer, open_ledger: OpenLedger, tmp_path: Path, now: int) -> None:
        authority = trustme.CA()
        (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
        async with proxy_of(redis_server, tls_context(authority, "localhost")) as proxy:
            ledger = open_ledger(proxy.url, ca_file=str(tmp_path / "ca.pem"))
            begin = await ledger.look()
            place = await ledger.write([token(1, now + HOUR)])
            assert [entry.position for entry in await ledger.read(begin, 0)] == [place]
            with pytest.raises(BackendUnavailable, match="certificate"):
                await open_ledger(proxy.url).look()

    async def test_another_prefix_is_another_ledger(
        self, any_server: RedisServer, open_ledger: OpenLedger, now: int
    ) -> None:
        here, there = open_ledger(any_server.url), open_ledger(any_server.url, prefix=b"other")
        await here.write([token(1, now + HOUR)])
        assert await contents(there) == set()
        assert (await there.look()).epoch != (await here.look()).epoch
        await there.write([token(1, now + HOUR)])
        assert any_server.admin.exists(LEDGER, LOG, "other:{log}:ledger", "other:{log}:revocations") == 4
        assert any_server.admin.dbsize() == 4

    async def test_a_waiting_read_holds_up_nobody_and_three_connections_are_all(
        self, redis_server: RedisServer, open_ledger: OpenLedger, now: int
    ) -> None:
        ledger = open_ledger(redis_server.url)
        reading = asyncio.create_task(ledger.read(await ledger.look(), PATIENCE))
        await ledger.scan(b"")
        place = await ledger.write([token(1, now + HOUR)])
        assert [entry.position for entry in await reading] == [place]
        assert len(redis_server.admin.client_list(_type="normal")) == 1 + 3

    async def test_nothing_is_left_open(self, redis_server: RedisServer, now: int) -> None:
        async def use() -> None:
            ledger = RedisLedger(redis_server.url, budget=PATIENCE)
            begin = await ledger.look()
            reading = asyncio.create_task(ledger.read(begin._replace(last_id=b"9"), PATIENCE))
            await ledger.write([token(1, now + HOUR)])
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await ledger.aclose()

        await use()
        before = open_files()
        for _ in range(10):
            await use()
        await until(lambda: open_files() <= before)

    def test_a_loop_that_is_closed_is_left_behind(self, redis_server: RedisServer, now: int) -> None:
        ledger = RedisLedger(redis_server.url, budget=PATIENCE)
        place = asyncio.run(self.written(ledger, now))
        assert asyncio.run(self.looked_and_closed(ledger)) == place
        asyncio.run(self.written(ledger, now))
        asyncio.run(ledger.aclose())

    @staticmethod
    async def written(ledger: RedisLedger, now: int) -> Position:
        await ledger.read(await ledger.look(), 0)
        return await ledger.write([token(1, now + HOUR)])

    @staticmethod
    async def looked_and_closed(ledger: RedisLedger) -> Position:
        place = await ledger.look()
        await ledger.aclose()
        return place

    async def test_two_loops_at_once_are_an_error(self, redis_server: RedisServer, open_ledger: OpenLedger) -> None:
        ledger = open_ledger(redis_server.url)
        await ledger.look()
        with pytest.raises(RuntimeError, match="two event loops"):
            await asyncio.to_thread(lambda: asyncio.run(ledger.look()))
        await ledger.look()


class TestScripts:
    async def test_a_server_that_forgets_them_is_given_them(
        self, any_server: RedisServer, open_ledger: OpenLedger, now: int
    ) -> None:
        """Y-noscript."""
        ledger = open_ledger(any_server.url)
        for n in range(3):
            any_server.admin.script_flush()
            begin = await ledger.look()
            any_server.admin.script_flush()
            place = await ledger.write([token(n, now + HOUR)])
            any_server.admin.script_flush()
            page = await ledger.scan(b"")
            assert page.position == place
            assert follows(await ledger.read(begin, 0), begin)

    async def test_they_are_sent_once(self, redis_server: RedisServer, open_ledger: OpenLedger, now: int) -> None:
        ledger = open_ledger(redis_server.url)
        for n in range(10):
            await ledger.look()
            await ledger.scan(b"")
            await ledger.write([token(n, now + HOUR)])
        counts = redis_server.admin.info("commandstats")
        assert counts["cmdstat_eval"]["calls"] == 3
        assert counts["cmdstat_evalsha"]["calls"] == 30

    @pytest.mark.parametrize("options", [{}, *([{"lua-replicate-commands": "no"}] * len(OLD))])
    async def test_a_replica_has_the_same(
        self, shared_server: RedisServer, open_ledger: OpenLedger, options: dict[str, str], now: int
    ) -> None:
        """What a script does, and not the script, has to be replicated: the replica's time is another."""
        kind = OLD[0] if options else shared_server.kind
        quick = {"repl-diskless-sync-delay": "0"}
        with RedisServer(kind, {**options, **quick}) as primary, RedisServer(kind, {**options, **quick}) as replica:
            replica.admin.replicaof(LOOPBACK, primary.port)
            await until(lambda: replica.admin.info("replication")["master_link_status"] == "up")
            ledger = open_ledger(primary.url)
            for n in range(10):
                await ledger.look()
                await ledger.write([token(m, now + HOUR + n) for m in range(n, n + 10)])
                await ledger.write([token(1000 + n, 1)])
                await ledger.scan(b"")
            for server in (primary, replica):  # a replica that is slow is sent everything anew
                await until(lambda server=server: server.admin.zcard(LEDGER) == 19 + 1)  # and the place
            assert primary.admin.wait(1, int(PATIENCE * 1000)) == 1
            everything = [
                (server.admin.zrange(LEDGER, 0, -1, withscores=True), server.admin.xrange(LOG))
                for server in (primary, replica)
            ]
            assert everything[0] == everything[1]

    async def test_looking_is_not_replicated(self, redis_server: RedisServer, open_ledger: OpenLedger) -> None:
        ledger = open_ledger(redis_server.url)
        await ledger.look()
        before = redis_server.admin.info("persistence")["rdb_changes_since_last_save"]
        for _ in range(10):
            await ledger.look()
            await ledger.scan(b"")
            await ledger.write([])
        assert redis_server.admin.info("persistence")["rdb_changes_since_last_save"] == before

    async def test_the_log_is_bounded(self, any_server: RedisServer, open_ledger: OpenLedger, now: int) -> None:
        ledger = open_ledger(any_server.url, kept=100)
        begin = await ledger.look()
        for n in range(1000):
            await ledger.write([token(n, now + HOUR)])
        assert 100 <= any_server.admin.xlen(LOG) <= 300
        entries = await logged(ledger, begin)
        assert follows(
            entries, entries[0].position._replace(number=entries[0].number - 1, last_id=entries[0].previous_id)
        )
        assert not follows(entries, begin)
        assert len(await contents(ledger)) == 1000

    async def test_more_may_go_than_come(self, any_server: RedisServer, open_ledger: OpenLedger, now: int) -> None:
        """Else a store that is never idle would grow without end."""
        ledger = open_ledger(any_server.url)
        admin = any_server.admin
        await ledger.look()
        admin.zadd(LEDGER, {token(10**6 + n, 1).member: 1 for n in range(450)})
        for part in range(4):
            await ledger.write([token(TOGETHER * part + n, 1) for n in range(TOGETHER)])
            assert admin.zcard(LEDGER) == 1 + 350 - 100 * part
        await ledger.write([])
        assert admin.zcard(LEDGER) == 1

    async def test_a_clock_that_stands_still_or_goes_back_gives_no_id_twice(
        self, any_server: RedisServer, open_ledger: OpenLedger, now: int
    ) -> None:
        """The server's clock cannot be set here; a place that is ahead of it looks the same."""
        ledger = open_ledger(any_server.url)
        place = await ledger.write([token(1, now + HOUR)])
        ahead = b"log:%b:1:%d-5" % (place.epoch, (now + HOUR) * 1000)
        any_server.admin.zremrangebyscore(LEDGER, "-inf", "(0")
        any_server.admin.zadd(LEDGER, {ahead: -1})
        begin = await ledger.look()
        places = [await ledger.write([token(n, now + HOUR)]) for n in range(2, 12)]
        assert [int(place.last_id.split(b"-")[0]) for place in places] == [
            (now + HOUR) * 1000 + n for n in range(1, 11)
        ]
        assert follows(await logged(ledger, begin), begin)

    async def test_a_large_ledger_is_found_in_pages(
        self, any_server: RedisServer, open_ledger: OpenLedger, now: int
    ) -> None:
        ledger = open_ledger(any_server.url)
        records: set[Record] = set()
        for n in range(20):
            part = [token(m, now + HOUR + m) for m in range(n * TOGETHER, (n + 1) * TOGETHER)]
            records |= set(part)
            await ledger.write(part)
        cursor = b""
        sizes: list[int] = []
        found: set[Record] = set()
        while cursor or not sizes:
            page = await ledger.scan(cursor)
            cursor, found = page.cursor, found | set(page.records)
            sizes.append(len(page.records))
        assert found == records
        assert max(sizes) < 4 * TOGETHER
