"""The client of the token endpoint, against issuers that answer well, wrongly, late, or not at all."""

from __future__ import annotations

import asyncio
import json
import logging
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

import pytest
from provider_kit import Bench
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from oidc_middleware.core.grant import Grant
from oidc_middleware.core.signature import PrivateKey
from oidc_middleware.errors import GrantRefused, OIDCError, ProviderError, ProviderInvalid, ProviderUnavailable
from oidc_middleware.provider import HTTPDoor
from oidc_middleware.provider.credentials import Basic, Credentials, Post, PrivateKeyJWT, Public
from oidc_middleware.provider.http import ErrorStatus
from oidc_middleware.provider.tokens import TokenClient
from oidc_middleware.testing import FakeIssuer, ManualClock, faults
from oidc_middleware.testing.grants import Code
from oidc_middleware.testing.grants import Grant as Given

pytestmark = pytest.mark.anyio

BACK = "https://app.example/oauth2/callback"
VERIFIER = "v" * 43
CHALLENGE = urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
SECRET = "s3cret with : and %"
GOOD = {"access_token": "at", "token_type": "Bearer", "expires_in": 60}


@pytest.fixture
def bench() -> Bench:
    clock = ManualClock()
    issuer = FakeIssuer(algorithms=("ES256",), clock=clock)
    issuer.client("app", secret=SECRET, redirect_uris=[BACK])
    issuer.client("phone", redirect_uris=[BACK])
    return Bench(issuer, clock)


def client(bench: Bench, credentials: Credentials | None = None, **options: Any) -> TokenClient:
    return TokenClient(bench.provider, credentials or Basic("app", SECRET), client_id="app", **options)


def code(bench: Bench, client_id: str = "app", scope: str = "openid email") -> str:
    """Let alice log in at the issuer, and return the code that it gives out."""
    issuer = bench.issuer
    given = Given(issuer.clients[client_id], "alice", scope, issuer.audience, int(issuer.clock.now()), "n", "s1")
    return issuer.grants.start(Code(given, BACK, CHALLENGE, issuer.clock.now() + 60))


def instead(answer: Callable[[Request], Awaitable[Response]]) -> faults.Fault:
    """Answer a request by this function."""

    def fault(_: ASGIApp) -> ASGIApp:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await (await answer(Request(scope, receive)))(scope, receive, send)

        return app

    return fault


def saying(content: Any, status: int = 200, media_type: str = "application/json") -> faults.Fault:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return instead(lambda _: _respond(Response(body, status, media_type=media_type)))


async def _respond(response: Response) -> Response:
    return response


async def failure(call: Awaitable[object]) -> OIDCError:
    with pytest.raises(OIDCError) as caught:
        await call
    return caught.value


# What an issuer grants


@pytest.mark.parametrize(
    ("client_id", "credentials"),
    [("app", Basic("app", SECRET)), ("app", Post("app", SECRET)), ("phone", Public("phone"))],
    ids=["client_secret_basic", "client_secret_post", "none"],
)
async def test_a_code_is_exchanged_for_tokens(bench: Bench, client_id: str, credentials: Credentials) -> None:
    grant = await client(bench, credentials).exchange(code(bench, client_id), VERIFIER, BACK)

    assert (bench.issuer.read(grant.access_token) or {})["sub"] == "alice"
    assert (bench.issuer.verify(grant.id_token or "") or {})["nonce"] == "n"
    assert (grant.token_type, grant.expires_in, grant.scope) == ("Bearer", 300, "openid email")
    assert grant.refresh_token is not None
    assert bench.issuer.requests["token"] == 1


