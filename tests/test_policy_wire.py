"""What real servers make of hostile request lines, and what the policy makes of that."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import hypercorn.asyncio
import hypercorn.config
import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from oidc_middleware.core.policy import Policy, Rule

POLICY = Policy(public=["/health", "/docs/*"], rules=[Rule("/admin/*", scopes=("admin",))])

# Request target, and what the policy answers; "400" where the path is refused.
CASES = {
    "P-pct-dotdot": (b"/health/%2e%2e/admin", "400"),
    "P-pct-slash": (b"/health%2f..%2fadmin", "400"),
    "P-semicolon": (b"/health;/../admin", "400"),
    "P-matrix": (b"/admin;x=/health", "400"),
    "P-jsession": (b"/health;jsessionid=1/../admin", "400"),
    "P-dblslash": (b"//health/../admin", "400"),
    "P-dblslash-alone": (b"//admin", "400"),
    "P-backslash": (b"/health\\..\\admin", "400"),
    "P-nul": (b"/admin%00/health", "400"),
    "P-nl": (b"/health%0a", "400"),
    "P-pct-letter": (b"/%61dmin", "identity admin"),
    "P-overlong": (b"/%c0%ae%c0%ae/admin", "400"),
    "P-fragment": (b"/admin#/health", "400"),
    "P-pct-frag": (b"/admin%23/health", "400"),
    "P-query": (b"/admin?x=/health", "identity admin"),
    "P-query-bare": (b"/admin?/health", "identity admin"),
    "P-pct-q": (b"/admin%3f/health", "400"),
    "P-prefix": (b"/healthadmin", "identity "),
    "P-trail": (b"/health/", "identity "),
    "P-trail-two": (b"/health//", "400"),
    "P-asterisk": (b"*", "400"),
    "P-noslash": (b"health", "400"),
    "P-unicode": (b"/h%C3%A9alth", "identity "),
    "absolute-form": (b"http://evil.example/health", "400"),
    "encoded-twice": (b"/docs/%252e%252e/admin", "400"),
    "health": (b"/health", "public "),
    "docs": (b"/docs/a%20b", "public "),
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the policy's decision."""
    root_path = scope.get("root_path", "")
    decision = POLICY.decide(scope["method"], scope["path"], scope.get("raw_path"), root_path)
    verdict = f"{decision.access.value} {' '.join(decision.scopes)}"
    await PlainTextResponse("400" if verdict == "refused " else verdict)(scope, receive, send)


@asynccontextmanager
async def with_uvicorn(listening: socket.socket, root_path: str) -> AsyncIterator[None]:
    config = uvicorn.Config(app, http="h11", root_path=root_path, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve([listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await running


@asynccontextmanager
async def with_hypercorn(listening: socket.socket, root_path: str) -> AsyncIterator[None]:
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listening.detach()}"]
    config.root_path = root_path
    config.errorlog = None
    stop = asyncio.Event()
    serve: Callable[..., Awaitable[Any]] = hypercorn.asyncio.serve
    running = asyncio.ensure_future(serve(app, config, shutdown_trigger=stop.wait))
    try:
        yield
    finally:
        stop.set()
        await running


async def ask(port: int, target: bytes) -> str:
    """Send one request line as it is, and return the decision; the server's own refusal is a 400 too."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET " + target + b" HTTP/1.1\r\nHost: a/health?x=\r\nConnection: close\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return "400" if head.startswith(b"HTTP/1.1 400") else body.decode().removeprefix("0\r\n").rstrip("\r\n")


@pytest.mark.anyio
@pytest.mark.parametrize("root_path", ["", "/api"], ids=["root", "below-api"])
@pytest.mark.parametrize("serving", [with_uvicorn, with_hypercorn])
async def test_hostile_request_lines(
    serving: Callable[[socket.socket, str], AbstractAsyncContextManager[None]], root_path: str
) -> None:
    """P-host-poison too: the Host header of every request tries to be a path."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    # uvicorn puts its root path before the path that came, hypercorn expects it in there.
    sent_prefix = root_path.encode() if serving is with_hypercorn else b""
    async with asyncio.timeout(20), serving(listening, root_path):
        for name, (target, expected) in CASES.items():
            full = sent_prefix + target if target.startswith(b"/") else target
            if root_path and serving is with_uvicorn and name in {"P-asterisk", "P-noslash"}:
                expected = "identity "  # noqa: PLW2901 - uvicorn makes `/api*` of it: a path like any unknown one
            assert (name, await ask(port, full)) == (name, expected)
    listening.close()
