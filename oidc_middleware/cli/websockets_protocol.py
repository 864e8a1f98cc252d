"""uvicorn on websockets, which answers a handshake that cannot be read, and leaves the answer where it is."""

from __future__ import annotations

from typing import Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

_BAD_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class AnsweredHandshake(WebSocketsSansIOProtocol):
    """A WebSocket of a client."""

    def data_received(self, data: bytes) -> None:
        """Read on; end it where there was no handshake, such as one with a body, or with a header that is too long."""
        super().data_received(data)
        if self.conn.handshake_exc is not None and not (self.handshake_initiated or self.transport.is_closing()):
            self.transport.write(b"".join(self.conn.data_to_send()) or _BAD_REQUEST)
            self.transport.close()
