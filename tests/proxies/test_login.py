"""Browsers behind every proxy of the docs: they are sent to the login, come back, and have a session."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from issuer_login_kit import Page

from oidc_middleware.testing import FakeIssuer

from .app import App
from .proxies import Proxy
from servers_kit import ANSWER_SECONDS

NAVIGATION = {
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Site": "none",
    "Accept": "text/html",
}
SAME, CROSS = {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "cross-site"}


@pytest.fixture
def browser(proxy: Proxy) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=proxy.url, trust_env=False, timeout=ANSWER_SECONDS) as client:
        yield client


def log_in(browser: httpx2.Client, path: str, who: str = "alice") -> httpx2.Response:
    """Open a page, sign in where the browser is sent, and return the answer that it comes back to."""
    sent = browser.get(path, headers=NAVIGATION)
    assert sent.status_code == 302, (sent.status_code, sent.text)
    form = Page(browser.get(sent.headers["location"]).text)
    signed = browser.post(form.action, data=form.hidden | {"username": who, "decision": "allow"})
    back = browser.get(signed.headers["location"], headers=NAVIGATION)
    assert back.status_code in {302, 303}, (back.status_code, back.text)
    return back


def user(answer: httpx2.Response) -> list[str]:
    assert answer.status_code == 200, (answer.status_code, answer.text)
    return [value for name, value in answer.json()["headers"] if name.lower() == "x-forwarded-user"]


def test_somebody_who_opens_a_page_logs_in_and_comes_back_to_it(
    proxy: Proxy, issuer: FakeIssuer, browser: httpx2.Client
) -> None:
    back = log_in(browser, "/feed?a=b&c=%2F")
    assert back.headers["location"] in {"/feed?a=b&c=%2F", f"{proxy.url}/feed?a=b&c=%2F"}
    answer = browser.get("/feed?a=b&c=%2F", headers=NAVIGATION)
    assert answer.json()["line"] == "GET /feed?a=b&c=%2F HTTP/1.1"
    assert user(answer) == ["alice"]
    assert user(browser.get("/hello")) == ["alice"]
    assert user(browser.get("/health")) in ([], [""])


def test_the_login_page_is_told_where_to_go_back_by_the_settings_alone(proxy: Proxy, issuer: FakeIssuer) -> None:
    """Z-host-redirect: whatever the host is said to be, redirect_uri is below base_url."""
    for headers in ({}, {"X-Forwarded-Host": "evil.example"}, {"X-Forwarded-Proto": "ftp"}):
        answer = httpx2.get(f"{proxy.url}/feed", headers=NAVIGATION | headers, trust_env=False, timeout=ANSWER_SECONDS)
        if answer.status_code == 302:
            asked = parse_qs(urlsplit(answer.headers["location"]).query)
            assert answer.headers["location"].startswith(issuer.endpoint("authorize"))
            assert asked["redirect_uri"] == [f"{proxy.url}/oauth2/callback"]
            assert asked["code_challenge_method"] == ["S256"]
        else:
            assert headers, answer.text
            assert answer.status_code in {400, 401}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Accept": "application/json"},
        {"Accept": "text/event-stream"},
        {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Accept": "text/html"},
        {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Accept": "text/html", "X-Requested-With": "XMLHttpRequest"},
        NAVIGATION | {"Sec-Purpose": "prefetch"},
        NAVIGATION | {"Sec-Fetch-Dest": "iframe"},
    ],
    ids=str,
)
def test_everything_but_a_page_is_401_and_leaves_no_cookie(browser: httpx2.Client, headers: dict[str, str]) -> None:
    """Z-subresource."""
    answer = browser.get("/feed", headers=headers)
    assert (answer.status_code, answer.headers.get("location"), answer.headers.get("set-cookie")) == (401, None, None)
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_no_form_is_sent_to_the_login(browser: httpx2.Client) -> None:
    assert browser.post("/feed", headers=NAVIGATION, data={"a": "b"}).status_code == 401


def test_a_page_that_may_be_seen_by_anybody_sends_nobody_to_the_login(browser: httpx2.Client) -> None:
    for path in ("/health", "/hello"):
        assert user(browser.get(path, headers=NAVIGATION)) in ([], [""])


def test_a_page_of_another_site_changes_nothing(browser: httpx2.Client, app: App) -> None:
    """Z-csrf-post: the method is that of the client, whatever the proxy asks in."""
    log_in(browser, "/feed")
    before = app.requests
    origin = {"Origin": "https://evil.example"}
    for headers in (CROSS, origin, {"Sec-Fetch-Site": "same-site"}, CROSS | NAVIGATION | CROSS | origin):
        assert browser.post("/feed", headers=headers).status_code == 403
        assert browser.delete("/feed", headers=headers).status_code == 403
    assert app.requests == before
    assert user(browser.post("/feed", headers=SAME)) == ["alice"]
    assert user(browser.post("/feed", headers={"Origin": str(browser.base_url).rstrip("/")})) == ["alice"]
    assert user(browser.get("/feed", headers=NAVIGATION | CROSS)) == ["alice"]


def test_a_websocket_with_a_cookie_needs_our_origin(proxy: Proxy, browser: httpx2.Client) -> None:
    """P-websocket-token."""
    log_in(browser, "/feed")
    cookie = "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.cookies.jar)
    lines = [
        "GET /ws HTTP/1.1",
        f"Host: 127.0.0.1:{proxy.port}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        f"Cookie: {cookie}",
    ]
    for origin, expected in ((proxy.url, 101), ("https://evil.example", 403), (None, 403)):
        more = [f"Origin: {origin}"] if origin else []
        status, answer = proxy.raw("\r\n".join([*lines, *more, "", ""]), until=b"\r\n\r\n")
        assert status == expected, answer


def test_no_identity_of_a_client_reaches_the_app_beside_a_session(browser: httpx2.Client) -> None:
    log_in(browser, "/feed")
    spoofed = {"X-Forwarded-User": "admin", "X_Forwarded_User": "admin", "X-Auth-Request-Email": "admin@example.com"}
    answer = browser.get("/feed", headers=spoofed)
    assert user(answer) == ["alice"]
    assert "admin" not in json.dumps(answer.json()["headers"])


def test_who_may_not_see_a_page_is_told_so_and_not_sent_round_in_circles(browser: httpx2.Client, app: App) -> None:
    log_in(browser, "/feed")
    before = app.requests
    answer = browser.get("/admin/", headers=NAVIGATION)
    assert (answer.status_code, answer.headers.get("location")) == (403, None)
    assert answer.headers["content-type"].startswith("text/html")
    assert app.requests == before


def test_who_signs_out_is_known_no_more(browser: httpx2.Client) -> None:
    log_in(browser, "/feed")
    kept = dict(browser.cookies)
    assert browser.post("/oauth2/sign_out", headers=SAME).status_code in {200, 302, 303}
    assert browser.get("/feed").status_code == 401
    browser.cookies.update(kept)  # G-after: an old cookie
    assert browser.get("/feed").status_code == 401
    assert browser.get("/feed", headers=NAVIGATION).status_code == 302


def test_two_cookies_of_the_name_are_refused(browser: httpx2.Client) -> None:
    """Z-toss."""
    log_in(browser, "/feed")
    (session,) = [cookie for cookie in browser.cookies.jar if cookie.name == "oidc_session"]
    twice = f"oidc_session={session.value}; oidc_session={session.value}"
    answer = httpx2.get(
        str(browser.base_url.join("/feed")), headers={"Cookie": twice}, trust_env=False, timeout=ANSWER_SECONDS
    )
    assert answer.status_code in {400, 403}
