"""The seventeen failures of the cache that this one descends from: each docstring says what that one did.

Nodes are real: memory over sealed entries in a Redis that the tests freeze, fill up and cut off.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from oidc_middleware.cache import TYPES, Entry
from oidc_middleware.errors import BackendUnavailable
from oidc_middleware.testing import ManualClock

from hybrid_kit import Node, OpenNode, fails, opened, stored
from redis_kit import BUDGET, PATIENCE, TOLERANCE, RedisServer, done, end, proxy_of, until
from time_kit import within

pytestmark = pytest.mark.anyio

GENERAL, TOKEN, BLACKLIST = TYPES["general"], TYPES["token"], TYPES["blacklist"]


class Request:
    """What a request keeps in its context."""


REQUEST: ContextVar[Request] = ContextVar("REQUEST")


# ------------------------------------------------------------------------------------------------------------ 1: errors


async def test_01_one_error_does_not_blind_the_node(redis_server: RedisServer, open_node: OpenNode) -> None:
    """The seed left Redis alone for up to 30 s after any one error (Y-fallback-window)."""
    async with proxy_of(redis_server) as proxy:
        node = open_node(proxy.url)
        await node.started()
        await node.hybrid.set(TOKEN, b"k", b"v", end())
        before = node.redis.traffic().read_batches
        proxy.to_client = 0.1
        reading = asyncio.ensure_future(node.hybrid.get(BLACKLIST, b"absent"))
        await until(lambda: node.redis.traffic().read_batches > before)
        await asyncio.sleep(0.02)
        await proxy.cut()
        await fails(reading, "link")
        proxy.to_client = 0.0
        assert not node.hybrid.fallback
        assert await node.hybrid.get(BLACKLIST, b"absent") is None, "the next caller is answered by Redis"


async def test_01_a_cancelled_request_is_no_error(redis_server: RedisServer, open_node: OpenNode) -> None:
    """The seed took a caller's cancelled request for an error of Redis, and left Redis alone for up to 30 s."""
    async with proxy_of(redis_server) as proxy:
        node = open_node(proxy.url)
        await node.hybrid.set(TOKEN, b"k", b"v", end())
        proxy.to_client = 0.05
        for number in range(20):
            request = asyncio.ensure_future(node.hybrid.get(TOKEN, b"%d" % number))
            await asyncio.sleep(0.005)
            request.cancel()
        proxy.to_client = 0.0
        assert await node.hybrid.get(TOKEN, b"absent") is None
        assert node.hybrid.overview().errors == {}
        assert not node.hybrid.fallback


# ----------------------------------------------------------------------------------------------------------- 2: context


async def test_02_a_queued_write_outlives_its_request(redis_server: RedisServer, open_node: OpenNode) -> None:
    """The seed's queued writes kept the request's context: cancelled with it, they failed, and counted as errors."""
    async with proxy_of(redis_server) as proxy:
        node = open_node(proxy.url, budget=PATIENCE)
        proxy.to_server = 0.1

        async def request() -> None:
            await node.hybrid.set(GENERAL, b"k", b"v", end())
            await asyncio.sleep(PATIENCE)

        running = asyncio.create_task(request())
        await until(lambda: node.hybrid.overview().queued == 1)
        running.cancel()
        await until(lambda: redis_server.admin.exists(node.name(GENERAL, b"k")))
        await until(lambda: node.hybrid.overview().queued == 0)
        assert node.hybrid.overview().errors == {}


async def test_02_a_queued_write_keeps_nothing_of_its_request(redis_server: RedisServer, open_node: OpenNode) -> None:
    """The seed's queued writes kept what the request had, for as long as they waited."""
    node = open_node(redis_server.url, budget=PATIENCE)
    redis_server.stop()

    async def request() -> weakref.ref[Request]:
        REQUEST.set(mine := Request())
        await node.hybrid.set(GENERAL, b"k", b"v", end())
        await node.hybrid.set_many(GENERAL, {b"l": Entry(b"v", end()), b"m": Entry(b"v", end())})
        return weakref.ref(mine)

    kept = await asyncio.create_task(request())
    await asyncio.sleep(0)
    gc.collect()
    assert kept() is None
    assert node.hybrid.overview().queued == 3
    redis_server.cont()
    await node.recovered()


