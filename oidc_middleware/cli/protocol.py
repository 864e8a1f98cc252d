"""How uvicorn reads requests for us: with the faster parser where it is installed, and paths as targets only."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Final

LONGEST_HEAD: Final = 1 << 16
"""So many bytes of a head, or of trailers, that are not whole yet are enough, as in uvicorn's protocol on h11."""


def http_protocol() -> type[asyncio.Protocol]:
    """Return the protocol that `uvicorn[standard]` takes, or the one that every uvicorn has.

    httptools takes the path out of an absolute URL, or out of `*`, so that nobody behind it can see what it was: such a
    request is refused where it is read. h11 leaves it in the path, and the door refuses it there. And httptools tells
    trailers as if they were headers; they end here. It takes heads of any size, which would fill the memory; here they
    have `LONGEST_HEAD`.

    Source: RFC 9112 §3.2; RFC 9110 §6.5.1 (trailers).
    """
    if not find_spec("httptools"):
        from uvicorn.protocols.http.h11_impl import H11Protocol

        return H11Protocol
    return _httptools()


def _httptools() -> type[asyncio.Protocol]:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class OriginForm(HttpToolsProtocol):
        _in_head = False
        _waiting = 0

        def data_received(self, data: bytes) -> None:
            self._has_got_on = False
            super().data_received(data)
            self._waiting = 0 if self._has_got_on else self._waiting + len(data)
            if self._waiting > LONGEST_HEAD and not self.transport.is_closing():
                self.send_400_response("The head of the request is too long.")

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._in_head = True

        def on_url(self, url: bytes) -> None:
            super().on_url(url)
            if self.url[:1] != b"/":
                raise ValueError("the request target is no path")  # which the parser reports, and uvicorn answers 400

        def on_header(self, name: bytes, value: bytes) -> None:
            if self._in_head:
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._in_head, self._has_got_on = False, True
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._has_got_on = True
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._has_got_on = True
            super().on_message_complete()

    return OriginForm
