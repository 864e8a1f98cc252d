"""A schedule: nodes over a store, what is revoked, what goes wrong, and the end, when all must be well."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from oidc_middleware.core.ledger.digests import KEY_BYTES, LedgerKeys
from oidc_middleware.core.ledger.records import Kind, Record

from simulation.disk import Disk
from simulation.faults import FAULTS, some_skew
from simulation.judge import Judge, Violation
from simulation.network import Network
from simulation.node import Node
from simulation.server import Cluster, Server
from simulation.world import World

SECRETS = {name: bytes([name[0]]) * KEY_BYTES for name in (b"aaaa", b"bbbb")}
STAGES = tuple(
    LedgerKeys({name: SECRETS[name] for name in names})
    for names in ((b"aaaa",), (b"aaaa", b"bbbb"), (b"bbbb", b"aaaa"), (b"bbbb",))
)
"""What the secrets are before a rotation, during it, and after it."""
AT_REST_WITHIN = 40.0
"""Seconds after the last fault within which everything must be well."""
QUIET = 3.0
"""Seconds in which nobody writes when all is well."""


RECIPES = (
    ("partition", "trimmed log"),
    ("delay", "trimmed log", "evicted log"),
    ("fail-over", "replication lag"),
    ("fail-over", "replication lag", "clock set"),
    ("fail-over", "replication lag", "clocks of the store set back"),
    ("fail-over", "delay", "partition"),
    ("fail-over", "crash"),
    ("isolated primary", "replication lag"),
    ("isolated primary", "crash", "evicted set"),
    ("sent to a replica", "replication lag", "crash"),
    ("flush", "crash", "broken journal"),
    ("restart of the store", "crash between write and answer"),
    ("evicted set", "time passes", "clock set"),
    ("partition", "broken journal", "crash"),
    ("full store", "crash", "partition"),
    ("loss", "frozen primary"),
    ("rotation of the secret", "flush"),
)
"""What is bad together; half of all plans take one of these, the others anything."""


@dataclass(frozen=True)
class Plan:
    """What a seed makes of a schedule."""

    seed: int
    nodes: int
    hosts: int
    replicas: int
    demands_replicas: bool
    preloaded: int
    page: int
    latency: float
    seconds: float
    skewed: bool
    starts: tuple[float, ...]
    faults: tuple[tuple[float, str], ...]
    revocations: tuple[float, ...]

    @classmethod
    def of(cls, seed: int, kinds: Sequence[str] = ()) -> Plan:
        """Make the plan of a seed, with these kinds of faults if some are named."""
        random = Random(seed)
        nodes = random.choice([1, 2, 2, 3, 3, 4])
        replicas = random.choice([0, 1, 1, 2])
        seconds = random.uniform(1.0, 8.0)
        kinds = kinds or random.choice([random.choice(RECIPES), random.sample(sorted(FAULTS), random.randint(1, 4))])
        faults = [(random.uniform(0, seconds), random.choice(kinds)) for _ in range(random.choice([0, 2, 3, 5, 8, 12]))]
        starts = [random.choice([0.0, 0.0, random.uniform(0, seconds)]) for _ in range(nodes)]
        moments = [*starts, *(at for at, _ in faults), random.uniform(0, seconds)]
        spread = random.choice([0.02, 0.2])
        close = [random.choice(moments) + random.gauss(0, spread) for _ in range(random.choice([1, 3, 6, 12]))]
        anywhere = [random.uniform(0, seconds) for _ in range(random.choice([0, 2, 12]))]
        revocations = [min(seconds, abs(at)) for at in close + anywhere]
        return cls(
            seed=seed,
            nodes=nodes,
            hosts=random.randint(1, nodes),
            replicas=replicas,
            demands_replicas=bool(replicas) and random.random() < 0.5,
            preloaded=random.choice([0, 0, 3, 10, 25]),
            page=random.choice([1, 3, 8]),
            latency=random.choice([0.001, 0.001, 0.01, 0.05]),
            seconds=round(seconds, 3),
            skewed=random.random() < 0.5,
            starts=tuple(round(at, 3) for at in starts),
            faults=tuple(sorted((round(at, 3), name) for at, name in faults)),
            revocations=tuple(sorted(round(at, 3) for at in revocations)),
        )


class Fleet:
    """What a plan is carried out on."""

    def __init__(self, plan: Plan, *, is_traced: bool = False) -> None:
        self.plan = plan
        self.world = world = World(plan.seed ^ 0x5EED, is_traced=is_traced)
        self.random = world.random
        self.cluster = Cluster(world, plan.replicas, demands_replicas=plan.demands_replicas)
        self.cluster.page = plan.page
        self.network = Network(world, self.cluster, plan.latency)
        self.judge = Judge(world, self.cluster)
        self.disks = [Disk(f"host-{number}") for number in range(plan.hosts)]
        self.stage = self.random.choice([0, 0, 2])
        self.nodes = [
            Node(world, self.network, f"node-{number}", self.disks[number % plan.hosts], STAGES[self.stage])
            for number in range(plan.nodes)
        ]
        self.counts: Counter[str] = Counter()
        self.is_over = False
        self.judge.nodes, self.judge.disks = self.nodes, self.disks
        for node in self.nodes:
            node.watcher = self.judge
            node.on_crash = self._restart_later
        self._digests = 0
        self._known: list[Record] = []

    def run(self) -> None:
        """Let it all happen.

        Raises:
            Violation: a promise was broken.
        """
        self._begin()
        plan, world = self.plan, self.world
        for at, name in plan.faults:
            world.after(at, self._fault, name)
        for at in plan.revocations:
            world.after(at, self._revoke)
        while world.now < plan.seconds:
            world.run(min(plan.seconds, world.now + 1.0))
            self._check()
        self._end_faults()
        self._come_to_rest()

    # ------------------------------------------------------------------------------------------------------- chances

    def some_node(self) -> Node | None:
        """Return a node that runs."""
        running = [node for node in self.nodes if node.is_up]
        return self.random.choice(running) if running else None

    def some_replica(self) -> Server | None:
        """Return a replica that follows the primary."""
        replicas = [server for server in self.cluster.servers if server.master is self.cluster.primary]
        return self.random.choice(replicas) if replicas else None

    def later(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call something some time later, unless all faults are over by then."""

        def unless_over() -> None:
            if not self.is_over:
                call(*arguments)

        self.world.after(math.exp(self.random.uniform(math.log(0.02), math.log(6.0))), unless_over)

    def rotate(self) -> None:
        """Restart one node after the other with the next stage of the secrets."""
        if self.stage + 1 < len(STAGES):
            self.stage += 1
            at = 0.0
            for node in self.random.sample(self.nodes, len(self.nodes)):
                at += self.random.uniform(0.05, 1.0)
                self.world.after(at, self._rekey, node, STAGES[self.stage])

    def _rekey(self, node: Node, keys: LedgerKeys) -> None:
        if not self.is_over:
            node.keys = keys
            node.crash()

    # --------------------------------------------------------------------------------------------------------- phases

    def _begin(self) -> None:
        plan, random = self.plan, self.random
        if plan.skewed:
            clocks: list[Node | Server] = [*self.nodes, *self.cluster.servers]
            for who in clocks:
                who.skew = some_skew(random)
        if plan.preloaded:
            # Some of them ended so long ago that they are just about to be swept.
            walls = [
                self.world.wall(random.choice([0.0, 0.0, -random.uniform(550, 700)])) for _ in range(plan.preloaded)
            ]
            records = [self._new_record(wall) for wall in walls]
            self.cluster.primary.write(records)
            self.cluster.resync()
            for disk in self.disks:
                disk.keep("", random.sample(records, random.randint(0, len(records))), is_acknowledged=True)
        for node, at in zip(self.nodes, plan.starts, strict=True):
            self.world.after(at, self._start, node)

    def _fault(self, name: str) -> None:
        self.counts[name] += 1
        self.world.tell("!", name)
        FAULTS[name](self)

    def _revoke(self) -> None:
        if node := self.some_node():
            self.counts["revocation"] += 1
            node.revoke([self._new_record(node.wall, node) for _ in range(self.random.choice([1, 1, 1, 2, 5]))])

    def _new_record(self, wall: float, node: Node | None = None) -> Record:
        random = self.random
        key_id = (node.keys if node else STAGES[self.stage]).key_id
        life = random.choice([2, 20, 100, 500, 3600, 86_400])
        kind = random.choice(list(Kind))
        again = [record for record in self._known if record.key_id == key_id] if random.random() < 0.2 else []
        if again:
            kind, _, digest, _, _ = random.choice(again)
        else:
            self._digests += 1
            digest = self._digests << 40 | random.randrange(1 << 40)
        number = math.ceil(wall) + (random.randint(1, life) if kind is Kind.TOKEN else 0)
        record = Record(kind, key_id, digest, number, number if kind is Kind.TOKEN else number + life)
        self._known.append(record)
        self.judge.made += 1
        return record

    def _start(self, node: Node) -> None:
        if not node.is_up:
            node.is_ahead = 0.0
            node.start()

    def _restart_later(self, node: Node) -> None:
        self.world.after(self.random.uniform(0.01, 2.0), self._start, node)

    def _check(self) -> None:
        for node in self.nodes:
            if node.is_up:
                self.judge.check(node)

    def _end_faults(self) -> None:
        self.is_over = True
        world, network, cluster = self.world, self.network, self.cluster
        world.tell("! all faults are over")
        network.loss = network.slow = 0.0
        network.cut.clear()
        network.astray.clear()
        network.crashes.clear()
        for disk in self.disks:
            disk.mend(world.now)
        for server in cluster.servers:
            server.is_up, server.is_full, server.is_cut_off = True, False, False
            server.frozen_until, server.lag = 0.0, 0.001
            if server is not cluster.primary:
                server.resync(cluster.primary)
                server.break_connections()
        for node in self.nodes:
            node.is_ahead = 0.0
            self._start(node)

    def _come_to_rest(self) -> None:
        world, judge = self.world, self.judge
        until = world.now + AT_REST_WITHIN
        why: str | None = "nothing happened"
        while why is not None:
            if world.now >= until:
                raise Violation(f"{AT_REST_WITHIN} seconds after the last fault: {why}")
            world.run(world.now + 0.5)
            self._check()
            why = judge.unrest()
        writes = self.network.counts["write"]
        world.run(world.now + QUIET)
        if self.network.counts["write"] != writes:
            raise Violation("all was well, and somebody wrote")
        if why := judge.unrest():
            raise Violation(f"all was well, and then: {why}")


def run(seed: int, kinds: Sequence[str] = ()) -> Fleet:
    """Carry out the plan of a seed.

    Raises:
        Violation: a promise was broken.
    """
    fleet = Fleet(Plan.of(seed, kinds))
    fleet.run()
    return fleet


def replay(seed: int, kinds: Sequence[str] = ()) -> str:
    """Carry out the plan of a seed again; return what happened, with the plan and the violation, if there is one."""
    plan = Plan.of(seed, kinds)
    fleet = Fleet(plan, is_traced=True)
    end = "no violation"
    try:
        fleet.run()
    except Violation as violation:
        end = f"violation: {violation}"
    return "\n".join([str(plan), *(fleet.world.told or ()), end])
