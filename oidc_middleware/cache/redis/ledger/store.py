"""The ledger of revocations in Redis or Valkey."""

from __future__ import annotations

import logging
import os
from asyncio import get_running_loop
from collections.abc import Callable, Sequence
from typing import Any, Literal

from oidc_middleware.cache.ledger import TOGETHER, Page
from oidc_middleware.cache.redis.ledger.connections import Connections
from oidc_middleware.cache.redis.ledger.reading import entries_of, position_of, records_of
from oidc_middleware.cache.redis.ledger.scripts import LOOK, SCAN, WRITE, Script
from oidc_middleware.cache.redis.router import router
from oidc_middleware.cache.redis.wire import command
from oidc_middleware.core.ledger.records import GRACE, LogEntry, Position, Record, pack
from oidc_middleware.errors import BackendUnavailable

_LOGGER = logging.getLogger("oidc_middleware.cache")

KEPT: int = 100_000
"""Entries that the log holds, roughly. Who reads all records must find the log unbroken when that is done."""

_UNKNOWN_SCRIPT = "NoScriptError"
_WRONG_TYPE = "WRONGTYPE"
# What a read may take besides the time for which the server waits, in seconds.
_READ_BUDGET = 1.0
# What is read in one go: entries, each of up to `TOGETHER` records, and members of the sorted set.
_ENTRIES = b"32"
_MEMBERS = b"2000"
_SWEPT_BESIDES = b"100"
_EPOCH_BYTES = 8
_ID_BYTES = 8


class RedisLedger:
    """A `LedgerStore` in Redis (6.2 or newer) or Valkey; it takes the URLs of `RedisBackend`.

    Everything goes to the primary, over three connections. No call takes longer than `budget` seconds, a read its
    `wait` and a second, and nothing is tried twice. A write that failed with `timeout` or `link` may have been done, or
    be done yet; any other was not done. `docs/redis.md` names the commands that the user of the URL needs, on keys that
    begin with `prefix`. The log keeps about `kept` entries. `random` gives bytes that nobody has had before.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: bytes = b"oidc",
        budget: float = 1.0,
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
        self._connections: Connections | None = None
        self._opened = 0

    async def look(self) -> Position:
        """Return where the log is now; a store with none begins one.

        Raises:
            BackendUnavailable: nobody knows, or the server takes no writes.
        """
        return position_of(await self._run("asking", LOOK, self._new_epoch()))

    async def read(self, after: Position, wait: float) -> Sequence[LogEntry]:
        """Return what was logged after a place, oldest first, a bounded number; wait so many seconds for it.

        An entry that cannot be read is given as one that follows on nothing.

        Raises:
            BackendUnavailable: nobody knows.
        """
        block = (b"BLOCK", b"%d" % max(1, wait * 1000)) if wait > 0 else ()
        begin = after.last_id or b"0-0"
        words = command(b"XREAD", b"COUNT", _ENTRIES, *block, b"STREAMS", self._keys[1], begin)
        connections = self._open()
        return entries_of(await connections.ask(connections.reading, words, wait + _READ_BUDGET))

    async def scan(self, cursor: bytes) -> Page:
        """Return a part of all records, from the beginning with an empty cursor.

        Raises:
            BackendUnavailable: nobody knows, or the server takes no writes, or may not be the one that was asked for
                the parts before: another one has another order, and it must be begun anew.
        """
        before, _, place = cursor.rpartition(b":")
        *position, place, members = await self._run("asking", SCAN, self._new_epoch(), place or b"0", _MEMBERS)
        source = self._open().source
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
        number = b"%d" % (int.from_bytes(self._random(_ID_BYTES)) >> 1)
        rest = self._new_epoch(), number, self._kept, b"%d" % GRACE, _SWEPT_BESIDES, pack(records)
        return position_of(await self._run("writing", WRITE, *rest))

    async def aclose(self) -> None:
        """Let go of the connections; a later call opens new ones."""
        connections, self._connections = self._connections, None
        if connections is not None and connections.loop is get_running_loop():
            await connections.aclose()
        elif connections is not None:
            connections.abandon()

    async def _run(self, role: Literal["asking", "writing"], script: Script, *words: bytes) -> Any:
        """Run a script; a server that does not know it yet, or no longer, is given it."""
        connections = self._open()
        link = connections.asking if role == "asking" else connections.writing
        by = connections.loop.time() + self._budget
        rest = b"2", *self._keys, *words
        try:
            try:
                return await connections.ask(link, command(b"EVALSHA", script.name, *rest))
            except BackendUnavailable as failure:
                if not failure.detail.startswith(_UNKNOWN_SCRIPT):
                    raise
            left = max(0.0, by - connections.loop.time())
            return await connections.ask(link, command(b"EVAL", script.text, *rest), left)
        except BackendUnavailable as failure:
            if _WRONG_TYPE not in failure.detail:
                raise
            ledger, log = (key.decode(errors="replace") for key in self._keys)
            raise BackendUnavailable(
                f"{ledger} must be a sorted set and {log} a stream, but something else lies there: remove it", "refused"
            ) from None

    def _open(self) -> Connections:
        """Return the connections of the running loop.

        Raises:
            RuntimeError: the ledger is in use by another event loop that runs at this moment.
        """
        connections, loop = self._connections, get_running_loop()
        if connections is not None and connections.loop is loop:
            return connections
        if connections is not None:
            if connections.loop.is_running():
                raise RuntimeError("two event loops use one instance at the same time")
            connections.abandon()
        self._opened += 1
        self._connections = connections = Connections(self._opened, self._route(), self._keys[0], self._budget)
        return connections

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