# -------------------------------------------------------------------------------------------------------- 3: revocation


async def test_03_a_revocation_during_an_outage_says_so_and_is_made_up_for(
    redis_server: RedisServer, open_node: OpenNode
) -> None:
    """The seed returned success, kept it in memory that evicts, and never told Redis (Y-fallback-writes)."""
    node, other = open_node(redis_server.url, budget=BUDGET), open_node(redis_server.url)
    redis_server.stop()
    await fails(node.hybrid.set(BLACKLIST, b"while it hangs", b"1", end()))
    await opened(node, reads=False)
    await fails(node.hybrid.set(BLACKLIST, b"while it is left alone", b"1", end()))
    for key in (b"while it hangs", b"while it is left alone"):
        assert await node.hybrid.get(BLACKLIST, key) is not None, "the node that was told enforces it"
    assert not BLACKLIST.evictable
    await until(lambda: node.hybrid.overview().unsettled.adds == 2)
    redis_server.cont()
    await node.recovered()
    for key in (b"while it hangs", b"while it is left alone"):
        assert redis_server.admin.exists(node.name(BLACKLIST, key))
        assert await other.hybrid.get(BLACKLIST, key) is not None


# -------------------------------------------------------------------------------------------------------- 4: don't know


async def test_04_do_not_know_is_not_no(redis_server: RedisServer, open_node: OpenNode) -> None:
    """The seed answered "not found" when Redis could not be asked about a revocation."""
    node, other = open_node(redis_server.url, budget=BUDGET), open_node(redis_server.url)
    await other.hybrid.set(BLACKLIST, b"revoked", b"1", end())
    redis_server.stop()
    await fails(node.hybrid.get(BLACKLIST, b"revoked"), "timeout")
    await fails(node.hybrid.exists(BLACKLIST, b"revoked"))
    await fails(node.hybrid.get_many(BLACKLIST, [b"revoked", b"absent"]))
    await opened(node, writes=False)
    for _ in range(3):
        await fails(node.hybrid.get(BLACKLIST, b"revoked"), "timeout")
        assert await node.hybrid.get(TOKEN, b"absent") is None, "a type with another source is a miss"
    redis_server.cont()
    await node.recovered()
    assert await node.hybrid.exists(BLACKLIST, b"revoked")
    assert await node.hybrid.get(BLACKLIST, b"absent") is None


# ----------------------------------------------------------------------------------------------------- 5: PING says yes


@pytest.mark.parametrize("fault", ["full", "readonly"])
async def test_05_a_server_that_answers_ping_and_refuses_to_write_is_not_well(
    redis_server: RedisServer, open_node: OpenNode, fault: str
) -> None:
    """The seed asked PING, left its fallback at every tick, and lost the next revocation."""
    node, other = open_node(redis_server.url), open_node(redis_server.url)
    if fault == "full":
        redis_server.admin.config_set("maxmemory", "1")
    else:
        redis_server.admin.replicaof("127.0.0.1", redis_server.port)
    await opened(node, reads=False)
    await fails(node.hybrid.set(BLACKLIST, b"revoked", b"1", end()), "full" if fault == "full" else "readonly")
    for _ in range(5):
        assert not await node.hybrid.check()
        assert node.hybrid.fallback
    assert (await node.redis.ping()).healthy
    assert await node.hybrid.get(BLACKLIST, b"absent") is None, "reads go on"
    redis_server.admin.config_set("maxmemory", "0")
    redis_server.admin.replicaof("NO", "ONE")
    await node.recovered()
    assert await other.hybrid.get(BLACKLIST, b"revoked") is not None


