"""A second provider, by other people in another language: its JWTs verified here, and introspected there (RFC 7662)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from oidc_middleware import Issuer
from oidc_middleware.clock import SystemClock
from oidc_middleware.testing import ManualClock

from . import stranger as other
from .answers import assert_scope_missing, assert_token_refused, assert_unavailable
from .conftest import Serve
from .glewlwyd import AUDIENCE, CLIENT, Glewlwyd
from .stranger import Stranger

SETTINGS: dict[str, Any] = {"audience": AUDIENCE, "client_id": CLIENT[0], "client_secret": CLIENT[1]}
ALWAYS: dict[str, Any] = SETTINGS | {"introspection": "always"}


@pytest.fixture(scope="module")
def glewlwyd() -> Iterator[Glewlwyd]:
    """Return the provider that the tests of this module share; nobody may break it."""
    with Glewlwyd() as provider:
        yield provider


@pytest.fixture
def own_glewlwyd() -> Iterator[Glewlwyd]:
    """Return a provider that this test may kill."""
    with Glewlwyd() as provider:
        yield provider


def test_glewlwyds_token_is_an_rfc9068_jwt(glewlwyd: Glewlwyd) -> None:
    """By the judgement of joserfc: header `at+jwt`, the scopes as audience, an issuer with a path."""
    keys: Any = glewlwyd.jwks()
    token = jwt.decode(glewlwyd.client_credentials(), KeySet.import_key_set(keys), algorithms=["RS256"])
    assert (token.header["typ"], token.header["kid"]) == ("at+jwt", "first-RSA")
    claims = {name: token.claims[name] for name in ("iss", "aud", "sub", "client_id", "scope")}
    assert claims == {
        "iss": glewlwyd.issuer,
        "aud": AUDIENCE,
        "sub": "service",
        "client_id": "service",
        "scope": AUDIENCE,
    }


@pytest.mark.parametrize("token_type", ["auto", "at+jwt"])
def test_glewlwyds_jwt_is_verified_here(glewlwyd: Glewlwyd, serve: Serve, token_type: str) -> None:
    """Found by discovery below the issuer's path, with no question about the token."""
    served = serve(issuer=glewlwyd.issuer, audience=AUDIENCE, token_type=token_type)
    seen = served.get("/who", glewlwyd.client_credentials()).json()
    assert (seen["issuer"], seen["subject"], seen["scopes"]) == (glewlwyd.issuer, "service", ["api", "read"])
    user = served.get("/who", glewlwyd.sign_in()["access_token"]).json()
    assert (user["client_id"], user["audience"]) == ("service", AUDIENCE)
    assert user["subject"] not in (None, "service")


@pytest.mark.parametrize("audience", ["api", "read", "api  read", "read api", "https://api.example"])
def test_glewlwyds_audience_is_one_string(glewlwyd: Glewlwyd, serve: Serve, audience: str) -> None:
    """T-aud-joined: what looks like a list of audiences is one, and is compared as such."""
    token = glewlwyd.client_credentials()
    assert_token_refused(serve(issuer=glewlwyd.issuer, audience=audience).get("/who", token), token)


def test_glewlwyd_is_asked_about_jwts(glewlwyd: Glewlwyd, serve: Serve) -> None:
    """`always`: verified here, active there, and scopes decide as ever."""
    served = serve(issuer=glewlwyd.issuer, **ALWAYS)
    token = glewlwyd.client_credentials()
    assert glewlwyd.introspect(token)["active"] is True
    seen = [served.get("/who", token).json() for _ in range(2)]
    assert seen[0] == seen[1]
    assert (seen[0]["subject"], seen[0]["client_id"], seen[0]["jti"] is None) == ("service", "service", False)
    assert served.get("/who", glewlwyd.sign_in()["access_token"]).status_code == httpx2.codes.OK
    assert_scope_missing(served.request("POST", "/admin/x", token), "admin")


