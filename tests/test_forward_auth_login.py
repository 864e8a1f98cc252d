"""Forward auth and browsers: who is sent to the login, and who is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from issuer_login_kit import Page

from oidc_middleware import Issuer
from oidc_middleware.testing import FakeIssuer, ManualClock, faults

from abuse.door import Answer, Door, Headers, is_503

pytestmark = pytest.mark.anyio

AUTH = "/oauth2/auth"
PROXY = ("10.0.0.1", 40000)
BASE = "https://app.example.com"
SETTINGS: dict[str, Any] = {
    "forward_auth": True,
    "trusted_proxies": ["10.0.0.0/8"],
    "login": True,
    "base_url": BASE,
    "client_id": "web",
    "client_secret": "of-this-client-alone",
    "public": ["/health"],
    "optional": ["/hello"],
}
NAVIGATION: Headers = [
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-dest", b"document"),
    (b"sec-fetch-site", b"cross-site"),
    (b"accept", b"text/html"),
]
CHALLENGE = 'Bearer realm="oidc"'


@pytest.fixture
def door(fake_issuer: FakeIssuer) -> Callable[..., Door]:
    fake_issuer.client("web", secret="of-this-client-alone", redirect_uris=[f"{BASE}/oauth2/callback"])

    def make(**settings: Any) -> Door:
        return Door.of(fake_issuer, **(SETTINGS | settings))

    return make


def uri(path: str, method: str = "GET", host: str = "app.example.com") -> Headers:
    return [
        (b"x-forwarded-uri", path.encode()),
        (b"x-forwarded-method", method.encode()),
        (b"x-forwarded-host", host.encode()),
        (b"x-forwarded-proto", b"https"),
    ]


async def ask(asked: Door, headers: Headers, query: bytes = b"redirect=1", **more: Any) -> Answer:
    return await asked.ask(AUTH, **({"client": PROXY, "headers": headers, "query": query} | more))


def refused(answer: Answer) -> bool:
    assert "location" not in answer.headers
    assert "set-cookie" not in answer.headers
    return (answer.status, answer.challenge) == (401, CHALLENGE)


async def test_somebody_who_opens_a_page_is_sent_to_the_issuer(
    door: Callable[..., Door], fake_issuer: FakeIssuer
) -> None:
    answer = await ask(door(), uri("/orders?a=b&c=%2F") + NAVIGATION)
    assert (answer.status, answer.headers["cache-control"], answer.seen) == (302, "no-store", None)
    where = urlsplit(answer.headers["location"])
    asked = parse_qs(where.query)
    assert answer.headers["location"].startswith(fake_issuer.endpoint("authorize") + "?")
    assert (asked["redirect_uri"], asked["code_challenge_method"]) == ([f"{BASE}/oauth2/callback"], ["S256"])
    assert answer.headers["set-cookie"].startswith("__Host-oidc_session_flow_")


async def test_envoy_asks_for_it_in_a_header_for_the_query_is_the_clients(door: Callable[..., Door]) -> None:
    wants = (b"x-forward-auth-redirect", b"1")
    for headers, status in (([wants], 302), ([], 401), ([(wants[0], b"0")], 401)):
        answer = await door().ask(f"{AUTH}/orders", client=PROXY, headers=[*headers, *NAVIGATION], query=b"redirect=1")
        assert answer.status == status


@pytest.mark.parametrize("query", [b"", b"redirect=0", b"redirect", b"xredirect=1", b"redirect=1x", b"Redirect=1"])
async def test_nobody_is_sent_there_unless_whoever_asks_wants_it(door: Callable[..., Door], query: bytes) -> None:
    """A redirect would be a 500 of nginx."""
    assert refused(await ask(door(), uri("/orders") + NAVIGATION, query))


NO_PAGE: dict[str, Headers] = {
    "nothing-said": [],
    "json": [(b"accept", b"application/json")],
    "fetch": [(b"sec-fetch-mode", b"cors"), (b"sec-fetch-dest", b"empty"), (b"accept", b"text/html")],
    "image": [(b"sec-fetch-mode", b"no-cors"), (b"sec-fetch-dest", b"image")],
    "events": [(b"accept", b"text/event-stream")],
    "frame": [(b"sec-fetch-mode", b"navigate"), (b"sec-fetch-dest", b"iframe"), (b"accept", b"text/html")],
    "prefetch": [*NAVIGATION, (b"sec-purpose", b"prefetch")],
    "script": [(b"accept", b"text/html"), (b"x-requested-with", b"XMLHttpRequest")],
    "websocket": [*NAVIGATION, (b"sec-websocket-key", b"eA==")],
}


@pytest.mark.parametrize("headers", NO_PAGE.values(), ids=NO_PAGE)
async def test_what_is_no_page_gets_401_and_no_cookie(door: Callable[..., Door], headers: Headers) -> None:
    """Z-subresource."""
    assert refused(await ask(door(), uri("/orders") + headers))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
async def test_what_is_no_get_gets_401(door: Callable[..., Door], method: str) -> None:
    assert refused(await ask(door(), uri("/orders", method) + NAVIGATION))


async def test_without_a_method_nobody_knows_whether_it_is_a_page(door: Callable[..., Door]) -> None:
    assert refused(await ask(door(), [(b"x-forwarded-uri", b"/orders"), *NAVIGATION]))


async def test_who_is_not_believed_sends_nobody_to_the_login(door: Callable[..., Door]) -> None:
    assert refused(await ask(door(), uri("/orders") + NAVIGATION, client=("192.0.2.1", 1)))
    assert refused(await ask(door(), NAVIGATION))


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("app.example.com", 302),
        ("APP.example.com:443", 302),
        ("other.example.com", 401),
        ("app.example.com:8443", 401),
        ("evil.example", 401),
    ],
)
async def test_a_browser_at_another_host_is_not_sent_round_in_circles(
    door: Callable[..., Door], host: str, status: int
) -> None:
    """The cookie of a session would not come back to that host. Z-host-redirect: no answer names it."""
    answer = await ask(door(), uri("/orders", host=host) + NAVIGATION)
    assert answer.status == status
    assert "evil" not in str(answer.headers)


async def test_where_no_proxy_tells_the_host_it_is_taken_to_be_ours(door: Callable[..., Door]) -> None:
    headers = [(b"x-original-uri", b"/orders"), (b"x-original-method", b"GET"), *NAVIGATION]
    assert (await ask(door(), headers)).status == 302


async def test_who_needs_no_identity_is_not_sent_there(door: Callable[..., Door]) -> None:
    for path in ("/health", "/hello"):
        assert (await ask(door(), uri(path) + NAVIGATION)).status == 200


async def test_a_bad_token_is_401_even_of_a_page(door: Callable[..., Door]) -> None:
    answer = await ask(door(), uri("/orders") + NAVIGATION, token="a.b.c")
    assert (answer.status, "location" in answer.headers) == (401, False)


async def test_without_a_login_there_is_nowhere_to_go(fake_issuer: FakeIssuer) -> None:
    asked = Door.of(fake_issuer, forward_auth=True, trusted_proxies=["10.0.0.0/8"])
    assert refused(await ask(asked, uri("/orders") + NAVIGATION))


async def test_where_there_are_several_issuers_a_browser_gets_to_choose(
    fake_issuer_factory: Callable[..., FakeIssuer],
) -> None:
    one, two = (fake_issuer_factory(f"https://{name}.example") for name in ("one", "two"))
    shared: dict[str, Any] = {"client_id": "web", "client_secret": "of-this-client-alone"}
    issuers = [Issuer(issuer=each.url, audience=each.audience, **shared) for each in (one, two)]
    settings = {name: value for name, value in SETTINGS.items() if name not in shared}
    assert isinstance(one.clock, ManualClock)
    asked = Door(b"", transport=one.transport(two), clock=one.clock, issuers=issuers, **settings)
    answer = await ask(asked, uri("/orders?a=b") + NAVIGATION)
    assert (answer.status, answer.headers["location"]) == (302, f"{BASE}/oauth2/start?rd=%2Forders%3Fa%3Db")


async def test_a_client_hears_400_of_nginx_where_the_answer_is_its_own(door: Callable[..., Door]) -> None:
    headers = [(b"x-original-uri", b"//orders"), *NAVIGATION]
    assert (await ask(door(), headers)).status == 400
    assert (await ask(door(), headers, b"")).status == 403


async def test_where_the_issuer_cannot_be_asked_it_is_503_and_no_circle(
    door: Callable[..., Door], fake_issuer: FakeIssuer
) -> None:
    fake_issuer.fault("discovery", faults.status(500))
    answer = await ask(door(), uri("/orders") + NAVIGATION)
    assert is_503(answer)
    assert "location" not in answer.headers


@pytest.mark.parametrize("path", ["//evil.example/x", "/\\evil.example", "/..//evil.example", "/%0aevil"])
async def test_no_path_leads_back_to_another_host(door: Callable[..., Door], path: str) -> None:
    """It is refused before anybody is sent anywhere."""
    answer = await ask(door(), uri(path) + NAVIGATION)
    assert (answer.status, "location" in answer.headers) == (400, False)


# With a session


def cookies_of(answer: Answer) -> str:
    """Return the cookies that an answer sets, as a browser sends them."""
    (start,) = [message for message in answer.messages if message["type"].endswith("response.start")]
    given = [value.decode() for name, value in start["headers"] if name == b"set-cookie"]
    return "; ".join(cookie.split(";")[0] for cookie in given if "Max-Age=0" not in cookie)


async def log_in(asked: Door, issuer: FakeIssuer) -> Headers:
    """Log in through the door, and return the header that brings the session."""
    sent = await ask(asked, uri("/orders?a=b") + NAVIGATION)
    async with httpx2.AsyncClient(transport=issuer.transport()) as browser:
        page = Page((await browser.get(sent.headers["location"])).text)
        signed = await browser.post(page.action, data={**page.hidden, "username": "alice", "decision": "allow"})
    where = urlsplit(signed.headers["location"])
    cookie = [(b"cookie", cookies_of(sent).encode()), *NAVIGATION]
    back = await asked.ask(where.path, query=where.query.encode(), headers=cookie, client=PROXY)
    assert (back.status, back.headers["location"]) == (302, "/orders?a=b")
    return [(b"cookie", cookies_of(back).encode())]


SAME, SITE, CROSS = ([(b"sec-fetch-site", site)] for site in (b"same-origin", b"same-site", b"cross-site"))
ORIGIN, FOREIGN = [(b"origin", BASE.encode())], [(b"origin", b"https://evil.example")]


async def test_a_session_is_asked_what_a_session_is_asked_at_the_door_of_an_app(
    door: Callable[..., Door], fake_issuer: FakeIssuer
) -> None:
    """Z-csrf-post, P-websocket-token: by the method and the headers of the client, whatever the proxy asks in."""
    asked = door()
    session = await log_in(asked, fake_issuer)
    no_method = [(b"x-forwarded-uri", b"/orders")]
    handshake = [*uri("/ws"), (b"sec-websocket-key", b"eA==")]
    for headers, status in (
        (uri("/orders"), 200),
        (uri("/orders") + CROSS, 200),
        (uri("/orders", "POST"), 200),  # no browser
        (uri("/orders", "POST") + SAME, 200),
        (uri("/orders", "POST") + ORIGIN, 200),
        (uri("/orders", "POST") + CROSS, 403),
        (uri("/orders", "POST") + SITE, 403),
        (uri("/orders", "POST") + FOREIGN, 403),
        (uri("/orders", "post") + FOREIGN, 403),
        (no_method + CROSS, 403),
        (no_method + SAME, 200),
        (handshake + ORIGIN, 200),
        (handshake + FOREIGN, 403),
        (handshake, 403),
    ):
        answer = await ask(asked, headers + session, b"")
        assert (answer.status, answer.seen) == (status, None), headers
        assert answer.headers.get("x-forwarded-user") == ("alice" if status == 200 else None)
    await asked.oidc.stop()


async def test_the_access_token_of_a_session_is_told_where_that_is_configured(
    door: Callable[..., Door], fake_issuer: FakeIssuer
) -> None:
    asked = door(pass_access_token=True)
    session = await log_in(asked, fake_issuer)
    answer = await ask(asked, uri("/orders") + session)
    token = answer.headers["x-auth-request-access-token"]
    assert (await ask(door(), uri("/orders"), token=token)).headers["x-forwarded-user"] == "alice"
    await asked.oidc.stop()


async def test_a_token_goes_before_a_session(door: Callable[..., Door], fake_issuer: FakeIssuer) -> None:
    asked = door()
    session = await log_in(asked, fake_issuer)
    answer = await ask(asked, uri("/orders", "POST") + CROSS + session, token=fake_issuer.token("bob"))
    assert (answer.status, answer.headers["x-forwarded-user"]) == (200, "bob")
    assert (await ask(asked, uri("/orders") + session, token="a.b.c")).status == 401
    await asked.oidc.stop()


async def test_who_is_signed_out_everywhere_is_known_no_more(
    door: Callable[..., Door], fake_issuer: FakeIssuer
) -> None:
    asked = door()
    session = await log_in(asked, fake_issuer)
    await asked.oidc.revoke.subject("alice")
    assert (await ask(asked, uri("/orders") + session)).status == 401
    assert (await ask(asked, uri("/orders") + session + NAVIGATION)).status == 302
    answer = await ask(asked, uri("/hello") + session)
    assert (answer.status, answer.headers["x-forwarded-user"]) == (200, "")
    await asked.oidc.stop()
