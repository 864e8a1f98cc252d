"""What the shared file costs: reads, writes alone and together, and what the loop and another process feel of them."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, closing, contextmanager
from hashlib import sha256
from pathlib import Path
from time import perf_counter

from table import ROUNDS, Contestant, Row, at_most, compared, interleaved, over, repeated

from oidc_middleware.cache import TYPES, Entry
from oidc_middleware.cache.sqlite import SqliteBackend
from oidc_middleware.cache.sqlite.watch import Watch
from oidc_middleware.clock import SystemClock

TOKEN, GENERAL = TYPES["token"], TYPES["general"]
STORED = 2000
TOGETHER = 100
QUEUED = 10_000
VALUE = os.urandom(900)
END = time.time() + 86_400
KEYS = [sha256(b"%d" % number).digest() for number in range(STORED)]
BARE_READ = "`sqlite3`, a query"
BARE_WRITE = "`sqlite3`, a transaction"

Call = Callable[[bytes], Awaitable[object]]


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the tables of reads, of writes, and of what others feel."""
    rounds = 5 if quick else ROUNDS
    with (
        tempfile.TemporaryDirectory() as directory,
        bare(Path(directory)) as db,
        opened(Path(directory)) as (ours, run),
    ):
        return {
            "The shared file: one read": reads(ours, run, db, rounds),
            "The shared file: one acknowledged write of 900 bytes": writes(ours, run, db, rounds),
            "The shared file: what others feel": [held(ours, run), *noticed(ours, run, 50 if quick else 300)],
        }


def reads(ours: SqliteBackend, runner: asyncio.Runner, db: sqlite3.Connection, rounds: int) -> list[Row]:
    """Measure what a read takes over the bare query."""
    select = "SELECT value, ends FROM entries WHERE key = ?"
    watch = Watch(ours._worker)  # noqa: SLF001 (what `changes` does between two pauses)
    timings = interleaved(
        {
            BARE_READ: over(lambda key: db.execute(select, (key,)).fetchone(), [(key,) for key in KEYS]),
            "`get`": in_turn(runner, lambda key: ours.get(TOKEN, key)),
            "`get` of what is not there": in_turn(runner, lambda key: ours.get(GENERAL, key)),
            f"`get`, {TOGETHER} callers": together(runner, lambda key: ours.get(TOKEN, key)),
            "`get_many`, a key": many(runner, lambda keys: ours.get_many(TOKEN, keys)),
            "a look for changes that there are not": repeated(watch.look),
        },
        STORED,
        rounds,
    )
    return compared(timings, BARE_READ, {"`get`": 2})


def writes(ours: SqliteBackend, runner: asyncio.Runner, db: sqlite3.Connection, rounds: int) -> list[Row]:
    """Measure what an acknowledged write takes over a bare transaction that waits for nobody."""
    update = "UPDATE entries SET ends = ?, value = ? WHERE key = ?"

    async def set_many(keys: list[bytes]) -> None:
        await ours.set_many(TOKEN, {key: Entry(VALUE, END) for key in keys})

    timings = interleaved(
        {
            BARE_WRITE: over(lambda key: db.execute(update, (END, VALUE, key)), [(key,) for key in KEYS]),
            "`set`": in_turn(runner, lambda key: ours.set(TOKEN, key, VALUE, END)),
            "`delete` of what is not there": in_turn(runner, lambda key: ours.delete(GENERAL, key)),
            f"`set`, {TOGETHER} callers": together(runner, lambda key: ours.set(TOKEN, key, VALUE, END)),
            "`set_many`, an entry": many(runner, set_many),
        },
        STORED,
        rounds,
    )
    return compared(timings, BARE_WRITE)


def held(ours: SqliteBackend, runner: asyncio.Runner) -> Row:
    """Measure for how long the loop turns to nobody else while writes are queued and made."""
    longest = runner.run(longest_turn(ours)) * 1e3
    return Row(
        f"longest turn of the loop, {QUEUED:,} writes queued", longest, unit="ms", goal=at_most(longest, 50, "ms")
    )


