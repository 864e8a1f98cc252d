"""Sessions at the door: who a browser is, when it is sent to the login, and when a session is over."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from oidc_middleware import Issuer, OIDCMiddleware, Rule
from oidc_middleware.session.known import KnownSession
from oidc_middleware.testing import FakeIssuer, ManualClock

from abuse.door import Answer, Door, Headers
from session_kit import BASE, FETCH, NAME, NAVIGATION, Browser, at_issuer, browser_of, door_of

pytestmark = pytest.mark.anyio

ORIGIN = [(b"origin", BASE.encode())]
ELSEWHERE = [(b"origin", b"https://evil.example")]


@pytest.fixture
def door(fake_issuer: FakeIssuer) -> Door:
    return door_of(fake_issuer)


def claims_of(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer
    return dict(json.loads(answer.body))


def clears(browser: Browser) -> bool:
    return any(cookie.startswith(f"{NAME}=;") for cookie in browser.set_cookies)


# ---------------------------------------------------------------------------------------------------- who it is


async def test_a_session_is_an_identity_like_that_of_a_token(door: Door, fake_issuer: FakeIssuer) -> None:
    fake_issuer.users["alice"] = {"email": "alice@example.com", "groups": ["staff"]}
    browser = await browser_of(door, fake_issuer)

    answer = await browser.ask()

    assert answer.seen is not None
    user, auth = answer.seen["user"], answer.seen["auth"]
    assert user.is_authenticated
    assert (user.subject, user.issuer, user.client_id) == ("alice", fake_issuer.url, "web")
    assert user.identity == f"{fake_issuer.url}#alice"
    assert user.scopes == {"openid", "orders:read"}
    assert auth.scopes == ["openid", "orders:read"]
    assert user.groups == {"staff"}
    assert user.display_name == "alice@example.com"
    assert isinstance(auth, KnownSession)
    assert (user.jti, user.expires_at) == (auth.name, int(auth.deadline))
    assert await auth.access_token() == user.token
    assert fake_issuer.read(user.token) is not None
    assert answer.body == json.dumps(user.claims).encode()


async def test_nothing_of_it_is_printed(door: Door, fake_issuer: FakeIssuer) -> None:
    browser = await browser_of(door, fake_issuer)
    answer = await browser.ask()
    assert answer.seen is not None
    auth = answer.seen["auth"]

    printed = f"{auth!r} {auth.record!r} {auth.cookie!r} {answer.seen['user']!r}"

    for secret in (browser.cookie, auth.record.access_token, auth.record.refresh_token, auth.id_token):
        assert secret not in printed


async def test_a_token_goes_before_the_cookie(door: Door, fake_issuer: FakeIssuer) -> None:
    browser = await browser_of(door, fake_issuer)

    assert claims_of(await browser.ask(token=fake_issuer.token("bob")))["sub"] == "bob"
    assert (await browser.ask(token="garbage")).status == 401
    assert claims_of(await browser.ask())["sub"] == "alice"


async def test_a_known_session_waits_for_nothing(door: Door, fake_issuer: FakeIssuer) -> None:
    browser = await browser_of(door, fake_issuer)
    await browser.ask()
    header = f"{NAME}={browser.cookie}".encode()
    assert door.oidc.sessions is not None

    known = door.oidc.sessions.lookup(header)

    assert known is not None
    assert known.principal.subject == "alice"
    coroutine = door.app(
        {"type": "http", "method": "GET", "path": "/orders", "headers": [(b"cookie", header)], "query_string": b""},
        _nothing,
        _nothing,
    )
    with pytest.raises(StopIteration):
        coroutine.send(None)


async def _nothing(*_: object) -> Any:
    return {"type": "http.disconnect"}


# ------------------------------------------------------------------------------------------------------- the cookie


async def test_attributes(door: Door, fake_issuer: FakeIssuer) -> None:
    """Z-attrs."""
    browser = await browser_of(door, fake_issuer)

    session = next(cookie for cookie in browser.set_cookies if cookie.startswith(f"{NAME}="))

    value, *attributes = session.split("; ")
    assert re.fullmatch(rf"{NAME}=[A-Za-z0-9_-]{{64}}", value)
    assert sorted(attributes) == ["HttpOnly", "Max-Age=43200", "Path=/", "SameSite=Lax", "Secure"]


async def test_over_http_on_this_machine_there_is_no_prefix(fake_issuer: FakeIssuer) -> None:
    """Z-attrs: a browser would not take a `__Host-` cookie, nor a Secure one, over http."""
    fake_issuer.client("web", secret="s3cret", redirect_uris=["http://localhost:8000/oauth2/callback"])
    door = Door.of(fake_issuer, login=True, client_id="web", client_secret="s3cret", base_url="http://localhost:8000")
    browser = Browser(door, fake_issuer)

    assert (await browser.log_in()).status == 302

    session = next(cookie for cookie in browser.set_cookies if cookie.startswith("oidc_session="))
    assert sorted(session.split("; ")[1:]) == ["HttpOnly", "Max-Age=43200", "Path=/", "SameSite=Lax"]
    assert (await browser.ask()).status == 200


async def test_a_planted_cookie_is_replaced_and_dies(door: Door, fake_issuer: FakeIssuer) -> None:
    """Z-fixation: the attacker's own session in the victim's browser, which then logs in."""
    attacker = await browser_of(door, fake_issuer, "mallory")
    victim = Browser(door, fake_issuer)
    victim.jar[NAME] = planted = attacker.cookie

    begun = await victim.ask("/oauth2/start", headers=NAVIGATION)
    back = await _at_issuer(fake_issuer, begun, "alice")
    await victim.ask("/oauth2/callback", query=back, headers=NAVIGATION)

    assert victim.cookie != planted
    assert claims_of(await victim.ask())["sub"] == "alice"
    assert (await attacker.ask(headers=FETCH)).status == 401


async def test_a_planted_value_of_the_right_shape_becomes_no_session(door: Door, fake_issuer: FakeIssuer) -> None:
    """Z-fixation: an id that nobody gave out."""
    victim = Browser(door, fake_issuer)
    victim.jar[NAME] = planted = "A" * 64

    await victim.log_in()

    assert victim.cookie != planted
    assert (await door.ask(headers=[(b"cookie", f"{NAME}={planted}".encode())])).status == 401


async def _at_issuer(issuer: FakeIssuer, begun: Answer, subject: str) -> bytes:
    return (await at_issuer(issuer, begun.headers["location"], subject)).partition("?")[2].encode()


@pytest.mark.parametrize("split", [True, False], ids=["two headers", "one header"])
async def test_two_session_cookies_are_refused(door: Door, fake_issuer: FakeIssuer, *, split: bool) -> None:
    """Z-toss: one of them is perhaps somebody else's."""
    browser = await browser_of(door, fake_issuer)
    mine, other = f"{NAME}={browser.cookie}".encode(), f"{NAME}={'A' * 64}".encode()

    headers: Headers = [(b"cookie", mine), (b"cookie", other)] if split else [(b"cookie", mine + b"; " + other)]
    answer = await door.ask(headers=headers)

    assert (answer.status, json.loads(answer.body)["error"]) == (400, "invalid_request")


