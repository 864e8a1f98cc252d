"""A process with a replica, and the driver that does what it asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

from oidc_middleware.core.ledger.digests import LedgerKeys
from oidc_middleware.core.ledger.ledger import Ledger
from oidc_middleware.core.ledger.records import LogEntry, Position, Record
from oidc_middleware.core.replica import events
from oidc_middleware.core.replica.events import Event
from oidc_middleware.core.replica.replica import Replica

from simulation.disk import Disk
from simulation.network import LANES, Link, Network, Question
from simulation.world import World


class Watcher(Protocol):
    """Who sees everything that a node does."""

    def sent(self, node: Node, records: Sequence[Record]) -> None:
        """See what a node sends to the store."""

    def handled(self, node: Node, event: Event) -> None:
        """See a node after an event."""

    def received(self, node: Node, records: Sequence[Record], kept: events.Kept) -> None:
        """See a receipt."""

    def crashed(self, node: Node) -> None:
        """See a node end."""


class Node:
    """One process. It begins with `start`, ends with `crash`, and may begin again."""

    def __init__(self, world: World, network: Network, name: str, disk: Disk, keys: LedgerKeys) -> None:
        self.world = world
        self.network = network
        self.name = name
        self.disk = disk
        self.keys = keys
        self.skew = 0.0
        self.is_ahead = 0.0
        """Seconds by which its clock is wrong for a while; not when it starts, for it has nothing to compare it to."""
        self.life = 0
        self.is_up = False
        self.since = 0.0
        self.watcher: Watcher
        self.on_crash: Callable[[Node], None]
        self.mirror: Ledger
        self.replica: Replica
        self.tickets: dict[int, tuple[Sequence[Record], float]] = {}
        self.links: dict[str, Link] = {}
        self.looks: dict[float, tuple[bool, float, float]] = {}
        """By when a look was begun: whether what was answered binds the node, and the world's time then and
        when the server answered."""
        self._offset = world.random.uniform(0, 1e6)
        self._told = 0
        self._tickets = 0
        self._ticks_at = 0.0

    def start(self) -> None:
        """Begin to run, with nothing but what the disk has."""
        self.life += 1
        self.is_up = True
        self.since = self.world.now
        self.links = {lane: Link() for lane in LANES}
        self.tickets = {}
        self.looks = {}
        self.mirror = self.new_mirror()
        self.replica = Replica(self.mirror, self.new_mirror, self.world.random.random)
        self.world.tell(self.name, "starts")
        self._ticks_at = self.world.now
        self.handle(events.Tick())

    def crash(self) -> None:
        """End where it stands."""
        if self.is_up:
            self.world.tell(self.name, "crashes")
            self.is_up = False
            self.life += 1
            self.watcher.crashed(self)
            self.on_crash(self)

    def new_mirror(self) -> Ledger:
        """Return an empty ledger."""
        return Ledger(self.keys, leeway=30.0)

    @property
    def wall(self) -> float:
        """What its clock shows."""
        return self.world.wall(self.skew + self.is_ahead)

    @property
    def now(self) -> float:
        """Monotonic time, which begins anywhere."""
        return self.world.now + self.world.leapt + self._offset

    def revoke(self, records: Sequence[Record]) -> None:
        """Let somebody revoke something here."""
        self._tickets += 1
        self.tickets[self._tickets] = records, self.world.now
        self.handle(events.Revoked(self._tickets, records))

    def handle(self, event: Event) -> None:
        """Let the replica take in an event, and do what it asks for."""
        commands = self.replica.handle(event, self.now, self.wall)
        if self.world.told is not None and (commands or type(event) is not events.Tick):
            self.world.tell(self.name, _short(event), "->", ", ".join(map(_short, commands)))
        for command in commands:
            self.LANES[type(command)](self, command)
        self._set_alarm()
        self.watcher.handled(self, event)

    # ---------------------------------------------------------------------------------------------------------- lanes

    def _look(self, _: events.Look) -> None:
        began, sent_at = self.now, self.world.now

        def arrived(position: Position, *, is_bound: bool, at: float) -> Event:
            self.looks[began] = is_bound, sent_at, at
            return events.Looked(position)

        self.network.ask(self, "follow", Question("look", (), arrived, events.LookFailed()))

    def _read(self, read: events.Read) -> None:
        def arrived(entries: list[LogEntry], *, is_bound: bool, at: float) -> Event:
            return events.Got(entries)

        self.network.ask(self, "follow", Question("read", (read.after,), arrived, events.ReadFailed(), read.wait))

    def _scan(self, scan: events.Scan) -> None:
        self.network.scan(self, scan.cursor)

    def _write(self, write: events.Write) -> None:
        def arrived(position: Position, *, is_bound: bool, at: float) -> Event:
            return events.Written(position)

        self.network.counts["write"] += 1
        self.watcher.sent(self, write.records)
        self.network.ask(self, "write", Question("write", (write.records,), arrived, events.WriteFailed()))

    def _receipt(self, receipt: events.Receipt) -> None:
        assert isinstance(receipt.ticket, int)
        records, _ = self.tickets.pop(receipt.ticket)
        self.watcher.received(self, records, receipt.kept)

    # -------------------------------------------------------------------------------------------------------- journal

    def _load_journal(self, _: events.LoadJournal) -> None:
        def work() -> Event:
            self._told = len(self.disk.news)
            return events.JournalLoaded(self.disk.load())

        self._use_disk(work, is_reading=True)

    def _read_journal(self, _: events.ReadJournal) -> None:
        def work() -> Event:
            told, self._told = self._told, len(self.disk.news)
            return events.JournalNews(self.disk.news_for(self.name, told))

        self._use_disk(work, is_reading=True)

    def _keep(self, keep: events.Keep) -> None:
        def work() -> Event:
            self.disk.keep(self.name, keep.records, is_acknowledged=keep.is_acknowledged)
            return events.Journaled()

        self._use_disk(work)

    def _acknowledge(self, acknowledge: events.Acknowledge) -> None:
        def work() -> Event:
            self.disk.acknowledge(acknowledge.records)
            return events.Journaled()

        self._use_disk(work)

    def _sweep_journal(self, sweep: events.SweepJournal) -> None:
        def work() -> Event:
            self.disk.sweep(sweep.before)
            return events.Journaled()

        self._use_disk(work)

    def _use_disk(self, work: Callable[[], Event], *, is_reading: bool = False) -> None:
        self.world.after(self.world.random.uniform(0.0005, 0.01), self._disk_works, self.life, work, is_reading)

    def _disk_works(self, life: int, work: Callable[[], Event], is_reading: bool) -> None:
        """Do it at once, and say so later: a crash may come between."""
        random, mode = self.world.random, self.disk.mode
        if life != self.life and (is_reading or random.random() < 0.5):
            return
        refuses = mode == "unreadable" or (mode == "refuses" and not is_reading)
        event = events.JournalFailed() if refuses else work()
        if mode == "fails late" and not is_reading:
            event = events.JournalFailed()
        if not is_reading and not refuses:
            self.network.point("journal", self)
        self.world.after(random.uniform(0.0001, 0.005), self.deliver, life, event)

    def deliver(self, life: int, event: Event) -> None:
        """Hand an answer over, unless whoever asked is no more."""
        if life == self.life:
            self.handle(event)

    # ----------------------------------------------------------------------------------------------------------- time

    def _set_alarm(self) -> None:
        due = max(self.world.now + self.replica.due - self.now, self.world.now + 0.0005)
        if due < self._ticks_at or self._ticks_at <= self.world.now:
            self._ticks_at = due
            self.world.after(due - self.world.now, self._alarm, self.life, due)

    def _alarm(self, life: int, at: float) -> None:
        if life != self.life or at != self._ticks_at:
            return
        if self.replica.due <= self.now + 1e-6:
            self.handle(events.Tick())
        else:
            self._set_alarm()

    LANES: ClassVar[dict[type, Callable[[Any, Any], None]]] = {
        events.Look: _look,
        events.Read: _read,
        events.Scan: _scan,
        events.Write: _write,
        events.Receipt: _receipt,
        events.LoadJournal: _load_journal,
        events.ReadJournal: _read_journal,
        events.Keep: _keep,
        events.Acknowledge: _acknowledge,
        events.SweepJournal: _sweep_journal,
    }


def _short(what: Event | events.Command) -> str:
    fields = ", ".join(_shorter(field) for field in what)
    return f"{type(what).__name__}({fields})"


def _shorter(field: object) -> str:
    if isinstance(field, Position):
        return f"{field.epoch.hex()[:4]}:{field.number}:{field.last_id.hex()[-4:]}"
    if isinstance(field, LogEntry):
        told = "+".join(map(_shorter, field.records))
        return f"{field.epoch.hex()[:4]}:{field.number}:{field.previous_id.hex()[-4:]}>{field.id.hex()[-4:]}={told}"
    if isinstance(field, Record):
        return f"{field.kind.name[:2]}{field.digest}"
    if isinstance(field, tuple | list):
        return "[" + " ".join(map(_shorter, field)) + "]"
    return f"{field:.3f}" if isinstance(field, float) else str(field)
