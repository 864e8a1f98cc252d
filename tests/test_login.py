"""Browsers log in: what begins a login, what comes back of it, and the `session` cases of both."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse

from oidc_middleware import OIDC, Issuer, OIDCMiddleware
from oidc_middleware.core.cookies import CookieShape
from oidc_middleware.core.return_path import LONGEST
from oidc_middleware.errors import BackendUnavailable, ConfigError, LoginError, Revoked
from oidc_middleware.session.flow import MOST, MOST_BYTES, FlowCookies, new_flow
from oidc_middleware.testing import FakeIssuer, ManualClock, faults
from oidc_middleware.testing.server import bind, serving

from abuse.hostile_op import CLIENT, SECRET
from login_kit import BASE, CALLBACK, HTML, Browser, Service, service

pytestmark = pytest.mark.anyio

FLOW = "__Host-oidc_session_flow_"


def fake_issuer(url: str = "https://issuer.example", **options: Any) -> FakeIssuer:
    issuer = FakeIssuer(url, algorithms=("ES256",), audience="api", **options)
    issuer.client(CLIENT, secret=SECRET, redirect_uris=[CALLBACK])
    issuer.users["alice"] = {"email": "alice@example.com"}
    return issuer


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def issuer(clock: ManualClock) -> FakeIssuer:
    return fake_issuer(clock=clock)


@pytest.fixture
async def found(issuer: FakeIssuer, clock: ManualClock) -> AsyncIterator[Service]:
    async with service(issuer.url, transport=issuer.transport(), clock=clock) as made:
        yield made


@pytest.fixture
async def browser(found: Service) -> AsyncIterator[Browser]:
    async with found.browser() as made:
        yield made


def query_of(response: httpx2.Response) -> dict[str, str]:
    return {name: value for name, (value,) in parse_qs(urlsplit(response.headers["location"]).query).items()}


async def answer_to(browser: Browser, **query: str) -> str:
    """Begin a login and sign in, and return the URL of the issuer's answer."""
    begun = await browser.start(**query)
    assert begun.status_code == 302, begun.text
    return await browser.sign_in(begun.headers["location"])


def with_query(url: str, *pairs: tuple[str, str], without: tuple[str, ...] = ()) -> str:
    query = [(name, value) for name, values in parse_qs(urlsplit(url).query).items() for value in values]
    kept = [(name, value) for name, value in query if name not in without]
    return f"{url.partition('?')[0]}?{urlencode([*kept, *pairs])}"


# The start


async def test_what_the_issuer_is_asked(browser: Browser, issuer: FakeIssuer) -> None:
    begun = await browser.start()
    asked = query_of(begun)

    assert begun.status_code == 302
    assert begun.headers["location"].startswith("https://issuer.example/authorize?")
    assert (begun.headers["cache-control"], begun.headers["referrer-policy"]) == ("no-store", "no-referrer")
    assert {name: asked[name] for name in ("response_type", "client_id", "redirect_uri", "scope")} == {
        "response_type": "code", "client_id": CLIENT, "redirect_uri": CALLBACK, "scope": "openid",
    }  # fmt: skip
    assert asked["code_challenge_method"] == "S256"
    assert [len(asked[name]) for name in ("state", "nonce", "code_challenge")] == [43, 43, 43]
    assert len(asked) == 8
    again = query_of(await browser.start())
    assert all(again[name] != asked[name] for name in ("state", "nonce", "code_challenge"))


@pytest.mark.parametrize("name", ["start", "sign_in", "login"])
async def test_the_start_has_three_names(browser: Browser, name: str) -> None:
    assert (await browser.get(f"/oauth2/{name}")).status_code == 302
    assert (await browser.client.post(f"/oauth2/{name}")).status_code == 405


async def test_z_attrs_the_cookie_of_a_login(browser: Browser) -> None:
    begun = await browser.start()
    name, _, rest = begun.headers["set-cookie"].partition("=")
    value, *attributes = rest.split("; ")

    assert name.startswith(FLOW)
    assert len(name) == len(FLOW) + 8
    assert sorted(attributes) == ["HttpOnly", "Max-Age=600", "Path=/", "SameSite=Lax", "Secure"]
    assert len(value) < 300