async def test_private_key_jwt_is_one_assertion_a_request(bench: Bench) -> None:
    seen: list[dict[str, Any]] = []

    async def answer(request: Request) -> Response:
        seen.append(dict(await request.form()))
        return JSONResponse(GOOD)

    bench.issuer.fault("token", instead(answer))
    key = PrivateKey("ES256", bench.issuer.keys.current().private)
    proof = PrivateKeyJWT("app", key, "k1", bench.issuer.url, bench.clock.now)
    for _ in range(2):
        await client(bench, proof).exchange("c", VERIFIER, BACK)

    assert seen[0]["client_id"] == "app"
    assert seen[0]["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert seen[0]["client_assertion"] != seen[1]["client_assertion"]
    assert {"grant_type", "code", "code_verifier", "redirect_uri"} < seen[0].keys()
    assert "client_secret" not in seen[0]


async def test_what_is_sent_is_a_form_with_these_fields_and_no_cookie_or_strange_header(bench: Bench) -> None:
    seen: list[tuple[dict[str, str], dict[str, Any]]] = []

    async def answer(request: Request) -> Response:
        seen.append((dict(request.headers), dict(await request.form())))
        return JSONResponse(GOOD, headers={"set-cookie": "a=b"})

    bench.issuer.fault("token", instead(answer))
    tokens = client(bench, resource="https://api.example/")
    await tokens.exchange("c&d=ü", VERIFIER, BACK, "https://other.example/")
    await tokens.refresh("r")

    assert [form for _, form in seen] == [
        {
            "grant_type": "authorization_code",
            "code": "c&d=ü",
            "code_verifier": VERIFIER,
            "redirect_uri": BACK,
            "resource": "https://other.example/",
        },
        {"grant_type": "refresh_token", "refresh_token": "r", "resource": "https://api.example/"},
    ]
    for headers, _ in seen:
        assert headers["authorization"].startswith("Basic ")
        assert headers["content-type"] == "application/x-www-form-urlencoded"
        assert (headers["user-agent"], headers["accept-encoding"]) == ("oidc-middleware", "identity")
        assert "cookie" not in headers


async def test_a_refresh_token_is_exchanged_and_rotates(bench: Bench) -> None:
    tokens = client(bench)
    first = await tokens.exchange(code(bench), VERIFIER, BACK)
    second = await tokens.refresh(first.refresh_token or "")

    assert second.refresh_token not in {None, first.refresh_token}
    assert second.id_token is not None
    assert isinstance(await failure(tokens.refresh(first.refresh_token or "")), GrantRefused)


async def test_without_a_new_refresh_token_there_is_none_in_the_answer(bench: Bench) -> None:
    bench.issuer.fault("token", saying(GOOD))

    assert (await client(bench).refresh("r")).refresh_token is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Grant("at", "Bearer", 60)),
        ({"token_type": "bearer"}, Grant("at", "Bearer", 60)),
        ({"expires_in": "3599"}, Grant("at", "Bearer", 3599)),
        ({"expires_in": 1.5}, Grant("at", "Bearer", 1.5)),
        ({"refresh_expires_in": 0, "refresh_token": "r"}, Grant("at", "Bearer", 60, "r")),
        ({"refresh_expires_in": 1800, "refresh_token": "r"}, Grant("at", "Bearer", 60, "r", 1800)),
        ({"scope": None, "id_token": None, "expires_in": None}, Grant("at", "Bearer")),
        ({"expires_in": 0}, Grant("at", "Bearer", 0)),
        ({"expires_in": 10**400}, Grant("at", "Bearer", 1e10)),
        ({"refresh_expires_in": 10**400, "refresh_token": "r"}, Grant("at", "Bearer", 60, "r", 1e10)),
        ({"anything": {"else": [1]}}, Grant("at", "Bearer", 60)),
    ],
    ids=str,
)
async def test_a_good_answer(bench: Bench, changes: dict[str, Any], expected: Grant) -> None:
    bench.issuer.fault("token", saying(GOOD | changes))

    assert await client(bench).exchange("c", VERIFIER, BACK) == expected


