"""Attacks on issuers that are resolved, shared by tenants, or asked about tokens; each of them once got through."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from introspection_kit import OPAQUE, Asked, good_claims
from introspection_kit import door_of as introspecting_door
from provider_kit import until
from test_issuer_resolver import Place

from oidc_middleware import Issuer, Rule
from oidc_middleware.auth import resolving
from oidc_middleware.testing import ManualClock

from abuse.door import Door, is_503
from abuse.signing import AUDIENCE, ISSUER, NOW, Signer
from tenants_kit import ONE, TEMPLATE, TWO, Documents, common, door_of, issuer_of, refusal, token_of

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


async def trusting(name: str) -> Issuer:
    return Issuer(issuer=name, audience=AUDIENCE)


# Keys that the document gives to somebody else


@pytest.mark.parametrize("place", ["jwks_uri", "metadata", "resolver", "template"])
async def test_a_key_of_another_tenant_signs_for_no_issuer_at_all(place: str, signer: Signer) -> None:
    """Entra ID's documents hold the key of personal accounts (tenant TWO) beside those of a company (tenant ONE)."""
    jwks = json.dumps({"keys": [signer.rsa_jwk(issuer=issuer_of(TWO)), signer.ec_jwk(issuer=TEMPLATE)]}).encode()
    documents = Documents()
    documents.publish(issuer_of(ONE), jwks)
    company: dict[str, Any] = {"issuer": issuer_of(ONE), "discovery_url": None, "tenants": []}
    places: dict[str, dict[str, Any]] = {
        "jwks_uri": company | {"jwks_uri": f"{issuer_of(ONE)}/keys"},
        "metadata": company,
        "template": {"discovery_url": None, "tenants": [ONE]},
        "resolver": company | {"issuer": ISSUER, "issuer_resolver": trusting},
    }
    door = door_of(documents, **places[place])
    assert await refusal(door, token_of(signer, ONE, alg="ES256")) is None
    assert str(await refusal(door, token_of(signer, ONE))).startswith("unknown_key")


# Rules


async def test_a_mapped_tenant_is_read_from_nowhere_else(signer: Signer) -> None:
    """Whose claim `tenant` a user may fill in is not of that tenant where the settings say that `org` names it."""
    door = Door(signer.jwks(), tenant_claim="org", rules=[Rule("/orders", claims={"tenant": "acme"})])
    assert (await door.ask(token=signer.token(claims={"org": "acme"}))).status == 200
    assert (await door.ask(token=signer.token(claims={"tenant": "acme"}))).status == 403
    assert (await door.ask(token=signer.token(claims={"tenant": "acme", "org": ["acme"]}))).status == 403


# Revocations


async def test_no_issuer_is_left_out_where_others_may_be_resolved(signer: Signer) -> None:
    """Who says `alice` and means hers of a resolved issuer must not be told that she is out."""
    alone = Door(signer.jwks())
    await alone.oidc.revoke.subject("alice")
    assert (await alone.ask(token=signer.token())).status == 401
    door = Door(signer.jwks(), issuer_resolver=trusting)
    with pytest.raises(ValueError, match="name one with issuer="):
        await door.oidc.revoke.subject("alice")
    await door.oidc.revoke.subject("alice", issuer=ISSUER)
    assert (await door.ask(token=signer.token())).status == 401
    for oidc in (alone.oidc, door.oidc):
        await oidc.stop()


async def test_a_revoked_token_that_its_issuer_prolongs_stays_revoked(signer: Signer) -> None:
    """Some issuers prolong an opaque token each time that they are asked about it, and so does whoever sends it."""
    clock = ManualClock(NOW)

    def prolonged(_: str) -> dict[str, Any]:
        return {"active": True, **good_claims(), "exp": int(clock.now()) + 300}

    door = introspecting_door(Asked(prolonged), signer, clock=clock)
    assert (await door.ask(token=OPAQUE)).status == 200
    await door.oidc.revoke.token(OPAQUE)
    for _ in range(4):
        clock.advance(290)
        door.oidc.mirror.sweep(clock.now(), 1000)
        assert (await door.ask(token=OPAQUE)).status == 401
    await door.oidc.stop()


@pytest.mark.parametrize(("first", "then"), [("t-1", None), (None, "t-1"), ("t-1", "t-2")])
async def test_a_revoked_token_whose_issuer_names_it_otherwise_stays_revoked(
    first: str | None, then: str | None, signer: Signer
) -> None:
    """I-revoked: what is revoked is the opaque token, whatever `jti` its issuer has for it the next time."""
    claims = {name: value for name, value in good_claims().items() if name != "jti"}
    asked = Asked({"active": True, **claims} | ({} if first is None else {"jti": first}))
    door = introspecting_door(asked, signer)
    assert (await door.ask(token=OPAQUE)).status == 200
    await door.oidc.revoke.token(OPAQUE)
    asked.answer = {"active": True, **claims} | ({} if then is None else {"jti": then})
    door.clock.advance(61)
    assert (await door.ask(token=OPAQUE)).status == 401
    assert (await door.ask(token="another")).status == 200
    assert door.oidc.revocations.check(OPAQUE).status == "revoked"
    await door.oidc.stop()