async def test_a_cookie_of_the_name_without_prefix_is_none(door: Door, fake_issuer: FakeIssuer) -> None:
    """Z-toss: a page of a sibling domain can set those."""
    browser = await browser_of(door, fake_issuer)

    for name in ("oidc_session", "__host-oidc_session", "__Host-oidc_session2", "x__Host-oidc_session"):
        answer = await door.ask(headers=[(b"cookie", f"{name}={browser.cookie}".encode())])
        assert (answer.status, json.loads(answer.body)["error"]) == (401, "missing_token"), name


async def test_the_cookie_is_found_among_others(door: Door, fake_issuer: FakeIssuer) -> None:
    browser = await browser_of(door, fake_issuer)
    others = "; ".join(f"c{number}={'x' * 40}" for number in range(100))

    for header in (f"{others}; {NAME}={browser.cookie}", f"{NAME}={browser.cookie};{others}"):
        for _ in range(2):
            assert claims_of(await door.ask(headers=[(b"cookie", header.encode())]))["sub"] == "alice"
    halves = [(b"cookie", b"a=b"), (b"cookie", f"{NAME}={browser.cookie}".encode())]
    assert claims_of(await door.ask(headers=halves))["sub"] == "alice"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("A" * 63, id="short"),
        pytest.param("A" * 65, id="long"),
        pytest.param("A" * 63 + "=", id="padded"),
        pytest.param("A" * 63 + "+", id="other alphabet"),
        pytest.param('"' + "A" * 62 + '"', id="quoted"),
        pytest.param("' OR 1=1 --", id="SQL"),
        pytest.param("../../etc/passwd", id="path"),
        pytest.param("%41" * 21 + "A", id="escaped"),
        pytest.param("A" * 1_000_000, id="1 MB"),
        pytest.param("é" * 64, id="not ASCII"),
        pytest.param("", id="empty"),
    ],
)
async def test_what_is_no_session_id_never_reaches_the_store(
    door: Door, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """Z-session-idor."""
    asked: list[bytes] = []

    async def get(key: bytes) -> None:
        asked.append(key)

    monkeypatch.setattr(door.oidc.caches.session, "get", get)
    monkeypatch.setattr(door.oidc.caches.session, "get_newest", get)

    answer = await door.ask(headers=[(b"cookie", f"{NAME}={value}".encode("latin-1"))])

    assert (answer.status, asked) == (401, [])
    assert json.loads(answer.body)["error"] == "session_ended"


async def test_a_guessed_id_is_none_and_the_key_is_checked(door: Door, fake_issuer: FakeIssuer) -> None:
    """Z-session-idor: the id of a session without its key opens nothing."""
    browser = await browser_of(door, fake_issuer)
    right = browser.cookie

    for guess in ("A" * 64, right[:22] + "A" * 42, right[:-1] + ("A" if right[-1] != "A" else "B")):
        browser.jar[NAME] = guess
        assert (await browser.ask(headers=FETCH)).status == 401
        browser.jar[NAME] = right
        assert (await browser.ask()).status == 200


# -------------------------------------------------------------------------------------------- who is sent to log in


async def test_a_navigation_is_sent_to_the_issuer(door: Door, fake_issuer: FakeIssuer) -> None:
    browser = Browser(door, fake_issuer)

    answer = await browser.ask("/orders/7", query=b"page=2&q=%C3%A9", headers=NAVIGATION)

    assert answer.status == 302
    assert answer.headers["location"].startswith(fake_issuer.endpoint("authorize") + "?")
    assert answer.headers["cache-control"] == "no-store"
    back = await _at_issuer(fake_issuer, answer, "alice")
    returned = await browser.ask("/oauth2/callback", query=back, headers=NAVIGATION)
    assert (returned.status, returned.headers["location"]) == (302, "/orders/7?page=2&q=%C3%A9")


SUBRESOURCES: dict[str, Headers] = {
    "fetch": FETCH,
    "image": [(b"sec-fetch-mode", b"no-cors"), (b"sec-fetch-dest", b"image"), (b"accept", b"image/*,*/*")],
    "event stream": [(b"sec-fetch-mode", b"cors"), (b"accept", b"text/event-stream")],
    "iframe": [(b"sec-fetch-mode", b"navigate"), (b"sec-fetch-dest", b"iframe"), (b"accept", b"text/html")],
    "prefetch": [*NAVIGATION, (b"sec-purpose", b"prefetch;prerender")],
    "XHR of an old browser": [(b"x-requested-with", b"XMLHttpRequest"), (b"accept", b"text/html")],
    "JSON client": [(b"accept", b"application/json")],
    "anything": [(b"accept", b"*/*")],
    "nothing said": [],
}


@pytest.mark.parametrize("dead", [False, True], ids=["no cookie", "dead cookie"])
@pytest.mark.parametrize("headers", [pytest.param(each, id=name) for name, each in SUBRESOURCES.items()])
async def test_everything_else_gets_401(door: Door, fake_issuer: FakeIssuer, headers: Headers, *, dead: bool) -> None:
    """Z-subresource: no redirect, and no cookie of a login."""
    browser = Browser(door, fake_issuer)
    if dead:
        browser.jar[NAME] = "A" * 64

    answer = await browser.ask(headers=headers)

    assert (answer.status, answer.headers.get("location")) == (401, None)
    assert answer.challenge is not None
    assert not any("_flow_" in cookie for cookie in browser.set_cookies)
    post = await browser.ask(headers=NAVIGATION, method="POST")
    assert (post.status, post.headers.get("location")) == (401, None)


async def test_a_websocket_gets_401(door: Door) -> None:
    """Z-subresource."""
    answer = await door.handshake(headers=[*ORIGIN, (b"cookie", f"{NAME}={'A' * 64}".encode())])

    assert answer.status == 401
    assert (await door.handshake(headers=ORIGIN)).status == 401


async def test_an_old_browser_says_nothing_but_that_it_wants_a_page(door: Door, fake_issuer: FakeIssuer) -> None:
    answer = await Browser(door, fake_issuer).ask(headers=[(b"accept", b"text/html,application/xhtml+xml,*/*;q=0.8")])

    assert answer.status == 302


async def test_bad_tokens_are_no_reason_for_a_login(door: Door, fake_issuer: FakeIssuer) -> None:
    assert (await Browser(door, fake_issuer).ask(headers=NAVIGATION, token="garbage")).status == 401


async def test_several_issuers_are_chosen_from(
    fake_issuer: FakeIssuer, fake_issuer_factory: Callable[..., FakeIssuer], oidc_clock: ManualClock
) -> None:
    other = fake_issuer_factory(url="https://other.example", clock=oidc_clock)
    trusted = [
        Issuer(issuer=each.url, audience=each.audience, client_id="web", client_secret="s3cret")
        for each in (fake_issuer, other)
    ]
    door = Door(
        b"",
        transport=fake_issuer.transport(other),
        clock=oidc_clock,
        issuers=trusted,
        login=True,
        base_url=BASE,
    )

    answer = await door.ask("/orders", query=b"a=1", headers=NAVIGATION)

    assert (answer.status, answer.headers["location"]) == (302, f"{BASE}/oauth2/start?rd=%2Forders%3Fa%3D1")


# ------------------------------------------------------------------------------------------------------ how it ends


async def test_a_session_that_was_ended_stays_dead(door: Door, fake_issuer: FakeIssuer) -> None:
    """Z-cookie-rollback: the old cookie is put back."""
    browser = await browser_of(door, fake_issuer)
    known = (await browser.ask()).seen
    assert known is not None
    assert door.oidc.sessions is not None
    old = browser.cookie

    await door.oidc.sessions.end(known["auth"])

    for _ in range(2):
        browser.jar[NAME] = old
        assert (await browser.ask(headers=FETCH)).status == 401
    browser.jar[NAME] = old
    assert (await browser.ask(headers=NAVIGATION)).status == 302
    assert clears(browser)
    await browser.log_in()
    assert browser.cookie != old
    assert (await browser.ask()).status == 200


async def test_what_a_login_replaced_is_dead(door: Door, fake_issuer: FakeIssuer) -> None:
    """Z-cookie-rollback: after another login, perhaps with fewer rights, the cookie of before is of no use."""
    browser = await browser_of(door, fake_issuer)
    old = browser.cookie
    begun = await browser.ask("/oauth2/start", headers=NAVIGATION)
    back = await _at_issuer(fake_issuer, begun, "alice")
    await browser.ask("/oauth2/callback", query=back, headers=NAVIGATION)
    assert browser.cookie != old

    browser.jar[NAME] = old

    assert (await browser.ask(headers=FETCH)).status == 401


@pytest.mark.parametrize("by", ["principal", "jti", "subject", "session", "client"])
async def test_the_ledger_ends_sessions(door: Door, fake_issuer: FakeIssuer, by: str) -> None:
    browser = await browser_of(door, fake_issuer)
    other = await browser_of(door, fake_issuer, "bob")
    seen = (await browser.ask()).seen
    assert seen is not None
    user, revoke = seen["user"], door.oidc.revoke

    if by == "principal":
        await revoke.token(user)
    elif by == "jti":
        await revoke.token(jti=seen["auth"].name, expires_at=user.expires_at)
    else:
        await getattr(revoke, by)({"subject": user.subject, "session": user.sid, "client": "web"}[by])

    assert (await browser.ask(headers=FETCH)).status == 401
    assert (await other.ask(headers=FETCH)).status == (401 if by == "client" else 200)


async def test_after_a_sign_out_everywhere_a_login_within_the_leeway_ends_with_a_page(
    fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    """And with no loop: the page says what to do."""
    door = door_of(fake_issuer, leeway=30)
    browser = await browser_of(door, fake_issuer)
    await door.oidc.revoke.subject("alice")

    answer = await browser.log_in()

    assert (answer.status, NAME in browser.jar) == (400, False)
    oidc_clock.advance(32)
    assert (await browser.log_in()).status == 302
    assert (await browser.ask()).status == 200


IDLE, ABSOLUTE = 1000, 3000


async def test_activity_extends_the_idle_life_alone(fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    """Z-idle-abs: at the boundaries, to the second."""
    fake_issuer.token_overrides = {"refresh_token": None, "expires_in": None}
    door = door_of(fake_issuer, session_idle=IDLE, session_absolute=ABSOLUTE)
    browser = await browser_of(door, fake_issuer)
    began = oidc_clock.now()

    for _ in range(3):
        oidc_clock.advance(IDLE - 1)
        assert (await browser.ask(headers=FETCH)).status == 200
    oidc_clock.advance(began + ABSOLUTE - oidc_clock.now() - 0.5)
    assert (await browser.ask(headers=FETCH)).status == 200
    oidc_clock.advance(0.5)
    assert (await browser.ask(headers=FETCH)).status == 401


async def test_a_session_that_is_not_used_ends(fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    """Z-idle-abs."""
    door = door_of(fake_issuer, session_idle=IDLE, session_absolute=ABSOLUTE)
    browser = await browser_of(door, fake_issuer)
    assert (await browser.ask(headers=FETCH)).status == 200

    oidc_clock.advance(IDLE)

    assert (await browser.ask(headers=FETCH)).status == 401


async def test_uses_are_written_ten_times_an_idle_life_at_most(
    fake_issuer: FakeIssuer, oidc_clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_issuer.token_overrides = {"refresh_token": None, "expires_in": None}
    door = door_of(fake_issuer, session_idle=IDLE, session_absolute=100 * IDLE)
    browser = await browser_of(door, fake_issuer)
    cache, writes = door.oidc.caches.session, []
    update = cache.update

    async def counted(*given: Any) -> bool:
        writes.append(given)
        return await update(*given)

    monkeypatch.setattr(cache, "update", counted)
    for _ in range(IDLE):
        oidc_clock.advance(2)
        assert (await browser.ask()).status == 200

    assert 15 <= len(writes) <= 20  # in two idle lives


async def test_the_clock_that_was_put_back_prolongs_nothing(fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    door = door_of(fake_issuer)
    browser = await browser_of(door, fake_issuer)
    assert (await browser.ask()).status == 200
    assert door.oidc.sessions is not None

    oidc_clock.jump(-1800)

    assert door.oidc.sessions.lookup(f"{NAME}={browser.cookie}".encode()) is None  # it is looked at again


async def test_the_provider_limits_a_session(fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    fake_issuer.token_overrides = {"refresh_expires_in": 600, "expires_in": 3600}
    door = door_of(fake_issuer)
    browser = await browser_of(door, fake_issuer)

    oidc_clock.advance(599)
    assert (await browser.ask(headers=FETCH)).status == 200
    oidc_clock.advance(1)
    assert (await browser.ask(headers=FETCH)).status == 401


# ---------------------------------------------------------------------------------------------- pages of other sites


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param([(b"sec-fetch-site", b"same-origin"), *ORIGIN], 200, id="ours"),
        pytest.param([(b"sec-fetch-site", b"none")], 200, id="the user"),
        pytest.param([(b"sec-fetch-site", b"cross-site"), *ELSEWHERE], 403, id="another site"),
        pytest.param([(b"sec-fetch-site", b"cross-site")], 403, id="another site, no Origin"),
        pytest.param([(b"sec-fetch-site", b"same-site"), (b"origin", b"https://blog.example")], 403, id="subdomain"),
        pytest.param([(b"sec-fetch-site", b"same-site"), (b"origin", b"https://www.app.example")], 200, id="trusted"),
        pytest.param([(b"sec-fetch-site", b"same-site")], 403, id="subdomain, no Origin"),
        pytest.param([(b"sec-fetch-site", b"same-origin"), (b"sec-fetch-site", b"cross-site")], 403, id="both"),
        pytest.param(ELSEWHERE, 403, id="Origin alone"),
        pytest.param([(b"origin", b"null")], 403, id="null"),
        pytest.param([(b"origin", BASE.encode() + b".evil.example")], 403, id="begins as ours"),
        pytest.param([(b"origin", b"http://app.example")], 403, id="http"),
        pytest.param([(b"origin", BASE.encode() + b":8443")], 403, id="port"),
        pytest.param([*ORIGIN, *ELSEWHERE], 403, id="two Origins"),
        pytest.param(ORIGIN, 200, id="our Origin alone"),
        pytest.param([], 200, id="no browser"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "post", "FOO"])
async def test_unsafe_requests_come_from_pages_of_ours(
    fake_issuer: FakeIssuer, headers: Headers, status: int, method: str
) -> None:
    """Z-csrf-post."""
    door = door_of(fake_issuer, trusted_origins=["https://www.app.example"], optional=["/maybe"])
    browser = await browser_of(door, fake_issuer)

    answer = await browser.ask(method=method, headers=headers)

    assert answer.status == status
    assert (await browser.ask("/maybe", method=method, headers=headers)).status == status
    assert (await browser.ask(headers=headers)).status == 200  # GET changes nothing
    if status == 403:
        assert json.loads(answer.body)["error_description"] == "The request came from another site."
        assert answer.seen is None


async def test_a_token_is_not_sent_by_a_browser_alone(door: Door, fake_issuer: FakeIssuer) -> None:
    """Z-csrf-post: whoever sends one means it."""
    browser = await browser_of(door, fake_issuer)

    answer = await browser.ask(method="POST", headers=ELSEWHERE, token=fake_issuer.token())

    assert answer.status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param(ORIGIN, 101, id="ours"),
        pytest.param([(b"origin", b"https://www.app.example")], 101, id="trusted"),
        pytest.param(ELSEWHERE, 403, id="another"),
        pytest.param([], 403, id="none"),
        pytest.param([(b"origin", b"null")], 403, id="null"),
        pytest.param([*ORIGIN, *ELSEWHERE], 403, id="two"),
    ],
)
async def test_websockets_are_opened_by_pages_of_ours(fake_issuer: FakeIssuer, headers: Headers, status: int) -> None:
    door = door_of(fake_issuer, trusted_origins=["https://www.app.example"])
    browser = await browser_of(door, fake_issuer)

    answer = await browser.handshake(headers=headers)

    assert answer.status == status
    if status == 101:
        assert answer.seen is not None
        assert answer.seen["user"].subject == "alice"
    assert (await browser.handshake(headers=headers, token=fake_issuer.token("bob"))).status == 101


# ------------------------------------------------------------------------------------------- public, optional, rules


async def test_public_paths_do_not_read_the_cookie(fake_issuer: FakeIssuer) -> None:
    door = door_of(fake_issuer, public=["/hello"])
    browser = await browser_of(door, fake_issuer)

    answer = await browser.ask("/hello")

    assert answer.seen is not None
    assert not answer.seen["user"].is_authenticated
    browser.jar[NAME] = "A" * 64
    assert (await browser.ask("/hello")).status == 200
    assert browser.set_cookies == []


async def test_a_dead_cookie_on_an_optional_path_is_nobody_and_goes(fake_issuer: FakeIssuer) -> None:
    door = door_of(fake_issuer, optional=["/maybe"])
    browser = await browser_of(door, fake_issuer)
    assert claims_of(await browser.ask("/maybe"))["sub"] == "alice"

    browser.jar[NAME] = "A" * 64
    answer = await browser.ask("/maybe")

    assert (answer.status, answer.body) == (200, b"null")
    assert clears(browser)
    assert (await browser.ask("/maybe")).body == b"null"
    assert browser.set_cookies == []


async def test_a_page_that_fetches_takes_no_cookie_away(fake_issuer: FakeIssuer) -> None:
    """Its request may have left before a login in another tab, and the answer come after it."""
    door = door_of(fake_issuer, optional=["/maybe"])
    browser = Browser(door, fake_issuer)

    for path, status in (("/maybe", 200), ("/orders", 401)):
        browser.jar[NAME] = "A" * 64
        assert (await browser.ask(path, headers=FETCH)).status == status
        assert browser.set_cookies == []


async def test_a_program_with_a_dead_cookie_is_told_to_forget_it(door: Door, fake_issuer: FakeIssuer) -> None:
    browser = Browser(door, fake_issuer)
    browser.jar[NAME] = "A" * 64

    assert (await browser.ask()).status == 401

    assert clears(browser)


async def test_rules_hold_for_sessions(fake_issuer: FakeIssuer) -> None:
    door = door_of(
        fake_issuer,
        rules=[Rule("/read", scopes=("orders:read",)), Rule("/write", scopes=("orders:write",))],
    )
    browser = await browser_of(door, fake_issuer)

    assert (await browser.ask("/read")).status == 200
    assert (await browser.ask("/write")).status == 403
    assert (await browser.ask("/write", headers=NAVIGATION)).status == 403  # a login would change nothing


def app_of(fake_issuer: FakeIssuer, **settings: Any) -> tuple[Door, Any]:
    """Return a door, and an app behind it that asks more with Starlette's own means."""

    @requires("orders:read")
    async def read(request: Any) -> JSONResponse:
        return JSONResponse({"sub": request.user.subject, "token": await request.auth.access_token()})

    @requires("orders:write")
    async def write(request: Any) -> JSONResponse:
        return JSONResponse({"sub": request.user.subject})

    door = door_of(fake_issuer, **settings)
    inner = OIDCMiddleware(
        Starlette(routes=[Route("/read", read)]), oidc=door.oidc, rules=[Rule("/read", scopes=("orders:write",))]
    )
    app = Starlette(routes=[Route("/read", read), Route("/write", write), Mount("/mount", app=inner)])
    return door, app


async def test_requires_of_starlette_and_mounts(fake_issuer: FakeIssuer) -> None:
    door, app = app_of(fake_issuer)
    browser = await browser_of(door, fake_issuer)
    door.app.app = app

    answer = await browser.ask("/read")

    assert json.loads(answer.body)["sub"] == "alice"
    assert (await browser.ask("/write")).status == 403
    assert (await browser.ask("/mount/read")).status == 403


# --------------------------------------------------------------------------------------------------------- caching


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param([], "no-store", id="F-cache-control nothing said"),
        pytest.param([(b"content-type", b"text/html"), (b"etag", b'"1"')], "no-store", id="F-cache-control page"),
        pytest.param(
            [(b"content-type", b"Text/HTML"), (b"etag", b'"1"')], "no-store", id="F-cache-control page in capitals"
        ),
        pytest.param(
            [(b"content-type", b"text/css"), (b"etag", b'"1"')], "private, no-cache", id="F-cache-control validator"
        ),
        pytest.param([(b"cache-control", b"public, max-age=60")], "public, max-age=60", id="the app's word counts"),
    ],
)
async def test_no_shared_cache_keeps_an_answer(
    door: Door, fake_issuer: FakeIssuer, sent: Headers, expected: str
) -> None:
    browser = await browser_of(door, fake_issuer)
    door.answers = [
        {"type": "http.response.start", "status": 200, "headers": sent},
        {"type": "http.response.body", "body": b"x"},
    ]

    assert (await browser.ask()).headers["cache-control"] == expected
    with_token = await browser.ask(token=fake_issuer.token())
    assert with_token.headers.get("cache-control", "") == dict(sent).get(b"cache-control", b"").decode()


def test_any_cookie_header_is_answered(fake_issuer: FakeIssuer) -> None:
    """Z-session-idor, Z-toss: whatever bytes come, nobody is let in by them, and nothing breaks."""
    pieces = st.sampled_from(
        [NAME.encode(), b"=", b";", b" ", b"A" * 64, b"A" * 63, b'"', b"\x00", b"\xff", b"\r\n", b","]
    )
    headers = st.lists(st.lists(pieces, max_size=8).map(b"".join) | st.binary(max_size=80), max_size=3)
    with asyncio.Runner() as runner:
        door = door_of(fake_issuer)

        @given(headers, st.sampled_from(["GET", "POST"]))
        def check(values: list[bytes], method: str) -> None:
            answer = runner.run(door.ask(method=method, headers=[(b"cookie", value) for value in values]))
            assert answer.status in (400, 401)
            assert answer.seen is None

        check()
        runner.run(door.oidc.stop())


async def test_a_form_that_came_too_late_gets_a_page_with_the_way_to_the_login(door: Door) -> None:
    """It is not sent there by itself: what was in the form would be lost without a word."""
    answer = await door.ask("/orders", method="POST", headers=[*NAVIGATION, (b"origin", BASE.encode())])
    assert (answer.status, "location" in answer.headers) == (401, False)
    assert f'<a href="{BASE}/oauth2/start">Sign in</a>' in answer.body.decode()
