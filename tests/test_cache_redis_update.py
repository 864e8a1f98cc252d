"""`update` in Redis: one script, of which no server has to know beforehand."""

from __future__ import annotations

from typing import Any

import pytest

from oidc_middleware.cache import TYPES, Entry, RedisBackend
from oidc_middleware.cache.redis.wire import HEADER_SIZE, UPDATE, seal_end
from oidc_middleware.errors import BackendUnavailable

from redis_kit import PATIENCE, OpenRedis, RedisServer, end

pytestmark = pytest.mark.anyio

SESSION = TYPES["session"]
KEY = "oidc:session:k"
WITHOUT_SCRIPTS = ("+mget", "+getrange", "+set", "+del", "+unlink", "+scan", "+ping", "+client|info", "+client|kill")


@pytest.fixture
def backend(redis_server: RedisServer, open_redis: OpenRedis) -> RedisBackend:
    return open_redis(redis_server.url, budget=PATIENCE)


async def test_a_server_that_forgot_the_script_is_given_it_again(
    redis_server: RedisServer, backend: RedisBackend
) -> None:
    """Y-noscript: nobody loads scripts beforehand, and `SCRIPT FLUSH` harms nobody."""
    await backend.set(SESSION, b"k", b"v", end(), wait=True)
    for version in (1, 2, 3):
        redis_server.admin.script_flush()
        assert await backend.update(SESSION, b"k", b"%d" % version, end(), version)
        assert await backend.update(SESSION, b"k", b"%d" % version, end(), version) is False
    statistics = redis_server.admin.info("commandstats")
    assert (statistics["cmdstat_evalsha"]["calls"], statistics["cmdstat_eval"]["calls"]) == (6, 3)


async def test_an_update_ends_when_it_should(redis_server: RedisServer, backend: RedisBackend) -> None:
    await backend.set(SESSION, b"k", b"v", end(3600), wait=True)
    assert await backend.update(SESSION, b"k", b"w", end(60), 1)
    assert 59_000 < redis_server.admin.pttl(KEY) <= 60_001


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda r: r.rpush(KEY, "v"), id="Y-wrong-type"),
        pytest.param(lambda r: r.set(KEY, b""), id="empty"),
        pytest.param(lambda r: r.set(KEY, b"\x01" + bytes(8) + b"an earlier format"), id="C-keyspace-other-version"),
        pytest.param(lambda r: r.set(KEY, seal_end(b"v", float("nan"))), id="C-serial-nan"),
        pytest.param(lambda r: r.set(KEY, seal_end(b"v", 1.0)), id="ended"),
    ],
)
async def test_what_is_no_entry_is_not_updated(redis_server: RedisServer, backend: RedisBackend, make: Any) -> None:
    make(redis_server.admin)
    assert not await backend.update(SESSION, b"k", b"w", end(), 1)
    assert await backend.get(SESSION, b"k") is None


async def test_who_may_not_run_scripts_can_do_all_else(redis_server: RedisServer, open_redis: OpenRedis) -> None:
    redis_server.admin.execute_command("ACL", "SETUSER", "node", "reset", "on", ">secret", "~oidc:*", *WITHOUT_SCRIPTS)
    backend = open_redis(redis_server.url.replace("redis://", "redis://node:secret@"))
    await backend.set(SESSION, b"k", b"v", end(), wait=True)
    with pytest.raises(BackendUnavailable, match="evalsha") as caught:
        await backend.update(SESSION, b"k", b"w", end(), 1)
    assert caught.value.kind == "auth"
    redis_server.admin.execute_command("ACL", "SETUSER", "node", "+evalsha", "+eval")
    assert await backend.update(SESSION, b"k", b"w", end(), 1)
    redis_server.admin.execute_command("ACL", "SETUSER", "node", "-getrange")
    with pytest.raises(BackendUnavailable):
        await backend.update(SESSION, b"k", b"x", end(), 2)


async def test_a_value_is_looked_at_no_further_than_its_header(
    redis_server: RedisServer, backend: RedisBackend
) -> None:
    """The script knows where the header ends."""
    assert b"0, %d)" % (HEADER_SIZE - 1) in UPDATE
    assert b"< %d then" % HEADER_SIZE in UPDATE
    value = bytes(range(256)) * 100
    await backend.set(SESSION, b"k", value, end(), wait=True)
    assert await backend.update(SESSION, b"k", value[::-1], 5e9, 1)
    assert await backend.get(SESSION, b"k") == Entry(value[::-1], 5e9, 1)


async def test_a_value_that_is_too_large_is_not_sent(redis_server: RedisServer, open_redis: OpenRedis) -> None:
    backend = open_redis(redis_server.url, max_value_bytes=1000)
    await backend.set(SESSION, b"k", b"v", 5e9, wait=True)
    assert not await backend.update(SESSION, b"k", bytes(1000), 5e9, 1)
    assert await backend.get(SESSION, b"k") == Entry(b"v", 5e9)
    assert backend.stats()["session"].refused == 1