# ----------------------------------------------------------------------------------------------------------- 6: absence


async def test_06_a_thousand_checks_are_a_handful_of_round_trips(
    redis_server: RedisServer, open_node: OpenNode
) -> None:
    """The seed made a round trip for each check of a token that was not revoked.

    Checks that come together travel together. That they need no round trip at all is for the mirror of revocations.
    """
    node = open_node(redis_server.url, budget=PATIENCE)
    for keys in ([b"jti"] * 1000, [b"jti %d" % number for number in range(1000)]):
        before = node.redis.traffic().read_batches
        checks = await asyncio.gather(*(node.hybrid.exists(BLACKLIST, key) for key in keys))
        assert checks == [False] * 1000
        assert node.redis.traffic().read_batches - before <= 5


# ------------------------------------------------------------------------------------------------------- 7: other nodes


async def test_07_what_one_node_deletes_another_forgets(redis_server: RedisServer, open_node: OpenNode) -> None:
    """The seed served from memory what another node had deleted, for the whole life that it had there."""
    one, other = open_node(redis_server.url), open_node(redis_server.url)
    await asyncio.gather(one.started(), other.started())
    for key in (b"deleted", b"replaced"):
        await one.hybrid.set(GENERAL, key, b"old", end(), wait=True)
        assert await other.hybrid.get(GENERAL, key) is not None
    await one.hybrid.delete(GENERAL, b"deleted")
    await one.hybrid.set(GENERAL, b"replaced", b"new", end(), wait=True)
    await is_served(other, b"deleted", None, seconds=3)
    await is_served(other, b"replaced", b"new", seconds=3)


async def test_07_what_it_deleted_while_another_was_cut_off(redis_server: RedisServer, open_node: OpenNode) -> None:
    """The seed's nodes did not know what they had missed (Y-pubsub-lost)."""
    async with proxy_of(redis_server) as proxy:
        one, other = open_node(redis_server.url), open_node(proxy.url)
        await asyncio.gather(one.started(), other.started())
        await one.hybrid.set(GENERAL, b"k", b"old", end(), wait=True)
        assert await other.hybrid.get(GENERAL, b"k") is not None
        proxy.refuse = True
        await proxy.cut()
        await one.hybrid.delete(GENERAL, b"k")
        await asyncio.sleep(0.2)
        proxy.refuse = False
        await is_served(other, b"k", None, seconds=PATIENCE)


async def is_served(node: Node, key: bytes, value: bytes | None, seconds: float) -> None:
    """Wait until a node answers so."""
    async with asyncio.timeout(seconds):
        while getattr(await node.hybrid.get(GENERAL, key), "value", None) != value:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


# ------------------------------------------------------------------------------------------------------------- 8: order


@pytest.mark.parametrize("many", [False, True])
async def test_08_a_delete_wins_over_a_set_that_is_queued(
    redis_server: RedisServer, open_node: OpenNode, *, many: bool
) -> None:
    """The seed wrote the queued set after the delete, and the key lived again (Y-order)."""
    node, other = open_node(redis_server.url), open_node(redis_server.url)
    for number in range(50):
        key = b"%d" % number
        if many:
            await node.hybrid.set_many(GENERAL, {key: Entry(b"v", end()), b"other": Entry(b"v", end())})
        else:
            await node.hybrid.set(GENERAL, key, b"v", end())
        await node.hybrid.delete(GENERAL, key)
    await node.recovered()
    assert await other.hybrid.get_many(GENERAL, [b"%d" % number for number in range(50)]) == {}
    assert await node.hybrid.get_many(GENERAL, [b"%d" % number for number in range(50)]) == {}


