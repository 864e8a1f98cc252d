"""What is open for a session ends with it: WebSockets and event streams, by its end, a sign-out, or another node."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import httpx2
import pytest
from fastapi import Depends, FastAPI, Request

from oidc_middleware import OIDCMiddleware
from oidc_middleware.fastapi import OIDCAuth, current_user, optional_user, require
from oidc_middleware.testing import FakeIssuer, ManualClock

from abuse.door import Door
from redis_kit import until
from session_kit import BASE, NAME, Browser, browser_of, door_of

pytestmark = pytest.mark.anyio

ORIGIN = (b"origin", BASE.encode())
STREAM = [(b"content-type", b"text/event-stream")]
ABSOLUTE = 2


class Open:
    """A connection that stays open, and what its client saw."""

    def __init__(self, door: Door, browser: Browser, kind: str) -> None:
        self.sent: list[dict[str, Any]] = []
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.incoming.put_nowait({"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request"})
        headers = [(b"cookie", f"{NAME}={browser.cookie}".encode()), ORIGIN]
        scope: dict[str, Any] = {
            "type": kind, "path": "/live", "headers": headers, "query_string": b"", "extensions": {},
            **({"method": "GET"} if kind == "http" else {"subprotocols": []}),
        }  # fmt: skip
        self.task = asyncio.create_task(door.app(scope, self.incoming.get, self._send))

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        self.sent.append(dict(message))

    @property
    def is_open(self) -> bool:
        return any(message["type"] in {"websocket.accept", "http.response.body"} for message in self.sent)


async def _live(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    await send({"type": "http.response.start", "status": 200, "headers": STREAM})
    await send({"type": "http.response.body", "body": b": here\n\n", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass


def last(connection: Open) -> dict[str, Any]:
    return connection.sent[-1]


@pytest.mark.parametrize("by", ["its end", "a sign-out", "a subject"])
async def test_what_is_open_ends_with_the_session(fake_issuer: FakeIssuer, oidc_clock: ManualClock, by: str) -> None:
    door = door_of(fake_issuer, session_absolute=ABSOLUTE, session_idle=ABSOLUTE, refresh_ahead=0)
    browser = await browser_of(door, fake_issuer)
    other = await browser_of(door, fake_issuer, "bob")
    seen = (await browser.ask()).seen
    assert seen is not None
    assert door.oidc.sessions is not None
    door.app.app = _live
    socket, stream = Open(door, browser, "websocket"), Open(door, browser, "http")
    of_bob = Open(door, other, "websocket")
    await until(lambda: socket.is_open and stream.is_open and of_bob.is_open)

    if by == "its end":
        oidc_clock.advance(ABSOLUTE + 1)  # what ends is looked at by the second
    elif by == "a sign-out":
        await door.oidc.sessions.end(seen["auth"])
    else:
        await door.oidc.revoke.subject("alice")
    await asyncio.wait_for(asyncio.gather(socket.task, stream.task), 20)

    assert (last(socket)["type"], last(socket)["code"]) == ("websocket.close", 1008)
    assert last(stream) == {"type": "http.response.body", "body": b"", "more_body": False}
    if by != "its end":
        assert not of_bob.task.done()
        of_bob.incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})
    await asyncio.wait_for(of_bob.task, 20)


async def test_the_end_of_the_access_token_ends_nothing(fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    door = door_of(fake_issuer)
    browser = await browser_of(door, fake_issuer)
    door.app.app = _live
    socket = Open(door, browser, "websocket")
    await until(lambda: socket.is_open)

    oidc_clock.advance(fake_issuer.expires_in + 1)
    assert door.app.live.stats()["expiring"] == 1
    door.app.live._expire()  # what the timer does
    await asyncio.sleep(0)

    assert not socket.task.done()
    socket.incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})
    await socket.task


# -------------------------------------------------------------------------------------------------------- FastAPI


def routes(app: FastAPI, current: Any, optional: Any, needs: Any) -> None:
    @app.api_route("/me", methods=["GET", "POST"], dependencies=[Depends(current)])
    async def me(request: Request) -> str:
        return str(request.user.identity)

    @app.get("/maybe", dependencies=[Depends(optional)])
    async def maybe(request: Request) -> str:
        return request.user.identity if request.user.is_authenticated else "nobody"

    @app.get("/write", dependencies=[Depends(needs("orders:write"))])
    async def write() -> str:
        return "written"

    @app.get("/read", dependencies=[Depends(needs("orders:read"))])
    async def read() -> str:
        return "read"


@pytest.mark.parametrize("behind", [True, False], ids=["behind the middleware", "by themselves"])
async def test_dependencies_take_sessions_as_they_take_tokens(fake_issuer: FakeIssuer, *, behind: bool) -> None:
    door = door_of(fake_issuer, optional=["/maybe"]) if behind else door_of(fake_issuer)
    browser = await browser_of(door, fake_issuer)
    app = FastAPI()
    served: Any = app
    if behind:
        routes(app, current_user, optional_user, require)
        served = OIDCMiddleware(app, oidc=door.oidc)
    else:
        auth = OIDCAuth(oidc=door.oidc)
        auth.install(app)
        routes(app, auth.current_user, auth.optional_user, auth.require)
    transport = httpx2.ASGITransport(served)
    async with httpx2.AsyncClient(transport=transport, base_url=BASE, cookies={NAME: browser.cookie}) as client:
        assert (await client.get("/me")).json() == f"{fake_issuer.url}#alice"
        assert (await client.get("/maybe")).json() == f"{fake_issuer.url}#alice"
        assert (await client.get("/read")).json() == "read"
        assert (await client.get("/write")).status_code == 403
        assert (await client.post("/me", headers={"origin": BASE})).status_code == 200
        assert (await client.post("/me", headers={"origin": "https://evil.example"})).status_code == 403
    async with httpx2.AsyncClient(transport=transport, base_url=BASE, cookies={NAME: "A" * 64}) as client:
        assert (await client.get("/me")).status_code == 401
        assert (await client.get("/maybe")).json() == "nobody"
