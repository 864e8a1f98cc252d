"""The ledger of revocations in Redis or Valkey, over connections of its own."""

from __future__ import annotations

import logging
import os
from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Callable, Sequence
from typing import Any

from oidc_middleware.cache.ledger import TOGETHER, Page
from oidc_middleware.cache.redis.ledger.reading import entries_of, position_of, records_of
from oidc_middleware.cache.redis.ledger.scripts import LOOK, SCAN, WRITE, Script
from oidc_middleware.cache.redis.link import Link
from oidc_middleware.cache.redis.route import Route
from oidc_middleware.cache.redis.router import router
from oidc_middleware.cache.redis.wire import command
from oidc_middleware.core.ledger.records import GRACE, LogEntry, Position, Record, pack
from oidc_middleware.errors import BackendUnavailable

_LOGGER = logging.getLogger("oidc_middleware.cache")

KEPT: int = 100_000
"""Entries that the log holds, roughly. Who reads all records must find the log unbroken when that is done."""

_UNKNOWN_SCRIPT = "NoScriptError"
# What a read may take besides the time for which the server waits, in seconds.
_READ_BUDGET = 1.0
# What is read in one go: entries, each of up to `TOGETHER` records, and members of the sorted set.
_ENTRIES = b"32"
_MEMBERS = b"1000"
_SWEPT_BESIDES = b"100"
_EPOCH_BYTES = 8
_TAIL_BYTES = 8


class _Session:
    """The connections over one event loop: what asks or loads waits for no write, and the read waits alone."""

    def __init__(self, number: int, route: Route, key: bytes, budget: float) -> None:
        self.number = number
        self.loop: AbstractEventLoop = get_running_loop()
        self.route = route
        self.writing, self.asking, self.reading = self.links = [route.link_of(key, budget) for _ in range(3)]

    async def aclose(self) -> None:
        """Let go of the connections."""
        for link in self.links:
            await link.aclose()
        await self.route.aclose()

    def abandon(self) -> None:
        """Let go of the connections although the loop is closed."""
        for link in self.links:
            link.abandon()
        self.route.abandon()


class RedisLedger:
    """A `LedgerStore` in Redis (6.2 or newer) or Valkey; it takes the URLs of `RedisBackend`.

    Everything goes to the primary. No call takes longer than `budget` seconds, a read its `wait` and a second, and
    nothing is tried twice. The user of the URL needs `docs/redis.md`'s commands for the ledger, on keys that begin with
    `prefix`. The log keeps about `kept` entries.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: bytes = b"oidc",
        budget: float = 0.25,
        ca_file: str | None = None,
        kept: int = KEPT,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.strangers: int = 0
        """How many members that are no records were skipped in loading, so far."""
        self._route = router(url, budget, ca_file)
        self._budget = budget
        self._keys = b"%b:{log}:ledger" % prefix, b"%b:{log}:revocations" % prefix
        self._kept = b"%d" % kept
        self._random = random
        self._session: _Session | None = None
        self._sessions = 0

    async def look(self) -> Position:
        """Return where the log is now; a store with none begins one.

        Raises:
            BackendUnavailable: nobody knows, or the server takes no writes.
        """
        return position_of(await self._run(self._open().asking, LOOK, self._new_epoch()))

    async def read(self, after: Position, wait: float) -> Sequence[LogEntry]:
        """Return what was logged after a place, oldest first, a bounded number; wait so many seconds for it.

        An entry that cannot be read is given as one that follows on nothing.

        Raises:
            BackendUnavailable: nobody knows.
        """
        block = (b"BLOCK", b"%d" % max(1, wait * 1000)) if wait > 0 else ()
        begin = after.last_id or b"0-0"
        words = command(b"XREAD", b"COUNT", _ENTRIES, *block, b"STREAMS", self._keys[1], begin)
        (reply,) = await self._open().reading.ask(words, within=wait + _READ_BUDGET)
        return entries_of(_checked(reply))

    async def scan(self, cursor: bytes) -> Page:
        """Return a part of all records, from the beginning with an empty cursor.

        Raises:
            BackendUnavailable: nobody knows, or the server takes no writes, or may not be the one that was asked for
                the parts before: another one has another order, and it must be begun anew.
        """
        session = self._open()
        before, _, place = cursor.rpartition(b":")
        *position, place, members = await self._run(session.asking, SCAN, self._new_epoch(), place or b"0", _MEMBERS)
        source = b"%d.%d" % (session.number, session.asking.connects)
        if cursor and source != before:
            raise BackendUnavailable("the connection was lost while the ledger was read", "link")
        records, strangers = records_of(members)
        if strangers:
            self._note(strangers)
        return Page(records, b"" if place == b"0" else b"%b:%b" % (source, place), position_of(position))

    async def write(self, records: Sequence[Record]) -> Position:
        """Join up to `TOGETHER` records with what is there, log what changed, and return where the log is then.

        Raises:
            ValueError: they are too many.
            BackendUnavailable: nothing was written, or, with `timeout` and `link`, nobody knows.
        """
        if len(records) > TOGETHER:
            raise ValueError(f"at most {TOGETHER} records are written together")
        tail = b"%d" % int.from_bytes(self._random(_TAIL_BYTES))
        rest = self._new_epoch(), tail, self._kept, b"%d" % GRACE, _SWEPT_BESIDES, pack(records)
        return position_of(await self._run(self._open().writing, WRITE, *rest))

    async def aclose(self) -> None:
        """Let go of the connections; a later call opens new ones."""
        session, self._session = self._session, None
        if session is not None and session.loop is get_running_loop():
            await session.aclose()
        elif session is not None:
            session.abandon()

    async def _run(self, link: Link, script: Script, *words: bytes) -> Any:
        """Run a script; a server that does not know it yet, or no longer, is given it."""
        loop = get_running_loop()
        by = loop.time() + self._budget
        rest = b"2", *self._keys, *words
        (reply,) = await link.ask(command(b"EVALSHA", script.name, *rest))
        if isinstance(reply, BackendUnavailable) and reply.detail.startswith(_UNKNOWN_SCRIPT):
            (reply,) = await link.ask(command(b"EVAL", script.text, *rest), within=max(0.0, by - loop.time()))
        return _checked(reply)

    def _open(self) -> _Session:
        """Return the session of the running loop.

        Raises:
            RuntimeError: the ledger is in use by another event loop that runs at this moment.
        """
        session, loop = self._session, get_running_loop()
        if session is not None and session.loop is loop:
            return session
        if session is not None:
            if session.loop.is_running():
                raise RuntimeError("two event loops use one instance at the same time")
            session.abandon()
        self._sessions += 1
        self._session = session = _Session(self._sessions, self._route(), self._keys[0], self._budget)
        return session

    def _new_epoch(self) -> bytes:
        return self._random(_EPOCH_BYTES).hex().encode()

    def _note(self, strangers: int) -> None:
        if not self.strangers:
            _LOGGER.error(
                "Something in %s is no revocation, or one of a newer version of this package: it is not enforced here. "
                "This is told once.",
                self._keys[0].decode(errors="replace"),
            )
        self.strangers += strangers


def _checked(reply: Any) -> Any:
    if isinstance(reply, BackendUnavailable):
        raise reply
    return reply
