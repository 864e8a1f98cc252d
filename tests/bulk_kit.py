"""The proxy as its command runs it, in a process of its own, between an app and clients that move a lot of bytes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from oidc_middleware.testing import FakeIssuer

from bulk_app import PART
from serve_kit import environment

MIB = 1 << 20
SECONDS = 60
APP = Path(__file__).with_name("bulk_app.py")


class Stand:
    """An app, a proxy before it, and an issuer; the app and the proxy are processes."""

    def __init__(self, issuer: FakeIssuer, app: subprocess.Popen[str], proxy: subprocess.Popen[str], port: int) -> None:
        self.issuer = issuer
        self.app = app
        self.proxy = proxy
        self.port = port
        self.token = issuer.token("alice")

    def peak(self) -> float:
        """Return the most memory that the proxy ever had, in MiB."""
        status = Path(f"/proc/{self.proxy.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024

    def resident(self) -> float:
        """Return the memory that the proxy has now, in MiB."""
        status = Path(f"/proc/{self.proxy.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024

    def open(self, request: str, *headers: str, seconds: float = SECONDS) -> socket.socket:
        """Send the head of a request."""
        connection = socket.create_connection(("127.0.0.1", self.port), seconds)
        lines = [f"{request} HTTP/1.1", "Host: app.example", f"Authorization: Bearer {self.token}", *headers]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return connection

    def status(self, request: str, *headers: str) -> int:
        """Send a request without a body, and return the status."""
        with self.open(request, *headers) as connection:
            return read_head(connection)[0]

    def download(self, length: int) -> int:
        """Return how many bytes came."""
        with self.open(f"GET /bytes/{length}") as connection:
            status, rest = read_head(connection)
            assert status == 200
            return len(rest) + read(connection, length - len(rest))

    def upload(self, length: int) -> int:
        """Return how many bytes the app says that it got."""
        with self.open("POST /count", f"Content-Length: {length}") as connection:
            write(connection, length)
            status, rest = read_head(connection)
            assert status == 200
            return int(rest or connection.recv(100))

    def echo(self, length: int) -> int:
        """Return how many bytes came back while as many were sent."""
        with self.open("POST /echo", f"Content-Length: {length}") as connection:
            writing = threading.Thread(target=write, args=(connection, length))
            writing.start()
            status, rest = read_head(connection)
            assert status == 200
            count = len(rest) + read(connection, length - len(rest))
            writing.join()
            return count


def read_head(connection: socket.socket) -> tuple[int, bytes]:
    """Return the status of a response, and what came of its body already."""
    head = b""
    while b"\r\n\r\n" not in head:
        part = connection.recv(65536)
        assert part, head
        head += part
    head, _, rest = head.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), rest


def read(connection: socket.socket, length: int) -> int:
    """Return how many bytes came of so many."""
    buffer, count = bytearray(1 << 18), 0
    while count < length and (size := connection.recv_into(buffer)):
        count += size
    return count


def write(connection: socket.socket, length: int) -> None:
    """Send so many bytes."""
    while length:
        part = PART[: min(length, len(PART))]
        connection.sendall(part)
        length -= len(part)


@contextmanager
def standing(*options: str) -> Iterator[Stand]:
    """Run it all; `options` are those of the command."""
    with standing_before("http", *options) as stand:
        yield stand


@contextmanager
def standing_before(kind: str, *options: str) -> Iterator[Stand]:
    """Run it all before an app with HTTP, or with WebSockets."""
    with ExitStack() as stack:
        issuer = stack.enter_context(
            FakeIssuer(audience="https://app.example", algorithms=("ES256",)).serve_in_thread()
        )
        app = _started(stack, [sys.executable, str(APP), kind], os.environ.copy())
        assert app.stdout is not None
        upstream = f"http://127.0.0.1:{int(app.stdout.readline())}"
        command = [sys.executable, "-m", "oidc_middleware.cli", "proxy", "--port=0", f"--upstream={upstream}", *options]
        proxy = _started(stack, command, environment({"issuer": issuer.url, "audience": issuer.audience}))
        assert proxy.stdout is not None
        said = re.search(r"http://127\.0\.0\.1:(\d+) to", proxy.stdout.readline())
        assert said is not None
        yield Stand(issuer, app, proxy, int(said[1]))


def _started(stack: ExitStack, command: list[str], variables: dict[str, str]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.kill(process.pid, signal.SIGCONT)
        process.terminate()
    try:
        process.wait(SECONDS)
    finally:
        if process.stdout is not None:
            process.stdout.close()