async def test_08_of_a_batch_and_a_queued_set_the_later_one_wins(
    redis_server: RedisServer, open_node: OpenNode
) -> None:
    """The seed sent a batch at once, and the older queued set after it."""
    node, other = open_node(redis_server.url), open_node(redis_server.url)
    keys = [b"%d" % number for number in range(50)]
    for key in keys:
        await node.hybrid.set(GENERAL, key, b"old", end())
    await node.hybrid.set_many(GENERAL, {key: Entry(b"new", end()) for key in keys})
    await node.hybrid.set(GENERAL, keys[0], b"newest", end())
    await node.recovered()
    found = await other.hybrid.get_many(GENERAL, keys)
    assert [found[key].value for key in keys] == [b"newest"] + [b"new"] * 49


# --------------------------------------------------------------------------------------------------------- 9: back-fill


async def test_09_a_read_that_was_overtaken_fills_nothing(redis_server: RedisServer, open_node: OpenNode) -> None:
    """The seed filled memory in the background with what it had read, over a later delete (Y-backfill-race)."""
    async with proxy_of(redis_server) as proxy:
        node, other = open_node(proxy.url), open_node(redis_server.url)
        for key in (b"deleted", b"replaced", b"ended elsewhere"):
            await other.hybrid.set(GENERAL, key, b"old", end(), wait=True)
        await node.started()
        await node.hybrid.get(GENERAL, b"the connection is made")
        before = node.redis.traffic().read_batches
        proxy.to_client = 0.1
        reading = [
            asyncio.ensure_future(node.hybrid.get(GENERAL, key))
            for key in (b"deleted", b"replaced", b"ended elsewhere")
        ]
        await until(lambda: node.redis.traffic().read_batches > before)
        await asyncio.sleep(0.02)
        deleting = asyncio.ensure_future(node.hybrid.delete(GENERAL, b"deleted"))
        await node.hybrid.set(GENERAL, b"replaced", b"new", end())
        node.hybrid.invalidate(GENERAL, b"ended elsewhere")
        await asyncio.gather(*reading)
        for key, value in ((b"deleted", None), (b"replaced", b"new"), (b"ended elsewhere", None)):
            entry = await node.hybrid.memory.get(GENERAL, key)
            assert (entry.value if entry else None) == value
        proxy.to_client = 0.0
        await deleting
        assert await node.hybrid.get(GENERAL, b"deleted") is None


# --------------------------------------------------------------------------------------------------------- 10, 11: time


async def test_10_what_is_read_together_ends_when_it_ends(redis_server: RedisServer, open_node: OpenNode) -> None:
    """The seed's `get_many` filled memory for ever, and a life of half a second or less became an endless one."""
    clock = ManualClock()
    node = open_node(redis_server.url, clock=clock, budget=PATIENCE)
    other = open_node(redis_server.url, clock=clock, budget=PATIENCE)
    ends = {b"%g" % life: clock.now() + life for life in (0.001, 0.25, 0.5, 5.0)}
    await node.hybrid.set_many(GENERAL, {key: Entry(b"v", expires_at) for key, expires_at in ends.items()}, wait=True)
    entries = await other.hybrid.get_many(GENERAL, ends)
    assert entries[b"5"].expires_at == ends[b"5"]
    assert all(entry.expires_at == ends[key] for key, entry in entries.items())
    for key, expires_at in ends.items():
        clock.advance(max(0.0, expires_at - clock.now()))
        assert await other.hybrid.get(GENERAL, key) is None
        assert await other.hybrid.get_many(GENERAL, [key]) == {}
        assert await other.hybrid.memory.get(GENERAL, key) is None


@pytest.mark.parametrize("life", [0.0, -0.001, -1e9])
async def test_10_no_life_is_no_entry(redis_server: RedisServer, open_node: OpenNode, life: float) -> None:
    """The seed stored an entry with a life of zero or less for ever."""
    node = open_node(redis_server.url)
    await node.hybrid.set(GENERAL, b"k", b"old", end(), wait=True)
    await node.hybrid.set(GENERAL, b"k", b"v", end(life), wait=True)
    await node.hybrid.set_many(GENERAL, {b"k": Entry(b"v", end(life)), b"l": Entry(b"v", end(life))}, wait=True)
    assert not await node.hybrid.add(GENERAL, b"l", b"v", end(life))
    assert await node.hybrid.get_many(GENERAL, [b"k", b"l"]) == {}
    assert stored(redis_server) == []


