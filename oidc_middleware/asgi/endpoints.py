"""Our own endpoints below `prefix`. Who may use one was decided before; here is what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from oidc_middleware.wiring import OIDC


async def health(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell whether tokens can be verified now: 200 `ok`, or 503 while the keys of an issuer are not there."""
    ready = OIDC.from_scope(scope).ready
    status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
    await _answer({"status": "ok" if ready else "unavailable"}, status, scope, receive, send)


async def status(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell the counters of `OIDC.stats`."""
    await _answer(OIDC.from_scope(scope).stats(), HTTPStatus.OK, scope, receive, send)


async def _answer(body: Mapping[str, Any], status: int, scope: Scope, receive: Receive, send: Send) -> None:
    """Send JSON to GET and HEAD, and 405 to every other method (RFC 9110 §15.5.6)."""
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    if scope["type"] != "http":
        await send({"type": "websocket.close"})
        return
    if scope["method"] not in {"GET", "HEAD"}:
        response = Response(status_code=HTTPStatus.METHOD_NOT_ALLOWED, headers=headers | {"Allow": "GET, HEAD"})
    else:
        content = msgspec.json.encode(body)
        response = Response(content, status_code=status, media_type="application/json", headers=headers)
    await response(scope, receive, send)


ENDPOINTS: Mapping[str, ASGIApp] = MappingProxyType({"health": health, "status": status})
