"""The app that `test_requires_servers.py` lets each server load: what `requires` guards, in every form, and a mount."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from oidc_middleware import OIDC, OIDCMiddleware, requires

events: list[str] = []


async def told(_request: Request) -> Response:
    """Tell what happened so far."""
    return JSONResponse(events)


@requires("read")
def read(request: Request) -> Response:
    """Answer whoever may read."""
    return PlainTextResponse(request.user.subject)


@requires("read")
async def socket(websocket: WebSocket) -> None:
    """Greet whoever may read."""
    await websocket.accept()
    await websocket.send_text(websocket.user.subject)
    await websocket.close()


class Connect(WebSocketEndpoint):
    """Guards what accepts."""

    encoding = "text"

    @requires("read")
    async def on_connect(self, websocket: WebSocket) -> None:
        """Greet whoever may read."""
        await websocket.accept()
        await websocket.send_text(websocket.user.subject)

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        """Say that it is over."""
        events.append(f"left {websocket.path_params['name']}")


@requires("read")
class Whole(Connect):
    """Guards all of it."""


class Receiving(WebSocketEndpoint):
    """Guards what a client says."""

    encoding = "text"

    @requires("read")
    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        """Send it back to whoever may read."""
        await websocket.send_text(data)


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer whoever may read, as an app without a framework."""
    if scope["type"] == "websocket":
        await socket(WebSocket(scope, receive, send))
    else:
        await PlainTextResponse(scope["user"].subject)(scope, receive, send)


# OIDC_ISSUER and OIDC_AUDIENCE come from the environment.
oidc = OIDC(public=["/told"], optional=["/read"], realm="service")
app = Starlette(
    routes=[
        Route("/told", told),
        Route("/read", read),
        WebSocketRoute("/function", socket),
        WebSocketRoute("/connect/{name}", Connect),
        WebSocketRoute("/whole/{name}", Whole),
        WebSocketRoute("/receiving", Receiving),
        Mount("/app", app=requires("read")(bare)),
        Mount(
            "/mount",
            app=bare,
            middleware=[Middleware(OIDCMiddleware, oidc=oidc, realm="mount"), Middleware(requires("read"))],
        ),
    ],
    middleware=[Middleware(OIDCMiddleware, oidc=oidc)],
)
