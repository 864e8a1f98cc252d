"""A server for a command: uvicorn on a socket that is there already."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

# What uvicorn says of the handshake of a WebSocket, which is a request like all others here: a proxy passed it on.
_SPURIOUS = ("Unsupported upgrade request.", "No supported WebSocket library detected.")


def serve(app: ASGIApp, listening: socket.socket, *, started: Callable[[], None], drain_seconds: int) -> None:
    """Serve `app` until a signal ends it, and call `started` when it accepts connections.

    The peer that the app sees is the one that connected: uvicorn's own handling of forwarded headers, which would hide
    it, is off. Requests that are under way when a signal comes have `drain_seconds` left.

    Raises:
        SystemExit: the app did not start; the log says why.
    """
    config = uvicorn.Config(
        app,
        ws="none",
        lifespan="on",
        proxy_headers=False,
        server_header=False,
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
    return not record.getMessage().startswith(_SPURIOUS)