# What is no grant


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([], "not a JSON object"),
        ([GOOD], "not a JSON object"),
        ("text", "not a JSON object"),
        ({}, "access_token is missing"),
        (GOOD | {"access_token": ""}, "access_token"),
        (GOOD | {"access_token": 1}, "access_token"),
        (GOOD | {"access_token": "a\r\nSet-Cookie: b"}, "access_token"),
        (GOOD | {"access_token": "ä"}, "access_token"),
        (GOOD | {"token_type": "mac"}, "token_type is not Bearer"),
        (GOOD | {"token_type": "DPoP"}, "token_type is not Bearer"),
        (GOOD | {"token_type": None}, "token_type is missing"),
        (GOOD | {"token_type": ["Bearer"]}, "token_type"),
        (GOOD | {"expires_in": True}, "expires_in"),
        (GOOD | {"expires_in": -1}, "expires_in"),
        (GOOD | {"expires_in": "soon"}, "expires_in"),
        (GOOD | {"expires_in": [60]}, "expires_in"),
        (GOOD | {"expires_at": [60]}, "expires_at"),
        (GOOD | {"expires_at": {}}, "expires_at"),
        (GOOD | {"refresh_token": {}}, "refresh_token"),
        (GOOD | {"refresh_token": ""}, "refresh_token"),
        (GOOD | {"scope": ["openid"]}, "scope"),
        (GOOD | {"id_token": 5}, "id_token"),
        (b'{"access_token": "a", "access_token": "b", "token_type": "Bearer"}', "a key occurs twice"),
        (b'{"access_token": "a", "token_type": "Bearer", "expires_in": NaN}', "not JSON"),
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
    ],
    ids=str,
)
async def test_an_answer_that_breaks_the_protocol(bench: Bench, answer: Any, said: str) -> None:
    bench.issuer.fault("token", saying(answer))
    error = await failure(client(bench).exchange("c", VERIFIER, BACK))

    assert type(error) is ProviderInvalid
    assert said in str(error)


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        (400, {"error": "invalid_grant"}, GrantRefused),
        (400, {"error": "invalid_grant", "error_description": 'a "quoted" ü'}, GrantRefused),
        (400, {"error": "invalid_scope"}, GrantRefused),
        (403, {"error": "access_denied"}, GrantRefused),
        (400, {"error": "<script>"}, GrantRefused),
        (400, {"error": ["invalid_grant"]}, GrantRefused),
        (200, {"error": "invalid_grant"}, GrantRefused),  # as some answer
        (401, {"error": "invalid_client"}, ProviderInvalid),
        (400, {"error": "unauthorized_client"}, ProviderInvalid),
        (429, {"error": "too_many_requests"}, ProviderUnavailable),
        (400, {"error": "temporarily_unavailable"}, ProviderUnavailable),
        (400, GOOD, ErrorStatus),  # Authlib would take it
        (404, {}, ErrorStatus),
        (500, GOOD, ErrorStatus),
        (500, {"error": "invalid_grant"}, ErrorStatus),
        (503, {}, ErrorStatus),
    ],
    ids=str,
)
async def test_a_refusal(bench: Bench, status: int, answer: Any, expected: type[OIDCError]) -> None:
    bench.issuer.fault("token", saying(answer, status))
    tokens = client(bench)

    assert type(await failure(tokens.exchange("c", VERIFIER, BACK))) is expected
    assert type(await failure(tokens.refresh("r"))) is expected


async def test_a_refused_client_is_told_to_the_operator_without_its_secret(bench: Bench) -> None:
    error = await failure(client(bench, Basic("app", "wrong")).exchange(code(bench), VERIFIER, BACK))

    assert type(error) is ProviderInvalid
    assert "check client_id, client_secret and client_auth_method" in str(error)
    assert "wrong" not in str(error)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (faults.redirect("https://issuer.example/elsewhere"), ProviderInvalid),
        (faults.redirect("https://issuer.example/elsewhere", 307), ProviderInvalid),
        (faults.content_type("text/html"), ProviderInvalid),
        (faults.oversize(), ProviderInvalid),
        (faults.status(502), ErrorStatus),
        (faults.down(), ProviderUnavailable),
        (saying(b"<h1>Forbidden</h1>", 403, "text/html"), ErrorStatus),
        (saying(b"x" * 70_000, 400), ProviderInvalid),
    ],
    ids=["redirect", "307", "html", "huge", "502", "down", "a page of a gateway", "a huge refusal"],
)
async def test_x_token_what_is_no_answer(bench: Bench, fault: faults.Fault, expected: type[OIDCError]) -> None:
    bench.issuer.fault("token", fault)
    error = await failure(client(bench).exchange(code(bench), VERIFIER, BACK))

    assert type(error) is expected
    assert bench.issuer.requests["token"] == 1


@pytest.mark.parametrize("fault", [faults.slow(60), faults.dripping()], ids=["slow", "dripping"])
async def test_x_token_slow_is_given_up_after_one_deadline(fault: faults.Fault) -> None:
    issuer = FakeIssuer(algorithms=("ES256",))
    bench = Bench(issuer, ManualClock(), {"deadline": 0.3})
    issuer.client("app", secret=SECRET, redirect_uris=[BACK])
    await bench.provider.metadata()
    issuer.fault("token", fault)
    error = await failure(client(bench).exchange(code(bench), VERIFIER, BACK))

    assert type(error) is ProviderUnavailable
    assert "within 0.3 s" in str(error)


