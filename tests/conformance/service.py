"""The service under test: a Starlette app behind `OIDCMiddleware`, served by a real uvicorn on a real socket."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from oidc_middleware import OIDC, OIDCMiddleware, Rule
from oidc_middleware.clock import Clock

from .stranger import AUDIENCE

START_SECONDS = 20
RULES = [
    Rule("/admin/*", methods=("POST",), scopes=("admin",)),
    Rule("/admin/*", any_scopes=("admin", "read")),
    Rule("/alice/*", claims={"realm_access.roles": "role-of-alice"}),
]


def seen(conn: HTTPConnection) -> dict[str, Any]:
    """Return what the application sees of the caller."""
    user = conn.user
    if not user.is_authenticated:
        return {"authenticated": False}
    return {
        "authenticated": True,
        "identity": user.identity,
        "subject": user.subject,
        "issuer": user.issuer,
        "client_id": user.client_id,
        "scopes": sorted(user.scopes),
        "audience": user.claims.get("aud"),
        "expires_at": user.expires_at,
        "jti": user.jti,
    }


async def whoami(request: Request) -> Response:
    """Tell the caller who it is."""
    return JSONResponse({**seen(request), "path": request.url.path})


async def health(_request: Request) -> Response:
    """Answer anybody."""
    return PlainTextResponse("ok")


@requires("write")
async def write(request: Request) -> Response:
    """Answer those whom Starlette's own decorator lets in."""
    return JSONResponse(seen(request))


async def echo(websocket: WebSocket) -> None:
    """Tell the caller who it is, then send back one message."""
    await websocket.accept()
    await websocket.send_json(seen(websocket))
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()


def routes() -> list[Route | WebSocketRoute | Mount]:
    """Return the routes of the service."""
    return [
        Route("/health", health),
        Route("/write", write),
        WebSocketRoute("/ws", echo),
        Mount("/sub", Starlette(routes=[Route("/{rest:path}", whoami)])),
        Route("/{rest:path}", whoami, methods=["GET", "POST", "OPTIONS"]),
    ]


def protected_app(clock: Clock | None = None, **settings: Any) -> Starlette:
    """Return the service behind the middleware; `settings` replace what is usual here, None leaves a setting out.

    With a `clock`, that is what time it is for the middleware; everybody else has the machine's.
    The provider's host is an address of this machine, so plain http needs no permission.
    """
    usual: dict[str, Any] = {
        "audience": AUDIENCE,
        "leeway": 0,
        "public": ["/health"],
        "optional": ["/maybe"],
        "rules": RULES,
    }
    app = Starlette(routes=routes())
    chosen = {name: value for name, value in (usual | settings).items() if value is not None}
    if clock is None:
        app.add_middleware(OIDCMiddleware, **chosen)
    else:
        app.add_middleware(OIDCMiddleware, oidc=OIDC(clock=clock, **chosen))
    return app


@dataclass(frozen=True)
class Served:
    """A service on a socket, and a client for it."""

    port: int
    client: httpx2.Client

    def get(self, path: str, token: str | None = None, **headers: str) -> httpx2.Response:
        """Ask for a path with a bearer token."""
        return self.request("GET", path, token, **headers)

    def request(self, method: str, path: str, token: str | None = None, **headers: str) -> httpx2.Response:
        """Send a request with a bearer token."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        return self.client.request(method, path, headers=sent)


def listen() -> socket.socket:
    """Return a socket that connections wait at, on a free port of loopback."""
    return socket.create_server(("127.0.0.1", 0), backlog=256)


@contextmanager
def serving(app: ASGIApp, root_path: str = "", listener: socket.socket | None = None) -> Iterator[Served]:
    """Serve `app` from a thread of its own until the block ends; on this socket, where it has to know its port."""
    listener = listener or listen()
    port = listener.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", root_path=root_path))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="uvicorn")
    thread.start()
    try:
        _wait_until_started(server, thread)
        limits = httpx2.Limits(max_connections=None)
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=15, limits=limits) as client:
            yield Served(port, client)
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)
        listener.close()
    assert not thread.is_alive(), "the server did not stop"


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        assert thread.is_alive(), "the server did not start; its log says why"
        assert time.monotonic() < deadline, "the server did not start in time"
        time.sleep(0.005)
