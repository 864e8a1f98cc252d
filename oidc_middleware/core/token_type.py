"""Is it an access token at all? An ID token, a refresh token or a logout token is signed by the same keys."""

from __future__ import annotations

from typing import Any

from oidc_middleware.core.claims import Claims
from oidc_middleware.errors import ClaimError

_ACCESS_TOKEN = frozenset({"at+jwt", "application/at+jwt"})
# Keycloak writes into the payload what a token is: everything but `Bearer`.
_OTHER_KINDS = frozenset({"ID", "Refresh", "Offline", "Logout"})
# Claims that an issuer puts into an ID token or a logout token only.
_TELLTALES = ("at_hash", "c_hash", "events", "nonce")


def check_strict(header: dict[str, Any]) -> None:
    """Check that the header says `at+jwt`; capitals and the `application/` prefix do not matter.

    Raises:
        ClaimError: typ missing, invalid or mismatch.

    Source: RFC 9068 §4, RFC 7515 §4.1.9, RFC 8725 §3.11.
    """
    typ = _header_type(header)
    if typ is None:
        raise ClaimError("typ", "missing")
    if typ not in _ACCESS_TOKEN:
        raise ClaimError("typ", "mismatch")


def check_auto(
    header: dict[str, Any],
    claims: Claims,
    matched: frozenset[str],
    client_ids: frozenset[str],
    waived: frozenset[str] = frozenset(),
) -> None:
    """Check that nothing says the token is something else; `matched` are the accepted audiences that it names.

    A header `at+jwt` says it all. `JWT` or none is what most issuers send: then the payload must not look like
    another kind of token. And where the audience is a client, as in every ID token, it must look like an access token.

    `waived` are claims of ID tokens that this issuer puts into access tokens too. They are passed where the payload
    says `typ: Bearer`, which stands in no other token of it: Keycloak did so with `nonce` before version 24.

    Raises:
        ClaimError: typ, or the claim that gives it away.

    Source: RFC 8725 §3.11 and §3.12; OpenID Connect Core §2 and §3.1.3.6; Back-Channel Logout §2.4.
    """
    typ = _header_type(header)
    if typ in _ACCESS_TOKEN:
        return
    if typ is not None and typ != "jwt":
        raise ClaimError("typ", "mismatch")
    _refuse_other_kinds(claims, waived)
    if not _looks_like_access(claims):
        _refuse_clients(claims, matched, client_ids)


def check_introspected(
    claims: Claims, matched: frozenset[str], client_ids: frozenset[str], waived: frozenset[str] = frozenset()
) -> None:
    """Check that an issuer's answer is about an access token: it may be asked about others, refresh tokens too.

    The rules are those of `check_auto`. `token_type` says how the token is used; one that is to be used in another way
    than as a bearer token is not for us.

    Raises:
        ClaimError: token_type, or the claim that gives it away.

    Source: RFC 7662 §2.2 (`token_type`), RFC 6749 §7.1 and §5.1 (it is case insensitive).
    """
    if claims.get("token_use") == "access_token":  # as Ory Hydra answers
        claims = {**claims, "token_use": "access"}
    _refuse_other_kinds(claims, waived)
    if "token_type" in claims:
        used_as = claims["token_type"]
        if type(used_as) is not str:
            raise ClaimError("token_type", "invalid")
        if used_as.lower() != "bearer":
            raise ClaimError("token_type", "mismatch")
    elif not _looks_like_access(claims):
        _refuse_clients(claims, matched, client_ids)


def _header_type(header: dict[str, Any]) -> str | None:
    if "typ" not in header:
        return None
    typ = header["typ"]
    if type(typ) is not str:
        raise ClaimError("typ", "invalid")
    return typ.lower()


def _refuse_other_kinds(claims: Claims, waived: frozenset[str]) -> None:
    kind = claims.get("typ")
    if type(kind) is str and kind in _OTHER_KINDS:
        raise ClaimError("typ", "mismatch", "the payload says that it is another kind of token")
    if claims.get("token_use", "access") != "access":
        raise ClaimError("token_use", "mismatch")
    for name in _TELLTALES:
        if name in claims and not (name in waived and kind == "Bearer"):
            raise ClaimError(name, "invalid", "an access token does not have it")


def _refuse_clients(claims: Claims, matched: frozenset[str], client_ids: frozenset[str]) -> None:
    """Refuse what is for a client, as every ID token is, and does not look like an access token."""
    if matched & client_ids or claims.get("azp") in matched:
        raise ClaimError("aud", "mismatch", "the audience is a client and nothing says that this is an access token")


def _looks_like_access(claims: Claims) -> bool:
    return "scope" in claims or "scp" in claims or claims.get("token_use") == "access" or claims.get("typ") == "Bearer"
