"""Ends: when an entry is there, and when it no longer is."""

from __future__ import annotations

import pytest

from oidc_middleware.cache import Backend, Entry
from oidc_middleware.testing.clock import ManualClock
from oidc_middleware.testing.contract.words import HOUR, NO_TIMES, TOKEN


class LivesContract:
    """An entry is there until its end, and not a moment longer."""

    async def test_a_value_comes_back_with_its_end(self, backend: Backend, clock: ManualClock) -> None:
        await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
        entry = await backend.get(TOKEN, b"k")
        assert entry == Entry(b"v", clock.now() + HOUR)
        assert entry is not None
        assert entry.remaining(clock.now()) == HOUR
        assert entry.remaining(clock.now() + 2 * HOUR) == 0

    async def test_the_last_value_wins_with_its_end(self, backend: Backend, clock: ManualClock) -> None:
        await backend.set(TOKEN, b"k", b"first", clock.now() + HOUR)
        await backend.set(TOKEN, b"k", b"second", clock.now() + 10)
        assert await backend.get(TOKEN, b"k") == Entry(b"second", clock.now() + 10)
        clock.advance(10)
        assert await backend.get(TOKEN, b"k") is None

    async def test_an_end_is_exclusive(self, backend: Backend, clock: ManualClock) -> None:
        await backend.set(TOKEN, b"k", b"v", clock.now() + 10)
        clock.advance(9.999)
        assert await backend.exists(TOKEN, b"k")
        clock.advance(0.001)
        assert not await backend.exists(TOKEN, b"k")
        assert await backend.get(TOKEN, b"k") is None
        assert not await backend.delete(TOKEN, b"k")

    async def test_half_a_second_is_half_a_second(self, backend: Backend, clock: ManualClock) -> None:
        """Seed 10: a remaining life that rounds to zero becomes 'for ever'."""
        await backend.set(TOKEN, b"k", b"v", clock.now() + 0.5)
        clock.advance(0.4)
        assert await backend.exists(TOKEN, b"k")
        clock.advance(0.2)
        assert await backend.get(TOKEN, b"k") is None

    @pytest.mark.parametrize("life", [0.0, -0.001, -HOUR, -1e12])
    async def test_a_life_of_zero_or_less_stores_nothing(
        self, backend: Backend, clock: ManualClock, life: float
    ) -> None:
        """Seed 10: a life of zero or less is stored for ever. Here it even takes away what was there."""
        await backend.set(TOKEN, b"new", b"v", clock.now() + life)
        assert await backend.get(TOKEN, b"new") is None
        await backend.set(TOKEN, b"old", b"v", clock.now() + HOUR)
        await backend.set(TOKEN, b"old", b"w", clock.now() + life)
        assert await backend.get(TOKEN, b"old") is None

    @pytest.mark.parametrize("end", NO_TIMES, ids=["nan", "inf", "-inf", "C-bl-expired-1e400"])
    async def test_an_end_that_is_no_time_is_refused(self, backend: Backend, clock: ManualClock, end: float) -> None:
        await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
        with pytest.raises(ValueError, match="finite"):
            await backend.set(TOKEN, b"k", b"w", end)
        assert await backend.get(TOKEN, b"k") == Entry(b"v", clock.now() + HOUR)

    async def test_the_clock_goes_back(self, backend: Backend, clock: ManualClock) -> None:
        await backend.set(TOKEN, b"k", b"v", clock.now() + 10)
        clock.jump(-HOUR)
        assert await backend.get(TOKEN, b"k") is not None
        clock.jump(HOUR + 10)
        assert await backend.get(TOKEN, b"k") is None
