"""An API whose issuer is asked about opaque tokens, and an issuer that answers whatever a test says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import httpx2

from abuse.door import Door
from abuse.signing import AUDIENCE, ISSUER, Signer, good_claims

CLIENT = {"client_id": "orders-api", "client_secret": "s3cret of the api"}
OPAQUE = "2YotnFZFEjr1zCsicMWpAA"


class Asked(httpx2.AsyncBaseTransport):
    """Discovery, keys, and an introspection endpoint whose answers are set; what it was asked is kept."""

    def __init__(self, answer: Any = None, **metadata: Any) -> None:
        self.answer: Any = {"active": True, **good_claims()} if answer is None else answer
        self.status = 200
        self.content_type = "application/json"
        self.asked: list[dict[str, str]] = []
        self.requests: list[httpx2.Request] = []
        self.before: Callable[[], Any] | None = None
        self.metadata = {
            "issuer": ISSUER,
            "jwks_uri": f"{ISSUER}/jwks",
            "introspection_endpoint": f"{ISSUER}/introspect",
        } | metadata
        self.jwks = b'{"keys": []}'
        self.jwks_uri = self.metadata["jwks_uri"]

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path.startswith("/.well-known/"):
            return httpx2.Response(200, json=self.metadata)
        if str(request.url) == self.jwks_uri:
            return httpx2.Response(200, content=self.jwks, headers={"Content-Type": "application/json"})
        assert str(request.url) == self.metadata["introspection_endpoint"], "a request that nobody should have made"
        assert request.method == "POST"
        self.requests.append(request)
        self.asked.append(dict(parse_qsl(request.content.decode(), strict_parsing=True)))
        if self.before is not None:
            await self.before()
        answer = self.answer(self.asked[-1]["token"]) if callable(self.answer) else self.answer
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return httpx2.Response(self.status, content=content, headers={"Content-Type": self.content_type})


def door_of(asked: Asked, signer: Signer | None = None, **settings: Any) -> Door:
    """Return an API that trusts this issuer and is its client."""
    if signer is not None:
        asked.jwks = signer.jwks()
    return Door(b"", transport=asked, **(CLIENT | settings))


__all__ = ["AUDIENCE", "CLIENT", "ISSUER", "OPAQUE", "Asked", "door_of", "good_claims"]
