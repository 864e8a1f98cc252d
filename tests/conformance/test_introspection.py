"""Opaque tokens of a real provider, which is asked about them (RFC 7662)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from oidc_middleware.clock import SystemClock
from oidc_middleware.testing import ManualClock

from .answers import assert_scope_missing, assert_token_refused, assert_unavailable
from .conftest import Serve
from .stranger import AUDIENCE, Stranger

CLIENT: dict[str, Any] = {"client_id": "service", "client_secret": "service-secret"}


@pytest.fixture(params=["client_secret_basic", "client_secret_post", "private_key_jwt"])
def client(request: pytest.FixtureRequest, stranger: Stranger, tmp_path: Path) -> dict[str, Any]:
    """Return the settings of a client that proves in this way who it is."""
    if request.param == "client_secret_basic":
        return CLIENT
    if request.param == "client_secret_post":
        return {
            "client_id": "api-posting",
            "client_secret": "api-posting-secret",
            "client_auth_method": "client_secret_post",
        }
    key = tmp_path / "client.pem"
    key.write_text(stranger.client_key())
    return {
        "client_id": "api-keyed",
        "client_key_file": key,
        "client_key_id": "c1",
        "client_auth_method": "private_key_jwt",
    }


def test_client_token_has_no_subject(stranger: Stranger, serve: Serve, client: dict[str, Any]) -> None:
    """The provider says nothing of a subject where a client acts for itself."""
    served = serve(issuer=stranger.issuer, **client)
    token = stranger.client_credentials("opaque")
    seen = [served.get("/who", token).json() for _ in range(2)]
    assert seen[0] == seen[1]
    assert (seen[0]["subject"], seen[0]["client_id"]) == (None, "service")
    assert (seen[0]["audience"], seen[0]["scopes"]) == (AUDIENCE, ["read"])
    assert seen[0]["identity"] == f"{stranger.issuer}#service"


def test_user_token(stranger: Stranger, serve: Serve) -> None:
    """A user's opaque token has its subject, and its scopes decide."""
    served = serve(issuer=stranger.issuer, **CLIENT)
    token = stranger.sign_in(resource="opaque")["access_token"]
    assert "." not in token
    assert served.get("/who", token).json()["subject"] == "alice"
    assert_scope_missing(served.request("POST", "/admin/x", token), "admin")


def test_it_is_asked_once(own_stranger: Stranger, serve: Serve) -> None:
    """A known opaque token is not asked about again."""
    served = serve(issuer=own_stranger.issuer, **CLIENT)
    token = own_stranger.client_credentials("opaque")
    for _ in range(20):
        assert served.get("/who", token).status_code == httpx2.codes.OK
    assert own_stranger.requests()["/token/introspection"] == 1


def test_refresh_token_is_no_access_token(stranger: Stranger, serve: Serve) -> None:
    """The provider calls it active, for it can introspect refresh tokens too."""
    served = serve(issuer=stranger.issuer, **CLIENT)
    token = stranger.sign_in(resource="opaque")["refresh_token"]
    assert_token_refused(served.get("/who", token), token)


@pytest.mark.parametrize("audience", ["require", "trust"])
def test_no_audience(audience: str, stranger: Stranger, serve: Serve) -> None:
    """A token for userinfo names no resource."""
    served = serve(issuer=stranger.issuer, introspection_audience=audience, **CLIENT)
    token = stranger.sign_in(resource=None, scope="openid")["access_token"]
    if audience == "require":
        assert_token_refused(served.get("/who", token), token)
    else:
        seen = served.get("/who", token).json()
        assert (seen["subject"], seen["audience"]) == ("alice", None)


def test_unknown_token(stranger: Stranger, serve: Serve) -> None:
    """What nobody issued is not active."""
    served = serve(issuer=stranger.issuer, **CLIENT)
    assert_token_refused(served.get("/who", "nobody-ever-issued-this-one"), "nobody-ever-issued-this-one")


def test_revoked_at_the_provider(stranger: Stranger, serve: Serve) -> None:
    """It is felt within a minute."""
    clock = ManualClock(SystemClock().now())
    # The middleware's time stands still while the provider's goes on, so tokens come from its future.
    served = serve(issuer=stranger.issuer, clock=clock, leeway=60, **CLIENT)
    token = stranger.client_credentials("opaque")
    assert served.get("/who", token).status_code == httpx2.codes.OK
    stranger.revoke(token)
    clock.advance(61)
    assert_token_refused(served.get("/who", token), token)


def test_wrong_secret(stranger: Stranger, serve: Serve) -> None:
    """It is the service's fault, and says nothing about the token."""
    served = serve(issuer=stranger.issuer, client_id="service", client_secret="wrong")
    assert_unavailable(served.get("/who", stranger.client_credentials("opaque")))


def test_provider_is_gone(own_stranger: Stranger, serve: Serve) -> None:
    """Known tokens get in for their minute; of others nobody knows."""
    served = serve(issuer=own_stranger.issuer, **CLIENT)
    known, unknown = own_stranger.client_credentials("opaque"), own_stranger.client_credentials("opaque")
    assert served.get("/who", known).status_code == httpx2.codes.OK
    own_stranger.stop()
    assert served.get("/who", known).status_code == httpx2.codes.OK
    assert_unavailable(served.get("/who", unknown))
