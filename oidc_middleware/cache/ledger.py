"""What the ledger of revocations needs of a store that nodes share, and of a journal that survives this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from oidc_middleware.core.ledger.records import LogEntry, Position, Record

TOGETHER: Final = 1000
"""How many records may be written together: what a store does in one go must not keep others waiting."""


class Page(NamedTuple):
    """A part of what a store holds. `cursor` is where the next one begins, empty after the last.

    `position` is where the log was when the part was read, in the same step: a page of a server that has another past
    than the one whose log is followed must not pass for a page of this one.
    """

    records: Sequence[Record]
    cursor: bytes
    position: Position


class LedgerStore(Protocol):
    """A ledger that all nodes write to and follow.

    Every method raises `BackendUnavailable`, after at most the time that it was made with: it failed, or nobody knows.
    What cannot be read as a record is skipped and counted. Connections are opened at need.
    """

    async def look(self) -> Position:
        """Return where the log is now; a store without one begins one, at number 0.

        Only a store that would take a write answers: a primary that may not fails.
        """

    async def read(self, after: Position, wait: float) -> Sequence[LogEntry]:
        """Return what was logged after a place, oldest first; wait so many seconds for it, then return nothing.

        There may be more. Whether the first entry follows on that place is the caller's to see: others may be lost, and
        one that cannot be read is given as an entry that follows on nothing.
        """

    async def scan(self, cursor: bytes) -> Page:
        """Return a part of all records, from the beginning with an empty cursor.

        What was there when the first part was asked for and still is, is in one of the parts, perhaps in several. That
        holds within one server only: a cursor of another server, or of another connection if nobody can tell, fails.
        """

    async def write(self, records: Sequence[Record]) -> Position:
        """Join records with what is there, log those that changed something, and return where the log is then.

        They are `TOGETHER` at most. All or nothing, and as often as you like. Records that ended `GRACE` ago by the
        store's own clock are removed, a bounded number at a time.
        """

    async def aclose(self) -> None:
        """Let go of the connections; a later call opens new ones."""


class Noted(NamedTuple):
    """What a journal holds of a record: whether the shared store has acknowledged it."""

    record: Record
    is_acknowledged: bool


class Journal(Protocol):
    """The revocations made on this host, on disk until their end; all its processes share it.

    Every method raises `BackendUnavailable`; `problem` says then what is wrong, for people.
    """

    @property
    def problem(self) -> str | None:
        """Why nothing can be written, with the cure; None when it can, as far as is known."""

    async def load(self) -> Sequence[Noted]:
        """Return all that it holds, and begin to note what others add."""

    async def news(self) -> Sequence[Noted]:
        """Return what other processes added since the last call of this or `load`; cheap when there is nothing."""

    async def add(self, records: Sequence[Record], *, is_acknowledged: bool) -> None:
        """Keep records, joined with what is there; return when they are on the disk (and fsync was called)."""

    async def acknowledge(self, records: Sequence[Record]) -> None:
        """Note that the shared store has these."""

    async def sweep(self, before: float) -> int:
        """Remove records that ended before a time (Unix seconds); return how many."""

    async def aclose(self) -> None:
        """Close the file; a later call opens it again."""
