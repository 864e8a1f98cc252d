"""The endpoints for whoever is logged in: who they are, and their sessions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oidc_middleware.errors import BackendUnavailable
from oidc_middleware.testing import FakeIssuer, ManualClock

from abuse.door import Answer, Door, is_503
from session_kit import BASE, FETCH, NAME, NAVIGATION, Browser, at_issuer, browser_of, door_of

pytestmark = pytest.mark.anyio

SESSIONS = "/oauth2/sessions"
ORIGIN = [(b"origin", BASE.encode())]
FORM = [(b"content-type", b"application/x-www-form-urlencoded")]


@pytest.fixture
def door(fake_issuer: FakeIssuer) -> Door:
    return door_of(fake_issuer)


def read(answer: Answer, status: int = 200) -> Any:
    assert (answer.status, answer.headers["cache-control"]) == (status, "no-store")
    assert answer.seen is None  # the app was not called
    return json.loads(answer.body)


async def names(browser: Browser) -> list[str]:
    return [each["name"] for each in read(await browser.ask(SESSIONS))["sessions"]]


async def test_userinfo_answers_as_oauth2_proxy_does(door: Door, fake_issuer: FakeIssuer) -> None:
    fake_issuer.users["alice"] = {
        "email": "alice@example.com",
        "email_verified": True,
        "groups": ["staff", "admins"],
        "preferred_username": "alice99",
    }
    browser = await browser_of(door, fake_issuer)

    assert read(await browser.ask("/oauth2/userinfo", headers=FETCH)) == {
        "user": "alice",
        "email": "alice@example.com",
        "groups": ["admins", "staff"],
        "preferredUsername": "alice99",
    }
    fake_issuer.users["bob"] = {"email": "alice@example.com"}
    other = await browser_of(door, fake_issuer, "bob")
    assert read(await other.ask("/oauth2/userinfo")) == {"user": "bob", "email": ""}  # nobody has verified it
    assert read(await door.ask("/oauth2/userinfo", token=fake_issuer.token("carol")))["user"] == "carol"


async def test_nobody_is_told_nothing(door: Door, fake_issuer: FakeIssuer) -> None:
    for path in ("/oauth2/userinfo", SESSIONS, f"{SESSIONS}/x"):
        answer = await Browser(door, fake_issuer).ask(path, headers=NAVIGATION)
        assert (answer.status, answer.headers.get("location")) == (401, None), path


async def test_ones_own_sessions_are_listed(door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    first = await browser_of(door, fake_issuer)
    oidc_clock.advance(10)
    second = await browser_of(door, fake_issuer)
    await browser_of(door, fake_issuer, "bob")

    listed = read(await first.ask(SESSIONS))["sessions"]

    now = int(oidc_clock.now())
    assert [(each["current"], each["began"], each["ends"]) for each in listed] == [
        (False, now, now + 43200),
        (True, now - 10, now - 10 + 43200),
    ]
    assert await names(second) == [each["name"] for each in listed]
    for secret in (first.cookie, second.cookie):
        assert secret not in json.dumps(listed)


async def test_the_browser_of_each_is_told(door: Door, fake_issuer: FakeIssuer) -> None:
    browser = Browser(door, fake_issuer)
    begun = await browser.ask(headers=NAVIGATION)
    query = (await at_issuer(fake_issuer, begun.headers["location"], "alice")).partition("?")[2].encode()
    await browser.ask("/oauth2/callback", query=query, headers=[(b"user-agent", b"Mozilla/5.0 " + b"x" * 1000)])

    (listed,) = read(await browser.ask(SESSIONS))["sessions"]

    assert listed["user_agent"] == ("Mozilla/5.0 " + "x" * 1000)[:256]


@pytest.mark.parametrize("how", ["path", "query", "form"])
async def test_one_of_them_is_ended_by_its_name(door: Door, fake_issuer: FakeIssuer, how: str) -> None:
    here, there = await browser_of(door, fake_issuer), await browser_of(door, fake_issuer)
    name = (await names(here))[0]

    if how == "path":
        answer = await here.ask(f"{SESSIONS}/{name}", method="DELETE", headers=ORIGIN)
    elif how == "query":
        answer = await here.ask(SESSIONS, method="DELETE", query=f"name={name}".encode(), headers=ORIGIN)
    else:
        answer = await here.ask(SESSIONS, method="POST", body=f"name={name}".encode(), headers=ORIGIN + FORM)

    assert (answer.status, answer.body, here.set_cookies) == (204, b"", [])
    assert (await there.ask(headers=FETCH)).status == 401
    assert await names(here) != []
    assert name not in await names(here)


async def test_this_one_is_ended_too(door: Door, fake_issuer: FakeIssuer) -> None:
    here = await browser_of(door, fake_issuer)
    cookie, (name,) = here.cookie, await names(here)

    assert (await here.ask(f"{SESSIONS}/{name}", method="DELETE", headers=ORIGIN)).status == 204

    assert NAME not in here.jar
    here.jar[NAME] = cookie
    assert (await here.ask(headers=FETCH)).status == 401


async def test_nobody_ends_what_is_not_theirs(door: Door, fake_issuer: FakeIssuer) -> None:
    """Z-session-idor: a name of somebody else's, and names that nobody has."""
    alice, bob = await browser_of(door, fake_issuer), await browser_of(door, fake_issuer, "bob")
    (of_bob,) = await names(bob)

    for name in (of_bob, "x", "%00", "A" * 4096, "..%2F..", bob.cookie):
        answer = await alice.ask(f"{SESSIONS}/{name}", method="DELETE", headers=ORIGIN)
        assert answer.status in (400, 404), name
    assert read(await alice.ask(SESSIONS, method="DELETE", headers=ORIGIN), 400)["error"] == "invalid_request"

    assert (await bob.ask(headers=FETCH)).status == 200


