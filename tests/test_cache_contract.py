"""The contract of a cache tier over memory, and what memory alone does."""

from __future__ import annotations

import pytest

from oidc_middleware.cache import TYPES, Backend, MemoryBackend
from oidc_middleware.testing import BackendContract, ManualClock

pytestmark = pytest.mark.anyio

TOKEN, GENERAL, BLACKLIST = TYPES["token"], TYPES["general"], TYPES["blacklist"]
HOUR = 3600.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(now=1_800_000_000.0)


class TestMemoryBackend(BackendContract):
    @pytest.fixture
    def backend(self, clock: ManualClock) -> Backend:
        return MemoryBackend(clock)

    async def test_closed_memory_is_empty(self, backend: Backend, clock: ManualClock) -> None:
        await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
        await backend.close()
        assert await backend.get(TOKEN, b"k") is None
        assert (await backend.ping()).detail == "closed"
        assert backend.stats()["token"].bytes == 0

    async def test_two_backends_share_nothing(self, clock: ManualClock) -> None:
        one, other = MemoryBackend(clock), MemoryBackend(clock)
        await one.set(TOKEN, b"k", b"v", clock.now() + HOUR)
        assert await other.get(TOKEN, b"k") is None
        await other.close()
        assert await one.exists(TOKEN, b"k")

    async def test_a_value_that_is_too_large_is_refused_and_counted(self, clock: ManualClock) -> None:
        memory = MemoryBackend(clock)
        await memory.set(TOKEN, b"k", b"v", clock.now() + HOUR)
        await memory.set(TOKEN, b"k", bytes(1_000_000), clock.now() + HOUR)
        assert await memory.get(TOKEN, b"k") is None, "the outdated value must not come back"
        assert memory.stats()["token"].refused == 1
        await memory.set(TOKEN, bytes(1_000_000), b"v", clock.now() + HOUR)
        assert (memory.stats()["token"].refused, memory.stats()["token"].entries) == (2, 0)
