"""The fake issuer signs users out: clients are told; and how its logins can be made different from the usual ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from httpx2 import ASGITransport, AsyncClient
from issuer_login_kit import (
    CALLBACK,
    answer_of,
    is_active,
    logged_in,
    refresh,
    refusal,
    sign_in,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from oidc_middleware.testing import FakeIssuer

pytestmark = pytest.mark.anyio

LOGOUT_URI = "https://app.example/oauth2/backchannel-logout"
EVENT = "http://schemas.openid.net/event/backchannel-logout"


@pytest.fixture
def told() -> list[dict[str, str]]:
    """Collect the forms that the client got."""
    return []


@pytest.fixture
def issuer(fake_issuer: FakeIssuer, told: list[dict[str, str]]) -> FakeIssuer:
    async def answer(request: Request) -> JSONResponse:
        told.append(dict(parse_qsl((await request.body()).decode())))
        return JSONResponse({})

    fake_issuer.client("web", secret="s3cret", redirect_uris=[CALLBACK], backchannel_logout_uri=LOGOUT_URI)
    fake_issuer.client("spa", redirect_uris=[CALLBACK])
    fake_issuer.users["alice"] = {"email": "a@x.example"}
    app = Starlette(routes=[Route("/oauth2/backchannel-logout", answer, methods=["POST"])])
    fake_issuer.client_transport = ASGITransport(app)
    return fake_issuer


@pytest.fixture
async def browser(issuer: FakeIssuer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(transport=issuer.transport()) as client:
        yield client


def claims_of(issuer: FakeIssuer, token: str) -> dict[str, Any]:
    claims = issuer.verify(token)
    assert claims is not None
    return claims


async def test_a_session_ends_and_its_client_is_told(
    issuer: FakeIssuer, browser: AsyncClient, told: list[dict[str, str]]
) -> None:
    tokens, other = await logged_in(issuer, browser), await logged_in(issuer, browser)
    sid = claims_of(issuer, tokens["id_token"])["sid"]

    answers = await issuer.logout("alice", sid=sid)

    assert {name: answer.status_code for name, answer in answers.items() if answer} == {"web": 200}
    claims = claims_of(issuer, told[0]["logout_token"])
    assert {
        "iss": issuer.url,
        "aud": "web",
        "sub": "alice",
        "sid": sid,
        "events": {EVENT: {}},
    }.items() <= claims.items()
    assert not await is_active(issuer, browser, tokens["access_token"])
    assert await is_active(issuer, browser, other["access_token"])


async def test_all_of_a_subject_ends(issuer: FakeIssuer, browser: AsyncClient, told: list[dict[str, str]]) -> None:
    tokens, other = await logged_in(issuer, browser), await logged_in(issuer, browser)

    await issuer.logout("alice", claims={"jti": "j-1"}, headers={"typ": "JWT"})

    claims = claims_of(issuer, told[0]["logout_token"])
    assert ("sid" in claims, claims["jti"]) == (False, "j-1")
    for each in (tokens, other):
        assert refusal(await refresh(issuer, browser, each["refresh_token"])) == (400, "invalid_grant")


async def test_who_signs_out_by_the_browser_is_signed_out_of_the_clients(
    issuer: FakeIssuer, browser: AsyncClient, told: list[dict[str, str]]
) -> None:
    tokens = await logged_in(issuer, browser)

    await browser.get(issuer.endpoint("end_session"), params={"id_token_hint": tokens["id_token"]})

    sid = claims_of(issuer, tokens["id_token"])["sid"]
    assert [claims_of(issuer, form["logout_token"])["sid"] for form in told] == [sid]


async def test_a_client_that_is_away_is_told_of_no_more(issuer: FakeIssuer) -> None:
    issuer.client_transport = issuer.transport()  # app.example is nobody there

    assert await issuer.logout("alice") == {"web": None}


async def test_requests_for_tokens_are_counted_by_grant_type(issuer: FakeIssuer, browser: AsyncClient) -> None:
    tokens = await logged_in(issuer, browser)
    await refresh(issuer, browser, tokens["refresh_token"])

    assert (issuer.token_requests, issuer.requests["token"]) == ({"authorization_code": 1, "refresh_token": 1}, 2)


async def test_reuse_of_a_refresh_token_may_go_undetected(issuer: FakeIssuer, browser: AsyncClient) -> None:
    issuer.detects_reuse = False
    tokens = await logged_in(issuer, browser)

    first, second = [(await refresh(issuer, browser, tokens["refresh_token"])).json() for _ in range(2)]

    assert len({tokens["refresh_token"], first["refresh_token"], second["refresh_token"]}) == 3
    assert await is_active(issuer, browser, first["access_token"])


async def test_refresh_tokens_may_stay(issuer: FakeIssuer, browser: AsyncClient) -> None:
    tokens = await logged_in(issuer, browser)
    issuer.rotates_refresh_tokens = False

    answers = [(await refresh(issuer, browser, tokens["refresh_token"])).json() for _ in range(2)]

    assert [answer.keys() & {"refresh_token", "id_token"} for answer in answers] == [{"id_token"}] * 2


async def test_the_issuer_may_leave_its_name_out(issuer: FakeIssuer, browser: AsyncClient) -> None:
    issuer.sends_iss = False

    answer = answer_of(await sign_in(issuer, browser, "allow"))
    document = (await browser.get(issuer.endpoint("discovery"))).json()

    assert answer.keys() == {"code", "state"}
    assert document["authorization_response_iss_parameter_supported"] is False


async def test_an_authorization_response_can_be_wrong(issuer: FakeIssuer, browser: AsyncClient) -> None:
    issuer.authorization_overrides = {"state": ["a", "b"], "iss": None}

    location = (await sign_in(issuer, browser, "allow")).headers["location"]

    query = parse_qs(urlsplit(location).query)
    assert (query["state"], "iss" in query) == (["a", "b"], False)


async def test_what_the_token_endpoint_answers_can_be_wrong(issuer: FakeIssuer, browser: AsyncClient) -> None:
    issuer.token_overrides = {"token_type": "mac", "refresh_token": None}
    issuer.id_token_shape = {"claims": {"nonce": "another", "sid": None}, "omit": ["exp"], "headers": {"typ": "X"}}

    tokens = await logged_in(issuer, browser)

    claims = claims_of(issuer, tokens["id_token"])
    assert (tokens["token_type"], "refresh_token" in tokens) == ("mac", False)
    assert (claims["nonce"], claims["sid"], "exp" in claims, claims["email"]) == ("another", None, False, "a@x.example")


async def test_userinfo_tells_what_id_tokens_do_not(issuer: FakeIssuer, browser: AsyncClient) -> None:
    issuer.profiles["alice"] = {"email": "alice@example.com", "phone_number": "1"}
    tokens = await logged_in(issuer, browser)

    answer = await browser.get(
        issuer.endpoint("userinfo"), headers={"authorization": f"Bearer {tokens['access_token']}"}
    )

    assert answer.json() == {"sub": "alice", "email": "alice@example.com", "phone_number": "1"}
    assert claims_of(issuer, tokens["id_token"])["email"] == "a@x.example"
