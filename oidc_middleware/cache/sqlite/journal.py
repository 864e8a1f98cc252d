"""The journal: revocations made on this host, on its disk until they end, for all its processes."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

from oidc_middleware.cache.ledger import Noted
from oidc_middleware.cache.sqlite.file import Layout, SharedFile, open_to_read
from oidc_middleware.cache.sqlite.glance import Glance, glance
from oidc_middleware.cache.sqlite.rows import ROW_BYTES, Row, record_of, rows_of
from oidc_middleware.cache.sqlite.worker import Worker
from oidc_middleware.clock import Clock
from oidc_middleware.core.ledger.records import Record
from oidc_middleware.errors import BackendUnavailable, FailureKind

T = TypeVar("T")

# A row that changes gets a new place behind all others: what is behind a place is what happened since.
_TABLE = (
    "CREATE TABLE IF NOT EXISTS records (place INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL UNIQUE, "
    "number INTEGER NOT NULL, ends INTEGER NOT NULL, is_acknowledged INTEGER NOT NULL)"
)
_LAYOUT = Layout(
    name="journal of revocations",
    application=0x4F49444A,
    version=1,
    tables={"records": [_TABLE, "CREATE INDEX IF NOT EXISTS records_ends ON records (ends)"]},
    synchronous="FULL",
    replaces_versions=False,
    makes_directory=True,
    when_lost="the revocations in it are known to the nodes that run and to nobody who starts",
)
_FIND = "SELECT number, ends, is_acknowledged FROM records WHERE key = ?"
_PUT = "INSERT OR REPLACE INTO records (key, number, ends, is_acknowledged) VALUES (?, ?, ?, ?)"
_READ = "SELECT place, key, number, ends, is_acknowledged FROM records WHERE place > ? ORDER BY place LIMIT ?"
_SWEEP = "DELETE FROM records WHERE place IN (SELECT place FROM records WHERE ends < ? LIMIT ?)"

_AT_ONCE = 1024
_DRAIN = 5.0
# Between two tries to write while nothing could be written, in seconds.
_PAUSE = 1.0
_MAY_NOT_WRITE = "let the user of this process write the file and its directory"
_CURES: Mapping[FailureKind, str] = {
    "auth": _MAY_NOT_WRITE,
    "readonly": _MAY_NOT_WRITE,
    "full": "make room on its disk",
    "busy": "another process keeps it locked: end that one if it hangs",
    "timeout": "its disk is slow, or another process hangs",
}
_OTHER_CURE = 'put right what lies there, or name another file in "journal"'


class SqliteJournal:
    """A `Journal` in a file of its own, shared by the processes of a host; only digests lie in it.

    The file and what lies beside it belong to the user of the process alone, and so does its directory when it is made
    here. A damaged file is set aside and a new one begun; one of another version or application is refused. A file that
    was removed or replaced is noticed, and all that is in the new one is news then. What was only in the old one is for
    those to add again who know it.

    What waits at the same time is committed together, by a thread of its own. Nobody waits longer than `budget` seconds
    for a commit; what was not acknowledged in time may still be made. It may be used by one event loop after another,
    and survives forks.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock, budget: float = 5.0) -> None:
        self.path: str = os.path.abspath(path)  # noqa: PTH100 (a process may change its directory later)
        self.strangers: int = 0
        """Rows that were read and hold no record."""
        self._clock = clock
        self._budget = budget
        self._worker: Worker[_Notes] = Worker(self.path, _LAYOUT, clock, _Notes, budget)
        self._problem: str | None = None
        self._tried_at = float("-inf")
        # All that is before the place in that file was returned; the version is None where there may be more.
        self._file: SharedFile | None = None
        self._version: int | None = None
        self._place = 0

    @property
    def problem(self) -> str | None:
        """Why nothing can be written, with the cure; None when it can, as far as is known.

        While there is one, `news` looks every second whether it is cured.
        """
        return self._problem

    async def load(self) -> Sequence[Noted]:
        """Return all that the journal holds, even where nothing can be written; `problem` says then whether it can.

        Raises:
            BackendUnavailable: it cannot be read.
        """
        self._file = None
        try:
            with self._noting():
                found = await self._read(await glance(self._worker))
        except BackendUnavailable:
            try:
                return await asyncio.wait_for(asyncio.to_thread(self._read_unwritable), self._budget)
            except (BackendUnavailable, sqlite3.Error, OSError, TimeoutError):
                pass
            raise
        await self._try()
        return found

    async def news(self) -> Sequence[Noted]:
        """Return what was added, changed or acknowledged since the last call, perhaps by this journal itself.

        Takes microseconds when there is nothing. What is read while the caller is cancelled comes again.

        Raises:
            BackendUnavailable: it cannot be read.
        """
        if self._problem is not None and self._clock.monotonic() >= self._tried_at + _PAUSE:
            await self._try()
        with self._noting():
            seen = await glance(self._worker)
            if seen is not None and seen.file is self._file and seen.version == self._version:
                return ()
            return await self._read(seen)

    async def add(self, records: Sequence[Record], *, is_acknowledged: bool) -> None:
        """Keep records, joined with what is there; return when they are on the disk.

        A record is acknowledged while the joined one says no more than what was acknowledged.

        Raises:
            ValueError: one of them is no record; none is kept.
            BackendUnavailable: they are not all kept, or nobody knows.
        """
        for rows in _parts(rows_of(records)):
            await self._write(partial(_Notes.add, rows=rows, is_acknowledged=is_acknowledged), len(rows))

    async def acknowledge(self, records: Sequence[Record]) -> None:
        """Note that the shared store has these, where they are still here and say no more than that.

        Raises:
            ValueError: one of them is no record.
            BackendUnavailable: not all was noted, or nobody knows.
        """
        for rows in _parts(rows_of(records)):
            await self._write(partial(_Notes.acknowledge, rows=rows), len(rows))

    async def sweep(self, before: float) -> int:
        """Remove records that ended before a time (Unix seconds), some at a time; return how many.

        Raises:
            BackendUnavailable: not all were removed, or nobody knows.
        """
        swept = 0
        while True:
            some = await self._write(partial(_Notes.sweep, before=before))
            swept += some
            if some < _AT_ONCE:
                return swept

    async def aclose(self) -> None:
        """Do what waits, for 5 seconds at most, and close the file; a later call opens it again."""
        await self._worker.suspend(_DRAIN)

    async def _read(self, seen: Glance | None) -> list[Noted]:
        """Return what is behind the place, and move it; what is committed meanwhile comes now or the next time."""
        file, place = self._file, self._place
        found: list[Noted] = []
        is_last = False
        while not is_last:
            page = await self._worker.fetch(partial(_page, file, place))
            file, place, is_last = page.file, page.place, page.is_last
            found += page.notes
            self.strangers += page.skipped
        self._file, self._place = file, place
        self._version = seen.version if seen is not None and seen.file is file else None
        return found

    def _read_unwritable(self) -> list[Noted]:
        with closing(open_to_read(self.path, _LAYOUT)) as db:
            return _notes(db.execute(_READ, (0, -1)).fetchall())

    async def _write(self, work: Callable[[_Notes], T], rows: int = 0) -> T:
        with self._noting():
            result = await self._worker.do(work, rows * ROW_BYTES)
        self._problem = None
        return result

    async def _try(self) -> None:
        """Find out whether anything can be written."""
        self._tried_at = self._clock.monotonic()
        with suppress(BackendUnavailable):  # `problem` says it
            await self._write(_Notes.touch)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except BackendUnavailable as error:
            if error.kind != "local":  # too much waits here; the file is well
                self._problem = f"{error.detail}; {_CURES.get(error.kind, _OTHER_CURE)}"
            raise


