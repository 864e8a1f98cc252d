"""New tokens from the issuer of a session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from oidc_middleware.errors import GrantRefused
from oidc_middleware.session.login import LoginIssuer
from oidc_middleware.session.record import Record
from oidc_middleware.session.refresh import Renewed

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class IssuerRenewer:
    """Exchanges refresh tokens at the issuers where browsers log in, by name."""

    def __init__(self, issuers: Mapping[str, LoginIssuer]) -> None:
        self._issuers = issuers

    async def renew(self, record: Record) -> Renewed:
        """Return what the issuer of a session gives for its refresh token.

        Raises:
            GrantRefused: it refuses it.
            TokenError: the ID token that it gave is refused: it is for somebody else, for instance.
            ProviderError, BackendUnavailable: it does not answer, or the service stops.

        Source: OpenID Connect Core §12.1, §12.2.
        """
        if record.refresh_token is None:
            raise GrantRefused("there is no refresh token")
        issuer = self._issuers[record.issuer]
        grant = await issuer.tokens.refresh(record.refresh_token)
        if grant.id_token is None:
            return Renewed(grant, None)
        claims = await issuer.id_tokens.check_refreshed(
            grant.id_token, _decode(record.claims), access_token=grant.access_token, nonce=record.nonce
        )
        return Renewed(grant, claims)
