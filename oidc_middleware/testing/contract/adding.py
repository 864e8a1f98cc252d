"""`add`: of those who come at once, one is first."""

from __future__ import annotations

import asyncio

import pytest

from oidc_middleware.cache import Backend, Entry
from oidc_middleware.testing.clock import ManualClock
from oidc_middleware.testing.contract.words import GENERAL, HOUR, NO_TIMES, TOKEN


class AddContract:
    """`add` stores where there is nothing, and tells the truth about it."""

    async def test_add_stores_only_where_there_is_nothing(self, backend: Backend, clock: ManualClock) -> None:
        assert await backend.add(TOKEN, b"k", b"first", clock.now() + 10)
        assert not await backend.add(TOKEN, b"k", b"second", clock.now() + HOUR)
        assert await backend.get(TOKEN, b"k") == Entry(b"first", clock.now() + 10)
        assert await backend.delete(TOKEN, b"k")
        assert await backend.add(TOKEN, b"k", b"third", clock.now() + 10)
        assert await backend.add(GENERAL, b"k", b"of another type", clock.now() + 10)

    async def test_add_after_a_set_that_may_still_be_queued(self, backend: Backend, clock: ManualClock) -> None:
        await backend.set(GENERAL, b"k", b"v", clock.now() + HOUR, wait=False)
        assert not await backend.add(GENERAL, b"k", b"w", clock.now() + HOUR)
        await backend.set(GENERAL, b"k", b"", clock.now() - 1, wait=False)
        assert await backend.add(GENERAL, b"k", b"x", clock.now() + HOUR)
        assert await backend.get(GENERAL, b"k") == Entry(b"x", clock.now() + HOUR)

    @pytest.mark.parametrize("life", [0.0, -0.001, -1e12])
    async def test_add_of_what_has_ended_stores_nothing(
        self, backend: Backend, clock: ManualClock, life: float
    ) -> None:
        assert not await backend.add(TOKEN, b"k", b"v", clock.now() + life)
        assert await backend.add(TOKEN, b"k", b"v", clock.now() + HOUR)

    async def test_of_those_who_add_at_once_one_is_first(self, backend: Backend, clock: ManualClock) -> None:
        adding = [backend.add(GENERAL, b"lock", b"%d" % n, clock.now() + HOUR) for n in range(20)]
        assert sum(await asyncio.gather(*adding)) == 1

    async def test_add_refuses_what_set_refuses(self, backend: Backend, clock: ManualClock) -> None:
        for end in NO_TIMES:
            with pytest.raises(ValueError, match="finite"):
                await backend.add(TOKEN, b"k", b"v", end)
        with pytest.raises(TypeError):
            await backend.add(TOKEN, b"k", "text", clock.now() + HOUR)  # type: ignore[arg-type]
        assert not await backend.exists(TOKEN, b"k")
