"""What is left of uvicorn's requests per second when every request is authenticated."""

from __future__ import annotations

import importlib.util
import selectors
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Self

from table import Row, at_least, markdown
from traffic import header_lines, issuer

CONNECTIONS = 16
SHARE = 0.9
BARE, OURS = "bare Starlette", "oidc-middleware"
SERVED = {
    BARE: "bare",
    OURS: "oidc-middleware",
    "peer: AuthenticationMiddleware with PyJWT": "pyjwt",
    "peer: BaseHTTPMiddleware with PyJWT": "base-http",
}


@dataclass(frozen=True, slots=True)
class Burst:
    """What one burst of requests came to."""

    per_second: float
    cpu: float
    """Processor time of the server per request, in µs."""
    load: float
    """Share of the time in which the server was busy."""


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the tables of served requests."""
    seconds, rounds = (0.2, 3) if quick else (0.4, 7)
    provider = issuer()
    with ExitStack() as stack:
        stack.enter_context(provider.serve_in_thread())
        tokens = [provider.token() for _ in range(CONNECTIONS)]
        loads = {
            name: stack.enter_context(Load(stack.enter_context(served(app, provider.url)), tokens))
            for name, app in SERVED.items()
        }
        for load in loads.values():
            load.burst(seconds / 2)
        bursts: dict[str, list[Burst]] = {name: [] for name in loads}
        for _ in range(rounds):
            for name, load in loads.items():
                bursts[name].append(load.burst(seconds))
    return {f"Under uvicorn ({implementation()}), {CONNECTIONS} connections": shares(bursts)}


def shares(bursts: dict[str, list[Burst]]) -> list[Row]:
    """Return what the server gets done in a second of its processor time, and how busy the client kept it.

    The first is what a server reaches that has nothing else to do, also where this machine or the client did not let
    it: its share of the bare app's is the figure that counts.
    """
    cpu = {name: median(burst.cpu for burst in taken) for name, taken in bursts.items()}
    capacities = [
        Row(
            f"{name}: requests in a second of processor time",
            1e6 / cpu[name],
            unit="/s",
            ratio=cpu[BARE] / cpu[name],
            base="bare",
            goal=at_least(cpu[BARE] / cpu[name], SHARE) if name == OURS else None,
        )
        for name in bursts
    ]
    rates = [
        Row(f"{name}: requests served in a second, busy {median(burst.load for burst in taken):.0%}", rate, unit="/s")
        for name, taken in bursts.items()
        for rate in [median(burst.per_second for burst in taken)]
    ]
    return [*capacities, *rates]


def implementation() -> str:
    """Name what uvicorn runs on: its faster parts are used where they are installed."""
    http = "httptools" if importlib.util.find_spec("httptools") else "h11"
    return f"{http}, {'uvloop' if importlib.util.find_spec('uvloop') else 'asyncio'}"


@contextmanager
def served(app: str, issuer_url: str) -> Iterator[int]:
    """Serve an app in a process of its own until the block ends; yield its port."""
    script = str(Path(__file__).with_name("served.py"))
    with subprocess.Popen([sys.executable, script, app, issuer_url], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


class Load:
    """A client that asks over several connections, each with a token of its own, one request at a time on each."""

    def __init__(self, port: int, tokens: Sequence[str]) -> None:
        self._port = port
        self._requests = [request("/orders", token) for token in tokens]
        self._cpu = request("/cpu", tokens[0])
        self._selector = selectors.DefaultSelector()
        self._control = self._connect()
        self._size = len(self._answer(self._requests[0]))
        self._connections = [self._connect() for _ in tokens]
        for connection in self._connections:
            connection.settimeout(0)
            self._selector.register(connection, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for connection in (self._control, *self._connections):
            connection.close()

    def burst(self, seconds: float) -> Burst:
        """Ask for so long.

        Raises:
            AssertionError: an answer is not what it should be.
        """
        texts = dict(zip(self._connections, self._requests, strict=True))
        missing = dict.fromkeys(self._connections, size := self._size)
        asking, answers, select = len(texts), 0, self._selector.select
        cpu, start = self._cpu_time(), perf_counter()
        for connection, text in texts.items():
            connection.send(text)
        while asking:
            now = perf_counter()
            for key, _ in select(10):
                asked: Any = key.fileobj
                missing[asked] -= len(_good(asked.recv(4096), first=missing[asked] == size))
                if not missing[asked]:
                    answers += 1
                    missing[asked] = size
                    if now < start + seconds:
                        asked.send(texts[asked])
                    else:
                        asking -= 1
        took, cpu = perf_counter() - start, self._cpu_time() - cpu
        return Burst(answers / took, cpu / answers * 1e6, cpu / took)

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _cpu_time(self) -> float:
        return float(self._answer(self._cpu).rpartition(b"\r\n\r\n")[2])

    def _answer(self, text: bytes) -> bytes:
        self._control.sendall(text)
        head, _, body = _good(self._control.recv(4096), first=True).partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += _good(self._control.recv(4096), first=False)
        return head + b"\r\n\r\n" + body


def _good(received: bytes, *, first: bool) -> bytes:
    if not received or (first and not received.startswith(b"HTTP/1.1 200 ")):
        raise AssertionError(received)
    return received


def request(path: str, token: str) -> bytes:
    """Return a request as it is sent."""
    return "\r\n".join([f"GET {path} HTTP/1.1", *header_lines(token), "", ""]).encode()


if __name__ == "__main__":
    for title, table in rows().items():
        print(markdown(title, table), end="\n\n")
