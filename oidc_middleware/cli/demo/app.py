"""The API of the demo: an app as users of this package write it."""

from __future__ import annotations

import logging

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from oidc_middleware import OIDCMiddleware, Principal, Rule
from oidc_middleware.cli.demo.login import Login
from oidc_middleware.cli.demo.place import Place
from oidc_middleware.cli.terminal import listed, shown

ADMIN_SCOPE = "revocations"
"""What an administrator's token has."""

_log = logging.getLogger("oidc_middleware.demo")


async def health(request: Request) -> JSONResponse:  # noqa: ARG001  the signature of a handler
    """Answer anybody: the path is public."""
    return JSONResponse({"status": "up"})


async def orders(request: Request) -> JSONResponse:
    """Answer what is known of the caller. Nobody gets here without a valid token."""
    user: Principal = request.user
    _tell(request.method, request.url.path, user)
    return JSONResponse({"user": user.identity, "scopes": sorted(user.scopes), "claims": user.claims})


async def feed(websocket: WebSocket) -> None:
    """Greet the caller over a WebSocket. Nobody gets it accepted without a valid token."""
    user: Principal = websocket.user
    _tell("WebSocket", websocket.url.path, user)
    await websocket.accept()
    await websocket.send_json({"hello": user.display_name})
    await websocket.close()


def build(issuer: str, audience: str, login: Login, place: Place) -> Starlette:
    """Return the app; it accepts tokens that `issuer` made for `audience`, and keeps what it keeps at `place`."""
    app = Starlette(
        routes=[
            Route("/health", health),
            Route("/orders", orders, methods=["GET", "POST"]),
            WebSocketRoute("/feed", feed),
            Route("/callback", login.callback),
        ],
    )
    app.add_middleware(
        OIDCMiddleware,
        issuer=issuer,
        audience=audience,
        cache=place.cache,
        secret=place.secret,
        namespace=place.namespace,
        journal=place.journal,
        public=["/health", "/callback"],
        rules=[Rule("/orders", methods=["POST"], scopes=["orders:write"])],
        revoke_endpoint=True,
        admin_scope=ADMIN_SCOPE,
    )
    return app


def _tell(method: str, path: str, user: Principal) -> None:
    _log.info("the API saw %s %s by %s, scopes: %s", method, path, shown(user.identity), listed(sorted(user.scopes)))
