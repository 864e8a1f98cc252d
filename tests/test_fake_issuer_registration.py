"""A client that the fake issuer does not know yet introduces itself (RFC 7591), and names what its tokens are for."""

from __future__ import annotations

import base64
import hashlib
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from httpx2 import AsyncClient, Response

from oidc_middleware.testing import FakeIssuer

pytestmark = pytest.mark.anyio

CALLBACK = "http://127.0.0.1:3000/callback"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
RESOURCE = "https://api.example/mcp"


async def register(issuer: FakeIssuer, **metadata: Any) -> Response:
    async with AsyncClient(transport=issuer.transport()) as client:
        document = (await client.get(issuer.endpoint("oauth_metadata"))).json()
        return await client.post(document["registration_endpoint"], json=metadata)


@pytest.mark.parametrize("method", ["none", "client_secret_basic", "client_secret_post", None])
async def test_a_client_registers(fake_issuer: FakeIssuer, method: str | None) -> None:
    wanted = {"redirect_uris": [CALLBACK], "client_name": "n"} | (
        {"token_endpoint_auth_method": method} if method else {}
    )
    answer = await register(fake_issuer, **wanted)
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    client = fake_issuer.clients[told["client_id"]]
    assert (client.redirect_uris, client.secret) == ((CALLBACK,), told.get("client_secret"))
    assert told["token_endpoint_auth_method"] == (method or "client_secret_basic")
    assert ("client_secret" in told) is (method != "none")
    assert (told["client_name"], told["redirect_uris"]) == ("n", [CALLBACK])


async def test_no_two_clients_are_alike(fake_issuer: FakeIssuer) -> None:
    one, other = [(await register(fake_issuer, redirect_uris=[CALLBACK])).json() for _ in range(2)]
    assert one["client_id"] != other["client_id"]
    assert one["client_secret"] != other["client_secret"]


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        ({}, "invalid_redirect_uri"),
        ({"redirect_uris": []}, "invalid_redirect_uri"),
        ({"redirect_uris": CALLBACK}, "invalid_redirect_uri"),
        ({"redirect_uris": ["/callback"]}, "invalid_redirect_uri"),
        ({"redirect_uris": [7]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://[x"]}, "invalid_redirect_uri"),
        ({"redirect_uris": [CALLBACK + "#f"]}, "invalid_redirect_uri"),
        ({"redirect_uris": [CALLBACK], "token_endpoint_auth_method": "tls_client_auth"}, "invalid_client_metadata"),
        ({"redirect_uris": [CALLBACK], "token_endpoint_auth_method": ["none"]}, "invalid_client_metadata"),
    ],
)
async def test_what_is_not_registered(fake_issuer: FakeIssuer, metadata: dict[str, Any], error: str) -> None:
    answer = await register(fake_issuer, **metadata)
    assert (answer.status_code, answer.json()["error"]) == (400, error)
    assert fake_issuer.clients == {}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff"])
async def test_a_body_that_is_no_object(fake_issuer: FakeIssuer, body: bytes) -> None:
    async with AsyncClient(transport=fake_issuer.transport()) as client:
        answer = await client.post(fake_issuer.endpoint("register"), content=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata")


async def log_in(issuer: FakeIssuer, client: AsyncClient, resource: str | None) -> dict[str, list[str]]:
    form = {
        "response_type": "code",
        "client_id": "spa",
        "redirect_uri": CALLBACK,
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        "username": "alice",
        "decision": "allow",
    } | ({} if resource is None else {"resource": resource})
    answer = await client.post(issuer.endpoint("authorize"), data=form)
    return parse_qs(urlsplit(answer.headers["location"]).query)


async def redeem(issuer: FakeIssuer, client: AsyncClient, **form: str) -> Response:
    return await client.post(issuer.endpoint("token"), data={"client_id": "spa"} | form)


@pytest.mark.parametrize(
    ("asked", "redeemed", "audience"),
    [
        (RESOURCE, RESOURCE, RESOURCE),
        (RESOURCE, None, RESOURCE),
        (None, None, "https://api.example"),
        (RESOURCE, "https://other.example", None),
    ],
)
async def test_a_token_is_for_the_resource_that_was_asked_for(
    fake_issuer: FakeIssuer, asked: str | None, redeemed: str | None, audience: str | None
) -> None:
    """RFC 8707 §2.1 and §2.2."""
    fake_issuer.client("spa", redirect_uris=[CALLBACK])
    chosen = {} if redeemed is None else {"resource": redeemed}
    async with AsyncClient(transport=fake_issuer.transport()) as client:
        code = (await log_in(fake_issuer, client, asked))["code"][0]
        form = {"code": code, "code_verifier": VERIFIER, "redirect_uri": CALLBACK}
        answer = await redeem(fake_issuer, client, grant_type="authorization_code", **form, **chosen)
        if audience is None:
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_target")
            return
        assert (fake_issuer.verify(answer.json()["access_token"]) or {})["aud"] == audience
        refresh = {"grant_type": "refresh_token", "refresh_token": answer.json()["refresh_token"]}
        wrong = await redeem(fake_issuer, client, **refresh, resource="https://other.example")
        assert (wrong.status_code, wrong.json()["error"]) == (400, "invalid_target")
        again = await redeem(fake_issuer, client, **refresh, **chosen)
        assert (fake_issuer.verify(again.json()["access_token"]) or {})["aud"] == audience


async def test_a_resource_has_no_fragment(fake_issuer: FakeIssuer) -> None:
    fake_issuer.client("spa", redirect_uris=[CALLBACK])
    async with AsyncClient(transport=fake_issuer.transport()) as client:
        assert (await log_in(fake_issuer, client, RESOURCE + "#a"))["error"] == ["invalid_target"]
