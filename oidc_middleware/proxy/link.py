"""One connection to the app: bytes in and bytes out, both with back-pressure, and HTTP/1.1 on it.

Both directions go on at the same time: an app may answer before it has read the request, and while it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import h11

from oidc_middleware.core.identity_headers import Headers
from oidc_middleware.proxy.gate import Gate

HIGH_WATER: Final = 1 << 16
"""So many bytes that nobody has taken yet are enough: then we read no more."""

LONGEST_HEAD: Final = 1 << 16

Event = Any
"""An event of h11."""


class Link(asyncio.Protocol):
    """A connection that carries one request after the other.

    `on_idle_end` is called when it ends, or is of no use any more, while no request is on it.
    """

    def __init__(self, on_idle_end: Callable[[Link], None]) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.served: int = 0
        """Requests that were answered on it before."""
        self.has_answered: bool = False
        """Whether anything came for the request that is on it."""
        self.is_idle: bool = False
        self._on_idle_end = on_idle_end
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=LONGEST_HEAD)
        self._received = bytearray()
        self._is_over = False
        self._is_paused = False
        self._may_write = True
        self._readable, self._writable = Gate(self.loop), Gate(self.loop)
        self._transport: asyncio.Transport

    # ------------------------------------------------------------------------------------------- what the loop tells us

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take what came. When nobody asked it is no answer, and the next one could not be told from it."""
        if self.is_idle:
            self.end_idle()
            return
        self.has_answered = True
        self._received += data
        if len(self._received) > HIGH_WATER and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        self._readable.open()

    def eof_received(self) -> None:
        """Note that nothing more comes."""
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that it is over."""
        del exc
        self._end()
        self._may_write = True
        self._writable.open()

    def pause_writing(self) -> None:
        """Note that the app does not read as fast as we write."""
        self._may_write = False

    def resume_writing(self) -> None:
        """Note that it has caught up."""
        self._may_write = True
        self._writable.open()

    def _end(self) -> None:
        self._is_over = True
        self._readable.open()
        if self.is_idle:
            self.end_idle()

    def end_idle(self) -> None:
        """End it while no request is on it."""
        self.is_idle = False
        self._on_idle_end(self)
        self.abort()

    # ---------------------------------------------------------------------------------------------------------- writing

    async def write(self, event: Event, seconds: float) -> None:
        """Write an event, and wait until the app has read most of what was written.

        Raises:
            TimeoutError: it did not read anything for `seconds`.
            h11.LocalProtocolError: it is not what the head promised.
        """
        parts = self._http.send_with_data_passthrough(event)
        if parts and not self._transport.is_closing():
            self._transport.writelines(parts)
        while not self._may_write:
            await self._writable.wait(seconds)

    async def ask(self, method: str, target: bytes, headers: Headers, seconds: float) -> None:
        """Write the head of a request.

        Raises:
            TimeoutError, h11.LocalProtocolError: as `write` does.
        """
        self.is_idle = self.has_answered = False
        await self.write(h11.Request(method=method, target=target, headers=headers), seconds)

    # ---------------------------------------------------------------------------------------------------------- reading

    def next_event(self) -> Event:
        """Return the next event of what has been received, `h11.NEED_DATA` if it is not whole.

        Raises:
            h11.RemoteProtocolError: it is no HTTP, or ends in the middle.
        """
        if self._received:
            self._http.receive_data(bytes(self._received))
            self._received.clear()
        elif self._is_over:
            self._http.receive_data(b"")
        event = self._http.next_event()
        if event is h11.NEED_DATA and self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
        return event

    async def readable(self, seconds: float | None) -> None:
        """Wait until something came, or nothing more comes.

        Raises:
            TimeoutError: not within `seconds`; None is no limit.
        """
        if not self._received and not self._is_over:
            await self._readable.wait(seconds)

    # ----------------------------------------------------------------------------------------------------------- ending

    def is_reusable(self) -> bool:
        """Make it ready for the next request, and tell whether it is."""
        if self._is_over or self._received or self._transport.is_closing():
            return False
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        if self._http.trailing_data[0]:
            return False
        self._http.start_next_cycle()
        self.served += 1
        self.is_idle = True
        return True

    def abort(self) -> None:
        """Cut it; what waits for it learns that it is over."""
        self._transport.abort()
        self._end()
