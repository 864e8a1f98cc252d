"""The ID tokens of one issuer, checked in full: what they say, then who signed them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from oidc_middleware.core import id_token, verify
from oidc_middleware.core.claims import Claims
from oidc_middleware.core.id_token import Asked, ExpectedIDToken
from oidc_middleware.core.verify import Unverified
from oidc_middleware.errors import Malformed
from oidc_middleware.provider.issuer_keys import IssuerKeys


class IDTokens:
    """Verifies the ID tokens of one issuer with its keys; `now` is the time of day."""

    def __init__(self, expected: ExpectedIDToken, keys: IssuerKeys, now: Callable[[], float]) -> None:
        self.expected: ExpectedIDToken = expected
        self._keys = keys
        self._now = now

    async def check_login(self, raw: str, asked: Asked) -> dict[str, Any]:
        """Return the claims of the ID token that ends a login.

        Raises:
            TokenError: it is refused.
            ProviderError: the issuer's keys are not known, and it does not tell them.
            BackendUnavailable: the service stops.

        Source: OpenID Connect Core §3.1.3.7.
        """
        token = _read(raw)
        id_token.check_login(token, self.expected, asked, self._now())
        await self._check_signature(token)
        return token.claims

    async def check_refreshed(self, raw: str, first: Claims, *, access_token: str, nonce: str) -> dict[str, Any]:
        """Return the claims of the ID token that came with a refresh; `first` are those of the login's.

        Raises:
            TokenError, ProviderError, BackendUnavailable: as for the first one.

        Source: OpenID Connect Core §12.2.
        """
        token = _read(raw)
        id_token.check_refreshed(token, self.expected, first, access_token=access_token, nonce=nonce, now=self._now())
        await self._check_signature(token)
        return token.claims

    async def _check_signature(self, token: Unverified) -> None:
        jws = token.jws
        known = self._keys.peek_keys()
        tried = known.find(jws.kid, jws.algorithm) if known is not None else ()
        if not verify.is_signed_by(token, tried):
            found = await self._keys.find_keys(jws.kid, jws.algorithm, tried)
            verify.check_signature(token, found, tried)


def _read(raw: str) -> Unverified:
    try:
        return verify.read(raw.encode("ascii"))
    except UnicodeEncodeError:
        raise Malformed("not ASCII") from None
