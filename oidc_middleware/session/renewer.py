"""New tokens from the issuer of a session."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from oidc_middleware.errors import BackendUnavailable, GrantRefused, ProviderError, UnknownKey
from oidc_middleware.session.login import LoginIssuer
from oidc_middleware.session.record import Record
from oidc_middleware.session.refresh import Renewed

_log = logging.getLogger("oidc_middleware.session")

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class IssuerRenewer:
    """Exchanges refresh tokens at the issuers where browsers log in, by name."""

    def __init__(self, issuers: Mapping[str, LoginIssuer]) -> None:
        self._issuers = issuers

    async def renew(self, record: Record) -> Renewed:
        """Return what the issuer of a session gives for its refresh token.

        An ID token whose signature nobody can check now is left out, and what it says must hold all the same. The old
        refresh token is used up, so an error would end the session; and it came from the issuer itself over TLS.

        Raises:
            GrantRefused: it refuses it.
            TokenError: the ID token that it gave is refused: it is for somebody else, for instance.
            ProviderError, BackendUnavailable: it does not answer, or the service stops.

        Source: OpenID Connect Core §12.1, §12.2, §3.1.3.7 rule 6.
        """
        if record.refresh_token is None:
            raise GrantRefused("there is no refresh token")
        issuer = self._issuers[record.issuer]
        grant = await issuer.tokens.refresh(record.refresh_token)
        if grant.id_token is None:
            return Renewed(grant, None)
        try:
            claims = await issuer.id_tokens.check_refreshed(
                grant.id_token, _decode(record.claims), access_token=grant.access_token, nonce=record.nonce
            )
        except (UnknownKey, ProviderError, BackendUnavailable) as error:
            _log.warning("session %s: its new ID token is left out: %s", record.name, error)
            return Renewed(msgspec.structs.replace(grant, id_token=None), None)
        return Renewed(grant, claims)

    async def give_up(self, record: Record) -> None:
        """Tell the issuer of a session that is over that its refresh token is not needed, if it can be told.

        Source: RFC 7009 §2.1.
        """
        if record.refresh_token is not None:
            with contextlib.suppress(BackendUnavailable):
                await self._issuers[record.issuer].tokens.revoke(record.refresh_token)
