"""uvicorn on httptools, which leaves some things open that a proxy cannot.

- It takes the path out of an absolute URL, or out of `*`, so that nobody behind it can see what it was: such a request
  is refused where it is read. h11 leaves it in the path, and the door refuses it there.
- It tells trailers as if they were headers: they end here.
- It takes heads of any size, which would fill the memory: they have `LONGEST_HEAD`.
- Of several requests on one connection only the last learns that the client is gone: here all of them do.

Source: RFC 9112 §3.2 (targets); RFC 9110 §6.5.1 (trailers).
"""

from __future__ import annotations

from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

LONGEST_HEAD: Final = 1 << 16
"""So many bytes of a head, or of trailers, that are not whole yet are enough, as in uvicorn's protocol on h11."""


class OriginForm(HttpToolsProtocol):
    """A connection of a client."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._under_way: list[RequestResponseCycle] = []

    _in_head = False
    _has_got_on = False
    _waiting = 0

    def data_received(self, data: bytes) -> None:
        """Read on, and count what was read since a head, a part of a body or a message was whole."""
        self._has_got_on = False
        super().data_received(data)
        self._waiting = 0 if self._has_got_on else self._waiting + len(data)
        if self._waiting > LONGEST_HEAD and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever answers that nobody reads it."""
        for cycle in self._under_way:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        """Take the target, or a part of it.

        Raises:
            ValueError: it is no path; the parser reports it, and uvicorn answers 400.
        """
        super().on_url(url)
        if self.url[:1] != b"/":
            raise ValueError("the request target is no path")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """End the head."""
        self._in_head, self._has_got_on = False, True
        super().on_headers_complete()
        if self.cycle is not None:  # it is None of the handshake of a WebSocket
            self._under_way = [cycle for cycle in self._under_way if not cycle.response_complete]
            self._under_way.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._has_got_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request."""
        self._has_got_on = True
        super().on_message_complete()
