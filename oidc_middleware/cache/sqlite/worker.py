"""The thread that opens the file and writes to it: what waits is committed together."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import weakref
from asyncio import Future
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from errno import EDQUOT, ENOSPC
from sqlite3 import Connection
from typing import Any, TypeVar

from oidc_middleware.cache.sqlite.file import Identity, SharedFile, is_damage, open_file
from oidc_middleware.cache.sqlite.jobs import Job, Jobs, land
from oidc_middleware.cache.sqlite.tables import Statements, Tally, Transaction
from oidc_middleware.clock import Clock
from oidc_middleware.errors import BackendUnavailable, FailureKind

T = TypeVar("T")

_LOGGER = logging.getLogger("oidc_middleware.cache")
# The file is compared with its path so often by those who read, in seconds.
_GLANCE = 0.02
# After these the connections are as good as before: somebody else writes, or there is no room. To open the file anew
# would need room, too.
_PASSING = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_TOOBIG})
_KINDS: Mapping[str, FailureKind] = {
    "SQLITE_BUSY": "busy",
    "SQLITE_LOCKED": "busy",
    "SQLITE_READONLY": "readonly",
    "SQLITE_FULL": "full",
    "SQLITE_PERM": "auth",
    "SQLITE_AUTH": "auth",
}
_PASSING_IO = frozenset({sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_TRUNCATE})


class NotOpenError(Exception):
    """The file must be opened first; `Worker.submit(None)` does it."""


class Worker:
    """One file, opened at need and again at need, by one thread.

    Jobs are done in the order in which they came and are acknowledged when the transaction that holds them is
    committed. A job is done even if nobody waits for it any more. Reads happen in the caller's thread.

    A process that forks closes the file first, and both processes open it anew: SQLite's locks belong to one process.
    What was queued stays with the parent.
    """

    def __init__(self, path: str, clock: Clock, kinds: Sequence[str], evictable: Sequence[str], max_bytes: int) -> None:
        self.patience: float = 0.2
        """Seconds that a transaction waits for those of other processes."""
        self.tallies: Mapping[str, Tally] = {kind: Tally() for kind in kinds}
        self.statements: Mapping[str, Statements] = {kind: Statements(kind) for kind in kinds}
        self._path = path
        self._clock = clock
        self._evictable = evictable
        self._max_bytes = max_bytes
        self._file: SharedFile | None = None
        self._suspected: SharedFile | None = None
        self._was_open = False
        self._broken: Identity | None = None
        self._looked_at = float("-inf")
        self._follows_forks = False
        # Taken in this order. The first is held during commits, and never by the loop's thread.
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        self._queueing = threading.Lock()
        self._is_closed = False
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._jobs = Jobs()
        self._is_draining = False
        self._executor: ThreadPoolExecutor | None = None

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    def submit(self, work: Callable[[Transaction], T] | None, size: int = 0) -> Future[T]:
        """Queue a job of `size` bytes and return its result to come; None: only see to it that the file is open.

        Raises:
            BackendUnavailable: after `close`, or too much waits.
        """
        with self._queueing:
            if self._is_closed:
                raise BackendUnavailable("the cache is closed")
            future = self._jobs.put(work, size)
            self._wake()
        return future

    def read(self, ask: Callable[[Connection], T]) -> T:
        """Return what `ask` finds out from the connection that reads. It must leave no cursor open.

        Raises:
            NotOpenError: the file is not open, or not the one that its path leads to, or `ask` failed and the file
                should be opened anew.
            sqlite3.Error: `ask` failed, and may not when it tries again.
        """
        return self._look(lambda file: ask(file.reader))

    def watch(self, ask: Callable[[SharedFile], T]) -> T:
        """Do what `read` does, for the whole file, looking at its path first."""
        self._looked_at = float("-inf")
        return self._look(ask)

    async def suspend(self, patience: float) -> None:
        """Do the jobs that wait and close the file, which the next job opens anew; wait `patience` seconds at most."""
        executor = self._executor
        if executor is not None and not self._is_closed:
            await asyncio.wait((asyncio.wrap_future(executor.submit(self._close_file)),), timeout=patience)

    async def close(self, patience: float) -> None:
        """Take no more jobs, do those that wait, and close the file; return after `patience` seconds at the latest."""
        with self._queueing:
            if self._is_closed:
                return
            self._is_closed = True
            executor = self._executor
        if executor is not None:
            # One thread: this comes after all jobs.
            closing = asyncio.wrap_future(executor.submit(self._close_file))
            executor.shutdown(wait=False)
            await asyncio.wait((closing,), timeout=patience)

    def _look(self, ask: Callable[[SharedFile], T]) -> T:
        with self._reading:
            file = self._current_file()
            try:
                return ask(file)
            except sqlite3.Error as error:
                if _passes(error):
                    raise
                self._suspected = file
                self._broken = file.identity if is_damage(error) else None
                raise NotOpenError(describe(error)) from error

    def _current_file(self) -> SharedFile:
        file = self._file
        if self._is_closed:
            raise BackendUnavailable("the cache is closed")
        if file is None or file is self._suspected:
            raise NotOpenError("it cannot be opened")
        now = self._clock.monotonic()
        if now >= self._looked_at + _GLANCE:
            if not file.is_current():
                raise NotOpenError("it was removed or replaced")
            self._looked_at = now
        return file

    def _wake(self) -> None:
        if self._is_draining:
            return
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="oidc-sqlite")
        try:
            self._executor.submit(self._drain)
        except RuntimeError as error:
            self._jobs.clear()
            raise BackendUnavailable("the process ends") from error
        self._is_draining = True

    def _drain(self) -> None:
        """Do all jobs that there are."""
        while jobs := self._take():
            with self._writing:
                results = self._do(jobs)
            land(jobs, results)

    def _take(self) -> list[Job]:
        with self._queueing:
            jobs = self._jobs.take()
            self._is_draining = bool(jobs)
        return jobs

    def _do(self, jobs: list[Job]) -> list[Any] | Exception:
        try:
            file = self._open()
            return self._commit(file, jobs) if any(job.work for job in jobs) else [None] * len(jobs)
        except BackendUnavailable as error:
            return error
        except (sqlite3.Error, OSError) as error:
            self._lose(error)
            return BackendUnavailable(f"{self._path}: {describe(error)}", kind_of(error))
        except Exception as error:
            _LOGGER.exception("the shared cache %s failed", self._path)
            self._lose(error)
            return error

    def _open(self) -> SharedFile:
        file = self._file
        if file is not None and file is not self._suspected and file.is_current():
            return file
        if file is not None:
            _LOGGER.warning("the shared cache %s is opened anew", self._path)
            self._close()
        self._follow_forks()
        opened = open_file(
            self._path, tuple(self.tallies), self.patience, is_first=not self._was_open, broken=self._broken
        )
        with self._reading:
            self._file = opened
            self._was_open = True
            self._broken = self._suspected = None
        return opened

    def _commit(self, file: SharedFile, jobs: list[Job]) -> list[Any]:
        db = file.writer
        db.execute("BEGIN IMMEDIATE")
        try:
            transaction = Transaction(db, file.source, self._clock.now(), self.statements)
            results = [None if job.work is None else job.work(transaction) for job in jobs]
            transaction.finish(self._evictable, self._max_bytes)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        transaction.count(self.tallies)
        return results

    def _lose(self, error: Exception) -> None:
        """Close the file unless the error passes: the next job opens it anew."""
        file = self._file
        if file is None or _passes(error):
            return
        if is_damage(error):
            self._broken = file.identity
        self._close()

    def _close_file(self) -> None:
        with self._writing:
            self._close()

    def _close(self) -> None:
        file = self._file
        if file is None:
            return
        with self._reading:
            self._file = None
            file.close_readers()
        file.writer.close()

    def _follow_forks(self) -> None:
        if self._follows_forks or not hasattr(os, "register_at_fork"):
            return
        self._follows_forks = True
        found = weakref.ref(self)

        def told(method: Callable[[Worker], None]) -> Callable[[], None]:
            def tell() -> None:
                worker = found()
                if worker is not None:
                    method(worker)

            return tell

        os.register_at_fork(
            before=told(Worker._before_fork),
            after_in_parent=told(Worker._after_fork_in_parent),
            after_in_child=told(Worker._after_fork_in_child),
        )

    def _before_fork(self) -> None:
        for lock in (self._writing, self._reading, self._queueing):
            lock.acquire()
        file, self._file = self._file, None
        if file is not None:
            file.close_readers()
            file.writer.close()

    def _after_fork_in_parent(self) -> None:
        for lock in (self._queueing, self._reading, self._writing):
            lock.release()

    def _after_fork_in_child(self) -> None:
        self._start_afresh()
        self._after_fork_in_parent()


def _passes(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in _PASSING or code in _PASSING_IO


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
