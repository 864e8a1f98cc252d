"""The file that processes share: found, made, recognised, and set aside when nobody can read it."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import NamedTuple
from urllib.parse import quote

from oidc_middleware.cache.sqlite.tables import VERSION, schema
from oidc_middleware.errors import BackendUnavailable

_LOGGER = logging.getLogger("oidc_middleware.cache")
# In the file's header, as the version is.
_APPLICATION = 0x4F494443
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PRIVATE = 0o600
_MOST_ASIDE = 9


class Identity(NamedTuple):
    """Which file a name leads to."""

    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class SharedFile:
    """An open file: one connection that writes, one that reads, one that watches for the commits of others.

    `source` marks what is written through it, so that its own changes can be told from those of others.
    """

    path: str
    identity: Identity
    source: bytes
    writer: Connection
    reader: Connection
    watcher: Connection

    def is_current(self) -> bool:
        """Tell whether its path still leads to it: somebody may have removed or replaced the file."""
        return identity(self.path) == self.identity

    def close_readers(self) -> None:
        """Close what reads. The connection that writes goes last: closing the last one of all moves the log."""
        self.reader.close()
        self.watcher.close()


def identity(path: str) -> Identity | None:
    """Return which file `path` leads to, None when there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 (a Path costs as much as the look)
    except OSError:
        return None
    return Identity(found.st_dev, found.st_ino)


def is_damage(error: BaseException) -> bool:
    """Tell whether an error says that the file is no database, or a broken one."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def open_file(
    path: str, kinds: tuple[str, ...], patience: float, *, is_first: bool = True, broken: Identity | None = None
) -> SharedFile:
    """Open the file, and make it where there is none. Blocks.

    `is_first` says that this process had it never open before, `broken` names a file that turned out to be damaged.
    Whoever opens the path waits `patience` seconds at most while another process does.

    A damaged file is set aside, and so is one of another version, by a process that opens its first: later it is a
    newer process that changed the file, and setting it aside again would never end.

    Raises:
        BackendUnavailable: the path leads to something that is not ours.
        sqlite3.Error, OSError: it cannot be opened.
    """
    if Path(path).is_dir():
        raise BackendUnavailable(f"{path} is a directory", "link")
    with _alone(path, patience) as lock:
        if broken is not None and identity(path) == broken:
            _set_aside(path, "is damaged")
        _see_to_file(path, lock)
        try:
            return _open(path, kinds, patience, lock, is_first=is_first)
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            _set_aside(path, "is damaged")
            _see_to_file(path, lock)
            return _open(path, kinds, patience, lock, is_first=True)


@contextmanager
def _alone(path: str, patience: float) -> Iterator[Connection]:
    """Keep other processes from opening the path. The lock is SQLite's own, which ends with the process on any system.

    Without it one process could remove what another has just made.
    """
    name = f"{path}-lock"
    if not os.path.lexists(name):
        _make(name)
    with closing(_connect(name, patience)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield lock
        lock.execute("COMMIT")


def _make(path: str) -> None:
    """Make an empty file for its owner alone: what SQLite puts beside it gets the same mode.

    Never open a database otherwise than through SQLite: closing it would give up all locks that this process has on it.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE))


def _see_to_file(path: str, lock: Connection) -> None:
    """See to it that there is a regular file, and beside it nothing that another file left.

    SQLite takes the log and its index that lie beside a file for those of the file, so the lock remembers whose they
    are: somebody may have put another file in the place of the one that we made.

    Raises:
        BackendUnavailable: there is something else.
    """
    if not os.path.lexists(path):
        _remove_leftovers(path)
        _make(path)
    found = Path(path).stat()
    if not stat.S_ISREG(found.st_mode):
        raise BackendUnavailable(f"{path} is no file", "link")
    mark = found.st_ino & 0x7FFFFFFF
    (owner,) = lock.execute("PRAGMA user_version").fetchone()
    if owner not in {0, mark}:  # 0: somebody removed the lock, and what lies beside the file may be in use
        _remove_leftovers(path)
    if owner != mark:
        lock.execute(f"PRAGMA user_version = {mark}")