@pytest.mark.parametrize("methods", [None, ["plain"], "S256", [], ["plain", "S256"]], ids=str)
async def test_z_pkce_downgrade_s256_is_sent_whatever_the_metadata_say(
    issuer: FakeIssuer, clock: ManualClock, methods: Any
) -> None:
    issuer.metadata_overrides = {"code_challenge_methods_supported": methods}
    async with service(issuer.url, transport=issuer.transport(), clock=clock) as found, found.browser() as browser:
        assert (await browser.log_in()).status_code == 302
        assert query_of(await browser.start())["code_challenge_method"] == "S256"


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
        {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        {"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
        {"sec-fetch-mode": "websocket"},
        {"sec-purpose": "prefetch"},
        {"sec-purpose": "prefetch;prerender"},
        {"purpose": "prefetch"},
        {"x-requested-with": "XMLHttpRequest"},
    ],
    ids=str,
)
async def test_z_subresource_what_a_page_fetches_begins_no_login(
    browser: Browser, issuer: FakeIssuer, headers: dict[str, str]
) -> None:
    answer = await browser.get("/oauth2/start", headers=headers)

    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        (None, 302), ("*/*", 302), ("text/html", 302), ("application/json", 401), ("text/event-stream", 401),
        ("image/avif,image/webp", 401), ("application/json, text/plain, */*", 302),
    ],
)  # fmt: skip
async def test_z_subresource_an_old_browser_says_what_it_wants(found: Service, accept: str | None, status: int) -> None:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(found.app), base_url=BASE) as client:
        client.headers.pop("accept")
        answer = await client.get("/oauth2/start", headers={} if accept is None else {"accept": accept})

    assert answer.status_code == status
    assert ("set-cookie" in answer.headers) is (status == 302)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"x-forwarded-host": "evil.example"},
        {"forwarded": "host=evil.example;proto=http"},
        {"x-forwarded-proto": "http", "x-forwarded-prefix": "/evil"},
        {"x-original-url": "https://evil.example/"},
    ],
    ids=str,
)
async def test_z_host_redirect_the_redirect_uri_is_from_the_settings_alone(
    browser: Browser, headers: dict[str, str]
) -> None:
    begun = await browser.get("/oauth2/start", params={"rd": "/a"}, headers=headers)

    assert query_of(begun)["redirect_uri"] == CALLBACK
    assert "evil" not in begun.text + str(begun.headers)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("/a/b?c=d&e=%2F", "/a/b?c=d&e=%2F"),
        (f"{BASE}/a?b=c", "/a?b=c"),
        (f"{BASE}.evil.example/a", "/"),
        (f"{BASE}//evil.example", "/"),
        (f"{BASE}/\\evil.example", "/"),
        ("https://app.example@evil.example/", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/\t/evil.example", "/"),
        ("/a\r\nset-cookie: a=b", "/"),
        ("/\x00", "/"),
        ("javascript:alert(1)", "/"),
        ("/" + "a" * 60_000, "/"),
        ("", "/"),
    ],
    ids=lambda wanted: repr(wanted)[:40],
)
async def test_z_next_long_the_return_path_is_of_our_origin(browser: Browser, wanted: str, expected: str) -> None:
    answer = await browser.log_in(wanted)

    assert (answer.status_code, answer.headers["location"]) == (302, expected)


async def test_z_next_long_without_a_return_path_it_is_the_front_page(found: Service, browser: Browser) -> None:
    begun = await browser.get("/oauth2/start")
    answer = await browser.get(await browser.sign_in(begun.headers["location"]))

    assert answer.headers["location"] == "/"


async def test_a_start_with_a_parameter_twice_is_no_login(browser: Browser) -> None:
    answer = await browser.get("/oauth2/start?rd=/a&rd=/b")

    assert (answer.status_code, answer.headers["content-type"]) == (400, "text/html; charset=utf-8")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("fault", [faults.down(), faults.status(500), faults.garbage()], ids=["down", "500", "garbage"])
async def test_an_issuer_that_does_not_answer_is_told_on_a_page(issuer: FakeIssuer, fault: faults.Fault) -> None:
    issuer.fault("*", fault)
    async with service(issuer.url, transport=issuer.transport()) as found, found.browser() as browser:
        answer = await browser.start()

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "Signing in is not possible right now" in answer.text
    assert "/oauth2/start?rd=%2Forders%3Fid%3D1" in answer.text


async def test_an_issuer_without_an_authorization_endpoint(issuer: FakeIssuer) -> None:
    issuer.metadata_overrides = {"authorization_endpoint": None}
    async with service(issuer.url, transport=issuer.transport()) as found, found.browser() as browser:
        assert (await browser.start()).status_code == 503


async def test_an_issuer_that_is_away_is_not_asked_where_people_log_in(
    found: Service, browser: Browser, issuer: FakeIssuer
) -> None:
    await browser.start()
    issuer.fault("*", faults.down())

    assert (await browser.start()).status_code == 302


# Parameters


