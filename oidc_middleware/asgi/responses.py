"""An error as a response: its status, its challenge, one sentence. Never which check failed; that is in the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from oidc_middleware.asgi.pages import Action, page
from oidc_middleware.core.accept import prefers_html
from oidc_middleware.core.challenge import challenge
from oidc_middleware.errors import InsufficientScope, MissingToken, OIDCError, UpstreamError

# Somebody in front of a browser has an account, and knows of no token.
_FOR_PEOPLE: Final[Mapping[type[OIDCError], str]] = MappingProxyType(
    {InsufficientScope: "Your account does not permit this."}
)


def error_response(
    error: OIDCError,
    *,
    headers: Iterable[tuple[bytes, bytes]] = (),
    realm: str | None = None,
    scopes: Iterable[str] = (),
    start: str | None = None,
) -> Response:
    """Return the answer to a request that `error` ended: JSON, or a page where the browser prefers one.

    `headers` are the request's, of which Accept is read; `scopes` those that the resource needs, where known; `start`
    is where a login begins, for somebody whose form came too late.
    """
    if prefers_html(headers):
        title = f"{error.status} {HTTPStatus(error.status).phrase}"
        actions = [Action("Sign in", start)] if start is not None and isinstance(error, MissingToken) else []
        response = page(title, [_FOR_PEOPLE.get(type(error), type(error).public)], actions)
    else:
        body = {"error": _code(error), "error_description": type(error).public}
        response = Response(msgspec.json.encode(body), media_type="application/json")
    response.headers["X-Content-Type-Options"] = "nosniff"
    return stamp(response, error, realm=realm, scopes=scopes)


def stamp(
    response: Response,
    error: OIDCError,
    *,
    realm: str | None = None,
    scopes: Iterable[str] = (),
    resource_metadata: str | None = None,
) -> Response:
    """Give a response, ours or of the user's `on_error`, what the error fixes, and return it.

    That is its status, the challenge, Retry-After for 503, and that nobody may store it.

    Source: RFC 6750 §3; RFC 9110 §10.2.3, §15.5.2; RFC 9111 §5.2.2.5.
    """
    response.status_code = error.status
    response.headers["Cache-Control"] = "no-store"
    value = challenge(error, realm=realm, scopes=scopes, resource_metadata=resource_metadata)
    if value is None:
        del response.headers["WWW-Authenticate"]
    else:
        response.headers["WWW-Authenticate"] = value
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(max(1, int(getattr(error, "retry_after", 5))))
    return response


async def deny_websocket(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a WebSocket before it is accepted: with `response`, or where the server cannot, by closing.

    After a close the client sees 403 whatever the response was, so the code of the close says nothing.

    Source: the ASGI specification, WebSocket Denial Response extension.
    """
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await response(scope, receive, send)
    else:
        await send({"type": "websocket.close"})


def _code(error: OIDCError) -> str:
    """Return the body's error code: RFC 6750's where there is one, else one that tells no more than the status."""
    if error.error is not None:
        return error.error
    if isinstance(error, MissingToken | UpstreamError):
        return error.code
    return "temporarily_unavailable" if error.status == HTTPStatus.SERVICE_UNAVAILABLE else "server_error"
