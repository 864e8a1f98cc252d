"""The credentials of a request and whose they are: what the middleware and the dependencies of an app share.

A token goes before the cookie of a session, which a browser adds to whatever it sends.
"""

from __future__ import annotations

from starlette.types import Scope

from oidc_middleware.core import bearer
from oidc_middleware.core.cookies import cookie_header
from oidc_middleware.core.cross_origin import OurOrigins
from oidc_middleware.core.known import Known
from oidc_middleware.errors import MissingToken, SessionEnded
from oidc_middleware.settings import Settings
from oidc_middleware.wiring import OIDC


class Credentials:
    """Tells who sends a request, by the one credential in it; `settings` say where else than in a header it may be."""

    __slots__ = ("_lookup", "_oidc", "_origins", "_reads_subprotocol")

    def __init__(self, oidc: OIDC, settings: Settings) -> None:
        self._oidc = oidc
        self._lookup = oidc.authenticator.lookup
        self._reads_subprotocol = settings.websocket_token == "subprotocol"  # noqa: S105  a place, no secret
        base_url = oidc.settings.base_url
        self._origins = None if base_url is None else OurOrigins(base_url, oidc.settings.trusted_origins)

    async def find(self, scope: Scope) -> Known | None:
        """Say who sends this request; None when no credentials came.

        Raises:
            InvalidRequest: more than one credential came, or a malformed one.
            MissingToken: it is of another scheme than Bearer; SessionEnded: the cookie is of a session that is over.
            TokenError: the token is refused.
            CrossOriginRequest: a page of another origin sent it with the cookie of a session.
            ProviderError, BackendUnavailable, RevocationStale: nobody can say.

        Source: RFC 6750 §2.
        """
        value = bearer.authorization(scope["headers"])
        if value is not None:
            bearer.check_query(scope.get("query_string", b""))
        return await self.identify(scope, value, is_looked_up=False)

    async def identify(
        self, scope: Scope, value: bytes | None, *, is_looked_up: bool, outer: Known | None = None
    ) -> Known | None:
        """Say whose the value of an `Authorization` header is; None when there is none, nor a token elsewhere.

        `is_looked_up` tells that the token is unknown, `outer` is what a door in front found out about this connection.
        The query was checked, where there is a value.

        Raises:
            InvalidRequest, MissingToken, TokenError, ProviderError, RevocationStale: as `find` does.
        """
        await self.start()
        if scope["type"] == "websocket" and (self._reads_subprotocol or (value is None and outer is not None)):
            value = _subprotocol(scope, value)
        if value is None:
            return await self._of_session(scope)
        if outer is not None and outer.value == value:
            return outer
        known = None if is_looked_up else self._lookup(value)
        return await self._oidc.authenticator.authenticate(value) if known is None else known

    async def _of_session(self, scope: Scope) -> Known | None:
        """Say whose session the cookie of a request is of; None when there is no such cookie.

        Raises:
            InvalidRequest, SessionEnded, CrossOriginRequest, ProviderError, BackendUnavailable, RevocationStale: as
                `find` does.
        """
        sessions, origins = self._oidc.sessions, self._origins
        header = cookie_header(scope["headers"]) if sessions is not None else b""
        if sessions is None or origins is None or sessions.cookies.find(header) is None:
            return None
        known = sessions.lookup(header)
        if known is None:
            known = await sessions.find(header)
        if known is None:
            raise SessionEnded("its cookie is of no session that lasts")
        if scope["type"] == "websocket":
            origins.check_handshake(scope["headers"])
        else:
            origins.check(scope["method"], scope["headers"])
        return known

    async def start(self) -> None:
        """Start the service where no lifespan did, or on the loop that took the place of a closed one."""
        if not self._oidc.started:
            await self._oidc.start()


def _subprotocol(scope: Scope, value: bytes | None) -> bytes | None:
    """Return the token that a browser sends as a subprotocol, as a header would carry it, or `value` if none came.

    The app, which answers with one of the subprotocols, does not get to see it.
    """
    try:
        token = bearer.subprotocol_token(scope["headers"])
    except MissingToken:
        return value
    bearer.check_query(scope.get("query_string", b""))
    scope["subprotocols"] = [name for name in scope.get("subprotocols", ()) if not name.startswith("bearer.")]
    return b"Bearer " + token
