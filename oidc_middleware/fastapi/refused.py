"""How a dependency says no: an exception that FastAPI turns into the response that the middleware would send."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketState

from oidc_middleware.asgi.refusal import Refusal
from oidc_middleware.asgi.responses import deny_websocket
from oidc_middleware.errors import OIDCError

_POLICY_VIOLATION = 1008
_HEADERS = ("WWW-Authenticate", "Retry-After", "Cache-Control")


class Refused(HTTPException):
    """A request that a dependency refuses: `error` is why, `response` what is sent.

    The app need not handle it. It may: a handler for `Refused`, or for its status, goes before ours; what it sends has
    to carry `headers`, which hold the challenge.
    """

    def __init__(self, error: OIDCError, response: Response) -> None:
        headers = {name: response.headers[name] for name in _HEADERS if name in response.headers}
        super().__init__(error.status, type(error).public, headers)
        self.error: OIDCError = error
        self.response: Response = response

    def __str__(self) -> str:
        return f"{self.status_code}: {self.error}"


def refused(conn: HTTPConnection, error: OIDCError, refusal: Refusal, scopes: Iterable[str]) -> Refused:
    """Log a refusal, and return the exception to raise; `scopes` are those that the operation needs."""
    handlers = conn.scope.get("starlette.exception_handlers")
    if handlers is not None:  # else it is handled as any HTTPException
        by_class: MutableMapping[Any, Any] = handlers[0]
        by_class.setdefault(Refused, _answer)
    return Refused(error, refusal.response(conn.scope, error, scopes))


async def _answer(conn: Request | WebSocket, refusal: Refused) -> Response | None:
    if not isinstance(conn, WebSocket):
        return refusal.response
    if conn.application_state is WebSocketState.CONNECTED:  # a dependency before ours has accepted it
        await conn.close(_POLICY_VIOLATION)
    else:
        await deny_websocket(refusal.response, conn.scope, conn.receive, conn.send)
    return None
