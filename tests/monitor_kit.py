"""Listening to everything that clients say to a Redis server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from redis_kit import PATIENCE, RedisServer, until

MAGIC = b"the monitor sees what everybody says"


class Monitor:
    """Everything that clients say to a server, as `MONITOR` tells it."""

    def __init__(self, server: RedisServer) -> None:
        self.heard = b""
        self._server = server
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(server.socket)
        self._socket.sendall(b"MONITOR\r\n")
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while data := self._socket.recv(65_536):
            self.heard += data

    async def all(self) -> bytes:
        """Return what was said until now."""
        self._server.admin.echo(MAGIC)
        await until(lambda: MAGIC in self.heard)
        return self.heard


@contextmanager
def monitored(server: RedisServer) -> Iterator[Monitor]:
    monitor = Monitor(server)
    yield monitor
    monitor._socket.shutdown(socket.SHUT_RDWR)
    monitor._thread.join(PATIENCE)
    monitor._socket.close()
