"""What Redis sees of a service: nothing of tokens, subjects, sessions and claims."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lifecycle_kit import ask, http_scope, who

from oidc_middleware import OIDC, OIDCMiddleware
from oidc_middleware.cache import TYPES, HybridBackend, MemoryBackend, RedisBackend, SealedBackend, Sealer
from oidc_middleware.cli.demo.check import check
from oidc_middleware.cli.demo.servers import running
from oidc_middleware.testing import FakeIssuer

from monitor_kit import monitored
from redis_kit import CLOCK, RedisServer, end

pytestmark = pytest.mark.anyio


def dump(server: RedisServer) -> bytes:
    """Return the server's RDB file, uncompressed."""
    server.admin.config_set("rdbcompression", "no")
    server.admin.save()
    return Path(server.directory, "dump.rdb").read_bytes()


def words_of(token: str) -> list[bytes]:
    """Return a token's parts and the values of its claims, as bytes that must not show."""
    parts = token.split(".")
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
    values = [value for value in claims.values() if isinstance(value, str) and len(value) > 3]
    return [word.encode() for word in (*parts, *values)]


async def test_the_demo_shows_nothing(redis_server: RedisServer, capsys: pytest.CaptureFixture[str]) -> None:
    """C-plaintext: neither to `MONITOR` nor in a dump; and there is something that could have shown."""
    with monitored(redis_server) as monitor:
        async with running(0, 0, redis_server.url) as demo:
            assert await check(demo)
            dumped = dump(redis_server)
            names = redis_server.admin.keys("oidc-*:*")
        heard = await monitor.all()
    assert redis_server.admin.dbsize() == 0
    assert {name.split(b":")[1] for name in names} >= {b"metadata", b"jwk"}
    hidden = [b"alice", b"bob", b"carol", b"orders", b"eyJ", b"jwks_uri", demo.issuer.encode(), demo.api.encode()]
    hidden += words_of(demo.token) + words_of(demo.spare)
    for word in hidden:
        assert word not in heard, word
        assert word not in dumped, word
    assert heard.count(b"oidc-") > 2
    assert dumped.count(b"oidc-") >= 2
    assert "went as they must" in capsys.readouterr().out


async def test_a_token_that_is_shared_shows_nothing(
    redis_server: RedisServer, fake_issuer_factory: Callable[..., FakeIssuer]
) -> None:
    issuer = fake_issuer_factory(algorithms=("ES256",))
    token = issuer.token("alice", scope="orders:read")
    with monitored(redis_server) as monitor:
        async with OIDC(
            issuer=issuer.url,
            audience=issuer.audience,
            cache=redis_server.url,
            secret="s" * 32,
            share_tokens="always",
            transport=issuer.transport(),
        ) as oidc:
            assert (await ask(OIDCMiddleware(who, oidc=oidc), http_scope(token=token))).status == 200
        heard = await monitor.all()
    dumped = dump(redis_server)
    assert redis_server.admin.keys("oidc:token:*")
    for word in words_of(token):
        assert word not in heard, word
        assert word not in dumped, word


async def test_no_type_shows_what_it_holds(redis_server: RedisServer) -> None:
    """Sessions and the rest, which no part of the service writes yet: keys and values, queued and awaited."""
    sealed = SealedBackend(RedisBackend(redis_server.url, clock=CLOCK), Sealer(["s" * 32], "oidc"), CLOCK)
    backend = HybridBackend(MemoryBackend(CLOCK), sealed, clock=CLOCK)
    with monitored(redis_server) as monitor:
        for kind in TYPES.values():
            await backend.set(kind, b"session-of-alice", b"sub=alice", end(), wait=True)
            await backend.add(kind, b"another-of-alice", b"sub=alice", end())
            await backend.memory.clear(kind)
            await backend.get_many(kind, [b"session-of-alice", b"unknown-alice"])
            await backend.delete(kind, b"another-of-alice")
        heard = await monitor.all()
    assert redis_server.admin.dbsize() >= len(TYPES)
    assert b"alice" not in heard
    assert b"alice" not in dump(redis_server)
    await backend.close()
