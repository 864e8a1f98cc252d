"""Signing out: the session ends here, then its refresh token at the issuer, and then the browser goes there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from typing import Final, TypeVar

from oidc_middleware.core.end_session import end_session_url
from oidc_middleware.errors import BackendUnavailable, ProviderError
from oidc_middleware.provider.tokens import TokenClient
from oidc_middleware.session.known import KnownSession
from oidc_middleware.session.login import LoginIssuer
from oidc_middleware.session.logout_states import LogoutStates
from oidc_middleware.session.sessions import Sessions

PATIENCE: Final = 2.0
"""Seconds that the issuer may take for each of two answers: the user waits, and the session is over already."""

_log = logging.getLogger("oidc_middleware.session")

T = TypeVar("T")


class Logout:
    """Signs users out of `sessions` and at `issuers`, which are those where they log in, by name.

    `post_logout_redirect_uri` is where the issuers send browsers afterwards; None: they stay there.
    """

    def __init__(
        self,
        sessions: Sessions,
        issuers: Mapping[str, LoginIssuer],
        states: LogoutStates,
        post_logout_redirect_uri: str | None,
    ) -> None:
        self._sessions = sessions
        self._issuers = issuers
        self.states: LogoutStates = states
        """What browsers bring back from the issuer."""
        self._back_to = post_logout_redirect_uri

    async def sign_out(self, known: KnownSession, path: str) -> str | None:
        """End a session everywhere, and return where the browser signs out at the issuer, to come back to `path`.

        None: the issuer has no such place, or does not say in time. What it does not do changes nothing here.

        Raises:
            BackendUnavailable: nobody knows whether the session ended.

        Source: OpenID Connect RP-Initiated Logout §2, RFC 7009 §2.1.
        """
        record = await self._sessions.newest(known)  # another node may have got another refresh token
        await self._sessions.end(known)
        client = self._issuers[record.issuer].tokens
        if record.refresh_token is not None:
            await _within_patience(client, client.revoke(record.refresh_token))
        metadata = await _within_patience(client, client.provider.metadata())
        if metadata is None or metadata.end_session_endpoint is None:
            return None
        return end_session_url(
            metadata.end_session_endpoint,
            id_token=record.id_token,
            client_id=client.client_id,
            post_logout_redirect_uri=self._back_to,
            state=self.states.state(path),
        )


async def _within_patience(client: TokenClient, asked: Awaitable[T]) -> T | None:
    """Return what an issuer answers; None where it does not in time, or not as it must."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await asked
    except (TimeoutError, ProviderError, BackendUnavailable) as error:
        _log.warning("%s does not hear that a user signed out: %r", client.provider.issuer, error)
        return None
