"""Sessions whose access token is over while the store is down: they go on, for nobody can renew it safely then."""

from __future__ import annotations

import asyncio
import os
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from oidc_middleware import OIDC
from oidc_middleware.errors import BackendUnavailable
from oidc_middleware.testing import FakeIssuer, ManualClock

from abuse.door import Door
from redis_kit import RedisServer
from session_kit import FETCH, LOGIN, NAME, browser_of, know_the_app

pytestmark = pytest.mark.anyio

SLOW_SECONDS = 10.0
"""What the answers take at most on a busy machine: nobody waits for the lock of a node that does not answer."""


@pytest.fixture
async def door(
    redis_server: RedisServer, fake_issuer: FakeIssuer, oidc_clock: ManualClock, tmp_path: Path
) -> AsyncIterator[Door]:
    know_the_app(fake_issuer)
    service = OIDC(
        cache=redis_server.url,
        clock=oidc_clock,
        transport=fake_issuer.transport(),
        issuer=fake_issuer.url,
        audience=fake_issuer.audience,
        secret="s" * 32,
        journal=tmp_path / "journal",
        **(LOGIN | {"scope": "openid offline_access"}),
    )
    yield Door.before(service, oidc_clock)
    await service.stop()


async def test_each_request_goes_on_at_once_and_no_token_is_sent(
    door: Door, redis_server: RedisServer, fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    """Without a lock two nodes could send one refresh token; the issuer would end the session."""
    browser = await browser_of(door, fake_issuer)
    assert (await browser.ask()).status == 200
    exchanged = fake_issuer.requests["token"]
    redis_server.kill()
    oidc_clock.advance(fake_issuer.expires_in + 1)

    async with asyncio.timeout(SLOW_SECONDS):
        for _ in range(4):
            assert (await browser.ask(headers=FETCH)).status == 200
            oidc_clock.advance(2)

    assert fake_issuer.requests["token"] == exchanged
    redis_server.start()


async def test_a_flood_of_made_up_cookies_while_the_store_hangs_turns_nobody_away_who_is_known(
    door: Door, redis_server: RedisServer, fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    """Z-session-idor: each of them is looked up, and so many look-ups at once are no more taken."""
    browser = await browser_of(door, fake_issuer)
    assert (await browser.ask()).status == 200
    sessions = door.oidc.sessions
    assert sessions is not None
    redis_server.stop()
    oidc_clock.advance(6)
    flood = [
        asyncio.ensure_future(sessions.find(b"%s=%s" % (NAME.encode(), urlsafe_b64encode(os.urandom(48)))))
        for _ in range(1500)
    ]
    await asyncio.sleep(0)  # all of them come first
    assert len(sessions._opening._flights) == 1024

    statuses = [(await browser.ask(headers=FETCH)).status for _ in range(3)]

    refused = await asyncio.gather(*flood, return_exceptions=True)
    redis_server.cont()
    assert statuses == [200, 200, 200]
    assert {type(each) for each in refused} == {BackendUnavailable}
