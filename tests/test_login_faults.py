"""Logins while something is broken, and under anything at all: a page, never a loop, a session or a 500."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from oidc_middleware.testing import FakeIssuer, faults

from abuse.hostile_op import CLIENT, SECRET
from login_kit import CALLBACK, Browser, Service, service
from redis_kit import PATIENCE, RedisServer

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient_tiers")]


@pytest.fixture
async def issuer() -> AsyncIterator[FakeIssuer]:
    made = FakeIssuer(algorithms=("ES256",), audience="api")
    made.client(CLIENT, secret=SECRET, redirect_uris=[CALLBACK])
    async with made.serve():
        yield made


async def until(call: Callable[[], Awaitable[httpx2.Response]], status: int) -> httpx2.Response:
    """Ask until this is the answer."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await call()
            if answer.status_code == status:
                return answer
            await asyncio.sleep(0.05)


async def test_a_login_while_redis_is_away_is_503_and_goes_on_when_it_is_back(
    issuer: FakeIssuer, redis_server: RedisServer
) -> None:
    options = {"cache": redis_server.url, "secret": "s" * 32}
    async with service(issuer.url, **options) as found, found.browser() as browser:
        assert (await browser.log_in()).status_code == 302
        begun = await browser.start()
        back = await browser.sign_in(begun.headers["location"])
        asked = issuer.requests["token"]
        redis_server.kill()
        answer = await browser.get(back)

        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert "location" not in answer.headers
        assert issuer.requests["token"] == asked
        assert (await browser.start()).status_code == 302  # a start needs no store

        redis_server.restart()
        await until(browser.log_in, 302)
        assert (await browser.get("/orders")).status_code == 200


async def test_an_issuer_that_falls_silent_between_start_and_answer(issuer: FakeIssuer) -> None:
    async with service(issuer.url) as found, found.browser() as browser:
        begun = await browser.start()
        back = await browser.sign_in(begun.headers["location"])
        issuer.fault("token", faults.dripping())
        door = found.oidc._issuers._door
        door._deadline = 1.0
        answer = await browser.get(back)
        door._deadline = PATIENCE
        assert (answer.status_code, browser.session, browser.flows) == (503, None, [])

        issuer.heal()
        again = await browser.get(_try_again(answer))
        assert again.status_code == 302
        assert (await browser.get(await browser.sign_in(again.headers["location"]))).headers[
            "location"
        ] == "/orders?id=1"


def _try_again(page: httpx2.Response) -> str:
    return page.text.partition('href="')[2].partition('"')[0].replace("&amp;", "&")


async def test_a_browser_that_leaves_in_the_middle_leaves_nothing_behind(issuer: FakeIssuer) -> None:
    release = asyncio.Event()
    async with service(issuer.url) as found, found.browser() as browser:
        begun = await browser.start()
        back = await browser.sign_in(begun.headers["location"])
        issuer.fault("token", faults.held(release))
        leaving = asyncio.ensure_future(browser.get(back))
        async with asyncio.timeout(PATIENCE):
            while issuer.requests["token"] == 0:  # noqa: ASYNC110  there is no event to wait for
                await asyncio.sleep(0.01)
        leaving.cancel()
        await asyncio.wait((leaving,))
        release.set()
        issuer.heal()

        assert (await browser.get(back)).status_code == 400
        assert found.sessions.logins == []
        assert (await browser.log_in()).status_code == 302


async def test_fifty_browsers_at_once(issuer: FakeIssuer) -> None:
    async with service(issuer.url) as found:

        async def one(number: int) -> str:
            async with found.browser() as browser:
                answer = await browser.log_in(f"/{number}")
                assert (await browser.get("/me")).status_code == 200
                return str(answer.headers["location"])

        paths = await asyncio.gather(*(one(number) for number in range(50)))

        assert paths == [f"/{number}" for number in range(50)]
        assert len({login.nonce for login in found.sessions.logins}) == 50
        assert issuer.requests["token"] == 50


# Anything at all

SEED = 20261127
_BYTES = b"abcXYZ019%=&;+-_./\\ \t\x00\xff\"'<>"


def changed(data: bytes, chance: random.Random) -> bytes:
    """Return the bytes with a few of them changed, doubled, or gone."""
    found = bytearray(data)
    for _ in range(chance.randrange(1, 6)):
        place = chance.randrange(len(found) + 1)
        how = chance.randrange(4)
        if how == 0:
            found[place : place + 1] = bytes([chance.choice(_BYTES)])
        elif how == 1:
            found[place:place] = bytes(chance.choices(_BYTES, k=chance.randrange(1, 9)))
        elif how == 2:
            del found[place : place + chance.randrange(1, 20)]
        else:
            found[place:place] = found[place : place + chance.randrange(1, 60)]
    return bytes(found)


async def ask(found: Service, path: str, query: bytes, cookie: bytes) -> tuple[int, list[tuple[bytes, bytes]]]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "root_path": "", "scheme": "https",
        "query_string": query, "headers": [(b"cookie", cookie), (b"accept", b"text/html")], "http_version": "1.1",
        "server": ("app.example", 443), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    await found.app(scope, receive, send)
    start = sent[0]
    return start["status"], list(start["headers"])


async def test_no_changed_answer_or_cookie_is_a_login_or_a_500(issuer: FakeIssuer) -> None:
    chance = random.Random(SEED)
    logins = 0
    async with service(issuer.url) as found, found.browser() as browser:
        cookie, query = await _answer(browser)
        for number in range(400):
            other = changed(query, chance) if number % 2 else query
            kept = cookie if number % 2 else changed(cookie, chance)
            status, headers = await ask(found, "/oauth2/callback", other, kept)

            assert status in {302, 400}, (other, kept)
            if status == 302:  # what was changed is read by nobody
                assert dict(headers)[b"location"] == b"/orders?id=1"
                assert _read(other) == _read(query)
                assert cookie in kept
                logins += 1
            if number % 20 == 0 or status == 302:  # the claimed one says no more
                cookie, query = await _answer(browser)
        assert len(found.sessions.logins) == logins < 100


async def _answer(browser: Browser) -> tuple[bytes, bytes]:
    """Return the cookie of a login, and the query of the answer to it."""
    browser.client.cookies.clear()
    begun = await browser.start()
    cookie = begun.headers["set-cookie"].partition(";")[0]
    return cookie.encode(), urlsplit(await browser.sign_in(begun.headers["location"])).query.encode()


def _read(query: bytes) -> dict[str, list[str]]:
    found = parse_qs(query.decode("latin-1"))
    return {name: found[name] for name in ("state", "code", "iss")}


async def test_no_start_leads_anywhere_but_to_the_issuer(issuer: FakeIssuer) -> None:
    chance = random.Random(SEED)
    query = b"rd=%2Forders%3Fid%3D1&issuer=" + issuer.url.encode()
    async with service(issuer.url, authorization_params_from_query=["login_hint"]) as found:
        for _ in range(400):
            status, headers = await ask(
                found, "/oauth2/start", changed(query, chance) + b"&login_hint=a%26state%3Dx", b""
            )

            assert status in {302, 400}
            if status == 302:
                location = next(value for name, value in headers if name == b"location").decode()
                assert location.startswith(f"{issuer.url}/authorize?login_hint=")
                assert location.count("&state=") == 1
                assert "redirect_uri=https%3A%2F%2Fapp.example%2Foauth2%2Fcallback" in location