async def test_11_time_in_the_queue_is_part_of_the_life(redis_server: RedisServer, open_node: OpenNode) -> None:
    """The seed began a life anew when the queued write was sent."""
    clock = ManualClock()
    node = open_node(redis_server.url, clock=clock, budget=PATIENCE)
    other = open_node(redis_server.url, clock=clock, budget=PATIENCE)
    redis_server.stop()
    await node.hybrid.set(GENERAL, b"on the wire", b"v", clock.now() + 60)
    await asyncio.sleep(0.01)
    ends = {b"short": clock.now() + 10, b"long": clock.now() + 60}
    await node.hybrid.set_many(GENERAL, {key: Entry(b"v", expires_at) for key, expires_at in ends.items()})
    clock.advance(20)
    redis_server.cont()
    await node.recovered()
    assert 35_000 < redis_server.admin.pttl(node.name(GENERAL, b"long")) <= 40_000
    assert not redis_server.admin.exists(node.name(GENERAL, b"short"))
    entry = await other.hybrid.get(GENERAL, b"long")
    assert entry is not None
    assert entry.expires_at == ends[b"long"]


# ------------------------------------------------------------------------------------------------------------ 12: types


async def test_12_a_batch_of_a_synchronous_type_is_acknowledged(redis_server: RedisServer, open_node: OpenNode) -> None:
    """The seed's batches ignored which types are synchronous: all of them were queued, none failed."""
    node = open_node(redis_server.url, budget=BUDGET)
    entries = {b"%d" % number: Entry(b"v", end()) for number in range(100)}
    for kind in (TOKEN, BLACKLIST):
        await done(partial(node.hybrid.set_many, kind, entries))
        assert redis_server.admin.exists(*(node.name(kind, key) for key in entries)) == 100
    redis_server.stop()
    await node.hybrid.set_many(GENERAL, entries)
    for kind in (TOKEN, BLACKLIST):
        await fails(node.hybrid.set_many(kind, entries))
    redis_server.cont()
    await node.recovered()


async def test_12_a_key_does_not_tell_its_type(redis_server: RedisServer, open_node: OpenNode) -> None:
    """The seed guessed the type from the first ten characters of a key."""
    node = open_node(redis_server.url, budget=BUDGET)
    await done(lambda: node.hybrid.get(GENERAL, b"the connection is made"))
    redis_server.stop()
    with within(BUDGET / 2):  # queued
        await node.hybrid.set(GENERAL, b"blacklist:jti", b"not a revocation", end())
    await fails(node.hybrid.set(TOKEN, b"general:1", b"v", end()))
    redis_server.cont()
    await node.recovered()
    await node.hybrid.set(GENERAL, b"blacklist:jti", b"not a revocation", end(), wait=True)
    assert await node.hybrid.get(BLACKLIST, b"jti") is None
    assert await node.hybrid.get(BLACKLIST, b"blacklist:jti") is None
    assert await node.hybrid.get(GENERAL, b"jti") is None


# ----------------------------------------------------------------------------------------------------------- 13: losses


async def test_13_what_the_queue_has_no_room_for_is_counted_and_made_up_for(
    redis_server: RedisServer, open_node: OpenNode
) -> None:
    """The seed threw away what was queued when Redis failed, and what a full queue could not take, and said nothing."""
    node = open_node(redis_server.url, queue_size=10, budget=BUDGET)
    keys = [b"%d" % number for number in range(50)]
    await done(lambda: node.hybrid.set_many(GENERAL, {key: Entry(b"old", end()) for key in keys}, wait=True))
    redis_server.stop()
    for key in keys:
        await node.hybrid.set(GENERAL, key, b"new", end())
    overview = node.hybrid.overview()
    assert overview.writer.dropped == 40, "sets that became deletes"
    assert overview.queued == 50
    await until(lambda: node.hybrid.overview().queued == 0)
    assert node.hybrid.overview().writer.lost == 50
    assert node.unsettled == (50, 0, 0)
    redis_server.cont()
    await node.recovered()
    assert redis_server.admin.exists(*(node.name(GENERAL, key) for key in keys)) == 0, "no old value is left"


