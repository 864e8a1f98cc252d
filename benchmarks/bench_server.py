"""What is left of uvicorn's requests per second when every request is authenticated."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Self

from table import Row, at_least, markdown
from traffic import header_lines, issuer

CONNECTIONS = 64
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
    seconds, rounds = 0.1, 9 if quick else 31
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
    """Return requests per second and the server's processor time for each; ratios are taken round by round."""
    floor = bursts[BARE]
    rates, times = [], []
    for name, taken in bursts.items():
        share = median(mine.per_second / its.per_second for mine, its in zip(taken, floor, strict=True))
        rates.append(
            Row(
                f"{name}: requests, the server {median(burst.load for burst in taken):.0%} busy",
                median(burst.per_second for burst in taken),
                unit="/s",
                ratio=share,
                base="bare",
                goal=at_least(share, SHARE) if name == OURS else None,
            )
        )
        times.append(
            Row(
                f"{name}: processor time a request",
                median(burst.cpu for burst in taken),
                least=min(burst.cpu for burst in taken),
                ratio=median(mine.cpu / its.cpu for mine, its in zip(taken, floor, strict=True)),
                base="bare",
            )
        )
    return [*rates, *times]


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
    """A client that asks over several connections, each with a token of its own, one request at a time on each.

    It reads them in turn, for waiting for whichever answers first costs it more than the server's work.
    """

    def __init__(self, port: int, tokens: Sequence[str]) -> None:
        self._port = port
        self._requests = [request("/orders", token) for token in tokens]
        self._cpu = request("/cpu", tokens[0])
        self._control = self._connect()
        self._size = len(self._answer(self._requests[0]))
        self._connections = [self._connect() for _ in tokens]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in (self._control, *self._connections):
            connection.close()

    def burst(self, seconds: float) -> Burst:
        """Ask for so long.

        Raises:
            AssertionError: an answer is not what it should be.
        """
        in_turn = [(c.send, c.recv, text) for c, text in zip(self._connections, self._requests, strict=True)]
        size, answers = self._size, 0
        cpu, start = self._cpu_time(), perf_counter()
        for send, _, text in in_turn:
            send(text)
        while (now := perf_counter()) < start + seconds:
            for send, receive, text in in_turn:
                _read(receive, size)
                send(text)
            answers += len(in_turn)
        took = now - start
        for _, receive, _ in in_turn:
            _read(receive, size)
        cpu = self._cpu_time() - cpu
        return Burst(answers / took, cpu / (answers + len(in_turn)) * 1e6, cpu / took)

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _cpu_time(self) -> float:
        return float(self._answer(self._cpu).rpartition(b"\r\n\r\n")[2])

    def _answer(self, text: bytes) -> bytes:
        self._control.send(text)
        answer = self._control.recv(4096)
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise AssertionError(answer)
        head, _, body = answer.partition(b"\r\n\r\n")
        missing = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]) - len(body)
        return answer + self._control.recv(missing) if missing else answer


def _read(receive: Callable[[int], bytes], size: int) -> None:
    """Read one answer, which may come in parts, and look at its status.

    Raises:
        AssertionError: it is not 200.
    """
    answer = receive(size)
    while 0 < len(answer) < size:
        answer += receive(size - len(answer))
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise AssertionError(answer)


def request(path: str, token: str) -> bytes:
    """Return a request as it is sent."""
    return "\r\n".join([f"GET {path} HTTP/1.1", *header_lines(token), "", ""]).encode()


if __name__ == "__main__":
    for title, table in rows().items():
        print(markdown(title, table), end="\n\n")
