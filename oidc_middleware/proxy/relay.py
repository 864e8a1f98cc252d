"""One request, to the app and back: body and response at the same time, a part at a time, each with back-pressure.

Two tasks are at it. The server's own follows the app: it connects, reads the response and sends it on. The other one
follows the client: it passes the request's body on, and then waits for the client to go away, upon which the connection
to the app is cut. (An answer that comes at once is there before this one is.) Neither is cancelled to stop the other:
what waits on a connection wakes up when that is cut.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import h11
from starlette.types import Message, Receive, Send

from oidc_middleware.core.identity_headers import Headers
from oidc_middleware.errors import InvalidRequest, UpstreamError, UpstreamTimeout
from oidc_middleware.proxy.link import Event, Link
from oidc_middleware.proxy.outgoing import Body, Outgoing
from oidc_middleware.proxy.pool import Pool

CONTINUE_SECONDS: Final = 1.0
"""How long an app that was asked with `Expect: 100-continue` has to say something before it gets the body anyway."""

FOLLOW_SECONDS: Final = 0.02
"""How long the app has to answer a request without a body before a task waits for the client to go away. Most do, and
one that is sent to nobody costs less than the task."""

logger: logging.Logger = logging.getLogger("oidc_middleware.proxy")

_WITHOUT_BODY: Final = frozenset({204, 304})
_LAST_STATUS: Final = 599
"""Of the last class that there is (RFC 9110 §15)."""

Rewrite = Callable[[Headers], Headers]


class Relay:
    """A request under way. `rewrite` makes the fields of the client's response of those of the app's."""

    def __init__(
        self, pool: Pool, request: Outgoing, rewrite: Rewrite, receive: Receive, send: Send, *, read_timeout: float
    ) -> None:
        self._pool = pool
        self._request = request
        self._rewrite = rewrite
        self._receive = receive
        self._send = send
        self._patience: float | None = read_timeout
        self._write_timeout = read_timeout
        self._link: Link | None = None
        self._asked: asyncio.Future[Link] = pool.loop.create_future()
        self._may_go_on: asyncio.Event | None = asyncio.Event() if request.expects_continue else None
        self._first: Message | None = None
        self._uploaded_at = pool.loop.time()
        self._is_uploading = request.body is not Body.NONE
        self._timer: asyncio.TimerHandle | None = None
        self._client: asyncio.Task[None] | None = None
        self._client_is_gone = False
        self._failure: UpstreamError | InvalidRequest | None = None
        self._has_begun = False
        self._is_complete = False

    async def run(self) -> None:
        """Serve the request.

        Raises:
            UpstreamTimeout, UpstreamError: there is no response, and nothing has been sent. A response that ends in the
                middle is left incomplete, which makes the server cut the connection: so truncation shows.
            InvalidRequest: the request's body is not what its head promised.
        """
        if self._request.body is Body.UNKNOWN:
            await self._look_for_body()
        if self._is_uploading:
            self._begin_to_follow_client()
        else:
            self._timer = self._pool.loop.call_later(FOLLOW_SECONDS, self._begin_to_follow_client)
        try:
            await self._follow_app()
        except (UpstreamError, InvalidRequest) as error:
            if not self._client_is_gone:
                if not self._has_begun:
                    raise
                logger.warning("the response to %.200r was cut: %s", self._path, error)
        except OSError:  # what servers raise when the client is gone (ASGI, since 2.4)
            self._leave()
        finally:
            for begun in (self._timer, self._client):
                if begun is not None:
                    begun.cancel()
            if self._link is not None:
                self._pool.keep(self._link)

    @property
    def _path(self) -> bytes:
        """What the log may hold: a query may hold secrets."""
        return self._request.target.partition(b"?")[0]

    # ------------------------------------------------------------------------------------------------------- the client

    async def _look_for_body(self) -> None:
        self._first = await self._receive()
        self._is_uploading = bool(self._first.get("more_body") or self._first.get("body"))

    def _begin_to_follow_client(self) -> None:
        self._client = self._pool.loop.create_task(self._follow_client())

    async def _follow_client(self) -> None:
        try:
            if self._is_uploading:
                await self._upload(await self._asked)
            while (await self._receive())["type"] != "http.disconnect":
                pass
            self._leave()
        except TimeoutError:
            self._fail(UpstreamTimeout("it did not read the request in time"))
        except OSError:  # what servers raise when the client is gone
            self._leave()
        except h11.LocalProtocolError as error:
            self._fail(InvalidRequest(f"the body of the request: {error}"))

    async def _upload(self, link: Link) -> None:
        """Pass the body on, as fast as the app reads it."""
        if self._may_go_on is not None:
            await self._wait_for_continue(self._may_go_on)
        more = True
        while more:
            message, self._first = self._first or await self._receive(), None
            if message["type"] == "http.disconnect":
                self._leave()
                return
            if body := message.get("body", b""):
                await link.write(h11.Data(data=body), self._write_timeout)
            more = message.get("more_body", False)
        await link.write(h11.EndOfMessage(), self._write_timeout)
        self._is_uploading, self._uploaded_at = False, self._pool.loop.time()

    async def _wait_for_continue(self, may_go_on: asyncio.Event) -> None:
        """Wait until the app wants the body: the server asks the client for it with the first `receive`.

        Source: RFC 9110 §10.1.1.
        """
        try:
            async with asyncio.timeout(CONTINUE_SECONDS):
                await may_go_on.wait()
        except TimeoutError:
            pass

    def _leave(self) -> None:
        if self._is_complete:  # servers say so after each response
            return
        self._client_is_gone = True
        if self._link is not None:
            self._link.abort()

    def _fail(self, failure: UpstreamError | InvalidRequest) -> None:
        self._failure = failure
        if self._link is not None:
            self._link.abort()

    # ---------------------------------------------------------------------------------------------------------- the app

    async def _follow_app(self) -> None:
        link = self._pool.take()
        if link is None:
            link = await self._connect()
        try:
            response = await self._ask(link)
        except UpstreamTimeout:  # it is there, and may be at it
            raise
        except UpstreamError:
            if not (link.served and not link.has_answered and self._is_worth_another_try()):
                raise
            # The app closed a kept connection while the request was on its way.
            response = await self._ask(link := await self._connect())
        await self._answer(link, response)

    def _is_worth_another_try(self) -> bool:
        return self._request.may_be_repeated and not self._client_is_gone and self._failure is None

    async def _connect(self) -> Link:
        link = await self._pool.connect()
        if self._client_is_gone:
            link.abort()
        return link

    async def _ask(self, link: Link) -> h11.Response:
        """Send the head of the request, and return that of the response."""
        self._link = link
        try:
            await link.ask(self._request.method, self._request.target, self._headers(), self._write_timeout)
            if not self._is_uploading:
                await link.write(h11.EndOfMessage(), self._write_timeout)
        except TimeoutError:
            raise UpstreamTimeout("it did not read the request in time") from None
        except h11.LocalProtocolError as error:
            raise InvalidRequest(f"the head of the request: {error}") from None
        if not self._asked.done():
            self._asked.set_result(link)
        while True:
            event = await self._next(link)
            if isinstance(event, h11.Response):
                if event.status_code > _LAST_STATUS:
                    raise UpstreamError(f"its answer: there is no status {event.status_code}")
                return event
            if isinstance(event, h11.ConnectionClosed):
                raise UpstreamError("it closed the connection without an answer")
            if event.status_code == 100 and self._may_go_on is not None:  # noqa: PLR2004  Continue
                self._may_go_on.set()

    def _headers(self) -> Headers:
        request = self._request
        headers = list(request.headers)
        if request.body is Body.LENGTH:
            headers.append((b"content-length", request.length))
        elif self._is_uploading:
            headers.append((b"transfer-encoding", b"chunked"))
        if self._may_go_on is not None and self._is_uploading:
            headers.append((b"expect", b"100-continue"))
        return headers

    async def _answer(self, link: Link, response: h11.Response) -> None:
        """Pass the response on, each part at once."""
        headers = self._rewrite(response.headers.raw_items())
        if response.status_code in _WITHOUT_BODY:  # servers would wait for as much of a body as is told
            headers = [field for field in headers if field[0] != b"content-length"]
        if _is_event_stream(headers):
            self._patience = None
        self._has_begun = True
        await self._send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        part: bytes | None = None
        while not self._is_complete:
            try:
                event = self._parsed(link)
                if event is h11.NEED_DATA and part is None:
                    await self._wait(link)
            except UpstreamError:
                await self._pass_on(part)
                raise
            if isinstance(event, h11.EndOfMessage):
                self._is_complete = True
            else:
                await self._pass_on(part)
                part = bytes(event.data) if isinstance(event, h11.Data) else None
        await self._send({"type": "http.response.body", "body": part or b"", "more_body": False})

    async def _pass_on(self, part: bytes | None) -> None:
        if part:
            await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def _next(self, link: Link) -> Event:
        while (event := self._parsed(link)) is h11.NEED_DATA:
            await self._wait(link)
        return event

    def _parsed(self, link: Link) -> Event:
        try:
            return link.next_event()
        except h11.RemoteProtocolError as error:
            raise self._failure or UpstreamError(f"its answer: {error}") from None

    async def _wait(self, link: Link) -> None:
        """Wait for more, as long as the app has been silent and has had all of the request."""
        seconds = self._patience
        while True:
            try:
                return await link.readable(seconds)
            except TimeoutError:
                if seconds is None or self._patience is None:
                    raise
                now = self._pool.loop.time()
                seconds = self._patience if self._is_uploading else self._uploaded_at + self._patience - now
                if seconds <= 0:
                    raise UpstreamTimeout("it is silent") from None


def _is_event_stream(headers: Headers) -> bool:
    """Tell whether a response is one of server-sent events: they may be silent for long."""
    return any(
        name == b"content-type" and value.partition(b";")[0].strip().lower() == b"text/event-stream"
        for name, value in headers
    )
