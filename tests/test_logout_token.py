"""Logout tokens, rule by rule, and by properties: any bytes give what a token says or a `TokenError`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_verify import ALGORITHMS

from oidc_middleware.core import logout_token, verify
from oidc_middleware.core.keys import parse_jwks
from oidc_middleware.core.logout_token import EVENT, ExpectedLogout, LogoutToken
from oidc_middleware.errors import ClaimError, TokenError

from abuse.signing import ISSUER, NOW, Signer, b64, good_claims

SIGNER = Signer()
KEYS = parse_jwks(SIGNER.jwks(), ALGORITHMS)
EXPECTED = ExpectedLogout(
    issuer=ISSUER,
    client_id="web",
    algorithms=frozenset({"RS256", "EdDSA"}),
    leeway=0,
    max_token_life=30 * 86400,
    requires_exp=True,
)
LENIENT = replace(EXPECTED, requires_exp=False)
GOOD: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "web",
    "sub": "alice",
    "sid": "s-1",
    "iat": int(NOW) - 5,
    "exp": int(NOW) + 115,
    "jti": "l-1",
    "events": {EVENT: {}},
}


def claims(*without: str, **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (GOOD | changes).items() if name not in without}


def take(token: bytes, expected: ExpectedLogout = EXPECTED, now: float = NOW) -> LogoutToken:
    read = verify.read(token)
    found = logout_token.check(read, expected, now)
    verify.check_signature(read, KEYS.find(read.jws.kid, read.jws.algorithm))
    return found


def minted(payload: dict[str, Any], alg: str = "EdDSA", typ: str | None = "logout+jwt") -> bytes:
    omitted = ("typ",) if typ is None else ()
    claims = json.dumps(payload).encode()
    return SIGNER.token(alg=alg, claims=claims, header={"typ": typ}, omit_header=omitted).encode()


@pytest.mark.parametrize("typ", ["logout+jwt", "Logout+JWT", "application/logout+jwt", "JWT", "jwt", None])
@pytest.mark.parametrize("aud", ["web", ["web"], ["other", "web"]])
def test_a_good_one_says_what_is_over(typ: str | None, aud: object) -> None:
    found = take(minted(claims(aud=aud), typ=typ))

    assert found == LogoutToken(ISSUER, "alice", "s-1", "l-1", NOW + 115)


@pytest.mark.parametrize(
    ("without", "subject", "sid"), [("sid", "alice", None), ("sub", None, "s-1")], ids=["B-ok-sub", "B-ok-sid"]
)
def test_one_of_the_two_names_is_enough(without: str, subject: str | None, sid: str | None) -> None:
    found = take(minted(claims(without)))

    assert (found.subject, found.sid) == (subject, sid)


def test_unknown_claims_are_fine() -> None:
    """B-extra; and Keycloak says `typ: Logout` in the payload."""
    assert take(minted(claims(typ="Logout", trace={"a": 1}, events={EVENT: {"x": 1}, "urn:other": None}))).sid == "s-1"


def failure(payload: dict[str, Any], expected: ExpectedLogout = EXPECTED, **how: Any) -> str:
    with pytest.raises(TokenError) as caught:
        take(minted(payload, **how), expected)
    error = caught.value
    return f"{error.claim} {error.reason}" if isinstance(error, ClaimError) else type(error).__name__


@pytest.mark.parametrize(
    ("payload", "outcome"),
    [
        pytest.param(claims("events"), "events missing", id="B-no-event"),
        pytest.param(claims(events={}), "events mismatch", id="B-no-event-of-ours"),
        pytest.param(claims(events={EVENT: "x"}), "events invalid", id="B-event-nonobject-string"),
        pytest.param(claims(events={EVENT: []}), "events invalid", id="B-event-nonobject-list"),
        pytest.param(claims(events={EVENT: None}), "events invalid", id="B-event-nonobject-null"),
        pytest.param(claims(events=[EVENT]), "events invalid", id="events-a-list"),
        pytest.param(claims(events=EVENT), "events invalid", id="events-a-text"),
        pytest.param(claims(events=None), "events invalid", id="events-null"),
        pytest.param(claims(nonce="x"), "nonce invalid", id="B-nonce-x"),
        pytest.param(claims(nonce=""), "nonce invalid", id="B-nonce-empty"),
        pytest.param(claims(nonce=None), "nonce invalid", id="B-nonce-null"),
        pytest.param(claims(nonce=0), "nonce invalid", id="B-nonce-0"),
        pytest.param(claims(aud="other"), "aud mismatch", id="B-wrong-aud"),
        pytest.param(claims(aud=["other"]), "aud mismatch", id="B-wrong-aud-list"),
        pytest.param(claims(aud="web2"), "aud mismatch", id="B-wrong-aud-longer"),
        pytest.param(claims(aud={"web": 1}), "aud invalid", id="aud-object"),
        pytest.param(claims("aud"), "aud missing", id="aud-missing"),
        pytest.param(claims(iss=ISSUER + "1"), "iss mismatch", id="B-wrong-iss"),
        pytest.param(claims(iss=ISSUER + "/"), "iss mismatch", id="iss-slash"),
        pytest.param(claims("iss"), "iss missing", id="iss-missing"),
        pytest.param(claims("exp"), "exp missing", id="B-no-exp"),
        pytest.param(claims(exp=int(NOW)), "exp expired", id="exp-now"),
        pytest.param(claims(exp=True), "exp invalid", id="exp-bool"),
        pytest.param(claims(exp="9999999999"), "exp invalid", id="exp-text"),
        pytest.param(claims("iat"), "iat missing", id="iat-missing"),
        pytest.param(claims(iat=int(NOW) + 60), "iat not_yet", id="iat-future"),
        pytest.param(claims(iat=int(NOW) - 31 * 86400), "iat expired", id="iat-old"),
        pytest.param(claims(nbf=int(NOW) + 60), "nbf not_yet", id="nbf-future"),
        pytest.param(claims("sub", "sid"), "sub missing", id="B-no-sub-sid"),
        pytest.param(claims(sid=""), "sid invalid", id="sid-empty"),
        pytest.param(claims(sid=None), "sid invalid", id="sid-null"),
        pytest.param(claims("sub", sid=["s-1"]), "sid invalid", id="sid-list"),
        pytest.param(claims(sub=""), "sub invalid", id="sub-empty"),
        pytest.param(claims(sub=7), "sub invalid", id="sub-number"),
        pytest.param(claims("jti"), "jti missing", id="jti-missing"),
        pytest.param(claims(jti=1), "jti invalid", id="jti-number"),
        pytest.param(claims("events", nonce="n", at_hash="h"), "nonce invalid", id="B-idtoken"),
        pytest.param(claims(at_hash="h"), "at_hash invalid", id="B-idtoken-with-an-event"),
        pytest.param(claims(typ="ID"), "typ mismatch", id="B-idtoken-of-keycloak"),
        pytest.param(claims(typ="Bearer"), "typ mismatch", id="B-accesstoken-of-keycloak"),
        pytest.param(good_claims(aud="web"), "events missing", id="B-accesstoken"),
    ],
)
def test_what_is_wrong_is_refused_and_named(payload: dict[str, Any], outcome: str) -> None:
    assert failure(payload) == outcome


@pytest.mark.parametrize(
    ("typ", "outcome"), [("at+jwt", "typ mismatch"), ("logout", "typ mismatch"), ("dpop+jwt", "typ mismatch")]
)
def test_a_token_of_another_type_is_refused(typ: str, outcome: str) -> None:
    """B-accesstoken."""
    assert failure(claims(), typ=typ) == outcome


def test_only_registered_algorithms_count() -> None:
    """B-wrong-alg."""
    assert failure(claims(), alg="ES256") == "AlgorithmNotAllowed"


@pytest.mark.parametrize("alg", ["none", "None", "NONE"])
def test_an_unsigned_one_is_refused(alg: str) -> None:
    """B-alg-none."""
    token = f"{b64(json.dumps({'alg': alg, 'typ': 'logout+jwt'}).encode())}.{b64(json.dumps(claims()).encode())}."
    with pytest.raises(TokenError) as caught:
        take(token.encode())
    assert type(caught.value).__name__ == "AlgorithmNotAllowed"


@pytest.mark.parametrize(("age", "outcome"), [(0, None), (119, None), (120, "exp expired"), (3600, "exp expired")])
def test_without_exp_it_is_good_for_two_minutes_where_that_is_allowed(age: int, outcome: str | None) -> None:
    """B-no-exp, `logout_token_exp="optional"`."""
    payload = claims("exp", iat=int(NOW) - age)
    if outcome is None:
        assert take(minted(payload), LENIENT).deadline == NOW - age + 120
    else:
        assert failure(payload, LENIENT) == outcome


def test_an_exp_counts_where_it_is_optional() -> None:
    assert failure(claims(exp=int(NOW) - 1), LENIENT) == "exp expired"
    assert failure(claims(exp=None), LENIENT) == "exp invalid"


@pytest.mark.parametrize(("token", "outcome"), [(b"a.b.c.d.e", True), (b"a.b.c", False), (b"", False), (b"....", True)])
def test_a_jwe_is_told_apart(token: bytes, outcome: bool) -> None:
    assert logout_token.is_encrypted(token) is outcome


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from([*GOOD, "nbf", "nonce", "typ", "at_hash", "azp"])


def accepts(token: bytes, expected: ExpectedLogout) -> bool:
    """Check; every error but `TokenError` passes through and fails the test."""
    try:
        found = take(token, expected)
    except TokenError:
        return False
    assert found.deadline > NOW
    assert found.subject or found.sid
    return True


@given(st.dictionaries(names, json_values, max_size=6), st.sampled_from([EXPECTED, LENIENT]))
def test_any_signed_claims_say_something_or_are_refused(changes: dict[str, Any], expected: ExpectedLogout) -> None:
    accepts(minted(GOOD | changes), expected)


@given(st.binary(max_size=400))
def test_any_bytes_are_refused(token: bytes) -> None:
    assert not accepts(token, LENIENT)


@given(st.data())
def test_no_changed_byte_verifies(data: st.DataObject) -> None:
    token = minted(claims())
    place = data.draw(st.integers(0, len(token) - 1))
    octet = data.draw(st.integers(0, 255).filter(lambda octet: octet != token[place]))
    assert not accepts(token[:place] + bytes([octet]) + token[place + 1 :], LENIENT)


@given(st.dictionaries(names, json_values, max_size=6))
def test_no_logout_token_is_an_access_token(changes: dict[str, Any]) -> None:
    """B-as-access: under either rule for the type of access tokens."""
    payload = GOOD | changes | {"events": {EVENT: {}}}
    token = minted(payload)
    for token_type in ("auto", "at+jwt"):
        expected = verify.Expected(
            issuer=ISSUER,
            audiences=frozenset({"web"}),
            audience_claim="aud",
            algorithms=ALGORITHMS,
            token_type=token_type,
            client_ids=frozenset(),
            leeway=0,
            max_token_life=30 * 86400,
        )
        with pytest.raises(TokenError):
            verify.check(verify.read(token), expected, NOW)
