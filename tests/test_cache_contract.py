"""What every cache tier must do, as one suite to be run over each of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from oidc_middleware.cache import TYPES, Backend, Entry, MemoryBackend
from oidc_middleware.errors import BackendUnavailable
from oidc_middleware.testing.clock import ManualClock

pytestmark = pytest.mark.anyio

TOKEN, GENERAL, BLACKLIST = TYPES["token"], TYPES["general"], TYPES["blacklist"]
HOUR = 3600.0
NO_TIMES = [float("nan"), float("inf"), float("-inf"), 10**400]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(now=1_800_000_000.0)


class BackendContract:
    """Derive a class `Test…` from it and give it a `backend` fixture whose time is that of `clock`."""

    async def test_a_value_comes_back_with_its_end(self, backend: Backend, clock: ManualClock) -> None:
        await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
        entry = await backend.get(TOKEN, b"k")
        assert entry == Entry(b"v", clock.now() + HOUR)
        assert entry is not None
        assert entry.remaining(clock.now()) == HOUR
        assert entry.remaining(clock.now() + 2 * HOUR) == 0

    async def test_a_key_that_was_never_set_is_a_miss(self, backend: Backend) -> None:
        assert await backend.get(TOKEN, b"k") is None
        assert not await backend.exists(TOKEN, b"k")
        assert not await backend.delete(TOKEN, b"k")

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

    async def test_the_type_is_no_part_of_the_key(self, backend: Backend, clock: ManualClock) -> None:
        """Seed 12: the type is guessed from the first ten characters of the key."""
        await backend.set(TOKEN, b"blacklist:1", b"t", clock.now() + HOUR)
        await backend.set(BLACKLIST, b"blacklist:1", b"b", clock.now() + HOUR)
        assert await backend.delete(TOKEN, b"blacklist:1")
        assert await backend.get(BLACKLIST, b"blacklist:1") == Entry(b"b", clock.now() + HOUR)

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

    @pytest.mark.parametrize("kind", [bytearray, memoryview])
    async def test_a_value_is_a_copy(self, backend: Backend, clock: ManualClock, kind: Any) -> None:
        """C-mutable, seed 16: who changes what he stored changes the cache."""
        mine = bytearray(b"good")
        await backend.set(TOKEN, b"k", kind(mine), clock.now() + HOUR)
        await backend.set_many(TOKEN, {b"m": Entry(kind(mine), clock.now() + HOUR)})
        mine[:] = b"evil"
        for key in (b"k", b"m"):
            entry = await backend.get(TOKEN, key)
            assert entry is not None
            assert entry.value == b"good"
            assert type(entry.value) is bytes

    @pytest.mark.parametrize("value", ["text", 7, None, ["v"], (b"v",)])
    async def test_what_is_not_bytes_is_refused(self, backend: Backend, clock: ManualClock, value: Any) -> None:
        with pytest.raises(TypeError):
            await backend.set(TOKEN, b"k", value, clock.now() + HOUR)
        assert not await backend.exists(TOKEN, b"k")

    @pytest.mark.parametrize("common", [19, 20, 31, 32, 63, 64, 1023, 1024])
    async def test_keys_that_differ_late_are_two(self, backend: Backend, clock: ManualClock, common: int) -> None:
        """C-truncate, I-prefix-collision: no key is cut."""
        one, other = b"k" * common + b"1", b"k" * common + b"2"
        await backend.set(TOKEN, one, b"v", clock.now() + HOUR)
        assert await backend.get(TOKEN, other) is None

    @pytest.mark.parametrize(
        "key", [b"*", b"?[a", b"a\nb", b"\0", b"", b"\xff\xfe", "🔑".encode(), b"k" * 2000], ids=repr
    )
    async def test_a_key_is_any_bytes(self, backend: Backend, clock: ManualClock, key: bytes) -> None:
        """C-jti-glob: nothing in a key is a pattern."""
        await backend.set(TOKEN, b"other", b"o", clock.now() + HOUR)
        await backend.set(TOKEN, key, b"v", clock.now() + HOUR)
        assert await backend.get(TOKEN, key) == Entry(b"v", clock.now() + HOUR)
        assert await backend.delete(TOKEN, key)
        assert await backend.exists(TOKEN, b"other")

    @pytest.mark.parametrize("size", [0, 1, 4096, 32_768])
    async def test_a_value_is_any_bytes(self, backend: Backend, clock: ManualClock, size: int) -> None:
        value = bytes(n % 256 for n in range(size))
        await backend.set(TOKEN, b"k", value, clock.now() + HOUR)
        assert await backend.get(TOKEN, b"k") == Entry(value, clock.now() + HOUR)

    async def test_the_clock_goes_back(self, backend: Backend, clock: ManualClock) -> None:
        await backend.set(TOKEN, b"k", b"v", clock.now() + 10)
        clock.jump(-HOUR)
        assert await backend.get(TOKEN, b"k") is not None
        clock.jump(HOUR + 10)
        assert await backend.get(TOKEN, b"k") is None

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
            await backend.add(TOKEN, b"other", b"v", clock.now() + HOUR)
        with pytest.raises(BackendUnavailable, match="closed"):
            await backend.set_many(TOKEN, {b"k": Entry(b"v", clock.now() + HOUR)})
        assert not (await backend.ping()).healthy


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