async def test_without_a_token_endpoint_nothing_is_sent(bench: Bench) -> None:
    bench.issuer.metadata_overrides = {"token_endpoint": None}
    error = await failure(client(bench).exchange("c", VERIFIER, BACK))

    assert isinstance(error, ProviderInvalid)
    assert "token_endpoint" in str(error)


async def test_the_endpoint_may_not_lie_further_inside_than_the_issuer(bench: Bench) -> None:
    bench.issuer.metadata_overrides = {"token_endpoint": "https://127.0.0.1/token"}
    error = await failure(client(bench).exchange("c", VERIFIER, BACK))

    assert isinstance(error, ProviderInvalid)
    assert "may not reach" in str(error)


async def test_over_real_sockets_and_at_once() -> None:

    issuer = FakeIssuer(algorithms=("ES256",))
    issuer.client("app", secret=SECRET, redirect_uris=[BACK])
    async with issuer.serve():
        bench = Bench(issuer, ManualClock())
        bench.provider.http = HTTPDoor(deadline=60)
        tokens = client(bench)
        grants = await asyncio.gather(*(tokens.exchange(code(bench), VERIFIER, BACK) for _ in range(10)))
        issuer.fault("token", faults.down())
        error = await failure(tokens.exchange(code(bench), VERIFIER, BACK))

    assert len({grant.access_token for grant in grants}) == 10
    assert type(error) is ProviderUnavailable


# Beside the token endpoint


async def test_a_refresh_token_is_revoked(bench: Bench) -> None:
    tokens = client(bench)
    grant = await tokens.exchange(code(bench), VERIFIER, BACK)
    await tokens.revoke(grant.refresh_token or "")

    assert bench.issuer.read(grant.access_token) is None
    assert isinstance(await failure(tokens.refresh(grant.refresh_token or "")), GrantRefused)


@pytest.mark.parametrize(
    "fault",
    [faults.status(503), faults.down(), saying({"error": "invalid_request"}, 400), faults.redirect("/x")],
    ids=["503", "down", "400", "redirect"],
)
async def test_a_revocation_that_fails_is_told_in_the_log_only(
    bench: Bench, fault: faults.Fault, caplog: pytest.LogCaptureFixture
) -> None:
    bench.issuer.fault("revoke", fault)
    await client(bench).revoke("the-token")

    (record,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert "did not revoke a token" in record.getMessage()
    assert "the-token" not in caplog.text


async def test_without_a_revocation_endpoint_nothing_is_sent(bench: Bench) -> None:
    bench.issuer.metadata_overrides = {"revocation_endpoint": None}
    await client(bench).revoke("t")

    assert bench.issuer.requests["revoke"] == 0


async def test_userinfo_is_asked_with_the_token_in_the_header(bench: Bench) -> None:
    bench.issuer.users["alice"] = {"email": "alice@example.com"}
    tokens = client(bench)
    grant = await tokens.exchange(code(bench), VERIFIER, BACK)

    assert await tokens.userinfo(grant.access_token) == {"sub": "alice", "email": "alice@example.com"}


async def test_without_a_userinfo_endpoint_there_are_no_more_claims(bench: Bench) -> None:
    bench.issuer.metadata_overrides = {"userinfo_endpoint": None}

    assert await client(bench).userinfo("at") == {}


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (faults.status(500), ErrorStatus),
        (faults.status(401), ErrorStatus),
        (saying(b"eyJ.eyJ.x", media_type="application/jwt"), ProviderInvalid),
        (saying([]), ProviderInvalid),
        (saying(b'{"sub": "a", "sub": "b"}'), ProviderInvalid),
        (faults.redirect("https://evil.example/"), ProviderInvalid),
    ],
    ids=["500", "401", "signed", "array", "twice", "redirect"],
)
async def test_userinfo_that_cannot_be_read(bench: Bench, fault: faults.Fault, expected: type[ProviderError]) -> None:
    bench.issuer.fault("userinfo", fault)

    assert type(await failure(client(bench).userinfo("at"))) is expected


def test_a_grant_does_not_show_its_tokens() -> None:
    grant = Grant("secret-at", "Bearer", 60, "secret-rt", None, "openid", "secret-id")

    assert "secret" not in f"{grant!r}{grant}"
