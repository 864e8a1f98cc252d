"""The ledger of the processes of one host, in a file beside their cache and without a server."""

from __future__ import annotations

import asyncio
import os
from asyncio import Future
from collections.abc import Sequence
from functools import partial
from typing import Final

from oidc_middleware.cache.ledger import TOGETHER, Page
from oidc_middleware.cache.sqlite.glance import Glance, glance
from oidc_middleware.cache.sqlite.log import LAYOUT, Writing, entries, page
from oidc_middleware.cache.sqlite.rows import ROW_BYTES, member_of
from oidc_middleware.cache.sqlite.worker import Worker
from oidc_middleware.clock import Clock
from oidc_middleware.core.ledger.records import LogEntry, Position, Record
from oidc_middleware.errors import BackendUnavailable

KEPT: Final = 100_000
"""Entries that the log holds. Who reads all records must find the log unbroken when that is done."""

_DRAIN = 5.0
# Between two looks whether others have written, in seconds.
_EVERY = 0.02
_IDS = os.access in os.supports_effective_ids


class SqliteLedger:
    """A `LedgerStore` that the processes of a host share: the file `<path>-ledger` beside that of their cache, `path`.

    What was written is on the disk: a receipt `shared` outlives the machine's sudden end, so this is the journal, too.
    One of its own, in another directory, takes what this file does not while its disk is full or it may not be written.

    A thread of its own reads and writes; what waits to be written is committed together. Who reads looks 50 times a
    second for what others wrote, and hears at once of what was written through this object. A damaged file is set aside
    and a new one begun, and one that was removed or replaced is noticed: its epoch is another. One of another version
    or application is refused. It may be used by one event loop after another, and survives forks.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock, budget: float = 1.0, kept: int = KEPT) -> None:
        """No call takes longer than `budget` seconds, a read its `wait` besides. The log keeps about `kept` entries."""
        self.path: str = f"{os.path.abspath(path)}-ledger"  # noqa: PTH100 (a process may change its directory later)
        self.strangers: int = 0
        """How many rows that are no records were skipped in loading, so far."""
        self._worker: Worker[Writing] = Worker(
            self.path, LAYOUT, clock, lambda file: Writing(file, clock.now(), kept), budget
        )
        self._waiters: set[Future[None]] = set()

    async def look(self) -> Position:
        """Return where the log is now.

        Raises:
            BackendUnavailable: nobody knows, or nothing could be written now.
        """
        # In a transaction that could write: it costs no disk, and where nobody may write there is none.
        position = await self._worker.do(Writing.position)
        if not os.access(self.path, os.W_OK, effective_ids=_IDS):
            raise BackendUnavailable(f"{self.path} may not be written", "readonly")
        return position

    async def read(self, after: Position, wait: float) -> Sequence[LogEntry]:
        """Return what was logged after a place, oldest first, a bounded number; wait so many seconds for it.

        An entry that cannot be read is given as one that follows on nothing.

        Raises:
            BackendUnavailable: nobody knows.
        """
        now = asyncio.get_running_loop().time
        end = now() + wait
        seen: Glance | None = None
        while True:
            look = await glance(self._worker)
            if look is None or look != seen:
                found = await self._worker.fetch(partial(entries, after))
                if found:
                    return found
                seen = look
            left = end - now()
            if left <= 0:
                return []
            await self._pause(min(left, _EVERY))

    async def scan(self, cursor: bytes) -> Page:
        """Return a part of all records, from the beginning with an empty cursor.

        Raises:
            BackendUnavailable: nobody knows, or this is not the file that was asked for the parts before.
        """
        found, strangers = await self._worker.fetch(partial(page, cursor))
        if found is None:
            raise BackendUnavailable(f"{self.path} was replaced while it was read", "link")
        self.strangers += strangers
        return found

    async def write(self, records: Sequence[Record]) -> Position:
        """Join up to `TOGETHER` records with what is there, log what changed, and return where the log is then.

        Raises:
            ValueError: they are too many, or one of them is none.
            BackendUnavailable: nothing was written, or nobody knows.
        """
        if len(records) > TOGETHER:
            raise ValueError(f"at most {TOGETHER} records are written together")
        members = [(member_of(record), record) for record in records]
        position = await self._worker.do(partial(Writing.write, records=members), len(records) * ROW_BYTES)
        self._wake()
        return position

    async def aclose(self) -> None:
        """Write what waits, for 5 seconds at most, and close the file; a later call opens it again."""
        await self._worker.suspend(_DRAIN)

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until something is written through this object."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiters.add(waiter)
        alarm = loop.call_later(seconds, _settle, waiter)
        try:
            await waiter
        finally:
            alarm.cancel()
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        loop = asyncio.get_running_loop()
        for waiter in self._waiters:
            if waiter.get_loop() is loop:  # a loop that was closed may have left some
                _settle(waiter)


def _settle(waiter: Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
