"""How this node fares: whether tokens can be verified, and its counters."""

from __future__ import annotations

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from oidc_middleware.asgi.endpoints.endpoint import answer
from oidc_middleware.wiring import OIDC


async def health(request: Request) -> Response:
    """Tell whether requests can be judged now: 200 `ok`, or 503 while keys or the ledger are not there yet."""
    if OIDC.from_scope(request.scope).ready:
        return answer({"status": "ok"})
    return answer({"status": "unavailable"}, HTTPStatus.SERVICE_UNAVAILABLE)


async def status(request: Request) -> Response:
    """Tell the counters of `OIDC.stats`."""
    return answer(OIDC.from_scope(request.scope).stats())
