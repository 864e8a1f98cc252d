"""What memory costs and how well it chooses: a hit, a miss, a put, and the share of hits under Zipf's law."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from hashlib import sha256
from typing import Any

from table import Row, at_least, at_most, compared, interleaved, markdown

from oidc_middleware.cache import (
    RAW,
    TYPES,
    Caches,
    CacheType,
    Limits,
    Loading,
    LoadingCache,
    MemoryBackend,
    TypedCache,
    kept,
    msgpack,
)
from oidc_middleware.clock import SystemClock

Record = tuple[float, int, bytes]
Get = Callable[[bytes], object]
Put = Callable[[bytes, Any], object]

STORED = 20_000
ASKED = 4096
LIFE = 3600
ONE_OFF = 0.2
ZIPF_KEYS, ZIPF_ROOM, ZIPF_REQUESTS = 100_000, 1000, 1_000_000
DICT = "a dict with an end"
OURS = "`TypedCache`"
AWAITED = "`await TypedCache.get`"


class Plain:
    """A dict of (value, end): what anybody would write, without a bound and without statistics."""

    def __init__(self) -> None:
        self.entries: dict[bytes, tuple[object, float]] = {}

    def get(self, key: bytes) -> object:
        """Return the value, None when there is none or its end has come."""
        entry = self.entries.get(key)
        if entry is not None and time.time() < entry[1]:
            return entry[0]
        return None

    def put(self, key: bytes, value: Record) -> None:
        """Store a value for as long as all others."""
        self.entries[key] = value, time.time() + LIFE


class LRU:
    """The usual choice of whom to evict."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.entries: OrderedDict[bytes, object] = OrderedDict()

    def get(self, key: bytes) -> object:
        """Return the value and make it the youngest."""
        if key in self.entries:
            self.entries.move_to_end(key)
            return self.entries[key]
        return None

    def put(self, key: bytes, value: object) -> None:
        """Store a value and let the oldest go."""
        self.entries[key] = value
        if len(self.entries) > self.room:
            self.entries.popitem(last=False)


def contestants(room: int) -> dict[str, tuple[Get, Put]]:
    """Return how each peer that is installed reads and writes, with room for so many entries, ours first."""
    kind = CacheType("general", None, "queued", "invalidated", Limits(room, 1 << 40, 1 << 30))
    cache: TypedCache[Any] = TypedCache(kind, MemoryBackend(SystemClock(), [kind]), msgpack(tuple[float, int, bytes]))
    found: dict[str, tuple[Get, Put]] = {
        OURS: (cache.peek, lambda key, value: cache.put(key, value, time.time() + LIFE))
    }
    for name, make in (("cachetools `TTLCache`", _cachetools), ("moka-py", _moka), ("theine", _theine)):
        try:
            found[name] = make(room)
        except ImportError:
            print(f"{name}: not installed, left out", end="\n\n")
    return found


def _cachetools(room: int) -> tuple[Get, Put]:
    cache = importlib.import_module("cachetools").TTLCache(room, LIFE)
    return cache.get, cache.__setitem__


def _moka(room: int) -> tuple[Get, Put]:
    cache = importlib.import_module("moka_py").Moka(room, ttl=LIFE)
    return cache.get, cache.set


def _theine(room: int) -> tuple[Get, Put]:
    cache = importlib.import_module("theine").Cache(room)
    life = timedelta(seconds=LIFE)
    return (lambda key: cache.get(key)[0]), (lambda key, value: cache.set(key, value, life))


def digests(name: str, count: int) -> list[bytes]:
    return [sha256(f"{name} {n}".encode()).digest() for n in range(count)]


def record(number: int) -> Record:
    return time.time() + LIFE, number, b"claims" * 100 + b"%d" % number


