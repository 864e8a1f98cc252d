"""The app that `test_live_servers.py` lets each server load: whatever can be open when an identity is revoked."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from unittest import mock

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from oidc_middleware import OIDC, OIDCMiddleware
from oidc_middleware.asgi import exchange, socket

# How long apps have that ignore the end, where the client knows already: five seconds in earnest.
mock.patch.object(exchange, "STREAM_SECONDS", 0.5).start()
mock.patch.object(socket, "LEAVE_SECONDS", 0.5).start()

PART = b"x" * 1000
BIG = b"x" * 65536

oidc = OIDC(leeway=0)
seen: defaultdict[str, list[str]] = defaultdict(list)
held: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)


def note(connection: Any, what: str) -> None:
    """Keep what an app saw, by subject."""
    seen[connection.user.subject].append(what)


# ------------------------------------------------------------------------------------------------------------- the apps


class Noted(StreamingResponse):
    """A streamed response that notes when it is over; when its generator is, is the garbage collector's affair."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            note(Request(scope), "left")


async def events(request: Request) -> Response:
    """Send an event every 20 ms for ever, as Starlette does."""

    async def forever() -> AsyncIterator[bytes]:
        while True:
            yield b"data: tick\n\n"
            await asyncio.sleep(0.02)

    return Noted(forever(), media_type="text/event-stream; charset=utf-8")


async def quiet(request: Request) -> Response:
    """Send one event, and then none for ever."""

    async def once() -> AsyncIterator[bytes]:
        yield b"data: tick\n\n"
        await asyncio.Event().wait()

    return StreamingResponse(once(), media_type="text/event-stream")


async def download(request: Request) -> Response:
    """Send a part every 20 ms for ever, or until the length that was said."""
    length = request.query_params.get("length")

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(int(length) // len(PART) if length else 1_000_000):
            yield PART
            await asyncio.sleep(0.02)

    return Noted(parts(), headers={"Content-Length": length} if length else None)


async def file(request: Request) -> Response:
    """Send a large file."""
    return FileResponse(request.query_params["path"])


async def wait(request: Request) -> Response:
    """Answer nothing until the client is gone."""
    note(request, "waits")
    while not await request.is_disconnected():  # noqa: ASYNC110  it is how a Starlette app asks
        await asyncio.sleep(0.02)
    note(request, "disconnected")
    return PlainTextResponse("nobody reads this")


async def upload(request: Request) -> Response:
    """Read a body that never ends."""
    note(request, "waits")
    try:
        await request.body()
    except ClientDisconnect:
        note(request, "disconnected")
        raise
    return PlainTextResponse("complete")


async def log_out(request: Request) -> Response:
    """Revoke the token of this very request, and say so."""
    await OIDC.from_request(request).revoke.token(request.user)
    return JSONResponse({"logged out": request.user.subject})


async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
    """Begin a body, or an event stream, and then wait for something else for ever."""
    kind = b"text/event-stream" if scope["query_string"] == b"events" else b"text/plain"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": b"data: tick\n\n", "more_body": True})
    note(Request(scope), "waits")
    try:
        await asyncio.sleep(3600)
    finally:
        note(Request(scope), "left")


async def flood(scope: Scope, receive: Receive, send: Send) -> None:
    """Send as fast as the client reads, look at nothing else, and note what a send raises."""
    kind = b"text/event-stream" if scope["query_string"] == b"events" else b"text/plain"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    try:
        while True:
            await send({"type": "http.response.body", "body": BIG, "more_body": True})
            await asyncio.sleep(0)
    except OSError as error:
        note(Request(scope), type(error).__name__)
        raise


async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
    """Go on whatever a send raises: only its cancellation ends it."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    try:
        while True:
            with suppress(OSError):
                await send({"type": "http.response.body", "body": PART, "more_body": True})
            await asyncio.sleep(0.01)
    finally:
        note(Request(scope), "left")


async def echo(websocket: WebSocket) -> None:
    """Send back what comes."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect as gone:
        note(websocket, f"disconnected {gone.code}")


async def careless(websocket: WebSocket) -> None:
    """Send back what comes, and let the disconnect fly."""
    await websocket.accept()
    while True:
        await websocket.send_text(await websocket.receive_text())


async def late(websocket: WebSocket) -> None:
    """Accept only when told to."""
    note(websocket, "waits")
    await held[websocket.user.subject].wait()
    await websocket.accept()
    await websocket.send_text("hello")
    await websocket.receive_text()


async def deaf_socket(websocket: WebSocket) -> None:
    """Accept, and then wait for something else for ever."""
    await websocket.accept()
    await websocket.send_text("hello")
    try:
        await asyncio.sleep(3600)
    finally:
        note(websocket, "left")


async def socket_flood(websocket: WebSocket) -> None:
    """Send as fast as the client reads."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_bytes(BIG)
    except WebSocketDisconnect:
        note(websocket, "disconnected")
        raise


async def hello(request: Request) -> Response:
    """Answer at once."""
    return PlainTextResponse(f"hello {request.user.subject}")


class Raw:
    """An ASGI app as Starlette routes to one: what is no function gets scope, receive and send."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on."""
        await self.app(scope, receive, send)


guarded = Starlette(
    routes=[
        Route("/hello", hello),
        Route("/events", events),
        Route("/quiet", quiet),
        Route("/download", download),
        Route("/file", file),
        Route("/wait", wait),
        Route("/upload", upload, methods=["POST"]),
        Route("/log-out", log_out, methods=["POST"]),
        Route("/deaf", Raw(deaf)),
        Route("/flood", Raw(flood)),
        Route("/stubborn", Raw(stubborn)),
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/careless", careless),
        WebSocketRoute("/late", late),
        WebSocketRoute("/deaf-socket", deaf_socket),
        WebSocketRoute("/socket-flood", socket_flood),
    ]
)


# ---------------------------------------------------------------------------------------------------------- the control


async def control(scope: Scope, receive: Receive, send: Send) -> None:
    """Revoke a subject, let its late socket be accepted, or tell what is going on."""
    _, _, action, subject = scope["path"].split("/")
    receipt = None
    if action == "revoke":
        receipt = await oidc.revoke.subject(subject)
    elif action == "accept":
        held[subject].set()
    elif action == "accept-and-revoke":
        held[subject].set()
        await oidc.revoke.subject(subject)
    told = {
        "receipt": receipt,
        "ready": oidc.ready,
        "seen": seen[subject],
        "live": door.live.stats(),
        "tasks": len(asyncio.all_tasks()),
    }
    await JSONResponse(told)(scope, receive, send)


door = OIDCMiddleware(guarded, oidc=oidc)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve the control without the door, so that no connection of its own is counted."""
    if scope["type"] == "http" and scope["path"].startswith("/control/"):
        await control(scope, receive, send)
    else:
        await door(scope, receive, send)
