"""The servers that the middleware runs under: each a process of its own, asked over real sockets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2

AUDIENCE = "https://api.example"
START_SECONDS = 30
ANSWER_SECONDS = 10
COMMANDS: dict[str, Callable[[str, int], list[str]]] = {
    "uvicorn": lambda app, port: ["uvicorn", app, "--host=127.0.0.1", f"--port={port}", "--http=h11"],
    # Zero workers: it serves in the process that we start, and that we can end.
    "hypercorn": lambda app, port: [
        "hypercorn",
        app,
        f"--bind=127.0.0.1:{port}",
        "--workers=0",
        "--graceful-timeout=0",
    ],
    "granian": lambda app, port: ["granian", app, "--interface=asgi", "--host=127.0.0.1", f"--port={port}"],
}
if find_spec("httptools"):  # uvicorn's other parser reads request lines differently; it needs a wheel of its own
    COMMANDS["uvicorn-httptools"] = lambda app, port: [*COMMANDS["uvicorn"](app, port), "--http=httptools"]


@dataclass(frozen=True)
class Server:
    """A running server: its name, where it listens, and its process."""

    name: str
    port: int
    pid: int

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, token: str | None = None) -> httpx2.Response:
        """Ask for a path, with a bearer token if there is one."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx2.get(self.url + path, headers=headers, trust_env=False, timeout=ANSWER_SECONDS)

    def raw(self, *lines: str) -> tuple[int, str]:
        """Send these lines as a request, exactly as they are, and return status and answer."""
        request = "\r\n".join([*lines, f"Host: 127.0.0.1:{self.port}", "Connection: close", "", ""])
        with socket.create_connection(("127.0.0.1", self.port), ANSWER_SECONDS) as connection:
            connection.sendall(request.encode("latin-1"))
            answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode("latin-1")
        return int(answer.split(" ", 2)[1]), answer


@contextmanager
def running(name: str, issuer_url: str, log: Path, app: str = "served_app:app") -> Iterator[Server]:
    """Start a server on a free port, wait until it accepts connections, and end it and what it started."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = os.environ | {
        "OIDC_ISSUER": issuer_url,
        "OIDC_AUDIENCE": AUDIENCE,
        "PYTHONPATH": str(Path(__file__).parent),
        "PYTHONWARNINGS": "default",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *COMMANDS[name](app, port)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until_listening(process, port, log)
        yield Server(name, port, process.pid)
    finally:
        end(process)


def wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when the port accepts connections."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return


def end(process: subprocess.Popen[Any]) -> None:
    """Ask the server to stop; one that does not is killed with all of its session."""
    process.terminate()
    try:
        process.wait(ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