async def test_parameters_of_the_settings_are_sent_and_a_link_may_set_some(
    issuer: FakeIssuer, clock: ManualClock
) -> None:
    async with (
        service(
            issuer.url,
            transport=issuer.transport(),
            clock=clock,
            scope="openid email offline_access",
            authorization_params={
                "prompt": "login",
                "acr_values": "mfa",
                "login_hint": "bob",
                "resource": "https://api/",
            },
            authorization_params_from_query=["login_hint", "max_age"],
        ) as found,
        found.browser() as browser,
    ):
        asked = query_of(await browser.start(login_hint="carol", prompt="none", state="x", unknown="y"))
        assert asked.items() >= {
            "prompt": "login", "acr_values": "mfa", "login_hint": "carol", "resource": "https://api/",
            "scope": "openid email offline_access",
        }.items()  # fmt: skip
        assert "unknown" not in asked
        assert len(asked["state"]) == 43
        answer = await browser.log_in(max_age="60")
        assert answer.status_code == 302
        (login,) = found.sessions.logins
        assert (issuer.read(login.grant.access_token) or {})["aud"] == "https://api/"
        refreshed = await found.oidc.login_issuers[issuer.url].tokens.refresh(login.grant.refresh_token or "")
        assert (issuer.read(refreshed.access_token) or {})["aud"] == "https://api/"


@pytest.mark.parametrize(
    "query",
    [{"max_age": "-1"}, {"max_age": "soon"}, {"max_age": "9" * 12}, {"login_hint": "a\nb"}, {"login_hint": "a" * 600}],
    ids=lambda query: str(query)[:30],
)
async def test_a_link_with_a_parameter_that_cannot_be(
    issuer: FakeIssuer, clock: ManualClock, query: dict[str, str]
) -> None:
    options = {"authorization_params_from_query": ["login_hint", "max_age"]}
    async with (
        service(issuer.url, transport=issuer.transport(), clock=clock, **options) as found,
        found.browser() as browser,
    ):
        answer = await browser.start(**query)

    assert answer.status_code == 400
    assert "set-cookie" not in answer.headers


async def test_a_login_that_is_too_old_for_max_age_is_refused(issuer: FakeIssuer, clock: ManualClock) -> None:
    issuer.users["alice"] = {"auth_time": 1}
    options = {"authorization_params": {"max_age": 60}}
    async with (
        service(issuer.url, transport=issuer.transport(), clock=clock, **options) as found,
        found.browser() as browser,
    ):
        issuer.id_token = _with_old_login(issuer)  # type: ignore[method-assign]
        answer = await browser.log_in()

    assert answer.status_code == 400
    assert found.sessions.logins == []


def _with_old_login(issuer: FakeIssuer) -> Any:
    mint = issuer.id_token

    def id_token(subject: str = "alice", **options: Any) -> str:
        claims = {**options.pop("claims"), "auth_time": int(issuer.clock.now()) - 3600}
        return mint(subject, claims=claims, **options)

    return id_token


# What comes back


