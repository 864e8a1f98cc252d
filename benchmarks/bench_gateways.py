"""Requests per second of somebody who is logged in, through login proxies in front of the same app."""

from __future__ import annotations

import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter

import gateways
from bench_server import served
from table import Row, markdown
from traffic import header_lines

CONNECTIONS = 32
DIRECT = "the app itself, nothing in front"

Start = Callable[[], AbstractContextManager[None]]


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the table of login proxies; those that are not on this machine are left out, and named."""
    seconds, rounds = 0.3, 5 if quick else 21
    names = ["oidc-middleware proxy"]
    for name, program in (("Traefik with our forward auth", gateways.traefik()), ("Apache", gateways.apache())):
        if program is None:
            sys.stderr.write(f"bench_gateways: {name} is left out, its program is not here\n")
        else:
            names.append(name)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)  # Apache's workers are somebody else
        ports = {name: gateways.free_port() for name in names}
        callbacks = [f"http://127.0.0.1:{port}/oauth2/callback" for port in ports.values()]
        provider, certificate = stack.enter_context(gateways.https_issuer(folder, callbacks))
        app = stack.enter_context(served("bare", provider.url))
        clients = {DIRECT: Client(app, "a=b")}
        for name, port in ports.items():
            start = gateways.our_proxy_in_front if name == names[0] else gateways.traefik_in_front
            upstream = f"http://127.0.0.1:{app}"
            if name == "Apache":
                stack.enter_context(gateways.apache_in_front(upstream, provider, port, folder / "apache"))
            else:
                stack.enter_context(start(upstream, provider, certificate, port, folder / name.split()[0]))
            cookie = gateways.log_in(provider, certificate, f"http://127.0.0.1:{port}")
            clients[f"{name} with mod_auth_openidc" if name == "Apache" else name] = Client(port, cookie)
        for client in clients.values():
            stack.callback(client.close)
            client.burst(seconds)
        rates: dict[str, list[float]] = {name: [] for name in clients}
        for _ in range(rounds):
            for name, client in clients.items():
                rates[name].append(client.burst(seconds))
    title = f"A session through login proxies, {CONNECTIONS} connections, all on one machine"
    return {title: [_row(name, taken, rates["oidc-middleware proxy"]) for name, taken in rates.items()]}


def _row(name: str, rates: list[float], ours: list[float]) -> Row:
    share = median(mine / its for mine, its in zip(rates, ours, strict=True))
    return Row(name, median(rates), unit="/s", ratio=share, base="our proxy")


class Client:
    """Asks over several connections with one cookie, one request at a time on each."""

    def __init__(self, port: int, cookie: str) -> None:
        # Who is on the way is for proxies to say; and a session is of the host where it began.
        sent = [line for line in header_lines("")[1:-1] if not line.startswith("x-forwarded-")]
        lines = ["GET /orders HTTP/1.1", f"host: 127.0.0.1:{port}", *sent, f"cookie: {cookie}", "", ""]
        self._request = "\r\n".join(lines).encode()
        self._connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
        for connection in self._connections:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()

    def burst(self, seconds: float) -> float:
        """Ask for so long; return the answers per second.

        Raises:
            AssertionError: an answer is not the app's.
        """
        answers, start = 0, perf_counter()
        for connection in self._connections:
            connection.sendall(self._request)
        while perf_counter() < start + seconds:
            for connection in self._connections:
                _read(connection)
                connection.sendall(self._request)
            answers += CONNECTIONS
        took = perf_counter() - start
        for connection in self._connections:
            _read(connection)
        return answers / took


def _read(connection: socket.socket) -> None:
    answer = b""
    while not answer.endswith(b"\r\n\r\nhello"):
        part = connection.recv(4096)
        assert part, answer
        answer += part
    assert answer.startswith(b"HTTP/1.1 200 "), answer


if __name__ == "__main__":
    for title, table in rows().items():
        print(markdown(title, table), end="\n\n")
