"""The claims of an ID token, one small check a rule: of the one that ends a login, and of one that a refresh brings.

`core/verify.py` reads it and checks its signature; here is what it must say.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oidc_middleware.core import claims as rules
from oidc_middleware.core import jws
from oidc_middleware.core.claims import Claims
from oidc_middleware.core.verify import Unverified
from oidc_middleware.errors import ClaimError

MAX_SUBJECT_CHARACTERS = 255
# What Keycloak and Amazon Cognito write into the payload of an ID token to say that it is one.
_KINDS = {"typ": "ID", "token_use": "id"}


@dataclass(frozen=True, slots=True)
class ExpectedIDToken:
    """What the ID tokens of one issuer must show. `client_id` is our client there, `leeway` is in seconds."""

    issuer: str
    client_id: str
    algorithms: frozenset[str]
    leeway: float


@dataclass(frozen=True, slots=True)
class Asked:
    """What one authentication request asked for, and what came with the ID token that answers it.

    `max_age` is in seconds, None where it was not sent.
    """

    nonce: str
    access_token: str
    code: str
    max_age: float | None = None


def check_login(token: Unverified, expected: ExpectedIDToken, asked: Asked, now: float) -> None:
    """Check the header and the claims of the ID token that a token endpoint gave for a code.

    Raises:
        TokenError: the first rule that does not hold.

    Source: OpenID Connect Core §3.1.3.7, §3.1.3.8, §2; RFC 8725 §3.
    """
    _check_any(token, expected, now)
    _check_nonce(token.claims, asked.nonce)
    check_auth_time(token.claims, asked.max_age, now, expected.leeway)
    _check_hash(token, "at_hash", asked.access_token)
    _check_hash(token, "c_hash", asked.code)


def check_refreshed(
    token: Unverified, expected: ExpectedIDToken, first: Claims, *, access_token: str, nonce: str, now: float
) -> None:
    """Check the ID token that a refresh brought with `access_token`.

    `first` are the claims of the one that ended the login, `nonce` is that of its authentication request.

    Raises:
        TokenError: the first rule that does not hold.

    Source: OpenID Connect Core §12.2.
    """
    _check_any(token, expected, now)
    claims = token.claims
    if claims["sub"] != first.get("sub"):
        raise ClaimError("sub", "mismatch", "a refresh made somebody else of the user")
    if not _audiences(first) <= _audiences(claims):
        raise ClaimError("aud", "mismatch", "not for whom the first one was")
    if claims.get("azp") != first.get("azp"):
        raise ClaimError("azp", "mismatch", "not that of the first one")
    if "auth_time" in claims and "auth_time" in first and claims["auth_time"] != first["auth_time"]:
        raise ClaimError("auth_time", "mismatch", "not the time of the login")
    if "nonce" in claims:
        _check_nonce(claims, nonce)
    _check_hash(token, "at_hash", access_token)


def check_auth_time(claims: Claims, max_age: float | None, now: float, leeway: float) -> None:
    """Check when the user proved last who they are, if that was asked for; all spans are in seconds.

    Source: OpenID Connect Core §2 (`auth_time`), §3.1.2.1 (`max_age`), §3.1.3.7 rule 13.
    """
    moment = rules.numeric_date(claims, "auth_time")
    if max_age is None:
        return
    if moment is None:
        raise ClaimError("auth_time", "missing", "max_age was asked for")
    if moment > now + leeway:
        raise ClaimError("auth_time", "not_yet")
    if now - moment > max_age + leeway:
        raise ClaimError("auth_time", "expired", "longer ago than max_age")


def _check_any(token: Unverified, expected: ExpectedIDToken, now: float) -> None:
    """Check what every ID token must show, in an order that gives away least: is it one, from whom, for whom, when."""
    header, claims = token.jws.header, token.claims
    jws.check_header(header, expected.algorithms)
    _check_type(header)
    _check_kind(claims)
    rules.check_issuer(claims, expected.issuer)
    rules.check_texts(claims)
    _check_audience(claims, expected.client_id)
    _check_life(claims, now, expected.leeway)
    _check_subject(claims)


def _check_type(header: Mapping[str, Any]) -> None:
    """Check that the header says `JWT`, or nothing: an access token says `at+jwt`, a logout token `logout+jwt`.

    Source: RFC 7519 §5.1, RFC 8725 §3.11.
    """
    typ = header.get("typ", "JWT")
    if type(typ) is not str:
        raise ClaimError("typ", "invalid")
    if typ.lower().removeprefix("application/") != "jwt":
        raise ClaimError("typ", "mismatch", "no ID token has this type")


def _check_kind(claims: Claims) -> None:
    """Refuse what says of itself that it is another kind of token, and a logout token, which lists events.

    Source: Back-Channel Logout §2.4 and §4 (cross-JWT confusion), RFC 8725 §3.12.
    """
    if "events" in claims:
        raise ClaimError("events", "invalid", "an ID token does not have it")
    for name, kind in _KINDS.items():
        if claims.get(name, kind) != kind:
            raise ClaimError(name, "mismatch", "the payload says that it is another kind of token")


def _check_audience(claims: Claims, client_id: str) -> None:
    """Check that it is for our client; where it is for others too, it must say that it was issued to ours.

    Source: OpenID Connect Core §3.1.3.7 rules 3 to 5, §2 (`azp`).
    """
    rules.check_audience(claims, "aud", frozenset({client_id}))
    if len(_audiences(claims)) > 1 and "azp" not in claims:
        raise ClaimError("azp", "missing", "there are several audiences")
    if claims.get("azp", client_id) != client_id:
        raise ClaimError("azp", "mismatch")


def _audiences(claims: Claims) -> frozenset[str]:
    value = claims.get("aud", ())
    return frozenset({value} if isinstance(value, str) else value)


def _check_life(claims: Claims, now: float, leeway: float) -> None:
    """Check the times; how long it may live says the session, not the ID token.

    Source: OpenID Connect Core §3.1.3.7 rules 9 and 10, §2 (`exp` and `iat` are required).
    """
    if "iat" not in claims:
        raise ClaimError("iat", "missing")
    rules.check_lifetime(claims, now, leeway, rules.MAX_NUMERIC_DATE)


def _check_subject(claims: Claims) -> None:
    """Check that `sub` is a string of 1 to 255 ASCII characters.

    Source: OpenID Connect Core §2, §5.7.
    """
    rules.check_subject(claims)
    subject = claims["sub"]
    if len(subject) > MAX_SUBJECT_CHARACTERS or not subject.isascii():
        raise ClaimError("sub", "invalid", "longer than 255 characters, or not ASCII")


def _check_nonce(claims: Claims, nonce: str) -> None:
    """Source: OpenID Connect Core §3.1.3.7 rule 11."""
    if "nonce" not in claims:
        raise ClaimError("nonce", "missing")
    value = claims["nonce"]
    if type(value) is not str:
        raise ClaimError("nonce", "invalid")
    if not hmac.compare_digest(value.encode("utf-8", "surrogatepass"), nonce.encode("utf-8", "surrogatepass")):
        raise ClaimError("nonce", "mismatch")


def _check_hash(token: Unverified, name: str, text: str) -> None:
    """Check that the claim `name`, if it is there, is half of the digest of `text`.

    Source: OpenID Connect Core §3.1.3.6, §3.1.3.8, §3.3.2.11.
    """
    if name not in token.claims:
        return
    value = token.claims[name]
    if type(value) is not str:
        raise ClaimError(name, "invalid")
    if value != half_hash(text, token.jws.algorithm):
        raise ClaimError(name, "mismatch")


def half_hash(text: str, algorithm: str) -> str:
    """Return the left half of the digest of `text` that belongs to a signature algorithm, as base64url.

    Source: OpenID Connect Core §3.1.3.6. For EdDSA that is SHA-512, the digest inside Ed25519 (RFC 8032 §5.1).
    """
    name = f"sha{algorithm[-3:]}" if algorithm[-3:].isdigit() else "sha512"
    digest = hashlib.new(name, text.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode("ascii")
