"""The fake issuer's token endpoint for clients, introspection, revocation and userinfo."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx2 import USE_CLIENT_DEFAULT, AsyncClient, Response

from oidc_middleware.testing import FakeIssuer, ManualClock

pytestmark = pytest.mark.anyio

Form = dict[str, str]
Auth = tuple[str, str] | None


@pytest.fixture
def issuer(fake_issuer: FakeIssuer) -> FakeIssuer:
    fake_issuer.client("worker", secret="s3cret", scopes=["read", "write"])
    fake_issuer.client("sealed", secret="p:ss wörd&%", opaque=True)
    fake_issuer.client("spa")
    fake_issuer.users["alice"] = {"email": "alice@example.com"}
    return fake_issuer


@pytest.fixture
async def client(issuer: FakeIssuer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(transport=issuer.transport()) as client:
        yield client


def refusal(response: Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]


async def introspect(issuer: FakeIssuer, client: AsyncClient, token: str) -> dict[str, Any]:
    response = await client.post(issuer.endpoint("introspect"), data={"token": token}, auth=("worker", "s3cret"))
    assert response.headers["cache-control"] == "no-store"
    return dict(response.raise_for_status().json())


async def own_token(issuer: FakeIssuer, client: AsyncClient, auth: Auth, **form: str) -> dict[str, Any]:
    data = {"grant_type": "client_credentials", **form}
    return dict(
        (await client.post(issuer.endpoint("token"), data=data, auth=auth or USE_CLIENT_DEFAULT))
        .raise_for_status()
        .json()
    )


async def test_a_client_gets_a_token_of_its_own(issuer: FakeIssuer, client: AsyncClient) -> None:
    answer = await own_token(issuer, client, ("worker", "s3cret"), scope="read")

    claims = issuer.read(answer.pop("access_token"))
    assert answer == {"token_type": "Bearer", "expires_in": 300, "scope": "read"}
    assert claims is not None
    assert (claims["sub"], claims["client_id"], claims["scope"]) == ("worker", "worker", "read")
    assert "sid" not in claims


async def test_a_client_may_show_its_secret_in_the_form(issuer: FakeIssuer, client: AsyncClient) -> None:
    assert await own_token(issuer, client, None, client_id="worker", client_secret="s3cret")


async def test_basic_credentials_are_form_encoded(issuer: FakeIssuer, client: AsyncClient) -> None:
    """RFC 6749 §2.3.1."""
    answer = await own_token(issuer, client, ("sealed", "p%3Ass+w%C3%B6rd%26%25"))

    assert "." not in answer["access_token"]


@pytest.mark.parametrize(
    ("form", "auth", "headers", "expected"),
    [
        pytest.param({}, ("worker", "wrong"), {}, (401, "invalid_client"), id="wrong secret"),
        pytest.param({}, ("nobody", "s3cret"), {}, (401, "invalid_client"), id="unknown client"),
        pytest.param({"client_id": "worker"}, None, {}, (401, "invalid_client"), id="no secret"),
        pytest.param({}, None, {}, (401, "invalid_client"), id="nothing"),
        pytest.param({}, None, {"authorization": "Basic !"}, (401, "invalid_client"), id="broken Basic"),
        pytest.param({}, None, {"authorization": "Basic d29ya2Vy"}, (401, "invalid_client"), id="Basic without colon"),
        pytest.param({}, None, {"authorization": "Bearer d29ya2VyOnMzY3JldA=="}, (401, "invalid_client"), id="Bearer"),
        pytest.param(
            {"client_secret": "s3cret"}, ("worker", "s3cret"), {}, (400, "invalid_request"), id="authenticated twice"
        ),
        pytest.param({"client_id": "spa"}, ("worker", "s3cret"), {}, (400, "invalid_request"), id="two clients"),
        pytest.param({"client_id": "spa"}, None, {}, (400, "unauthorized_client"), id="public client"),
        pytest.param(
            {"client_id": "spa", "client_secret": "x"}, None, {}, (401, "invalid_client"), id="made-up secret"
        ),
        pytest.param({"scope": "read admin"}, ("worker", "s3cret"), {}, (400, "invalid_scope"), id="scope"),
        pytest.param({"grant_type": "password"}, ("worker", "s3cret"), {}, (400, "unsupported_grant_type"), id="grant"),
        pytest.param({"grant_type": ""}, ("worker", "s3cret"), {}, (400, "invalid_request"), id="no grant"),
    ],
)
async def test_the_token_endpoint_refuses(  # noqa: PLR0917 - one row of the table
    issuer: FakeIssuer, client: AsyncClient, form: Form, auth: Auth, headers: Form, expected: tuple[int, str]
) -> None:
    response = await client.post(
        issuer.endpoint("token"),
        data={"grant_type": "client_credentials", **form},
        auth=auth or USE_CLIENT_DEFAULT,
        headers=headers,
    )

    assert refusal(response) == expected
    assert response.headers.get("www-authenticate") == ("Basic" if expected[0] == 401 else None)
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        pytest.param(b'{"grant_type": "client_credentials"}', "application/json", id="JSON"),
        pytest.param(b"grant_type=a&grant_type=b", "application/x-www-form-urlencoded", id="twice"),
        pytest.param(b"", "", id="empty"),
    ],
)
async def test_the_body_is_a_form(issuer: FakeIssuer, client: AsyncClient, content: bytes, content_type: str) -> None:
    response = await client.post(
        issuer.endpoint("token"), content=content, headers={"content-type": content_type}, auth=("worker", "s3cret")
    )

    assert refusal(response) == (400, "invalid_request")


@pytest.mark.parametrize("content", [b"\xff\xfe=%ff&%", b"&&&=", b"a" * 1_000_000], ids=["bytes", "signs", "megabyte"])
async def test_garbage_is_refused_as_an_unknown_client(issuer: FakeIssuer, client: AsyncClient, content: bytes) -> None:
    response = await client.post(
        issuer.endpoint("token"), content=content, headers={"content-type": "application/x-www-form-urlencoded"}
    )

    assert refusal(response) == (401, "invalid_client")


async def test_the_token_endpoint_takes_post_only(issuer: FakeIssuer, client: AsyncClient) -> None:
    assert (await client.get(issuer.endpoint("token"))).status_code == 405
    assert (await client.get(issuer.endpoint("jwks") + "/")).status_code == 404


async def test_introspection_tells_what_an_opaque_token_says(
    issuer: FakeIssuer, client: AsyncClient, oidc_clock: ManualClock
) -> None:
    token = issuer.opaque_token("alice", scope="read", claims={"roles": ["x"]}, omit=("jti",))
    now = int(oidc_clock.now())

    assert await introspect(issuer, client, token) == {
        "active": True,
        "token_type": "Bearer",
        "iss": issuer.url,
        "sub": "alice",
        "aud": issuer.audience,
        "client_id": "client",
        "scope": "read",
        "iat": now,
        "exp": now + 300,
        "roles": ["x"],
    }
    oidc_clock.advance(300)
    assert await introspect(issuer, client, token) == {"active": False}


async def test_introspection_reads_jwts_too(issuer: FakeIssuer, client: AsyncClient) -> None:
    assert (await introspect(issuer, client, issuer.token("alice")))["sub"] == "alice"


@pytest.mark.parametrize("kind", ["expired", "ID token", "foreign", "garbage"])
async def test_introspection_says_no_more_than_inactive(issuer: FakeIssuer, client: AsyncClient, kind: str) -> None:
    tokens = {
        "expired": issuer.token(expires_in=-1),
        "ID token": issuer.id_token(),
        "foreign": FakeIssuer(algorithms=("ES256",)).token(),
        "garbage": "a.b.c",
    }

    assert await introspect(issuer, client, tokens[kind]) == {"active": False}


@pytest.mark.parametrize(
    ("form", "auth", "expected"),
    [
        ({"token": "x"}, None, (401, "invalid_client")),
        ({"token": "x", "client_id": "spa"}, None, (401, "invalid_client")),
        ({"token": "x"}, ("worker", "wrong"), (401, "invalid_client")),
        ({}, ("worker", "s3cret"), (400, "invalid_request")),
    ],
)
async def test_introspection_is_for_confidential_clients(
    issuer: FakeIssuer, client: AsyncClient, form: Form, auth: Auth, expected: tuple[int, str]
) -> None:
    response = await client.post(
        issuer.endpoint("introspect"), data={**form, "hint": "x"}, auth=auth or USE_CLIENT_DEFAULT
    )

    assert refusal(response) == expected


@pytest.mark.parametrize("auth", [("worker", "s3cret"), ("sealed", "p%3Ass+w%C3%B6rd%26%25")], ids=["JWT", "opaque"])
async def test_a_revoked_token_is_inactive(issuer: FakeIssuer, client: AsyncClient, auth: tuple[str, str]) -> None:
    token = (await own_token(issuer, client, auth))["access_token"]
    assert (await introspect(issuer, client, token))["active"] is True

    response = await client.post(issuer.endpoint("revoke"), data={"token": token}, auth=auth)

    assert (response.status_code, response.content) == (200, b"")
    assert await introspect(issuer, client, token) == {"active": False}


async def test_revoking_the_unknown_is_no_error_and_the_foreign_is(issuer: FakeIssuer, client: AsyncClient) -> None:
    """RFC 7009 §2.1 and §2.2."""
    token = (await own_token(issuer, client, ("worker", "s3cret")))["access_token"]
    url = issuer.endpoint("revoke")

    assert (await client.post(url, data={"token": "unknown"}, auth=("worker", "s3cret"))).status_code == 200
    assert refusal(await client.post(url, data={"token": token, "client_id": "spa"})) == (400, "invalid_grant")
    assert refusal(await client.post(url, data={"token": token})) == (401, "invalid_client")
    assert (await introspect(issuer, client, token))["active"] is True


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_userinfo_tells_the_claims_of_the_user(issuer: FakeIssuer, client: AsyncClient, method: str) -> None:
    headers = {"authorization": f"Bearer {issuer.token('alice')}"}

    response = await client.request(method, issuer.endpoint("userinfo"), headers=headers)

    assert response.json() == {"sub": "alice", "email": "alice@example.com"}


async def test_userinfo_refuses_without_a_good_access_token(issuer: FakeIssuer, client: AsyncClient) -> None:
    url = issuer.endpoint("userinfo")
    nothing = await client.get(url)
    identity = await client.get(url, headers={"authorization": f"Bearer {issuer.id_token('alice')}"})

    assert (nothing.status_code, nothing.headers["www-authenticate"]) == (401, "Bearer")
    assert (identity.status_code, identity.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')
