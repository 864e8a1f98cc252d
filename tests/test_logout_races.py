"""A logout in the midst of a login or of a request, at each turn of the event loop: whatever comes last, it is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import httpx2
import pytest
from logged_in_kit import Browser, service

from oidc_middleware import OIDC
from oidc_middleware.testing import FakeIssuer, ManualClock

pytestmark = pytest.mark.anyio

COOKIE = "__Host-oidc_session"
MOST_TURNS = 400


@pytest.fixture
async def oidc(fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> AsyncIterator[OIDC]:
    async with service(fake_issuer, clock=oidc_clock, userinfo=False) as oidc:
        yield oidc


async def turns(number: int) -> None:
    """Let everybody else go on for so many turns of the event loop."""
    for _ in range(number):
        await asyncio.sleep(0)


async def each_turn(work: Coroutine[Any, Any, httpx2.Response], turn: int, then: Any) -> tuple[httpx2.Response, bool]:
    """Begin `work`, do something else after so many turns, and return its result; was it over before that?"""
    task = asyncio.ensure_future(work)
    await turns(turn)
    was_over = task.done()
    await then()
    return await task, was_over


async def tell(browser: Browser, issuer: FakeIssuer, **about: Any) -> None:
    token = issuer.logout_token(about.get("sub"), client_id="web", sid=about.get("sid"))
    answer = await browser.post("/oauth2/backchannel-logout", data={"logout_token": token})
    assert answer.status_code == 200


@pytest.mark.parametrize("by", ["sid", "sub"])
async def test_a_logout_at_any_turn_of_a_login(fake_issuer: FakeIssuer, oidc: OIDC, by: str) -> None:
    """B-unknown-sid, B-before-created: a session that begins while the issuer ends it is over when both are done."""
    refused, began, was_over = 0, 0, False
    for turn in range(MOST_TURNS):
        username = f"user-{turn}"  # a logout by sub holds for the second in which it came, and the clock stands still
        async with Browser(fake_issuer, oidc) as browser:
            callback = await browser.begin(username=username)
            (*_, code) = fake_issuer.grants.codes.values()
            about = {"sid": code.grant.sid} if by == "sid" else {"sub": username}

            async def logout(browser: Browser = browser, about: dict[str, Any] = about) -> None:
                await tell(browser, fake_issuer, **about)

            answer, was_over = await each_turn(browser.go(callback), turn, logout)
            if answer.status_code == 302:
                began += 1
                assert await browser.status() == 401, f"the session lives after a logout at turn {turn}"
            else:
                refused += 1
                assert (answer.status_code, COOKIE in browser.cookies) == (400, False)
        if was_over:
            break

    assert was_over
    assert refused > 0
    assert began > 0


async def test_a_sign_out_at_any_turn_of_a_request(fake_issuer: FakeIssuer, oidc: OIDC) -> None:
    """A request that was let in is answered, and the next one is not."""
    was_over = False
    for turn in range(MOST_TURNS):
        async with Browser(fake_issuer, oidc) as browser:
            await browser.sign_in()
            headers = {"cookie": f"{COOKIE}={browser.session_cookie}", "accept": "application/json"}

            async def sign_out(browser: Browser = browser, headers: dict[str, str] = headers) -> None:
                assert (await browser.post("/oauth2/sign_out", headers=headers)).status_code == 303

            answer, was_over = await each_turn(browser.get("/orders", headers=headers), turn, sign_out)
            assert answer.status_code in {200, 401}
            assert (await browser.get("/orders", headers=headers)).status_code == 401
        if was_over:
            break

    assert was_over


async def test_two_sign_outs_at_any_turn_of_each_other(fake_issuer: FakeIssuer, oidc: OIDC) -> None:
    was_over = False
    for turn in range(MOST_TURNS):
        async with Browser(fake_issuer, oidc) as browser:
            await browser.sign_in()
            headers = {"cookie": f"{COOKIE}={browser.session_cookie}", "accept": "application/json"}

            async def sign_out(browser: Browser = browser, headers: dict[str, str] = headers) -> None:
                assert (await browser.post("/oauth2/sign_out", headers=headers)).status_code == 303

            answer, was_over = await each_turn(browser.post("/oauth2/sign_out", headers=headers), turn, sign_out)
            assert answer.status_code == 303
            assert (await browser.get("/orders", headers=headers)).status_code == 401
        if was_over:
            break

    assert was_over


async def test_a_sign_out_that_is_cancelled_at_any_turn(fake_issuer: FakeIssuer, oidc: OIDC) -> None:
    """A browser that is closed meanwhile: before the issuer hears of it the session is over, or nothing happened."""
    was_over = False
    for turn in range(MOST_TURNS):
        async with Browser(fake_issuer, oidc) as browser:
            await browser.sign_in()
            headers = {"cookie": f"{COOKIE}={browser.session_cookie}", "accept": "application/json"}
            told = fake_issuer.requests["revoke"]
            task = asyncio.ensure_future(browser.post("/oauth2/sign_out", headers=headers))
            await turns(turn)
            was_over = task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            status = (await browser.get("/orders", headers=headers)).status_code
            assert status in ({401} if was_over or fake_issuer.requests["revoke"] > told else {200, 401})
        if was_over:
            break

    assert was_over
