"""How uvicorn reads requests for the proxy: with the faster parser where it is installed, and paths as targets only."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec


def http_protocol() -> type[asyncio.Protocol]:
    """Return the protocol that `uvicorn[standard]` takes, or the one that every uvicorn has.

    httptools takes the path out of an absolute URL, or out of `*`, so that nobody behind it can see what it was: such a
    request is refused where it is read. h11 leaves it in the path, and the door refuses it there. And httptools tells
    trailers as if they were headers; they end here.

    Source: RFC 9112 §3.2; RFC 9110 §6.5.1 (trailers).
    """
    if not find_spec("httptools"):
        from uvicorn.protocols.http.h11_impl import H11Protocol

        return H11Protocol
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class OriginForm(HttpToolsProtocol):
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
            self._in_head = False
            super().on_headers_complete()

    return OriginForm
