"""A primary with replicas and sentinels, and a cluster: real servers, put together by their own commands."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import redis

from oidc_middleware.cache.redis.slots import SLOTS, key_slot

from redis_kit import LOOPBACK, PATIENCE, RedisServer, free_port, newest

SERVICE = "mymaster"
BUDGET = 1.0
"""Of backends over several servers: one that is only late, on a busy machine, must not look like one that hangs."""
FAIL_OVER = 20.0
"""Seconds within which a new primary must be in use; it takes two or three, and elections that fail are repeated."""
_BUS = 10_000
_LAST_PORT = 65_535


def until_now(condition: Callable[[], object], what: str, seconds: float = 3 * PATIENCE) -> None:
    """Wait for a state that no event announces, and let nothing else run meanwhile."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.005)


class _Group:
    """Servers that start and end together."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        raise NotImplementedError

    def _run(self, server: RedisServer) -> RedisServer:
        self._stack.enter_context(server)
        return server


# ---------------------------------------------------------------------------------------------------------- sentinels


@dataclass
class Sentinel(RedisServer):
    """A sentinel; `lines` are its configuration, which it writes anew itself."""

    lines: list[str] = field(default_factory=list)

    def _arguments(self) -> list[str]:
        config = self.directory / "sentinel.conf"
        lines = [f"bind {LOOPBACK}", f"port {self.port}", f"unixsocket {self.socket}", f"dir {self.directory}"]
        config.write_text("\n".join([*lines, *self.lines]) + "\n")
        return [str(config), "--sentinel"]


class SentinelGroup(_Group):
    """A primary with two replicas, and three sentinels that replace it two or three seconds after it has gone."""

    def __init__(self, kind: str | None = None) -> None:
        super().__init__()
        self._kind = kind or newest()
        self.data: list[RedisServer] = []
        self.sentinels: list[RedisServer] = []

    def _start(self) -> None:
        options = {"repl-diskless-sync": "yes", "repl-diskless-sync-delay": "0"}
        self.data = [self._run(RedisServer(self._kind, dict(options))) for _ in range(3)]
        first, *replicas = self.data
        for replica in replicas:
            replica.admin.replicaof(LOOPBACK, first.port)
        until_now(lambda: first.admin.info("replication")["connected_slaves"] == 2, "the replicas do not come")
        self.sentinels = [self.new_sentinel(first) for _ in range(3)]
        until_now(lambda: all(map(_knows_all, self.sentinels)), "the sentinels do not find each other")

    def new_sentinel(self, primary: RedisServer, quorum: int = 2, down_after: int = 1000) -> RedisServer:
        """Start a sentinel that takes a server for the primary."""
        lines = [
            f"sentinel monitor {SERVICE} {LOOPBACK} {primary.port} {quorum}",
            f"sentinel down-after-milliseconds {SERVICE} {down_after}",
            f"sentinel failover-timeout {SERVICE} 3000",
        ]
        return self._run(Sentinel(self._kind, lines=lines))

    @property
    def primary(self) -> RedisServer:
        """The server that the first sentinel names, whether it lives or not."""
        _, port = self.sentinels[0].admin.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return next(server for server in self.data if server.port == int(port))

    @property
    def replicas(self) -> list[RedisServer]:
        """The others that live."""
        primary = self.primary
        return [server for server in self.data if server is not primary and server.is_running]

    def flush(self) -> None:
        """Empty the primary."""
        self.primary.admin.flushall()

    def url(self, *sentinels: RedisServer, login: str = "", options: str = "") -> str:
        """Return the URL by way of these sentinels, of all if none is named."""
        hosts = ",".join(f"{LOOPBACK}:{sentinel.port}" for sentinel in sentinels or self.sentinels)
        return f"redis+sentinel://{login}{hosts}/{SERVICE}/0{options}"


def _knows_all(sentinel: RedisServer) -> bool:
    state = sentinel.admin.sentinel_master(SERVICE)
    return (state["num-slaves"], state["num-other-sentinels"]) == (2, 2)


# ------------------------------------------------------------------------------------------------------------ cluster


class ClusterGroup(_Group):
    """A cluster of three primaries, each with a replica that takes its place a second or two after it has gone."""

    def __init__(self, kind: str | None = None, *, replicas: int = 1, options: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._kind = kind or newest()
        self._replicas = replicas
        self._options = {"cluster-require-full-coverage": "no", **(options or {})}
        self.servers: list[RedisServer] = []

    def _start(self) -> None:
        self.servers = [self._run(self._new_node()) for _ in range(3 * (1 + self._replicas))]
        primaries = self.servers[:3]
        for number, server in enumerate(primaries):
            slots = range(SLOTS * number // 3, SLOTS * (number + 1) // 3)
            _say(server, "SET-CONFIG-EPOCH", number + 1)
            _say(server, "ADDSLOTS", *slots)
        for server in self.servers:
            for other in self.servers:
                _say(server, "MEET", LOOPBACK, other.port)
        until_now(lambda: all(map(self._knows_all, self.servers)), "the nodes do not find each other")
        for number, replica in enumerate(self.servers[3:]):
            _replicate(replica, primaries[number % 3])
        self.until_well()

    def _knows_all(self, server: RedisServer) -> bool:
        return _state(server)["cluster_known_nodes"] == str(len(self.servers))

    def _new_node(self) -> RedisServer:
        options = {
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": "1000",
            "cluster-announce-ip": LOOPBACK,
            "repl-ping-replica-period": "1",  # a replica is named when it has heard one
            "repl-diskless-sync": "yes",
            "repl-diskless-sync-delay": "0",
            **self._options,
        }
        return RedisServer(self._kind, options, _port_with_a_bus())

    # ------------------------------------------------------------------------------------------------------ what it is

    @property
    def alive(self) -> list[RedisServer]:
        """The nodes that run."""
        return [server for server in self.servers if server.is_running]

    def owner(self, key: bytes) -> RedisServer:
        """Return the primary of a key, as the first node that runs knows it."""
        return self.owner_of(key_slot(key))

    @property
    def primaries(self) -> list[RedisServer]:
        """The primaries, as the first node that runs knows them."""
        return [self.at(port) for port in sorted({ports[0] for _, _, ports in _slots(self.alive[0])})]

    def owner_of(self, slot: int) -> RedisServer:
        """Return the primary of a slot, as the first node that runs knows it."""
        port = next(ports[0] for first, last, ports in _slots(self.alive[0]) if first <= slot <= last)
        return self.at(port)

    def replica_of(self, primary: RedisServer) -> RedisServer:
        """Return the replica of a primary."""
        ports = next(ports for _, _, ports in _slots(primary) if ports[0] == primary.port)
        return self.at(ports[1])

    def at(self, port: int) -> RedisServer:
        """Return the node with a port."""
        return next(server for server in self.servers if server.port == port)

    def url(self, *seeds: RedisServer, login: str = "", options: str = "") -> str:
        """Return the URL by way of these nodes, of the first three if none is named."""
        hosts = ",".join(f"{LOOPBACK}:{seed.port}" for seed in seeds or self.servers[:3])
        return f"redis+cluster://{login}{hosts}{options}"

    def key_of(self, server: RedisServer, stem: bytes = b"k", prefix: bytes = b"oidc:token:") -> bytes:
        """Return a key, without the prefix, that a primary has."""
        return next(key for n in range(1000) if self.owner(prefix + (key := stem + b"%d" % n)) is server)

    # ---------------------------------------------------------------------------------------------------- what happens

    def flush(self) -> None:
        """Empty every primary."""
        for server in self.alive:
            if server.admin.info("replication")["role"] == "master":
                server.admin.flushall()

    def until_well(self) -> None:
        """Wait until all that run agree about who has what, and every replica has its copy."""
        until_now(self._is_well, "the cluster does not become well")

    def _is_well(self) -> bool:
        alive = self.alive
        maps = [_slots(server) for server in alive]
        return (
            all(found == maps[0] for found in maps)
            and all(_state(server)["cluster_state"] == "ok" for server in alive)
            and all(_has_its_copy(server) for server in alive)
            and all(len(ports) == 1 + self._replicas for _, _, ports in maps[0])
        )

    def fail_over(self, primary: RedisServer) -> RedisServer:
        """Have a primary change places with its replica, which needs no election for it; return that."""
        replica = self.replica_of(primary)
        primary.admin.wait(1, int(PATIENCE * 1000))
        _say(replica, "FAILOVER", "TAKEOVER")
        until_now(lambda: primary.admin.info("replication")["role"] == "slave", "no fail-over")
        self.until_well()
        return replica

    def begin_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Begin to move a slot: from now on the source sends whoever asks for a key that is gone to the target."""
        _say(target, "SETSLOT", slot, "IMPORTING", _id(source))
        _say(source, "SETSLOT", slot, "MIGRATING", _id(target))

    def move_keys(self, slot: int, source: RedisServer, target: RedisServer, count: int = 1000) -> int:
        """Move some keys of a slot; return how many."""
        keys = _say(source, "GETKEYSINSLOT", slot, count)
        if keys:
            source.admin.execute_command("MIGRATE", LOOPBACK, target.port, "", 0, 5000, "KEYS", *keys)
        return len(keys)

    def end_move(self, slot: int, target: RedisServer) -> None:
        """Tell every primary where the slot is now."""
        for server in (target, *self.alive):
            if server.admin.info("replication")["role"] == "master":
                _say(server, "SETSLOT", slot, "NODE", _id(target))
        self.until_well()


