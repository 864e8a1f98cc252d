"""Sessions and their store: it is down, it forgets, it is copied. Nobody becomes anybody, nor goes in circles."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from oidc_middleware import OIDC
from oidc_middleware.session.cookie import read
from oidc_middleware.session.record import opened
from oidc_middleware.testing import FakeIssuer, ManualClock

from abuse.door import Door, is_503
from redis_kit import PATIENCE, RedisServer, until
from session_kit import FETCH, LOGIN, NAME, NAVIGATION, Browser, browser_of, know_the_app

pytestmark = pytest.mark.anyio

MakeNode = Callable[..., Door]
OUTAGES = ["frozen", "gone"]


@pytest.fixture
async def node(fake_issuer: FakeIssuer, oidc_clock: ManualClock, tmp_path: Path) -> AsyncIterator[MakeNode]:
    """Make nodes of one service; they are stopped in the end."""
    know_the_app(fake_issuer)
    services: list[OIDC] = []

    def make(cache: str, **settings: Any) -> Door:
        given = {
            "issuer": fake_issuer.url,
            "audience": fake_issuer.audience,
            "journal": tmp_path / f"{len(services)}.journal",
            **LOGIN,
        }
        if cache != "memory://":
            given |= {"secret": "s" * 32}
        service = OIDC(cache=cache, clock=oidc_clock, transport=fake_issuer.transport(), **(given | settings))
        services.append(service)
        return Door.before(service, oidc_clock)

    yield make
    for service in services:
        await service.stop()


def at(door: Door, browser: Browser) -> Browser:
    """Return the same browser before another node."""
    other = Browser(door, browser.issuer)
    other.jar = browser.jar
    return other


async def is_fresh(door: Door) -> None:
    await door.ask()  # it starts with the first request
    await until(lambda: door.oidc.stats()["revocations"]["loaded"] and not door.oidc.stats()["revocations"]["stale"])


def end(server: RedisServer, outage: str) -> None:
    if outage == "frozen":
        server.stop()
    else:
        server.kill()


def mend(server: RedisServer, outage: str) -> None:
    if outage == "frozen":
        server.cont()
    else:
        server.start()


@pytest.mark.parametrize("outage", OUTAGES)
async def test_while_the_store_is_down(
    redis_server: RedisServer, node: MakeNode, fake_issuer: FakeIssuer, oidc_clock: ManualClock, outage: str
) -> None:
    """Known sessions go on, unknown ones get 503: never 401, never a login, never somebody anonymous."""
    here, there = node(redis_server.url, optional=["/maybe"]), node(redis_server.url, optional=["/maybe"])
    browser = await browser_of(here, fake_issuer)
    other = at(there, browser)
    assert (await browser.ask()).status == 200
    await is_fresh(there)

    end(redis_server, outage)
    oidc_clock.advance(6)

    for path in ("/orders", "/maybe"):
        for headers in (FETCH, NAVIGATION):
            answer = await browser.ask(path, headers=headers)
            assert (answer.status, json.loads(answer.body)["sub"]) == (200, "alice")
            assert is_503(await other.ask(path, headers=headers))
            assert NAME in browser.jar
    assert here.oidc.sessions is not None
    assert here.oidc.sessions.stats()["allowed_unseen"] >= 1

    mend(redis_server, outage)
    oidc_clock.advance(6)

    await answers(browser, 200)
    await answers(other, 200)


async def answers(browser: Browser, status: int) -> None:
    """Wait for an answer: until the nodes have noticed it is another one."""
    async with asyncio.timeout(4 * PATIENCE):
        while True:
            if (await browser.ask(headers=FETCH)).status == status:
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("outage", OUTAGES)
async def test_where_the_policy_denies_it_nobody_goes_on(
    redis_server: RedisServer, node: MakeNode, fake_issuer: FakeIssuer, oidc_clock: ManualClock, outage: str
) -> None:
    here = node(redis_server.url, on_stale="deny")
    browser = await browser_of(here, fake_issuer)
    assert (await browser.ask()).status == 200

    end(redis_server, outage)
    oidc_clock.advance(6)

    for headers in (FETCH, NAVIGATION):
        assert is_503(await browser.ask(headers=headers))
    assert NAME in browser.jar
    mend(redis_server, outage)


@pytest.mark.parametrize("outage", OUTAGES)
async def test_nobody_logs_in_while_the_store_is_down(
    redis_server: RedisServer, node: MakeNode, fake_issuer: FakeIssuer, outage: str
) -> None:
    """A session that only one node knows would be none on the next: the callback says so, and the login waits."""
    here = node(redis_server.url)
    await browser_of(here, fake_issuer)
    browser = Browser(here, fake_issuer)
    end(redis_server, outage)

    answer = await browser.log_in()

    assert (answer.status, answer.headers.get("location")) == (503, None)
    assert NAME not in browser.jar
    mend(redis_server, outage)


async def test_a_session_that_was_ended_while_the_store_was_down_stays_dead(
    redis_server: RedisServer, node: MakeNode, fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    """Z-cookie-rollback: the record is still in the store when it is back, and the ledger knows better."""
    here, there = node(redis_server.url), node(redis_server.url)
    browser = await browser_of(here, fake_issuer)
    assert (await at(there, browser).ask()).status == 200
    known = (await browser.ask()).seen
    assert known is not None
    redis_server.stop()

    assert here.oidc.sessions is not None
    assert await here.oidc.sessions.end(known["auth"]) == "journaled"

    assert (await browser.ask(headers=FETCH)).status == 401
    redis_server.cont()
    oidc_clock.advance(6)
    await answers(at(there, browser), 401)
    assert (await browser.ask(headers=FETCH)).status == 401


async def test_what_the_store_forgot_is_written_back_by_whoever_knows_it(
    redis_server: RedisServer, node: MakeNode, fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    here, there = node(redis_server.url), node(redis_server.url)
    browser = await browser_of(here, fake_issuer)
    redis_server.admin.flushall()

    assert (await at(there, browser).ask(headers=FETCH)).status == 401
    oidc_clock.advance(6)
    assert (await browser.ask(headers=FETCH)).status == 200

    oidc_clock.advance(6)
    assert (await at(there, browser).ask(headers=FETCH)).status == 200


async def test_a_copy_of_the_store_opens_no_session(
    redis_server: RedisServer, node: MakeNode, fake_issuer: FakeIssuer, tmp_path: Path
) -> None:
    """A copy of Redis with this source: not without the service's secret, and with it not without the cookie."""
    fake_issuer.users["alice"] = {"email": "alice@example.com"}
    here = node(redis_server.url)
    browser = await browser_of(here, fake_issuer)
    known = (await browser.ask()).seen
    assert known is not None
    record, cookie = known["auth"].record, read(browser.cookie.encode())
    assert cookie is not None
    redis_server.admin.config_set("rdbcompression", "no")
    redis_server.admin.save()
    copy = RedisServer()
    shutil.copy(redis_server.directory / "dump.rdb", copy.directory / "dump.rdb")
    with copy:
        assert copy.admin.dbsize() > 0
        dump = (copy.directory / "dump.rdb").read_bytes()
        said = (browser.cookie, record.access_token, record.refresh_token, record.id_token, record.name, record.nonce)
        for secret in (*said, "alice", fake_issuer.url):
            assert secret.encode() not in dump, secret
        for part in (cookie.store_key, cookie.key):
            assert part not in dump
            assert part.hex().encode() not in dump

        # Another secret: even the right cookie opens nothing.
        stranger = node(copy.url, secret="t" * 32)
        assert (await at(stranger, browser).ask(headers=FETCH)).status == 401

        # The same secret, and everything that it opens: the record is sealed with what only the browser has.
        insider = node(copy.url)
        await insider.ask()
        data = await insider.oidc.caches.session.get(cookie.store_key)
        assert data is not None
        for secret in said:
            assert secret.encode() not in data
        assert opened(data, cookie) == record
        assert opened(data, cookie._replace(key=bytes(32))) is None
        assert opened(data, cookie._replace(store_key=bytes(32))) is None


