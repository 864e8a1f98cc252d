"""What the benchmarks of Redis share: a server of their own, callers who come alone or together, and the peers."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from table import Contestant

TOGETHER = 100
LIFE = 3600
KEYS = [os.urandom(32) for _ in range(TOGETHER)]
REDIS = "redis-py, one command each"

Call = Callable[[bytes], Awaitable[object]]


def redis_kit() -> Any:
    """Return the module of the tests that starts servers."""
    sys.path.append(str(Path(__file__).parent.parent / "tests"))
    return importlib.import_module("redis_kit")


class Callers:
    """Ways to call, over one event loop."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner

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

    def alone(self, call: Call, share: int = 1, clock: Callable[[], float] = perf_counter) -> Contestant:
        """Return a contestant of one caller, each call of which does the work of `share`."""

        async def run(count: int) -> float:
            begun = clock()
            for turn in range(max(1, count // share)):
                await call(KEYS[turn % TOGETHER])
            return clock() - begun

        return lambda count: self.runner.run(run(count))

    def queued(self, call: Call, waiting: Callable[[], int]) -> Contestant:
        """Return a contestant that does not wait, until nothing is `waiting` any more.

        Every hundred calls the loop turns, as between requests, and until so little waits that nothing is dropped.
        """

        async def drain_to(most: int) -> None:
            await asyncio.sleep(0)
            while waiting() > most:  # noqa: ASYNC110  as long as a request would come
                await asyncio.sleep(0)

        async def run(count: int) -> float:
            keys = [os.urandom(32) for _ in range(count)]
            begun = perf_counter()
            for turn, key in enumerate(keys):
                await call(key)
                if turn % TOGETHER == TOGETHER - 1:
                    await drain_to(5 * TOGETHER)
            await drain_to(0)
            return perf_counter() - begun

        return lambda count: self.runner.run(run(count))


class Peers:
    """Redis through other packages, as far as they are installed."""

    def __init__(self, url: str, names: tuple[str, ...]) -> None:
        self._by_name: dict[str, Any] = {}
        for name in names:
            try:
                self._by_name[name] = _MAKE[name](url)
            except ImportError:
                print(f"{name} is not installed", file=sys.stderr)

    def readers(self) -> dict[str, Call]:
        """Return what each reads with."""
        return {name: _by_hex(peer.get) for name, peer in self._by_name.items()}

    async def fill(self, value: bytes) -> None:
        """Store what is read."""
        for key in KEYS:
            for peer in self._by_name.values():
                await peer.set(key.hex(), value)

    async def aclose(self) -> None:
        """Let go of their connections."""
        for peer in self._by_name.values():
            await peer.close()


def _by_hex(get: Callable[[str], Awaitable[object]]) -> Call:
    return lambda key: get(key.hex())


def _cashews(url: str, *, client_side: bool) -> Any:
    cache = importlib.import_module("cashews").Cache()
    cache.setup(url, client_side=client_side)
    return cache


def _aiocache(url: str) -> Any:
    host, _, port = url.removeprefix("redis://").partition("/")[0].partition(":")
    module = importlib.import_module("aiocache.backends.redis")
    plain = importlib.import_module("aiocache.serializers").NullSerializer(encoding=None)
    return module.RedisCache(endpoint=host, port=int(port), serializer=plain)


_MAKE: dict[str, Callable[[str], Any]] = {
    "cashews": lambda url: _cashews(url, client_side=False),
    "cashews, client side": lambda url: _cashews(url, client_side=True),
    "aiocache": _aiocache,
}