def test_glewlwyd_revokes_a_jwt(glewlwyd: Glewlwyd, serve: Serve) -> None:
    """I-revoked: `always` feels it within a minute, `auto` not at all."""
    clock = ManualClock(SystemClock().now())
    # The middleware's time stands still while the provider's goes on, so tokens come from its future.
    asking = serve(issuer=glewlwyd.issuer, clock=clock, leeway=60, **ALWAYS)
    trusting = serve(issuer=glewlwyd.issuer, **SETTINGS)
    known, unseen = glewlwyd.client_credentials(), glewlwyd.client_credentials()
    assert asking.get("/who", known).status_code == httpx2.codes.OK
    for token in (known, unseen):
        glewlwyd.revoke(token)
        assert glewlwyd.introspect(token) == {"active": False}
        assert trusting.get("/who", token).status_code == httpx2.codes.OK
    assert_token_refused(asking.get("/who", unseen), unseen)
    clock.advance(61)
    assert_token_refused(asking.get("/who", known), known)
    assert asking.get("/who", glewlwyd.client_credentials()).status_code == httpx2.codes.OK


def test_glewlwyd_is_asked_about_what_is_no_jwt(glewlwyd: Glewlwyd, serve: Serve) -> None:
    """Refresh tokens are opaque, and called active: their `token_type` says what they are."""
    served = serve(issuer=glewlwyd.issuer, **SETTINGS)
    refresh = glewlwyd.sign_in()["refresh_token"]
    for token in (refresh, "nobody-ever-issued-this-one"):
        assert_token_refused(served.get("/who", token), token)


def test_glewlwyd_refuses_our_client(glewlwyd: Glewlwyd, serve: Serve) -> None:
    """It is the service's fault, and says nothing about the token."""
    served = serve(issuer=glewlwyd.issuer, **(ALWAYS | {"client_secret": "wrong"}))
    assert_unavailable(served.get("/who", glewlwyd.client_credentials()))


def test_glewlwyd_is_gone(own_glewlwyd: Glewlwyd, serve: Serve) -> None:
    """Known tokens get in for their minute; of others nobody knows, though their signature is good."""
    served = serve(issuer=own_glewlwyd.issuer, **ALWAYS)
    known, unknown = own_glewlwyd.client_credentials(), own_glewlwyd.client_credentials()
    assert served.get("/who", known).status_code == httpx2.codes.OK
    own_glewlwyd.stop()
    assert served.get("/who", known).status_code == httpx2.codes.OK
    assert_unavailable(served.get("/who", unknown))


def test_both_providers_are_asked(glewlwyd: Glewlwyd, own_stranger: Stranger, serve: Serve) -> None:
    """Two issuers of two makers that both introspect, with the same key ids: each is asked about its own tokens."""
    shared: dict[str, Any] = {"client_id": "service", "client_secret": "service-secret"}
    served = serve(
        audience=None,
        issuers=[
            Issuer(issuer=glewlwyd.issuer, audience=AUDIENCE, introspection="always", **shared),
            Issuer(issuer=own_stranger.issuer, audience=other.AUDIENCE, **shared),
        ],
    )
    ids = [{key["kid"] for key in provider.jwks()["keys"]} for provider in (glewlwyd, own_stranger)]
    assert ids[0] < ids[1]
    opaque = own_stranger.client_credentials("opaque")
    tokens: dict[str, Glewlwyd | Stranger] = {opaque: own_stranger, own_stranger.client_credentials(): own_stranger}
    tokens[glewlwyd.client_credentials()] = glewlwyd
    for token, provider in tokens.items():
        assert served.get("/who", token).json()["issuer"] == provider.issuer
    assert own_stranger.requests()["/token/introspection"] == 1
    own_stranger.stop()
    assert served.get("/who", glewlwyd.client_credentials()).status_code == httpx2.codes.OK
    assert_unavailable(served.get("/who", "a-token-that-is-of-either"))
