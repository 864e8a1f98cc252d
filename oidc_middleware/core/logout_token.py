"""Logout tokens: an issuer says that a session, or everything of a subject, is over.

Source: OpenID Connect Back-Channel Logout 1.0 §2.4 and §2.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from oidc_middleware.core import claims as rules
from oidc_middleware.core import jws
from oidc_middleware.core.claims import Claims
from oidc_middleware.core.verify import Unverified
from oidc_middleware.errors import ClaimError

EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
LIFE_WITHOUT_EXP: Final = 120.0
"""For how many seconds a token that does not say when it expires is taken, where such are taken at all."""

_JWE_DOTS = 4
_HEADER_TYPES = frozenset({"logout+jwt", "application/logout+jwt", "jwt"})
# What Keycloak writes into the payloads of its other tokens, and claims that ID tokens alone have.
_OTHER_KINDS = frozenset({"ID", "Refresh", "Offline", "Bearer"})
_OF_OTHER_TOKENS = ("nonce", "at_hash", "c_hash")


@dataclass(frozen=True, slots=True)
class ExpectedLogout:
    """What the logout tokens of one issuer must show; `leeway` and `max_token_life` are in seconds."""

    issuer: str
    client_id: str
    algorithms: frozenset[str]
    leeway: float
    max_token_life: float
    requires_exp: bool


class LogoutToken(NamedTuple):
    """What a logout token says: the session `sid` is over, or where it names none, all of `subject`.

    `deadline` is when it is taken no more, in Unix seconds.
    """

    issuer: str
    subject: str | None
    sid: str | None
    jti: str
    deadline: float


def is_encrypted(token: bytes) -> bool:
    """Tell whether it is a JWE (RFC 7516 §7.1), which has five parts. Nobody here can read one."""
    return token.count(b".") == _JWE_DOTS


def check(token: Unverified, expected: ExpectedLogout, now: float) -> LogoutToken:
    """Check everything but the signature, and return what the token says.

    ID tokens and access tokens, which the same keys sign, are none.

    Raises:
        TokenError: the first rule that does not hold.

    Source: OpenID Connect Back-Channel Logout §2.6, RFC 8725 §3.11 and §3.12.
    """
    header, claims = token.jws.header, token.claims
    jws.check_header(header, expected.algorithms)
    _check_type(header, claims)
    rules.check_issuer(claims, expected.issuer)
    rules.check_audience(claims, "aud", frozenset({expected.client_id}))
    _check_event(claims)
    _check_names(claims)
    deadline = _deadline(claims, expected, now)
    return LogoutToken(claims["iss"], claims.get("sub"), claims.get("sid"), claims["jti"], deadline)


def _check_type(header: dict[str, Any], claims: Claims) -> None:
    """Source: §2.4 (`logout+jwt` is recommended, and issuers from before it say `JWT` or nothing)."""
    typ = header.get("typ", "jwt")
    if type(typ) is not str:
        raise ClaimError("typ", "invalid")
    if typ.lower() not in _HEADER_TYPES:
        raise ClaimError("typ", "mismatch")
    kind = claims.get("typ")
    if type(kind) is str and kind in _OTHER_KINDS:
        raise ClaimError("typ", "mismatch", "the payload says that it is another kind of token")
    for name in _OF_OTHER_TOKENS:
        if name in claims:
            raise ClaimError(name, "invalid", "a logout token does not have it")


def _check_event(claims: Claims) -> None:
    """Source: §2.4 (`events` has this member, and its value is a JSON object, which should be empty)."""
    if "events" not in claims:
        raise ClaimError("events", "missing")
    events = claims["events"]
    if type(events) is not dict:
        raise ClaimError("events", "invalid")
    if EVENT not in events:
        raise ClaimError("events", "mismatch")
    if type(events[EVENT]) is not dict:
        raise ClaimError("events", "invalid", "the event is no object")


def _check_names(claims: Claims) -> None:
    """Source: §2.4 (`sub` or `sid`, or both; `jti` is required)."""
    rules.check_texts(claims)
    if "jti" not in claims:
        raise ClaimError("jti", "missing")
    if "sub" in claims:
        rules.check_subject(claims)
    elif "sid" not in claims:
        raise ClaimError("sub", "missing", "and so is sid")


def _deadline(claims: Claims, expected: ExpectedLogout, now: float) -> float:
    """Return until when the token is taken; `iat` is required, and so is `exp` unless the operator says otherwise."""
    issued = rules.numeric_date(claims, "iat")
    if issued is None:
        raise ClaimError("iat", "missing")
    if "exp" in claims or expected.requires_exp:
        return rules.check_lifetime(claims, now, expected.leeway, expected.max_token_life)
    bounded = {**claims, "exp": issued + LIFE_WITHOUT_EXP}
    return rules.check_lifetime(bounded, now, expected.leeway, expected.max_token_life)
