"""Keys and values: any bytes, none cut, none shared."""

from __future__ import annotations

from typing import Any

import pytest

from oidc_middleware.cache import Backend, Entry
from oidc_middleware.testing.clock import ManualClock
from oidc_middleware.testing.contract.words import BLACKLIST, HOUR, TOKEN


class ContentsContract:
    """Keys and values are bytes, whatever they look like."""

    async def test_the_type_is_no_part_of_the_key(self, backend: Backend, clock: ManualClock) -> None:
        """Seed 12: the type is guessed from the first ten characters of the key."""
        await backend.set(TOKEN, b"blacklist:1", b"t", clock.now() + HOUR)
        await backend.set(BLACKLIST, b"blacklist:1", b"b", clock.now() + HOUR)
        assert await backend.delete(TOKEN, b"blacklist:1")
        assert await backend.get(BLACKLIST, b"blacklist:1") == Entry(b"b", clock.now() + HOUR)

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