def _open(path: str, kinds: tuple[str, ...], patience: float, lock: Connection, *, is_first: bool) -> SharedFile:
    """Open the file as it is now, or a new one where it is of another version."""
    with ExitStack() as undo:
        writer = undo.enter_context(closing(_connect(path, patience)))
        version = _version(path, writer)
        if version not in {0, VERSION}:
            if not is_first:
                raise BackendUnavailable(f"{path} is of version {version} now: a newer process uses it", "link")
            writer.close()
            _set_aside(path, f"is of version {version}, not {VERSION}")
            _see_to_file(path, lock)
            return _open(path, kinds, patience, lock, is_first=False)
        _prepare(path, writer, kinds)
        reader = undo.enter_context(closing(_connect(path, 0)))
        watcher = undo.enter_context(closing(_connect(path, 0)))
        for connection in (reader, watcher):
            connection.execute("PRAGMA query_only = ON")
            connection.execute("SELECT count(*) FROM totals").fetchone()
        for name in (path, f"{path}-wal", f"{path}-shm"):
            _make_private(name)
        found = identity(path)
        if found is None:
            raise BackendUnavailable(f"{path} was removed while it was opened", "link")
        undo.pop_all()
        return SharedFile(path, found, os.urandom(8), writer, reader, watcher)


def _make_private(path: str) -> None:
    """Take the file's permissions from everybody but its owner."""
    mode = stat.S_IMODE(Path(path).stat().st_mode)
    if mode & 0o077:
        Path(path).chmod(mode & 0o700)


def _connect(path: str, patience: float) -> Connection:
    """Connect to a file that exists, so that SQLite never makes one that others may read."""
    return sqlite3.connect(
        f"file://{quote(path)}?mode=rw", uri=True, timeout=patience, isolation_level=None, check_same_thread=False
    )


def _version(path: str, db: Connection) -> int:
    """Return the version of our file, 0 when it is empty.

    Raises:
        BackendUnavailable: the file belongs to another application; it is not touched.
    """
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application == _APPLICATION:
        return int(version)
    if application or version or tables:
        raise BackendUnavailable(f"{path} is a database of another application", "link")
    return 0


def _prepare(path: str, db: Connection, kinds: tuple[str, ...]) -> None:
    """Set the connection that writes, and make the tables that are missing: nothing is written where none are."""
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise BackendUnavailable(f"{path} lies on a file system that processes cannot share (no WAL)", "link")
    # Nothing committed is lost when a process dies; when the machine does, the last moments of a cache may go.
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA journal_size_limit = 16777216")
    db.execute("PRAGMA trusted_schema = OFF")
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables.issuperset(f"entries_{kind}" for kind in kinds):
        return
    db.execute("BEGIN IMMEDIATE")
    for statement in schema(kinds):
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {_APPLICATION}")
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")


def _set_aside(path: str, why: str) -> None:
    """Give the file another name. What lies beside it belongs to it and to no file that comes after.

    Raises:
        BackendUnavailable: there are too many such files; somebody should look at them.
    """
    names = (f"{path}.aside-{number}" for number in range(1, _MOST_ASIDE + 1))
    free = next((name for name in names if not os.path.lexists(name)), None)
    if free is None:
        raise BackendUnavailable(f"{path} {why}, and {_MOST_ASIDE} such files lie beside it already", "link")
    Path(path).rename(free)
    _remove_leftovers(path)
    _LOGGER.error("the shared cache %s %s; it is now %s, and the cache starts empty", path, why, free)


def _remove_leftovers(path: str) -> None:
    """Remove the log and its index that another file left behind. Who has them open does not miss them."""
    for name in (f"{path}-wal", f"{path}-shm"):
        Path(name).unlink(missing_ok=True)
