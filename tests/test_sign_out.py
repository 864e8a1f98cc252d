"""Signing out in a browser: the session is over before the issuer hears of it, and nobody else's link does it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from issuer_login_kit import Page
from logged_in_kit import BASE, NAVIGATION, Browser, query_of, service

from oidc_middleware import OIDC, Issuer
from oidc_middleware.session import logout
from oidc_middleware.testing import FakeIssuer, ManualClock, faults

pytestmark = pytest.mark.anyio

SIGN_OUT, SIGNED_OUT = "/oauth2/sign_out", "/oauth2/signed_out"
OURS = {"sec-fetch-site": "same-origin", "origin": BASE}


@pytest.fixture
async def oidc(fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> AsyncIterator[OIDC]:
    async with service(fake_issuer, clock=oidc_clock) as oidc:
        yield oidc


@pytest.fixture
async def browser(fake_issuer: FakeIssuer, oidc: OIDC) -> AsyncIterator[Browser]:
    """Give a browser that is logged in."""
    async with Browser(fake_issuer, oidc) as browser:
        await browser.sign_in()
        yield browser


async def is_signed_in(browser: Browser) -> bool:
    status = await browser.status()
    assert status in {200, 401}
    return status == 200


def is_private(answer: Any) -> bool:
    return bool(answer.headers["cache-control"] == "no-store")


# ------------------------------------------------------------------------------------------------------ there and back


@pytest.mark.parametrize("path", [SIGN_OUT, "/oauth2/logout"])
async def test_there_and_back(browser: Browser, fake_issuer: FakeIssuer, path: str) -> None:
    """G-hint: the issuer hears who and where to, signs out itself, and sends the browser back to where it wanted."""
    assert await is_signed_in(browser)

    answer = await browser.go(f"{path}?rd=/bye%3Fa=1")

    assert (answer.status_code, is_private(answer)) == (303, True)
    assert answer.headers["location"].startswith(fake_issuer.endpoint("end_session") + "?")
    asked = query_of(answer)
    assert asked.keys() == {"id_token_hint", "client_id", "post_logout_redirect_uri", "state"}
    assert (asked["client_id"], asked["post_logout_redirect_uri"]) == ("web", BASE + SIGNED_OUT)
    hint = fake_issuer.verify(asked["id_token_hint"])
    assert hint is not None
    assert hint["sub"] == "alice"
    assert not await is_signed_in(browser)

    back = await browser.go(answer.headers["location"])
    assert back.headers["location"] == f"{BASE}{SIGNED_OUT}?state={asked['state']}"
    end = await browser.go(back.headers["location"])
    assert (end.status_code, end.headers["location"], is_private(end)) == (303, "/bye?a=1", True)


async def test_each_state_is_another_one(browser: Browser) -> None:
    states = set()
    for _ in range(3):
        states.add(query_of(await browser.go(SIGN_OUT))["state"])
        await browser.sign_in()
    assert len(states) == 3


async def test_without_a_place_to_go_there_is_a_page(browser: Browser) -> None:
    there = await browser.go(SIGN_OUT)
    back = await browser.go(there.headers["location"])
    end = await browser.go(back.headers["location"])

    assert (end.status_code, "You are signed out" in end.text, is_private(end)) == (200, True, True)
    assert "frame-ancestors 'none'" in end.headers["content-security-policy"]
    assert f'href="{BASE}/oauth2/start"' in end.text


@pytest.mark.parametrize("query", ["", "?state=", "?state=guessed", "?state=a&state=b", "?error=x", "?state=%ff"])
async def test_another_state_or_none_changes_nothing(browser: Browser, query: str) -> None:
    """G-state-other."""
    await browser.go(SIGN_OUT)

    end = await browser.go(SIGNED_OUT + query)

    assert (end.status_code, "You are signed out" in end.text) == (200, True)
    assert not await is_signed_in(browser)


async def test_coming_back_without_having_left_signs_nobody_out(browser: Browser) -> None:
    assert (await browser.go(SIGNED_OUT)).status_code == 200
    assert await is_signed_in(browser)


@pytest.mark.parametrize(
    "rd",
    [
        "//evil.com",
        "https://evil.com/",
        "/\\evil.com",
        "/%09/evil.com",
        "javascript:alert(1)",
        "evil.com",
        "/%0d%0aSet-Cookie:a=b",
        "/" + "a" * 60_000,
    ],
)
async def test_nobody_is_sent_elsewhere(browser: Browser, rd: str) -> None:
    """G-plr-open."""
    there = await browser.go(f"{SIGN_OUT}?rd={rd}")
    back = await browser.go(there.headers["location"])
    end = await browser.go(back.headers["location"])

    assert (end.status_code, "location" in end.headers) == (200, False)
    again = await browser.go(f"{SIGN_OUT}?rd={rd}")  # without a session there is no issuer on the way
    assert (again.status_code, again.headers["location"]) == (303, SIGNED_OUT)


@pytest.mark.parametrize("rd", ["/bye", f"{BASE}/bye", f"{BASE}:443/bye", "https://app.example.evil.com/bye"])
async def test_a_whole_address_of_ours_is_as_good_as_its_path(browser: Browser, rd: str) -> None:
    browser.cookies.clear()

    answer = await browser.go(f"{SIGN_OUT}?rd={rd}")

    assert answer.headers["location"] == ("/bye" if rd in {"/bye", f"{BASE}/bye"} else SIGNED_OUT)


# ------------------------------------------------------------------------------------------------------ who asks for it


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"sec-fetch-site": "cross-site"}, id="link of another site"),
        pytest.param({"sec-fetch-site": "same-site"}, id="link of a sibling"),
        pytest.param(
            {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, id="G-get-csrf"
        ),
        pytest.param(
            {"sec-fetch-site": "same-origin", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, id="own image"
        ),
        pytest.param({"sec-fetch-site": "same-origin", "sec-fetch-dest": "iframe"}, id="frame"),
        pytest.param(
            {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}, id="script"
        ),
        pytest.param({"sec-purpose": "prefetch"}, id="ahead of time"),
    ],
)
async def test_somebody_elses_link_asks_first(browser: Browser, headers: dict[str, str]) -> None:
    """G-get-csrf, G-plr-open: there is a button, and whoever presses it is signed out."""
    answer = await browser.get(f"{SIGN_OUT}?rd=/bye", headers=NAVIGATION | headers)

    assert (answer.status_code, is_private(answer), "set-cookie" in answer.headers) == (200, True, False)
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "form-action" not in answer.headers["content-security-policy"]
    assert await is_signed_in(browser)

    form = Page(answer.text)
    assert (form.action, form.hidden) == (BASE + SIGN_OUT, {"rd": "/bye"})
    there = await browser.post(form.action, data=form.hidden, headers=OURS)
    assert there.headers["location"].startswith(browser.issuer.endpoint("end_session"))
    assert not await is_signed_in(browser)


async def test_a_head_request_signs_nobody_out(browser: Browser) -> None:
    assert (await browser.head(SIGN_OUT, headers=NAVIGATION)).status_code == 200
    assert await is_signed_in(browser)


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
        {"sec-fetch-site": "same-site", "origin": "https://blog.app.example"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ],
)
async def test_somebody_elses_form_signs_nobody_out(browser: Browser, headers: dict[str, str]) -> None:
    answer = await browser.post(SIGN_OUT, headers=headers)

    assert answer.status_code == 403
    assert await is_signed_in(browser)


@pytest.mark.parametrize("headers", [OURS, {"origin": BASE}, {}])
async def test_a_form_of_ours_signs_out(browser: Browser, headers: dict[str, str]) -> None:
    assert (await browser.post(SIGN_OUT, headers=headers)).status_code == 303
    assert not await is_signed_in(browser)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b'{"rd": "/bye"}'),
        ("multipart/form-data; boundary=x", b"--x--"),
        ("text/plain", b"rd=/bye"),
    ],
)
async def test_whatever_a_script_of_ours_sends_signs_out(browser: Browser, kind: str, body: bytes) -> None:
    answer = await browser.post(SIGN_OUT, content=body, headers=OURS | {"content-type": kind})

    assert answer.status_code == 303
    assert not await is_signed_in(browser)


async def test_a_form_says_where_to(browser: Browser) -> None:
    browser.cookies.clear()
    assert (await browser.post(SIGN_OUT, data={"rd": "/bye"}, headers=OURS)).headers["location"] == "/bye"
    assert (await browser.post(f"{SIGN_OUT}?rd=/bye", headers=OURS)).headers["location"] == "/bye"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_none(browser: Browser, method: str) -> None:
    answer = await browser.request(method, SIGN_OUT)

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")
    assert await is_signed_in(browser)


# ------------------------------------------------------------------------------------------------------------ what ends


async def test_the_old_cookie_is_of_no_use(browser: Browser) -> None:
    """G-after: the button back, and whoever copied the cookie."""
    cookie = browser.session_cookie
    page = await browser.go("/orders")
    assert page.headers["cache-control"] == "no-store" or "private" in page.headers["cache-control"]
    await browser.go(SIGN_OUT)
    assert "__Host-oidc_session" not in browser.cookies

    replayed = {"cookie": f"__Host-oidc_session={cookie}"}
    assert (await browser.get("/orders", headers={**replayed, "accept": "application/json"})).status_code == 401
    navigation = await browser.get("/orders", headers=NAVIGATION | replayed)
    assert navigation.status_code == 302
    assert navigation.headers["location"].startswith(browser.issuer.endpoint("authorize"))


async def test_all_cookies_of_ours_are_cleared(browser: Browser) -> None:
    """G-clear: with the attributes that they were set with; those of others stay."""
    flow = "__Host-oidc_session_flow_0123abcd"
    cookies = f"a=1; __Host-oidc_session={browser.session_cookie}; {flow}=x; __Host-oidc_sessions=2"

    answer = await browser.get(SIGN_OUT, headers=NAVIGATION | {"cookie": cookies})

    attributes = "=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax; Secure"
    assert answer.headers.get_list("set-cookie") == ["__Host-oidc_session" + attributes, flow + attributes]


async def test_on_the_machine_itself_cookies_have_no_prefix(fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    """G-clear: over http to loopback, where neither `__Host-` nor Secure works."""
    settings = {"base_url": "http://localhost:8000"}
    async with service(fake_issuer, clock=oidc_clock, **settings) as oidc, Browser(fake_issuer, oidc) as browser:
        answer = await browser.get(SIGN_OUT, headers=NAVIGATION | {"cookie": "oidc_session=x"})

        assert answer.headers.get_list("set-cookie") == ["oidc_session=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax"]


async def test_without_a_session_there_is_nothing_to_end(browser: Browser, fake_issuer: FakeIssuer) -> None:
    browser.cookies.clear()

    answer = await browser.go(SIGN_OUT)

    assert (answer.status_code, answer.headers["location"]) == (303, SIGNED_OUT)
    assert answer.headers.get_list("set-cookie") == [
        "__Host-oidc_session=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax; Secure"
    ]
    assert fake_issuer.requests["revoke"] == 0


async def test_twice_is_once(browser: Browser) -> None:
    cookies = {"cookie": f"__Host-oidc_session={browser.session_cookie}"}

    answers = await asyncio.gather(*(browser.get(SIGN_OUT, headers=NAVIGATION | cookies) for _ in range(5)))

    assert {answer.status_code for answer in answers} == {303}
    assert (await browser.get("/orders", headers=cookies)).status_code == 401


async def test_other_sessions_of_the_user_go_on(browser: Browser, fake_issuer: FakeIssuer, oidc: OIDC) -> None:
    async with Browser(fake_issuer, oidc) as other:
        await other.sign_in()
        await browser.go(SIGN_OUT)
        assert (await is_signed_in(browser), await is_signed_in(other)) == (False, True)


async def test_two_session_cookies_are_none(browser: Browser) -> None:
    """Z-toss: nobody can say which one is meant."""
    cookies = f"__Host-oidc_session={browser.session_cookie}; __Host-oidc_session={'A' * 64}"

    answer = await browser.get(SIGN_OUT, headers=NAVIGATION | {"cookie": cookies})

    assert answer.status_code == 400
    assert await is_signed_in(browser)


async def test_nothing_of_it_is_in_the_log(
    browser: Browser, fake_issuer: FakeIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    """No cookie, token, sid or state."""
    caplog.set_level("DEBUG")
    (refresh_token,) = fake_issuer.grants.refresh
    secrets = [browser.session_cookie, refresh_token, sid_of(fake_issuer)]
    fake_issuer.fault("revoke", faults.status(500))
    there = await browser.go(SIGN_OUT)
    secrets += [query_of(there)["state"], query_of(there)["id_token_hint"]]
    await browser.go((await browser.go(there.headers["location"])).headers["location"])
    for token in (fake_issuer.logout_token("alice", client_id="web"), fake_issuer.logout_token("bob", client_id="x")):
        secrets.append(token)
        await browser.post("/oauth2/backchannel-logout", data={"logout_token": token})

    assert "/oauth2/backchannel-logout" in caplog.text
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("oidc_middleware"))
    assert [secret for secret in secrets if secret in ours] == []


# ----------------------------------------------------------------------------------------------------------- the issuer


async def test_the_refresh_token_is_revoked(browser: Browser, fake_issuer: FakeIssuer) -> None:
    """RFC 7009."""
    values = list(fake_issuer.grants.refresh.values())
    assert len(values) == 1

    await browser.go(SIGN_OUT)

    assert (fake_issuer.requests["revoke"], values[0].grant.ended) == (1, True)


async def test_the_session_is_over_before_the_issuer_answers(browser: Browser, fake_issuer: FakeIssuer) -> None:
    release = asyncio.Event()
    fake_issuer.fault("revoke", faults.held(release))
    cookies = {"cookie": f"__Host-oidc_session={browser.session_cookie}"}

    signing_out = asyncio.ensure_future(browser.go(SIGN_OUT))
    async with asyncio.timeout(10):
        while fake_issuer.requests["revoke"] == 0:  # noqa: ASYNC110  what happens at the issuer sets no event
            await asyncio.sleep(0.001)
    assert (await browser.get("/orders", headers=cookies)).status_code == 401

    release.set()
    assert (await signing_out).status_code == 303


@pytest.mark.parametrize(
    "fault",
    [faults.down(), faults.status(500), faults.status(400), faults.garbage()],
    ids=["down", "500", "400", "garbage"],
)
async def test_an_issuer_that_does_not_revoke_stops_nobody(
    browser: Browser, fake_issuer: FakeIssuer, fault: faults.Fault
) -> None:
    fake_issuer.fault("revoke", fault)

    answer = await browser.go(SIGN_OUT)

    assert answer.headers["location"].startswith(fake_issuer.endpoint("end_session"))
    assert not await is_signed_in(browser)


async def test_an_issuer_that_hangs_keeps_nobody_long(
    browser: Browser, fake_issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logout, "PATIENCE", 0.05)
    fake_issuer.fault("revoke", faults.held(asyncio.Event()))

    answer = await browser.go(SIGN_OUT)

    assert answer.headers["location"].startswith(fake_issuer.endpoint("end_session"))
    assert not await is_signed_in(browser)


async def test_of_several_issuers_the_one_of_the_login_hears_of_it(
    fake_issuer_factory: Callable[..., FakeIssuer], oidc_clock: ManualClock
) -> None:
    """And the other one ends nothing of it: B-other-issuer."""
    first, second = fake_issuer_factory("https://first.example"), fake_issuer_factory("https://second.example")
    client: dict[str, Any] = {"client_id": "web", "client_secret": "s3cret"}
    for each in (first, second):
        each.client("web", secret="s3cret", redirect_uris=[f"{BASE}/oauth2/callback"])
    oidc = OIDC(
        issuers=[Issuer(issuer=each.url, audience=each.audience, **client) for each in (first, second)],
        login=True,
        base_url=BASE,
        transport=first.transport(second),
        clock=oidc_clock,
    )
    async with oidc, Browser(first, oidc, second) as browser:
        choice = await browser.go("/orders")
        assert choice.headers["location"].startswith(f"{BASE}/oauth2/start")
        await browser.sign_in(f"/oauth2/start?issuer={second.url}")
        for about in ({"sub": "alice", "sid": sid_of(second)}, {"sub": "alice"}):
            token = first.logout_token(about["sub"], client_id="web", sid=about.get("sid"))
            assert (await browser.post("/oauth2/backchannel-logout", data={"logout_token": token})).status_code == 200
        assert (await front(browser, iss=first.url, sid=sid_of(second))).status_code == 400
        assert await is_signed_in(browser)

        answer = await browser.go(SIGN_OUT)

        assert answer.headers["location"].startswith(second.endpoint("end_session") + "?")
        assert (first.requests["revoke"], second.requests["revoke"]) == (0, 1)
        assert not await is_signed_in(browser)


@pytest.mark.parametrize("missing", ["end_session_endpoint", "revocation_endpoint"])
async def test_what_an_issuer_does_not_have_is_left_out(
    fake_issuer: FakeIssuer, oidc_clock: ManualClock, missing: str
) -> None:
    fake_issuer.metadata_overrides[missing] = None
    async with service(fake_issuer, clock=oidc_clock) as oidc, Browser(fake_issuer, oidc) as browser:
        await browser.sign_in()

        answer = await browser.go(f"{SIGN_OUT}?rd=/bye")

        at_issuer = urlsplit(answer.headers["location"]).netloc == urlsplit(fake_issuer.url).netloc
        assert (answer.status_code, at_issuer) == (303, missing != "end_session_endpoint")
        assert at_issuer or answer.headers["location"] == "/bye"
        assert not await is_signed_in(browser)


async def test_without_a_way_back_the_issuer_keeps_the_browser(
    fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    settings: dict[str, Any] = {"post_logout_redirect_uri": None}
    async with service(fake_issuer, clock=oidc_clock, **settings) as oidc, Browser(fake_issuer, oidc) as browser:
        await browser.sign_in()

        answer = await browser.go(SIGN_OUT)

        assert query_of(answer).keys() == {"id_token_hint", "client_id"}
        assert "You are signed out" in (await browser.go(answer.headers["location"])).text


async def test_a_logout_token_is_no_id_token(fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    """B-as-idtoken."""
    async with service(fake_issuer, clock=oidc_clock) as oidc, Browser(fake_issuer, oidc) as browser:
        token = fake_issuer.logout_token("alice", client_id="web", sid="s-1")
        fake_issuer.token_overrides = {"id_token": token}

        answer = await browser.go(await browser.begin())

        assert answer.status_code == 400
        assert "__Host-oidc_session" not in browser.cookies


# -------------------------------------------------------------------------------------------------------- front channel


def sid_of(issuer: FakeIssuer) -> str:
    """Return the session at the issuer of the last login."""
    (*_, last) = issuer.grants.codes.values()
    assert last.grant.sid is not None
    return last.grant.sid


async def front(browser: Browser, **query: str) -> Any:
    headers = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe", "sec-fetch-site": "same-site"}
    return await browser.get("/oauth2/frontchannel-logout", params=query, headers=headers)


async def test_the_frame_of_the_issuer_ends_the_session_that_it_names(
    browser: Browser, fake_issuer: FakeIssuer
) -> None:
    answer = await front(browser, iss=fake_issuer.url, sid=sid_of(fake_issuer))

    assert (answer.status_code, is_private(answer), "x-frame-options" in answer.headers) == (200, True, False)
    assert f"frame-ancestors {fake_issuer.url}" in answer.headers["content-security-policy"]
    assert answer.headers.get_list("set-cookie")[0].startswith("__Host-oidc_session=; Max-Age=0")
    assert not await is_signed_in(browser)


@pytest.mark.parametrize(
    "wrong", [{"iss": None}, {"sid": None}, {"iss": "https://evil.example"}, {"sid": "other"}, {"iss": "", "sid": ""}]
)
async def test_both_names_are_needed_and_matched(
    browser: Browser, fake_issuer: FakeIssuer, wrong: dict[str, str | None]
) -> None:
    """G-front-nosid."""
    query = {"iss": fake_issuer.url, "sid": sid_of(fake_issuer)} | wrong

    answer = await front(browser, **{name: value for name, value in query.items() if value is not None})

    assert (answer.status_code, is_private(answer), answer.json()["error"]) == (400, True, "invalid_request")
    assert await is_signed_in(browser)


async def test_the_frame_of_a_browser_without_a_session(browser: Browser, fake_issuer: FakeIssuer) -> None:
    """What a browser does that keeps a SameSite=Lax cookie from frames of other sites."""
    browser.cookies.clear()

    assert (await front(browser, iss=fake_issuer.url, sid=sid_of(fake_issuer))).status_code == 400


# ------------------------------------------------------------------------------------------ as long as it could last


@pytest.mark.parametrize("how", ["sid", "subject", "user"])
async def test_what_is_over_stays_over_though_tokens_live_less_long_than_sessions(
    fake_issuer: FakeIssuer, oidc_clock: ManualClock, how: str
) -> None:
    """The ledger keeps an end as long as a session could last, not as long as an access token."""
    fake_issuer.token_overrides = {"refresh_token": None}  # or it would end by that
    settings: dict[str, Any] = {"max_token_life": 60, "session_idle": 10_000, "session_absolute": 20_000}
    async with service(fake_issuer, clock=oidc_clock, **settings) as oidc, Browser(fake_issuer, oidc) as browser:
        await browser.sign_in()
        assert await is_signed_in(browser)
        if how == "sid":
            token = fake_issuer.logout_token(None, client_id="web", sid=sid_of(fake_issuer))
            await browser.post("/oauth2/backchannel-logout", data={"logout_token": token})
        elif how == "subject":
            await oidc.revoke.subject("alice")
        else:
            assert oidc.sessions is not None
            known = oidc.sessions.lookup(f"__Host-oidc_session={browser.session_cookie}".encode())
            assert known is not None
            await oidc.revoke.token(known.principal)
        assert not await is_signed_in(browser)

        oidc_clock.advance(9_000)
        oidc.mirror.ledger.sweep(oidc_clock.now(), 1_000)

        assert not await is_signed_in(browser)
