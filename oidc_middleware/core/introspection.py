"""What an issuer says about a token: `read` takes the answer apart, `check` holds it against what is expected.

The two are apart because an answer is kept for a while, and what it must show is looked at each time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from oidc_middleware.core import claims as rules
from oidc_middleware.core import strict_json, token_type
from oidc_middleware.core.verify import Expected
from oidc_middleware.errors import ClaimError

_CLIENTS = ("client_id", "azp", "appid", "cid")


def read(document: bytes, issuer: str) -> bytes:
    """Return what the answer of `issuer` says about an active token, as a JSON object; nothing of one that is not.

    Only the JSON `true` is active; a document that says two things at once does not say that. `iss` is added where it
    is missing: who was asked is known.

    Raises:
        ValueError: it is not a JSON object.

    Source: RFC 7662 §2.2.
    """
    try:
        answer = strict_json.load_object(document)
    except strict_json.DuplicateKeyError:
        return b""
    if answer.pop("active", None) is not True:
        return b""
    return json.dumps({"iss": issuer} | answer, separators=(",", ":"), allow_nan=False).encode()


def check(payload: bytes, expected: Expected, now: float, *, needs_audience: bool) -> tuple[dict[str, Any], float]:
    """Check what `read` returned; return it, and the deadline in seconds: the token holds while `now < deadline`.

    With `needs_audience` it must name an audience. An audience that it names must be ours in any case.

    Raises:
        ClaimError: the first rule that does not hold.

    Source: RFC 7662 §2.2, §4; the claims as RFC 7519 §4.1 has them.
    """
    claims: dict[str, Any] = strict_json.load_object(payload)
    rules.check_issuer(claims, expected.issuer)
    rules.check_texts(claims)
    matched: frozenset[str] = frozenset()
    if needs_audience or expected.audience_claim in claims:
        matched = rules.check_audience(claims, expected.audience_claim, expected.audiences)
    token_type.check_introspected(claims, matched, expected.client_ids, expected.waived)
    deadline = _check_lifetime(claims, expected, now)
    _check_subject(claims)
    rules.check_unbound(claims)
    rules.check_scopes(claims)
    return claims, deadline


def confirm(payload: bytes, verified: Mapping[str, Any], expected: Expected, now: float) -> float:
    """Check what `read` returned about a JWT whose claims were verified, and return the deadline that it sets.

    The issuer need not repeat what it has signed, but it must not say something else.

    Raises:
        ClaimError: the first rule that does not hold.

    Source: RFC 7662 §2.2; RFC 8705 §3.2, RFC 9449 §6.2 (only the answer may say that a token is bound to a key).
    """
    claims: dict[str, Any] = strict_json.load_object(payload)
    rules.check_issuer(claims, expected.issuer)
    if expected.audience_claim in claims:
        rules.check_audience(claims, expected.audience_claim, expected.audiences)
    if "sub" in claims and claims["sub"] != verified["sub"]:
        raise ClaimError("sub", "mismatch", "the issuer's answer is about somebody else")
    rules.check_unbound(claims)
    return _check_lifetime(claims, expected, now)


def end_of(payload: bytes) -> float:
    """Return the `exp` of what `read` returned, in seconds: infinity where there is none, 0 where it is no time."""
    try:
        end = rules.numeric_date(strict_json.load_object(payload), "exp")
    except ClaimError:
        return 0
    return math.inf if end is None else end


def _check_lifetime(claims: dict[str, Any], expected: Expected, now: float) -> float:
    """Return the deadline. What does not say when it ends ends when it would be too old, from its issue or from now."""
    if "exp" not in claims:
        claims = {"iat": now, **claims, "exp": rules.MAX_NUMERIC_DATE}
    return rules.check_lifetime(claims, now, expected.leeway, expected.max_token_life)


def _check_subject(claims: dict[str, Any]) -> None:
    """Check for a subject, or for the client where it acts for itself: some issuers then send no `sub`."""
    if "sub" in claims or not any(name in claims for name in _CLIENTS):
        rules.check_subject(claims)
