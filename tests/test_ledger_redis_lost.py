"""What Redis may lose of a ledger, and what others may put in its place: nobody takes the rest for the whole."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from oidc_middleware.core.ledger.records import LogEntry, Position, pack

from ledger_redis_kit import LEDGER, LOG, OpenLedger, place_in
from ledger_store_contract import HOUR, contents, follows, logged, token
from redis_kit import PATIENCE, RedisServer, programs, until

pytestmark = pytest.mark.anyio

HIGHEST = 2**64 - 1


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


class TestLoss:
    @pytest.mark.parametrize("loss", ["flush", "restart", "ledger"])
    async def test_without_the_sorted_set_another_life_begins(
        self, redis_server: RedisServer, open_ledger: OpenLedger, loss: str, now: int
    ) -> None:
        """Y-flushall, and eviction of the sorted set alone: what is left of the log belongs to no life."""
        ledger, other = open_ledger(redis_server.url), open_ledger(redis_server.url)
        places = [await ledger.look(), *[await ledger.write([token(n, now + HOUR)]) for n in range(3)]]
        match loss:
            case "flush":
                redis_server.admin.flushall()
            case "restart":
                await ledger.aclose()
                await other.aclose()
                redis_server.restart()
            case _:
                redis_server.admin.delete(LEDGER)
        begin = await ledger.look()
        assert begin.epoch != places[0].epoch
        assert (begin.number, begin.last_id) == (0, b"")
        assert await other.look() == begin
        assert await contents(ledger) == set()
        assert await ledger.read(begin, 0) == []
        place = await ledger.write([token(7, now + HOUR)])
        assert (place.epoch, place.number) == (begin.epoch, 1)
        assert place.last_id not in {place.last_id for place in places}
        assert follows(await ledger.read(begin, 0), begin)
        for place in places:
            assert not follows(await ledger.read(place, 0), place) or not await ledger.read(place, 0)

    async def test_a_write_finds_the_loss_too(self, any_server: RedisServer, open_ledger: OpenLedger, now: int) -> None:
        ledger = open_ledger(any_server.url)
        before = await ledger.write([token(n, now + HOUR) for n in range(3)])
        any_server.admin.delete(LEDGER)
        place = await ledger.write([token(1, now + HOUR)])
        assert place.epoch != before.epoch
        assert place.number == 1
        (entry,) = await logged(ledger, Position(place.epoch, 0, b""))
        assert entry == LogEntry(place.epoch, 1, b"", place.last_id, (token(1, now + HOUR),))

    async def test_without_the_stream_life_goes_on_and_whoever_was_behind_sees_the_gap(
        self, any_server: RedisServer, open_ledger: OpenLedger, now: int
    ) -> None:
        ledger = open_ledger(any_server.url)
        begin = await ledger.look()
        first, second = [await ledger.write([token(n, now + HOUR)]) for n in range(2)]
        any_server.admin.delete(LOG)
        assert await ledger.look() == second
        for place in (begin, first, second):
            assert await ledger.read(place, 0) == []
        third = await ledger.write([token(2, now + HOUR)])
        assert (third.epoch, third.number) == (begin.epoch, 3)
        assert follows(await ledger.read(second, 0), second)
        for place in (begin, first):
            assert [entry.position for entry in await ledger.read(place, 0)] == [third]
            assert not follows(await ledger.read(place, 0), place)

    @pytest.mark.parametrize("lost", [(LOG,), (LEDGER,), (LEDGER, LOG)], ids=["log", "ledger", "both"])
    async def test_whoever_waits_meanwhile_is_woken_by_the_next_write(
        self, any_server: RedisServer, open_ledger: OpenLedger, lost: tuple[str, ...], now: int
    ) -> None:
        """So a loss is noticed as soon as somebody revokes, and not at the next look alone."""
        ledger, admin = open_ledger(any_server.url), any_server.admin
        place = await ledger.write([token(1, now + HOUR)])
        reading = asyncio.create_task(ledger.read(place, PATIENCE))
        await until(lambda: admin.info("clients")["blocked_clients"] == 1)
        admin.delete(*lost)
        written = await ledger.write([token(2, now + HOUR)])
        entries = await reading
        assert [entry.position for entry in entries] == [written]
        assert follows(entries, place) is (lost == (LOG,))

    async def test_a_trimmed_stream(self, any_server: RedisServer, open_ledger: OpenLedger, now: int) -> None:
        ledger = open_ledger(any_server.url)
        begin = await ledger.look()
        places = [await ledger.write([token(n, now + HOUR)]) for n in range(5)]
        any_server.admin.xtrim(LOG, 2, approximate=False)
        assert follows(await ledger.read(places[2], 0), places[2])
        for place in (begin, *places[:2]):
            entries = await ledger.read(place, 0)
            assert [entry.position for entry in entries] == places[3:]
            assert not follows(entries, place)
        any_server.admin.xtrim(LOG, 0, approximate=False)
        last = await ledger.write([token(9, now + HOUR)])
        assert [entry.position for entry in await ledger.read(places[-1], 0)] == [last]
        assert follows(await ledger.read(places[-1], 0), places[-1])

    async def test_an_entry_that_is_taken_out(self, any_server: RedisServer, open_ledger: OpenLedger, now: int) -> None:
        ledger = open_ledger(any_server.url)
        places = [await ledger.write([token(n, now + HOUR)]) for n in range(4)]
        any_server.admin.xdel(LOG, places[1].last_id)
        assert not follows(await ledger.read(places[0], 0), places[0])
        assert follows(await ledger.read(places[1], 0), places[1])

    async def test_a_server_that_comes_back_with_what_it_had_earlier(
        self, any_server: RedisServer, open_ledger: OpenLedger, now: int
    ) -> None:
        """An old copy, or a replica that lacks the end: the same numbers come again, and never the same ids."""
        ledger = open_ledger(any_server.url)
        first = await ledger.write([token(1, now + HOUR)])
        copy = {key: any_server.admin.dump(key) for key in (LEDGER, LOG)}
        lost = [await ledger.write([token(n, now + HOUR)]) for n in (2, 3)]
        for key, dump in copy.items():
            any_server.admin.restore(key, 0, dump, replace=True)
        assert await ledger.look() == first
        again = [await ledger.write([token(n, now + HOUR)]) for n in (2, 3)]
        assert [place.number for place in again] == [place.number for place in lost]
        assert not {place.last_id for place in again} & {place.last_id for place in lost}
        for place in lost:
            entries = await ledger.read(place, 0)
            assert not entries or not follows(entries, place)
        assert follows(await ledger.read(first, 0), first)

    @pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random"])
    async def test_eviction(self, redis_server: RedisServer, open_ledger: OpenLedger, policy: str, now: int) -> None:
        """Y-evict: the sorted set is dropped as a whole or not at all."""
        ledger = open_ledger(redis_server.url)
        before = await ledger.write([token(n, now + HOUR) for n in range(500)])
        admin = redis_server.admin
        admin.config_set("maxmemory-policy", policy)
        admin.config_set("maxmemory", admin.info("memory")["used_memory"] + 1_000_000)
        fillers = 0
        while admin.exists(LEDGER):
            assert fillers < 1_000_000
            with admin.pipeline(transaction=False) as pipe:
                for _ in range(500):
                    pipe.set(f"filler-{fillers}", bytes(1000))
                    fillers += 1
                pipe.execute()
        place = await ledger.look()
        assert place.epoch != before.epoch
        assert place.number == 0
        assert await ledger.read(place, 0) == []


class TestStrangers:
    """Whoever can write to Redis can take a revocation away. But nobody takes what he wrote for a revocation."""

    @pytest.mark.parametrize(
        "fields",
        [
            {"x": "y"},
            {"e": "0", "n": "1", "p": ""},
            {"e": "0", "n": "one", "p": "", "r": ""},
            {"e": "0", "n": "1", "p": "", "r": b"\x01" * 24},
            {"e": "0", "n": "1", "p": "", "r": b"\xff" * 25},
            {"e": "0", "n": "1", "p": "", "r": pack([token(1, 2)]), "more": ""},
            {"n": "1", "e": "0", "p": "", "r": pack([token(1, 2)])},
        ],
    )
    async def test_an_entry_that_cannot_be_read_follows_on_nothing(
        self, any_server: RedisServer, open_ledger: OpenLedger, fields: dict[Any, Any], now: int
    ) -> None:
        ledger = open_ledger(any_server.url)
        place = await ledger.write([token(1, now + HOUR)])
        number = any_server.admin.xadd(LOG, fields)
        assert await ledger.read(place, 0) == [LogEntry(b"", 0, b"", number, ())]
        assert not follows(await ledger.read(place, 0), place)

    async def test_one_that_can_be_read_follows_on_its_own_place_only(
        self, any_server: RedisServer, open_ledger: OpenLedger, now: int
    ) -> None:
        ledger = open_ledger(any_server.url)
        place = await ledger.write([token(1, now + HOUR)])
        wrong = {"e": place.epoch, "n": place.number + 1, "p": "1-1", "r": pack([token(5, now + HOUR)])}
        any_server.admin.xadd(LOG, wrong)
        (entry,) = await ledger.read(place, 0)
        assert not follows([entry], place)

    @pytest.mark.parametrize("number", ["*", f"{HIGHEST}-{HIGHEST}"])
    @pytest.mark.parametrize("is_gone", [False, True], ids=["it lies there", "it was taken out again"])
    async def test_after_a_foreign_entry_the_log_goes_on(
        self, any_server: RedisServer, open_ledger: OpenLedger, number: str, is_gone: bool, now: int
    ) -> None:
        """It is in nobody's way for longer than to the next look: a follower would load everything again and again."""
        ledger = open_ledger(any_server.url)
        place = await ledger.write([token(1, now + HOUR)])
        number = any_server.admin.xadd(LOG, {"x": "y"}, id=number)
        if is_gone:
            any_server.admin.xdel(LOG, number)
        assert await ledger.look() == place
        assert await ledger.read(place, 0) == []
        any_server.admin.xadd(LOG, {"x": "y"}, id=number) if number == "*" else None
        places = [await ledger.write([token(n, now + HOUR)]) for n in (2, 3)]
        assert [entry.position for entry in await ledger.read(place, 0)] == places
        assert follows(await ledger.read(place, 0), place)

    async def test_a_stream_made_anew_with_lower_numbers(
        self, any_server: RedisServer, open_ledger: OpenLedger, now: int
    ) -> None:
        ledger = open_ledger(any_server.url)
        begin = await ledger.look()
        place = await ledger.write([token(1, now + HOUR)])
        any_server.admin.delete(LOG)
        stranger = {"e": begin.epoch, "n": 2, "p": place.last_id, "r": pack([token(5, now + HOUR)])}
        any_server.admin.xadd(LOG, stranger, id="1-1")
        assert await ledger.look() == place
        assert await ledger.read(place, 0) == []
        assert not follows(await ledger.read(begin, 0), begin)
        later = await ledger.write([token(2, now + HOUR)])
        assert [entry.position for entry in await ledger.read(place, 0)] == [later]
        assert follows(await ledger.read(place, 0), place)

    @pytest.mark.parametrize(
        "places",
        [
            {b"": -1},
            {b"log": -3},
            {b"log:zz:1:1-1": -1},
            {b"log::1:1-1": -1},
            {b"log:ab:1:x": -1},
            {b"log:ab:1:1": -1},
            {b"log:ab:1:1-1-1": -1},
            {b"log:ab:-1:1-1": -1},
            {b"log:ab:1e3:1-1": -1},
            {b"log:ab:1:%d-1" % HIGHEST: -1},
            {b"log:ab:1:1-%d" % (10 * HIGHEST): -1},
            {b"log:ab:%d:1-1" % HIGHEST: -1},
            {b"log:ab:1:1-1": -1, b"log:ab:2:2-2": -1},
            {token(99, 2).member: float("-inf")},
        ],
    )
    async def test_a_place_that_cannot_be_read_begins_another_life_and_loses_no_record(
        self, any_server: RedisServer, open_ledger: OpenLedger, places: dict[bytes, float], now: int
    ) -> None:
        ledger, admin = open_ledger(any_server.url), any_server.admin
        before = await ledger.write([token(n, now + HOUR) for n in range(3)])
        admin.zremrangebyscore(LEDGER, "-inf", "(0")
        admin.zadd(LEDGER, places)
        place = await ledger.look()
        assert place.epoch not in {before.epoch, b"ab"}
        assert place.number == 0
        assert place_in(any_server) == place
        assert await contents(ledger) == {token(n, now + HOUR) for n in range(3)}
        last = await ledger.write([token(4, now + HOUR)])
        assert follows(await ledger.read(place, 0), place)
        assert place_in(any_server) == last == await ledger.look()

    async def test_members_that_are_no_records_are_skipped_and_told_once(
        self, any_server: RedisServer, open_ledger: OpenLedger, caplog: pytest.LogCaptureFixture, now: int
    ) -> None:
        ledger, record = open_ledger(any_server.url), token(1, now + HOUR)
        await ledger.write([record])
        strangers: dict[bytes, float] = {
            b"": now,
            b"x": now,
            record.member + b"x": now,
            b"\0" + record.member[1:]: now + HOUR,
            b"\x06" + record.member[1:]: now + HOUR,
            token(2, 1).member: float("inf"),
            token(3, 1).member: now + 0.5,
            token(4, 1).member: 2.0**33,
            record.member[:-4] + b"\xff\xff\xff\xff": now,  # its life is longer than its end
        }
        any_server.admin.zadd(LEDGER, strangers)
        with caplog.at_level(logging.ERROR, "oidc_middleware.cache"):
            assert await contents(ledger) == {record}
            assert await contents(ledger) == {record}
        assert ledger.strangers == 2 * (len(strangers) - 1)  # the first is removed by whoever looks
        (told,) = caplog.messages
        assert LEDGER in told

    @pytest.mark.parametrize("score", [float("inf"), 2.0**32, 2.0**62])
    async def test_a_record_with_an_end_that_none_can_have_is_put_right_by_the_next_write(
        self, any_server: RedisServer, open_ledger: OpenLedger, score: float, now: int
    ) -> None:
        ledger, record = open_ledger(any_server.url), token(1, now + HOUR)
        begin = await ledger.look()
        any_server.admin.zadd(LEDGER, {record.member: score})
        await ledger.write([record])
        assert await contents(ledger) == {record}
        (entry,) = await ledger.read(begin, 0)
        assert entry.records == (record,)
