"""What a Redis that hangs costs those who ask, and what a million keys and a minute's outage leave in memory."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import quantiles
from time import perf_counter, perf_counter_ns
from typing import Any

from redis_stand import redis_kit
from table import Row, at_most, markdown
from traffic import AUDIENCE, Application, bare, issuer, no_body, only_200, scope_of

from oidc_middleware import OIDC, OIDCMiddleware
from oidc_middleware.cache import (
    TYPES,
    CacheType,
    HybridBackend,
    Limits,
    MemoryBackend,
    new_secret,
)
from oidc_middleware.clock import SystemClock
from oidc_middleware.testing import FakeIssuer

GENERAL = TYPES["general"]
LIFE = 3600
MIB = 1024 * 1024
BUDGET, SLACK = 250.0, 20.0


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the tables of an outage."""
    kit = redis_kit()
    with kit.RedisServer() as server, asyncio.Runner() as runner:
        frozen = runner.run(hang(server, 2_000 if quick else 10_000))
    return {
        "Redis hangs (SIGSTOP)": frozen,
        "A node's memory": [*(growth(100_000, 10) if quick else growth(1_000_000, 60)), collection(1_000_000)],
    }


async def hang(server: Any, count: int) -> list[Row]:
    """Measure requests while the server answers, when it begins to hang, and while it is left alone."""
    provider = issuer()
    oidc = OIDC(
        issuer=provider.url,
        audience=AUDIENCE,
        cache=server.url,
        secret=new_secret(),
        share_tokens="always",
        transport=provider.transport(),
    )
    app: Application = OIDCMiddleware(bare(), oidc=oidc)
    known = provider.token()
    async with oidc:
        await request(app, known)
        normal = [await request(app, known) for _ in range(count)]
        first = [await request(app, token) for token in tokens(provider, 200)]
        server.stop()
        begin = await asyncio.gather(*(request(app, token) for token in tokens(provider, 50)))
        frozen = [await request(app, known) for _ in range(count)]
        await left_alone(oidc.caches.backend)
        alone = [await request(app, token) for token in tokens(provider, 200)]
        beneath = [await ask(oidc.caches.backend) for _ in range(200)]
        server.cont()
    p99 = percentile(frozen) / percentile(normal)
    return [
        Row("a known token, p99", percentile(normal) * 1e3),
        Row("… while it hangs", percentile(frozen) * 1e3, ratio=p99, base="before", goal=at_most(p99, 2)),
        Row("a new token, shared at once, p99", percentile(first), unit="ms"),
        longest("… longest of 50 at once when it begins to hang", begin, BUDGET + SLACK),
        longest("… longest once it is left alone", alone, None),
        longest("a read that memory cannot answer, longest once it is left alone", beneath, 1.0),
    ]


def longest(what: str, took: list[float], limit: float | None) -> Row:
    """Return the row of the longest of times in ms."""
    value = max(took)
    return Row(what, value, unit="ms", goal=None if limit is None else at_most(value, limit, "ms"))


def tokens(provider: FakeIssuer, count: int) -> list[str]:
    """Return tokens that nobody has seen."""
    return [provider.token(f"user {number}") for number in range(count)]


async def request(app: Application, token: str) -> float:
    """Return how long a request takes, in ms."""
    scope = scope_of(token)
    start = perf_counter_ns()
    await app(scope, no_body, only_200)
    return (perf_counter_ns() - start) / 1e6


async def ask(backend: Any) -> float:
    """Return how long it takes to hear that nothing is known, in ms."""
    start = perf_counter_ns()
    await backend.get(GENERAL, os.urandom(32))
    return (perf_counter_ns() - start) / 1e6


async def left_alone(backend: Any) -> None:
    """Ask and write until the store is left alone for both."""
    standing = backend._standing  # noqa: SLF001  which of the two it is, nobody is told
    while standing.reads.is_closed or standing.writes.is_closed:
        await backend.get(GENERAL, os.urandom(32))
        await backend.set(GENERAL, os.urandom(32), b"", time.time() + LIFE)
        await asyncio.sleep(0.01)