async def test_memory_is_enough_for_one_process(node: MakeNode, fake_issuer: FakeIssuer) -> None:
    here = node("memory://")
    browser = await browser_of(here, fake_issuer)

    assert (await browser.ask()).status == 200
    known = (await browser.ask()).seen
    assert known is not None
    assert here.oidc.sessions is not None
    assert await here.oidc.sessions.end(known["auth"]) == "local"
    assert (await browser.ask(headers=FETCH)).status == 401


async def test_sessions_of_workers_over_one_file(node: MakeNode, fake_issuer: FakeIssuer, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/cache.sqlite"
    here, there = node(url, journal=None), node(url, journal=None)
    browser = await browser_of(here, fake_issuer)

    assert (await at(there, browser).ask()).status == 200


async def test_a_session_of_longer_settings_stays_dead(
    node: MakeNode, fake_issuer: FakeIssuer, oidc_clock: ManualClock, tmp_path: Path
) -> None:
    """Somebody lowers `session_absolute` and starts one node anew; what ends there ends for the other one, too."""
    url, long = f"sqlite:///{tmp_path}/cache.sqlite", {"session_idle": 500_000, "session_absolute": 500_000}
    old, new = node(url, journal=None, **long), node(url, journal=None, session_idle=3600, session_absolute=3600)
    browser = await browser_of(old, fake_issuer)
    other, cookie = at(new, browser), browser.cookie
    oidc_clock.advance(7200)
    assert [(await each.ask()).status for each in (browser, other)] == [200, 200]

    assert (await other.ask("/oauth2/sign_out", headers=NAVIGATION)).status == 303

    browser.jar[NAME] = cookie
    await until(lambda: old.oidc.stats()["revocations"]["entries"] > 0)
    for _ in range(2):
        assert [(await each.ask(headers=FETCH)).status for each in (browser, other)] == [401, 401]
        browser.jar[NAME] = cookie
        oidc_clock.advance(6)


@pytest.mark.parametrize("outage", OUTAGES)
async def test_a_node_that_starts_while_the_store_is_down(
    redis_server: RedisServer, node: MakeNode, fake_issuer: FakeIssuer, oidc_clock: ManualClock, outage: str
) -> None:
    """It knows nobody: 503 for whoever has a cookie, and not a login."""
    browser = await browser_of(node(redis_server.url), fake_issuer)
    end(redis_server, outage)
    fresh = at(node(redis_server.url, optional=["/maybe"]), browser)

    for path in ("/orders", "/maybe"):
        for headers in (FETCH, NAVIGATION):
            assert is_503(await fresh.ask(path, headers=headers))
    assert NAME in browser.jar
    mend(redis_server, outage)
