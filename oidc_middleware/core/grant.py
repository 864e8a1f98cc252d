"""What a login gave: the answer of a token endpoint, and who has logged in by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class Grant(msgspec.Struct, frozen=True, gc=False):
    """What a token endpoint answered, checked for types. Lives are in seconds from when it did, None where not told.

    Source: RFC 6749 §5.1, OpenID Connect Core §3.1.3.3.
    """

    access_token: str
    token_type: str
    expires_in: float | None = None
    refresh_token: str | None = None
    refresh_expires_in: float | None = None
    scope: str | None = None
    id_token: str | None = None

    def __repr__(self) -> str:
        return f"Grant(scope={self.scope!r}, expires_in={self.expires_in!r}, access_token='[REDACTED]')"


class Login(msgspec.Struct, frozen=True):
    """Who has logged in, and with what.

    `claims` are those of the verified ID token, completed by what the userinfo endpoint said of the same subject: where
    both say something, the ID token counts. `nonce` is that of the authentication request.
    """

    issuer: str
    claims: Mapping[str, Any]
    id_token: str
    grant: Grant
    nonce: str

    def __repr__(self) -> str:
        return f"Login(issuer={self.issuer!r}, sub={self.claims.get('sub')!r})"
