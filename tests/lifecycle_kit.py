"""A server's side of ASGI, for tests that look at what servers hide: lifespans, single scopes, tasks left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oidc_middleware import OIDC

SECONDS = 30


class Lifespan:
    """The lifespan of an app, driven step by step as a server drives it."""

    def __init__(self, app: ASGIApp) -> None:
        self.answers: list[Message] = []
        self._questions: asyncio.Queue[Message] = asyncio.Queue()
        self._answered = asyncio.Event()
        self.task = asyncio.ensure_future(self._run(app))

    async def startup(self) -> str:
        """Ask the app to start, and return its answer; `raised` or `returned` where it gave none."""
        return await self._ask("lifespan.startup")

    async def shutdown(self) -> str:
        """Ask the app to end, and return its answer when it has ended."""
        answer = await self._ask("lifespan.shutdown")
        await asyncio.wait((self.task,), timeout=SECONDS)
        return answer

    @property
    def error(self) -> BaseException | None:
        """What the app raised."""
        return self.task.exception()

    async def _ask(self, question: str) -> str:
        self._answered.clear()
        before = len(self.answers)
        self._questions.put_nowait({"type": question})
        async with asyncio.timeout(SECONDS):
            await self._answered.wait()
            if len(self.answers) > before:
                return str(self.answers[before]["type"].removeprefix("lifespan."))
            await asyncio.wait((self.task,))
        return "raised" if self.error else "returned"

    async def _run(self, app: ASGIApp) -> None:
        try:
            await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, self._questions.get, self._send)
        finally:
            self._answered.set()

    async def _send(self, message: Message) -> None:
        self.answers.append(message)
        self._answered.set()


class Answer:
    """What an app sent for one scope."""

    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages
        start: Message = next(
            (m for m in messages if m["type"].endswith("response.start")), {"status": 0, "headers": []}
        )
        self.status: int = start["status"]
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}
        self.body = b"".join(m.get("body", b"") for m in messages)


def http_scope(path: str = "/", token: str | None = None, method: str = "GET", **more: Any) -> Scope:
    """Return the scope of a request as uvicorn builds it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"testserver"), *([(b"authorization", f"Bearer {token}".encode())] if token else [])],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    } | more


async def ask(app: ASGIApp, scope: Scope) -> Answer:
    """Ask an app, as a server does for one request without a body."""
    messages: list[Message] = []

    async def receive() -> Message:
        if scope["type"] == "websocket":
            return {"type": "websocket.connect"}
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, send)
    return Answer(messages)


async def who(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the caller's subject: an app without a framework and without lifespan."""
    assert scope["type"] == "http"
    subject = getattr(scope["user"], "subject", None) or "nobody"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": subject.encode()})


def started(oidc: OIDC) -> bool:
    """Tell whether the service runs; a function, since type checkers take attributes for constant."""
    return oidc.started


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110  what a test looks at from outside sets no event
            await asyncio.sleep(0.001)


@asynccontextmanager
async def no_task_left() -> AsyncIterator[None]:
    """Fail if a task that was started inside is there still at the end."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before
    assert not left, left