@pytest.mark.parametrize("kind", ["resolver", "any tenant", "listed tenant"])
async def test_nobody_brings_administrators_along(kind: str, signer: Signer) -> None:
    """C-bl-api-other: whoever may be a customer gives out scopes, and must not revoke what is of other customers."""
    if kind == "resolver":
        documents = Documents()
        documents.publish(issuer_of(TWO), signer.jwks())
        settings: dict[str, Any] = {"issuer": ISSUER, "tenants": [], "issuer_resolver": trusting, "discovery_url": None}
    else:
        documents = common(signer.jwks())
        settings = {"tenants": ["*"] if kind == "any tenant" else [ONE, TWO]}
    door = door_of(documents, admin_scope="admin", **settings)
    token = token_of(signer, TWO, claims={"scope": "admin"})
    expected = 200 if kind == "listed tenant" else 403
    body = json.dumps({"sub": "alice", "issuer": issuer_of(ONE)}).encode()
    json_type = [(b"content-type", b"application/json")]
    answers = [
        await door.ask("/oauth2/revocations", token=token),
        await door.ask("/oauth2/status", token=token),
        await door.ask("/oauth2/revocations", method="POST", token=token, body=body, headers=json_type),
    ]
    assert [answer.status for answer in answers] == [expected] * 3
    assert (await door.ask(token=token)).status == 200
    await door.oidc.stop()


# Answers about tokens


async def test_a_jwt_that_its_issuer_calls_bound_to_a_key_is_refused(signer: Signer) -> None:
    """The binding may stand in the answer only (RFC 8705 §3.2, RFC 9449 §6.2)."""
    asked = Asked({"active": True, **good_claims(), "cnf": {"jkt": "x"}})
    door = introspecting_door(asked, signer, introspection="always")
    assert (await door.ask(token=signer.token())).status == 401


# Issuers that are withdrawn meanwhile


async def test_nobody_is_known_who_was_judged_by_what_held_before(
    signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An issuer is withdrawn while a token of it waits for what other nodes say: it is not kept as a good one."""
    place = Place(signer)
    assert (await place.ask(place.one)).status == 200
    held = place.token(place.one, claims={"jti": "held"})
    shared = place.door.oidc.authenticator._shared
    find = shared.find
    reached, go = asyncio.Event(), asyncio.Event()

    async def slow(source: bytes, token: bytes, payload: bytes) -> float | None:
        reached.set()
        await go.wait()
        return await find(source, token, payload)

    monkeypatch.setattr(shared, "find", slow)
    monkeypatch.setattr(place.entries[place.one].open.trusted.keys, "peek_keys", lambda: None)
    asking = asyncio.create_task(place.door.ask(token=held))
    await reached.wait()
    del place.registry.known[place.one]
    place.clock.advance(resolving.LIFE)
    assert (await place.ask(place.one, claims={"jti": "t-2"})).status == 401
    go.set()
    await asking
    assert (await place.door.ask(token=held)).status == 401


async def test_strangers_keep_no_issuer_trusted(signer: Signer) -> None:
    """A flood of made-up issuers takes all the questions to the resolver, but not those about issuers in use."""
    place = Place(signer)
    token = place.token(place.one)
    assert (await place.door.ask(token=token)).status == 200
    del place.registry.known[place.one]
    place.clock.advance(resolving.LIFE)
    go = asyncio.Event()

    async def before(name: str) -> None:
        if name != place.one:
            await go.wait()

    place.registry.before = before
    flood = [asyncio.create_task(place.ask(issuer_of(f"s{number}"))) for number in range(resolving.MAX_CALLS)]
    await until(lambda: place.registry.under_way == resolving.MAX_CALLS)
    assert (await place.door.ask(token=token)).status == 401
    go.set()
    assert {answer.status for answer in await asyncio.gather(*flood)} == {401}


async def test_nobody_waits_for_a_resolver_that_does_not_end(signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that catches its own cancellation, as some drivers of databases do, keeps its place and nobody besides."""
    monkeypatch.setattr(resolving, "DEADLINE", 0.01)
    monkeypatch.setattr(resolving, "PATIENCE", 0.1)
    place = Place(signer)
    go = asyncio.Event()

    async def before(_: str) -> None:
        while not go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go.wait()

    place.registry.before = before
    assert is_503(await place.ask(place.one))
    go.set()
    await until(lambda: not place.registry.under_way)
    assert (await place.ask(place.one)).status == 200
