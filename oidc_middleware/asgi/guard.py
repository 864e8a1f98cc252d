"""What `requires` puts in front of an endpoint: the question, and the answer to whom it does not let in."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketState

from oidc_middleware.asgi.refusal import ask_for, refusal_of, settings_of
from oidc_middleware.asgi.responses import deny_websocket
from oidc_middleware.asgi.socket import POLICY_VIOLATION
from oidc_middleware.core.policy import is_preflight
from oidc_middleware.core.principal import Principal
from oidc_middleware.core.requirement import Requirement
from oidc_middleware.errors import InsufficientScope, MissingToken, OIDCError
from oidc_middleware.wiring import SCOPE_KEY

CLOSED_BY_ERROR: Final = 1006
"""The code of a connection that was not closed by a message (RFC 6455 §7.1.5)."""

MARK: Final = "__oidc_guard__"
"""Under this name a guarded function carries its guard, for those around it to name its scopes too."""


class Guard:
    """Asks all `requirements` of whoever calls; `place` says in the log where."""

    __slots__ = ("place", "requirements", "scopes")

    def __init__(self, place: str, requirements: tuple[Requirement, ...]) -> None:
        self.place: str = place
        self.requirements: tuple[Requirement, ...] = requirements
        self.scopes: tuple[str, ...] = tuple(
            dict.fromkeys(scope for requirement in requirements for scope in requirement.scopes_to_ask)
        )
        """All scopes of the operation, as far as they are known here."""

    def refuses(self, scope: Scope) -> OIDCError | None:
        """Return why this connection may not go on, None if it may.

        Raises:
            LookupError: no `OIDCMiddleware` stands in front of the app, so nobody knows who it is.
        """
        if SCOPE_KEY not in scope:
            cure = "add one: app.add_middleware(OIDCMiddleware, issuer=..., audience=...)"
            raise LookupError(f"{self.place} requires an identity, and no OIDCMiddleware stands in front of it; {cure}")
        user = scope.get("user")
        if not isinstance(user, Principal):
            return MissingToken(f"{self.place}: no identity")
        for requirement in self.requirements:
            lacking = requirement.unmet(user)
            if lacking is not None:
                return InsufficientScope(f"{self.place}: {lacking} is missing", self.scopes)
        return None

    def response(self, scope: Scope, error: OIDCError) -> Response:
        """Return the answer to a request that is refused."""
        return refusal_of(scope).response(scope, error, self.scopes)

    async def end(self, websocket: WebSocket, error: OIDCError) -> None:
        """Deny a WebSocket, or close it if it was accepted already; one that is over stays so."""
        response = self.response(websocket.scope, error)
        if websocket.application_state is WebSocketState.CONNECTED:
            await websocket.close(POLICY_VIOLATION)
        elif websocket.application_state is WebSocketState.CONNECTING:
            await deny_websocket(response, websocket.scope, websocket.receive, websocket.send)
            websocket.receive = _disconnected  # type: ignore[method-assign]  # an endpoint class asks for what is next


class GuardedApp:
    """An ASGI app behind a guard; what is no request or WebSocket passes."""

    __slots__ = ("app", "guard")

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self.app: ASGIApp = app
        self.guard: Guard = guard

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes of the app, which a mount asks for when `url_for` looks for a name."""
        return getattr(self.app, "routes", [])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] in ("http", "websocket"):
            error = self.guard.refuses(scope)
            if error is not None and not _is_preflight_for_app(scope, error):
                await refusal_of(scope).answer(scope, receive, send, error, self.guard.scopes)
                return
            ask_for(scope, self.guard.scopes)
        await self.app(scope, receive, send)


async def _disconnected() -> Message:
    """Return what servers are to say after a denial, and some never do."""
    return {"type": "websocket.disconnect", "code": CLOSED_BY_ERROR, "reason": ""}


def _is_preflight_for_app(scope: Scope, error: OIDCError) -> bool:
    """Tell whether this is a preflight that the door let through to whoever answers it, perhaps in this app."""
    if scope["type"] != "http" or not isinstance(error, MissingToken) or settings_of(scope).preflight != "pass":
        return False
    return is_preflight(scope["method"], scope["headers"])
