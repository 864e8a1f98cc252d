"""The tables of the ledger's file: the records, and the log of what changed them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from sqlite3 import Connection
from typing import Final

from oidc_middleware.cache.ledger import Page
from oidc_middleware.cache.sqlite.file import Layout, SharedFile
from oidc_middleware.cache.sqlite.rows import record_of_member
from oidc_middleware.core.ledger.records import GRACE, LogEntry, Position, Record, pack, unpack
from oidc_middleware.errors import BackendUnavailable

_RECORDS = "place INTEGER PRIMARY KEY, member BLOB NOT NULL UNIQUE, ends INTEGER NOT NULL"
# `upto` counts the records of all entries so far: what the log takes is bounded by it.
_ENTRIES = (
    "number INTEGER PRIMARY KEY, id BLOB NOT NULL, previous BLOB NOT NULL, upto INTEGER NOT NULL, records BLOB NOT NULL"
)
LAYOUT: Final = Layout(
    name="ledger of revocations",
    application=0x4F49444C,
    version=1,
    tables={
        "records": [
            f"CREATE TABLE IF NOT EXISTS records ({_RECORDS})",
            "CREATE INDEX IF NOT EXISTS records_ends ON records (ends)",
        ],
        "log": [f"CREATE TABLE IF NOT EXISTS log ({_ENTRIES})"],
        "epoch": [
            "CREATE TABLE IF NOT EXISTS epoch (id BLOB NOT NULL)",
            "INSERT INTO epoch SELECT randomblob(8) WHERE NOT EXISTS (SELECT 1 FROM epoch)",
        ],
    },
    synchronous="FULL",
    replaces_versions=False,
    makes_directory=False,
    when_lost="the nodes that run write what they know of it into the new one",
)
# An end that is no number is what anybody put there, and joins with nothing.
_JOIN = (
    "INSERT INTO records (member, ends) VALUES (?, ?) ON CONFLICT (member) DO UPDATE SET ends = excluded.ends "
    "WHERE typeof(ends) <> 'integer' OR ends < excluded.ends"
)
_SWEEP = "DELETE FROM records WHERE place IN (SELECT place FROM records WHERE ends <= ? LIMIT ?)"
_SCAN = "SELECT place, member, ends FROM records WHERE place > ? ORDER BY place LIMIT ?"
_EPOCH = "SELECT id FROM epoch"
_LAST = "SELECT number, id, upto FROM log ORDER BY number DESC LIMIT 1"
_LOG = "INSERT INTO log (number, id, previous, upto, records) VALUES (?, ?, ?, ?, ?)"
_LOGGED = "SELECT number, previous, id, records FROM log WHERE number > ? ORDER BY number LIMIT ?"
_TRIM = (
    "DELETE FROM log WHERE number IN "
    "(SELECT number FROM (SELECT number, upto FROM log ORDER BY number LIMIT ?) WHERE number <= ? OR upto <= ?)"
)

_SWEPT_BESIDES = 100
_TRIMMED_BESIDES = 64
_RECORDS_OF_AN_ENTRY = 10
_READ_TOGETHER = 32
_ROWS = 1000
_ID_BYTES = 8
_PLACE_BYTES = 8


class Writing:
    """What the jobs of one commit do to the tables. The log keeps `kept` entries, of ten records on average."""

    def __init__(self, file: SharedFile, now: float, kept: int) -> None:
        self._db = file.writer
        self._now = now
        self._kept = kept
        self._place: tuple[Position, int] | None = None
        self._logged = 0
        self._swept = 0

    def position(self) -> Position:
        """Return where the log is now."""
        return self._end()[0]

    def write(self, records: Sequence[tuple[bytes, Record]]) -> Position:
        """Join records, each with its member, and log those that changed something."""
        self._swept += len(records) + _SWEPT_BESIDES
        changed = [record for member, record in records if self._db.execute(_JOIN, (member, record.end)).rowcount]
        if changed:
            self._log(changed)
        return self.position()

    def finish(self) -> None:
        """Remove some of what ended long ago, and of what is too old in the log: more than was added."""
        if self._swept:
            self._db.execute(_SWEEP, (self._now - GRACE, self._swept))
        if self._logged:
            (_, number, _), upto = self._end()
            oldest = number - self._kept, upto - self._kept * _RECORDS_OF_AN_ENTRY
            self._db.execute(_TRIM, (self._logged + _TRIMMED_BESIDES, *oldest))

    def committed(self) -> None:
        """Nothing is counted."""

    def _end(self) -> tuple[Position, int]:
        if self._place is None:
            self._place = _end(self._db)
        return self._place

    def _log(self, changed: Sequence[Record]) -> None:
        (epoch, number, last_id), upto = self._end()
        number, upto, entry_id = number + 1, upto + len(changed), os.urandom(_ID_BYTES)
        self._db.execute(_LOG, (number, entry_id, last_id, upto, pack(changed)))
        self._place = Position(epoch, number, entry_id), upto
        self._logged += 1


def entries(after: Position, file: SharedFile) -> list[LogEntry]:
    """Return the oldest entries after a place; of a place in another life, all that there are."""
    with _snapshot(file) as db:
        epoch = _end(db)[0].epoch
        rows = db.execute(_LOGGED, (after.number if after.epoch == epoch else 0, _READ_TOGETHER)).fetchall()
    return [_entry(epoch, *row) for row in rows]


def page(cursor: bytes, file: SharedFile) -> tuple[Page | None, int]:
    """Return a part of all records and how many rows hold none; no part, where the cursor is of another file."""
    place = int.from_bytes(cursor[-_PLACE_BYTES:], "big")
    with _snapshot(file) as db:
        position, _ = _end(db)
        rows = db.execute(_SCAN, (place, _ROWS)).fetchall()
    if cursor and cursor[:-_PLACE_BYTES] != position.epoch:
        return None, 0
    found = [record for _, member, ends in rows if (record := record_of_member(member, ends)) is not None]
    is_last = len(rows) < _ROWS
    following = b"" if is_last else position.epoch + rows[-1][0].to_bytes(_PLACE_BYTES, "big")
    return Page(found, following, position), len(rows) - len(found)


@contextmanager
def _snapshot(file: SharedFile) -> Iterator[Connection]:
    """Let all that is read be of the same moment."""
    file.writer.execute("BEGIN")
    try:
        yield file.writer
    finally:
        if file.writer.in_transaction:
            file.writer.execute("ROLLBACK")


def _end(db: Connection) -> tuple[Position, int]:
    """Return where the log is, and how many records all entries had so far.

    Raises:
        BackendUnavailable: somebody spoiled it.
    """
    (epoch,) = db.execute(_EPOCH).fetchone() or (None,)
    number, last_id, upto = db.execute(_LAST).fetchone() or (0, b"", 0)
    if not (isinstance(epoch, bytes) and isinstance(last_id, bytes) and isinstance(upto, int)):
        raise BackendUnavailable("the file's log of revocations cannot be read: remove the file", "link")
    return Position(epoch, number, last_id), upto


def _entry(epoch: bytes, number: int, previous: object, entry_id: object, told: object) -> LogEntry:
    """Return an entry; what cannot be read becomes one that follows on no place."""
    if isinstance(previous, bytes) and isinstance(entry_id, bytes) and isinstance(told, bytes):
        try:
            return LogEntry(epoch, number, previous, entry_id, unpack(told))
        except ValueError:
            pass
    return LogEntry(b"", 0, b"", b"", ())
