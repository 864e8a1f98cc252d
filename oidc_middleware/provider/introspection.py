"""Asking an issuer about a token."""

from __future__ import annotations

import logging

from oidc_middleware.core import introspection
from oidc_middleware.errors import OIDCError, ProviderError, ProviderInvalid
from oidc_middleware.provider.credentials import Credentials
from oidc_middleware.provider.http import ErrorStatus
from oidc_middleware.provider.provider import Provider

_log = logging.getLogger("oidc_middleware.provider")
_REFUSED = (401, 403)
REFUSAL = "it refuses our client: check client_id, client_secret and client_auth_method"
"""What to look at where `is_refusal`."""


class Introspector:
    """Asks one issuer, with our client's credentials, which go nowhere else."""

    def __init__(self, provider: Provider, credentials: Credentials) -> None:
        self._provider = provider
        self._credentials = credentials
        self.fails: bool = False
        """Whether it gave no answer the last time."""
        self.calls: int = 0
        """How often the issuer was asked."""
        self.failures: int = 0
        """How often it did not say."""

    async def ask(self, token: bytes) -> bytes:
        """Return what the issuer says about an active token, as `introspection.read` does; nothing of one that is not.

        Raises:
            ProviderError: it does not say.

        Source: RFC 7662 §2.1, §2.2, §2.3 (an error status says nothing about the token).
        """
        self.calls += 1
        try:
            payload = await self._ask(token)
        except ProviderError as error:
            self._failed(error)
            raise
        if self.fails:
            self.fails = False
            _log.info("introspection at %s: it answers again", self._provider.issuer)
        return payload

    async def _ask(self, token: bytes) -> bytes:
        proof = self._credentials.prove()
        form = (("token", token.decode("ascii")), ("token_type_hint", "access_token"), *proof.form)
        document = await self._provider.post("introspection_endpoint", form, proof.headers)
        if document is None:
            raise ProviderInvalid("its metadata name no introspection_endpoint, and neither do the settings")
        try:
            return introspection.read(document, self._provider.issuer)
        except ValueError as error:
            raise ProviderInvalid(f"its answer about a token: {error}") from None

    def _failed(self, error: ProviderError) -> None:
        """Count a failure, and tell of it, loudly once until an answer comes."""
        self.failures += 1
        level = logging.DEBUG if self.fails else logging.ERROR
        self.fails = True
        cure = f"; {REFUSAL}" if is_refusal(error) else ""
        _log.log(level, "introspection at %s failed: %s%s", self._provider.issuer, error, cure)


def is_refusal(error: OIDCError) -> bool:
    """Tell whether the issuer did not like who asks (RFC 7662 §2.3, RFC 6750 §3.1)."""
    return isinstance(error, ErrorStatus) and error.answered in _REFUSED
