"""The file that processes share: found, made, recognised, and set aside when nobody can read it."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import Literal, NamedTuple
from urllib.parse import quote

from oidc_middleware.cache.sqlite.faults import is_damage
from oidc_middleware.errors import BackendUnavailable

_LOGGER = logging.getLogger("oidc_middleware.cache")
_PRIVATE = 0o600
_MOST_ASIDE = 9


@dataclass(frozen=True, slots=True)
class Layout:
    """One kind of file: how it is recognised, what is in it, and how safe a commit is."""

    name: str
    """What people call it."""
    application: int
    """In the file's header, as the version is."""
    version: int
    """Changes with every change of the tables."""
    tables: Mapping[str, Sequence[str]]
    """The statements that make each table, with what belongs to it, where it is missing."""
    synchronous: Literal["NORMAL", "FULL"]
    """NORMAL: nothing committed is lost when a process dies; FULL: nor when the machine does."""
    replaces_versions: bool
    """Whether a file of another version is set aside. Else it is refused: what it holds is worth more than a start."""
    makes_directory: bool
    """Whether a directory that is missing is made, for its owner alone."""
    when_lost: str
    """What it means that a file was set aside."""


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


def open_file(
    path: str, layout: Layout, patience: float, *, is_first: bool = True, broken: Identity | None = None
) -> SharedFile:
    """Open the file, and make it where there is none. Blocks.

    `is_first` says that this process had it never open before, `broken` names a file that turned out to be damaged.
    Whoever opens the path waits `patience` seconds at most while another process does.

    A damaged file is set aside. So may be one of another version, by a process that opens its first: later it is a
    newer process that changed the file, and setting it aside again would never end.

    Raises:
        BackendUnavailable: the path leads to something that is not ours.
        sqlite3.Error, OSError: it cannot be opened.
    """
    if Path(path).is_dir():
        raise BackendUnavailable(f"{path} is a directory", "link")
    if layout.makes_directory:
        _make_directory(Path(path).parent)
    with _alone(path, patience) as lock:
        if broken is not None and identity(path) == broken:
            _set_aside(path, layout, "is damaged")
        _see_to_file(path, lock)
        try:
            return _open(path, layout, patience, lock, is_first=is_first)
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            _set_aside(path, layout, "is damaged")
            _see_to_file(path, lock)
            return _open(path, layout, patience, lock, is_first=True)


def open_to_read(path: str, layout: Layout) -> Connection:
    """Open a file that cannot be written, or beside which nothing can be made, to read what it holds now. Blocks.

    Raises:
        BackendUnavailable: the path leads to something that is not ours.
        sqlite3.Error, OSError: it cannot be read.
    """
    log = Path(f"{path}-wal")
    # To read a log SQLite makes an index beside it; without one it may be told that nobody writes.
    is_all = not log.exists() or log.stat().st_size == 0
    address = f"file://{quote(path)}?mode=ro{'&immutable=1' if is_all else ''}"
    with ExitStack() as undo:
        db = undo.enter_context(closing(sqlite3.connect(address, uri=True, isolation_level=None)))
        if _version(path, layout, db) != layout.version:
            raise BackendUnavailable(f"{path} is of another version", "link")
        undo.pop_all()
        return db


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


def _make_directory(path: Path) -> None:
    """Make a directory where there is none, and see that its name is on the disk as what will lie in it."""
    if path.is_dir():
        return
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name == "posix":
        above = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(above)
        finally:
            os.close(above)


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
    _follow_mode(path, found.st_mode)


def _follow_mode(path: str, mode: int) -> None:
    """Let the owner write what lies beside a file that he may write: an empty log got the mode that the file had."""
    for name in (f"{path}-wal", f"{path}-shm"):
        with suppress(OSError):  # there is none, or it is somebody else's
            beside = stat.S_IMODE(Path(name).stat().st_mode)
            wanted = beside | mode & stat.S_IRUSR | mode & stat.S_IWUSR
            if beside != wanted:
                Path(name).chmod(wanted)


def _open(path: str, layout: Layout, patience: float, lock: Connection, *, is_first: bool) -> SharedFile:
    """Open the file as it is now, or a new one where it is of another version."""
    with ExitStack() as undo:
        writer = undo.enter_context(closing(_connect(path, patience)))
        version = _version(path, layout, writer)
        if version not in {0, layout.version}:
            _refuse_version(path, layout, version, is_first=is_first)
            writer.close()
            _set_aside(path, layout, f"is of version {version}, not {layout.version}")
            _see_to_file(path, lock)
            return _open(path, layout, patience, lock, is_first=False)
        _prepare(path, layout, writer)
        reader = undo.enter_context(closing(_connect(path, 0)))
        watcher = undo.enter_context(closing(_connect(path, 0)))
        for connection in (reader, watcher):
            connection.execute("PRAGMA query_only = ON")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        for name in (path, f"{path}-wal", f"{path}-shm"):
            _make_private(name)
        found = identity(path)
        if found is None:
            raise BackendUnavailable(f"{path} was removed while it was opened", "link")
        writer.execute("PRAGMA busy_timeout = 0")  # from here on others are waited for in a better way
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


def _version(path: str, layout: Layout, db: Connection) -> int:
    """Return the version of our file, 0 when it is empty.

    Raises:
        BackendUnavailable: the file belongs to another application; it is not touched.
    """
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application == layout.application:
        return int(version)
    if application or version or tables:
        raise BackendUnavailable(f"{path} is a database of another application", "link")
    return 0


def _refuse_version(path: str, layout: Layout, version: int, *, is_first: bool) -> None:
    if not layout.replaces_versions:
        raise BackendUnavailable(f"{path} is of version {version}, and this release reads {layout.version}", "link")
    if not is_first:
        raise BackendUnavailable(f"{path} is of version {version} now: a newer process uses it", "link")


def _prepare(path: str, layout: Layout, db: Connection) -> None:
    """Set the connection that writes, and make the tables that are missing: nothing is written where none are."""
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise BackendUnavailable(f"{path} lies on a file system that processes cannot share (no WAL)", "link")
    db.execute(f"PRAGMA synchronous = {layout.synchronous}")
    if layout.synchronous == "FULL":
        db.execute("PRAGMA fullfsync = ON")  # without it macOS leaves it to the disk when to write
    db.execute("PRAGMA journal_size_limit = 16777216")
    db.execute("PRAGMA trusted_schema = OFF")
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables.issuperset(layout.tables):
        return
    db.execute("BEGIN IMMEDIATE")
    for statements in layout.tables.values():
        for statement in statements:
            db.execute(statement)
    db.execute(f"PRAGMA application_id = {layout.application}")
    db.execute(f"PRAGMA user_version = {layout.version}")
    db.execute("COMMIT")


def _set_aside(path: str, layout: Layout, why: str) -> None:
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
    _LOGGER.error("the %s %s %s; it is now %s, and %s", layout.name, path, why, free, layout.when_lost)


def _remove_leftovers(path: str) -> None:
    """Remove the log and its index that another file left behind. Who has them open does not miss them."""
    for name in (f"{path}-wal", f"{path}-shm"):
        Path(name).unlink(missing_ok=True)
