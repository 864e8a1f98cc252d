"""What a replica is told, and what it asks for.

There are four lanes, each with one command under way at most. A driver answers every command with exactly one event of
its lane, also when nobody knows what became of it: that is a failure. How long it waits is the driver's to say.

```
lane      command                                              answered by
follow    Look                                                 Looked, LookFailed
          Read                                                 Got, ReadFailed
load      Scan                                                 Scanned, ScanFailed
write     Write                                                Written, WriteFailed
journal   LoadJournal                                          JournalLoaded, JournalFailed
          ReadJournal                                          JournalNews, JournalFailed
          Keep, Acknowledge, SweepJournal                      Journaled, JournalFailed
-         Receipt                                              nothing
```
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple, TypeAlias

from oidc_middleware.core.ledger.records import LogEntry, Position, Record

Kept: TypeAlias = Literal["shared", "journaled", "local"]
"""How far a revocation has come: the store has it, the disk of this host has it, or this process alone."""

Noted: TypeAlias = tuple[Record, bool]
"""What a journal holds of a record, and whether the store has acknowledged it."""

# ------------------------------------------------------------------------------------------------------------- events


class Revoked(NamedTuple):
    """Somebody here revokes; `Receipt` will name the ticket. At most some hundred records: they travel in one piece."""

    ticket: Hashable
    records: Sequence[Record]


class Looked(NamedTuple):
    """Where the log of the primary is."""

    position: Position


class LookFailed(NamedTuple):
    """Nobody answered, or a primary that may not write."""


class Got(NamedTuple):
    """What the log has after the place that was asked for, oldest first; nothing if nothing came in time."""

    entries: Sequence[LogEntry]


class ReadFailed(NamedTuple):
    """The log could not be read."""


class Scanned(NamedTuple):
    """A part of what the store holds, the next cursor (empty after the last), and where the log was in that step."""

    records: Sequence[Record]
    cursor: bytes
    position: Position


class ScanFailed(NamedTuple):
    """A part could not be read, or its cursor was of another server."""


class Written(NamedTuple):
    """The store has it all; where its log is now."""

    position: Position


class WriteFailed(NamedTuple):
    """The store refused, or nobody knows."""


class JournalLoaded(NamedTuple):
    """All that the journal has."""

    noted: Sequence[Noted]


class JournalNews(NamedTuple):
    """What other processes of this host have added to the journal."""

    noted: Sequence[Noted]


class Journaled(NamedTuple):
    """It is done, and on the disk."""


class JournalFailed(NamedTuple):
    """It is not done, or nobody knows."""


class Tick(NamedTuple):
    """Time has passed: `Replica.due` has come."""


Event: TypeAlias = (
    Revoked | Looked | LookFailed | Got | ReadFailed | Scanned | ScanFailed | Written | WriteFailed
    | JournalLoaded | JournalNews | Journaled | JournalFailed | Tick
)  # fmt: skip

# ----------------------------------------------------------------------------------------------------------- commands


class Look(NamedTuple):
    """Ask the primary where its log is; it has to be one that would take a write."""


class Read(NamedTuple):
    """Read the log after a place; wait so many seconds for something to come."""

    after: Position
    wait: float


class Scan(NamedTuple):
    """Read a part of all records, from the beginning with an empty cursor."""

    cursor: bytes


class Write(NamedTuple):
    """Join records with what the store has."""

    records: Sequence[Record]


class LoadJournal(NamedTuple):
    """Read all that the journal has."""


class ReadJournal(NamedTuple):
    """Read what other processes have added to the journal since."""


class Keep(NamedTuple):
    """Put records into the journal, joined with what it has."""

    records: Sequence[Record]
    is_acknowledged: bool


class Acknowledge(NamedTuple):
    """Note in the journal that the store has records; one that was joined with a later one since stays as it is."""

    records: Sequence[Record]


class SweepJournal(NamedTuple):
    """Remove from the journal what ended before a time, in Unix time."""

    before: float


class Receipt(NamedTuple):
    """Tell whoever holds a ticket how far the revocation has come."""

    ticket: Hashable
    kept: Kept


FollowCommand: TypeAlias = Look | Read
JournalCommand: TypeAlias = LoadJournal | ReadJournal | Keep | Acknowledge | SweepJournal
Command: TypeAlias = FollowCommand | Scan | Write | JournalCommand | Receipt
