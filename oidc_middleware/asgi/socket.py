"""One WebSocket: what makes it possible to end it from outside."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Final

from starlette.types import Message, Receive, Scope, Send

from oidc_middleware.asgi.ending import Ending
from oidc_middleware.asgi.exchange import Refuse
from oidc_middleware.asgi.track import Track
from oidc_middleware.asgi.waits import Disconnected, Waits
from oidc_middleware.core.known import Known

POLICY_VIOLATION: Final = 1008
"""The code that WebSockets close with (RFC 6455 §7.4.1)."""

LEAVE_SECONDS: Final = 5.0
"""How long an app has to leave after its WebSocket was closed; the client knows already."""


class _State(Enum):
    CONNECTING = auto()
    OPEN = auto()
    OVER = auto()


class Socket:
    """What stands between app and server: `send` and `receive` are the app's."""

    __slots__ = ("_accepted", "_is_connected", "_receive", "_send", "_state", "_waits", "known", "scope", "track")

    def __init__(self, known: Known, scope: Scope, receive: Receive, send: Send) -> None:
        self.known: Known = known
        self.scope: Scope = scope
        self.track: Track = Track()
        self.track.task = asyncio.current_task()
        self.track.expires = True
        self._waits = Waits()
        self._receive = receive
        self._send = send
        self._state = _State.CONNECTING
        self._is_connected = False
        self._accepted: asyncio.Event | None = None

    async def send(self, message: Message) -> None:
        """Pass a message of the app on."""
        kind = message["type"]
        if self._waits.is_over:
            await asyncio.sleep(0)  # an app that tries again and again is to be cancelled, and not to hold the loop
            if kind != "websocket.close":  # that is what happened
                raise Disconnected
        elif kind == "websocket.send":
            await self._waits.call(self._send, message)
        elif kind == "websocket.accept":
            await self._accept(message)
        else:
            self._state = _State.OVER
            await self._send(message)

    async def _accept(self, message: Message) -> None:
        """Accept it; whoever ends it meanwhile waits, for half a handshake is nothing that can be closed."""
        self._accepted = asyncio.Event()
        self._state = _State.OVER  # unless it succeeds
        try:
            await self._send(message)
            self._state = _State.OPEN
        finally:
            self._accepted.set()
            self._accepted = None

    async def receive(self) -> Message:
        """Return the next message for the app. The first one is always the server's, for frameworks insist on it."""
        if not self._is_connected:
            self._is_connected = True
            return await self._receive()
        try:
            return await self._waits.call(self._receive)
        except Disconnected:
            return {"type": "websocket.disconnect", "code": POLICY_VIOLATION, "reason": ""}

    async def end(self, track: Track, ending: Ending, refuse: Refuse) -> None:
        """End it, and return when the app has left, or has been made to."""
        if self._accepted is not None:
            await self._accepted.wait()
        state, self._state = self._state, _State.OVER
        self._waits.end()
        if state is _State.CONNECTING:
            await ending.say(refuse(self.scope, self._receive, self._send))
        elif state is _State.OPEN:
            await ending.say(self._send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": ending.reason}))
        else:
            await ending.say(None)
        await ending.cancel_unless_left(track.task, LEAVE_SECONDS)
