"""What is dangerous about a server is told: by `ping`, and once in the log."""

from __future__ import annotations

import logging

import pytest

from oidc_middleware.cache import HybridBackend, MemoryBackend

from redis_kit import CLOCK, OpenRedis, RedisServer

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "allkeys-random", "volatile-ttl"])
async def test_an_evicting_server(
    redis_server: RedisServer, open_redis: OpenRedis, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    """K-redis-evict, Y-evict: a loud warning at the first look, and no second one until something else is wrong."""
    redis_server.admin.config_set("maxmemory-policy", policy)
    backend = HybridBackend(MemoryBackend(CLOCK), open_redis(redis_server.url), clock=CLOCK)
    with caplog.at_level(logging.WARNING):
        assert await backend.check()
        assert await backend.check()
    (warning,) = caplog.records
    assert warning.getMessage() == (
        f"The shared cache is not safe: maxmemory-policy is {policy}, so that it may drop sessions and revocations "
        "for want of room: set it to noeviction"
    )
    assert policy in (await backend.ping()).detail
    caplog.clear()
    redis_server.admin.config_set("maxmemory-policy", "noeviction")
    assert await backend.check()
    assert (await backend.ping()).detail == "shared cache: well"
    redis_server.admin.config_set("maxmemory-policy", policy)
    assert await backend.check()
    assert len(caplog.records) == 1
    await backend.close()


async def test_a_user_who_may_not_look(redis_server: RedisServer, open_redis: OpenRedis) -> None:
    redis_server.admin.config_set("maxmemory-policy", "allkeys-lru")
    redis_server.admin.acl_setuser("app", enabled=True, passwords=["+secret"], keys=["oidc:*"], commands=["+ping"])
    health = await open_redis(redis_server.url.replace("//", "//app:secret@")).ping()
    assert health.healthy
    assert health.detail == ""