async def longest_turn(ours: SqliteBackend) -> float:
    """Return the seconds of the longest turn; the collector rests, for it is measured elsewhere."""
    longest = 0.0
    queued: list[asyncio.Task[None]] = []
    gc.disable()
    try:
        while len(queued) < QUEUED or not queued[-1].done():
            before = perf_counter()
            queued += [
                asyncio.create_task(ours.set(TOKEN, KEYS[number % STORED], VALUE, END))
                for number in range(len(queued), min(QUEUED, len(queued) + TOGETHER))
            ]
            await asyncio.sleep(0)
            longest = max(longest, perf_counter() - before)
    finally:
        gc.enable()
    await asyncio.gather(*queued)
    return longest


def noticed(ours: SqliteBackend, runner: asyncio.Runner, count: int) -> list[Row]:
    """Measure how long after another process deletes a key this one knows."""
    taken = sorted(runner.run(delays(ours, count)))
    p50, p99 = taken[len(taken) // 2], taken[int(len(taken) * 0.99)]
    return [
        Row("deleted in one process, known in another: p50", p50 * 1e3, unit="ms", least=taken[0] * 1e3),
        Row("… p99", p99 * 1e3, unit="ms", goal=at_most(p99 * 1e3, 60, "ms")),
    ]


async def delays(ours: SqliteBackend, count: int) -> list[float]:
    """Return the seconds between the deletion of each key, whose name is the time, and the news of it."""
    taken: list[float] = []
    async with aclosing(ours.changes()) as changes:
        await anext(changes)
        other = subprocess.Popen([sys.executable, __file__, ours.path, str(count)])  # noqa: ASYNC220 (nothing else runs)
        async for change in changes:
            taken += [time.time() - float(key) for key in change.keys or ()]
            if len(taken) >= count:
                break
    other.wait()
    return taken


async def delete_by_time(path: str, count: int) -> None:
    """Be the other process: delete keys that are named after the moment when they are."""
    backend = SqliteBackend(path, clock=SystemClock())
    await backend.ping()
    for _ in range(count):
        await asyncio.sleep(0.013)
        await backend.delete(GENERAL, repr(time.time()).encode())
    await backend.close()


@contextmanager
def opened(directory: Path) -> Iterator[tuple[SqliteBackend, asyncio.Runner]]:
    """Open a file that holds something, and close it."""
    with asyncio.Runner() as runner:
        backend = SqliteBackend(directory / "cache.db", clock=SystemClock(), budget=10)
        runner.run(backend.set_many(TOKEN, {key: Entry(VALUE, END) for key in KEYS}))
        try:
            yield backend, runner
        finally:
            runner.run(backend.close())


@contextmanager
def bare(directory: Path) -> Iterator[sqlite3.Connection]:
    """Open the simplest table that could hold the same."""
    with closing(sqlite3.connect(directory / "bare.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("CREATE TABLE entries (key BLOB PRIMARY KEY, ends REAL, value BLOB)")
        db.execute("BEGIN")
        db.executemany("INSERT INTO entries VALUES (?, ?, ?)", ((key, END, VALUE) for key in KEYS))
        db.execute("COMMIT")
        yield db


def in_turn(runner: asyncio.Runner, call: Call) -> Contestant:
    """Return the contestant that awaits one call after another."""

    async def run(count: int) -> float:
        start = perf_counter()
        for key in KEYS[:count]:
            await call(key)
        return perf_counter() - start

    return lambda count: runner.run(run(count))


def together(runner: asyncio.Runner, call: Call) -> Contestant:
    """Return the contestant that has so many calls under way at a time."""

    async def run(count: int) -> float:
        start = perf_counter()
        for first in range(0, count, TOGETHER):
            await asyncio.gather(*map(call, KEYS[first : min(count, first + TOGETHER)]))
        return perf_counter() - start

    return lambda count: runner.run(run(count))


def many(runner: asyncio.Runner, call: Callable[[list[bytes]], Awaitable[object]]) -> Contestant:
    """Return the contestant that does so many in one call."""

    async def run(count: int) -> float:
        start = perf_counter()
        for first in range(0, count, TOGETHER):
            await call(KEYS[first : min(count, first + TOGETHER)])
        return perf_counter() - start

    return lambda count: runner.run(run(count))


if __name__ == "__main__":
    asyncio.run(delete_by_time(sys.argv[1], int(sys.argv[2])))
