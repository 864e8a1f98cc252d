"""What a refused token looks like to somebody who has seen many: one sentence on what it is, one on what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from oidc_middleware.core.claims import MAX_NUMERIC_DATE
from oidc_middleware.core.verify import Expected, Unverified

_JWE_DOTS = 4


def hints(token: bytes, unverified: Unverified | None, expected: Expected | None) -> Iterator[str]:
    """Yield hints for a refused token; `expected` is None where its issuer is not known."""
    if unverified is None:
        yield from _unreadable(token)
        return
    for looks_like, hint in _KINDS:
        if looks_like(unverified.jws.header, unverified.claims):
            yield hint
    if expected is not None:
        yield from _beside_expected(unverified.claims, expected)


def _unreadable(token: bytes) -> Iterator[str]:
    dots = token.count(b".")
    if dots == 0:
        yield (
            "An opaque token, it seems, which only its issuer can read. Set client_id and client_secret, so that the "
            "issuer can be asked, or let it give out JWT access tokens for your API."
        )
    elif dots == _JWE_DOTS:
        yield (
            "An encrypted token (JWE), which is not for this API. Auth0 sends one where the client did not name an "
            "audience: name your API's."
        )


def _beside_expected(claims: Mapping[str, Any], expected: Expected) -> Iterator[str]:
    issuer = claims.get("iss")
    if isinstance(issuer, str) and issuer != expected.issuer:
        if issuer.rstrip("/") == expected.issuer.rstrip("/"):
            yield "The issuers differ by the slash at the end, which counts. Set issuer to what the token says."
        elif issuer.startswith("https://sts.windows.net/"):
            yield (
                "A version 1 token of Entra ID. Set requestedAccessTokenVersion to 2 in the API's app manifest, or set "
                "issuer to what the token says."
            )
    if expected.audience_claim == "aud" and "aud" not in claims and "client_id" in claims:
        yield (
            "No aud but a client_id, as in Amazon Cognito's access tokens. Set audience_claim to client_id, and "
            "audience to the id of the app client."
        )
    if claims.get("typ") == "Bearer" and "nonce" in claims and "nonce" not in expected.waived:
        yield "Keycloak before version 24 puts a nonce into access tokens. Set preset to keycloak, or update it."
    if claims.get("aud") in ("account", ["account"]):
        yield "Keycloak knows no audience for this client: add an audience mapper for your API to one of its scopes."


# What a token is by header and claims alone


def _is_graph(header: Mapping[str, Any], _: Mapping[str, Any]) -> bool:
    return "nonce" in header


def _is_refresh(_: Mapping[str, Any], claims: Mapping[str, Any]) -> bool:
    return claims.get("typ") in ("Refresh", "Offline")


def _is_logout(_: Mapping[str, Any], claims: Mapping[str, Any]) -> bool:
    return "events" in claims


def _is_id(_: Mapping[str, Any], claims: Mapping[str, Any]) -> bool:
    says_so = claims.get("typ") == "ID" or claims.get("token_use") == "id"
    return says_so or "at_hash" in claims or "c_hash" in claims or ("nonce" in claims and claims.get("typ") != "Bearer")


def _is_secret_signed(header: Mapping[str, Any], claims: Mapping[str, Any]) -> bool:
    return str(header.get("alg")).startswith("HS") and not _is_refresh(header, claims)


def _is_bound(_: Mapping[str, Any], claims: Mapping[str, Any]) -> bool:
    return "cnf" in claims


def _has_milliseconds(_: Mapping[str, Any], claims: Mapping[str, Any]) -> bool:
    expires = claims.get("exp")
    return isinstance(expires, int | float) and expires > MAX_NUMERIC_DATE


_KINDS: tuple[tuple[Callable[[Mapping[str, Any], Mapping[str, Any]], bool], str], ...] = (
    (
        _is_graph,
        "A nonce in the header: for Microsoft Graph, it seems, and nobody else can verify it. Get one for your API.",
    ),
    (_is_refresh, "A refresh token: it is for the issuer alone. Send the access token."),
    (_is_logout, "A logout token: the issuer sends it to a client when a user leaves. It is no access token."),
    (_is_id, "An ID token, it seems: it tells a client who logged in. Send the access token."),
    (
        _is_secret_signed,
        "Signed with a shared secret, so whoever can check it could write it. Let the issuer sign with RS256 or ES256.",
    ),
    (_is_bound, "Bound to a key (DPoP or mutual TLS), whose proof is not checked here. Ask for a plain bearer token."),
    (_has_milliseconds, "Its exp seems to be in milliseconds. It has to be in seconds (RFC 7519 section 2)."),
)
