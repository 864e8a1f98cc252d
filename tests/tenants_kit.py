"""An issuer with many tenants, in this process: documents by their address, and what was asked for."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import httpx2

from oidc_middleware.errors import OIDCError

from abuse.door import Door
from abuse.signing import AUDIENCE, Signer

HOST = "https://login.example"
TEMPLATE = f"{HOST}/{{tenantid}}/v2.0"
ONE = "9188040d-6c67-4c5b-b112-36a304b66dad"
TWO = "72f988bf-86f1-41af-91ab-2d7cd011db47"
NOBODY = "00000000-0000-0000-0000-000000000001"
COMMON = f"{HOST}/common/v2.0/.well-known/openid-configuration"


def issuer_of(tenant: str) -> str:
    return f"{HOST}/{tenant}/v2.0"


class Documents(httpx2.AsyncBaseTransport):
    """Documents by URL; all else is 404. `hold` keeps everybody waiting while it is set."""

    def __init__(self, **documents: Any) -> None:
        self.documents: dict[str, Any] = documents
        self.asked: Counter[str] = Counter()
        self.under_way = 0
        self.most_under_way = 0
        self.hold: asyncio.Event | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = str(request.url)
        self.asked[url] += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if self.hold is not None:
                await self.hold.wait()
            await asyncio.sleep(0)
        finally:
            self.under_way -= 1
        if url not in self.documents:
            return httpx2.Response(404)
        content = self.documents[url]
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return httpx2.Response(200, content=body, headers={"Content-Type": "application/json"})

    def publish(self, issuer: str, jwks: bytes, *, at: str | None = None) -> None:
        """Serve metadata and keys of an issuer, the metadata at a URL of their own if need be."""
        keys = f"{issuer.replace('{tenantid}', 'common')}/keys"
        self.documents[at or f"{issuer}/.well-known/openid-configuration"] = {"issuer": issuer, "jwks_uri": keys}
        self.documents[keys] = jwks


def common(jwks: bytes) -> Documents:
    """Return an issuer whose tenants have metadata and keys in common."""
    documents = Documents()
    documents.publish(TEMPLATE, jwks, at=COMMON)
    return documents


def door_of(documents: Documents, **settings: Any) -> Door:
    usual: dict[str, Any] = {"issuer": TEMPLATE, "discovery_url": COMMON, "tenants": [ONE, TWO], "token_type": "auto"}
    return Door(b"", transport=documents, **(usual | settings))


def token_of(signer: Signer, tenant: str = ONE, **changes: Any) -> str:
    """Return a token of a tenant, changed as `Signer.token` does."""
    claims = {"iss": issuer_of(tenant), "tid": tenant, **changes.pop("claims", {})}
    return signer.token(claims=claims, **changes)


async def refusal(door: Door, token: str) -> str | None:
    """Return the refusal as the log has it, None where the token is accepted; the client learns nothing of it."""
    answer = await door.ask(token=token)
    try:
        await door.oidc.authenticator.authenticate(b"Bearer " + token.encode())
    except OIDCError as error:
        assert (answer.status, answer.seen) == (error.status, None)
        return str(error)
    assert answer.status == 200
    return None


__all__ = ["AUDIENCE"]
