"""The app that `test_servers.py` lets each server load: configured by the environment, as in a container."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from oidc_middleware import OIDCMiddleware, Rule


async def health(_request: Request) -> Response:
    """Answer anybody."""
    return PlainTextResponse("ok")


async def whoami(request: Request) -> Response:
    """Tell the caller who it is, and which path the server made of the request line."""
    return JSONResponse({"subject": request.user.subject, "path": request.scope["path"]})


async def echo(websocket: WebSocket) -> None:
    """Tell the caller who it is, then send back one message."""
    await websocket.accept()
    await websocket.send_text(websocket.user.subject)
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()


# OIDC_ISSUER and OIDC_AUDIENCE come from the environment.
guarded = Starlette(
    routes=[
        Route("/health", health),
        WebSocketRoute("/ws", echo),
        WebSocketRoute("/old/ws", echo),
        Route("/{rest:path}", whoami),
    ],
    middleware=[Middleware(OIDCMiddleware, public=["/health"], rules=[Rule("/admin/*", scopes=("admin",))])],
)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve the app; below `/old` the server pretends not to know how to deny a WebSocket by an HTTP response."""
    if scope["type"] == "websocket" and scope["path"].startswith("/old/"):
        scope = {**scope, "extensions": {}}
    await guarded(scope, receive, send)
