"""How one backend notices what others commit."""

from __future__ import annotations

import sqlite3
from typing import Any

from oidc_middleware.cache.changes import EVERYTHING, Change, unpacked
from oidc_middleware.cache.sqlite.file import SharedFile
from oidc_middleware.cache.sqlite.worker import Worker
from oidc_middleware.errors import BackendUnavailable

_MOST_AT_ONCE = 256


class Watch:
    """A place in the list of changes. A look takes 5 µs as long as nobody commits, in the caller's thread."""

    def __init__(self, worker: Worker[Any]) -> None:
        self.is_current: bool = False
        """Whether the last look found all that there was."""
        self.current_at: float | None = None
        """When all changes had been yielded for certain, in monotonic time; None: never yet."""
        self._worker = worker
        self._file: SharedFile | None = None
        self._version = 0
        self._number = 0

    def look(self) -> list[Change]:
        """Return what others changed since the last look; everything, where that is not known.

        Raises:
            NotOpenError: the file must be opened first.
        """
        self.is_current = False
        try:
            return self._worker.watch(self._look)
        except BackendUnavailable:
            return []  # closed
        except sqlite3.Error:
            return []  # it passes, and the next look finds what this one did not

    def _look(self, file: SharedFile) -> list[Change]:
        (version,) = file.watcher.execute("PRAGMA data_version").fetchone()
        if file is self._file and version == self._version:
            self.is_current = True
            return []
        if file is not self._file:
            changes, number, is_all = [EVERYTHING], _newest(file), True
        else:
            changes, number, is_all = self._read(file)
        # Last: when a statement fails, the next look begins where this one did.
        self._file, self._number = file, number
        if is_all:
            self._version = version
            self.is_current = True
        return changes

    def _read(self, file: SharedFile) -> tuple[list[Change], int, bool]:
        """Return the changes of others, the number of the last one, and whether it is the newest."""
        newest = _newest(file)
        rows = file.watcher.execute(
            "SELECT number, source, told FROM changes WHERE number > ? ORDER BY number LIMIT ?",
            (self._number, _MOST_AT_ONCE),
        ).fetchall()
        numbers = [number for number, _, _ in rows]
        first = self._number + 1
        if numbers != list(range(first, first + len(rows))) or newest < self._number or (newest >= first and not rows):
            return [EVERYTHING], newest, True
        changes = [change for _, source, what in rows if source != file.source for change in unpacked(what)]
        last = numbers[-1] if rows else self._number
        return changes, last, last >= newest


def _newest(file: SharedFile) -> int:
    """Return the number of the newest change that there ever was, 0 when there was none."""
    row = file.watcher.execute("SELECT seq FROM sqlite_sequence WHERE name = 'changes'").fetchone()
    return row[0] if row else 0
