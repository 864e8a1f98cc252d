"""Who a session is of: the claims of its login, in the form that those of an access token have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from oidc_middleware.core.claims_mapping import ClaimsMapping
from oidc_middleware.core.principal import Principal
from oidc_middleware.session.record import Record

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
    """Return the claims after a refresh that brought an ID token; when the user logged in stays as it was."""
    before = _decode(record.claims)
    held = {name: before[name] for name in ("iat", "nonce", "auth_time") if name in before}
    return _encode({**before, **news, **held})
