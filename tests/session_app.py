"""An app that users log in to, for servers that the tests start: settings come from the environment."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from oidc_middleware import OIDC, OIDCMiddleware


async def me(request: Request) -> JSONResponse:
    """Tell who asks, and with what token another API would be called."""
    return JSONResponse({"sub": request.user.subject, "token": await request.auth.access_token()})


async def stats(request: Request) -> JSONResponse:
    """Tell how this node fares."""
    return JSONResponse(OIDC.from_request(request).stats())


app = Starlette(routes=[Route("/me", me), Route("/stats", stats)])
app.add_middleware(OIDCMiddleware, public=["/stats"])