async def test_a_login_ends_in_a_session_and_at_the_path(
    found: Service, browser: Browser, issuer: FakeIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    """O-referer: neither code nor state is in an address that anybody gets to know after that."""
    caplog.set_level(logging.DEBUG, "oidc_middleware")
    back = await answer_to(browser)
    answer = await browser.get(back, headers={"user-agent": "Firefox"})

    assert (answer.status_code, answer.headers["location"]) == (302, "/orders?id=1")
    assert (answer.headers["cache-control"], answer.headers["referrer-policy"]) == ("no-store", "no-referrer")
    assert browser.flows == []
    assert (await browser.get("/orders")).json() == {"path": "/orders"}
    (login,) = found.sessions.logins
    assert login.claims["sub"] == "alice"
    assert login.claims["email"] == "alice@example.com"
    assert login.nonce == login.claims["nonce"]
    assert login.grant.refresh_token is not None
    assert f"a login at {issuer.url} succeeded" in caplog.text
    assert not any(secret in caplog.text for secret in (back, login.nonce, login.id_token, SECRET, "alice"))


async def test_z_fixation_the_session_that_the_browser_had_is_replaced(found: Service, browser: Browser) -> None:
    await browser.log_in()
    first = browser.session
    await browser.log_in()

    assert browser.session != first
    assert found.sessions.replaced[0] is None
    assert found.sessions.replaced[1] is not None
    assert (await browser.get("/orders")).status_code == 200
    assert (await browser.get("/orders", headers={"cookie": f"__Host-oidc_session={first}"})).status_code == 302


@pytest.mark.parametrize("planted", ["x", "A" * 64, "../" * 20, "a" * 4000], ids=["short", "guess", "path", "long"])
async def test_z_fixation_a_planted_cookie_is_not_what_the_session_gets(
    found: Service, browser: Browser, planted: str
) -> None:
    back = await answer_to(browser)
    flow = "; ".join(f"{name}={value}" for name, value in browser.client.cookies.items())
    answer = await browser.get(back, headers={"cookie": f"{flow}; __Host-oidc_session={planted}"})

    assert answer.status_code == 302
    assert browser.session not in {None, planted}
    assert found.sessions.replaced == [None]


async def test_z_state_reuse_the_same_answer_twice(browser: Browser, issuer: FakeIssuer) -> None:
    begun = await browser.start()
    cookie = begun.headers["set-cookie"].partition(";")[0]
    back = await browser.sign_in(begun.headers["location"])
    first = await browser.get(back)
    again = await browser.get(back)
    replayed = await browser.get(back, headers={"cookie": cookie})

    assert [first.status_code, again.status_code, replayed.status_code] == [302, 400, 400]
    assert issuer.requests["token"] == 1


async def test_z_state_reuse_twenty_times_at_once(browser: Browser, issuer: FakeIssuer) -> None:
    back = await answer_to(browser)
    answers = await asyncio.gather(*(browser.get(back) for _ in range(20)))

    assert sorted(answer.status_code for answer in answers) == [302, *[400] * 19]
    assert issuer.requests["token"] == 1


@pytest.mark.usefixtures("patient_tiers")
async def test_z_state_reuse_on_two_nodes_at_once(issuer: FakeIssuer, clock: ManualClock, cache: str) -> None:
    async with AsyncExitStack() as stack:
        options = {"cache": cache, "secret": "s" * 32, "transport": issuer.transport()}
        nodes = [await stack.enter_async_context(service(issuer.url, **options)) for _ in range(2)]
        browsers = [await stack.enter_async_context(node.browser()) for node in nodes]
        issuer.clock = nodes[0].oidc.clock
        begun = await browsers[0].start()
        headers = {"cookie": begun.headers["set-cookie"].partition(";")[0]}
        back = await browsers[0].sign_in(begun.headers["location"])
        turns = itertools.cycle(browsers)
        answers = await asyncio.gather(*(next(turns).get(back, headers=headers) for _ in range(10)))

        assert sorted(answer.status_code for answer in answers) == [302, *[400] * 9]
        assert issuer.requests["token"] == 1


async def test_z_state_expired(browser: Browser, issuer: FakeIssuer, clock: ManualClock) -> None:
    begun = await browser.start()
    headers = {"cookie": begun.headers["set-cookie"].partition(";")[0]}
    clock.advance(599)
    in_time = await browser.sign_in(begun.headers["location"])
    clock.advance(1)
    late = await browser.get(in_time, headers=headers)

    assert late.status_code == 400
    assert "took too long" in late.text
    assert issuer.requests["token"] == 0
    assert (await browser.log_in()).status_code == 302


async def test_z_state_expired_the_last_moment_counts(browser: Browser, issuer: FakeIssuer, clock: ManualClock) -> None:
    begun = await browser.start()
    headers = {"cookie": begun.headers["set-cookie"].partition(";")[0]}
    clock.advance(599)
    answer = await browser.get(await browser.sign_in(begun.headers["location"]), headers=headers)

    assert answer.status_code == 302


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
async def test_z_multi_tab_three_tabs_in_any_order(found: Service, browser: Browser, order: tuple[int, ...]) -> None:
    backs = [await answer_to(browser, path=f"/tab/{tab}") for tab in range(3)]
    ends = {tab: await browser.get(backs[tab]) for tab in order}

    assert [ends[tab].headers.get("location") for tab in range(3)] == ["/tab/0", "/tab/1", "/tab/2"]
    assert browser.flows == []
    assert len(found.sessions.logins) == 3


async def test_z_multi_tab_one_too_many_ends_the_oldest(browser: Browser, clock: ManualClock) -> None:
    backs = []
    for tab in range(MOST + 2):
        backs.append(await answer_to(browser, path=f"/tab/{tab}"))
        clock.advance(1)

    assert len(browser.flows) == MOST
    ends = [(await browser.get(back)).status_code for back in backs]
    assert ends == [400, 400, *[302] * MOST]


async def test_z_multi_tab_long_paths_leave_room_for_fewer(browser: Browser, clock: ManualClock) -> None:
    """A proxy takes 8 KiB of cookies: whoever opens many tabs must not be locked out by them."""
    for tab in range(MOST):
        await browser.start(f"/{tab}/" + "a" * 1500)
        clock.advance(1)
        sent = "; ".join(f"{name}={value}" for name, value in browser.client.cookies.items())
        assert len(sent) <= MOST_BYTES

    assert len(browser.flows) == 1
    assert (await browser.log_in("/b")).status_code == 302


async def test_z_multi_tab_the_longest_path_fits(browser: Browser) -> None:
    path = "/" + "a" * (LONGEST - 1)

    assert (await browser.log_in(path)).headers["location"] == path


async def test_z_code_injection_anothers_code_with_ones_own_state(
    found: Service, browser: Browser, issuer: FakeIssuer
) -> None:
    async with found.browser() as attacker:
        stolen = parse_qs(urlsplit(await answer_to(attacker)).query)["code"][0]
        back = await answer_to(browser)
        answer = await browser.get(with_query(back, ("code", stolen), without=("code",)))

        assert answer.status_code == 400
        assert found.sessions.logins == []
        mixed = await attacker.get(back)
        assert mixed.status_code == 400


async def test_z_code_injection_an_answer_in_another_browser(found: Service, browser: Browser) -> None:
    """Login CSRF: an attacker's answer, code and state alike, opened by the victim."""
    async with found.browser() as attacker:
        back = await answer_to(attacker)
    answer = await browser.get(back)

    assert answer.status_code == 400
    assert (browser.session, found.sessions.logins) == (None, [])


async def test_z_nonce_reuse_the_id_token_of_an_earlier_login(
    found: Service, browser: Browser, issuer: FakeIssuer
) -> None:
    await browser.log_in()
    (earlier,) = found.sessions.logins
    issuer.id_token = lambda *_, **__: earlier.id_token  # type: ignore[method-assign]
    answer = await browser.log_in()

    assert answer.status_code == 400
    assert len(found.sessions.logins) == 1


@pytest.mark.parametrize("name", ["state", "code", "iss", "error", "error_description"])
async def test_z_cb_dup_a_parameter_twice(browser: Browser, issuer: FakeIssuer, name: str) -> None:
    back = await answer_to(browser)
    answer = await browser.get(with_query(back, (name, "x"), (name, "y")))

    assert answer.status_code == 400
    assert issuer.requests["token"] == 0


@pytest.mark.parametrize("missing", ["state", "code", "iss"])
async def test_an_answer_that_lacks_something(browser: Browser, issuer: FakeIssuer, missing: str) -> None:
    back = await answer_to(browser)
    answer = await browser.get(with_query(back, without=(missing,)))

    assert answer.status_code == 400
    assert issuer.requests["token"] == 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD"])
async def test_z_cb_post_only_get_brings_an_answer(browser: Browser, issuer: FakeIssuer, method: str) -> None:
    back = await answer_to(browser)
    fields = {name: value for name, (value,) in parse_qs(urlsplit(back).query).items()}
    answer = await browser.client.request(method, back, data=fields if method == "POST" else None)

    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]
    assert issuer.requests["token"] == 0
    assert (await browser.get(back)).status_code == 302