def reading(get: Get, keys: list[bytes]) -> Callable[[int], float]:
    """Return a contestant that reads the keys in turn, each as a new object: a digest was just computed."""

    def run(count: int) -> float:
        fresh = [bytes(bytearray(key)) for key, _ in zip(itertools.cycle(keys), range(count), strict=False)]
        start = time.perf_counter()
        for key in fresh:
            get(key)
        return time.perf_counter() - start

    return run


def writing(put: Put, records: list[Record]) -> Callable[[int], float]:
    """Return a contestant that writes keys it never wrote before, into a cache that is full."""
    numbers = itertools.count()

    def run(count: int) -> float:
        fresh = digests(f"written {next(numbers)}", count)
        start = time.perf_counter()
        for key, value in zip(fresh, itertools.cycle(records), strict=False):
            put(key, value)
        return time.perf_counter() - start

    return run


def times() -> list[Row]:
    """Return what a hit, a miss and a put cost."""
    plain = Plain()
    peers = {DICT: (plain.get, plain.put), **contestants(STORED)}
    records = [record(number) for number in range(STORED)]
    for _, put in peers.values():
        for key, value in zip(digests("stored", STORED), records, strict=True):
            put(key, value)
    hot, unknown = digests("stored", STORED)[:: STORED // ASKED], digests("unknown", ASKED)
    hits = interleaved({name: reading(get, hot) for name, (get, _) in peers.items()}, ASKED, rounds=101)
    misses = interleaved({name: reading(get, unknown) for name, (get, _) in peers.items()}, ASKED, rounds=9)
    puts = interleaved(
        {name: writing(put, records) for name, (_, put) in peers.items() if name != DICT}, ASKED, rounds=9
    )
    return [
        *compared(hits, DICT, {OURS: 1.4}, "hit · {}"),
        *compared(misses, DICT, label="miss · {}"),
        *compared(puts, OURS, label="put into a full cache · {}"),
    ]


def loaded() -> list[Row]:
    """Return what it costs to be served from memory by a cache that could load, coroutine included."""
    clock = SystemClock()
    inner = TypedCache(TYPES["general"], MemoryBackend(clock), kept(RAW))
    cache, keys = LoadingCache(inner, clock, Loading(life=LIFE)), digests("loaded", ASKED)

    async def load() -> bytes:
        return b"value"

    async def ask(wanted: list[bytes]) -> float:
        start = time.perf_counter()
        for key in wanted:
            await cache.get_or_load(key, load)
        return time.perf_counter() - start

    def fresh(count: int) -> list[bytes]:
        return [bytes(bytearray(key)) for key, _ in zip(itertools.cycle(keys), range(count), strict=False)]

    with asyncio.Runner() as runner:
        runner.run(ask(keys))
        peek = {"`peek`": reading(inner.peek, keys)}
        hits = interleaved({**peek, "`get_or_load`": lambda count: runner.run(ask(fresh(count)))}, ASKED, rounds=31)
    cost = hits["`get_or_load`"].median
    rows = compared(hits, "`peek`", label="hit of a cache that loads · {}")
    return [replace(row, goal=at_most(cost, 1.5, "µs")) if "get_or_load" in row.what else row for row in rows]


def hit_shares(requests: int) -> list[Row]:
    """Return the share of hits, in percent, where 1 % of the keys fit and their use follows Zipf's law.

    Once alone, and once with every fifth request for a key that nobody asks for again; those do not count.
    """
    weights = list(itertools.accumulate(1 / rank for rank in range(1, ZIPF_KEYS + 1)))
    keys = digests("zipf", ZIPF_KEYS)
    chance = random.Random(1)
    trace: list[bytes | None] = list(chance.choices(keys, cum_weights=weights, k=requests))
    mixed = [key if chance.random() >= ONE_OFF else None for key in trace]
    best = 100 * weights[ZIPF_ROOM - 1] / weights[-1]
    rows = [Row("Zipf(1.0), 1 % fits · the 1 % that are asked for most", best, unit="%")]
    for title, asked, limit in (("Zipf(1.0), 1 % fits", trace, 59.7), ("… and 20 % one-off keys besides", mixed, 58.0)):
        lru = LRU(ZIPF_ROOM)
        peers = {**contestants(ZIPF_ROOM), "LRU": (lru.get, lru.put)}
        shares = {name: _hit_share(get, put, asked) for name, (get, put) in peers.items() if "cachetools" not in name}
        rows += [
            Row(
                f"{title} · {name}",
                share,
                unit="%",
                ratio=share / shares["LRU"],
                base="LRU",
                goal=at_least(share, limit, "%") if name == OURS and requests == ZIPF_REQUESTS else None,
            )
            for name, share in shares.items()
        ]
    return rows


def _hit_share(get: Get, put: Put, trace: list[bytes | None]) -> float:
    """Return the share of hits among the requests of a trace; None is a key that nobody else asks for."""
    hits = asked = 0
    for number, key in enumerate(trace):
        if key is None:
            one_off = b"once %d" % number
            get(one_off)
            put(one_off, b"value")
            continue
        asked += 1
        if get(key) is None:
            put(key, b"value")
        else:
            hits += 1
    return 100 * hits / asked


def awaited() -> list[Row]:
    """Return what a hit costs through an `await`, as those peers have it that are asynchronous through and through."""
    with asyncio.Runner() as runner:
        readers = runner.run(_filled())
        timings = interleaved({name: _awaiting(runner, get) for name, get in readers.items()}, ASKED, rounds=15)
    return compared(timings, AWAITED, label="hit · {}")


async def _filled() -> dict[str, Callable[[bytes], Awaitable[object]]]:
    """Return how each reads, once it holds what is asked for."""
    keys, ours = digests("stored", ASKED), Caches(SystemClock()).general
    for key in keys:
        await ours.set(key, b"value", time.time() + LIFE)
    readers: dict[str, Callable[[bytes], Awaitable[object]]] = {AWAITED: ours.get}
    for name in ("cashews", "aiocache"):
        try:
            peer = _memory_of(name)
        except ImportError:
            print(f"{name}: not installed, left out", end="\n\n")
            continue
        for key in keys:
            await peer.set(key.hex(), b"value")
        readers[f"{name}, in memory"] = partial(_get_by_hex, peer)
    return readers


async def _get_by_hex(peer: Any, key: bytes) -> object:
    return await peer.get(key.hex())


def _memory_of(name: str) -> Any:
    if name == "aiocache":
        return importlib.import_module("aiocache").SimpleMemoryCache()
    cache = importlib.import_module("cashews").Cache()
    cache.setup("mem://", size=STORED)
    return cache


def _awaiting(runner: asyncio.Runner, get: Callable[[bytes], Awaitable[object]]) -> Callable[[int], float]:
    keys = digests("stored", ASKED)

    async def run(count: int) -> float:
        start = time.perf_counter()
        for key in keys[:count]:
            await get(key)
        return time.perf_counter() - start

    return lambda count: runner.run(run(count))


def longest_pauses() -> list[Row]:
    """Return the longest single operation on a full token cache, in ms: growth of its index included."""
    clock = SystemClock()
    cache = Caches(clock).token
    limits = TYPES["token"].limits
    room = limits.max_entries if limits else 0
    value = record(0)
    worst = 0.0
    end = clock.now() + LIFE
    for key in digests("pause", room + 50_000):
        start = time.perf_counter()
        cache.put(key, value, end)
        cache.peek(key)
        worst = max(worst, time.perf_counter() - start)
    return [Row(f"longest of {room + 50_000:,} puts", worst * 1e3, unit="ms")]


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the tables of the memory beneath every cache."""
    return {
        "Memory: time": [*times(), *loaded(), *longest_pauses()],
        "Memory: an awaited hit": awaited(),
        "Memory: what is kept": hit_shares(ZIPF_REQUESTS // 10 if quick else ZIPF_REQUESTS),
    }


if __name__ == "__main__":
    for title, table in rows().items():
        print(markdown(title, table), end="\n\n")
