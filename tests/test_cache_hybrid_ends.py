"""What ends while a call waits for something else: nobody gets it after its end."""

from __future__ import annotations

import asyncio

import pytest

from oidc_middleware.cache import TYPES, HybridBackend, MemoryBackend
from oidc_middleware.testing import ManualClock

from tier_kit import Tier, turns

pytestmark = pytest.mark.anyio

GENERAL = TYPES["general"]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(now=1_000_000.0)


@pytest.fixture
def tier(clock: ManualClock) -> Tier:
    return Tier(clock)


@pytest.fixture
def backend(clock: ManualClock, tier: Tier) -> HybridBackend:
    return HybridBackend(MemoryBackend(clock), tier, clock=clock, budget=1000.0)


async def test_memory_had_it_and_the_store_was_asked_for_another(
    clock: ManualClock, tier: Tier, backend: HybridBackend
) -> None:
    await backend.set(GENERAL, b"near", b"v", clock.now() + 30, wait=True)
    tier.hold("get_many")
    reading = asyncio.create_task(backend.get_many(GENERAL, [b"near", b"far"]))
    await turns()
    clock.advance(31)
    tier.release()
    assert await reading == {}


async def test_it_was_written_here_and_a_batch_asked_for_another(
    clock: ManualClock, tier: Tier, backend: HybridBackend
) -> None:
    tier.hold("get_many", "set")
    readings = [asyncio.create_task(backend.get(GENERAL, b"on the wire"))]
    await turns()
    readings += [asyncio.create_task(backend.get(GENERAL, key)) for key in (b"k", b"far")]
    await turns()
    await backend.set(GENERAL, b"k", b"v", clock.now() + 30)
    tier.gates.pop("get_many").set()
    tier.hold("get_many")  # the next batch
    await turns()
    assert tier.seen[-1] == ("get_many", [b"far"])
    clock.advance(31)
    tier.release()
    assert await asyncio.gather(*readings) == [None, None, None]
