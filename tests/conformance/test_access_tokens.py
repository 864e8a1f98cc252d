"""Which of a real provider's tokens get in, and what the application sees of them."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from .answers import assert_asks_for_credentials, assert_token_refused
from .conftest import Serve
from .service import Served
from .stranger import AUDIENCE, Stranger

ALGORITHMS = ("rs256", "rs512", "ps256", "es256", "es384", "es512", "eddsa", "ed25519")
PATIENCE_SECONDS = 8


def segments(token: str) -> list[dict[str, Any]]:
    """Return header and payload, unverified."""
    return [json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2]]


def encoded(value: dict[str, Any]) -> str:
    """Return a value as a segment of a compact JWS."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


# ------------------------------------------------------------------------------------------------------------ accepted


@pytest.mark.parametrize("resource", ALGORITHMS)
def test_client_credentials_token_is_accepted(stranger: Stranger, shared_service: Served, resource: str) -> None:
    """The client is the subject, and the application sees the token's claims."""
    token = stranger.client_credentials(resource, "read write")
    answer = shared_service.get("/who", token)
    assert answer.status_code == httpx2.codes.OK, answer.text
    claims = segments(token)[1]
    body = answer.json()
    assert body.pop("identity")
    assert body == {
        "authenticated": True,
        "subject": "service",
        "issuer": stranger.issuer,
        "client_id": "service",
        "scopes": ["read", "write"],
        "audience": AUDIENCE,
        "expires_at": claims["exp"],
        "jti": claims["jti"],
        "path": "/who",
    }


@pytest.mark.parametrize("resource", ["rs256", "es256", "eddsa"])
def test_code_flow_token_is_accepted(stranger: Stranger, shared_service: Served, resource: str) -> None:
    """The user is the subject, the client is the one that the user signed in to."""
    token = stranger.sign_in("alice", resource)["access_token"]
    answer = shared_service.get("/who", token)
    assert answer.status_code == httpx2.codes.OK, answer.text
    assert (answer.json()["subject"], answer.json()["client_id"]) == ("alice", "web")


def test_refreshed_token_is_accepted(stranger: Stranger, shared_service: Served) -> None:
    """An access token from a refresh is as good as the first one, and the first stays good."""
    first = stranger.sign_in("carol")
    second = stranger.refresh(first["refresh_token"])
    assert second["access_token"] != first["access_token"]
    for tokens in (first, second):
        assert shared_service.get("/who", tokens["access_token"]).json()["subject"] == "carol"


def test_strict_token_type_accepts_at_jwt(stranger: Stranger, serve: Serve) -> None:
    """`token_type="at+jwt"` fits a provider that follows RFC 9068."""
    served = serve(issuer=stranger.issuer, token_type="at+jwt")
    assert served.get("/who", stranger.client_credentials()).status_code == httpx2.codes.OK


def test_second_request_is_answered_alike(stranger: Stranger, shared_service: Served) -> None:
    """The known token gets the answer of the unknown one."""
    token = stranger.client_credentials("es256")
    first, second = shared_service.get("/who", token), shared_service.get("/who", token)
    assert first.json() == second.json()


def test_one_of_several_audiences_is_enough(stranger: Stranger, serve: Serve) -> None:
    """Every configured audience is accepted; the tokens name one each."""
    served = serve(issuer=stranger.issuer, audience=[AUDIENCE, "https://other.example/"])
    for resource in ("rs256", "https://other.example/"):
        assert served.get("/who", stranger.client_credentials(resource)).status_code == httpx2.codes.OK


# ------------------------------------------------------------------------------------------------------------- refused


def test_wrong_audience(stranger: Stranger, shared_service: Served) -> None:
    """A token for another resource is refused, good as its signature is (RFC 9068 §4)."""
    token = stranger.client_credentials("https://other.example/")
    assert_token_refused(shared_service.get("/who", token), token)


