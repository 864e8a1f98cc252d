"""A real HTTP server on a loopback socket, inside the running event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

import uvicorn
from anyio.from_thread import start_blocking_portal
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from oidc_middleware.testing.faults import DROP

# Turns of the event loop in which asyncio makes a connection of what it has accepted.
_LAST_TURNS = 3


def bind(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket; port 0 takes a free one. Connections queue until a server accepts them."""
    listening = socket.create_server((host, port), backlog=1024)
    # asyncio does it only for sockets of its own: without it an answer waits 40 ms for the client's acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.setblocking(False)  # noqa: FBT003 - the standard library's signature
    return listening


@asynccontextmanager
async def serving(
    app: ASGIApp,
    listening: socket.socket,
    *,
    ws: Literal["auto", "none"] = "none",
    lifespan: Literal["on", "off"] = "off",
) -> AsyncIterator[None]:
    """Serve `app` on `listening` until the block ends; then cut what is still open and close the socket.

    An issuer needs neither WebSockets (`ws`) nor a life cycle (`lifespan`); an app may.
    """
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws=ws,
        lifespan=lifespan,
        log_config=None,
        log_level=None,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    running = asyncio.ensure_future(server.serve([listening]))
    try:
        await server.accepting.wait()
        yield
    finally:
        server.cut()
        await running
        await server.left()


@contextmanager
def serving_in_thread(app: ASGIApp, listening: socket.socket) -> Iterator[None]:
    """Serve as `serving` does, from an event loop in a thread of its own."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serving(app, listening)):
        yield


class _Server(uvicorn.Server):
    """uvicorn that leaves the process's signals alone and says when it accepts connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:  # a failed start ends the wait too; its error comes out of the serving task
            self.accepting.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def cut(self) -> None:
        """Stop without waiting for anybody: a fault may be holding an answer back."""
        self.should_exit = True
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    async def left(self) -> None:
        """Return when no connection is there, not even one that was accepted in the last moment."""
        for _ in range(_LAST_TURNS):
            await asyncio.sleep(0)
            while self.server_state.connections:
                self.cut()
                await asyncio.sleep(0)


class _Protocol(H11Protocol):
    """HTTP/1.1 whose app can cut the connection (see `faults.DROP`)."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._inner = self.app
        self.app = self._with_drop

    async def _with_drop(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("extensions", {})[DROP] = self.transport.abort
        await self._inner(scope, receive, send)
