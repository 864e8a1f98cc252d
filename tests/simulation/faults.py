"""What may happen to a fleet: each fault is begun, and most end by themselves."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from simulation.network import LANES
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
    old, replica = fleet.cluster.primary, fleet.some_replica()
    if replica is None:
        return
    old.is_cut_off = True
    old.isolations += 1
    isolation = old.isolations
    pairs, lanes = _sides(fleet, old)
    fleet.network.cut |= pairs
    fleet.network.astray.update(dict.fromkeys(lanes, old))

    def end() -> None:
        fleet.network.cut -= pairs
        for lane in lanes:
            fleet.network.astray.pop(lane, None)
        if old.isolations == isolation:
            _rejoin(fleet, old)
            old.is_cut_off = False

    def promote() -> None:
        if fleet.cluster.primary is old and replica.master is old and old.isolations == isolation:
            fleet.cluster.promote(replica)
            for node in fleet.nodes:
                _switch(fleet, node, [lane for lane in LANES if (node.name, lane) not in lanes])
        fleet.later(end)

    fleet.later(promote)


def _switch(fleet: Fleet, node: Node, lanes: list[str]) -> None:
    """Tell a node that there is another primary now: most listen."""
    for lane in lanes:
        if lane in node.links and fleet.random.random() < 0.7:
            node.links[lane].server = None


def _sides(fleet: Fleet, old: Server) -> tuple[set[tuple[str, str]], list[tuple[str, str]]]:
    """Say who cannot reach whom, and which lanes stay with the old primary: of some nodes all, of others some."""
    stay = fleet.random.sample(fleet.nodes, fleet.random.randint(0, len(fleet.nodes)))
    pairs = {(node.name, server.name) for node in stay for server in fleet.cluster.servers if server is not old}
    lanes = [(node.name, lane) for node in stay for lane in LANES]
    for node in fleet.nodes:
        if node not in stay and fleet.random.random() < 0.5:
            pairs.add((node.name, old.name))
        elif node not in stay:
            lanes += [(node.name, lane) for lane in _some_lanes(fleet)]
    return pairs, lanes


def _lag(fleet: Fleet) -> None:
    for server in fleet.cluster.servers:
        server.lag = fleet.random.uniform(0.05, 3.0)
        fleet.later(setattr, server, "lag", 0.001)


def _stray(fleet: Fleet) -> None:
    """A node is sent to a replica, as an old answer of a name server would."""
    node, replica = fleet.some_node(), fleet.some_replica()
    if node is not None and replica is not None:
        lanes = _some_lanes(fleet)
        replica.lag = fleet.random.choice([replica.lag, fleet.random.uniform(0.05, 3.0)])
        for lane in lanes:
            fleet.network.astray[node.name, lane] = replica
            node.links[lane].server = None
        fleet.later(_find_back, fleet, node, lanes)


def _find_back(fleet: Fleet, node: Node, lanes: list[str]) -> None:
    for lane in lanes:
        fleet.network.astray.pop((node.name, lane), None)
        node.links[lane].server = None


def _some_lanes(fleet: Fleet) -> list[str]:
    return fleet.random.sample(LANES, fleet.random.randint(1, len(LANES)))


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
    disk.fail(fleet.random.choice(["refuses", "fails late", "unreadable"]))
    fleet.later(lambda: disk.mend(fleet.world.now))


def _set_clock(fleet: Fleet) -> None:
    clocks: list[Node | Server] = [*fleet.nodes, *fleet.cluster.servers]
    fleet.random.choice(clocks).skew = some_skew(fleet.random)


def _run_away(fleet: Fleet) -> None:
    """A clock is hours ahead, until somebody sets it right."""
    if node := fleet.some_node():
        node.is_ahead = fleet.random.uniform(600.0, 86_400.0)
        fleet.later(setattr, node, "is_ahead", 0.0)


def _set_back(fleet: Fleet) -> None:
    """All clocks of the store go back, so that the time says nothing about the order of ids."""
    for server in fleet.cluster.servers:
        server.skew = max(-SKEW, server.skew - 60.0)


def some_skew(random: Random) -> float:
    """Return how far a clock is ahead: a little, or a lot."""
    return random.choice([0.0, random.uniform(-2.0, 2.0), random.uniform(-SKEW, SKEW)])


def _leap(fleet: Fleet) -> None:
    """Minutes pass, in which nothing happens but that clocks are set right: what lasts for so long is believed."""
    for node in fleet.nodes:
        node.is_ahead = 0.0
    fleet.world.leapt_at = fleet.world.now
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
    "clock hours ahead": _run_away,
    "clocks of the store set back": _set_back,
    "time passes": _leap,
    "rotation of the secret": _rotate,
}