async def test_a_page_of_another_site_ends_none(door: Door, fake_issuer: FakeIssuer) -> None:
    """Z-csrf-post."""
    here = await browser_of(door, fake_issuer)
    (name,) = await names(here)

    for method in ("DELETE", "POST"):
        headers = [(b"origin", b"https://evil.example"), *FORM]
        assert (await here.ask(f"{SESSIONS}/{name}", method=method, headers=headers)).status == 403

    assert (await here.ask(headers=FETCH)).status == 200


async def test_a_token_does_not_reach_the_sessions_of_its_subject(door: Door, fake_issuer: FakeIssuer) -> None:
    here = await browser_of(door, fake_issuer)
    (name,) = await names(here)
    token = fake_issuer.token("alice")

    assert read(await door.ask(SESSIONS, token=token), 403)["error"] == "access_denied"
    assert (await door.ask(f"{SESSIONS}/{name}", method="DELETE", token=token)).status == 403
    assert (await here.ask(headers=FETCH)).status == 200


async def test_other_methods(door: Door, fake_issuer: FakeIssuer) -> None:
    here = await browser_of(door, fake_issuer)

    answer = await here.ask(SESSIONS, method="PUT", headers=ORIGIN)

    assert (answer.status, answer.headers["allow"]) == (405, "DELETE, GET, HEAD, POST")


async def test_a_user_of_many_sessions(door: Door, fake_issuer: FakeIssuer) -> None:
    """The list is bounded: the oldest ones are not on it, and work all the same."""
    browsers = [await browser_of(door, fake_issuer) for _ in range(66)]

    assert len(await names(browsers[-1])) == 64
    assert (await browsers[0].ask()).status == 200


async def test_sessions_over_and_gone_are_not_listed(fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    fake_issuer.token_overrides = {"refresh_token": None}
    door = door_of(fake_issuer, session_idle=100, session_absolute=100)
    await browser_of(door, fake_issuer)
    oidc_clock.advance(60)
    second = await browser_of(door, fake_issuer)
    oidc_clock.advance(60)

    assert len(await names(second)) == 1


async def test_a_store_that_is_down_is_told(
    door: Door, fake_issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await browser_of(door, fake_issuer)

    async def down(_: object) -> None:
        raise BackendUnavailable("down")

    monkeypatch.setattr(door.oidc.caches.session, "get_newest", down)

    assert is_503(await here.ask(SESSIONS))


async def test_without_login_there_are_no_such_endpoints(fake_issuer: FakeIssuer) -> None:
    door = Door.of(fake_issuer)

    for path in ("/oauth2/userinfo", SESSIONS):
        assert (await door.ask(path, token=fake_issuer.token())).seen is not None
