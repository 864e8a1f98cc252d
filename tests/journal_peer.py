"""Another process that shares a journal, driven line by line; and what the tests of the journal need besides."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path

from sqlite_peer import say, serve

from oidc_middleware.cache.ledger import Noted
from oidc_middleware.cache.sqlite.journal import SqliteJournal
from oidc_middleware.clock import SystemClock
from oidc_middleware.core.ledger.records import Kind, Record

END = 2_000_000_000
KEY_ID = b"\x01\x02\x03\x04"
PATIENCE = 15.0


def record(digest: int, number: int = END, end: int = END, kind: Kind = Kind.TOKEN) -> Record:
    """Return a record: of a token that expires in 2033 unless said otherwise."""
    return Record(kind, KEY_ID, digest, number, end)


def journal_at(path: Path | str, budget: float = PATIENCE) -> SqliteJournal:
    """Return a journal with time to spare."""
    return SqliteJournal(path, clock=SystemClock(), budget=budget)


def digests(notes: Iterable[Noted]) -> list[int]:
    """Return which records were noted."""
    return sorted(note.record.digest for note in notes)


async def adding(journal: SqliteJournal, first: int) -> None:
    """Add without end, from several tasks, and print the digest of each record as soon as it is acknowledged."""

    async def add(start: int) -> None:
        for digest in range(start, 1 << 62, 4):
            await journal.add([record(digest)], is_acknowledged=bool(digest % 2))
            say(str(digest))

    await asyncio.gather(*(add(first + task) for task in range(4)))


async def add_each(journal: SqliteJournal, first: int, count: int) -> None:
    """Add so many records, each after the last one."""
    for digest in range(first, first + count):
        await journal.add([record(digest)], is_acknowledged=False)


async def names(journal: SqliteJournal) -> list[int]:
    """Return the digests of what there is now."""
    return digests(await journal.load())


def main(path: str) -> None:
    """Answer the lines that come."""
    journal = journal_at(path)
    known = {"journal": journal, "record": record, "adding": adding, "add_each": add_each, "names": names}
    serve(known, journal.aclose)


if __name__ == "__main__":
    main(sys.argv[1])