class _Notes:
    """What the jobs of one commit do to the table."""

    def __init__(self, file: SharedFile) -> None:
        self._db = file.writer

    def add(self, rows: Sequence[Row], *, is_acknowledged: bool) -> None:
        for row in rows:
            held = self._find(row.key)
            told = _Held(row.number, row.ends, is_acknowledged)
            new = told if held is None else _joined(held, told)
            if new != held:
                self._db.execute(_PUT, (row.key, *new))

    def acknowledge(self, rows: Sequence[Row]) -> None:
        for key, number, ends in rows:
            held = self._find(key)
            if held is not None and not held.is_acknowledged and held.number <= number and held.ends <= ends:
                self._db.execute(_PUT, (key, held.number, held.ends, True))

    def sweep(self, before: float) -> int:
        return self._db.execute(_SWEEP, (before, _AT_ONCE)).rowcount

    def touch(self) -> None:
        """Write what is there already, to see whether anything can be written."""
        self._db.execute(f"PRAGMA user_version = {_LAYOUT.version}")

    def finish(self) -> None:
        """Nothing remains to be done."""

    def committed(self) -> None:
        """Nothing is counted."""

    def _find(self, key: bytes) -> _Held | None:
        """Return what is held under a key, None when it is nothing that anybody could read."""
        row = self._db.execute(_FIND, (key,)).fetchone()
        if row is None or record_of(key, row[0], row[1]) is None:
            return None
        return _Held(row[0], row[1], bool(row[2]))


class _Held(NamedTuple):
    number: int
    ends: int
    is_acknowledged: bool


def _joined(one: _Held, other: _Held) -> _Held:
    """Join two by the larger number and end: it is acknowledged where what was acknowledged says as much."""
    number, ends = max(one.number, other.number), max(one.ends, other.ends)
    known = [held for held in (one, other) if held.is_acknowledged]
    is_acknowledged = bool(known) and (max(n for n, _, _ in known), max(e for _, e, _ in known)) == (number, ends)
    return _Held(number, ends, is_acknowledged)


class _Page(NamedTuple):
    file: SharedFile
    place: int
    is_last: bool
    notes: list[Noted]
    skipped: int


def _page(of: SharedFile | None, place: int, file: SharedFile) -> _Page:
    """Return what is behind a place in a file; in another file, what is there from the beginning."""
    after = place if file is of else 0
    rows = file.writer.execute(_READ, (after, _AT_ONCE)).fetchall()
    notes = _notes(rows)
    return _Page(file, rows[-1][0] if rows else after, len(rows) < _AT_ONCE, notes, len(rows) - len(notes))


def _notes(rows: list[Any]) -> list[Noted]:
    records = [(record_of(key, number, ends), bool(flag)) for _, key, number, ends, flag in rows]
    return [Noted(record, flag) for record, flag in records if record is not None]


def _parts(rows: list[Row]) -> Iterator[list[Row]]:
    return (rows[first : first + _AT_ONCE] for first in range(0, len(rows), _AT_ONCE))