def _say(server: RedisServer, *words: str | int) -> Any:
    return server.admin.execute_command("CLUSTER", *words)


def _id(server: RedisServer) -> str:
    found = _say(server, "MYID")
    return found.decode() if isinstance(found, bytes) else str(found)


def _state(server: RedisServer) -> dict[str, str]:
    text = _say(server, "INFO")
    lines = (text.decode() if isinstance(text, bytes) else str(text)).split()
    return dict(line.partition(":")[::2] for line in lines)


def _slots(server: RedisServer) -> list[tuple[int, int, tuple[int, ...]]]:
    """Return first slot, last slot and the ports of those who have them, primary first, as a node knows it."""
    return sorted(
        (first, last, (primary[1], *sorted(replica[1] for replica in replicas)))
        for first, last, primary, *replicas in _say(server, "SLOTS")
    )


def _replicate(replica: RedisServer, primary: RedisServer) -> None:
    """Make a node a replica as soon as it knows the primary."""

    def did() -> bool:
        with contextlib.suppress(redis.ResponseError):
            _say(replica, "REPLICATE", _id(primary))
            return True
        return False

    until_now(did, "a replica does not know its primary")


def _has_its_copy(server: RedisServer) -> bool:
    replication = server.admin.info("replication")
    return bool(replication["role"] == "master" or replication["master_link_status"] == "up")


def _port_with_a_bus() -> int:
    """Return a free port whose fellow for the cluster's own talk is free too."""
    while True:
        port = free_port()
        if port + _BUS <= _LAST_PORT:
            with contextlib.suppress(OSError), socket.socket() as probe:
                probe.bind((LOOPBACK, port + _BUS))
                return port