def test_id_token(stranger: Stranger, shared_service: Served) -> None:
    """An ID token is for the client."""
    token = stranger.sign_in()["id_token"]
    assert_token_refused(shared_service.get("/who", token), token)


def test_id_token_where_its_audience_is_accepted(stranger: Stranger, serve: Serve) -> None:
    """An API that shares its name with the client still refuses the client's ID token (RFC 8725 §3.12)."""
    served = serve(issuer=stranger.issuer, audience=[AUDIENCE, "web"])
    tokens = stranger.sign_in()
    assert_token_refused(served.get("/who", tokens["id_token"]), tokens["id_token"])
    assert served.get("/who", tokens["access_token"]).status_code == httpx2.codes.OK


@pytest.mark.parametrize(
    "settings", [{"token_type": "at+jwt"}, {"client_id": "signed-userinfo"}], ids=["strict", "client"]
)
def test_signed_userinfo_where_its_audience_is_accepted(
    stranger: Stranger, serve: Serve, settings: dict[str, str]
) -> None:
    """A userinfo JWT has no telltale claim; the type, or the client's name as audience, gives it away."""
    served = serve(issuer=stranger.issuer, audience=[AUDIENCE, "signed-userinfo"], **settings)
    tokens = stranger.sign_in(resource=None, scope="openid", client="signed-userinfo")
    userinfo = stranger.userinfo(tokens["access_token"])
    assert userinfo.headers["Content-Type"].startswith("application/jwt")
    assert_token_refused(served.get("/who", userinfo.text), userinfo.text)


def test_opaque_token(stranger: Stranger, shared_service: Served) -> None:
    """An opaque token needs introspection, which is not configured."""
    token = stranger.client_credentials("opaque")
    assert "." not in token
    assert_token_refused(shared_service.get("/who", token), token)


def test_refresh_token(stranger: Stranger, shared_service: Served) -> None:
    """A refresh token is for the token endpoint."""
    token = stranger.sign_in()["refresh_token"]
    assert_token_refused(shared_service.get("/who", token), token)


def test_symmetric_signature(stranger: Stranger, shared_service: Served) -> None:
    """HS256 is nobody's to verify but the issuer's (RFC 8725 §3.1)."""
    token = stranger.client_credentials("hs256")
    assert segments(token)[0]["alg"] == "HS256"
    assert_token_refused(shared_service.get("/who", token), token)


def test_encrypted_token(stranger: Stranger, shared_service: Served) -> None:
    """D-jwe: five segments are a JWE, which is not supported."""
    token = stranger.client_credentials("encrypted")
    assert token.count(".") == 4
    assert_token_refused(shared_service.get("/who", token), token)


def test_algorithm_that_the_service_does_not_list(stranger: Stranger, serve: Serve) -> None:
    """The allow-list is the service's, not the provider's (RFC 8725 §3.1)."""
    served = serve(issuer=stranger.issuer, algorithms=["ES256"])
    assert served.get("/who", stranger.client_credentials("es256")).status_code == httpx2.codes.OK
    for resource in ("rs256", "es384", "eddsa"):
        token = stranger.client_credentials(resource)
        assert_token_refused(served.get("/who", token), token)


def test_same_key_under_another_algorithm_of_its_kind(stranger: Stranger, serve: Serve) -> None:
    """The RSA key that the provider publishes without `alg` signs RS256 here, so PS256 with it is refused."""
    served = serve(issuer=stranger.issuer, algorithms=["RS256"])
    assert served.get("/who", stranger.client_credentials("rs256")).status_code == httpx2.codes.OK
    token = stranger.client_credentials("ps256")
    assert_token_refused(served.get("/who", token), token)


