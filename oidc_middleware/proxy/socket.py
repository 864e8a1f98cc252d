"""One WebSocket, to the app and back: messages one by one in each direction, and the code with which either end closes.

A code that says nothing (1005) goes on as 1000; where one end is just gone (1006), so is the connection to the app, and
the client is told 1014: that is what a gateway says whose other side has failed.

Source: RFC 6455 §7.4.1, and the registry of close codes that it makes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from starlette.types import Message, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from oidc_middleware.core.identity_headers import Headers
from oidc_middleware.errors import UpstreamError, UpstreamTimeout
from oidc_middleware.proxy.pool import Pool
from oidc_middleware.proxy.upstream import Upstream

NORMAL: Final = 1000
NO_CODE: Final = 1005
BAD_GATEWAY: Final = 1014
CLOSE_SECONDS: Final = 5.0
"""How long the app has to answer a close."""

PING_SECONDS: Final = 20.0
"""How often the app is asked whether it is still there."""

WAITING_MESSAGES: Final = 4
"""So many messages of the app are read ahead of a client that is slow."""

Rewrite = Callable[[Headers], Headers]


class _Handshake(ClientProtocol):
    """WebSocket without I/O, whose handshake has our fields and nobody else's."""

    def __init__(
        self, uri: WebSocketURI, fields: Headers, *, subprotocols: Sequence[Subprotocol] | None, max_size: int
    ) -> None:
        super().__init__(uri, subprotocols=subprotocols, max_size=max_size)
        self._fields = fields

    def connect(self) -> Request:
        request = super().connect()
        del request.headers["Host"]
        for name, value in self._fields:
            if not name.startswith(b"sec-websocket-"):
                request.headers[name.decode("latin-1")] = value.decode("latin-1")
        return request


class Socket:
    """A WebSocket under way. `rewrite` makes the fields of the client's handshake of those of the app's."""

    def __init__(
        self, scope: Scope, rewrite: Rewrite, receive: Receive, send: Send, *, read_timeout: float, max_size: int
    ) -> None:
        self._scope = scope
        self._rewrite = rewrite
        self._receive = receive
        self._send = send
        self._read_timeout = read_timeout
        self._max_size = max_size
        self._client_is_gone = False

    async def run(self, pool: Pool, upstream: Upstream, target: bytes, headers: Headers) -> None:
        """Serve it until either end closes.

        Raises:
            UpstreamTimeout, UpstreamError: the app did not take part in the handshake. A refusal is passed on.
        """
        if (await self._receive())["type"] != "websocket.connect":
            return
        path, _, query = target.decode().partition("?")
        uri = WebSocketURI(upstream.secure, upstream.host, upstream.port, path, query)
        subprotocols = [Subprotocol(name) for name in self._scope.get("subprotocols", ())]
        protocol = _Handshake(uri, headers, subprotocols=subprotocols or None, max_size=self._max_size)
        _, connection = await pool.open(lambda: self._connection(protocol))
        try:
            await self._shake_hands(connection)
        finally:
            connection.transport.abort()

    def _connection(self, protocol: ClientProtocol) -> ClientConnection:
        return ClientConnection(
            protocol,
            ping_interval=PING_SECONDS,
            ping_timeout=self._read_timeout,
            close_timeout=CLOSE_SECONDS,
            max_queue=WAITING_MESSAGES,
        )

    async def _shake_hands(self, connection: ClientConnection) -> None:
        try:
            async with asyncio.timeout(self._read_timeout):
                await connection.handshake(user_agent_header=None)
        except TimeoutError:
            raise UpstreamTimeout("no answer to the handshake in time") from None
        except InvalidStatus as refused:
            await self._refuse(refused.response)
            return
        except (InvalidHandshake, OSError) as error:
            raise UpstreamError(f"its answer to the handshake: {error}") from None
        assert connection.response is not None  # noqa: S101  there was one
        headers = [field for field in self._fields(connection.response) if field[0] not in _OF_THE_SERVER]
        await self._send(
            {"type": "websocket.accept", "subprotocol": connection.protocol.subprotocol, "headers": headers}
        )
        await self._relay(connection)

    def _fields(self, response: Response) -> Headers:
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.raw_items()]
        return [field for field in self._rewrite(raw) if not field[0].startswith(b"sec-websocket-")]

    async def _refuse(self, response: Response) -> None:
        """Pass the app's refusal on; a server that cannot deny by a response closes, which the client sees as 403."""
        if "websocket.http.response" not in (self._scope.get("extensions") or {}):
            await self._send({"type": "websocket.close"})
            return
        body = bytes(response.body)
        headers = [field for field in self._fields(response) if field[0] != b"content-length"]
        headers.append((b"content-length", b"%d" % len(body)))
        await self._send({"type": "websocket.http.response.start", "status": response.status_code, "headers": headers})
        await self._send({"type": "websocket.http.response.body", "body": body})

    async def _relay(self, connection: ClientConnection) -> None:
        following = asyncio.get_running_loop().create_task(self._follow_client(connection))
        try:
            closed = await self._follow_app(connection)
            following.cancel()
            await asyncio.wait({following})  # granian does not close as long as somebody waits for a message
            if not self._client_is_gone:
                await self._send({"type": "websocket.close", **_why(closed)})
        except OSError:  # what servers raise when the client is gone
            pass
        finally:
            following.cancel()

    async def _follow_client(self, connection: ClientConnection) -> None:
        try:
            while (message := await self._receive())["type"] == "websocket.receive":
                await connection.send(_data(message))
        except ConnectionClosed:  # the other direction knows how, and tells
            return
        self._client_is_gone = True
        code = _sendable(message.get("code"))
        if code is None:
            connection.transport.abort()
        else:
            await connection.close(code, message.get("reason") or "")

    async def _follow_app(self, connection: ClientConnection) -> ConnectionClosed:
        """Pass the app's messages on, and return how it ended."""
        try:
            while True:
                data = await connection.recv()
                kind = "text" if isinstance(data, str) else "bytes"
                await self._send({"type": "websocket.send", kind: data})
        except ConnectionClosed as closed:
            return closed


_OF_THE_SERVER = frozenset({b"date", b"server", b"content-length"})


def _data(message: Message) -> str | bytes:
    data: bytes | None = message.get("bytes")
    if data is not None:
        return data
    text: str = message["text"]
    return text


def _sendable(code: int | None) -> int | None:
    """Return the code to close with; None where an end is just gone, and the other is to see that."""
    if code is None or code == NO_CODE:
        return NORMAL
    return code if code in _DEFINED or code in _FREE else None


def _why(closed: ConnectionClosed) -> dict[str, Any]:
    """Return code and reason for the client: the app's, or ours where it broke the protocol, or was just gone."""
    why = closed.rcvd or closed.sent
    code = _sendable(why.code) if why is not None else None
    if code is None or why is None:
        return {"code": BAD_GATEWAY, "reason": ""}
    return {"code": code, "reason": why.reason if closed.rcvd is not None else ""}


_DEFINED = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})
_FREE = range(3000, 5000)
