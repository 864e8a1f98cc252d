"""Who a session is of: the claims of its login, in the form that those of an access token have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from oidc_middleware.core import base64url
from oidc_middleware.core.claims_mapping import ClaimsMapping
from oidc_middleware.core.principal import Principal
from oidc_middleware.session.record import Record

# A refreshed ID token is that of the same login (OpenID Connect Core §12.2), and need not say all of this again.
_HELD: Final = ("iat", "nonce", "auth_time")
_HELD_UNLESS_TOLD: Final = frozenset({"sid", "azp", "acr", "amr"})

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def claims_of(record: Record, client_id: str) -> dict[str, Any]:
    """Return the claims of a session: those of its login, under the name and with the end of the session.

    `jti` is the session's own name, so that whoever revokes `request.user` ends the session; `exp` is when it ends in
    any case; `scope` is what was granted last. `iat` stays that of the login: cut-offs go by it.
    """
    claims = _decode(record.claims)
    claims |= {"iss": record.issuer, "jti": record.name, "exp": int(record.deadline), "client_id": client_id}
    if record.scope is not None:
        claims["scope"] = record.scope
    return claims


def principal_of(record: Record, claims: Mapping[str, Any], mapping: ClaimsMapping) -> Principal:
    """Return the principal of a session, whose token is the access token."""
    return Principal(_encode(claims), record.access_token.encode(), mapping)


def kept_claims(claims: Mapping[str, Any]) -> bytes:
    """Return the claims of a login as a record keeps them."""
    return _encode(claims)


def renewed_claims(record: Record, news: Mapping[str, Any]) -> bytes:
    """Return the claims after a refresh that brought an ID token: a role that it no longer has is gone.

    What userinfo said at the login stays, and so does what cut-offs go by: when the user logged in, and with which
    session at the issuer.
    """
    before = _decode(record.claims)
    said = _said_by(record.id_token)
    kept = {name: value for name, value in before.items() if name not in said or name in _HELD_UNLESS_TOLD}
    held = {name: before[name] for name in _HELD if name in before}
    return _encode({**kept, **news, **held})


def _said_by(id_token: str) -> frozenset[str]:
    """Return the names of the claims in an ID token that was verified before."""
    try:
        return frozenset(_decode(base64url.decode(id_token.split(".")[1].encode("ascii"))))
    except (IndexError, ValueError, msgspec.MsgspecError):
        return frozenset()
