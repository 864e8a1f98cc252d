"""What Redis costs as a shared tier, beside redis-py with one command each: many reads, a lone write, many writes."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from table import Contestant, Row, compared, interleaved, markdown

from oidc_middleware.cache import TYPES, RedisBackend
from oidc_middleware.cache.envelope import Sealer, new_secret
from oidc_middleware.clock import SystemClock

TOKEN, GENERAL = TYPES["token"], TYPES["general"]
TOGETHER = 100
VALUE = os.urandom(700)
KEYS = [os.urandom(32) for _ in range(TOGETHER)]
LIFE = 3600
REDIS = "redis-py, one command each"
OURS = "`RedisBackend`"

Call = Callable[[bytes], Awaitable[object]]


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the tables of Redis, each with what redis-py does alone as its base."""
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
    """Everybody who is measured, connected to one server from one event loop."""

    def __init__(self, runner: asyncio.Runner, url: str) -> None:
        redis = importlib.import_module("redis.asyncio")
        self.runner = runner
        self.redis: Any = redis.Redis.from_url(url)
        self.ours = RedisBackend(url, clock=SystemClock(), budget=10)
        self.sealer = Sealer([new_secret()], "oidc")
        self.peers: dict[str, Any] = {}
        for name, make in (("cashews", _cashews), ("aiocache", _aiocache)):
            try:
                self.peers[name] = make(url)
            except ImportError:
                print(f"redis: {name} is not installed", file=sys.stderr)

    async def fill(self) -> None:
        """Store what is read, with everybody."""
        for key in KEYS:
            await self.redis_set(key)
            await self.ours_set(key)
            for peer in self.peers.values():
                await peer.set(key.hex(), VALUE)

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self.ours.close()
        await self.redis.aclose()
        for peer in self.peers.values():
            await peer.close()

    async def redis_set(self, key: bytes) -> None:
        """Write with redis-py."""
        await self.redis.set(key, VALUE, px=LIFE * 1000)

    async def ours_set(self, key: bytes) -> None:
        """Write and wait."""
        await self.ours.set(TOKEN, key, VALUE, time.time() + LIFE)

    async def ours_queue(self, key: bytes) -> None:
        """Write and do not wait."""
        await self.ours.set(GENERAL, key, VALUE, time.time() + LIFE)

    async def ours_queue_sealed(self, key: bytes) -> None:
        """Seal, write and do not wait."""
        now = time.time()
        name, sealed = self.sealer.digest("general", key), self.sealer.seal("general", key, VALUE, now + LIFE, now)
        await self.ours.set(GENERAL, name, sealed, now + LIFE)

    def tables(self, rounds: int) -> dict[str, list[Row]]:
        """Measure."""
        reads = interleaved(
            {
                REDIS: self.together(self.redis.get),
                "redis-py, one `MGET`": self.alone(lambda _: self.redis.mget(KEYS), share=TOGETHER),
                OURS: self.together(partial(self.ours.get, TOKEN)),
                **{name: self.together(_by_hex(peer.get)) for name, peer in self.peers.items()},
            },
            50 * TOGETHER,
            rounds,
        )
        lone = interleaved({REDIS: self.alone(self.redis_set), OURS: self.alone(self.ours_set)}, 500, rounds)
        many = interleaved(
            {
                REDIS: self.alone(self.redis_set),
                f"{OURS}, {TOGETHER} that wait": self.together(self.ours_set, clock=perf_counter),
                f"{OURS}, queued": self.queued(self.ours_queue),
                f"{OURS}, sealed and queued": self.queued(self.ours_queue_sealed),
            },
            20 * TOGETHER,
            rounds,
        )
        return {
            f"Redis: {TOGETHER} readers at once, processor time of a read": compared(reads, REDIS, {OURS: 0.1}),
            "Redis: a lone write, acknowledged": compared(lone, REDIS, {OURS: 1.6}),
            "Redis: many writes beside an awaited `SET`": compared(
                many,
                REDIS,
                {
                    f"{OURS}, {TOGETHER} that wait": 0.25,
                    f"{OURS}, queued": 0.2,
                    f"{OURS}, sealed and queued": 0.2,
                },
            ),
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
        clock = perf_counter if share == 1 else process_time

        async def run(count: int) -> float:
            begun = clock()
            for turn in range(max(1, count // share)):
                await call(KEYS[turn % TOGETHER])
            return clock() - begun

        return lambda count: self.runner.run(run(count))

    def queued(self, call: Call) -> Contestant:
        """Return a contestant that does not wait, until all is written; a pause now and then is what requests make."""

        async def run(count: int) -> float:
            keys = [os.urandom(32) for _ in range(count)]
            begun = perf_counter()
            for turn, key in enumerate(keys):
                await call(key)
                if turn % TOGETHER == TOGETHER - 1:
                    await asyncio.sleep(0)
                    while self.ours.traffic().queued > 5 * TOGETHER:  # noqa: ASYNC110  what a full queue would drop
                        await asyncio.sleep(0)
            while self.ours.traffic().queued:  # noqa: ASYNC110  as long as a request would come
                await asyncio.sleep(0)
            return perf_counter() - begun

        return lambda count: self.runner.run(run(count))


def _by_hex(get: Callable[[str], Awaitable[object]]) -> Call:
    return lambda key: get(key.hex())


def _cashews(url: str) -> Any:
    cache = importlib.import_module("cashews").Cache()
    cache.setup(url, client_side=False)
    return cache


def _aiocache(url: str) -> Any:
    host, _, port = url.removeprefix("redis://").partition("/")[0].partition(":")
    module = importlib.import_module("aiocache.backends.redis")
    plain = importlib.import_module("aiocache.serializers").NullSerializer(encoding=None)
    return module.RedisCache(endpoint=host, port=int(port), serializer=plain)


if __name__ == "__main__":
    for title, table in rows().items():
        print(markdown(title, table), end="\n\n")
