"""The promises of the ledger, held against everything that happens."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from oidc_middleware.core.ledger.records import GRACE, Kind, Record
from oidc_middleware.core.replica.events import Event, JournalLoaded, Kept
from oidc_middleware.core.replica.mirror import covers, join
from oidc_middleware.core.replica.writer import Thing

from simulation.data import Write, record_of
from simulation.disk import Disk
from simulation.node import Node
from simulation.server import Cluster
from simulation.world import World

LEEWAY = 300
"""Seconds for which somebody may accept a token after its end, by a clock of his own."""
LONG = 3.0
"""Seconds without an answer from the store after which a process reads what others of its host do."""
PATIENCE = 6.0
"""Seconds after which whoever revokes must have his receipt: two writes and a journal, all without an answer."""


class Violation(AssertionError):
    """A promise was broken."""


@dataclass(slots=True)
class Fact:
    """A record that the primary of all had, and from when to when."""

    record: Record
    since: float
    until: float = math.inf


@dataclass(slots=True)
class Receipt:
    """What somebody was promised. `is_lost`: nothing is left that has it, and nobody can be blamed."""

    record: Record
    kept: Kept
    at: float
    disk: Disk
    is_lost: bool = False


@dataclass(slots=True)
class Duties:
    """What one process has to know, and how far that was looked at."""

    records: dict[Record, None] = field(default_factory=dict)
    facts: int = 0
    receipts: int = 0
    fresh_as_of: float | None = None
    size: int = 0
    generation: int = 0

    def add(self, records: Iterable[Record]) -> None:
        """Demand some more."""
        self.records.update(dict.fromkeys(records))


class Judge:
    """Sees every event of every node and every change of the primary."""

    def __init__(self, world: World, cluster: Cluster) -> None:
        self.world = world
        self.cluster = cluster
        self.nodes: list[Node] = []
        self.disks: list[Disk] = []
        self.facts: list[Fact] = []
        self.receipts: list[Receipt] = []
        self.has_lost = False
        """Whether the store ever lost something, or was two."""
        self.made = 0
        """How many records were ever made."""
        self.checks = 0
        self._living: list[Fact] = []
        self._ever: dict[Thing, Record] = {}
        self._duties: dict[str, Duties] = {}
        self._lives: dict[str, int] = {}
        cluster.on_change = self.primary_changed
        cluster.on_write = self.written
        cluster.on_loss = self.reckon

    # ---------------------------------------------------------------------------------------------------- the servers

    def written(self, records: Sequence[Record]) -> None:
        """Note what any server has taken."""
        for record in records:
            self._ever[record[:3]] = join(self._ever.get(record[:3]), record)

    def primary_changed(self, write: Write) -> None:
        """Note what the primary of all has from now on."""
        if write.ends:
            for member, end in write.ends:
                self._add(record_of(member, end))
        if write.drops_set:
            self.reckon()

    def reckon(self) -> None:
        """Note what the primary of all has lost, and what nobody has any more."""
        self.has_lost = True
        held = self._held()
        living = []
        for fact in self._living:
            if covers(held.get(fact.record[:3]), fact.record):
                living.append(fact)
            else:
                fact.until = self.world.now
        self._living = living
        known = _joined(fact.record for fact in living)
        for record in self.cluster.primary.data.records():
            if not covers(known.get(record[:3]), record):
                self._add(record)
        self.mourn(held)

    def mourn(self, held: dict[Thing, Record] | None = None) -> None:
        """Note which revocations are nowhere any more."""
        held = self._held() if held is None else held
        for receipt in self.receipts:
            record = receipt.record
            thing = record[:3]
            if not receipt.is_lost and not covers(held.get(thing), record):
                receipt.is_lost = not any(
                    node.is_up and covers(node.replica.mirror.find(*thing), record) for node in self.nodes
                ) and not any(covers(disk.kept.get(thing), record) for disk in self.disks)

    def _held(self) -> dict[Thing, Record]:
        return _joined(self.cluster.primary.data.records())

    def _add(self, record: Record) -> None:
        fact = Fact(record, self.world.now)
        self.facts.append(fact)
        self._living.append(fact)

    # ------------------------------------------------------------------------------------------------------ the nodes

    def crashed(self, node: Node) -> None:
        """Note that what only this process knew is gone."""
        self.mourn()

    def received(self, node: Node, records: Sequence[Record], kept: Kept) -> None:
        """Hold a receipt against what is true when it is given."""
        self.receipts += [Receipt(record, kept, self.world.now, node.disk) for record in records]
        self._of(node).add(records)
        for record in records:
            self._must_know(node, record, f"what it has given a receipt for: {kept}")
            if kept == "shared" and not covers(self._ever.get(record[:3]), record):
                raise Violation(f"{node.name} says that the store has {record}: no server ever had it")
            is_swept = record.end + GRACE <= node.wall
            if kept == "journaled" and not is_swept and not covers(node.disk.kept.get(record[:3]), record):
                raise Violation(f"{node.name} says that the journal has {record}: it has not")

    def sent(self, node: Node, records: Sequence[Record]) -> None:
        """Look at what a node sends to the store: nothing that would be swept there at once."""
        wall = self.world.wall(self.cluster.primary.skew)
        awaited = {record for of_ticket, _ in node.tickets.values() for record in of_ticket}
        for record in records:
            if record.end + GRACE <= wall and record not in awaited:
                raise Violation(f"{node.name} brings back {record}, which ended {wall - record.end:.0f} seconds ago")

    def handled(self, node: Node, event: Event) -> None:
        """Look at a node after an event."""
        self.checks += 1
        duties = self._of(node)
        mirror = node.mirror
        if type(event) is JournalLoaded:
            duties.add(record for record, _ in event.noted)
            self.check(node)
        size = len(mirror)
        if size < duties.size:
            self.check(node)
        if size > duties.size and mirror.generation == duties.generation and not mirror.unknown_key_ids:
            raise Violation(f"{node.name} knows more, and does not look again at what it let in before")
        duties.size, duties.generation = size, mirror.generation
        fresh_as_of = node.replica.fresh_as_of
        if fresh_as_of is not None:
            if mirror.unknown_key_ids:
                raise Violation(f"{node.name} says that it is fresh, and has records that it cannot read")
            if fresh_as_of != duties.fresh_as_of:
                duties.fresh_as_of = fresh_as_of
                self._must_be_fresh(node, duties, fresh_as_of)

    def check(self, node: Node) -> None:
        """Look whether a node knows all that it has to."""
        for record in self._of(node).records:
            self._must_know(node, record, "what it knew")
        replica = node.replica
        if max(replica.pending - len(node.tickets), replica.unacknowledged, replica.to_heal) > 4 * self.made:
            raise Violation(f"{node.name} has more pending than there is")
        self._must_know_of_its_host(node)
        for _, since in node.tickets.values():
            if self.world.now > since + PATIENCE:
                raise Violation(f"{node.name} owes a receipt since {since:.4f}")

    def _must_know_of_its_host(self, node: Node) -> None:
        """Whoever hears nothing from the store for long hears at least what its host knows."""
        long_ago = self.world.now - LONG
        if node.disk.mode != "well" or max(node.disk.well_since, node.since, self.world.leapt_at) > long_ago:
            return
        if node.replica.staleness(node.now) > LONG:
            for receipt in self.receipts:
                if receipt.kept == "journaled" and receipt.disk is node.disk and receipt.at < self.world.now - 1.0:
                    self._must_know(node, receipt.record, "what another process of its host put into the journal")

    def _of(self, node: Node) -> Duties:
        if self._lives.get(node.name) != node.life:
            self._lives[node.name] = node.life
            self._duties[node.name] = Duties()
        return self._duties[node.name]

    def _must_be_fresh(self, node: Node, duties: Duties, claim: float) -> None:
        if not node.replica.is_loaded:
            raise Violation(f"{node.name} says that it is fresh before it was loaded")
        if claim not in node.looks:
            raise Violation(f"{node.name} says that it is fresh as of a time when it did not look")
        is_bound, as_of, answered_at = node.looks[claim]
        if not is_bound and not self.cluster.demands_replicas:
            return  # an old primary that nobody keeps from writing: there is no bound, as the documentation says
        while duties.facts < len(self.facts) and self.facts[duties.facts].since <= as_of:
            fact = self.facts[duties.facts]
            duties.facts += 1
            if fact.until > answered_at:
                self._must_know(node, fact.record, f"what the store had when it is fresh: {as_of:.4f}")
                duties.add([fact.record])
        while not self.has_lost and duties.receipts < len(self.receipts):
            receipt = self.receipts[duties.receipts]
            if receipt.at >= as_of:
                break
            duties.receipts += 1
            if receipt.kept == "shared":
                self._must_know(node, receipt.record, f"what was shared when it is fresh: {as_of:.4f}")

    def _must_know(self, node: Node, record: Record, why: str) -> None:
        if node.wall < record.end + LEEWAY and not covers(node.replica.mirror.find(*record[:3]), record):
            raise Violation(f"{node.name} does not know {record}, {why}")

    # -------------------------------------------------------------------------------------------------------- the end

    def unrest(self) -> str | None:
        """Say what is not yet as it has to be when all faults are over; None if all is well."""
        held = self._held()
        latest = max(node.wall for node in self.nodes)
        for receipt in self.receipts:
            record = receipt.record
            if not receipt.is_lost and record.end > latest and not covers(held.get(record[:3]), record):
                return f"the store does not have {record}, for which a receipt was given: {receipt.kept}"
        for node in self.nodes:
            if why := self._unrest_of(node, held, latest):
                return f"{node.name} {why}"
        return None

    def _unrest_of(self, node: Node, held: dict[Thing, Record], latest: float) -> str | None:
        replica = node.replica
        mirror = replica.mirror
        if node.tickets or replica.pending or replica.unacknowledged:
            return f"has something pending: {len(node.tickets)}, {replica.pending}, {replica.unacknowledged}"
        if replica.is_healing or replica.position is None:
            return "is healing, or follows nothing"
        if replica.staleness(node.now) > PATIENCE and not mirror.unknown_key_ids:
            return f"is stale: {replica.staleness(node.now)}"
        for record in self.cluster.primary.data.records():  # one by one: what was joined may have ended apart
            if record.end > latest and not covers(mirror.find(*record[:3]), record):
                return f"does not know {record}"
        for record in mirror.records(None, 100_000):
            if record.end > latest and not _knows_enough(held.get(record[:3]), record):
                return f"knows {record}, and the store does not"
        return None


def _knows_enough(known: Record | None, record: Record) -> bool:
    """Tell whether a store knows what a node does, which has joined lives that the store keeps apart and ends apart."""
    return covers(known, record._replace(number=0) if record.kind is not Kind.TOKEN else record)


def _joined(records: Iterable[Record]) -> dict[Thing, Record]:
    joined: dict[Thing, Record] = {}
    for record in records:
        joined[record[:3]] = join(joined.get(record[:3]), record)
    return joined
