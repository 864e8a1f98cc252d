"""`update`: the highest version stays, whatever comes when, and nothing that is gone comes back."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from oidc_middleware.cache import Backend, Entry
from oidc_middleware.testing.clock import ManualClock
from oidc_middleware.testing.contract.words import GENERAL, HOUR, NO_TIMES, SESSION

_HIGHEST = 2**53 - 1


class UpdateContract:
    """`update` replaces a lower version, and tells the truth about it."""

    async def test_an_update_replaces_a_lower_version(self, backend: Backend, clock: ManualClock) -> None:
        await backend.set(SESSION, b"k", b"born", clock.now() + 10)
        assert await backend.update(SESSION, b"k", b"first", clock.now() + HOUR, 1)
        assert await backend.get(SESSION, b"k") == Entry(b"first", clock.now() + HOUR, 1)
        assert await backend.update(SESSION, b"k", b"third", clock.now() + 10, 3)
        assert await backend.get_many(SESSION, [b"k"]) == {b"k": Entry(b"third", clock.now() + 10, 3)}
        clock.advance(10)
        assert await backend.get(SESSION, b"k") is None

    @pytest.mark.parametrize("version", [0, 6, 7])
    async def test_an_update_loses_to_its_own_version_and_to_a_higher_one(
        self, backend: Backend, clock: ManualClock, version: int
    ) -> None:
        assert await backend.add(SESSION, b"k", b"v", clock.now() + HOUR, 7)
        assert not await backend.update(SESSION, b"k", b"w", clock.now() + HOUR, version)
        assert await backend.get(SESSION, b"k") == Entry(b"v", clock.now() + HOUR, 7)

    async def test_an_update_revives_nothing(self, backend: Backend, clock: ManualClock) -> None:
        """An ended session stays ended, whoever still had it at hand."""
        assert not await backend.update(SESSION, b"never", b"v", clock.now() + HOUR, 1)
        await backend.set(SESSION, b"k", b"v", clock.now() + HOUR)
        assert await backend.delete(SESSION, b"k")
        assert not await backend.update(SESSION, b"k", b"w", clock.now() + HOUR, 1)
        await backend.set(SESSION, b"k", b"v", clock.now() + HOUR)
        await backend.clear(SESSION)
        assert not await backend.update(SESSION, b"k", b"w", clock.now() + HOUR, 2)
        assert await backend.get_many(SESSION, [b"never", b"k"]) == {}

    async def test_an_update_does_not_lengthen_what_has_ended(self, backend: Backend, clock: ManualClock) -> None:
        await backend.set(SESSION, b"k", b"v", clock.now() + 10)
        clock.advance(10)
        assert not await backend.update(SESSION, b"k", b"w", clock.now() + HOUR, 1)
        assert await backend.get(SESSION, b"k") is None

    @pytest.mark.parametrize("life", [0.0, -0.001, -1e12])
    async def test_an_update_that_has_ended_changes_nothing(
        self, backend: Backend, clock: ManualClock, life: float
    ) -> None:
        await backend.set(SESSION, b"k", b"v", clock.now() + HOUR)
        assert not await backend.update(SESSION, b"k", b"w", clock.now() + life, 1)
        assert await backend.get(SESSION, b"k") == Entry(b"v", clock.now() + HOUR)

    @pytest.mark.parametrize(
        "order", list(itertools.permutations([2, 3, 1280])), ids=lambda order: ",".join(map(str, order))
    )
    async def test_the_highest_version_stays_in_whatever_order_they_come(
        self, backend: Backend, clock: ManualClock, order: tuple[int, ...]
    ) -> None:
        """1280 is more than 3, which its digits are not, nor its last byte."""
        await backend.set(SESSION, b"k", b"v", clock.now() + HOUR)
        stored = [await backend.update(SESSION, b"k", b"%d" % n, clock.now() + HOUR, n) for n in order]
        assert stored == [n == max(order[: place + 1]) for place, n in enumerate(order)]
        assert await backend.get(SESSION, b"k") == Entry(b"1280", clock.now() + HOUR, 1280)

    async def test_the_highest_version_stays_of_those_that_come_at_once(
        self, backend: Backend, clock: ManualClock
    ) -> None:
        await backend.set(SESSION, b"k", b"v", clock.now() + HOUR)
        updating = [backend.update(SESSION, b"k", b"%d" % n, clock.now() + HOUR, n) for n in (3, 1, 9, 2, 8)]
        assert (await asyncio.gather(*updating))[2]
        assert await backend.get(SESSION, b"k") == Entry(b"9", clock.now() + HOUR, 9)

    async def test_a_version_is_exact(self, backend: Backend, clock: ManualClock) -> None:
        await backend.set(SESSION, b"k", b"v", clock.now() + HOUR)
        for version in (255, 256, 2**31, 2**32, _HIGHEST - 1, _HIGHEST):
            assert await backend.update(SESSION, b"k", b"%d" % version, clock.now() + HOUR, version)
            assert not await backend.update(SESSION, b"k", b"w", clock.now() + HOUR, version)
        assert await backend.get(SESSION, b"k") == Entry(b"%d" % _HIGHEST, clock.now() + HOUR, _HIGHEST)

    async def test_versions_travel_with_many(self, backend: Backend, clock: ManualClock) -> None:
        entries = {b"%d" % n: Entry(b"v", clock.now() + HOUR, n) for n in range(3)}
        await backend.set_many(SESSION, entries)
        assert await backend.get_many(SESSION, entries) == entries
        assert not await backend.update(SESSION, b"2", b"w", clock.now() + HOUR, 2)

    async def test_a_set_begins_anew(self, backend: Backend, clock: ManualClock) -> None:
        assert await backend.add(SESSION, b"k", b"v", clock.now() + HOUR, 7)
        await backend.set(SESSION, b"k", b"w", clock.now() + HOUR, wait=True)
        assert await backend.get(SESSION, b"k") == Entry(b"w", clock.now() + HOUR)
        assert await backend.update(SESSION, b"k", b"x", clock.now() + HOUR, 1)

    async def test_update_after_a_write_that_may_still_be_queued(self, backend: Backend, clock: ManualClock) -> None:
        await backend.set(GENERAL, b"k", b"v", clock.now() + HOUR, wait=False)
        assert await backend.update(GENERAL, b"k", b"w", clock.now() + HOUR, 1)
        await backend.set(GENERAL, b"k", b"", clock.now() - 1, wait=False)
        assert not await backend.update(GENERAL, b"k", b"x", clock.now() + HOUR, 2)
        assert await backend.get(GENERAL, b"k") is None

    async def test_update_refuses_what_set_refuses(self, backend: Backend, clock: ManualClock) -> None:
        await backend.set(SESSION, b"k", b"v", clock.now() + HOUR)
        for end in NO_TIMES:
            with pytest.raises(ValueError, match="finite"):
                await backend.update(SESSION, b"k", b"w", end, 1)
        with pytest.raises(TypeError):
            await backend.update(SESSION, b"k", "text", clock.now() + HOUR, 1)  # type: ignore[arg-type]
        assert await backend.get(SESSION, b"k") == Entry(b"v", clock.now() + HOUR)

    @pytest.mark.parametrize("version", [-1, 2**53, True, 1.0, "1", None])
    async def test_what_is_no_version_is_refused(self, backend: Backend, clock: ManualClock, version: Any) -> None:
        await backend.set(SESSION, b"k", b"v", clock.now() + HOUR)
        with pytest.raises((ValueError, TypeError), match="version"):
            await backend.update(SESSION, b"k", b"w", clock.now() + HOUR, version)
        with pytest.raises((ValueError, TypeError), match="version"):
            await backend.add(SESSION, b"new", b"w", clock.now() + HOUR, version)
        with pytest.raises((ValueError, TypeError), match="version"):
            await backend.set_many(SESSION, {b"k": Entry(b"w", clock.now() + HOUR, version)})
        assert await backend.get_many(SESSION, [b"k", b"new"]) == {b"k": Entry(b"v", clock.now() + HOUR)}

    async def test_an_updated_value_is_a_copy(self, backend: Backend, clock: ManualClock) -> None:
        await backend.set(SESSION, b"k", b"v", clock.now() + HOUR)
        mine: Any = bytearray(b"good")
        assert await backend.update(SESSION, b"k", mine, clock.now() + HOUR, 1)
        mine[:] = b"evil"
        assert await backend.get(SESSION, b"k") == Entry(b"good", clock.now() + HOUR, 1)
