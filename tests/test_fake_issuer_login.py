"""Logging in at the fake issuer: the page, the code, PKCE, refresh and logout; the main ways over real HTTP."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from authlib.integrations.httpx_client import AsyncOAuth2Client
from httpx2 import AsyncClient
from issuer_login_kit import (
    ASKED,
    CALLBACK,
    CHALLENGE,
    VERIFIER,
    Page,
    answer_of,
    asked,
    code_of,
    exchange,
    is_active,
    logged_in,
    refresh,
    refusal,
    sign_in,
)
from joserfc import jwk, jwt

from oidc_middleware.testing import FakeIssuer, ManualClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def issuer(fake_issuer: FakeIssuer) -> FakeIssuer:
    fake_issuer.client(
        "web", secret="s3cret", redirect_uris=[CALLBACK], post_logout_redirect_uris=["https://app.example/bye?x=1"]
    )
    fake_issuer.client("spa", redirect_uris=[CALLBACK], scopes=["openid"])
    fake_issuer.users["alice"] = {"email": "alice@example.com"}
    return fake_issuer


@pytest.fixture
async def browser(issuer: FakeIssuer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(transport=issuer.transport()) as client:
        yield client


@pytest.fixture
async def online(issuer: FakeIssuer) -> AsyncIterator[AsyncClient]:
    """Reach the issuer over a real socket."""
    async with issuer.serve(), AsyncClient(trust_env=False, timeout=5) as client:
        yield client


async def test_the_whole_code_flow_satisfies_a_stranger(issuer: FakeIssuer, online: AsyncClient) -> None:
    document = (await online.get(issuer.endpoint("discovery"))).json()
    page = Page((await online.get(document["authorization_endpoint"], params=ASKED)).text)
    back = await online.post(page.action, data={**page.hidden, "username": "alice", "decision": "allow"})
    answer = answer_of(back)
    assert (back.status_code, answer["state"], answer["iss"]) == (303, "s-1", issuer.url)

    response = await exchange(issuer, online, answer["code"])
    tokens = response.json()

    assert response.headers["cache-control"] == "no-store"
    assert tokens.keys() == {"access_token", "token_type", "expires_in", "scope", "refresh_token", "id_token"}
    assert (tokens["token_type"], tokens["expires_in"], tokens["scope"]) == ("Bearer", 300, "openid orders:read")
    keys = jwk.KeySet.import_key_set((await online.get(document["jwks_uri"])).json())
    access = jwt.decode(tokens["access_token"], keys, algorithms=["RS256"])
    identity = jwt.decode(tokens["id_token"], keys, algorithms=["RS256"])
    digest = hashlib.sha256(tokens["access_token"].encode()).digest()
    at_hash = base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
    jwt.JWTClaimsRegistry(
        now=int(issuer.clock.now()),
        iss={"essential": True, "value": issuer.url},
        aud={"essential": True, "value": "web"},
        nonce={"essential": True, "value": "n-1"},
        at_hash={"essential": True, "value": at_hash},
        exp={"essential": True},
        iat={"essential": True},
        auth_time={"essential": True},
        sid={"essential": True},
    ).validate(identity.claims)
    assert identity.claims["exp"] == identity.claims["iat"] + 300
    assert (identity.header["kid"], identity.header["typ"]) == ("rs256-1", "JWT")
    assert (access.header["typ"], access.claims["aud"], access.claims["scope"]) == (
        "at+jwt",
        issuer.audience,
        "openid orders:read",
    )
    for claims in (access.claims, identity.claims):
        assert (claims["sub"], claims["email"], claims["sid"]) == ("alice", "alice@example.com", identity.claims["sid"])


async def test_the_client_of_authlib_logs_in(issuer: FakeIssuer, online: AsyncClient) -> None:
    async with AsyncOAuth2Client(
        "web", "s3cret", redirect_uri=CALLBACK, scope="openid", code_challenge_method="S256", trust_env=False
    ) as client:
        url, state = client.create_authorization_url(issuer.endpoint("authorize"), code_verifier=VERIFIER)
        page = Page((await online.get(url)).text)
        back = await online.post(page.action, data={**page.hidden, "username": "alice", "decision": "allow"})
        location = back.headers["location"]

        tokens = await client.fetch_token(
            issuer.endpoint("token"), authorization_response=location, state=state, code_verifier=VERIFIER
        )
        renewed = await client.refresh_token(issuer.endpoint("token"), refresh_token=tokens["refresh_token"])

    assert renewed["refresh_token"] != tokens["refresh_token"]
    assert issuer.read(renewed["access_token"])


async def test_a_public_client_logs_in_by_its_id_alone(issuer: FakeIssuer, online: AsyncClient) -> None:
    code = await code_of(issuer, online, client_id="spa", scope="openid")

    assert (await exchange(issuer, online, code, client_id="spa")).status_code == 200


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({"code_challenge": None, "code_challenge_method": None}, "invalid_request", id="no PKCE"),
        pytest.param({"code_challenge": None}, "invalid_request", id="no challenge"),
        pytest.param({"code_challenge_method": None}, "invalid_request", id="plain by default"),
        pytest.param({"code_challenge_method": "plain"}, "invalid_request", id="plain"),
        pytest.param({"code_challenge": "short"}, "invalid_request", id="short challenge"),
        pytest.param({"code_challenge": CHALLENGE + "\n"}, "invalid_request", id="newline in challenge"),
        pytest.param({"response_type": "token"}, "unsupported_response_type", id="implicit"),
        pytest.param({"response_type": "code id_token"}, "unsupported_response_type", id="hybrid"),
        pytest.param({"response_type": None}, "invalid_request", id="no response type"),
        pytest.param({"response_mode": "fragment"}, "invalid_request", id="fragment"),
        pytest.param({"request": "e30.e30."}, "request_not_supported", id="request object"),
        pytest.param({"request_uri": "https://x.example"}, "request_uri_not_supported", id="request URI"),
        pytest.param({"prompt": "none"}, "login_required", id="prompt none"),
        pytest.param({"client_id": "spa"}, "invalid_scope", id="scope of another client"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_that_breaks_the_rules_goes_back(
    issuer: FakeIssuer, browser: AsyncClient, method: str, changes: dict[str, str | None], error: str
) -> None:
    """The same over GET and over the form, where a browser could have skipped the page."""
    url = issuer.endpoint("authorize")
    if method == "GET":
        response = await browser.get(url, params=asked(**changes))
    else:
        response = await browser.post(url, data={**asked(**changes), "username": "alice", "decision": "allow"})

    answer = answer_of(response)
    assert (answer["error"], answer["state"], answer["iss"]) == (error, "s-1", issuer.url)
    assert "code" not in answer


@pytest.mark.parametrize(
    "query",
    [
        pytest.param({**ASKED, "client_id": "nobody"}, id="unknown client"),
        pytest.param({**ASKED, "redirect_uri": CALLBACK + "/"}, id="another redirect URI"),
        pytest.param({**ASKED, "redirect_uri": "https://evil.example/"}, id="foreign redirect URI"),
        pytest.param(asked(redirect_uri=None), id="no redirect URI"),
        pytest.param(asked(client_id=None), id="no client"),
        pytest.param([*ASKED.items(), ("state", "s-2")], id="a parameter twice"),
    ],
)
async def test_nobody_is_sent_to_where_nobody_registered(
    issuer: FakeIssuer, browser: AsyncClient, query: dict[str, str] | list[tuple[str, str]]
) -> None:
    response = await browser.get(f"{issuer.endpoint('authorize')}?{urlencode(query)}")

    assert (response.status_code, "location" in response.headers) == (400, False)


async def test_the_page_escapes_what_it_shows(issuer: FakeIssuer, browser: AsyncClient) -> None:
    evil = "\"><script>alert('x')</script>"
    response = await browser.get(issuer.endpoint("authorize"), params=asked(state=evil, login_hint=evil, scope=evil))

    assert "<script" not in response.text
    assert Page(response.text).hidden["state"] == evil


async def test_a_user_may_decline(issuer: FakeIssuer, browser: AsyncClient) -> None:
    answer = answer_of(await sign_in(issuer, browser, "deny"))

    assert (answer["error"], "code" in answer) == ("access_denied", False)


async def test_a_redirect_uri_keeps_its_query(issuer: FakeIssuer, browser: AsyncClient) -> None:
    issuer.client("web", secret="s3cret", redirect_uris=[CALLBACK + "?tenant=a"])

    response = await sign_in(issuer, browser, "allow", redirect_uri=CALLBACK + "?tenant=a")

    assert parse_qs(urlsplit(response.headers["location"]).query).keys() == {"tenant", "code", "iss", "state"}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"code_verifier": VERIFIER[:-1] + "x"}, id="wrong verifier"),
        pytest.param({"redirect_uri": "https://app.example/other"}, id="another redirect URI"),
        pytest.param({"client_id": "spa"}, id="another client"),
        pytest.param({"code": "guess"}, id="unknown code"),
    ],
)
async def test_a_code_is_bound_to_its_request(
    issuer: FakeIssuer, browser: AsyncClient, changes: dict[str, str]
) -> None:
    form = {"code": await code_of(issuer, browser), **changes}

    assert refusal(await exchange(issuer, browser, **form)) == (400, "invalid_grant")


@pytest.mark.parametrize("verifier", [{}, {"code_verifier": VERIFIER[:42]}, {"code_verifier": VERIFIER + "+"}])
async def test_a_code_needs_its_verifier(issuer: FakeIssuer, browser: AsyncClient, verifier: dict[str, str]) -> None:
    code = await code_of(issuer, browser)
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, **verifier}
    response = await browser.post(issuer.endpoint("token"), data=form, auth=("web", "s3cret"))

    assert refusal(response) == (400, "invalid_request")


async def test_a_code_expires(issuer: FakeIssuer, browser: AsyncClient, oidc_clock: ManualClock) -> None:
    code = await code_of(issuer, browser)
    oidc_clock.advance(60)

    assert refusal(await exchange(issuer, browser, code)) == (400, "invalid_grant")


async def test_a_code_used_twice_ends_what_came_of_it(issuer: FakeIssuer, browser: AsyncClient) -> None:
    code = await code_of(issuer, browser)
    first = (await exchange(issuer, browser, code)).json()
    assert await is_active(issuer, browser, first["access_token"])

    assert refusal(await exchange(issuer, browser, code)) == (400, "invalid_grant")

    assert not await is_active(issuer, browser, first["access_token"])
    assert refusal(await refresh(issuer, browser, first["refresh_token"])) == (400, "invalid_grant")


async def test_two_at_once_get_one_answer_from_a_code(issuer: FakeIssuer, online: AsyncClient) -> None:
    code = await code_of(issuer, online)

    answers = await asyncio.gather(*(exchange(issuer, online, code) for _ in range(5)))

    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400, 400]


async def test_refresh_tokens_rotate_and_reuse_ends_the_login(issuer: FakeIssuer, online: AsyncClient) -> None:
    first = await logged_in(issuer, online)
    second = (await refresh(issuer, online, first["refresh_token"])).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert await is_active(issuer, online, second["access_token"])

    assert refusal(await refresh(issuer, online, first["refresh_token"])) == (400, "invalid_grant")

    assert refusal(await refresh(issuer, online, second["refresh_token"])) == (400, "invalid_grant")
    assert not await is_active(issuer, online, second["access_token"])


async def test_a_refreshed_scope_may_be_narrower_never_wider(issuer: FakeIssuer, browser: AsyncClient) -> None:
    tokens = await logged_in(issuer, browser)

    wider = await refresh(issuer, browser, tokens["refresh_token"], scope="openid admin")
    assert refusal(wider) == (400, "invalid_scope")
    narrower = (await refresh(issuer, browser, tokens["refresh_token"], scope="orders:read")).json()

    assert narrower["scope"] == "orders:read"
    assert "id_token" not in narrower


async def test_a_resource_becomes_the_audience(issuer: FakeIssuer, browser: AsyncClient) -> None:
    code = await code_of(issuer, browser, resource="https://other.example")
    token = (await exchange(issuer, browser, code)).json()["access_token"]

    claims = issuer.read(token)
    assert claims is not None
    assert claims["aud"] == "https://other.example"


async def test_signing_out_ends_the_session_and_goes_back(
    issuer: FakeIssuer, browser: AsyncClient, oidc_clock: ManualClock
) -> None:
    tokens, other = await logged_in(issuer, browser), await logged_in(issuer, browser)
    oidc_clock.advance(3600)  # an expired ID token still says who signs out

    response = await browser.get(
        issuer.endpoint("end_session"),
        params={
            "id_token_hint": tokens["id_token"],
            "post_logout_redirect_uri": "https://app.example/bye?x=1",
            "state": "s-2",
        },
    )

    assert (response.status_code, response.headers["location"]) == (303, "https://app.example/bye?x=1&state=s-2")
    assert refusal(await refresh(issuer, browser, tokens["refresh_token"])) == (400, "invalid_grant")
    assert (await refresh(issuer, browser, other["refresh_token"])).status_code == 200


@pytest.mark.parametrize(
    "form",
    [
        pytest.param({"post_logout_redirect_uri": "https://app.example/bye?x=1"}, id="nobody known"),
        pytest.param({"client_id": "web", "post_logout_redirect_uri": "https://evil.example/"}, id="not registered"),
        pytest.param({"id_token_hint": "e30.e30.x"}, id="no ID token"),
    ],
)
async def test_signing_out_sends_nobody_to_where_nobody_registered(
    issuer: FakeIssuer, browser: AsyncClient, form: dict[str, str]
) -> None:
    response = await browser.post(issuer.endpoint("end_session"), data=form)

    assert refusal(response) == (400, "invalid_request")


async def test_signing_out_needs_no_destination(issuer: FakeIssuer, browser: AsyncClient) -> None:
    response = await browser.get(issuer.endpoint("end_session"))

    assert (response.status_code, "You are signed out" in response.text) == (200, True)


async def test_an_id_token_of_another_client_signs_nobody_out(issuer: FakeIssuer, browser: AsyncClient) -> None:
    tokens = await logged_in(issuer, browser)
    params = {"id_token_hint": tokens["id_token"], "client_id": "spa"}

    assert refusal(await browser.get(issuer.endpoint("end_session"), params=params)) == (400, "invalid_request")
    assert await is_active(issuer, browser, tokens["access_token"])


async def test_a_test_logs_somebody_in(issuer: FakeIssuer, browser: AsyncClient) -> None:
    back = await issuer.sign_in(f"{issuer.endpoint('authorize')}?{urlencode(ASKED)}", "bob")
    assert back.startswith(f"{CALLBACK}?")
    answer = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
    assert (answer["state"], answer["iss"]) == ("s-1", issuer.url)
    tokens = (await exchange(issuer, browser, answer["code"])).json()
    assert (issuer.read(tokens["access_token"]) or {})["sub"] == "bob"


async def test_a_test_whose_request_is_refused_is_told(issuer: FakeIssuer) -> None:
    with pytest.raises(ValueError, match=r"the issuer answers 400: .*redirect URI is not registered"):
        await issuer.sign_in(
            f"{issuer.endpoint('authorize')}?{urlencode(ASKED | {'redirect_uri': 'https://x.example'})}"
        )
