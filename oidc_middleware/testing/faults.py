"""Ways in which an issuer's endpoint can fail.

A fault is a function that wraps the endpoint's ASGI app, so a test can write its own. Give one to `FakeIssuer.fault`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Fault = Callable[[ASGIApp], ASGIApp]
_Change = Callable[[Message, Receive, Send], Awaitable[None]]

DROP = "oidc_middleware.drop"
"""Name in `scope["extensions"]` under which our own servers put a function that cuts the connection."""

_CHUNK = 65_536


def down() -> Fault:
    """Cut the connection before anything is answered (a server that cannot do that answers 500)."""

    def fault(_: ASGIApp) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, _: Send) -> None:
            drop: Callable[[], None] | None = scope.get("extensions", {}).get(DROP)
            if drop is None:
                raise ConnectionResetError("the fake issuer is down")
            drop()
            await _departure(receive)

        return app

    return fault


def status(code: int = 503) -> Fault:
    """Answer with this status and a small JSON error."""
    return _instead(Response(json.dumps({"error": "server_error"}), code, media_type="application/json"))


def redirect(location: str, code: int = 302) -> Fault:
    """Redirect to `location`."""
    return _instead(RedirectResponse(location, code))


def body(content: bytes, media_type: str = "application/json") -> Fault:
    """Answer 200 with exactly these bytes."""
    return _instead(Response(content, media_type=media_type))


def garbage() -> Fault:
    """Answer JSON that stops in the middle."""
    return body(b'{"keys": [{"kty": "RSA", "n": "')


def content_type(value: str = "text/html") -> Fault:
    """Give the right answer under the wrong content type."""

    async def change(message: Message, _: Receive, send: Send) -> None:
        if message["type"] == "http.response.start":
            message = _with_header(message, b"content-type", value.encode())
        await send(message)

    return _through(change)


def oversize(size: int = 2_000_000) -> Fault:
    """Follow the right answer with `size` spaces, so that it is still valid JSON, and announce no length."""

    async def change(message: Message, _: Receive, send: Send) -> None:
        if message["type"] == "http.response.start":
            await send(_with_header(message, b"content-length", None))
            return
        await send({**message, "more_body": True})
        if not message.get("more_body", False):
            for rest in range(size, 0, -_CHUNK):
                await send({**message, "body": b" " * min(rest, _CHUNK), "more_body": True})
            await send({**message, "body": b""})

    return _through(change)


def slow(seconds: float) -> Fault:
    """Do the work at once, but answer only after `seconds`."""

    async def change(message: Message, receive: Receive, send: Send) -> None:
        if message["type"] == "http.response.start":
            await _wait(asyncio.sleep(seconds), receive)
        await send(message)

    return _through(change)


def held(release: asyncio.Event) -> Fault:
    """Do the work at once, but answer only when `release` is set: many requests can be caught under way."""

    async def change(message: Message, receive: Receive, send: Send) -> None:
        if message["type"] == "http.response.start":
            await _wait(release.wait(), receive)
        await send(message)

    return _through(change)


def dripping(bytes_per_second: float = 1) -> Fault:
    """Start the answer at once, but send its body byte by byte."""

    async def change(message: Message, receive: Receive, send: Send) -> None:
        for byte in message.get("body", b""):
            await _wait(asyncio.sleep(1 / bytes_per_second), receive)
            await send({**message, "body": bytes([byte]), "more_body": True})
        await send({**message, "body": b""} if "body" in message else message)

    return _through(change)


class _ClientLeft(Exception):
    """The client closed the connection while a fault kept it waiting."""


def _instead(response: Response) -> Fault:
    """Answer `response` whatever the endpoint would have said."""
    return lambda _: response


def _through(change: _Change) -> Fault:
    """Pass every message of the right answer through `change`."""

    def fault(inner: ASGIApp) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_changed(message: Message) -> None:
                await change(message, receive, send)

            try:
                await inner(scope, receive, send_changed)
            except _ClientLeft:
                return

        return app

    return fault


def _with_header(message: Message, name: bytes, value: bytes | None) -> Message:
    kept = [header for header in message["headers"] if header[0].lower() != name]
    return {**message, "headers": kept if value is None else [*kept, (name, value)]}


async def _departure(receive: Receive) -> None:
    """Wait until the client is gone, skipping what is left of its request."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _wait(pause: Coroutine[Any, Any, object], receive: Receive) -> None:
    """Wait for `pause`, but no longer than the client does, so that a stopping server is not held up.

    Raises:
        _ClientLeft: the client left first.
    """
    pausing = asyncio.ensure_future(pause)
    leaving = asyncio.ensure_future(_departure(receive))
    try:
        await asyncio.wait({pausing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not pausing.done():
            raise _ClientLeft
    finally:
        pausing.cancel()
        leaving.cancel()
        await asyncio.gather(pausing, leaving, return_exceptions=True)
