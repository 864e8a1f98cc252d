"""One request and its response, from the door to the app and back: what makes it possible to end them in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Final

import msgspec
from starlette.types import Message, Receive, Scope, Send

from oidc_middleware.asgi.ending import Ending
from oidc_middleware.asgi.private import private
from oidc_middleware.asgi.track import Track
from oidc_middleware.asgi.waits import Disconnected, Waits
from oidc_middleware.core.known import Known

ANSWER_SECONDS: Final = 0.5
"""How long a request that is not answered yet has for it after its identity was revoked: the handler that revokes the
token of its own request, a log-out, answers in this time."""

BODY_SECONDS: Final = 0.5
"""How long an app has to leave after its body was cut: the server closes the connection when it does."""

STREAM_SECONDS: Final = 5.0
"""How long an app has to leave after its event stream ended; the client knows already."""

PATHSEND: Final = "http.response.pathsend"
"""An extension by which a server sends a file by itself: nobody could stop it."""

_LAST: Final[Message] = {"type": "http.response.body", "body": b"", "more_body": False}

Refuse = Callable[[Scope, Receive, Send], Awaitable[None]]
"""Answers a request, or the handshake of a WebSocket, whose identity is revoked."""


class Exchange(msgspec.Struct, gc=False, eq=False):
    """What stands between app and server: `send` and `receive` are the app's.

    `goes_on` is called when it turns out that it takes a while: there is a `track` then. A response in one piece leaves
    nothing but its start here; a Struct, for every request makes one.
    """

    is_private: ClassVar[bool] = False

    known: Known
    scope: Scope
    _receive: Receive
    _send: Send
    _goes_on: Callable[[Exchange, Track], None]
    _start: Message | None = None
    _is_complete: bool = False
    _waits: Waits | None = None
    track: Track | None = None

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message of the app on."""
        if self._start is not None:
            if message.get("more_body"):
                return self._send_part(message)
            self._is_complete = True
        elif message["type"] == "http.response.start":
            if self.is_private:
                message = private(message)
            self._start = message
        return self._send(message)

    async def receive(self) -> Message:
        """Return the next message for the app, `http.disconnect` when there is no use in waiting."""
        if self._start is not None and not self._is_complete:
            self._go_on()
        try:
            return await self._open_waits().call(self._receive)
        except Disconnected:
            return {"type": "http.disconnect"}

    async def _send_part(self, message: Message) -> None:
        waits = self._open_waits()
        if waits.is_over:
            await _closed(message)
        self._go_on().task = asyncio.current_task()
        await waits.call(self._send, message)

    def _go_on(self) -> Track:
        track = self.track
        if track is None:
            track = self.track = Track()
        if not track.goes_on and self._start is not None:
            track.goes_on = True
            track.expires = _is_event_stream(self._start)
            self._goes_on(self, track)
        return track

    def _open_waits(self) -> Waits:
        waits = self._waits
        if waits is None:
            waits = self._waits = Waits()
        return waits

    @property
    def has_begun(self) -> bool:
        """Whether the app has begun to answer."""
        return self._start is not None

    async def end(self, track: Track, ending: Ending, refuse: Refuse) -> None:
        """End it, and return when the app has left, or has been made to.

        An app that answers nothing and waits for something else is left to finish: perhaps it is in the middle of what
        must be done as a whole. What it sends then raises `Disconnected`.
        """
        if self._start is None:
            await ending.left_within(ANSWER_SECONDS)
        if self._is_complete or ending.app_has_left:
            await ending.say(None)
            return
        start, send = self._start, self._send
        self._send = _closed
        self._open_waits().end()
        if start is None:
            self._start = _LAST  # ours
            await ending.say(refuse(self.scope, self._receive, send))
        elif _is_event_stream(start):
            await ending.say(send(_LAST))
            await ending.cancel_unless_left(track.task, STREAM_SECONDS)
        else:
            await ending.say(None)
            await ending.cancel_unless_left(track.task, BODY_SECONDS)

    def __repr__(self) -> str:
        return f"Exchange({self.known!r})"


class PrivateExchange(Exchange):
    """The exchange of a session: its response says who may store it."""

    is_private: ClassVar[bool] = True


def without_pathsend(extensions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the extensions of a scope that an app may use for what has to be stopped if need be."""
    return {name: value for name, value in extensions.items() if name != PATHSEND}


def _is_event_stream(start: Message) -> bool:
    """Tell whether a response is one of server-sent events (HTML Living Standard, 9.2)."""
    return any(
        name.lower() == b"content-type" and value.partition(b";")[0].strip().lower() == b"text/event-stream"
        for name, value in start.get("headers", ())
    )


async def _closed(_: Message) -> None:
    await asyncio.sleep(0)  # an app that tries again and again is to be cancelled, and not to hold the loop
    raise Disconnected
