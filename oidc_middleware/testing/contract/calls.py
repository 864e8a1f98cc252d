"""The other calls: what is missing, what is deleted, many at once, counts and the end."""

from __future__ import annotations

import pytest

from oidc_middleware.cache import Backend, Entry
from oidc_middleware.errors import BackendUnavailable
from oidc_middleware.testing.clock import ManualClock
from oidc_middleware.testing.contract.words import GENERAL, HOUR, TOKEN


class CallsContract:
    """What each call answers, and after which one nothing more is taken."""

    async def test_a_key_that_was_never_set_is_a_miss(self, backend: Backend) -> None:
        assert await backend.get(TOKEN, b"k") is None
        assert not await backend.exists(TOKEN, b"k")
        assert not await backend.delete(TOKEN, b"k")

    async def test_clear_ends_one_type_alone(self, backend: Backend, clock: ManualClock) -> None:
        await backend.set_many(TOKEN, {b"%d" % n: Entry(b"v", clock.now() + HOUR) for n in range(50)})
        await backend.set(GENERAL, b"1", b"v", clock.now() + HOUR)
        await backend.clear(TOKEN)
        assert await backend.get_many(TOKEN, [b"%d" % n for n in range(50)]) == {}
        assert await backend.exists(GENERAL, b"1")

    async def test_delete_tells_whether_something_was_there(self, backend: Backend, clock: ManualClock) -> None:
        await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
        assert await backend.delete(TOKEN, b"k")
        assert not await backend.delete(TOKEN, b"k")

    async def test_a_set_before_a_delete_does_not_come_back(self, backend: Backend, clock: ManualClock) -> None:
        """Seed 8: a queued set is written after the delete, and the key lives again."""
        await backend.set(GENERAL, b"k", b"v", clock.now() + HOUR, wait=False)
        await backend.set_many(GENERAL, {b"k": Entry(b"w", clock.now() + HOUR)}, wait=False)
        await backend.delete(GENERAL, b"k")
        assert await backend.get(GENERAL, b"k") is None

    async def test_many_at_once(self, backend: Backend, clock: ManualClock) -> None:
        """Seed 10: `get_many` forgets the ends."""
        ends = {b"a": clock.now() + 5, b"b": clock.now() + HOUR, b"late": clock.now() - 1}
        await backend.set_many(TOKEN, {key: Entry(key * 2, end) for key, end in ends.items()})
        assert await backend.get_many(TOKEN, [b"a", b"b", b"late", b"never", b"a"]) == {
            b"a": Entry(b"aa", ends[b"a"]),
            b"b": Entry(b"bb", ends[b"b"]),
        }
        clock.advance(5)
        assert await backend.get_many(TOKEN, [b"a", b"b"]) == {b"b": Entry(b"bb", ends[b"b"])}
        assert await backend.get_many(TOKEN, []) == {}

    async def test_of_many_none_is_stored_when_one_is_wrong(self, backend: Backend, clock: ManualClock) -> None:
        with pytest.raises(ValueError, match="finite"):
            await backend.set_many(TOKEN, {b"good": Entry(b"v", clock.now() + HOUR), b"bad": Entry(b"v", float("nan"))})
        assert await backend.get(TOKEN, b"good") is None

    async def test_ping_and_stats(self, backend: Backend, clock: ManualClock) -> None:
        assert (await backend.ping()).healthy
        await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
        await backend.get(TOKEN, b"k")
        await backend.get(TOKEN, b"k")
        await backend.get(TOKEN, b"other")
        counts = backend.stats()["token"]
        assert (counts.hits, counts.misses, counts.sets, counts.entries) == (2, 1, 1, 1)
        assert counts.bytes > 0
        assert backend.stats()["session"].sets == 0

    async def test_a_set_after_close_raises_and_a_second_close_does_nothing(
        self, backend: Backend, clock: ManualClock
    ) -> None:
        """Seed 14: both panic."""
        await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
        await backend.close()
        await backend.close()
        with pytest.raises(BackendUnavailable, match="closed"):
            await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
        with pytest.raises(BackendUnavailable, match="closed"):
            await backend.set(GENERAL, b"queued", b"v", clock.now() + HOUR, wait=False)
        with pytest.raises(BackendUnavailable, match="closed"):
            await backend.add(TOKEN, b"other", b"v", clock.now() + HOUR)
        with pytest.raises(BackendUnavailable, match="closed"):
            await backend.update(TOKEN, b"k", b"w", clock.now() + HOUR, 1)
        with pytest.raises(BackendUnavailable, match="closed"):
            await backend.set_many(TOKEN, {b"k": Entry(b"v", clock.now() + HOUR)})
        assert not (await backend.ping()).healthy
