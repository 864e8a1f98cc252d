"""The service that is measured, and how it comes to know tokens."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from unittest import mock

from jwt.algorithms import RSAAlgorithm
from traffic import AUDIENCE, Application, header_value

from oidc_middleware import OIDC, OIDCMiddleware
from oidc_middleware.testing import FakeIssuer


class Service:
    """`OIDCMiddleware` around an app, with an issuer that it reaches without a network."""

    def __init__(self, issuer: FakeIssuer, app: Application) -> None:
        self.oidc = OIDC(issuer=issuer.url, audience=AUDIENCE, transport=issuer.transport())
        self.app = OIDCMiddleware(app, oidc=self.oidc)

    def digest_hits(self) -> int:
        """Return how many tokens were found by their digest, because the hot set did not have them."""
        return self.oidc.caches.token.stats().hits


async def introduce(service: Service, tokens: Iterable[str]) -> None:
    """Make tokens known, as their first request does, with any signature: it is not what is measured here."""
    with every_signature_believed():
        for token in tokens:
            await service.oidc.authenticator.authenticate(header_value(token))


def every_signature_believed() -> AbstractContextManager[object]:
    """Replace the check of RSA signatures until the block ends."""
    return mock.patch.object(RSAAlgorithm, "verify", _believe)


def _believe(*_: object) -> bool:
    return True
