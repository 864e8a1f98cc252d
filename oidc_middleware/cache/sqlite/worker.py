"""The thread that opens the file and writes to it: what waits is committed together."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from asyncio import Future
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from sqlite3 import Connection
from typing import Any, Generic, Protocol, TypeVar

from oidc_middleware.cache.sqlite.faults import describe, is_damage, kind_of, passes
from oidc_middleware.cache.sqlite.file import Identity, Layout, SharedFile, open_file
from oidc_middleware.cache.sqlite.forks import follow_forks
from oidc_middleware.cache.sqlite.jobs import Job, Jobs, land
from oidc_middleware.clock import Clock
from oidc_middleware.errors import BackendUnavailable

_LOGGER = logging.getLogger("oidc_middleware.cache")
# The file is compared with its path so often by those who read, in seconds.
_GLANCE = 0.02
# Between two looks whether others have ended their transaction, in seconds.
_PAUSE = 0.001


class Batch(Protocol):
    """What jobs that are committed together work on."""

    def finish(self) -> None:
        """Do what remains before the commit."""

    def committed(self) -> None:
        """Hear that it was made."""


T = TypeVar("T")
B = TypeVar("B", bound=Batch)


class NotOpenError(Exception):
    """The file must be opened first; `Worker.do(None)` does it."""


class Worker(Generic[B]):
    """One file, opened at need and again at need, by one thread.

    Jobs are done in the order in which they came and are acknowledged when the transaction that holds them is
    committed. A job is done even if nobody waits for it any more. Reads happen in the caller's thread.

    A process that forks closes the file first, and both processes open it anew: SQLite's locks belong to one process.
    What was queued stays with the parent.
    """

    def __init__(
        self, path: str, layout: Layout, clock: Clock, begin: Callable[[SharedFile], B], budget: float
    ) -> None:
        """`begin` makes what the jobs of a commit work on; who waits for one waits `budget` seconds at most."""
        self._path = path
        self._layout = layout
        self._clock = clock
        self._begin = begin
        self._budget = budget
        # Seconds that a transaction waits for those of others: who waits for it should hear why it did not get on.
        self._patience = budget * 0.8
        self._file: SharedFile | None = None
        self._suspected: SharedFile | None = None
        self._was_open = False
        self._broken: Identity | None = None
        self._looked_at = float("-inf")
        # Taken in this order. The first is held during commits, and never by the loop's thread.
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        self._queueing = threading.Lock()
        self._is_closed = False
        self._start_afresh()
        # Before there is anything that a child could take for its own: a job in the queue, a lock that is held.
        follow_forks(
            self,
            before=Worker._before_fork,
            in_parent=Worker._after_fork_in_parent,
            in_child=Worker._after_fork_in_child,
        )

    def _start_afresh(self) -> None:
        self._jobs = Jobs()
        self._is_draining = False
        self._executor: ThreadPoolExecutor | None = None

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    async def do(self, work: Callable[[B], T] | None, size: int = 0, budget: float | None = None) -> T:
        """Do something of `size` bytes in a transaction and return its result; None: only open the file.

        Raises:
            BackendUnavailable: it failed, or nobody knows; after `close`; too much waits.
        """
        return await self._result(self._submit(work, size, is_read=False), budget)

    async def fetch(self, ask: Callable[[SharedFile], T]) -> T:
        """Return what `ask` finds out from the connection that writes, in the worker's thread and in no transaction.

        Others that write are not waited for.

        Raises:
            BackendUnavailable: it failed; after `close`; too much waits.
        """
        return await self._result(self._submit(ask, 0, is_read=True), None)

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
        """Do the jobs that wait, close the file, and end the thread; return after `patience` seconds at the latest.

        The next job opens the file anew.
        """
        if self._is_closed:
            return
        with self._queueing:
            executor, self._executor = self._executor, None
        await self._end(executor, patience)

    async def close(self, patience: float) -> None:
        """Take no more jobs, do those that wait, and close the file; return after `patience` seconds at the latest."""
        with self._queueing:
            if self._is_closed:
                return
            self._is_closed = True
            executor = self._executor
        await self._end(executor, patience)

    async def _end(self, executor: ThreadPoolExecutor | None, patience: float) -> None:
        if executor is None:
            return
        # One thread: this comes after all jobs.
        closing = asyncio.wrap_future(executor.submit(self._close_file))
        executor.shutdown(wait=False)
        await asyncio.wait((closing,), timeout=patience)

    def _submit(self, work: Callable[[Any], T] | None, size: int, *, is_read: bool) -> Future[T]:
        with self._queueing:
            if self._is_closed:
                raise BackendUnavailable(f"the {self._layout.name} is closed")
            future = self._jobs.put(work, size, is_read=is_read)
            self._wake()
        return future

    async def _result(self, future: Future[T], budget: float | None) -> T:
        """Wait for a result, for the budget at most."""
        alarm = asyncio.get_running_loop().call_later(self._budget if budget is None else budget, self._give_up, future)
        try:
            return await future
        finally:
            alarm.cancel()

    def _give_up(self, future: Future[T]) -> None:
        if not future.done():
            detail = f"{self._path}: no answer within {self._budget:g} s"
            future.set_exception(BackendUnavailable(detail, "timeout"))

    def _look(self, ask: Callable[[SharedFile], T]) -> T:
        with self._reading:
            file = self._current_file()
            try:
                return ask(file)
            except sqlite3.Error as error:
                if passes(error):
                    raise
                self._suspected = file
                self._broken = file.identity if is_damage(error) else None
                raise NotOpenError(describe(error)) from error

    def _current_file(self) -> SharedFile:
        file = self._file
        if self._is_closed:
            raise BackendUnavailable(f"the {self._layout.name} is closed")
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
            # What is only read does not wait for the lock of a process that writes, nor fails with a commit.
            for some in ([job for job in jobs if job.is_read], [job for job in jobs if not job.is_read]):
                if some:
                    with self._writing:
                        results = self._do(some)
                    land(some, results)

    def _take(self) -> list[Job]:
        with self._queueing:
            jobs = self._jobs.take()
            self._is_draining = bool(jobs)
        return jobs

    def _do(self, jobs: list[Job], *, may_open_anew: bool = True) -> list[Any] | Exception:
        try:
            file = self._open()
            works = [job.work for job in jobs]
            if jobs[0].is_read:
                return [work and self._patiently(partial(work, file)) for work in works]
            return self._commit(file, works) if any(works) else works
        except BackendUnavailable as error:
            return error
        except (sqlite3.Error, OSError) as error:
            self._lose(error)
            # What was opened when it could not be written, or removed a moment ago, stays so until it is opened anew.
            if may_open_anew and kind_of(error) == "readonly":
                return self._do(jobs, may_open_anew=False)
            return BackendUnavailable(f"{self._path}: {describe(error)}", kind_of(error))
        except Exception as error:
            _LOGGER.exception("the %s %s failed", self._layout.name, self._path)
            self._lose(error)
            return error

    def _open(self) -> SharedFile:
        file = self._file
        if file is not None and file is not self._suspected and file.is_current():
            return file
        if file is not None:
            _LOGGER.warning("the %s %s is opened anew", self._layout.name, self._path)
            self._close()
        opened = open_file(self._path, self._layout, self._patience, is_first=not self._was_open, broken=self._broken)
        with self._reading:
            self._file = opened
            self._was_open = True
            self._broken = self._suspected = None
        return opened

    def _commit(self, file: SharedFile, works: list[Callable[[B], Any] | None]) -> list[Any]:
        db = file.writer
        self._patiently(partial(db.execute, "BEGIN IMMEDIATE"))
        try:
            batch = self._begin(file)
            results = [work and work(batch) for work in works]
            batch.finish()
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        batch.committed()
        return results

    def _patiently(self, call: Callable[[], T]) -> T:
        """Call until the file is free, for the patience at most.

        SQLite itself would look ten times a second, and find the file free too rarely while others commit without end.
        """
        end = time.monotonic() + self._patience
        while True:
            try:
                return call()
            except sqlite3.OperationalError as error:
                if kind_of(error) != "busy" or time.monotonic() >= end:
                    raise
            time.sleep(_PAUSE)

    def _lose(self, error: Exception) -> None:
        """Close the file unless the error passes: the next job opens it anew."""
        file = self._file
        if file is None or passes(error):
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
