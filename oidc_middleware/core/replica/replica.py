"""One node's share of the ledger: what it follows, writes, keeps and heals, and since when it knows everything."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

from oidc_middleware.core.ledger.records import GRACE, Position, Record
from oidc_middleware.core.replica.calendar import Calendar
from oidc_middleware.core.replica.events import (
    Command,
    Event,
    Got,
    Journaled,
    JournalFailed,
    JournalLoaded,
    JournalNews,
    Looked,
    LookFailed,
    Noted,
    ReadFailed,
    Receipt,
    Revoked,
    ScanFailed,
    Scanned,
    Tick,
    Write,
    WriteFailed,
    Written,
)
from oidc_middleware.core.replica.follower import Follower
from oidc_middleware.core.replica.healer import Healer
from oidc_middleware.core.replica.journal import Journaling
from oidc_middleware.core.replica.loader import Loader
from oidc_middleware.core.replica.mirror import Mirror, covers
from oidc_middleware.core.replica.writer import Batch, Writer

_SLICE = 500
_SWEPT_AT_ONCE = 5000
_SWEEP_PAUSE = 0.01
_SWEEP_EVERY = 5.0
_WELL = 1.5
"""Seconds of staleness until which the store is trusted to tell what the other processes of this host do."""


class Replica:
    """The protocol without I/O: events in, commands out.

    `handle` takes an event and returns what is to be done now; `due` says when a `Tick` is wanted, at the latest. Both
    kinds of time are arguments: `now` is monotonic, `wall` is Unix time and may jump. `random` returns a number from
    0 to 1. `mirror` is the ledger that requests are checked against; everything is merged into it before anything else
    happens, and nothing is ever taken out but by its own sweep. `new_mirror` makes an empty one, which lives while
    there is something to heal.

    Without a store there is nothing to follow, and receipts are `journaled` or `local`. A store that is on the disk of
    this host needs no journal.
    """

    def __init__(
        self,
        mirror: Mirror,
        new_mirror: Callable[[], Mirror],
        random: Callable[[], float],
        *,
        has_store: bool = True,
        has_journal: bool = True,
    ) -> None:
        self.mirror: Mirror = mirror
        self.is_loaded: bool = False
        """Whether everything that the store and the journal have was read once."""
        self.due: float = -math.inf
        """When a `Tick` is wanted, in monotonic time; minus infinity before the first one."""
        self._has_store = has_store
        self._fresh_as_of: float | None = None
        self._is_complete = False
        self._receipts: list[Receipt] = []
        self._follower = Follower(random)
        self._loader = Loader(random)
        self._writer = Writer(random)
        self._healer = Healer(mirror, new_mirror, random)
        self._journal = Journaling(random, self._receipts, has_journal=has_journal)
        self._calendar = Calendar()
        self._untold: deque[Noted] = deque()
        self._sweep_at = -math.inf

    # --------------------------------------------------------------------------------------------------------- facts

    @property
    def fresh_as_of(self) -> float | None:
        """Up to when everything that the store had is known here, in monotonic time; None if that cannot be said."""
        return None if self.mirror.unknown_key_ids else self._fresh_as_of

    def staleness(self, now: float) -> float:
        """Return how old the knowledge is, in seconds: infinite before the first load, nothing without a store."""
        if not self._has_store:
            return 0.0
        as_of = self.fresh_as_of
        return math.inf if as_of is None else max(0.0, now - as_of)

    @property
    def position(self) -> Position | None:
        """Up to where the log was applied; None while nobody knows."""
        return self._follower.line.position if self._follower.line is not None else None

    @property
    def is_healing(self) -> bool:
        """Whether something may be left that the store lost."""
        return self._healer.is_busy

    @property
    def to_heal(self) -> int:
        """How many records are known to be lost and not yet written back: a part of them, while it looks for more."""
        return self._healer.found

    @property
    def unacknowledged(self) -> int:
        """How many records the store has not acknowledged, and has to."""
        return len(self._writer.unacknowledged)

    @property
    def pending(self) -> int:
        """How many revocations wait for the store, and records for the journal."""
        return self._writer.pending + self._journal.pending

    @property
    def is_store_well(self) -> bool:
        """Whether callers may wait for the store."""
        return self._has_store and self._writer.outlook.is_closed

    # -------------------------------------------------------------------------------------------------------- events

    def handle(self, event: Event, now: float, wall: float) -> list[Command]:
        """Take in an event; return what is to be done."""
        wall = self._calendar.read(now, wall)
        self._take_in(event, now)
        for revoked in self._writer.turn_away(now):
            self._journal.keep(revoked)
        self._take_in_untold(now, wall)
        self._look_around(now)
        self._sweep(now, wall)
        commands = self._commands(now, wall)
        self.due = self._next_due(now)
        commands += self._receipts
        self._receipts.clear()
        return commands

    def _take_in(self, event: Event, now: float) -> None:
        match event:
            case Looked() | LookFailed() | Got() | ReadFailed():
                self._hear_of_the_log(event, now)
            case Scanned():
                self._scanned(event, now)
            case ScanFailed():
                self._loader.failed(now)
            case Revoked():
                self._revoked(event, now)
            case Written(position):
                self._written(self._writer.written(), position, now)
            case WriteFailed():
                self._write_failed(self._writer.failed(now), now)
            case Tick():
                pass
            case _:
                self._hear_of_the_journal(event, now)

    def _hear_of_the_log(self, event: Looked | LookFailed | Got | ReadFailed, now: float) -> None:
        match event:
            case Looked(position):
                self._looked(position, now)
            case LookFailed():
                self._follower.look_failed(now)
                self._writer.outlook.look_failed(now)
            case Got(entries):
                self._apply(self._follower.got(entries, now))
            case ReadFailed():
                self._follower.read_failed(now)

    def _hear_of_the_journal(self, event: JournalLoaded | JournalNews | Journaled | JournalFailed, now: float) -> None:
        match event:
            case JournalLoaded(noted) | JournalNews(noted):
                self._journal.told()
                self._untold.extend(noted)
            case Journaled():
                self._journal.done()
            case JournalFailed():
                self._journal.failed(now)

    def _revoked(self, revoked: Revoked, now: float) -> None:
        self.mirror.merge(revoked.records)
        if not revoked.records:
            self._receipts.append(Receipt(revoked.ticket, "shared"))
        elif not self._has_store or not self._writer.revoked(revoked, now):
            self._journal.keep(revoked)

    def _looked(self, position: Position, now: float) -> None:
        self._writer.outlook.looked()
        if self._follower.looked(position, now) and self._follower.line is not None:
            self._is_complete = False
            self._loader.begin(self._follower.line)
            self._healer.begin(is_needed=len(self.mirror) > 0 or not self._is_journal_told)

    def _scanned(self, page: Scanned, now: float) -> None:
        if self._follower.check(page.position, self._loader.answered(), now):
            self._loader.scanned(page.cursor, page.position)
            self._apply(page.records)

    def _written(self, batch: Batch, position: Position, now: float) -> None:
        self._receipts += [Receipt(revoked.ticket, "shared") for revoked in batch.revoked]
        repeated = self._writer.shared(batch.records)
        self._journal.acknowledge(repeated)
        if not batch.is_healing:
            again = {record[:3] for record in repeated}
            self._journal.keep_shared(record for record in batch.records if record[:3] not in again)
        if self._follower.check(position, batch.asked_at, now):
            self._healer.shown(batch.records)

    def _write_failed(self, batch: Batch, now: float) -> None:
        for revoked in batch.revoked:
            self._journal.keep(revoked)
        if batch.is_healing:
            self._healer.failed(batch.records, now)

    def _apply(self, records: Sequence[Record]) -> None:
        """Merge what the store has shown."""
        if records:
            self.mirror.merge(records)
            self._healer.shown(records)
            self._journal.acknowledge(self._writer.shared(records))

    # --------------------------------------------------------------------------------------------------------- steps

    def _take_in_untold(self, now: float, wall: float) -> None:
        """Merge some of what the journal told, and write what nobody else may know."""
        if not self._untold:
            return
        noted = [self._untold.popleft() for _ in range(min(_SLICE, len(self._untold)))]
        living = [(record, is_acknowledged) for record, is_acknowledged in noted if record.end + GRACE > wall]
        news = [
            record
            for record, is_acknowledged in living
            if is_acknowledged and not covers(self.mirror.find(record.kind, record.key_id, record.digest), record)
        ]
        self.mirror.merge([record for record, _ in living])
        if self._has_store:
            self._writer.repeat([record for record, is_acknowledged in living if not is_acknowledged])
            if news and (self._is_complete or not self._healer.is_busy):  # else the walk to come will meet them
                self._healer.add(news, now)

    @property
    def _is_journal_told(self) -> bool:
        return self._journal.is_tried and not self._untold

    def _look_around(self, now: float) -> None:
        """Note whether all is loaded, and how fresh that is."""
        line = self._follower.line
        if not self._has_store:
            self.is_loaded = self.is_loaded or self._is_journal_told
        elif line is None:
            self._is_complete = False
            self._healer.stop()
        elif self._loader.is_done(line):
            if not self._is_complete and self._is_journal_told:
                self._is_complete = self.is_loaded = True
                self._follower.arrived()
                self._healer.walk(now)
            if self._is_complete:
                self._fresh_as_of = self._follower.reached_at

    def _sweep(self, now: float, wall: float) -> None:
        if now >= self._sweep_at:
            is_round = self.mirror.sweep(wall, _SWEPT_AT_ONCE)
            self._writer.forget_ended(wall, _SLICE)
            self._sweep_at = now + (_SWEEP_EVERY if is_round else _SWEEP_PAUSE)

    def _commands(self, now: float, wall: float) -> list[Command]:
        possible: list[Command | None] = [self._journal.next(now, wall, is_well=self._is_well(now))]
        if self._has_store:
            possible += [
                self._follower.next(now),
                self._loader.next(now, self._follower.line),
                self._writer.next(now, wall, self._follower.mark()) or self._heal(now, wall),
            ]
        return [command for command in possible if command is not None]

    def _heal(self, now: float, wall: float) -> Write | None:
        if self._writer.is_waiting or not self._writer.outlook.may_repeat(now):
            return None
        missing = self._healer.next(now, wall)
        return self._writer.send(missing, (), self._follower.mark(), is_healing=True) if missing else None

    def _is_well(self, now: float) -> bool:
        return self._writer.outlook.is_closed and self.staleness(now) < _WELL

    def _next_due(self, now: float) -> float:
        is_well = self._is_well(now)
        dues = [self._sweep_at, self._journal.due(now, is_well=is_well)]
        if self._untold:
            dues.append(now)
        if self._has_store:
            dues += [
                self._follower.due,
                self._loader.due(self._follower.line),
                self._writer.due(now, self._healer.due),
            ]
            if is_well:  # the journal is read more often from then on
                dues.append(now - self.staleness(now) + _WELL)
        return min(dues)
