"""Whether anything was committed to a file: a look that takes microseconds when nothing was."""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

from oidc_middleware.cache.sqlite.file import SharedFile
from oidc_middleware.cache.sqlite.worker import NotOpenError, Worker


class Glance(NamedTuple):
    """What was seen: two that are equal have nothing between them. The version moves with every commit."""

    file: SharedFile
    version: int


async def glance(worker: Worker[Any]) -> Glance | None:
    """Look in the caller's thread, and open the file first where that is needed; None: for a moment nobody can tell.

    Raises:
        BackendUnavailable: the file cannot be opened.
    """
    try:
        try:
            return worker.watch(_look)
        except NotOpenError:
            await worker.do(None)
            return worker.watch(_look)
    except (NotOpenError, sqlite3.Error):
        return None


def _look(file: SharedFile) -> Glance:
    (version,) = file.watcher.execute("PRAGMA data_version").fetchone()
    return Glance(file, version)
