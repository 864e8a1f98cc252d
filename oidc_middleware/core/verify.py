"""The verification of an access token, in the order in which it is done: cheap before costly, the signature last.

`read` takes the bytes apart, `check` holds the claims against what is expected, `check_signature` asks the keys. The
three are apart because keys may have to be fetched between the last two, and only for a token that passed the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from oidc_middleware.core import claims as rules
from oidc_middleware.core import jws, signature, strict_json, token_type
from oidc_middleware.core.foreign import Foreign
from oidc_middleware.core.foreign import check_header as check_foreign
from oidc_middleware.core.jws import JWS
from oidc_middleware.core.keys import Key
from oidc_middleware.errors import BadSignature, ClaimError, Malformed, UnknownKey


@dataclass(frozen=True, slots=True)
class Expected:
    """What the tokens of one issuer must show.

    `audience_claim` is the claim that names the audience, `client_ids` are our own clients there (see `token_type`),
    `leeway` and `max_token_life` are in seconds. `tenant` is a claim and what it must be, where the issuer is one of
    many tenants; `waived` are claims that access tokens of this issuer may have though ID tokens have them (see
    `token_type`); `foreign` are kinds of its tokens that nobody can verify here.
    """

    issuer: str
    audiences: frozenset[str]
    audience_claim: str
    algorithms: frozenset[str]
    token_type: Literal["auto", "at+jwt"]
    client_ids: frozenset[str]
    leeway: float
    max_token_life: float
    tenant: tuple[str, str] | None = None
    waived: frozenset[str] = frozenset()
    foreign: tuple[Foreign, ...] = ()


class Unverified(NamedTuple):
    """A token that can be read. Nothing in it may be believed."""

    jws: JWS
    claims: dict[str, Any]


def read(token: bytes, known_headers: Mapping[bytes, dict[str, Any]] = MappingProxyType({})) -> Unverified:
    """Take a token apart: three parts, strict base64url, strict JSON objects. For `known_headers` see `jws.parse`.

    Raises:
        Malformed: it is not that.

    Source: RFC 7519 §7.2, RFC 7515 §5.2.
    """
    parts = jws.parse(token, known_headers)
    try:
        return Unverified(parts, strict_json.load_object(parts.payload))
    except strict_json.StrictJSONError as error:
        raise Malformed(f"payload: {error}") from None


def issuer_of(token: Unverified) -> str:
    """Return the `iss` that the token claims, to choose among the configured issuers and for nothing else.

    Raises:
        ClaimError: iss missing or invalid.
    """
    issuer = token.claims.get("iss")
    if type(issuer) is not str:
        raise ClaimError("iss", "invalid" if "iss" in token.claims else "missing")
    return issuer


def check(token: Unverified, expected: Expected, now: float) -> float:
    """Check the header and the claims, and return the deadline in seconds: the token holds while `now < deadline`.

    Raises:
        TokenError: the first rule that does not hold.

    Source: RFC 9068 §4, RFC 8725 §3.
    """
    header, claims = token.jws.header, token.claims
    jws.check_header(header, expected.algorithms)
    if expected.foreign:
        check_foreign(header, expected.foreign)
    rules.check_issuer(claims, expected.issuer)
    if expected.tenant is not None:
        rules.check_tenant(claims, *expected.tenant)
    rules.check_texts(claims)
    matched = rules.check_audience(claims, expected.audience_claim, expected.audiences)
    if expected.token_type == "at+jwt":  # noqa: S105  a token type, no secret
        token_type.check_strict(header)
    else:
        token_type.check_auto(header, claims, matched, expected.client_ids, expected.waived)
    deadline = rules.check_lifetime(claims, now, expected.leeway, expected.max_token_life)
    rules.check_subject(claims)
    rules.check_unbound(claims)
    rules.check_scopes(claims)
    return deadline


def is_signed_by(token: Unverified, keys: tuple[Key, ...]) -> bool:
    """Tell whether one of `keys`, those that the header may mean, made the signature (RFC 7515 §5.2 step 8)."""
    parts = token.jws
    algorithm = signature.ALGORITHMS[parts.algorithm]
    for key in keys:  # noqa: SIM110  a generator costs more than this, and there is nearly always one key
        if algorithm.verify(parts.signing_input, key.public_key, parts.signature):
            return True
    return False


def check_signature(token: Unverified, keys: tuple[Key, ...], tried: tuple[Key, ...] = ()) -> None:
    """Check that one of `keys`, those that the header may mean, made the signature; those `tried` before did not.

    Raises:
        UnknownKey: there are none.
        BadSignature: none of them made it.

    Source: RFC 7515 §5.2 step 8.
    """
    if not keys:
        raise UnknownKey("no key of the issuer fits kid and alg")
    if not is_signed_by(token, tuple(key for key in keys if key not in tried)):
        raise BadSignature("no key of the issuer made it")
