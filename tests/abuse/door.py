"""The middleware, asked as a server asks it: a scope in, messages out. What a client could send, this can send."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import httpx2

from oidc_middleware import OIDC, OIDCMiddleware
from oidc_middleware.testing import ManualClock

from abuse.signing import AUDIENCE, ISSUER, NOW

Headers = list[tuple[bytes, bytes]]


@dataclass
class Answer:
    """What came back, and the scope that the app saw (None: it was not called)."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    seen: MutableMapping[str, Any] | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def challenge(self) -> str | None:
        return self.headers.get("www-authenticate")


def issuer_transport(jwks: bytes, **changes: Any) -> httpx2.MockTransport:
    """Serve discovery and keys of the issuer that signs the abuse cases, and count what was asked for."""
    metadata = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/jwks"} | changes

    def handle(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.startswith("/.well-known/"):
            return httpx2.Response(200, json=metadata)
        assert str(request.url) == metadata["jwks_uri"], "a request that nobody should have made"
        return httpx2.Response(200, content=jwks, headers={"Content-Type": "application/json"})

    return httpx2.MockTransport(handle)


class Door:
    """An app behind `OIDCMiddleware`; the settings are those of the abuse cases unless a test says otherwise."""

    def __init__(self, jwks: bytes, **settings: Any) -> None:
        self.clock = ManualClock(NOW)
        self.calls = 0
        defaults: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, "token_type": "at+jwt", "leeway": 0}
        self.oidc = OIDC(clock=self.clock, transport=issuer_transport(jwks), **(defaults | settings))
        self.app = OIDCMiddleware(self._app, oidc=self.oidc)

    async def _app(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        self.calls += 1
        self.seen = scope
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        claims = getattr(scope["user"], "claims", None)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(claims).encode()})

    async def ask(
        self,
        path: str = "/orders",
        *,
        token: str | None = None,
        headers: Headers | None = None,
        method: str = "GET",
        query: bytes = b"",
        **scope: Any,
    ) -> Answer:
        """Send one request; `path` is as on the wire, with its escapes."""
        sent = list(headers or ())
        if token is not None:
            sent.append((b"authorization", b"Bearer " + token.encode()))
        asked: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query,
            "root_path": "",
            "headers": sent,
        } | scope
        answer = Answer()
        before = self.calls

        async def send(message: Any) -> None:
            answer.messages.append(message)

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        await self.app(asked, receive, send)
        for message in answer.messages:
            if message["type"].endswith("response.start"):
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            if message["type"].endswith("response.body"):
                answer.body += message.get("body", b"")
        answer.seen = self.seen if self.calls > before else None
        return answer
