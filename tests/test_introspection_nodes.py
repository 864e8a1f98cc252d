"""Opaque tokens on several nodes, and what is revoked here whatever the issuer says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from introspection_kit import CLIENT, OPAQUE, Asked, door_of
from lifecycle_kit import ask, http_scope, who

from oidc_middleware import OIDC, OIDCMiddleware
from oidc_middleware.errors import Inactive, Revoked
from oidc_middleware.testing import FakeIssuer

from abuse.signing import Signer, good_claims
from redis_kit import RedisServer, until

pytestmark = pytest.mark.anyio

MakeNode = Callable[..., OIDC]


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture
def issuer(fake_issuer_factory: Callable[..., FakeIssuer]) -> FakeIssuer:
    issuer = fake_issuer_factory(algorithms=("ES256",))
    issuer.client("orders-api", secret="s3cret of the api")
    return issuer


@pytest.fixture
async def node(issuer: FakeIssuer, tmp_path: Path, patient_tiers: None) -> AsyncIterator[MakeNode]:
    """Make nodes of one service, each on a host of its own; they are stopped in the end."""
    nodes: list[OIDC] = []

    def make(cache: str, **settings: Any) -> OIDC:
        defaults: dict[str, Any] = {
            "issuer": issuer.url,
            "audience": issuer.audience,
            "secret": "s" * 32,
            "journal": tmp_path / f"{len(nodes)}.journal",
        } | CLIENT
        nodes.append(OIDC(cache=cache, transport=issuer.transport(), **(defaults | settings)))
        return nodes[-1]

    yield make
    for oidc in nodes:
        await oidc.stop()
        await oidc.caches.close()


async def status(oidc: OIDC, token: str) -> int:
    return (await ask(OIDCMiddleware(who, oidc=oidc), http_scope(token=token))).status


async def loaded(*nodes: OIDC) -> None:
    for oidc in nodes:
        await oidc.start()
    await until(lambda: all(oidc.ready for oidc in nodes))


# Several nodes


async def test_64_at_once_on_three_nodes_are_one_question(cache: str, node: MakeNode, issuer: FakeIssuer) -> None:
    """I-concurrent, on a fleet."""
    nodes = [node(cache) for _ in range(3)]
    await loaded(*nodes)
    token = issuer.opaque_token()
    found = await asyncio.gather(*(status(nodes[number % 3], token) for number in range(64)))
    assert found == [200] * 64
    assert issuer.requests["introspect"] == 1


async def test_what_one_node_was_told_others_need_not_ask(cache: str, node: MakeNode, issuer: FakeIssuer) -> None:
    first, second = node(cache), node(cache)
    await loaded(first, second)
    good, bad = issuer.opaque_token(), "nobody-knows-this"
    assert (await status(first, good), await status(first, bad)) == (200, 401)
    assert (await status(second, good), await status(second, bad)) == (200, 401)
    assert issuer.requests["introspect"] == 2


async def test_another_client_asks_itself(cache: str, node: MakeNode, issuer: FakeIssuer) -> None:
    """I-cross-client: what the issuer tells one client, or about one audience, it may not tell another."""
    issuer.client("other-api", secret="another secret")
    other = {"client_id": "other-api", "client_secret": "another secret"}
    nodes = [node(cache), node(cache, **other), node(cache, audience=[issuer.audience, "x"])]
    await loaded(*nodes)
    token = issuer.opaque_token()
    for number, oidc in enumerate(nodes, 1):
        assert await status(oidc, token) == 200
        assert issuer.requests["introspect"] == number
    issuer.grants.revoke(token)
    foreign = node(cache, audience="x")
    await loaded(foreign)
    assert await status(foreign, token) == 401


async def test_without_its_store_a_node_asks_the_issuer(
    redis_server: RedisServer, node: MakeNode, issuer: FakeIssuer
) -> None:
    oidc = node(redis_server.url)
    await loaded(oidc)
    redis_server.kill()
    assert await status(oidc, issuer.opaque_token()) == 200
    assert await status(oidc, "nobody-knows-this") == 401


async def test_a_revocation_here_holds_on_every_node(cache: str, node: MakeNode, issuer: FakeIssuer) -> None:
    """The issuer calls the tokens active all the time."""
    first, second = node(cache), node(cache)
    await loaded(first, second)
    for kind in ("token", "jti", "session", "subject", "client"):
        claims = {} if kind == "jti" else {"sid": f"session-{kind}"}
        omit = ("jti",) if kind == "token" else ()
        token = issuer.opaque_token(f"subject-{kind}", client_id=f"client-{kind}", claims=claims, omit=omit)
        for oidc in (first, second):
            assert await status(oidc, token) == 200
        if kind in ("token", "jti"):
            assert await first.revoke.token(token) == "shared"
        else:
            assert await getattr(first.revoke, kind)(f"{kind}-{kind}") == "shared"
        assert await status(first, token) == 401
        principal = await second.authenticator.verify(token.encode())
        marks = second.mirror.ledger.keys.marks(principal.claims, principal.signing_input)
        await until(lambda marks=marks: second.mirror.ledger.refuses(marks))
        assert await status(second, token) == 401
        assert await status(second, issuer.opaque_token()) == 200


# One node


async def test_a_revocation_beats_an_answer_under_way(signer: Signer) -> None:
    asked = Asked({"active": True, **good_claims()})
    door = door_of(asked, signer)
    release = asyncio.Event()
    asked.before = release.wait
    waiting = asyncio.ensure_future(door.ask(token=OPAQUE))
    await until(lambda: asked.asked)
    assert await door.oidc.revoke.subject("alice") == "local"
    release.set()
    answer = await waiting
    assert (answer.status, answer.seen) == (401, None)
    assert len(asked.asked) == 1


async def test_a_revoked_token_costs_no_question(signer: Signer) -> None:
    asked = Asked({"active": True, **good_claims()})
    door = door_of(asked, signer)
    assert (await door.ask(token=OPAQUE)).status == 200
    await door.oidc.revoke.token(OPAQUE)
    for _ in range(3):
        assert (await door.ask(token=OPAQUE)).status == 401
    assert len(asked.asked) == 1
    with pytest.raises(Revoked):
        await door.oidc.authenticator.authenticate(b"Bearer " + OPAQUE.encode())


@pytest.mark.parametrize("token", [OPAQUE, "with.two.dots", "v2.local.QAxIpVe"])
async def test_a_token_without_a_name_is_revoked_by_all_of_it(token: str, signer: Signer) -> None:
    """A part of an opaque token is not its name: others may have that in common with it."""
    claims = {name: value for name, value in good_claims().items() if name != "jti"}
    asked = Asked({"active": True, **claims})
    door = door_of(asked, signer)
    answer = await door.ask(token=token)
    assert answer.seen is not None
    await door.oidc.revoke.token(answer.seen["user"])
    assert (await door.ask(token=token)).status == 401
    assert (await door.ask(token=token + "x")).status == 200
    assert (await door.ask(token="x" + token)).status == 200


async def test_a_token_without_an_end_stays_revoked(signer: Signer) -> None:
    claims = {name: value for name, value in good_claims().items() if name not in ("jti", "exp", "iat")}
    door = door_of(Asked({"active": True, **claims}), signer, max_token_life=3600)
    assert (await door.ask(token=OPAQUE)).status == 200
    await door.oidc.revoke.token(OPAQUE)
    door.clock.advance(400 * 86_400)
    door.oidc.mirror.sweep(door.clock.now(), 1000)
    assert (await door.ask(token=OPAQUE)).status == 401


async def test_what_is_not_active_needs_no_revocation(signer: Signer) -> None:
    door = door_of(Asked({"active": False}), signer)
    with pytest.raises(Inactive):
        await door.oidc.revoke.token(OPAQUE)


async def test_a_service_that_stops_ends_its_questions_and_begins_anew(signer: Signer) -> None:
    asked = Asked({"active": True, **good_claims()})
    door = door_of(asked, signer)
    await door.oidc.start()
    never = asyncio.Event()
    asked.before = never.wait
    waiting = asyncio.ensure_future(door.ask(token=OPAQUE))
    await until(lambda: asked.asked)
    await door.oidc.stop()
    assert (await waiting).status == 503
    asked.before = None
    assert (await door.ask(token=OPAQUE)).status == 200


# A real issuer, in this process


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_the_issuer_knows_our_client(method: Any, issuer: FakeIssuer) -> None:
    oidc = OIDC(
        issuer=issuer.url,
        audience=issuer.audience,
        client_id="orders-api",
        client_secret="s3cret of the api",
        client_auth_method=method,
        transport=issuer.transport(),
    )
    assert await status(oidc, issuer.opaque_token()) == 200
    assert await status(oidc, issuer.opaque_token(audience="other")) == 401
    assert await status(oidc, issuer.opaque_token(expires_in=-1)) == 401
    token = issuer.opaque_token()
    issuer.grants.revoke(token)
    assert await status(oidc, token) == 401


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_any_secret_arrives_as_it_is(method: Any, issuer: FakeIssuer) -> None:
    """RFC 6749 §2.3.1: encoded twice in the header."""
    issuer.client("api: 1", secret="a&b=c d%+:é")
    oidc = OIDC(
        issuer=issuer.url,
        audience=issuer.audience,
        client_id="api: 1",
        client_secret="a&b=c d%+:é",
        client_auth_method=method,
        transport=issuer.transport(),
    )
    assert await status(oidc, issuer.opaque_token()) == 200


async def test_a_wrong_secret_is_our_fault_and_not_the_token_s(issuer: FakeIssuer) -> None:
    oidc = OIDC(
        issuer=issuer.url,
        audience=issuer.audience,
        client_id="orders-api",
        client_secret="wrong",
        transport=issuer.transport(),
    )
    assert await status(oidc, issuer.opaque_token()) == 503
