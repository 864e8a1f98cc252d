"""Typed caches: live values in memory, bytes beyond it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import pytest

from oidc_middleware.cache import (
    RAW,
    TYPES,
    Caches,
    CacheType,
    Codec,
    Counts,
    Entry,
    Health,
    Limits,
    MemoryBackend,
    TypedCache,
    msgpack,
)
from oidc_middleware.errors import BackendUnavailable
from oidc_middleware.testing.clock import ManualClock

pytestmark = pytest.mark.anyio

TOKEN, GENERAL, INTROSPECTION = TYPES["token"], TYPES["general"], TYPES["introspection"]
NEGATIVE = INTROSPECTION.negative or Limits(1, 1, 1)
HOUR = 3600.0
Record = tuple[float, int, bytes]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(now=1_800_000_000.0)


@pytest.fixture
def memory(clock: ManualClock) -> MemoryBackend:
    return MemoryBackend(clock)


@pytest.fixture
def cache(memory: MemoryBackend) -> TypedCache[Record]:
    return TypedCache(TOKEN, memory, msgpack(tuple[float, int, bytes]))


class TwoTiers:
    """Memory over a dict: the least that a tiered backend is."""

    def __init__(self, memory: MemoryBackend) -> None:
        self.memory = memory
        self.far: dict[tuple[str, bytes], Entry] = {}
        self.reads = 0
        self.fills = True

    async def get(self, kind: CacheType, key: bytes) -> Entry | None:
        self.reads += 1
        entry = self.far.get((kind.name, key))
        if entry is not None and self.fills:
            await self.memory.set(kind, key, entry.value, entry.expires_at)
        return entry

    async def set(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, wait: bool | None = None) -> None:
        await self.memory.set(kind, key, value, expires_at)
        self.far[kind.name, key] = Entry(value, expires_at)

    async def add(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, version: int = 0) -> bool:
        raise NotImplementedError

    async def update(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, version: int) -> bool:
        raise NotImplementedError

    async def delete(self, kind: CacheType, key: bytes) -> bool:
        await self.memory.delete(kind, key)
        return self.far.pop((kind.name, key), None) is not None

    async def exists(self, kind: CacheType, key: bytes) -> bool:
        return (kind.name, key) in self.far

    async def clear(self, kind: CacheType) -> None:
        self.far.clear()

    async def get_many(self, kind: CacheType, keys: Iterable[bytes]) -> dict[bytes, Entry]:
        raise NotImplementedError

    async def set_many(self, kind: CacheType, entries: Mapping[bytes, Entry], wait: bool | None = None) -> None:
        raise NotImplementedError

    async def ping(self) -> Health:
        return Health(healthy=True)

    def stats(self) -> Mapping[str, Counts]:
        return self.memory.stats()

    async def close(self) -> None:
        await self.memory.close()


# --------------------------------------------------------------------------------------------------------------- memory


async def test_the_value_that_was_put_is_the_one_that_comes_back(cache: TypedCache[Record], clock: ManualClock) -> None:
    record = (clock.now() + 30, 7, b"{}")
    assert cache.put(b"k", record, record[0])
    assert cache.peek(b"k") is record
    assert await cache.get(b"k") is record
    assert await cache.exists(b"k")
    clock.advance(30)
    assert cache.peek(b"k") is None
    assert await cache.get(b"k") is None
    assert not await cache.exists(b"k")
    assert not await cache.delete(b"k")


async def test_set_delete_and_clear(cache: TypedCache[Record], clock: ManualClock) -> None:
    record = (clock.now() + HOUR, 7, b"{}")
    for key in (b"1", b"2"):
        await cache.set(key, record, record[0])
    assert await cache.delete(b"1")
    assert not await cache.delete(b"1")
    await cache.clear()
    assert cache.peek(b"2") is None


async def test_a_token_is_looked_at_again_after_a_minute(cache: TypedCache[Record], clock: ManualClock) -> None:
    """C-key-removed, J-keyrefresh-remove: the bound for a verdict whose key was withdrawn."""
    cache.put(b"k", (0.0, 7, b""), clock.now() + HOUR)
    clock.advance(59)
    assert cache.peek(b"k") is not None
    clock.advance(1)
    assert cache.peek(b"k") is None


def test_stale_values(memory: MemoryBackend, clock: ManualClock) -> None:
    """J-storm-failing: keys outlive their end while their issuer cannot be asked, for a day and no longer."""
    cache = TypedCache(TYPES["jwk"], memory, RAW)
    cache.put(b"issuer", b"keys", clock.now() + 300)
    clock.advance(86_400 + 299)
    assert (cache.peek(b"issuer"), cache.peek_stale(b"issuer")) == (None, b"keys")
    clock.advance(1)
    assert cache.peek_stale(b"issuer") is None


def test_a_token_has_no_stale_value(cache: TypedCache[Record], clock: ManualClock) -> None:
    cache.put(b"k", (0.0, 7, b""), clock.now() + 10)
    clock.advance(10)
    assert cache.peek_stale(b"k") is None


@pytest.mark.parametrize("value", [None, ["a"], {"a": 1}, (1, ["a"]), bytearray(b"a")])
def test_what_can_be_changed_cannot_be_put(memory: MemoryBackend, clock: ManualClock, value: Any) -> None:
    """C-mutable, seed 16."""
    cache: TypedCache[Any] = TypedCache(GENERAL, memory, RAW)
    with pytest.raises(TypeError):
        cache.put(b"k", value, clock.now() + HOUR)
    assert cache.peek(b"k") is None


@pytest.mark.parametrize("end", [float("nan"), float("inf"), float("-inf")])
async def test_an_end_that_is_no_time_is_refused(cache: TypedCache[Record], end: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        cache.put(b"k", (0.0, 7, b""), end)
    with pytest.raises(ValueError, match="finite"):
        await cache.set(b"k", (0.0, 7, b""), end)


def test_a_size_that_the_caller_knows_better(memory: MemoryBackend, clock: ManualClock) -> None:
    cache: TypedCache[Any] = TypedCache(GENERAL, memory, RAW)
    assert cache.put(b"k", object(), clock.now() + HOUR, size=10_000)
    assert cache.stats().bytes > 10_000
    assert not cache.put(b"k", object(), clock.now() + HOUR, size=2_000_000)
    assert cache.peek(b"k") is None
    assert cache.stats().refused == 1


def test_an_empty_value_is_a_negative_answer(memory: MemoryBackend, clock: ManualClock) -> None:
    """I-neg-dos: answers 'no such token' are bounded apart from the good ones."""
    cache: TypedCache[tuple[int, ...]] = TypedCache(INTROSPECTION, memory, msgpack(tuple[int, ...]))
    cache.put(b"good", (1,), clock.now() + 10)
    for n in range(NEGATIVE.max_entries + 10):
        cache.put(b"%d" % n, (), clock.now() + 10)
    assert cache.stats().entries == NEGATIVE.max_entries + 1
    assert cache.peek(b"good") == (1,)
    assert cache.peek(b"12") == ()


async def test_a_codec_may_know_its_negative_answers(memory: MemoryBackend, clock: ManualClock) -> None:
    codec = Codec(msgpack(tuple[bool, int]).encode, msgpack(tuple[bool, int]).decode, lambda value: not value[0])
    cache = TypedCache(INTROSPECTION, memory, codec)
    for n in range(NEGATIVE.max_entries + 10):
        cache.put(b"%d" % n, (False, n), clock.now() + 10)
    await memory.set(INTROSPECTION, b"from afar", codec.encode((False, 0)), clock.now() + 10)
    assert cache.peek(b"from afar") == (False, 0)
    assert cache.stats().entries == NEGATIVE.max_entries


async def test_bytes_at_the_edge_are_live_values_inside(
    cache: TypedCache[Record], memory: MemoryBackend, clock: ManualClock
) -> None:
    record = (1.5, 7, b"claims")
    cache.put(b"out", record, clock.now() + 30)
    entry = await memory.get(TOKEN, b"out")
    assert entry is not None
    assert msgspec.msgpack.decode(entry.value) == [1.5, 7, b"claims"]
    await memory.set(TOKEN, b"in", entry.value, clock.now() + 30)
    assert cache.peek(b"in") == record
    assert type(cache.peek(b"in")) is tuple


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04K\x01.",
        b'{"truncated": ',
        msgspec.msgpack.encode([1.5, 7])[:-1],
        msgspec.msgpack.encode(["1.5", "7", "claims"]),
        msgspec.msgpack.encode([1.5, 7, b"claims"]) + b"\0",
        msgspec.msgpack.encode([1.5, 7, msgspec.msgpack.Ext(1, b"x")]),
        b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
    ],
    ids=[
        "empty", "pickle 0", "pickle 4", "json", "truncated", "types", "trailing", "ext", "deep", "huge array", "huge",
    ],
)  # fmt: skip
async def test_bytes_that_cannot_be_read_are_a_miss_and_counted(
    cache: TypedCache[Record], memory: MemoryBackend, clock: ManualClock, data: bytes
) -> None:
    """C-serial: whatever lies in a store that others can write, it is never executed and never an error."""
    cache.put(b"k", (1.5, 7, b"outdated"), clock.now() + 30)
    await memory.set(TOKEN, b"k", data, clock.now() + 30)
    assert cache.peek(b"k") is None
    assert cache.stats().refused == 1
    assert await memory.get(TOKEN, b"k") is None


async def test_a_typed_cache_begins_empty(memory: MemoryBackend, clock: ManualClock) -> None:
    await memory.set(TOKEN, b"k", b"not for this codec", clock.now() + HOUR)
    cache = TypedCache(TOKEN, memory, msgpack(tuple[float, int, bytes]))
    assert cache.peek(b"k") is None
    assert await memory.get(TOKEN, b"k") is None


@pytest.mark.parametrize("nest", [b"\x91", b"\x81\x01"], ids=["arrays", "maps"])
def test_depth_does_not_break_a_codec(nest: bytes) -> None:
    """C-serial: deep nesting is not an error of another kind."""
    with pytest.raises(ValueError, match="MessagePack"):
        msgpack(object).decode(nest * 100_000)


def test_a_type_has_one_typed_cache(cache: TypedCache[Record], memory: MemoryBackend) -> None:
    with pytest.raises(ValueError, match="'token' belongs to another"):
        TypedCache(TOKEN, memory, RAW)


# ----------------------------------------------------------------------------------------------------------- more tiers


@pytest.fixture
def tiers(memory: MemoryBackend) -> TwoTiers:
    return TwoTiers(memory)


@pytest.fixture
def tiered(tiers: TwoTiers) -> TypedCache[Record]:
    return TypedCache(GENERAL, tiers, msgpack(tuple[float, int, bytes]))


async def test_what_is_set_reaches_every_tier(tiered: TypedCache[Record], tiers: TwoTiers, clock: ManualClock) -> None:
    record = (1.5, 7, b"claims")
    await tiered.set(b"k", record, clock.now() + HOUR)
    assert tiers.far["general", b"k"].expires_at == clock.now() + HOUR
    assert tiered.peek(b"k") == record
    clock.advance(60)
    assert tiered.peek(b"k") is None, "memory asks the other tier again once a minute"
    assert await tiered.exists(b"k")
    assert await tiered.get(b"k") == record
    assert await tiered.get(b"k") == record
    assert tiers.reads == 1
    assert await tiered.delete(b"k")
    assert not await tiered.exists(b"k")
    assert await tiered.get(b"k") is None


async def test_what_was_read_from_afar_lives_no_longer_here(
    tiered: TypedCache[Record], tiers: TwoTiers, clock: ManualClock
) -> None:
    """C-ttl-backfill: ten seconds that are left there are ten seconds here."""
    tiers.far["general", b"k"] = Entry(msgspec.msgpack.encode((1.5, 7, b"")), clock.now() + 10)
    value = await tiered.get(b"k")
    assert value == (1.5, 7, b"")
    clock.advance(9)
    assert tiered.peek(b"k") is value, "decoded once"
    clock.advance(1)
    assert tiered.peek(b"k") is None


async def test_garbage_from_afar_is_a_miss(tiered: TypedCache[Record], tiers: TwoTiers, clock: ManualClock) -> None:
    """C-serial."""
    tiers.far["general", b"k"] = Entry(b"\x80\x04K\x01.", clock.now() + 10)
    assert await tiered.get(b"k") is None
    assert tiered.stats().refused == 1


async def test_a_value_that_memory_did_not_take_is_read_all_the_same(
    tiered: TypedCache[Record], tiers: TwoTiers, clock: ManualClock
) -> None:
    tiers.far["general", b"k"] = Entry(msgspec.msgpack.encode((1.5, 7, b"")), clock.now() + 10)
    tiers.fills = False
    assert await tiered.get(b"k") == (1.5, 7, b"")
    assert tiered.peek(b"k") is None


async def test_what_has_no_codec_cannot_leave_the_process(tiers: TwoTiers, clock: ManualClock) -> None:
    cache: TypedCache[Any] = TypedCache(GENERAL, tiers, RAW)
    with pytest.raises(TypeError, match="stores bytes"):
        await cache.set(b"k", (1, 2), clock.now() + HOUR)
    await cache.set(b"b", b"bytes", clock.now() + HOUR)
    await cache.clear()
    assert await cache.get(b"b") is None


# --------------------------------------------------------------------------------------------------------------- Caches


async def test_caches_of_every_type(clock: ManualClock) -> None:
    caches = Caches(clock)
    for name in TYPES:
        cache: TypedCache[Any] = getattr(caches, name)
        assert cache.kind is TYPES[name]
        cache.put(b"k", name.encode(), clock.now() + 30)
    for name in TYPES:
        assert getattr(caches, name).peek(b"k") == name.encode()
    stats = caches.stats()
    assert {name: counts["entries"] for name, counts in stats.items()} == dict.fromkeys(TYPES, 1)
    assert msgspec.json.decode(msgspec.json.encode(stats)) == stats


async def test_closed_caches_take_no_more(clock: ManualClock) -> None:
    """Seed 14."""
    caches = Caches(clock)
    caches.token.put(b"k", (1,), clock.now() + 30)
    await caches.close()
    await caches.close()
    assert caches.token.peek(b"k") is None
    with pytest.raises(BackendUnavailable):
        caches.token.put(b"k", (1,), clock.now() + 30)
    with pytest.raises(BackendUnavailable):
        await caches.token.set(b"k", (1,), clock.now() + 30)


async def test_caches_over_a_backend_with_codecs(clock: ManualClock) -> None:
    tiers = TwoTiers(MemoryBackend(clock))
    caches = Caches(clock, tiers, {"session": msgpack(tuple[str, int])})
    await caches.session.set(b"k", ("a", 1), clock.now() + HOUR)
    clock.advance(5)
    assert caches.session.peek(b"k") is None
    assert await caches.session.get(b"k") == ("a", 1)


def test_importing_caches_is_cheap() -> None:
    code = "import sys, oidc_middleware.cache; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"httpx2", "authlib", "redis", "jwt", "cryptography", "pydantic", "starlette"}.isdisjoint(loaded)
