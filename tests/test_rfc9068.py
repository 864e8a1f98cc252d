"""RFC 9068, the JWT profile for access tokens: each MUST of §2 and §4 that a resource server can keep or see kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oidc_middleware.errors import ClaimError, TokenError

from abuse.door import Door
from abuse.signing import AUDIENCE, ISSUER, NOW, Signer, b64, good_claims

pytestmark = pytest.mark.anyio

Token = dict[str, Any]


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


def told(error: TokenError) -> str:
    return f"{error.claim} {error.reason}" if isinstance(error, ClaimError) else error.code


def kept(*omit: str, **claims: Any) -> Token:
    return {"claims": claims, "omit": omit}


@pytest.mark.parametrize(
    "token",
    [
        pytest.param({}, id="4-typ-at+jwt"),
        pytest.param({"header": {"typ": "application/at+jwt"}}, id="4-typ-application"),
        pytest.param({"header": {"typ": "AT+JWT"}}, id="2.1-typ-any-case"),
        pytest.param({"alg": "RS256"}, id="2.1-rs256-is-supported"),
        pytest.param({"alg": "ES256"}, id="2.1-another-asymmetric-algorithm"),
        pytest.param(kept(aud=["https://other.example", AUDIENCE]), id="4-aud-one-of-several"),
        pytest.param(kept(sub="client-a"), id="2.2-sub-is-the-client"),
        pytest.param(kept(auth_time=int(NOW) - 60, acr="0", amr=["pwd", "otp"]), id="2.2.1-authentication"),
        pytest.param(kept(email="a@example.com", email_verified=True), id="2.2.2-identity"),
        pytest.param(kept(roles=["a"], groups=["b"], entitlements=["c"]), id="2.2.3.1-authorization"),
        # Required of issuers; §4 does not ask resource servers to refuse without them, and some issuers leave them out.
        pytest.param(kept("client_id"), id="2.2-client_id-absent"),
        pytest.param(kept("jti"), id="2.2-jti-absent"),
        pytest.param(kept("iat"), id="2.2-iat-absent"),
    ],
)
async def test_accepted(token: Token, signer: Signer) -> None:
    answer = await Door(signer.jwks(), token_type="at+jwt").ask(token=signer.token(**token))
    assert answer.status == 200
    expected = good_claims(**token.get("claims", {}))
    assert json.loads(answer.body) == {name: expected[name] for name in expected if name not in token.get("omit", ())}
    assert answer.seen is not None
    assert answer.seen["user"].scopes == {"orders:read"}


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        pytest.param({"omit_header": ("typ",)}, "typ missing", id="4-typ-missing"),
        pytest.param({"header": {"typ": "JWT"}}, "typ mismatch", id="4-typ-jwt"),
        pytest.param({"header": {"typ": "at+jwt; x=1"}}, "typ mismatch", id="4-typ-parameter"),
        pytest.param({"header": {"typ": "application/jwt"}}, "typ mismatch", id="4-typ-other"),
        pytest.param({"header": {"alg": "none"}}, "algorithm_not_allowed", id="2.1-4-alg-none"),
        pytest.param({"alg": "HS256", "key": b"secret"}, "algorithm_not_allowed", id="2.1-alg-symmetric"),
        pytest.param({"key": "evil"}, "bad_signature", id="4-signature"),
        pytest.param({"header": {"kid": "other"}}, "unknown_key", id="4-not-a-key-of-the-issuer"),
        pytest.param(kept("iss"), "iss missing", id="2.2-iss-absent"),
        pytest.param(kept(iss=ISSUER + "/"), "iss mismatch", id="4-iss-exact"),
        pytest.param(kept("aud"), "aud missing", id="2.2-aud-absent"),
        pytest.param(kept(aud="https://other.example"), "aud mismatch", id="4-aud-for-somebody-else"),
        pytest.param(kept(aud=[]), "aud mismatch", id="4-aud-for-nobody"),
        pytest.param(kept("exp"), "exp missing", id="2.2-exp-absent"),
        pytest.param(kept(exp=int(NOW) - 1), "exp expired", id="4-exp"),
        pytest.param(kept("sub"), "sub missing", id="2.2-sub-absent"),
        pytest.param(kept(client_id=7), "client_id invalid", id="2.2-client_id"),
        pytest.param(kept(jti=7), "jti invalid", id="2.2-jti"),
        pytest.param(kept(iat="now"), "iat invalid", id="2.2-iat"),
        pytest.param(kept(scope=7), "scope invalid", id="2.2.3-scope"),
    ],
)
async def test_refused(token: Token, expected: str, signer: Signer) -> None:
    if token.get("key") == "evil":
        token = {"key": signer.evil}
    door, text = Door(signer.jwks(), token_type="at+jwt"), signer.token(**token)
    with pytest.raises(TokenError) as caught:
        await door.oidc.authenticator.authenticate(b"Bearer " + text.encode())
    assert told(caught.value) == expected
    answer = await door.ask(token=text)
    assert (answer.status, answer.seen) == (401, None)
    assert answer.challenge is not None
    assert 'error="invalid_token"' in answer.challenge, "§4: any failure, as RFC 6750 §3.1 says"


async def test_4_an_encrypted_token_is_refused(signer: Signer) -> None:
    """No encryption is negotiated with the issuer, so nobody should send one."""
    header = b64(json.dumps({"alg": "RSA-OAEP", "enc": "A256GCM", "typ": "at+jwt"}).encode())
    door = Door(signer.jwks(), token_type="at+jwt")
    with pytest.raises(TokenError) as caught:
        await door.oidc.authenticator.authenticate(f"Bearer {header}.a.b.c.d".encode())
    assert caught.value.code == "malformed"


@pytest.mark.parametrize(("leeway", "after", "status"), [(0, 0, 401), (30, 29.9, 200), (30, 30, 401), (300, 299, 200)])
async def test_4_some_leeway_of_a_few_minutes(leeway: float, after: float, status: int, signer: Signer) -> None:
    door = Door(signer.jwks(), token_type="at+jwt", leeway=leeway)
    token = signer.token(claims={"exp": int(NOW) + 1})
    door.clock.advance(1 + after)
    assert (await door.ask(token=token)).status == status


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (["admin", "auditor"], {"admin", "auditor"}),
        ([{"value": "admin", "display": "Administrator"}, {"value": "auditor", "primary": True}], {"admin", "auditor"}),
        (["admin", {"value": "auditor"}], {"admin", "auditor"}),
        ([{"display": "admin"}], set()),
        ([{"value": ["admin"]}], set()),
        ([{"value": "admin"}, {"value": 7}], set()),
        ({"value": "admin"}, set()),
        ([], set()),
    ],
)
@pytest.mark.parametrize("name", ["roles", "groups"])
async def test_2_2_3_1_groups_and_roles_as_scim_writes_them(
    name: str, roles: Any, expected: set[str], signer: Signer
) -> None:
    """RFC 7643 §4.1.2; a list that holds anything else is none, for nobody knows what was meant."""
    answer = await Door(signer.jwks(), token_type="at+jwt").ask(token=signer.token(claims={name: roles}))
    assert answer.seen is not None
    assert getattr(answer.seen["user"], name) == expected
