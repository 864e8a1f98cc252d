"""What `revocation.py` runs on: an issuer, the nodes of a service as processes, and a Redis between them."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO

import httpx2
import redis
from websockets.asyncio.client import connect

from oidc_middleware.cache import new_secret
from oidc_middleware.testing import FakeIssuer

PATIENCE = 30
"""How many seconds anything may take."""

_HOST = "127.0.0.1"
_NO_REDIS = """There is no redis-server on PATH. Install it (apt install redis-server, brew install redis),
or name another cache: --cache redis://host:6379/0, or --cache sqlite:///path of a new file."""


class CannotRun(Exception):
    """Something that is needed is not there."""


class Unexpected(Exception):
    """Something did not go as it must."""


class Node:
    """One process of the service, as its clients see it."""

    def __init__(self, name: str, port: int, client: httpx2.AsyncClient) -> None:
        self.name = name
        self.url = f"http://{_HOST}:{port}"
        self._port = port
        self._client = client

    async def ask(self, method: str, path: str, token: str = "", json: object = None) -> httpx2.Response:
        return await self._client.request(method, self.url + path, headers=_bearer(token), json=json)

    async def status(self, token: str) -> int:
        return (await self.ask("GET", "/hello", token)).status_code

    async def refusal(self, token: str) -> float:
        """Ask again and again until the token is refused; return when that answer was here."""
        await self.until(401, "/hello", token)
        return time.perf_counter()

    async def until(self, status: int, path: str, token: str = "") -> None:
        async with asyncio.timeout(PATIENCE):
            while (await self.ask("GET", path, token)).status_code != status:  # noqa: ASYNC110  no event tells
                await asyncio.sleep(0.001)

    @asynccontextmanager
    async def feed(self, token: str) -> AsyncIterator[asyncio.Future[tuple[int | None, float]]]:
        """Open a WebSocket, and yield what will be its close code and the time of that."""
        connection = socket.create_connection((_HOST, self._port))  # directly, whatever proxy the environment names
        headers = _bearer(token)
        async with connect(f"ws://{_HOST}:{self._port}/feed", sock=connection, additional_headers=headers) as websocket:

            async def end() -> tuple[int | None, float]:
                async with asyncio.timeout(PATIENCE):
                    await websocket.wait_closed()
                return websocket.close_code, time.perf_counter()

            yield asyncio.ensure_future(end())


class Fleet:
    """Nodes, the cache between them, and the issuer whose tokens they accept. All that is started ends with `stack`."""

    def __init__(self, stack: AsyncExitStack, issuer: FakeIssuer, cache: str | None) -> None:
        self.issuer = issuer
        self.has_own_redis = cache is None
        self._stack = stack
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="revocation-")))
        self._log = stack.enter_context((self._folder / "log").open("w+b"))
        self._redis_port = _free_port()
        namespace = f"example-{secrets.token_hex(4)}"
        if cache is not None:
            stack.enter_context(_left_as_it_was(cache, namespace))
        self._settings = {name: value for name, value in os.environ.items() if not name.upper().startswith("OIDC_")} | {
            "OIDC_ISSUER": issuer.url,
            "OIDC_AUDIENCE": issuer.audience,
            "OIDC_CACHE": cache or f"redis://{_HOST}:{self._redis_port}/0",
            "OIDC_SECRET": new_secret(),
            "OIDC_NAMESPACE": namespace,
        }

    async def start_redis(self) -> None:
        """Start a Redis that has nothing, and wait until it answers."""
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise CannotRun(_NO_REDIS)
        words = ["--bind", _HOST, "--port", str(self._redis_port), "--save", "", "--dir", str(self._folder)]
        self._redis = self._stack.enter_context(_running([program, *words], self._log))
        await _until_it_listens(self._redis, self._redis_port)

    def kill_redis(self) -> None:
        self._redis.kill()
        self._redis.wait()

    async def start_node(self, name: str) -> Node:
        """Start a node, and wait until it is ready. It has a journal of its own, as on a host of its own."""
        port = _free_port()
        words = ["revocation:app", "--app-dir", str(Path(__file__).parent), "--host", _HOST, "--port", str(port)]
        words += ["--log-level", "error", "--timeout-graceful-shutdown", "1"]
        settings = self._settings | {"OIDC_JOURNAL": str(self._folder / f"{name}.journal")}
        process = self._stack.enter_context(_running([sys.executable, "-m", "uvicorn", *words], self._log, settings))
        await _until_it_listens(process, port)
        client = await self._stack.enter_async_context(httpx2.AsyncClient(trust_env=False, timeout=PATIENCE))
        node = Node(name, port, client)
        await node.until(200, "/oauth2/health")
        return node

    def show_log(self) -> None:
        self._log.seek(0)
        sys.stderr.buffer.write(self._log.read())


@asynccontextmanager
async def running_fleet(cache: str | None) -> AsyncIterator[Fleet]:
    """Run an issuer and the cache; `Fleet` starts nodes."""
    issuer = FakeIssuer(expires_in=3600)
    async with issuer.serve(), AsyncExitStack() as stack:
        fleet = Fleet(stack, issuer, cache)
        try:
            if cache is None:
                await fleet.start_redis()
            yield fleet
        except (Unexpected, TimeoutError, httpx2.HTTPError):
            fleet.show_log()
            raise


@contextmanager
def _running(
    command: list[str], log: IO[bytes], environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def _left_as_it_was(cache: str, namespace: str) -> Iterator[None]:
    """Remove in the end what the nodes put into a cache that is not ours."""
    if cache.startswith("sqlite:///"):
        path = cache.removeprefix("sqlite:///")
        kinds = ("", "-ledger", f"-{namespace}-ledger")
        files = [Path(path + kind + part) for kind in kinds for part in ("", "-wal", "-shm", "-lock")]
        if any(file.exists() for file in files):
            raise CannotRun(f"--cache: {path} is there already, and may be a service's. Name a new file.")
        try:
            yield
        finally:
            for file in files:
                file.unlink(missing_ok=True)
        return
    try:
        client = redis.Redis.from_url(cache, socket_timeout=5)
        client.ping()
    except (ValueError, redis.RedisError) as error:
        raise CannotRun(f"--cache: no Redis answers there ({error}).") from None
    try:
        yield
    finally:
        with client, suppress(redis.RedisError):
            for key in client.scan_iter(f"{namespace}:*"):
                client.unlink(key)


async def _until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while process.poll() is None:
            with suppress(OSError):
                return socket.create_connection((_HOST, port)).close()
            await asyncio.sleep(0.01)
    raise Unexpected(f"{process.args!r} ended with {process.returncode}")


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _free_port() -> int:
    with socket.create_server((_HOST, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
