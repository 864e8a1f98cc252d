"""The middleware, asked as a server asks it: a scope in, messages out. What a client could send, this can send."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

import httpx2

from oidc_middleware import OIDC, Issuer, OIDCMiddleware
from oidc_middleware.testing import FakeIssuer, ManualClock

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

    @property
    def seen_headers(self) -> Headers:
        """What the app saw of the request's headers."""
        assert self.seen is not None
        return list(self.seen["headers"])


def issuer_transport(jwks: bytes, **changes: Any) -> httpx2.MockTransport:
    """Serve discovery and keys of the issuer that signs the abuse cases, and nothing else."""
    metadata = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/jwks"} | changes

    def handle(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.startswith("/.well-known/"):
            return httpx2.Response(200, json=metadata)
        assert str(request.url) == metadata["jwks_uri"], "a request that nobody should have made"
        return httpx2.Response(200, content=jwks, headers={"Content-Type": "application/json"})

    return httpx2.MockTransport(handle)


def is_503(answer: Answer) -> bool:
    """Not 200, not 401, not 500: nobody can say, and here is when to come back."""
    assert answer.seen is None
    return answer.status == 503 and int(answer.headers["retry-after"]) >= 1 and answer.challenge is None


def fetches(issuer: FakeIssuer) -> tuple[int, int]:
    """Return how often the issuer was asked for metadata and for keys."""
    return issuer.requests["discovery"] + issuer.requests["oauth_metadata"], issuer.requests["jwks"]


# What the client sees of a handshake that is accepted, and of one that is closed before.
_WEBSOCKET_STATUS = {"websocket.accept": 101, "websocket.close": 403}


class Door:
    """An app behind `OIDCMiddleware`; the settings are those of the abuse cases unless a test says otherwise."""

    def __init__(
        self,
        jwks: bytes,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        clock: ManualClock | None = None,
        **settings: Any,
    ) -> None:
        clock = clock or ManualClock(NOW)
        defaults: dict[str, Any] = {"token_type": "at+jwt", "leeway": 0}
        if "issuers" not in settings:
            defaults |= {"issuer": ISSUER, "audience": AUDIENCE}
        else:
            del defaults["token_type"]
        oidc = OIDC(clock=clock, transport=transport or issuer_transport(jwks), **(defaults | settings))
        self._stand_before(oidc, clock)

    def _stand_before(self, oidc: OIDC, clock: ManualClock) -> None:
        self.clock = clock
        self.calls = 0
        self.answers: list[dict[str, Any]] | None = None
        self.oidc = oidc
        self.app = OIDCMiddleware(self._app, oidc=oidc)

    @classmethod
    def before(cls, oidc: OIDC, clock: ManualClock) -> Door:
        """Return the door of a service that was made elsewhere."""
        door = cls.__new__(cls)
        door._stand_before(oidc, clock)
        return door

    @classmethod
    def of(cls, *issuers: FakeIssuer, **settings: Any) -> Door:
        """Return the door of an API that trusts these issuers, which go by one `ManualClock`."""
        first = issuers[0]
        assert isinstance(first.clock, ManualClock)
        if len(issuers) == 1:
            trusted: dict[str, Any] = {"issuer": first.url, "audience": first.audience}
        else:
            trusted = {"issuers": [Issuer(issuer=each.url, audience=each.audience) for each in issuers]}
        return cls(b"", transport=first.transport(*issuers[1:]), clock=first.clock, **(trusted | settings))

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
        if self.answers is not None:
            for message in self.answers:
                await send(message)
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
        body: bytes | Sequence[bytes] = b"",
        scope: Mapping[str, Any] = MappingProxyType({}),
        **more: Any,
    ) -> Answer:
        """Send one request; `path` is as on the wire, with its escapes. `scope` and `more` replace what they name.

        A `body` of several parts ends without an end: the client goes away.
        """
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
        } | more
        asked.update(scope)
        answer = Answer()
        before = self.calls

        async def send(message: Any) -> None:
            answer.messages.append(message)

        parts = [body] if isinstance(body, bytes) else list(body)
        is_whole = isinstance(body, bytes)

        async def receive() -> MutableMapping[str, Any]:
            if not parts:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": parts.pop(0), "more_body": not is_whole}

        await self.app(asked, receive, send)
        for message in answer.messages:
            answer.status = _WEBSOCKET_STATUS.get(message["type"], answer.status)
            if message["type"].endswith("response.start"):
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            if message["type"].endswith("response.body"):
                answer.body += message.get("body", b"")
        answer.seen = self.seen if self.calls > before else None
        return answer

    async def handshake(self, path: str = "/orders", *, denial: bool = True, **request: Any) -> Answer:
        """Ask for a WebSocket; `denial`: the server can deny one by an HTTP response."""
        extensions: dict[str, Any] = {"websocket.http.response": {}} if denial else {}
        return await self.ask(path, **({"type": "websocket", "extensions": extensions, "subprotocols": []} | request))
