"""Memory over sealed Redis, as the middleware has it: reads that memory cannot answer, and writes of both kinds."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from table import Contestant, Row, Timing, at_most, compared, interleaved, markdown

from oidc_middleware.cache import (
    TYPES,
    Entry,
    HybridBackend,
    MemoryBackend,
    RedisBackend,
    SealedBackend,
    Sealer,
    TypedCache,
    msgpack,
    new_secret,
)
from oidc_middleware.clock import SystemClock

TOKEN, GENERAL = TYPES["token"], TYPES["general"]
TOGETHER = 100
LIFE = 3600
CLAIMS = os.urandom(650)
KEYS = [os.urandom(32) for _ in range(TOGETHER)]
REDIS = "redis-py, one command each"
READ = "`TypedCache.get`, opened and decoded"
# The cache that this one descends from, compiled from Go, on this kind of machine, in µs.
ORIGINAL = {"absent": 155.0, "absent, 100 callers": 40.0, "written": 173.0}

Record = tuple[float, int, bytes]
Call = Callable[[bytes], Awaitable[object]]


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the tables of the two tiers together."""
    sys.path.append(str(Path(__file__).parent.parent / "tests"))
    kit = importlib.import_module("redis_kit")
    with kit.RedisServer() as server, asyncio.Runner() as runner:
        stand = Stand(runner, server.url)
        runner.run(stand.fill())
        try:
            return stand.tables(5 if quick else 15)
        finally:
            runner.run(stand.aclose())