async def test_13_who_waits_for_a_full_queue_is_told(redis_server: RedisServer, open_node: OpenNode) -> None:
    """The seed returned success for what a full queue dropped."""
    node = open_node(redis_server.url, queue_size=10, budget=BUDGET)
    await done(lambda: node.hybrid.get(GENERAL, b"the connection is made"))
    redis_server.stop()
    writing = [asyncio.ensure_future(node.hybrid.set(TOKEN, b"%d" % n, b"v", end())) for n in range(50)]
    results = await asyncio.gather(*writing, return_exceptions=True)
    assert {type(result) for result in results} == {BackendUnavailable}
    assert node.hybrid.overview().writer.lost + node.hybrid.overview().writer.refused <= 50
    redis_server.cont()
    await node.recovered()


# -------------------------------------------------------------------------------------------------------------- 14: end


async def test_14_after_the_end(redis_server: RedisServer, open_node: OpenNode) -> None:
    """The seed panicked at a write after its end, and at a second end."""
    node = open_node(redis_server.url)
    await node.hybrid.set(GENERAL, b"k", b"v", end())
    await asyncio.gather(node.hybrid.close(), node.hybrid.close())
    await node.hybrid.close()
    for kind in (GENERAL, TOKEN):
        with pytest.raises(BackendUnavailable, match="closed"):
            await node.hybrid.set(kind, b"k", b"v", end())
        with pytest.raises(BackendUnavailable, match="closed"):
            await node.hybrid.delete(kind, b"k")
    assert redis_server.admin.exists(node.name(GENERAL, b"k"))


async def test_14_the_end_waits_for_what_is_queued(redis_server: RedisServer, open_node: OpenNode) -> None:
    """The seed closed Redis beneath the writes that it still had."""
    async with proxy_of(redis_server) as proxy:
        proxy.to_client = 0.03
        node = open_node(proxy.url, budget=PATIENCE)
        keys = [b"%d" % number for number in range(900)]
        for key in keys:
            await node.hybrid.set(GENERAL, key, b"v", end())
        await node.hybrid.close()
        assert redis_server.admin.exists(*(node.name(GENERAL, key) for key in keys)) == 900


async def test_14_the_end_is_bounded(redis_server: RedisServer, open_node: OpenNode) -> None:
    """The seed's drain gave up after 5 s and left its worker running; here nothing is left when it returns."""
    others = asyncio.all_tasks()
    node = open_node(redis_server.url, budget=BUDGET)
    await done(lambda: node.hybrid.get(GENERAL, b"the connection is made"))
    redis_server.stop()
    for number in range(900):
        await node.hybrid.set(GENERAL, b"%d" % number, b"v", end())
    with within(5 + TOLERANCE):
        await node.hybrid.close()
    assert asyncio.all_tasks() == others
    redis_server.cont()


# ---------------------------------------------------------------------------------------------------------- 15: batches


async def test_15_readers_of_a_cold_key_share_one_read(redis_server: RedisServer, open_node: OpenNode) -> None:
    """The seed sent one command for each of 500 readers of a key."""
    node, other = open_node(redis_server.url, budget=PATIENCE), open_node(redis_server.url)
    await other.hybrid.set(GENERAL, b"k", b"v", end(), wait=True)
    await node.started()
    await node.hybrid.get(GENERAL, b"the connection is made")
    for keys, most in (([b"k"] * 500, 1), ([b"%d" % number for number in range(500)], 2)):
        before = node.redis.traffic().read_batches
        await asyncio.gather(*(node.hybrid.get(GENERAL, key) for key in keys))
        assert node.redis.traffic().read_batches - before <= most
    assert commands(redis_server, "mget") <= 8


