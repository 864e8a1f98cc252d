"""What lies in Redis, who wrote it, and when it ends."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

from oidc_middleware.cache import TYPES, Entry
from oidc_middleware.testing import ManualClock

from redis_kit import (
    CLOCK,
    PATIENCE,
    OpenRedis,
    RedisServer,
    end,
    until,
)

pytestmark = pytest.mark.anyio

TOKEN, GENERAL, BLACKLIST = TYPES["token"], TYPES["general"], TYPES["blacklist"]


class TestWhatLiesInRedis:
    @pytest.mark.parametrize(
        "make",
        [
            pytest.param(lambda r, key: r.rpush(key, "v"), id="Y-wrong-type-list"),
            pytest.param(lambda r, key: r.hset(key, "f", "v"), id="Y-wrong-type-hash"),
            pytest.param(lambda r, key: r.xadd(key, {"f": "v"}), id="Y-wrong-type-stream"),
        ],
    )
    async def test_another_type_is_a_miss(self, redis_server: RedisServer, open_redis: OpenRedis, make: Any) -> None:
        """Y-wrong-type."""
        backend = open_redis(redis_server.url)
        make(redis_server.admin, "oidc:token:k")
        assert await backend.get(TOKEN, b"k") is None
        assert not await backend.exists(TOKEN, b"k")
        assert backend.stats()["token"].misses == 1
        assert not await backend.delete(TOKEN, b"k")
        assert not redis_server.admin.exists("oidc:token:k")
        make(redis_server.admin, "oidc:token:k")
        await backend.set(TOKEN, b"k", b"v", end())
        assert await backend.get(TOKEN, b"k") is not None

    @pytest.mark.parametrize(
        "stored",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"\x02", id="short"),
            pytest.param(b"cos\nsystem\n(S'true'\ntR.", id="C-serial-pickle"),
            pytest.param(b'{"sub": "admin"}' * 9, id="C-serial-json"),
            pytest.param(b"\x03" + bytes(16) + b"v", id="C-keyspace-other-version"),
            pytest.param(b"\x02\x7f\xf8" + bytes(14) + b"v", id="C-serial-nan"),
            pytest.param(b"\x02\x7f\xf0" + bytes(14) + b"v", id="C-serial-endless"),
            pytest.param(b"\x02" + struct.pack(">dQ", 5e9, 2**53) + b"v", id="C-serial-version"),
            pytest.param(bytes(10_000_000), id="C-serial-large"),
        ],
    )
    async def test_what_we_did_not_write_is_a_miss_and_counted(
        self, redis_server: RedisServer, open_redis: OpenRedis, stored: bytes
    ) -> None:
        backend = open_redis(redis_server.url, budget=PATIENCE)
        redis_server.admin.set("oidc:token:k", stored)
        assert await backend.get(TOKEN, b"k") is None
        assert await backend.get_many(TOKEN, [b"k"]) == {}
        assert not await backend.exists(TOKEN, b"k")
        counts = backend.stats()["token"]
        assert (counts.hits, counts.misses, counts.refused) == (0, 2, 2)

    async def test_a_large_value_is_refused_here(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        """Y-big-value: it is not sent, and the value that it should have replaced is gone."""
        backend = open_redis(redis_server.url, max_value_bytes=1_000_000)
        await backend.set(TOKEN, b"k", b"v", end())
        before = redis_server.admin.info()["total_net_input_bytes"]
        await backend.set(TOKEN, b"k", bytes(2_000_000), end())
        assert redis_server.admin.info()["total_net_input_bytes"] - before < 10_000
        assert await backend.get(TOKEN, b"k") is None
        assert backend.stats()["token"].refused == 1

    async def test_two_prefixes_share_one_database(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        """C-keyspace."""
        one, other = open_redis(redis_server.url, prefix=b"one"), open_redis(redis_server.url, prefix=b"other")
        await one.set(TOKEN, b"k", b"1", end())
        assert await other.get(TOKEN, b"k") is None
        await other.set(TOKEN, b"k", b"2", end())
        await one.clear(TOKEN)
        assert await one.get(TOKEN, b"k") is None
        assert await other.get(TOKEN, b"k") is not None

    async def test_clear_leaves_what_looks_like_a_pattern(
        self, redis_server: RedisServer, open_redis: OpenRedis
    ) -> None:
        """C-jti-glob: a prefix is never a pattern."""
        starry = open_redis(redis_server.url, prefix=b"*")
        redis_server.admin.set("oidc:token:k", b"v")
        await starry.set(TOKEN, b"k", b"v", end())
        await starry.clear(TOKEN)
        assert redis_server.admin.keys("*:token:*") == [b"oidc:token:k"]

    async def test_clear_of_5000_keys(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        backend = open_redis(redis_server.url, budget=PATIENCE)
        await backend.set_many(TOKEN, {b"%d" % n: Entry(b"v", end()) for n in range(900)})
        redis_server.admin.mset({f"oidc:token:more-{n}": b"v" for n in range(4100)})
        await backend.clear(TOKEN)
        assert redis_server.admin.keys("oidc:token:*") == []

    async def test_databases(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        one, other = open_redis(redis_server.url), open_redis(redis_server.url[:-1] + "1")
        await one.set(TOKEN, b"k", b"v", end())
        assert await other.get(TOKEN, b"k") is None
        assert await open_redis(redis_server.unix_url + "?db=0").get(TOKEN, b"k") is not None


class TestTime:
    @pytest.mark.parametrize("skew", [-120.0, 120.0])
    async def test_a_node_with_a_wrong_clock(
        self, redis_server: RedisServer, open_redis: OpenRedis, skew: float
    ) -> None:
        """Y-skew: what it writes is there, and ends for everybody when it should."""
        wrong = ManualClock()
        wrong.jump(skew)
        node, other = open_redis(redis_server.url, clock=wrong), open_redis(redis_server.url)
        await node.set(BLACKLIST, b"k", b"1", end(300))
        found = await other.get(BLACKLIST, b"k")
        assert found is not None
        assert found.remaining(CLOCK.now()) == pytest.approx(300, abs=5)
        assert redis_server.admin.pttl("oidc:blacklist:k") == pytest.approx((300 - skew) * 1000, abs=5000)

    async def test_time_in_the_queue_does_not_lengthen_a_life(
        self, redis_server: RedisServer, open_redis: OpenRedis
    ) -> None:
        """Seed 11: the life that Redis is told is computed when the write leaves."""
        clock = ManualClock()
        backend = open_redis(redis_server.url, clock=clock, budget=PATIENCE)
        await backend.set(GENERAL, b"first", b"v", clock.now() + 300, wait=True)
        redis_server.stop()
        on_wire = asyncio.ensure_future(backend.set(GENERAL, b"on wire", b"v", clock.now() + 300, wait=True))
        await until(lambda: backend.traffic().writes.batches == 2)
        late = asyncio.ensure_future(backend.set(GENERAL, b"late", b"v", clock.now() + 300, wait=True))
        ends = asyncio.ensure_future(backend.set(GENERAL, b"ends", b"v", clock.now() + 50, wait=True))
        await asyncio.sleep(0)
        clock.advance(100)
        redis_server.cont()
        await asyncio.gather(on_wire, late, ends)
        assert redis_server.admin.pttl("oidc:general:late") == pytest.approx(200_000, abs=5000)
        assert not redis_server.admin.exists("oidc:general:ends")

    @pytest.mark.parametrize("expires_at", [1e300, 2.0**63, 1e13])
    async def test_an_end_beyond_what_redis_can_count(
        self, redis_server: RedisServer, open_redis: OpenRedis, expires_at: float
    ) -> None:
        """C-bl-expired: no PX error, and the end comes back as it was."""
        backend = open_redis(redis_server.url)
        await backend.set(TOKEN, b"k", b"v", expires_at)
        assert await backend.get(TOKEN, b"k") == Entry(b"v", expires_at)

    async def test_redis_forgets_by_itself(self, redis_server: RedisServer, open_redis: OpenRedis) -> None:
        backend = open_redis(redis_server.url)
        await backend.set(TOKEN, b"k", b"v", end(0.05))
        await until(lambda: not redis_server.admin.exists("oidc:token:k"))
