"""Redis as the ledger sees it: servers, one of them the primary, the others some milliseconds behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from zlib import crc32

from oidc_middleware.core.ledger.records import LogEntry, Position, Record

from simulation.data import Data, Member, Write, record_of
from simulation.world import World

MOST_ENTRIES = 20


class Refused(Exception):
    """The server answers that it does not do this."""


class Server:
    """One process, with or without the role of a primary. `master` is whom a replica follows."""

    def __init__(self, world: World, name: str, cluster: Cluster) -> None:
        self.world = world
        self.name = name
        self.cluster = cluster
        self.data = Data()
        self.is_up = True
        self.is_full = False
        self.is_cut_off = False
        """From replicas, and so from taking writes where these are demanded."""
        self.isolations = 0
        self.syncs = 0
        """How often it began to follow somebody, or ceased to."""
        self.frozen_until = 0.0
        self.skew = 0.0
        self.lag = 0.001
        self.master: Server | None = None
        self.life = 0
        """Moves whenever connections to it break."""
        self.waiting: list[tuple[bytes, Callable[[list[LogEntry] | None], None]]] = []
        self._salt = world.random.randrange(1 << 32)
        self._slots: dict[Member, int] = {}
        self._applies_at = 0.0

    # ------------------------------------------------------------------------------------------------------ commands

    def look(self) -> Position:
        """Return where the log is, if a write would be taken."""
        self._must_take_writes()
        place, is_new = self.data.found(self.cluster.new_epoch)
        if is_new:
            self._change(Write(place, drops_log=True))
        return place

    def write(self, records: Sequence[Record]) -> Position:
        """Join records with what is there."""
        self._must_take_writes()
        if self.is_full:
            raise Refused("OOM")
        write = self.data.join(records, self.world.wall(self.skew), self.cluster.new_epoch, self.cluster.new_tail())
        self._change(write)
        self.cluster.on_write(records)
        assert write.place is not None
        return write.place

    def scan(self, cursor: bytes) -> tuple[list[Record], bytes, Position]:
        """Return a part of all records, in an order of this server's own."""
        place, is_new = self.data.found(self.cluster.new_epoch)
        if is_new:
            self._must_take_writes()
            self._change(Write(place, drops_log=True))
        start = int(cursor or b"-1")
        order = sorted((self._slot(member), member) for member in self.data.ends)
        rest = [(slot, member) for slot, member in order if slot > start]
        most = self.cluster.page
        page = [record_of(member, self.data.ends[member]) for _, member in rest[:most]]
        return page, b"%d" % rest[most - 1][0] if len(rest) > most else b"", place

    def read(self, after: Position) -> list[LogEntry]:
        """Return what was logged after a place, if anything."""
        return self.data.after(after.last_id, MOST_ENTRIES)

    # --------------------------------------------------------------------------------------------------------- faults

    def flush(self) -> None:
        """Lose everything."""
        self._change(Write(drops_set=True, drops_log=True))

    def evict(self, *, log: bool) -> None:
        """Lose one of both keys."""
        self._change(Write(drops_set=not log, drops_log=log))

    def trim(self) -> None:
        """Lose the beginning of the log."""
        if self.data.log:
            self._change(Write(keeps=1))

    def break_connections(self) -> None:
        """Close all connections."""
        self.life += 1
        waiting, self.waiting = self.waiting, []
        for _, tell in waiting:
            tell(None)

    # ---------------------------------------------------------------------------------------------------- replication

    def receive(self, write: Write, syncs: int) -> None:
        """Apply what the primary did, unless this came to be another's replica since, or anew."""
        if self.syncs == syncs and self.is_up:
            self.data.apply(write)
            self._wake()

    def resync(self, master: Server) -> None:
        """Become a replica with all that the primary has."""
        self.master = master
        self.syncs += 1
        self.data = master.data.copy()

    def _change(self, write: Write) -> None:
        self.data.apply(write)
        world = self.world
        for replica in self.cluster.servers:
            if replica.master is self and not self.is_cut_off:
                replica._applies_at = max(replica._applies_at + 1e-6, world.now + replica.lag)
                world.after(replica._applies_at - world.now, replica.receive, write, replica.syncs)
        self.cluster.changed(self, write)
        self._wake()

    def _wake(self) -> None:
        for item in list(self.waiting):
            if entries := self.data.after(item[0], MOST_ENTRIES):
                self.waiting.remove(item)
                item[1](entries)

    def _must_take_writes(self) -> None:
        if self.master is not None:
            raise Refused("READONLY")
        if self.is_cut_off and self.cluster.demands_replicas:
            raise Refused("NOREPLICAS")

    def _slot(self, member: Member) -> int:
        slot = self._slots.get(member)
        if slot is None:
            text = repr(member).encode()
            slot = self._slots[member] = crc32(text, self._salt) << 32 | crc32(text)
        return slot


class Cluster:
    """All servers, and which of them is the primary by everybody's agreement.

    `demands_replicas` stands for `min-replicas-to-write`: whoever is cut off takes no writes, and nobody is promoted
    before that is so.
    """

    def __init__(self, world: World, replicas: int, *, demands_replicas: bool) -> None:
        self.world = world
        self.demands_replicas = demands_replicas
        self.page = 4
        self.servers = [Server(world, f"redis-{number}", self) for number in range(replicas + 1)]
        self.primary = self.servers[0]
        for server in self.servers[1:]:
            server.master = self.primary
        self.on_change: Callable[[Write], None] = lambda _: None
        self.on_write: Callable[[Sequence[Record]], None] = lambda _: None
        self.on_loss: Callable[[], None] = lambda: None

    def new_epoch(self) -> bytes:
        """Return what no epoch was called before."""
        return _some(self.world.random, 4)

    def new_tail(self) -> bytes:
        """Return what makes an id unlike any other."""
        return _some(self.world.random, 4)

    def changed(self, server: Server, write: Write) -> None:
        """Tell of a change, if it is one of the primary's."""
        if server is self.primary:
            self.on_change(write)

    def promote(self, server: Server) -> None:
        """Make a replica the primary: what it has is all there is from now on."""
        server.master = None
        server.syncs += 1
        server.is_cut_off = False
        self.primary = server
        self.resync()
        self.on_loss()

    def resync(self) -> None:
        """Give all replicas what the primary has."""
        for other in self.servers:
            if other.master is not None:
                other.resync(self.primary)


def _some(random: Random, length: int) -> bytes:
    return random.randbytes(length)
