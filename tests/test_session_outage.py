"""Sessions whose access token is over while the store is down: they go on, for nobody can renew it safely then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from oidc_middleware import OIDC
from oidc_middleware.testing import FakeIssuer, ManualClock

from abuse.door import Door
from redis_kit import RedisServer
from session_kit import FETCH, LOGIN, browser_of, know_the_app

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
