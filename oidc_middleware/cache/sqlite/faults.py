"""What an error of SQLite or the system means: whether it passes, where the fault lies, and how it is told."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from errno import EDQUOT, ENOSPC

from oidc_middleware.errors import FailureKind

# After these the connections are as good as before: somebody else writes, or there is no room. To open the file anew
# would need room, too.
_PASSING = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_TOOBIG})
_PASSING_IO = frozenset({sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_TRUNCATE})
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_KINDS: Mapping[str, FailureKind] = {
    "SQLITE_BUSY": "busy",
    "SQLITE_LOCKED": "busy",
    "SQLITE_READONLY": "readonly",
    "SQLITE_FULL": "full",
    "SQLITE_PERM": "auth",
    "SQLITE_AUTH": "auth",
}


def passes(error: Exception) -> bool:
    """Tell whether the connections are as good as before an error."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in _PASSING or code in _PASSING_IO


def is_damage(error: BaseException) -> bool:
    """Tell whether an error says that the file is no database, or a broken one."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def kind_of(error: Exception) -> FailureKind:
    """Return where the fault lies; a file that cannot be opened, read or written is a link that does not work."""
    if isinstance(error, PermissionError):
        return "auth"
    if isinstance(error, OSError) and error.errno in {ENOSPC, EDQUOT}:
        return "full"
    name = getattr(error, "sqlite_errorname", "")
    return next((kind for prefix, kind in _KINDS.items() if name.startswith(prefix)), "link")


def describe(error: Exception) -> str:
    """Return what an error says, for the log: SQLite's own name for it, and its text."""
    name = getattr(error, "sqlite_errorname", None)
    return f"{name}: {error}" if name else str(error)
