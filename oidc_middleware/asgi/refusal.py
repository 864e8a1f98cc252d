"""How a service says no: the same response, log line and denial of a WebSocket wherever an error is raised."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from oidc_middleware.asgi.responses import deny_websocket, error_response, stamp
from oidc_middleware.asgi.sign_in import SignIn
from oidc_middleware.errors import InsufficientScope, MissingToken, OIDCError
from oidc_middleware.settings import Settings
from oidc_middleware.wiring import OIDC

logger: logging.Logger = logging.getLogger("oidc_middleware")

SETTINGS_KEY = "oidc_middleware.settings"
"""Where a scope holds the settings of the middleware that let it in, if they are not those of its service."""

SCOPES_KEY = "oidc_middleware.scopes"
"""Where a scope holds the scopes that were asked of this request already, if any: a challenge names them too."""

SIGN_IN_KEY = "oidc_middleware.sign_in"
"""Where a scope holds the way to the login, of somebody who is anonymous on an optional path and may have to log in.

On public paths there is none: a session is not read there, so a login would lead back to the same refusal.
"""


class Refusal:
    """How to answer an `OIDCError`, as settings say.

    Their `realm` and the URL that describes their `resource` (RFC 9728 §5.1) stand in the challenge; `on_error` makes
    the body.
    """

    __slots__ = ("_on_error", "_realm", "_resource_metadata", "_start")

    def __init__(self, settings: Settings | None = None) -> None:
        self._realm = settings.realm if settings is not None else None
        self._on_error = settings.on_error if settings is not None else None
        metadata = settings.resource_metadata if settings is not None else None
        self._resource_metadata = metadata.url if metadata is not None else None
        self._start = f"{settings.base_url}{settings.prefix}/start" if settings is not None and settings.login else None

    async def answer(
        self, scope: Scope, receive: Receive, send: Send, error: OIDCError, scopes: Iterable[str] = ()
    ) -> None:
        """Log the refusal and send it; a WebSocket that is not accepted yet is denied."""
        response = self.response(scope, error, scopes)
        if scope["type"] == "websocket":
            await deny_websocket(response, scope, receive, send)
        else:
            await response(scope, receive, send)

    def response(self, scope: Scope, error: OIDCError, scopes: Iterable[str] = ()) -> Response:
        """Log the refusal and return it: status, challenge (RFC 6750 §3), and JSON, a page or the user's own body.

        Who is anonymous on an optional path and goes to a page is led to the login instead.

        `scopes` are those that the resource needs, where known; an `InsufficientScope` brings its own. With them are
        named those that doors and rules further out asked for: a client that got only these would come back in vain.
        """
        asked = scopes_asked(scope)
        if asked:
            scopes = (*asked, *scopes)
            if isinstance(error, InsufficientScope):
                error = InsufficientScope(error.detail, dict.fromkeys((*asked, *error.scopes)))
        if isinstance(error, MissingToken):
            sign_in: SignIn | None = scope.get(SIGN_IN_KEY)
            if sign_in is not None and (redirect := sign_in.by_start(scope)) is not None:
                return redirect
        level = logging.WARNING if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO
        logger.log(level, "refused %.200r with %d: %s", scope["path"], error.status, error)
        if self._on_error is not None:
            try:
                made: Any = self._on_error(HTTPConnection(scope), error)
                return self._stamp(made, error, scopes)
            except Exception:  # theirs may raise anything; a refusal stays a refusal
                logger.exception("on_error failed, the standard response is sent instead")
        return self._stamp(error_response(error, headers=scope["headers"], start=self._start), error, scopes)

    def _stamp(self, response: Response, error: OIDCError, scopes: Iterable[str]) -> Response:
        return stamp(response, error, realm=self._realm, scopes=scopes, resource_metadata=self._resource_metadata)


def settings_of(scope: Scope) -> Settings:
    """Return the settings of the middleware that let this connection in.

    Raises:
        LookupError: no `OIDCMiddleware` stands in front of the app.
    """
    settings = scope.get(SETTINGS_KEY)
    return settings if isinstance(settings, Settings) else OIDC.from_scope(scope).settings


def refusal_of(scope: Scope) -> Refusal:
    """Return how errors inside the app are answered: as the middleware that let this connection in does it.

    Raises:
        LookupError: no `OIDCMiddleware` stands in front of the app.
    """
    return Refusal(settings_of(scope))


def scopes_asked(scope: Scope) -> tuple[str, ...]:
    """Return the scopes that were asked of this request further out, by rules and by `requires` around the app."""
    asked: tuple[str, ...] = scope.get(SCOPES_KEY, ())
    return asked


def ask_for(scope: Scope, scopes: tuple[str, ...]) -> None:
    """Leave word of the scopes that are asked of this request, for the challenges of those further in."""
    if scopes:
        asked = scopes_asked(scope)
        scope[SCOPES_KEY] = (*asked, *(name for name in scopes if name not in asked)) if asked else scopes