async def test_15_writes_leave_together(redis_server: RedisServer, open_node: OpenNode) -> None:
    """The seed had one worker that made one round trip for each write."""
    node = open_node(redis_server.url)
    for number in range(500):
        await node.hybrid.set(GENERAL, b"%d" % number, b"v", end())
    await node.recovered()
    assert len(stored(redis_server)) == 500
    assert node.redis.traffic().writes.batches <= 6


def commands(server: RedisServer, name: str) -> int:
    """Return how often a server was sent a command."""
    calls: int = server.admin.info("commandstats").get(f"cmdstat_{name}", {"calls": 0})["calls"]
    return calls


# ----------------------------------------------------------------------------------------------------------- 16: values


async def test_16_nobody_changes_what_the_cache_has(redis_server: RedisServer, open_node: OpenNode) -> None:
    """The seed kept references: who changed what he had stored, or got, changed the cache."""
    node, other = open_node(redis_server.url, budget=BUDGET), open_node(redis_server.url)
    redis_server.stop()
    value: Any = bytearray(b"stored")
    many: Any = bytearray(b"stored")
    await node.hybrid.set(GENERAL, b"k", value, end())
    await node.hybrid.set_many(GENERAL, {b"l": Entry(many, end())})
    value[:], many[:] = b"CHANGE", b"CHANGE"
    redis_server.cont()
    await node.recovered()
    for reader in (node, other):
        entries = await reader.hybrid.get_many(GENERAL, [b"k", b"l"])
        assert {key: entry.value for key, entry in entries.items()} == {b"k": b"stored", b"l": b"stored"}
        assert {type(entry.value) for entry in entries.values()} == {bytes}


# ---------------------------------------------------------------------------------------------------------- 17: secrets


async def test_17_neither_redis_nor_the_log_sees_a_token(
    redis_server: RedisServer, open_node: OpenNode, caplog: pytest.LogCaptureFixture
) -> None:
    """The seed's keys in Redis and its log lines were raw tokens."""
    caplog.set_level(logging.DEBUG)
    node = open_node(redis_server.url, budget=BUDGET)
    token, claims = b"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2ln", b'{"sub":"alice"}'
    await done(lambda: node.hybrid.set(TOKEN, token, claims, end()))
    admin = redis_server.admin
    (name,) = stored(redis_server)
    seen = name + admin.get(name)
    redis_server.stop()
    await fails(node.hybrid.set(TOKEN, token, claims, end()))
    await opened(node)
    redis_server.cont()
    await node.recovered()
    lines = caplog.text.encode() + repr(node.hybrid.overview()).encode()
    for secret in (token, token[:20], token[21:40], b"alice", b"sub"):
        assert secret not in seen
        assert secret not in lines
    assert "memory does alone" in caplog.text


async def test_17_what_others_wrote_is_not_trusted(redis_server: RedisServer, open_node: OpenNode) -> None:
    """The seed believed whatever lay in Redis under the name of a token."""
    node, other = open_node(redis_server.url), open_node(redis_server.url)
    await node.hybrid.set(TOKEN, b"mine", b'{"sub":"mallory"}', end())
    await node.hybrid.set(TOKEN, b"admin's", b'{"sub":"admin"}', end())
    admin = redis_server.admin
    admin.set(node.name(TOKEN, b"mine"), admin.get(node.name(TOKEN, b"admin's")))
    admin.set(node.name(TOKEN, b"forged"), b'{"sub":"admin"}')
    assert await other.hybrid.get(TOKEN, b"mine") is None
    assert await other.hybrid.get(TOKEN, b"forged") is None
    assert other.sealer.stats().altered == 1
