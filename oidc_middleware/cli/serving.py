"""A server for a command: uvicorn on a socket that is there already."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from oidc_middleware.cli.protocol import http_protocol, websocket_protocol
from oidc_middleware.cli.terminal import printable
from oidc_middleware.errors import ConfigError

_BACKLOG = 2048
# What uvicorn says of the handshake of a WebSocket, which is a request like all others here: a proxy passed it on.
# And what it says of a WebSocket that was refused (its pull request 3138 ends that), and of a response that was cut.
_SPURIOUS = (
    "Unsupported upgrade request.",
    "No supported WebSocket library detected.",
    "ASGI callable returned without completing",
)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 is any free one.

    Raises:
        ConfigError: it cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        # What Python says of a port that is taken is longer than it need be.
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        problem = f"{printable(host)}:{port} cannot be had ({reason})"
        raise ConfigError(
            "--host, --port", problem, "Choose another address of this machine, or port 0 for any."
        ) from None
    # asyncio does it only for sockets of its own: without it each answer waits 40 ms for the client's acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def address_of(listening: socket.socket) -> str:
    """Return the URL at which it listens."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    app: ASGIApp, listening: socket.socket, *, started: Callable[[], None], drain_seconds: int, passes_on: bool = False
) -> None:
    """Serve `app` until a signal ends it, and call `started` when it accepts connections.

    The peer that the app sees is the one that connected: uvicorn's own handling of forwarded headers, which would hide
    it, is off. Requests that are under way when a signal comes have `drain_seconds` left. With `passes_on`, what
    uvicorn would add to responses is left out, and WebSockets come as `ReverseProxy` needs them.

    Raises:
        SystemExit: the app did not start; the log says why.
    """
    config = uvicorn.Config(
        app,
        http=http_protocol(),
        ws=websocket_protocol() if passes_on else "none",
        ws_per_message_deflate=not passes_on,
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        date_header=not passes_on,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=drain_seconds,
    )
    log = logging.getLogger("uvicorn.error")
    log.setLevel(logging.WARNING)
    log.addFilter(_is_no_noise)
    server = _Server(config, started)
    server.run([listening])
    if not server.started:
        raise SystemExit(3)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, told: Callable[[], None]) -> None:
        super().__init__(config)
        self._told = told

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._told()


def _is_no_noise(record: logging.LogRecord) -> bool:
    # How many requests were cut at the end it says in a line of its own: it need not show where each of them was.
    was_cut = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not (was_cut or record.getMessage().startswith(_SPURIOUS))