class Stand:
    """The hybrid backend and its peers, connected to one server from one event loop."""

    def __init__(self, runner: asyncio.Runner, url: str) -> None:
        clock = SystemClock()
        redis = importlib.import_module("redis.asyncio")
        sealed = SealedBackend(RedisBackend(url, clock=clock, budget=10), Sealer([new_secret()], "oidc"), clock)
        self.runner = runner
        self.redis: Any = redis.Redis.from_url(url)
        self.ours = HybridBackend(MemoryBackend(clock), sealed, clock=clock, budget=10)
        self.cache: TypedCache[Record] = TypedCache(TOKEN, self.ours, msgpack(tuple[float, int, bytes]))
        self.peers = {name: make(url) for name, make in _PEERS.items() if _is_here(name)}

    async def fill(self) -> None:
        """Store what is read, with everybody."""
        for key in KEYS:
            await self.redis_set(key)
            await self.write(key)
            for peer in self.peers.values():
                await peer.set(key.hex(), CLAIMS)

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self.ours.close()
        await self.redis.aclose()
        for peer in self.peers.values():
            await peer.close()

    async def redis_set(self, key: bytes) -> None:
        """Write with redis-py."""
        await self.redis.set(key, CLAIMS, px=LIFE * 1000)

    async def read(self, key: bytes) -> None:
        """Read what memory does not have."""
        self.ours.invalidate(TOKEN, key)
        assert await self.cache.get(key) is not None

    async def absent(self, key: bytes) -> None:
        """Ask for what nobody has."""
        await self.ours.exists(TOKEN, key[:16])

    async def write(self, key: bytes) -> None:
        """Write and wait."""
        end = time.time() + LIFE
        await self.cache.set(key, (end, 1, CLAIMS), end)

    async def queue(self, key: bytes) -> None:
        """Write and do not wait."""
        await self.ours.set(GENERAL, key, CLAIMS, time.time() + LIFE)

    def tables(self, rounds: int) -> dict[str, list[Row]]:
        """Measure."""
        readers = {REDIS: self.redis.get, READ: self.read, **{name: _by_hex(p.get) for name, p in self.peers.items()}}
        reads = interleaved({name: self.together(call) for name, call in readers.items()}, 50 * TOGETHER, rounds)
        lone = interleaved({REDIS: self.alone(self.redis_set), "`set`": self.alone(self.write)}, 500, rounds)
        writers = {
            REDIS: self.alone(self.redis_set),
            f"`set`, {TOGETHER} that wait": self.together(self.write, clock=perf_counter),
            "`set`, queued": self.queued(),
            "`set_many`, 100 entries": self.alone(self.write_many, share=TOGETHER),
        }
        many = interleaved(writers, 20 * TOGETHER, rounds)
        absent = interleaved({"lone": self.alone(self.absent)}, 500, rounds)
        crowd = interleaved({"crowd": self.together(self.absent, clock=perf_counter)}, 50 * TOGETHER, rounds)
        return {
            f"Two tiers: {TOGETHER} readers at once, memory has nothing, processor time of a read": compared(
                reads, REDIS, {READ: 1 / 6}
            ),
            "Two tiers: a lone write, sealed and acknowledged": compared(lone, REDIS, {"`set`": 1.6}),
            "Two tiers: many sealed writes beside an awaited `SET`": compared(
                many, REDIS, {f"`set`, {TOGETHER} that wait": 0.25, "`set`, queued": 0.2}
            ),
            "Two tiers: beside the original, compiled from Go": [
                _beside("a key that nobody has", absent["lone"], "absent"),
                _beside(f"a key that nobody has, {TOGETHER} callers", crowd["crowd"], "absent, 100 callers"),
                _beside(f"a write, {TOGETHER} that wait", many[f"`set`, {TOGETHER} that wait"], "written"),
            ],
        }

    def together(self, call: Call, clock: Callable[[], float] = process_time) -> Contestant:
        """Return a contestant of many callers, each of which calls again as soon as it has its answer."""

        async def caller(key: bytes, count: int) -> None:
            for _ in range(count):
                await call(key)

        async def run(count: int) -> float:
            begun = clock()
            await asyncio.gather(*(caller(key, count // TOGETHER or 1) for key in KEYS))
            return clock() - begun

        return lambda count: self.runner.run(run(count))

    def alone(self, call: Call, share: int = 1) -> Contestant:
        """Return a contestant of one caller, each call of which does the work of `share`."""

        async def run(count: int) -> float:
            begun = perf_counter()
            for turn in range(max(1, count // share)):
                await call(KEYS[turn % TOGETHER])
            return perf_counter() - begun

        return lambda count: self.runner.run(run(count))

    async def write_many(self, _: bytes) -> None:
        """Write all keys and wait."""
        end = time.time() + LIFE
        await self.ours.set_many(GENERAL, {key: Entry(CLAIMS, end) for key in KEYS}, wait=True)

    def queued(self) -> Contestant:
        """Return a contestant that does not wait, until all is written; it pauses where a full queue would drop."""

        async def run(count: int) -> float:
            keys = [os.urandom(32) for _ in range(count)]
            begun = perf_counter()
            for turn, key in enumerate(keys):
                await self.queue(key)
                if turn % TOGETHER == TOGETHER - 1:
                    await self._drain_to(5 * TOGETHER)
            await self._drain_to(0)
            return perf_counter() - begun

        return lambda count: self.runner.run(run(count))

    async def _drain_to(self, most: int) -> None:
        for turn in itertools.count():
            if turn and self.ours.overview().queued <= most:
                return
            await asyncio.sleep(0)


def _beside(what: str, timing: Timing, name: str) -> Row:
    ratio = timing.median / ORIGINAL[name]
    return Row(
        what, timing.median, least=timing.least, ratio=ratio, base=f"{ORIGINAL[name]:.0f} µs", goal=at_most(ratio, 1)
    )


def _is_here(name: str) -> bool:
    try:
        importlib.import_module(name.partition(",")[0])
    except ImportError:
        print(f"hybrid: {name} is not installed", file=sys.stderr)
        return False
    return True


def _cashews(url: str, **options: Any) -> Any:
    cache = importlib.import_module("cashews").Cache()
    cache.setup(url, **options)
    return cache


def _aiocache(url: str) -> Any:
    host, _, port = url.removeprefix("redis://").partition("/")[0].partition(":")
    module = importlib.import_module("aiocache.backends.redis")
    plain = importlib.import_module("aiocache.serializers").NullSerializer(encoding=None)
    return module.RedisCache(endpoint=host, port=int(port), serializer=plain)


def _by_hex(get: Callable[[str], Awaitable[object]]) -> Call:
    return lambda key: get(key.hex())


_PEERS: dict[str, Callable[[str], Any]] = {
    "cashews": lambda url: _cashews(url, client_side=False),
    "cashews, client side": lambda url: _cashews(url, client_side=True),
    "aiocache": _aiocache,
}


if __name__ == "__main__":
    for title, table in rows().items():
        print(markdown(title, table), end="\n\n")
