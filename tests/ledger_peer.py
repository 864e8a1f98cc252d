"""Another process that shares a ledger, driven line by line; and what the tests of the ledger need besides."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from journal_peer import PATIENCE, record
from sqlite_peer import say, serve

from oidc_middleware.cache.sqlite.ledger import SqliteLedger
from oidc_middleware.clock import SystemClock
from oidc_middleware.core.ledger.records import LogEntry, Position


def ledger_at(path: Path | str, budget: float = PATIENCE, kept: int = 100_000) -> SqliteLedger:
    """Return a ledger with time to spare."""
    return SqliteLedger(path, clock=SystemClock(), budget=budget, kept=kept)


async def everything(ledger: SqliteLedger) -> list[int]:
    """Return the digests of all records, page by page."""
    found: list[int] = []
    cursor = b""
    while True:
        page = await ledger.scan(cursor)
        found += [each.digest for each in page.records]
        cursor = page.cursor
        if not cursor:
            return sorted(found)


async def followed(ledger: SqliteLedger, place: Position, wanted: set[int]) -> tuple[Position, set[int]]:
    """Follow the log until all that is wanted was in it; it must be unbroken."""
    found: set[int] = set()
    async with asyncio.timeout(2 * PATIENCE):
        while not found >= wanted:
            entries = await ledger.read(place, PATIENCE)
            place = checked(entries, place)
            found |= {each.digest for entry in entries for each in entry.records}
    return place, found


def checked(entries: Sequence[LogEntry], place: Position) -> Position:
    """Return the place after entries each of which follows on the one before."""
    for entry in entries:
        assert Position(entry.epoch, entry.number - 1, entry.previous_id) == place
        place = entry.position
    return place


async def writing(ledger: SqliteLedger, first: int) -> None:
    """Write without end, from several tasks, and print the digest of each record as soon as it is acknowledged."""

    async def write(start: int) -> None:
        for digest in range(start, 1 << 62, 4):
            await ledger.write([record(digest)])
            say(str(digest))

    await asyncio.gather(*(write(first + task) for task in range(4)))


async def write_each(ledger: SqliteLedger, first: int, count: int, every: float = 0) -> dict[int, float]:
    """Write so many records, each after the last one or at its time; return when each was written, as all clocks go."""
    begun = time.monotonic()
    written = {}
    for number in range(count):
        await asyncio.sleep(begun + number * every - time.monotonic())
        await ledger.write([record(first + number)])
        written[first + number] = time.monotonic()
    return written


def main(path: str) -> None:
    """Answer the lines that come."""
    ledger = ledger_at(path)
    known = {
        "ledger": ledger,
        "record": record,
        "writing": writing,
        "write_each": write_each,
        "everything": everything,
    }
    serve(known, ledger.aclose)


if __name__ == "__main__":
    main(sys.argv[1])