async def test_z_cb_post_an_answer_in_the_fragment_is_none(browser: Browser) -> None:
    answer = await browser.get("/oauth2/callback#code=x&state=y")

    assert answer.status_code == 400


@pytest.mark.parametrize(
    "description",
    [
        "<script>alert(1)</script>",
        "a" * 60_000,
        "a\r\nSet-Cookie: x=y",
        "\x00\x1b[31m",
        "\u202e\u2066",
        "'\"><img src=x>",
    ],
    ids=["script", "long", "crlf", "control", "bidi", "attribute"],
)
async def test_z_cb_error_xss(browser: Browser, caplog: pytest.LogCaptureFixture, description: str) -> None:
    caplog.set_level(logging.INFO, "oidc_middleware")
    back = await answer_to(browser)
    refused = with_query(back, ("error", "access_denied"), ("error_description", description), without=("code",))
    answer = await browser.get(refused)

    assert answer.status_code == 400
    assert "<script" not in answer.text
    assert "<img" not in answer.text
    assert "\x1b" not in answer.text
    assert "\u202e" not in answer.text
    assert len(answer.text) < 4000
    assert answer.headers.get_list("set-cookie") == [answer.headers["set-cookie"]]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert all(len(record.getMessage().splitlines()) == 1 for record in caplog.records)
    assert all(len(record.getMessage()) < 500 for record in caplog.records)


