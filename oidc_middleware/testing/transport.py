"""An httpx2 transport that reaches fake issuers without a network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import httpx2

from oidc_middleware.testing.faults import DROP

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Scope

    from oidc_middleware.testing.issuer import FakeIssuer


class IssuerTransport(httpx2.AsyncBaseTransport):
    """Send requests to the issuer whose origin they name; every other origin refuses the connection.

    Answers stream as the app sends them, so a slow or dripping issuer is slow and drips here too.
    """

    def __init__(self, *issuers: FakeIssuer) -> None:
        self._issuers = issuers

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer `request`.

        Raises:
            httpx2.ConnectError: no issuer has this origin, or the endpoint is down.
        """
        await request.aread()
        exchange = _Exchange(self._app_for(request), _scope(request), request.content)
        try:
            start = await exchange.start()
        except BaseException:
            await exchange.aclose()
            raise
        return httpx2.Response(start["status"], headers=start["headers"], stream=exchange)

    def _app_for(self, request: httpx2.Request) -> ASGIApp:
        for issuer in self._issuers:
            if _origin(httpx2.URL(issuer.url)) == _origin(request.url):
                return issuer.app
        raise httpx2.ConnectError(f"no fake issuer at {_origin(request.url)}")


class _Exchange(httpx2.AsyncByteStream):
    """One request on its way through the app, which runs in a task of its own; also the body of the response."""

    def __init__(self, app: ASGIApp, scope: Scope, content: bytes) -> None:
        self._request: Message | None = {"type": "http.request", "body": content, "more_body": False}
        self._answer: asyncio.Queue[Message | None] = asyncio.Queue(1)
        self._left = asyncio.Event()
        scope["extensions"] = {DROP: self._left.set}
        self._task = asyncio.ensure_future(self._run(app, scope))

    async def start(self) -> Message:
        """Return the message that starts the answer."""
        message = await self._answer.get()
        if message is None:
            await self._task
            raise httpx2.ConnectError("the fake issuer cut the connection")
        return message

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._answer.get()
            if message is None:
                await self._task
                raise httpx2.ReadError("the fake issuer cut the connection in the middle of an answer")
            yield message.get("body", b"")
            more = message.get("more_body", False)

    async def aclose(self) -> None:
        """Stop the app, however far it is."""
        self._left.set()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self._receive, self._answer.put)
        except Exception:
            await self._answer.put(None)
            raise
        await self._answer.put(None)

    async def _receive(self) -> Message:
        request, self._request = self._request, None
        if request is None:
            await self._left.wait()
            return {"type": "http.disconnect"}
        return request


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _scope(request: httpx2.Request) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "scheme": request.url.scheme,
        "path": request.url.path,
        "raw_path": request.url.raw_path.split(b"?")[0],
        "query_string": request.url.query,
        "server": (request.url.host, request.url.port),
        "client": ("127.0.0.1", 1),
        "root_path": "",
    }
