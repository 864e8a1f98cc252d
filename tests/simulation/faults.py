"""What may happen to a fleet: each fault is begun, and most end by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from simulation.node import Node
from simulation.server import Server

if TYPE_CHECKING:
    from simulation.fleet import Fleet

SKEW = 120.0


def _crash(fleet: Fleet) -> None:
    if node := fleet.some_node():
        node.crash()


def _crash_between(fleet: Fleet) -> None:
    """A process ends between a write, to the store or the disk, and the answer."""
    fleet.network.crashes[fleet.random.choice(["journal", "write"])] = fleet.random.randrange(4)


def _loss(fleet: Fleet) -> None:
    fleet.network.loss = fleet.random.choice([0.05, 0.3, 0.6])
    fleet.later(setattr, fleet.network, "loss", 0.0)


def _delay(fleet: Fleet) -> None:
    fleet.network.slow = fleet.random.choice([0.05, 0.3])
    fleet.later(setattr, fleet.network, "slow", 0.0)


def _partition(fleet: Fleet) -> None:
    nodes = fleet.random.sample(fleet.nodes, fleet.random.randint(1, len(fleet.nodes)))
    pairs = {(node.name, server.name) for node in nodes for server in fleet.cluster.servers}
    fleet.network.cut |= pairs
    fleet.later(fleet.network.cut.difference_update, pairs)


def _freeze(fleet: Fleet) -> None:
    fleet.cluster.primary.frozen_until = fleet.world.now + fleet.random.uniform(0.2, 4.0)


def _fail_over(fleet: Fleet) -> None:
    """The primary dies, and a replica that has not heard everything takes over."""
    old, replica = fleet.cluster.primary, fleet.some_replica()
    if replica is None:
        _restart(fleet)
        return
    old.is_up = False
    old.break_connections()
    fleet.later(_promote, fleet, old, replica)


def _promote(fleet: Fleet, old: Server, replica: Server) -> None:
    if fleet.cluster.primary is old and replica.master is old:
        old.is_up = False
        old.break_connections()
        fleet.cluster.promote(replica)
        fleet.later(_rejoin, fleet, old)


def _rejoin(fleet: Fleet, old: Server) -> None:
    old.is_up = True
    if old is not fleet.cluster.primary:
        old.is_cut_off = False
        old.resync(fleet.cluster.primary)
        old.break_connections()


def _isolate(fleet: Fleet) -> None:
    """The primary goes on alone, with some nodes, while a replica takes over for the others."""
    random, cluster, network = fleet.random, fleet.cluster, fleet.network
    old, replica = cluster.primary, fleet.some_replica()
    if replica is None:
        return
    old.is_cut_off = True
    old.isolations += 1
    isolation = old.isolations
    stay = random.sample(fleet.nodes, random.randint(0, len(fleet.nodes)))
    pairs = {(node.name, server.name) for node in stay for server in cluster.servers if server is not old}
    pairs |= {(node.name, old.name) for node in fleet.nodes if node not in stay and random.random() < 0.7}
    network.cut |= pairs
    for node in stay:
        network.astray[node.name] = old

    def end() -> None:
        network.cut -= pairs
        for node in stay:
            network.astray.pop(node.name, None)
        if old.isolations == isolation:
            _rejoin(fleet, old)
            old.is_cut_off = False

    def promote() -> None:
        if cluster.primary is old and replica.master is old and old.isolations == isolation:
            cluster.promote(replica)
        fleet.later(end)

    fleet.later(promote)


def _lag(fleet: Fleet) -> None:
    for server in fleet.cluster.servers:
        server.lag = fleet.random.uniform(0.05, 3.0)
        fleet.later(setattr, server, "lag", 0.001)


def _stray(fleet: Fleet) -> None:
    """A node is sent to a replica, as an old answer of a name server would."""
    node, replica = fleet.some_node(), fleet.some_replica()
    if node is not None and replica is not None:
        fleet.network.astray[node.name] = replica
        for lane in fleet.random.sample(["follow", "load", "write"], fleet.random.randint(1, 3)):
            node.links[lane].server = None
        fleet.later(_find_back, fleet, node)


def _find_back(fleet: Fleet, node: Node) -> None:
    fleet.network.astray.pop(node.name, None)
    for link in node.links.values():
        link.server = None


def _flush(fleet: Fleet) -> None:
    fleet.cluster.primary.flush()


def _evict_set(fleet: Fleet) -> None:
    fleet.cluster.primary.evict(log=False)


def _evict_log(fleet: Fleet) -> None:
    fleet.cluster.primary.evict(log=True)


def _trim(fleet: Fleet) -> None:
    fleet.cluster.primary.trim()


def _restart(fleet: Fleet) -> None:
    """The primary restarts with what it saved: everything, what it had some time ago, or nothing."""
    server, what = fleet.cluster.primary, fleet.random.choice(["all", "some", "nothing"])
    saved = server.data.copy() if what == "some" else None

    def die() -> None:
        if server is fleet.cluster.primary and server.is_up:
            server.is_up = False
            server.break_connections()
            fleet.later(live)

    def live() -> None:
        if server is fleet.cluster.primary and not server.is_up:
            server.is_up = True
            if what != "all":
                server.data = saved or type(server.data)()
                fleet.cluster.resync()
                fleet.cluster.on_loss()

    fleet.later(die)


def _fill(fleet: Fleet) -> None:
    server = fleet.cluster.primary
    server.is_full = True
    fleet.later(setattr, server, "is_full", False)


def _break_disk(fleet: Fleet) -> None:
    disk = fleet.random.choice(fleet.disks)
    disk.mode = fleet.random.choice(["refuses", "fails late", "unreadable"])
    fleet.later(setattr, disk, "mode", "well")


def _set_clock(fleet: Fleet) -> None:
    clocks: list[Node | Server] = [*fleet.nodes, *fleet.cluster.servers]
    who = fleet.random.choice(clocks)
    who.skew = fleet.random.uniform(-SKEW, SKEW)


def _leap(fleet: Fleet) -> None:
    """Minutes pass, in which nothing else happens."""
    fleet.world.leapt += fleet.random.choice([30, 200, 400, 700, 1500])


def _rotate(fleet: Fleet) -> None:
    fleet.rotate()


FAULTS: dict[str, Callable[[Fleet], None]] = {
    "crash": _crash,
    "crash between write and answer": _crash_between,
    "loss": _loss,
    "delay": _delay,
    "partition": _partition,
    "frozen primary": _freeze,
    "fail-over": _fail_over,
    "isolated primary": _isolate,
    "replication lag": _lag,
    "sent to a replica": _stray,
    "flush": _flush,
    "evicted set": _evict_set,
    "evicted log": _evict_log,
    "trimmed log": _trim,
    "restart of the store": _restart,
    "full store": _fill,
    "broken journal": _break_disk,
    "clock set": _set_clock,
    "time passes": _leap,
    "rotation of the secret": _rotate,
}
