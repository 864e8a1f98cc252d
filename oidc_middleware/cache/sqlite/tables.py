"""The tables of the shared file, and what one transaction does to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from sqlite3 import Connection

from oidc_middleware.cache.backend import Entry
from oidc_middleware.cache.changes import packed
from oidc_middleware.cache.sqlite.file import Layout, SharedFile
from oidc_middleware.cache.types import CacheType

KEPT_CHANGES = 1024
"""Transactions whose changes can be read; whoever is further behind has missed some."""

# A transaction that changes more than this says "any key", in bytes.
_MOST_TOLD = 16_384
_SWEPT = 64
_EVICTED = 1024
_CLEARED = 2048
_CLEARED_AT_ONCE = 16_384
_COLUMNS = "key BLOB PRIMARY KEY, ends REAL NOT NULL, version INTEGER NOT NULL, value BLOB NOT NULL"
_VERSION = 2
_Told = dict[str, list[bytes] | None]


@dataclass(slots=True)
class Tally:
    """What happened to one type through one backend. The loop counts hits, misses and refusals, the writer the rest."""

    hits: int = 0
    misses: int = 0
    refused: int = 0
    sets: int = 0
    evicted: int = 0
    expired: int = 0


def table(kind: str) -> str:
    """Return the quoted name of the table that holds a type."""
    return '"entries_{}"'.format(kind.replace('"', '""'))


def layout(kinds: Iterable[str]) -> Layout:
    """Return what the file of a cache of such types is."""
    totals = "kind TEXT PRIMARY KEY, entries INTEGER NOT NULL, bytes INTEGER NOT NULL"
    changes = "number INTEGER PRIMARY KEY AUTOINCREMENT, source BLOB, told BLOB"
    tables = {
        "totals": [f"CREATE TABLE IF NOT EXISTS totals ({totals})"],
        "changes": [f"CREATE TABLE IF NOT EXISTS changes ({changes})"],
    }
    for kind in kinds:
        name = table(kind)
        # With its end before the value, looking for the end never reads a long value's further pages.
        tables[f"entries_{kind}"] = [
            f"CREATE TABLE IF NOT EXISTS {name} ({_COLUMNS})",
            f'CREATE INDEX IF NOT EXISTS {name[:-1]}_ends" ON {name} (ends)',
        ]
    return Layout(
        name="shared cache",
        application=0x4F494443,
        version=_VERSION,
        tables=tables,
        synchronous="NORMAL",
        replaces_versions=True,
        makes_directory=False,
        when_lost="the cache starts empty",
    )


def is_alive(ends: object, now: float) -> bool:
    """Tell whether an end has not come. A row holds whatever anybody put into it, so it may be none."""
    return isinstance(ends, float) and now < ends < math.inf


class Statements:
    """The statements for one type, made once."""

    __slots__ = ("clear", "delete", "evict", "find", "insert", "select", "sweep", "thin", "update")

    def __init__(self, kind: str) -> None:
        def over(statement: str) -> str:
            return statement.replace("@", table(kind))

        self.select: str = over("SELECT value, ends, version FROM @ WHERE key = ?")
        self.find: str = over("SELECT length(key) + length(value), ends, version FROM @ WHERE key = ?")
        self.update: str = over("UPDATE @ SET ends = ?, version = ?, value = ? WHERE key = ?")
        self.insert: str = over("INSERT INTO @ (ends, version, value, key) VALUES (?, ?, ?, ?)")
        self.delete: str = over("DELETE FROM @ WHERE key = ?")
        self.clear: str = over("DELETE FROM @")
        oldest = "(SELECT rowid FROM @ WHERE rowid <= ? ORDER BY rowid LIMIT ?)"
        expired = "(SELECT rowid FROM @ WHERE ends <= ? ORDER BY ends LIMIT ?)"
        soonest = "(SELECT rowid FROM @ WHERE ends > ? ORDER BY ends LIMIT ?)"
        measure = "SELECT count(*), sum(length(key) + length(value)) FROM @ WHERE rowid IN "
        remove = "DELETE FROM @ WHERE rowid IN "
        self.thin: tuple[str, str] = over(measure + oldest), over(remove + oldest)
        self.sweep: tuple[str, str] = over(measure + expired), over(remove + expired)
        self.evict: tuple[str, str] = over(measure + soonest), over(remove + soonest)


class Tables:
    """What the transactions of one backend have in common: the types, and what happened to them."""

    def __init__(self, kinds: Sequence[CacheType], max_bytes: int) -> None:
        self.statements: Mapping[str, Statements] = {kind.name: Statements(kind.name) for kind in kinds}
        self.tallies: Mapping[str, Tally] = {kind.name: Tally() for kind in kinds}
        self.evictable: Sequence[str] = [kind.name for kind in kinds if kind.evictable]
        self.max_bytes: int = max_bytes


class Transaction:
    """Everything that is committed together. The tallies change when it is."""

    def __init__(self, file: SharedFile, tables: Tables, now: float) -> None:
        self._db: Connection = file.writer
        self._source = file.source
        self._tables = tables
        self._now = now
        self._statements = tables.statements
        self._entries: dict[str, int] = {}
        self._bytes: dict[str, int] = {}
        self._told: _Told = {}
        self._told_bytes = 0
        self._counts: dict[str, Tally] = {}

    def set(self, kind: CacheType, key: bytes, entry: Entry) -> None:
        """Store an entry; one whose end has come deletes the key."""
        value, ends, version = entry
        if self._now >= ends:
            self.delete(kind, key)
            return
        of = self._statements[kind.name]
        row = self._db.execute(of.find, (key,)).fetchone()
        self._db.execute(of.insert if row is None else of.update, (ends, version, value, key))
        size = len(key) + len(value)
        self._add(kind.name, 1 if row is None else 0, size if row is None else size - row[0])
        self._count(kind.name).sets += 1
        # Who has nothing of this key has nothing outdated; what a revocation drops is never wrong, only older.
        if kind.coherence == "replicated" or (kind.coherence == "invalidated" and row is not None):
            self._tell(kind.name, key)

    def add(self, kind: CacheType, key: bytes, entry: Entry) -> bool:
        """Store an entry where there is none that lives; tell whether it was stored."""
        if self._now >= entry.expires_at or self._version(kind, key) is not None:
            return False
        self.set(kind, key, entry)
        return True

    def update(self, kind: CacheType, key: bytes, entry: Entry) -> bool:
        """Store an entry where one of a lower version lives; tell whether it was stored."""
        version = self._version(kind, key)
        if self._now >= entry.expires_at or version is None or version >= entry.version:
            return False
        self.set(kind, key, entry)
        return True

    def _version(self, kind: CacheType, key: bytes) -> int | None:
        """Return the version of what lives under a key, None when nothing does."""
        row = self._db.execute(self._statements[kind.name].find, (key,)).fetchone()
        return row[2] if row is not None and is_alive(row[1], self._now) else None

    def delete(self, kind: CacheType, key: bytes) -> bool:
        """Delete an entry; tell whether there was one that had not ended."""
        of = self._statements[kind.name]
        self._tell(kind.name, key)
        row = self._db.execute(of.find, (key,)).fetchone()
        if row is None:
            return False
        self._db.execute(of.delete, (key,))
        self._add(kind.name, -1, -row[0])
        return is_alive(row[1], self._now)

    def clear(self, kind: CacheType) -> bool:
        """Delete all entries of a type, or of many the oldest: nobody else should wait for long. Tell if all are gone.

        To delete all takes 3 µs an entry, to delete some 25.
        """
        of = self._statements[kind.name]
        self._told[kind.name] = None
        row = self._db.execute("SELECT entries FROM totals WHERE kind = ?", (kind.name,)).fetchone()
        if row is not None and row[0] > _CLEARED_AT_ONCE and self._remove(kind.name, math.inf, _CLEARED, *of.thin):
            return False
        self._db.execute(of.clear)
        self._db.execute("DELETE FROM totals WHERE kind = ?", (kind.name,))
        self._entries.pop(kind.name, None)
        self._bytes.pop(kind.name, None)
        return True

    def touch(self) -> None:
        """Write what is there already, to see whether anything can be written."""
        self._db.execute(f"PRAGMA user_version = {_VERSION}")

    def finish(self) -> None:
        """Sweep, make room, and write down totals and changes."""
        for kind in list(self._counts):
            self._count(kind).expired += self._remove(kind, self._now, _SWEPT, *self._statements[kind].sweep)
        if self._counts and self._size() > self._tables.max_bytes:
            self._evict()
        for kind, entries in self._entries.items():
            self._db.execute("INSERT OR IGNORE INTO totals VALUES (?, 0, 0)", (kind,))
            self._db.execute(
                "UPDATE totals SET entries = entries + ?, bytes = bytes + ? WHERE kind = ?",
                (entries, self._bytes[kind], kind),
            )
        if self._told:
            self._write_changes()

    def committed(self) -> None:
        """Add what happened to the tallies."""
        for kind, counts in self._counts.items():
            tally = self._tables.tallies[kind]
            tally.sets += counts.sets
            tally.evicted += counts.evicted
            tally.expired += counts.expired

    def _size(self) -> int:
        """Return the bytes of the file that hold something."""
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        (size,) = self._db.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * size)

    def _evict(self) -> None:
        """Remove those entries that end first of the type that takes most room: more than one transaction can add."""
        sizes: dict[str, int] = dict(self._db.execute("SELECT kind, bytes FROM totals"))
        kind = max(self._tables.evictable, key=lambda name: sizes.get(name, 0), default=None)
        if kind is not None:
            self._count(kind).evicted += self._remove(kind, self._now, _EVICTED, *self._statements[kind].evict)

    def _remove(self, kind: str, bound: float, most: int, measure: str, remove: str) -> int:
        """Remove the rows that both statements choose by a bound, so many at most; return their number."""
        entries, size = self._db.execute(measure, (bound, most)).fetchone()
        if entries:
            self._db.execute(remove, (bound, most))
            self._add(kind, -entries, -size)
        return int(entries)

    def _write_changes(self) -> None:
        what = self._told if self._told_bytes <= _MOST_TOLD else dict.fromkeys(self._told)
        cursor = self._db.execute("INSERT INTO changes (source, told) VALUES (?, ?)", (self._source, packed(what)))
        self._db.execute("DELETE FROM changes WHERE number <= ?", ((cursor.lastrowid or 0) - KEPT_CHANGES,))

    def _tell(self, kind: str, key: bytes) -> None:
        keys = self._told.setdefault(kind, [])
        if keys is not None and self._told_bytes <= _MOST_TOLD:
            keys.append(key)
            self._told_bytes += len(key) + 3

    def _add(self, kind: str, entries: int, size: int) -> None:
        self._entries[kind] = self._entries.get(kind, 0) + entries
        self._bytes[kind] = self._bytes.get(kind, 0) + size

    def _count(self, kind: str) -> Tally:
        return self._counts.setdefault(kind, Tally())