def percentile(took: list[float]) -> float:
    """Return the 99th percentile."""
    return quantiles(took, n=100)[98]


# ------------------------------------------------------------------------------------------------------------- memory


def growth(count: int, outage: int) -> list[Row]:
    """Return what a process of its own takes before, between and after, in MiB."""
    command = [sys.executable, __file__, str(count), str(outage)]
    figures = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    before, after, away, back = (int(figure) / MIB for figure in figures)
    return [
        Row("its caches filled", before, unit="MiB"),
        _beside(f"… after {count:,} more keys", after, before),
        _beside(f"… after {outage} s without Redis, under load", away, before),
        _beside("… after it came back", back, before),
    ]


def _beside(what: str, value: float, base: float) -> Row:
    ratio = value / base
    return Row(what, value, unit="MiB", ratio=ratio, base="filled", goal=at_most(ratio, 1.05))


async def grow(count: int, outage: float) -> None:
    """Fill the caches, write `count` keys more, kill Redis for `outage` seconds, and print what memory is taken."""
    kit, provider = redis_kit(), issuer()
    with kit.RedisServer() as server:
        settings: dict[str, Any] = {"issuer": provider.url, "audience": AUDIENCE, "transport": provider.transport()}
        async with OIDC(cache=server.url, secret=new_secret(), **settings) as oidc:
            backend = oidc.caches.backend
            assert isinstance(backend, HybridBackend)
            await fill(backend, server)
            await exhaust(backend, server, count, outage)


async def fill(backend: HybridBackend, server: Any) -> None:
    """Fill the caches, and the account of what an outage makes one miss, for that is bounded, too."""
    await write(backend, 200_000)
    server.kill()
    await write(backend, 200_000)
    server.start()
    await recovered(backend)
    await write(backend, 50_000)


async def exhaust(backend: HybridBackend, server: Any, count: int, outage: float) -> None:
    """Write keys, be without Redis, and print after each what memory is taken."""
    print(resident())
    await write(backend, count)
    print(resident())
    server.kill()
    end = perf_counter() + outage
    while perf_counter() < end:
        await write(backend, 1000)
    print(resident())
    server.start()
    await recovered(backend)
    print(resident())


async def write(backend: HybridBackend, count: int) -> None:
    """Write and read keys that nobody wrote before, as fast as they are taken."""
    for number in range(count):
        key = os.urandom(32)
        await backend.set(GENERAL, key, key * 8, time.time() + LIFE)
        if number % 50 == 0:
            await backend.get(GENERAL, os.urandom(32))
            await asyncio.sleep(0)  # as between requests


async def recovered(backend: HybridBackend) -> None:
    """Return when nothing is left to be put right."""
    while not await backend.check():  # noqa: ASYNC110  asking is what brings it about
        await asyncio.sleep(0.05)


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def collection(count: int) -> Row:
    """Return what a full collection takes with so many entries in memory."""
    kind = CacheType("token", None, "queued", "invalidated", Limits(count + 1, 1 << 40, 1 << 20))
    memory = MemoryBackend(SystemClock(), [kind])
    shelf = memory._shelves["token"]  # noqa: SLF001  what a typed cache fills
    end = time.time() + LIFE
    for number in range(count):
        shelf.put(b"%032d" % number, (end, number, b"claims %d" % number), end, 200)
    gc.collect()
    took = []
    for _ in range(3):
        start = perf_counter()
        gc.collect()
        took.append((perf_counter() - start) * 1e3)
    least = min(took)
    return Row(f"a full garbage collection, {count:,} entries", least, unit="ms", goal=at_most(least, 100, "ms"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(grow(int(sys.argv[1]), float(sys.argv[2])))
    else:
        for title, table in rows().items():
            print(markdown(title, table), end="\n\n")
