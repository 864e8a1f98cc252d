"""A replica, and a store and a journal that answer when a test says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from oidc_middleware.core.ledger.digests import KEY_BYTES, LedgerKeys
from oidc_middleware.core.ledger.ledger import Ledger
from oidc_middleware.core.ledger.records import Kind, LogEntry, Position, Record
from oidc_middleware.core.replica import events
from oidc_middleware.core.replica.events import Command, Event
from oidc_middleware.core.replica.replica import Replica

KEYS = LedgerKeys({b"mine": b"k" * KEY_BYTES})
WALL = 1_800_000_000.0
BEGIN = Position(b"epoch", 0, b"")


def token(digest: int, life: int = 3600, key_id: bytes = b"mine") -> Record:
    """Return a record of a token that lives for so many seconds more."""
    return Record(Kind.TOKEN, key_id, digest, int(WALL) + life, int(WALL) + life)


def entry(after: Position, *records: Record, last_id: bytes = b"") -> LogEntry:
    """Return the entry that follows on a place."""
    number = after.number + 1
    return LogEntry(after.epoch, number, after.last_id, last_id or b"id-%d" % number, records)


class Bench:
    """Holds what the replica has asked for until the test answers it."""

    def __init__(
        self, *, random: Callable[[], float] = lambda: 1.0, has_store: bool = True, has_journal: bool = True
    ) -> None:
        self.now = 1000.0
        self.wall_ahead = WALL - self.now
        self.ledger = Ledger(KEYS, leeway=30.0)
        self.replica = Replica(
            self.ledger, lambda: Ledger(KEYS, leeway=0.0), random, has_store=has_store, has_journal=has_journal
        )
        self.asked: list[Command] = []
        self.journal_did: list[Command] = []
        self.receipts: dict[object, events.Kept] = {}

    def tell(self, event: Event) -> list[Command]:
        """Tell the replica something; return what it asks for now."""
        commands = self.replica.handle(event, self.now, self.now + self.wall_ahead)
        for command in commands:
            if isinstance(command, events.Receipt):
                self.receipts[command.ticket] = command.kept
            else:
                self.asked.append(command)
        return commands

    def answer(self, kind: type, event: Event) -> list[Command]:
        """Answer the one command of a kind that is under way."""
        (command,) = self.under_way(kind)
        self._take_away(command)
        return self.tell(event)

    def _take_away(self, done: Command) -> None:
        # By identity: two commands without fields are equal, as tuples are.
        self.asked = [command for command in self.asked if command is not done]

    def under_way(self, *kinds: type) -> list[Command]:
        """Return the commands of some kinds that are not answered yet."""
        return [command for command in self.asked if isinstance(command, kinds)]

    def wait(self, seconds: float) -> None:
        """Let time pass, with a tick whenever the replica wants one."""
        until = self.now + seconds
        for _ in range(10_000):
            if self.replica.due > until:
                break
            self.now = max(self.now, self.replica.due)
            self.tell(events.Tick())
        else:
            raise AssertionError("it ticks without end")
        self.now = until

    def start(
        self, *records: Record, journal: Sequence[events.Noted] = (), position: Position = BEGIN, reads: bool = True
    ) -> None:
        """Load all from a store that has these records, and from a journal."""
        self.tell(events.Tick())
        if self.under_way(events.LoadJournal):
            self.answer(events.LoadJournal, events.JournalLoaded(journal))
            self.finish_journal()
        self.answer(events.Look, events.Looked(position))
        self.answer(events.Scan, events.Scanned(records, b"", position))
        assert self.replica.is_loaded

    def finish_journal(self) -> None:
        """Let the journal do whatever it is asked for."""
        while commands := self.under_way(events.ReadJournal, events.Keep, events.Acknowledge, events.SweepJournal):
            self._take_away(commands[0])
            self.journal_did.append(commands[0])
            is_reading = isinstance(commands[0], events.ReadJournal)
            self.tell(events.JournalNews([]) if is_reading else events.Journaled())

    def end_read(self) -> None:
        """Let the read that is under way find nothing, when its time is over."""
        for read in self.under_way(events.Read):
            assert isinstance(read, events.Read)
            self.wait(read.wait)
            self.answer(events.Read, events.Got([]))

    def look_again(self, position: Position) -> None:
        """Answer the next look, after the read that is under way."""
        self.end_read()
        if not self.under_way(events.Look):
            self.wait(1.1)
        self.answer(events.Look, events.Looked(position))

    def fail_writes(self, times: int) -> None:
        """Let the store refuse the write that is under way, and those that follow on it."""
        for _ in range(times):
            self.answer(events.Write, events.WriteFailed())
            self.finish_journal()
            self.wait(1.1)

    @property
    def staleness(self) -> float:
        """How old the knowledge is."""
        return self.replica.staleness(self.now)