async def test_z_cb_error_xss_a_megabyte(found: Service) -> None:
    """No server here lets it through, another may."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http", "method": "GET", "path": "/oauth2/callback", "raw_path": b"/oauth2/callback", "root_path": "",
        "query_string": b"state=" + b"A" * 43 + b"&error=x&error_description=" + b"a" * 1_000_000, "headers": [],
        "http_version": "1.1", "scheme": "https", "server": ("app.example", 443), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    await found.app(scope, receive, send)

    assert sent[0]["status"] == 400
    assert sum(len(message.get("body", b"")) for message in sent) < 4000


@pytest.mark.parametrize("error", ["server_error", "temporarily_unavailable"])
async def test_an_issuer_that_is_not_well_is_503(browser: Browser, issuer: FakeIssuer, error: str) -> None:
    back = await answer_to(browser)
    answer = await browser.get(with_query(back, ("error", error), without=("code",)))

    assert answer.status_code == 503


# The cookie of a login


def _cookie_cases(good: str) -> dict[str, str]:
    name, _, value = good.partition("=")
    other = "A" if value[20] != "A" else "B"
    return {
        "truncated": f"{name}={value[:-10]}",
        "empty": f"{name}=",
        "a bit": f"{name}={value[:20]}{other}{value[21:]}",
        "garbage": f"{name}={'x' * 4096}",
        "not base64": f"{name}=%%%",
        "twice": f"{name}={value}; {name}={value}",
        "twice, one foreign": f"{name}=foreign; {name}={value}",
        "under another name": f"{name[:-1]}{'0' if name[-1] != '0' else '1'}={value}",
        "crowd": "; ".join([f"{FLOW}{number:08x}=x" for number in range(10_000)]),
    }


@pytest.mark.parametrize("case", list(_cookie_cases("a=" + "b" * 50)))
async def test_z_cb_badstate_cookie(browser: Browser, issuer: FakeIssuer, case: str) -> None:
    begun = await browser.start()
    good = begun.headers["set-cookie"].partition(";")[0]
    back = await browser.sign_in(begun.headers["location"])
    answer = await browser.get(back, headers={"cookie": _cookie_cases(good)[case]})

    assert answer.status_code == 400
    assert f"{good.partition('=')[0]}=; Max-Age=0" in answer.headers["set-cookie"]
    assert issuer.requests["token"] == 0


async def test_z_cb_badstate_cookie_of_another_key(issuer: FakeIssuer, clock: ManualClock) -> None:
    options = {"transport": issuer.transport(), "clock": clock}
    async with AsyncExitStack() as stack:
        one, other = [
            await stack.enter_async_context(service(issuer.url, **options, secret=secret))
            for secret in ("a" * 32, "b" * 32)
        ]
        first, second = [await stack.enter_async_context(each.browser()) for each in (one, other)]
        begun = await first.start()
        headers = {"cookie": begun.headers["set-cookie"].partition(";")[0]}
        back = await first.sign_in(begun.headers["location"])

        assert (await second.get(back, headers=headers)).status_code == 400
        assert issuer.requests["token"] == 0


async def test_a_login_goes_on_under_the_next_secret_and_on_another_node(
    issuer: FakeIssuer, clock: ManualClock
) -> None:
    options = {"transport": issuer.transport(), "clock": clock}
    async with AsyncExitStack() as stack:
        old, new = [
            await stack.enter_async_context(service(issuer.url, **options, secret=secret))
            for secret in (["a" * 32], ["b" * 32, "a" * 32])
        ]
        first, second = [await stack.enter_async_context(each.browser()) for each in (old, new)]
        begun = await first.start()
        headers = {"cookie": begun.headers["set-cookie"].partition(";")[0]}
        back = await first.sign_in(begun.headers["location"])

        assert (await second.get(back, headers=headers)).status_code == 302


async def test_a_crowd_of_foreign_cookies_makes_a_start_neither_slow_nor_long(browser: Browser) -> None:
    crowd = "; ".join(f"{FLOW}{number:08x}=x" for number in range(10_000))
    begun = await browser.start()
    answer = await browser.get("/oauth2/start", headers={"cookie": crowd})

    assert (begun.status_code, answer.status_code) == (302, 302)
    assert len(answer.headers.get_list("set-cookie")) <= 4 * MOST + 1


def test_two_services_cannot_read_each_others_logins() -> None:
    shape = CookieShape(is_secure=True)
    one, other = (FlowCookies("oidc_session", shape, [b"s" * 32], namespace) for namespace in ("one", "two"))
    flow = new_flow("https://issuer.example", "/", 0)
    header = one.set(flow).partition(";")[0].encode()

    assert one.find(header, flow.state, 0) == flow
    with pytest.raises(LoginError):
        other.find(header, flow.state, 0)


def test_a_flow_shows_no_secret() -> None:
    flow = new_flow("https://issuer.example", "/a", 0)

    assert not any(secret in repr(flow) for secret in (flow.state, flow.nonce, flow.verifier))


async def test_on_a_loopback_address_cookies_have_neither_prefix_nor_secure(clock: ManualClock) -> None:
    issuer = fake_issuer(clock=clock)
    base = "http://127.0.0.1:8000"
    issuer.client(CLIENT, secret=SECRET, redirect_uris=[f"{base}/oauth2/callback"])
    async with (
        service(issuer.url, transport=issuer.transport(), clock=clock, base_url=base) as found,
        found.browser(base) as browser,
    ):
        begun = await browser.start()
        answer = await browser.get(await browser.sign_in(begun.headers["location"]))

    assert begun.headers["set-cookie"].startswith("oidc_session_flow_")
    assert "Secure" not in begun.headers["set-cookie"]
    assert answer.status_code == 302


# Several issuers


async def test_z_mixup_and_the_choice(clock: ManualClock) -> None:
    one, two = fake_issuer("https://one.example", clock=clock), fake_issuer("https://two.example", clock=clock)
    issuers = [Issuer(issuer=each.url, audience="api", client_id=CLIENT, client_secret=SECRET) for each in (one, two)]
    async with (
        service("", issuers=issuers, transport=one.transport(two), clock=clock) as found,
        found.browser() as browser,
    ):
        choice = await browser.start("/a?b=c")
        assert (choice.status_code, "set-cookie" in choice.headers) == (200, False)
        assert "/oauth2/start?rd=%2Fa%3Fb%3Dc&amp;issuer=https%3A%2F%2Ftwo.example" in choice.text
        assert ">Sign in at one.example</a>" in choice.text

        assert (await browser.log_in("/a", issuer=one.url)).headers["location"] == "/a"
        assert (await browser.log_in("/a", issuer=two.url)).headers["location"] == "/a"
        assert [login.issuer for login in found.sessions.logins] == [one.url, two.url]
        assert (await browser.start("/a", issuer="https://three.example")).status_code == 400

        asked = two.requests["token"] + one.requests["token"]
        for swap in ((("iss", two.url),), (), (("iss", "https://evil.example"),)):
            back = await answer_to(browser, issuer=one.url)
            answer = await browser.get(with_query(back, *swap, without=("iss",)))
            assert answer.status_code == 400
        assert two.requests["token"] + one.requests["token"] == asked


async def test_z_mixup_an_issuer_that_does_not_name_itself_among_others_is_warned_of_once(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = fake_issuer("https://one.example", clock=clock), fake_issuer("https://two.example", clock=clock)
    one.metadata_overrides = {"authorization_response_iss_parameter_supported": None}
    issuers = [Issuer(issuer=each.url, audience="api", client_id=CLIENT, client_secret=SECRET) for each in (one, two)]
    options = {"issuers": issuers, "transport": one.transport(two), "clock": clock}
    async with service("", **options) as found, found.browser() as browser:
        for issuer in (one, one, two):
            assert (await browser.start(issuer=issuer.url)).status_code == 302

    warnings = [record.getMessage() for record in caplog.records if "RFC 9207" in record.getMessage()]
    assert len(warnings) == 1
    assert warnings[0].startswith("https://one.example does not name itself")


async def test_issuers_of_one_host_are_told_apart(clock: ManualClock) -> None:
    issuers = [
        Issuer(issuer=f"https://login.example/realms/{realm}", audience="api", client_id=CLIENT)
        for realm in ("staff", "guests")
    ]
    async with service("", issuers=issuers, clock=clock) as found, found.browser() as browser:
        choice = await browser.start("/")

    assert "Sign in at login.example/realms/staff<" in choice.text
    assert "Sign in at login.example/realms/guests<" in choice.text


async def test_an_issuer_that_does_not_name_itself_need_not(issuer: FakeIssuer, clock: ManualClock) -> None:
    issuer.metadata_overrides = {"authorization_response_iss_parameter_supported": None}
    async with (
        service(issuer.url, transport=issuer.transport(), clock=clock) as found,
        found.browser() as browser,
    ):
        back = await answer_to(browser)
        assert (await browser.get(with_query(back, without=("iss",)))).status_code == 302
        back = await answer_to(browser)
        assert (await browser.get(with_query(back, ("iss", "https://evil"), without=("iss",)))).status_code == 400


# Claims


async def test_userinfo_completes_the_user_and_never_the_token(
    found: Service, browser: Browser, issuer: FakeIssuer
) -> None:
    issuer.fault(
        "userinfo",
        faults.body(
            b'{"sub": "alice", "name": "Alice", "email": "other@example.com", "sid": "forged", "scope": "admin", '
            b'"iat": 1, "azp": "x", "auth_time": 1, "acr": "high", "groups": ["a"], "exp": 99999999999}'
        ),
    )
    await browser.log_in()
    claims = found.sessions.logins[0].claims

    assert (claims["name"], claims["groups"], claims["email"]) == ("Alice", ["a"], "alice@example.com")
    assert claims["sid"] != "forged"
    assert claims["auth_time"] > 1
    assert claims["iat"] > 1
    assert not {"scope", "azp", "acr"} & claims.keys()


async def test_userinfo_that_does_not_take_the_token_is_told_with_a_cure(
    browser: Browser, issuer: FakeIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.fault("userinfo", faults.status(401))

    assert (await browser.log_in()).status_code == 503
    assert "userinfo=False leaves it out" in caplog.text


async def test_userinfo_is_not_asked_where_it_is_not_wanted(issuer: FakeIssuer, clock: ManualClock) -> None:
    async with (
        service(issuer.url, transport=issuer.transport(), clock=clock, userinfo=False) as found,
        found.browser() as browser,
    ):
        assert (await browser.log_in()).status_code == 302

    assert issuer.requests["userinfo"] == 0
    assert found.sessions.logins[0].claims["email"] == "alice@example.com"


async def test_an_issuer_without_a_userinfo_endpoint(issuer: FakeIssuer, clock: ManualClock) -> None:
    issuer.metadata_overrides = {"userinfo_endpoint": None}
    async with service(issuer.url, transport=issuer.transport(), clock=clock) as found, found.browser() as browser:
        assert (await browser.log_in()).status_code == 302

    assert issuer.requests["userinfo"] == 0


async def test_a_public_client_logs_in(issuer: FakeIssuer, clock: ManualClock) -> None:
    issuer.client(CLIENT, redirect_uris=[CALLBACK])
    async with (
        service(issuer.url, transport=issuer.transport(), clock=clock, client_secret=None) as found,
        found.browser() as browser,
    ):
        assert (await browser.log_in()).status_code == 302


# What goes wrong after all went well


async def test_a_store_that_does_not_take_the_session_is_503(found: Service, browser: Browser) -> None:
    found.sessions.fails = BackendUnavailable("away", "link")
    answer = await browser.log_in()

    assert answer.status_code == 503
    assert "Try again in a moment" in answer.text
    assert (browser.session, browser.flows) == (None, [])


async def test_a_login_right_after_signing_out_everywhere_gets_a_page_and_no_loop(
    found: Service, browser: Browser
) -> None:
    found.sessions.fails = Revoked("a cut-off")
    answer = await browser.log_in()

    assert answer.status_code == 400
    assert "Wait 30 seconds" in answer.text
    assert "location" not in answer.headers


async def test_a_page_of_ones_own_stands_for_ours(issuer: FakeIssuer, clock: ManualClock) -> None:
    async with (
        service(
            issuer.url,
            transport=issuer.transport(),
            clock=clock,
            on_error=lambda _, error: PlainTextResponse(error.code),
        ) as found,
        found.browser() as browser,
    ):
        answer = await browser.get("/oauth2/callback?state=x", headers=HTML)

    assert (answer.status_code, answer.text) == (400, "login_error")


async def test_z_clickjack_no_page_of_ours_is_framed(browser: Browser, issuer: FakeIssuer) -> None:
    issuer.fault("token", faults.status(500))
    pages = [
        await browser.get("/oauth2/callback"),
        await browser.log_in(),
        await browser.get("/oauth2/start?rd=/&rd=/"),
    ]

    for page in pages:
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["referrer-policy"] == "no-referrer"
        assert page.headers["cache-control"] == "no-store"


async def test_without_login_there_are_no_such_endpoints(issuer: FakeIssuer) -> None:
    oidc = OIDC(issuer=issuer.url, audience="api", transport=issuer.transport(), journal=None)
    assert (oidc.login, dict(oidc.login_issuers)) == (None, {})
    app = OIDCMiddleware(Starlette(), oidc=oidc)
    async with oidc, httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=BASE, headers=HTML) as client:
        for name in ("start", "sign_in", "login", "callback"):
            assert (await client.get(f"/oauth2/{name}")).status_code == 401


async def test_over_real_sockets_from_the_page_to_the_issuer_and_back() -> None:
    issuer = fake_issuer()
    listening = bind("127.0.0.1", 0)
    base = f"http://127.0.0.1:{listening.getsockname()[1]}"
    async with issuer.serve():
        issuer.client(CLIENT, secret=SECRET, redirect_uris=[f"{base}/oauth2/callback"])
        async with (
            service(issuer.url, base_url=base) as found,
            serving(found.app, listening),
            httpx2.AsyncClient(headers=HTML, timeout=60) as client,
        ):
            page = await client.get(f"{base}/orders?id=1", follow_redirects=True)
            assert page.url.path == "/authorize"
            form = {**dict(page.url.params), "username": "alice", "decision": "allow"}
            end = await client.post(issuer.endpoint("authorize"), data=form, follow_redirects=True)

            assert (str(end.url), end.json()) == (f"{base}/orders?id=1", {"path": "/orders"})
            assert [response.status_code for response in end.history] == [303, 302]
            assert (await client.get(f"{base}/x", headers={"accept": "application/json"})).status_code == 200


def test_without_authlib_a_login_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oidc_middleware.provider.tokens.find_spec", lambda _: None)
    with pytest.raises(ConfigError) as caught:
        OIDC(issuer="https://issuer.example", audience="api", client_id=CLIENT, login=True, base_url=BASE, journal=None)

    assert str(caught.value) == (
        "config_error: login: needs Authlib, which is not installed. pip install 'oidc-middleware[login]'"
    )
