"""The app behind the proxies, which tells what it got."""

from __future__ import annotations

import json
import socket
import threading


class App:
    """An app that answers every request with its head, line by line as it came, in JSON.

    It is no framework's: what a proxy sends is seen as it is, trailers included.
    """

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listening.getsockname()[1]
        self.requests = 0
        """How many reached it."""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more."""
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            head = _lines(lines)
            if not head:  # a proxy that looks whether somebody is there
                return
            self.requests += 1
            fields = [tuple(line.split(": ", 1)) if ": " in line else (line.rstrip(":"), "") for line in head[1:]]
            names = {name.lower(): value for name, value in fields}
            trailers: list[str] = []
            if names.get("transfer-encoding", "").lower() == "chunked":
                while size := int(lines.readline().split(b";")[0], 16):
                    lines.read(size + 2)
                trailers = _lines(lines)
            elif length := int(names.get("content-length", "0")):
                lines.read(length)
            if names.get("upgrade", "").lower() == "websocket":
                connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
                connection.sendall(b"X-Seen: " + json.dumps(fields).encode() + b"\r\n\r\n")
                return
            body = json.dumps({"line": head[0], "headers": fields, "trailers": trailers}).encode()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n")
            connection.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))


def _lines(stream: object) -> list[str]:
    lines = []
    while line := stream.readline().decode("latin-1").rstrip("\r\n"):  # type: ignore[attr-defined]
        lines.append(line)
    return lines
