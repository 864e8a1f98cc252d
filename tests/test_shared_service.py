"""The middleware over a shared cache: what nodes spare each other, and what happens when the store is away."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from lifecycle_kit import ask, http_scope, no_task_left, who
from starlette.types import ASGIApp

from oidc_middleware import OIDC, OIDCMiddleware
from oidc_middleware.cache import TYPES
from oidc_middleware.testing import FakeIssuer, faults

from redis_kit import BUDGET, TOLERANCE, RedisServer, end, until
from time_kit import within

pytestmark = pytest.mark.anyio

SECRET = "s" * 32
MakeOIDC = Callable[..., OIDC]


@pytest.fixture
def issuer(fake_issuer_factory: Callable[..., FakeIssuer]) -> FakeIssuer:
    return fake_issuer_factory(algorithms=("ES256",))


@pytest.fixture(params=["redis", "sqlite"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, patient_tiers: None) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/cache.sqlite"
    server: RedisServer = request.getfixturevalue("redis_server")
    return server.url


@pytest.fixture
async def node(issuer: FakeIssuer) -> AsyncIterator[MakeOIDC]:
    """Make nodes of one service, which are stopped in the end."""
    nodes: list[OIDC] = []

    def make(cache: str, **settings: Any) -> OIDC:
        defaults = {"issuer": issuer.url, "audience": issuer.audience, "secret": SECRET}
        nodes.append(OIDC(cache=cache, transport=issuer.transport(), **(defaults | settings)))
        return nodes[-1]

    yield make
    for oidc in nodes:
        await oidc.stop()


def app(oidc: OIDC) -> ASGIApp:
    return OIDCMiddleware(who, oidc=oidc)


async def start_and_stop(oidc: OIDC) -> None:
    """Let go of what belongs to a loop that was closed."""
    async with oidc:
        pass


async def status(oidc: OIDC, token: str) -> int:
    return (await ask(app(oidc), http_scope(token=token))).status


# Together


async def test_a_fleet_asks_the_issuer_once(cache: str, node: MakeOIDC, issuer: FakeIssuer) -> None:
    token = issuer.token("alice")
    for _ in range(3):
        oidc = node(cache)
        assert await status(oidc, token) == 200
        await oidc.stop()
    assert issuer.requests == {"discovery": 1, "jwks": 1}


async def test_a_new_node_works_while_the_issuer_is_down(cache: str, node: MakeOIDC, issuer: FakeIssuer) -> None:
    token = issuer.token("alice")
    first = node(cache)
    assert await status(first, token) == 200
    await first.stop()
    issuer.fault("*", faults.down())
    assert await status(node(cache), token) == 200


@pytest.mark.parametrize(("share", "works"), [("auto", False), ("always", True), ("never", False)])
async def test_which_tokens_are_shared(
    cache: str, node: MakeOIDC, issuer: FakeIssuer, share: str, *, works: bool
) -> None:
    """A second node that can neither get keys nor has them knows what the first one verified, if that was told.

    What the first one verified with keys from memory took no call, so that `auto` does not tell it.
    """
    first, second = node(cache, share_tokens=share), node(cache, share_tokens=share)
    assert await status(first, issuer.token("alice")) == 200
    token = issuer.token("bob")
    assert await status(first, token) == 200
    await first.caches.jwk.clear()
    await first.caches.metadata.clear()
    issuer.fault("*", faults.down())
    assert await status(second, token) == (200 if works else 503)


async def test_a_token_whose_verification_took_a_call_is_shared(cache: str, node: MakeOIDC, issuer: FakeIssuer) -> None:
    first, second = node(cache), node(cache)
    token = issuer.token("alice")
    assert await status(first, token) == 200
    await first.caches.jwk.clear()
    issuer.fault("*", faults.down())
    assert await status(second, token) == 200
    other = issuer.token("bob")
    assert await status(second, other) == 503


async def test_a_shared_verdict_is_about_the_signature_alone(cache: str, node: MakeOIDC, issuer: FakeIssuer) -> None:
    """C-aud-scope: what a token must show is checked by every node for itself."""
    first = node(cache, share_tokens="always")
    second = node(cache, share_tokens="always", audience="https://another.example.com")
    token = issuer.token("alice")
    assert await status(first, token) == 200
    await first.caches.jwk.clear()
    issuer.fault("*", faults.down())
    assert await status(second, token) == 401


async def test_other_secrets_and_other_namespaces_never_meet(cache: str, node: MakeOIDC, issuer: FakeIssuer) -> None:
    """C-keyspace: each asks the issuer for itself."""
    for settings in ({}, {"namespace": "other"}, {"secret": "o" * 32}):
        oidc = node(cache, **settings)
        assert await status(oidc, issuer.token("alice")) == 200
        await oidc.stop()
    assert issuer.requests["jwks"] == 3


async def test_secrets_are_rotated_without_a_call(cache: str, node: MakeOIDC, issuer: FakeIssuer) -> None:
    old, new = "o" * 32, "n" * 32
    for secret in ([old], [old, new], [new, old]):
        oidc = node(cache, secret=secret)
        assert await status(oidc, issuer.token("alice")) == 200
        await oidc.stop()
    assert issuer.requests["jwks"] == 1


# Away


async def test_cold_start_while_redis_is_down_and_it_joins_later(
    redis_server: RedisServer, node: MakeOIDC, issuer: FakeIssuer
) -> None:
    redis_server.kill()
    oidc = node(redis_server.url)
    async with oidc:
        assert await status(oidc, issuer.token("alice")) == 200
        assert not oidc.ready, "nobody knows yet what is revoked"
        redis_server.start()
        await until(lambda: oidc.ready)
        await oidc.caches.backend.set(TYPES["general"], b"k", b"v", end())
        await until(lambda: not oidc.stats()["shared_cache"]["fallback"] and redis_server.admin.dbsize() > 0)


async def test_a_request_waits_for_a_frozen_redis_once(
    redis_server: RedisServer, node: MakeOIDC, issuer: FakeIssuer
) -> None:
    """Y-stop: at a cold start no request waits longer than the budget, though much is looked up."""
    oidc = node(redis_server.url, share_tokens="always")
    token = issuer.token("alice")
    redis_server.stop()
    try:
        with within(BUDGET + 0.1 + TOLERANCE):
            assert await asyncio.gather(*(status(oidc, token) for _ in range(20))) == [200] * 20
        with within(1):  # known tokens do not notice: a hundredth of a second each would be two
            for _ in range(200):
                assert await status(oidc, token) == 200
    finally:
        redis_server.cont()


async def test_known_users_keep_working_while_redis_dies(
    redis_server: RedisServer, node: MakeOIDC, issuer: FakeIssuer
) -> None:
    oidc = node(redis_server.url, share_tokens="always")
    known = issuer.token("alice")
    assert await status(oidc, known) == 200
    redis_server.kill()
    for number in range(20):
        assert await status(oidc, known) == 200
        assert await status(oidc, issuer.token(f"user {number}")) == 200
    assert oidc.stats()["shared_cache"]["fallback"]
    assert oidc.stats()["shared_cache"]["last_error"]


# Life


async def test_it_stops_and_starts_again(cache: str, node: MakeOIDC, issuer: FakeIssuer) -> None:
    oidc = node(cache)
    for _ in range(3):
        async with no_task_left(), oidc:
            assert await status(oidc, issuer.token("alice")) == 200
    assert issuer.requests == {"discovery": 1, "jwks": 1}


def test_one_loop_after_another(redis_server: RedisServer, issuer: FakeIssuer) -> None:
    """D-loop: also when the first loop was closed without a stop."""
    oidc = OIDC(
        issuer=issuer.url,
        audience=issuer.audience,
        cache=redis_server.url,
        secret=SECRET,
        share_tokens="always",
        transport=issuer.transport(),
    )
    for _ in range(3):
        assert asyncio.run(status(oidc, issuer.token("alice"))) == 200
    asyncio.run(start_and_stop(oidc))


def test_a_fork_goes_its_own_way(redis_server: RedisServer, issuer: FakeIssuer) -> None:
    """Workers that are forked from a process which built, but did not start, the service."""
    oidc = OIDC(
        issuer=issuer.url,
        audience=issuer.audience,
        cache=redis_server.url,
        secret=SECRET,
        transport=issuer.transport(),
    )
    children = []
    for _ in range(2):
        child = os.fork()
        if not child:
            code = 1
            try:
                code = int(asyncio.run(status(oidc, issuer.token("alice"))) != 200)
            finally:
                os._exit(code)
        children.append(child)
    assert asyncio.run(status(oidc, issuer.token("alice"))) == 200
    asyncio.run(start_and_stop(oidc))
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
