"""Revocations for a minute while Redis is frozen, or a node is cut off: nobody claims to know what he does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic

import pytest
from revocation_peer import SECRET
from test_revocation_nodes import facts, is_fresh, status

from oidc_middleware import OIDC
from oidc_middleware.testing import FakeIssuer

from redis_kit import Proxy, RedisServer, until

pytestmark = pytest.mark.anyio

FROZEN = 30.0
CUT_OFF = 60.0
HEALED = 30.0
EVERY = 0.02
"""Seconds between two revocations of a node."""
MAX_STALENESS = 2.0


class Fleet:
    """Three nodes, each with a link of its own, that revoke all the time and are watched while they do."""

    def __init__(self, nodes: list[OIDC], links: list[Proxy], issuer: FakeIssuer) -> None:
        self.nodes = nodes
        self.links = links
        self.shared: list[tuple[float, str]] = []
        """When a revocation was acknowledged as shared, and the token."""
        self.lesser: list[str] = []
        self.looks = 0
        self._issuer = issuer
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def revoked(self) -> list[str]:
        """All that was acknowledged, however."""
        return [token for _, token in self.shared] + self.lesser

    async def busy(self, seconds: float, each: Callable[[], None]) -> None:
        """Let everybody revoke for so long, and look at everybody, all the time."""
        until_ = monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for oidc in self.nodes:
                group.create_task(self._revoke(oidc, until_))
            while monotonic() < until_:
                self.check()
                each()
                await asyncio.sleep(0.05)

    def check(self) -> None:
        """Check the promise: what was acknowledged as shared before now − staleness is enforced."""
        for oidc in self.nodes:
            staleness = facts(oidc)["staleness"]
            if staleness is None:
                continue
            as_of = monotonic() - staleness - 0.001
            for token in [token for at, token in self.shared if at < as_of][-100:]:
                assert oidc.revocations.check(token).status == "revoked", staleness
            self.looks += 1

    async def well(self) -> None:
        """Wait until all know everything, and see that they refuse it."""
        for oidc in self.nodes:
            await until(lambda oidc=oidc: is_fresh(oidc) and not facts(oidc)["unacknowledged"], HEALED)
        tokens = self.revoked
        for oidc in self.nodes:
            await until(lambda oidc=oidc: facts(oidc)["entries"] == len(tokens), HEALED)
            assert all(oidc.revocations.check(token).status == "revoked" for token in tokens)
            for token in tokens[::50]:
                assert await status(oidc, token) == 401

    async def _revoke(self, oidc: OIDC, until_: float) -> None:
        while monotonic() < until_:
            token = self._issuer.token("alice")
            receipt = await oidc.revoke.token(token)
            assert oidc.revocations.check(token).status == "revoked"
            if receipt == "shared":
                self.shared.append((monotonic(), token))
            else:
                assert receipt == "journaled"
                self.lesser.append(token)
            await asyncio.sleep(EVERY)


@pytest.fixture
def issuer(fake_issuer_factory: Callable[..., FakeIssuer]) -> FakeIssuer:
    return fake_issuer_factory(algorithms=("ES256",))


@pytest.fixture
async def fleet(redis_server: RedisServer, issuer: FakeIssuer, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        links = [await stack.enter_async_context(Proxy(redis_server.port)) for _ in range(3)]
        nodes = [
            await stack.enter_async_context(
                OIDC(
                    issuer=issuer.url,
                    audience=issuer.audience,
                    transport=issuer.transport(),
                    cache=link.url,
                    secret=SECRET,
                    journal=tmp_path / f"{number}.journal",
                    max_staleness=MAX_STALENESS,
                    on_stale="deny",
                )
            )
            for number, link in enumerate(links)
        ]
        fleet = Fleet(nodes, links, issuer)
        await fleet.well()
        yield fleet


async def test_redis_is_frozen_for_30_seconds(fleet: Fleet, redis_server: RedisServer, issuer: FakeIssuer) -> None:
    """Y-stop: every revocation is on a disk meanwhile, and nobody with a token that may be revoked is let in."""
    await fleet.busy(3, lambda: None)
    assert fleet.shared
    redis_server.stop()
    frozen = monotonic()

    def known() -> None:
        for oidc in fleet.nodes:
            assert monotonic() - facts(oidc)["staleness"] <= frozen

    before = len(fleet.shared)
    await fleet.busy(FROZEN, known)
    assert len(fleet.shared) == before
    assert len(fleet.lesser) > FROZEN
    assert {await status(oidc, issuer.token("bob")) for oidc in fleet.nodes} == {503}
    redis_server.cont()
    await fleet.well()
    await fleet.busy(3, lambda: None)
    assert len(fleet.shared) > before
    await fleet.well()
    assert {await status(oidc, issuer.token("bob")) for oidc in fleet.nodes} == {200}


@pytest.mark.parametrize("how", ["half-open", "refused"])
async def test_one_of_three_is_cut_off_for_60_seconds(fleet: Fleet, issuer: FakeIssuer, how: str) -> None:
    """Y-partition-one: the others do not notice; it knows that it does not know, and they learn what it revoked."""
    *others, lonely = fleet.nodes
    link = fleet.links[-1]
    await fleet.busy(3, lambda: None)
    cut_off = monotonic()
    if how == "half-open":
        link.swallow = True
    else:
        link.refuse = True
        await link.cut()

    def known() -> None:
        assert monotonic() - facts(lonely)["staleness"] <= cut_off + 0.5  # what was on the way may still arrive
        if monotonic() > cut_off + MAX_STALENESS + 1:
            assert facts(lonely)["stale"]

    shared = len(fleet.shared)
    await fleet.busy(CUT_OFF, known)
    assert len(fleet.shared) > shared + CUT_OFF, "the others go on"
    assert len(fleet.lesser) > CUT_OFF
    for oidc in others:
        assert is_fresh(oidc)
        assert await status(oidc, issuer.token("bob")) == 200
    assert await status(lonely, issuer.token("bob")) == 503
    link.swallow = link.refuse = False
    await fleet.well()
    await fleet.busy(3, lambda: None)
    await fleet.well()
    assert await status(lonely, issuer.token("bob")) == 200
