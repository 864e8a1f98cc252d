"""An endpoint by its methods: JSON that nobody stores, 405 for other methods, and errors as answers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from oidc_middleware.asgi.endpoints.bodies import BadRequest
from oidc_middleware.asgi.refusal import refusal_of
from oidc_middleware.asgi.responses import stamp
from oidc_middleware.errors import OIDCError, RevocationNotShared, Revoked

logger: logging.Logger = logging.getLogger("oidc_middleware")

Handler = Callable[[Request], Awaitable[Response]]

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def answer(body: Any = None, status: int = HTTPStatus.OK) -> Response:
    """Return `body` as JSON, None as an empty answer."""
    if body is None:
        return Response(status_code=status, headers=_HEADERS)
    return Response(msgspec.json.encode(body), status_code=status, media_type="application/json", headers=_HEADERS)


class Endpoint:
    """An ASGI app that answers each of these methods, HEAD as GET, and no other (RFC 9110 §15.5.6)."""

    def __init__(self, **by_method: Handler) -> None:
        if "GET" in by_method:
            by_method["HEAD"] = by_method["GET"]
        self._by_method = by_method
        self._allow = ", ".join(sorted(by_method))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a WebSocket is closed before it is accepted."""
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        handler = self._by_method.get(scope["method"])
        if handler is None:
            response = answer(status=HTTPStatus.METHOD_NOT_ALLOWED)
            response.headers["Allow"] = self._allow
        else:
            try:
                response = await handler(Request(scope, receive))
            except BadRequest as error:
                logger.info("refused %.200r with %d: %s", scope["path"], error.status, error.problem)
                response = answer({"error": error.code, "error_description": error.problem}, error.status)
            except Revoked as error:
                response = refusal_of(scope).response(scope, error)
            except OIDCError as error:
                logger.warning("%.200r is answered with %d: %s", scope["path"], error.status, error)
                response = _failure(error)
            except ClientDisconnect:
                return
        await response(scope, receive, send)


def _failure(error: OIDCError) -> Response:
    """Return what says that something could not be done for now, and how far it got."""
    body = {"error": "temporarily_unavailable", "error_description": error.public}
    if isinstance(error, RevocationNotShared):
        body["receipt"] = error.receipt
    return stamp(answer(body), error)
