"""The claims of an access token, one small check a rule. Each takes what the token says and what is expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from oidc_middleware.core.claim_paths import find
from oidc_middleware.errors import ClaimError

Claims = Mapping[str, Any]

# 9999-12-31T23:59:59Z: the last second that a calendar can show. What is beyond it is a mistake or an attack.
MAX_NUMERIC_DATE = 253_402_300_799

_TEXTS = ("jti", "sid", "client_id", "azp", "appid", "cid")


def numeric_date(claims: Claims, name: str) -> float | None:
    """Return a NumericDate in seconds, None when the claim is absent.

    Raises:
        ClaimError: invalid: not a number (a boolean and `null` are none), not finite, negative, or after the year 9999.

    Source: RFC 7519 §2 (NumericDate).
    """
    if name not in claims:
        return None
    value = claims[name]
    if (type(value) is int or type(value) is float) and 0 <= value <= MAX_NUMERIC_DATE:
        return value
    raise ClaimError(name, "invalid")


def check_issuer(claims: Claims, issuer: str) -> None:
    """Check that `iss` is exactly `issuer`, character for character.

    Source: RFC 7519 §4.1.1, RFC 9068 §4.
    """
    if "iss" not in claims:
        raise ClaimError("iss", "missing")
    if claims["iss"] != issuer or type(claims["iss"]) is not str:
        raise ClaimError("iss", "mismatch")


def check_tenant(claims: Claims, path: str, tenant: str) -> None:
    """Check that a token of one of many tenants says itself that it is of the tenant that its `iss` names.

    Source: RFC 8725 §3.8; Entra ID's documentation of `tid`.
    """
    found = find(claims, path)
    if found is None:
        raise ClaimError(path, "missing")
    if type(found) is not str:
        raise ClaimError(path, "invalid")
    if found != tenant:
        raise ClaimError(path, "mismatch", "not the tenant that iss names")


def check_audience(claims: Claims, name: str, audiences: frozenset[str]) -> frozenset[str]:
    """Return which of `audiences` the claim `name` holds, at least one.

    Source: RFC 7519 §4.1.3 (a string or an array of strings), RFC 9068 §4.
    """
    if name not in claims:
        raise ClaimError(name, "missing")
    value = claims[name]
    if type(value) is str:
        matched = audiences & {value}
    elif type(value) is list and all(type(item) is str for item in value):
        matched = audiences.intersection(value)
    else:
        raise ClaimError(name, "invalid")
    if not matched:
        raise ClaimError(name, "mismatch")
    return matched


def check_lifetime(claims: Claims, now: float, leeway: float, max_token_life: float) -> float:
    """Return the deadline: the token holds while `now < deadline`. All arguments and the result are in seconds.

    The deadline is `min(exp, iat + max_token_life) + leeway`. A token without `iat` must not have more than
    `max_token_life` left.

    Source: RFC 7519 §4.1.4 (`exp`: on or after it the token is refused), §4.1.5 (`nbf`), §4.1.6 (`iat`).
    """
    expires = numeric_date(claims, "exp")
    not_before = numeric_date(claims, "nbf")
    issued = numeric_date(claims, "iat")
    if expires is None:
        raise ClaimError("exp", "missing")
    if now >= expires + leeway:
        raise ClaimError("exp", "expired")
    if not_before is not None and now < not_before - leeway:
        raise ClaimError("nbf", "not_yet")
    if issued is None:
        return _deadline_without_iat(expires, now, leeway, max_token_life)
    if now < issued - leeway:
        raise ClaimError("iat", "not_yet")
    if now >= issued + max_token_life + leeway:
        raise ClaimError("iat", "expired", "older than max_token_life")
    return min(expires, issued + max_token_life) + leeway


def _deadline_without_iat(expires: float, now: float, leeway: float, max_token_life: float) -> float:
    if expires - now > max_token_life:
        raise ClaimError("iat", "missing", "exp is further away than max_token_life")
    return expires + leeway


def check_subject(claims: Claims) -> None:
    """Check that `sub` is a string that is not empty.

    Source: RFC 7519 §4.1.2, RFC 9068 §2.2.
    """
    if "sub" not in claims:
        raise ClaimError("sub", "missing")
    if type(claims["sub"]) is not str or not claims["sub"]:
        raise ClaimError("sub", "invalid")


def check_texts(claims: Claims) -> None:
    """Check that the names we act upon are strings that are not empty, where they are there at all.

    Source: RFC 7519 §4.1.7 (`jti`), OpenID Connect Front-Channel Logout §3 (`sid`), RFC 8693 §4.3 (`client_id`).
    """
    for name in _TEXTS:
        value = claims.get(name, "absent")
        if type(value) is not str or not value:
            raise ClaimError(name, "invalid")


def check_scopes(claims: Claims) -> None:
    """Check that `scope` and `scp` are, where they are there, what `scopes` reads.

    Source: RFC 8693 §4.2, RFC 9068 §2.2.3; `scp` as Entra ID (a string) and Okta (a list) send it.
    """
    for name in ("scope", "scp"):
        if name in claims and type(claims[name]) is not str:
            _check_list_of_texts(claims, name)


def _check_list_of_texts(claims: Claims, name: str) -> None:
    if type(claims[name]) is not list or not all(type(item) is str for item in claims[name]):
        raise ClaimError(name, "invalid")


def scopes(claims: Claims, paths: Sequence[str] = ("scope", "scp")) -> frozenset[str]:
    """Return the scopes of the claims at `paths`: texts separated by spaces, or lists; what is neither grants none.

    Only a space separates: other white space is no part of a scope, and must not make one of what follows it.

    Source: RFC 6749 §3.3.
    """
    granted: list[str] = []
    for path in paths:
        value = find(claims, path)
        granted += value.split(" ") if isinstance(value, str) else texts(value)
    return frozenset(filter(None, granted))


def words(claims: Claims, paths: Sequence[str]) -> frozenset[str]:
    """Return the texts of the claims at `paths`: each is one, or a list of some; what is neither is none.

    In a list, `{"value": text}` is as good as the text.

    Source: RFC 9068 §2.2.3.1, RFC 7643 §2.4 and §4.1.2 (`groups`, `roles`, `entitlements` as SCIM writes them).
    """
    found: list[str] = []
    for path in paths:
        value = find(claims, path)
        found += (value,) if isinstance(value, str) else texts(_scim_values(value))
    return frozenset(filter(None, found))


def _scim_values(value: object) -> object:
    if not isinstance(value, list | tuple):
        return value
    return [item.get("value") if isinstance(item, Mapping) else item for item in value]


def texts(value: object) -> Sequence[str]:
    """Return a list of texts; a list that holds anything else is none, for nobody knows what was meant."""
    return value if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value) else ()


def check_unbound(claims: Claims) -> None:
    """Refuse a token bound to a key: as a plain bearer token it proves nothing, for we do not ask for the proof.

    Source: RFC 7800 §3 (`cnf`), RFC 9449 §7.1 (DPoP), RFC 8705 §3 (mutual TLS).
    """
    if "cnf" in claims:
        raise ClaimError("cnf", "invalid", "the token is bound to a key")