@pytest.mark.parametrize("resource", ["rs256", "es256", "eddsa"])
@pytest.mark.parametrize("part", ["header", "payload", "signature"])
@pytest.mark.parametrize("known", [False, True], ids=["unknown", "known"])
def test_tampered_token(stranger: Stranger, shared_service: Served, resource: str, part: str, known: bool) -> None:
    """One claim more, another type or another signature: refused, also when the true token is known already."""
    token = stranger.client_credentials(resource)
    if known:
        assert shared_service.get("/who", token).status_code == httpx2.codes.OK
    header, payload, signature = token.split(".")
    claims = segments(token)
    other_signature = stranger.client_credentials(resource).split(".")[2]
    forged = {
        "header": f"{encoded(claims[0] | {'x': 1})}.{payload}.{signature}",
        "payload": f"{header}.{encoded(claims[1] | {'scope': 'admin'})}.{signature}",
        "signature": f"{header}.{payload}.{other_signature}",
    }[part]
    assert_token_refused(shared_service.get("/who", forged), forged)


@pytest.mark.parametrize("resource", ["rs256", "es256", "eddsa"])
def test_unsigned_copy(stranger: Stranger, shared_service: Served, resource: str) -> None:
    """T-alg-none: the claims of a good token without its signature."""
    _, payload, _ = stranger.client_credentials(resource).split(".")
    for algorithm in ("none", "None"):
        forged = f"{encoded({'alg': algorithm, 'typ': 'at+jwt'})}.{payload}."
        assert_token_refused(shared_service.get("/who", forged), payload)


def test_foreign_key_under_the_providers_kid(stranger: Stranger, shared_service: Served) -> None:
    """The provider's header and claims, signed by somebody else."""
    header, claims = segments(stranger.client_credentials("es256"))
    forged = jwt.encode(header, claims, ECKey.generate_key("P-256"))
    assert_token_refused(shared_service.get("/who", forged), forged)


def test_dpop_bound_token_as_bearer(stranger: Stranger, shared_service: Served) -> None:
    """H-cnf-as-bearer: a token that is bound to a key is nothing without its proof (RFC 9449 §7.2)."""
    key = ECKey.generate_key("P-256")
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": key.as_dict(private=False)}
    proof = jwt.encode(
        header, {"htm": "POST", "htu": f"{stranger.issuer}/token", "iat": int(time.time()), "jti": "one"}, key
    )
    token = stranger.client_credentials("rs256", dpop=proof)
    assert "jkt" in segments(token)[1]["cnf"]
    assert_token_refused(shared_service.get("/who", token), token)


def test_dpop_scheme(stranger: Stranger, shared_service: Served) -> None:
    """H-dpop-scheme: another scheme is no bearer token, so the answer asks for one."""
    token = stranger.client_credentials()
    assert_asks_for_credentials(shared_service.get("/who", Authorization=f"DPoP {token}"))


def test_expiry_ends_a_known_token(stranger: Stranger, serve: Serve) -> None:
    """A token of two seconds: accepted, known, and refused from its expiry on, with leeway 0."""
    served = serve(issuer=stranger.issuer, leeway=0)
    token = stranger.client_credentials("short")
    expires_at = segments(token)[1]["exp"]
    answer = served.get("/who", token)
    assert answer.status_code == httpx2.codes.OK, answer.text
    while answer.status_code == httpx2.codes.OK:
        asked_at = time.time()
        assert asked_at < expires_at + PATIENCE_SECONDS, "still accepted"
        answer = served.get("/who", token)
        assert answer.status_code != httpx2.codes.OK or asked_at < expires_at
    assert time.time() >= expires_at
    assert_token_refused(answer, token)


def test_leeway_prolongs_a_token(stranger: Stranger, serve: Serve) -> None:
    """The same token is refused without leeway and accepted with it, once it is past its expiry."""
    strict, lenient = serve(issuer=stranger.issuer, leeway=0), serve(issuer=stranger.issuer, leeway=60)
    token = stranger.client_credentials("short")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while strict.get("/who", token).status_code == httpx2.codes.OK:
        assert time.monotonic() < deadline, "still accepted"
    assert_token_refused(strict.get("/who", token), token)
    assert lenient.get("/who", token).status_code == httpx2.codes.OK
