"""What an ID token must say: OpenID Connect Core §3.1.3.7 and §12.2, rule by rule."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware.core import verify
from oidc_middleware.core.id_token import Asked, ExpectedIDToken, check_login, check_refreshed, half_hash
from oidc_middleware.core.jws import JWS
from oidc_middleware.core.signature import ALGORITHMS
from oidc_middleware.core.verify import Unverified
from oidc_middleware.errors import AlgorithmNotAllowed, ClaimError, Malformed, TokenError
from oidc_middleware.testing import FakeIssuer, ManualClock

NOW = 1_800_000_000.0
ISSUER = "https://issuer.example"
EXPECTED = ExpectedIDToken(ISSUER, "app", frozenset(ALGORITHMS), 0)
ASKED = Asked("n0nce", "the-access-token", "the-code")
CLAIMS: dict[str, Any] = {
    "iss": ISSUER, "aud": "app", "sub": "alice", "exp": NOW + 300, "iat": NOW, "nonce": "n0nce",
}  # fmt: skip
HEADER: dict[str, Any] = {"alg": "RS256", "kid": "k"}
ABSENT = "(absent)"


def token(header: dict[str, Any] | None = None, **claims: Any) -> Unverified:
    kept = {name: value for name, value in (CLAIMS | claims).items() if value is not ABSENT}
    kept_header = {name: value for name, value in (HEADER | (header or {})).items() if value is not ABSENT}
    return Unverified(JWS(kept_header, b"", b"", b"", b""), kept)


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        ({}, {}),
        ({"typ": "JWT"}, {}),
        ({"typ": "jwt"}, {}),
        ({"typ": "application/jwt"}, {}),
        ({}, {"aud": ["app"]}),
        ({}, {"aud": ["app", "api"], "azp": "app"}),
        ({}, {"azp": "app"}),
        ({}, {"typ": "ID"}),
        ({}, {"token_use": "id"}),
        ({}, {"exp": NOW + 0.5}),
        ({}, {"iat": 0}),
        ({}, {"sub": "a" * 255}),
        ({}, {"sub": " "}),
        ({}, {"auth_time": NOW - 1e6}),
        ({}, {"acr": "0", "amr": ["pwd"], "email_verified": "yes"}),
        ({}, {"at_hash": half_hash("the-access-token", "RS256"), "c_hash": half_hash("the-code", "RS256")}),
        ({"alg": "ES512"}, {"at_hash": half_hash("the-access-token", "ES512")}),
        ({"alg": "EdDSA"}, {"at_hash": half_hash("the-access-token", "EdDSA")}),
    ],
    ids=str,
)
def test_a_good_one(header: dict[str, Any], claims: dict[str, Any]) -> None:
    check_login(token(header, **claims), EXPECTED, ASKED, NOW)


@pytest.mark.parametrize(
    ("claims", "claim", "reason"),
    [
        ({"iss": ABSENT}, "iss", "missing"),
        ({"iss": ISSUER + "/"}, "iss", "mismatch"),  # RP-x-iss-trailing-slash
        ({"iss": ISSUER.upper()}, "iss", "mismatch"),
        ({"iss": [ISSUER]}, "iss", "mismatch"),
        ({"aud": ABSENT}, "aud", "missing"),  # RP-oidcc-client-test-missing-aud
        ({"aud": "application"}, "aud", "mismatch"),  # RP-x-aud-substring
        ({"aud": ["application", "api"]}, "aud", "mismatch"),
        ({"aud": []}, "aud", "mismatch"),
        ({"aud": {"app": 1}}, "aud", "invalid"),
        ({"aud": ["app", 1]}, "aud", "invalid"),
        ({"aud": None}, "aud", "invalid"),
        ({"aud": ["app", "evil"]}, "azp", "missing"),  # RP-x-aud-array-untrusted-no-azp
        ({"aud": ["app", "evil"], "azp": "evil"}, "azp", "mismatch"),
        ({"azp": "evil"}, "azp", "mismatch"),
        ({"azp": None}, "azp", "invalid"),
        ({"azp": ""}, "azp", "invalid"),
        ({"azp": ["app"]}, "azp", "invalid"),
        ({"exp": ABSENT}, "exp", "missing"),  # RP-x-exp-missing
        ({"exp": NOW}, "exp", "expired"),  # RP-x-exp-expired
        ({"exp": True}, "exp", "invalid"),  # RP-x-exp-bool
        ({"exp": float("nan")}, "exp", "invalid"),  # RP-x-exp-nan
        ({"exp": float("inf")}, "exp", "invalid"),
        ({"exp": str(NOW + 300)}, "exp", "invalid"),
        ({"exp": None}, "exp", "invalid"),
        ({"iat": ABSENT}, "iat", "missing"),  # RP-oidcc-client-test-missing-iat
        ({"iat": NOW + 1}, "iat", "not_yet"),  # RP-x-iat-future
        ({"iat": "now"}, "iat", "invalid"),
        ({"nbf": NOW + 1}, "nbf", "not_yet"),
        ({"nonce": ABSENT}, "nonce", "missing"),  # RP-x-nonce-missing
        ({"nonce": "other"}, "nonce", "mismatch"),  # RP-oidcc-client-test-nonce-invalid
        ({"nonce": "n0nce "}, "nonce", "mismatch"),
        ({"nonce": ["n0nce"]}, "nonce", "invalid"),
        ({"nonce": None}, "nonce", "invalid"),
        ({"nonce": "\ud800"}, "nonce", "mismatch"),
        ({"sub": ABSENT}, "sub", "missing"),  # RP-oidcc-client-test-missing-sub
        ({"sub": ""}, "sub", "invalid"),  # RP-x-sub-empty
        ({"sub": 7}, "sub", "invalid"),  # RP-x-sub-int
        ({"sub": "a" * 256}, "sub", "invalid"),
        ({"sub": "a" * 300}, "sub", "invalid"),  # RP-x-sub-300-chars
        ({"sub": "\u00e4"}, "sub", "invalid"),
        ({"at_hash": "x"}, "at_hash", "mismatch"),  # RP-oidcc-client-test-invalid-athash
        ({"at_hash": half_hash("the-access-token", "RS512")}, "at_hash", "mismatch"),
        ({"at_hash": None}, "at_hash", "invalid"),
        ({"c_hash": half_hash("another-code", "RS256")}, "c_hash", "mismatch"),
        ({"events": {}}, "events", "invalid"),
        ({"events": None}, "events", "invalid"),
        ({"typ": "Bearer"}, "typ", "mismatch"),
        ({"typ": "Logout"}, "typ", "mismatch"),
        ({"token_use": "access"}, "token_use", "mismatch"),
        ({"auth_time": "noon"}, "auth_time", "invalid"),
        ({"sid": 5}, "sid", "invalid"),
    ],
    ids=str,
)
def test_a_claim_that_does_not_hold(claims: dict[str, Any], claim: str, reason: str) -> None:
    with pytest.raises(ClaimError) as caught:
        check_login(token(**claims), EXPECTED, ASKED, NOW)

    assert (caught.value.claim, caught.value.reason) == (claim, reason)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"alg": "none"}, AlgorithmNotAllowed),  # RP-oidcc-client-test-idtoken-sig-none
        ({"alg": "None"}, AlgorithmNotAllowed),  # RP-x-alg-None-case
        ({"alg": "HS256"}, AlgorithmNotAllowed),  # RP-x-alg-hs-with-client-secret
        ({"alg": ABSENT}, AlgorithmNotAllowed),
        ({"alg": ["RS256"]}, AlgorithmNotAllowed),
        ({"crit": ["x"]}, Malformed),  # RP-x-crit-unknown
        ({"jwk": {}}, Malformed),  # RP-x-jwk-header
        ({"jku": "https://evil.example"}, Malformed),  # RP-x-jku-header
        ({"kid": 1}, Malformed),
        ({"typ": "at+jwt"}, ClaimError),
        ({"typ": "logout+jwt"}, ClaimError),
        ({"typ": "JOSE"}, ClaimError),
        ({"typ": ""}, ClaimError),
        ({"typ": None}, ClaimError),
    ],
    ids=str,
)
def test_a_header_that_does_not_hold(header: dict[str, Any], expected: type[TokenError]) -> None:
    with pytest.raises(TokenError) as caught:
        check_login(token(header), EXPECTED, ASKED, NOW)

    assert type(caught.value) is expected


def test_the_algorithms_are_those_of_the_issuer() -> None:
    only_es = ExpectedIDToken(ISSUER, "app", frozenset({"ES256"}), 0)

    with pytest.raises(AlgorithmNotAllowed):
        check_login(token(), only_es, ASKED, NOW)


@pytest.mark.parametrize(
    ("max_age", "auth_time", "reason"),
    [
        (0, NOW, None),
        (60, NOW - 60, None),
        (60, NOW - 61, "expired"),
        (0, NOW - 1, "expired"),
        (60, ABSENT, "missing"),
        (60, NOW + 1, "not_yet"),
        (60, True, "invalid"),
        (None, ABSENT, None),
    ],
)
def test_max_age_asks_for_auth_time(max_age: float | None, auth_time: Any, reason: str | None) -> None:
    asked = Asked(ASKED.nonce, ASKED.access_token, ASKED.code, max_age)
    if reason is None:
        check_login(token(auth_time=auth_time), EXPECTED, asked, NOW)
        return
    with pytest.raises(ClaimError) as caught:
        check_login(token(auth_time=auth_time), EXPECTED, asked, NOW)

    assert (caught.value.claim, caught.value.reason) == ("auth_time", reason)


def test_the_leeway_counts_for_every_time() -> None:
    lenient = ExpectedIDToken(ISSUER, "app", frozenset(ALGORITHMS), 30)
    asked = Asked(ASKED.nonce, ASKED.access_token, ASKED.code, 60)

    check_login(token(exp=NOW - 29, iat=NOW + 30, auth_time=NOW - 90), lenient, asked, NOW)


# After a refresh

FIRST: dict[str, Any] = CLAIMS | {"auth_time": NOW - 100, "azp": "app"}


def refreshed(**claims: Any) -> None:
    changed: dict[str, Any] = {"azp": "app", "nonce": ABSENT, "iat": NOW + 200, "exp": NOW + 500} | claims
    check_refreshed(
        token(**changed), EXPECTED, FIRST, access_token=ASKED.access_token, nonce=ASKED.nonce, now=NOW + 200
    )


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"nonce": "n0nce"},
        {"auth_time": NOW - 100},
        {"aud": ["app", "api"]},
        {"at_hash": half_hash("the-access-token", "RS256")},
        {"c_hash": "of a code that nobody knows"},
    ],
    ids=str,
)
def test_a_good_one_after_a_refresh(claims: dict[str, Any]) -> None:
    refreshed(**claims)


@pytest.mark.parametrize(
    ("claims", "claim", "reason"),
    [
        ({"sub": "mallory"}, "sub", "mismatch"),
        ({"sub": ABSENT}, "sub", "missing"),
        ({"iss": "https://evil.example"}, "iss", "mismatch"),
        ({"aud": "other"}, "aud", "mismatch"),
        ({"azp": ABSENT}, "azp", "mismatch"),
        ({"auth_time": NOW - 101}, "auth_time", "mismatch"),
        ({"auth_time": NOW + 150}, "auth_time", "mismatch"),
        ({"nonce": "other"}, "nonce", "mismatch"),
        ({"nonce": None}, "nonce", "invalid"),
        ({"iat": ABSENT}, "iat", "missing"),
        ({"exp": NOW}, "exp", "expired"),
        ({"at_hash": "x"}, "at_hash", "mismatch"),
        ({"events": {}}, "events", "invalid"),
    ],
    ids=str,
)
def test_z_refresh_sub_one_that_does_not_hold(claims: dict[str, Any], claim: str, reason: str) -> None:
    with pytest.raises(ClaimError) as caught:
        refreshed(**claims)

    assert (caught.value.claim, caught.value.reason) == (claim, reason)


# Anything at all

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NAMES = (
    "iss",
    "aud",
    "azp",
    "sub",
    "exp",
    "iat",
    "nbf",
    "nonce",
    "auth_time",
    "at_hash",
    "c_hash",
    "events",
    "typ",
    "sid",
)


@given(
    st.dictionaries(st.sampled_from(NAMES), JSON), st.dictionaries(st.sampled_from(("alg", "typ", "kid", "crit")), JSON)
)
def test_any_claims_hold_or_are_refused_with_a_token_error(claims: dict[str, Any], header: dict[str, Any]) -> None:
    made = token(header, **claims)
    try:
        check_login(made, EXPECTED, ASKED, NOW)
    except TokenError:
        return
    said = made.claims
    assert (said["iss"], said["nonce"]) == (ISSUER, "n0nce")
    assert said["aud"] == "app" or "app" in said["aud"]
    assert said["iat"] <= NOW < said["exp"]


@given(st.dictionaries(st.sampled_from(NAMES), JSON), st.dictionaries(st.sampled_from(NAMES), JSON))
def test_any_claims_after_a_refresh(claims: dict[str, Any], first: dict[str, Any]) -> None:
    made = token(**claims)
    first = FIRST | {name: value for name, value in first.items() if name in {"auth_time", "nonce", "acr"}}
    try:
        check_refreshed(made, EXPECTED, first, access_token="at", nonce="n0nce", now=NOW)
    except TokenError:
        return
    assert (made.claims["sub"], made.claims["iss"]) == ("alice", ISSUER)


def test_what_the_fake_issuer_mints_holds_with_its_signature() -> None:
    issuer = FakeIssuer(algorithms=("ES256",), clock=ManualClock())
    raw = issuer.id_token("alice", client_id="app", nonce="n0nce", access_token=ASKED.access_token)
    found = verify.read(raw.encode())
    expected = ExpectedIDToken(issuer.url, "app", frozenset({"ES256"}), 0)

    check_login(found, expected, ASKED, issuer.clock.now())
    assert found.claims["sub"] == "alice"
