"""One request and its response, from the door to the app and back: what makes it possible to end them in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from starlette.types import Message, Receive, Scope, Send

from oidc_middleware.asgi.ending import Ending
from oidc_middleware.asgi.waits import Disconnected, Waits
from oidc_middleware.auth.known import Known

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

    `goes_on` is called when it turns out that the response takes a while. A response of known length that is sent in
    one piece costs no more than two look-ups here; a Struct, for every request makes one.
    """

    known: Known
    scope: Scope
    _receive: Receive
    _send: Send
    _goes_on: Callable[[Exchange], None]
    ending: Ending | None = None
    digests: tuple[int, ...] | None = None
    _is_started: bool = False
    _is_complete: bool = False
    is_event_stream: bool = False
    _waits: Waits | None = None
    _sender: asyncio.Task[Any] | None = None

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message of the app on."""
        if not self._is_started:
            if message["type"] == "http.response.start":
                self._is_started = True
                headers = message.get("headers", ())
                if not headers or headers[0][0] != b"content-length":  # Starlette's first, where nobody set others
                    self._look_at(headers)
        elif message.get("more_body"):
            return self._send_part(message)
        else:
            self._is_complete = True
        return self._send(message)

    async def receive(self) -> Message:
        """Return the next message for the app, `http.disconnect` when there is no use in waiting."""
        try:
            return await self._open_waits().call(self._receive)
        except Disconnected:
            return {"type": "http.disconnect"}

    def _look_at(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        fields = {name.lower(): value for name, value in headers}
        if b"content-length" not in fields:
            kind = fields.get(b"content-type", b"").partition(b";")[0]
            self.is_event_stream = kind.strip().lower() == b"text/event-stream"  # HTML Living Standard, 9.2
            self._note_sender()

    def _note_sender(self) -> None:
        if self._sender is None:
            self._goes_on(self)
        self._sender = asyncio.current_task()

    async def _send_part(self, message: Message) -> None:
        self._note_sender()
        await self._open_waits().call(self._send, message)

    def _open_waits(self) -> Waits:
        if self._waits is None:
            self._waits = Waits()
        return self._waits

    async def end(self, ending: Ending, refuse: Refuse) -> None:
        """End it, and return when the app has left, or has been made to.

        An app that answers nothing and waits for something else is left to finish: perhaps it is in the middle of what
        must be done as a whole. What it sends then raises `Disconnected`.
        """
        if not self._is_started:
            await ending.left_within(ANSWER_SECONDS)
        if self._is_complete or ending.app_has_left:
            await ending.say(None)
            return
        send, self._send = self._send, _closed
        self._open_waits().end()
        if not self._is_started:
            self._is_started = self._is_complete = True
            await ending.say(refuse(self.scope, self._receive, send))
        elif self.is_event_stream:
            await ending.say(send(_LAST))
            await ending.cancel_unless_left(self._sender, STREAM_SECONDS)
        else:
            await ending.say(None)
            await ending.cancel_unless_left(self._sender, BODY_SECONDS)


def without_pathsend(extensions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the extensions of a scope that an app may use for what has to be stopped if need be."""
    return {name: value for name, value in extensions.items() if name != PATHSEND}


async def _closed(_: Message) -> None:
    raise Disconnected
