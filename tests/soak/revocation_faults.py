"""What is done to the store, the links and the nodes of the soak of revocations."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from random import Random
from signal import SIGCONT, SIGSTOP
from time import monotonic
from typing import TYPE_CHECKING, Any

from revocation_promises import Blackout, Promises, Span

from redis_kit import RedisServer, free_port

if TYPE_CHECKING:
    from revocations import Node

LONGEST_SKEW = 120.0
_JUNK = 64
_DISTANCES = ((0.0, 0.0), (0.0, 0.0), (0.01, 0.01), (0.0, 0.1))
"""Seconds to the store and back: so near that within a budget a connection is made and a question answered."""

Fault = Callable[[float], Awaitable[None]]


class Faults:
    """Two at a time at most: one of the store, and one of a link or a node; besides them, one node may be cut off."""

    def __init__(self, server: RedisServer, nodes: list[Node], promises: Promises, seed: str) -> None:
        self.server = server
        self.nodes = nodes
        self.promises = promises
        # Each has its own, so that the same is chosen in the same order, whatever takes how long.
        self.of_store, self.of_others, self.of_partition, self.of_links = (Random(f"{seed}-{n}") for n in range(4))
        self.done: Counter[str] = Counter()
        self._cut_off: Node | None = None
        self._bags: dict[str, list[Fault]] = {}

    async def harm(self, seconds: float, *, loses: bool, frozen: float = 0.0, cut_off: float = 0.0) -> None:
        """Do harm for so many seconds; first freeze the store, and meanwhile cut a node off, for as long as is said.

        Where the store loses nothing, nobody writes anything back: what failed must be repeated.
        """
        end = monotonic() + seconds
        for node in self.nodes:
            node.proxy.to_server, node.proxy.to_client = self.of_links.choice(_DISTANCES)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._store(end, frozen, loses=loses))
            if cut_off:
                group.create_task(self._partition(cut_off))
            group.create_task(self._others(end))
        for node in self.nodes:
            node.proxy.to_server = node.proxy.to_client = 0.0

    async def _store(self, end: float, frozen: float, *, loses: bool) -> None:
        if frozen:
            await self._do(self.freeze, frozen)
        keeping = [
            self.kill_and_keep,
            self.freeze,
            self.fill,
            self.read_only,
            self.without_replicas,
            self.password,
        ]
        losing = [
            self.kill_and_lose,
            self.flush,
            self.delete_set,
            self.delete_stream,
            self.evict,
        ]
        name, faults = ("losing", [*keeping, *losing]) if loses else ("keeping", keeping)
        await self._repeat(name, self.of_store, faults, end, pauses=5.0)

    async def _others(self, end: float) -> None:
        faults = [
            self.cut,
            self.cut_all,
            self.delay,
            self.half_open,
            self.refuse,
            self.freeze_node,
            self.kill_node,
            self.kill_node,
            self.restart_node,
            self.skew,
        ]
        await self._repeat("others", self.of_others, faults, end, pauses=2.0)

    async def _repeat(self, name: str, random: Random, faults: Sequence[Fault], end: float, *, pauses: float) -> None:
        """Do all of these in random order, again and again, for random times and after random pauses."""
        bag = self._bags.setdefault(name, [])
        while (left := end - monotonic()) > 0:
            await asyncio.sleep(min(left, random.uniform(0.0, pauses)))
            if not bag:
                bag += random.sample(faults, len(faults))
            await self._do(bag.pop(), random.uniform(0.05, 3.0))

    async def _do(self, fault: Fault, seconds: float) -> None:
        self.done[fault.__name__] += 1
        await fault(seconds)

    # ---------------------------------------------------------------------------------------------------- the promises

    @contextlib.contextmanager
    def _loss(self) -> Iterator[None]:
        """The store may lose everything meanwhile."""
        loss = Span(monotonic())
        self.promises.losses.append(loss)
        yield
        loss.end = monotonic()

    @contextlib.contextmanager
    def _blackout(self, *nodes: Node, hides: bool = True) -> Iterator[None]:
        """Some nodes, or all, cannot write meanwhile, and learn nothing."""
        blackout = Blackout(monotonic(), nodes=frozenset(node.number for node in nodes or self.nodes), hides=hides)
        self.promises.blackouts.append(blackout)
        yield
        blackout.end = monotonic()

    async def _admin(self, *words: Any) -> Any:
        return await asyncio.to_thread(self.server.admin.execute_command, *words)

    # ------------------------------------------------------------------------------------------------------- the store

    async def kill_and_lose(self, seconds: float) -> None:
        with self._loss():
            self.server.kill()
            with self._blackout():
                await asyncio.sleep(seconds)
            for left in ("appendonlydir", "appendonly.aof"):
                shutil.rmtree(self.server.directory / left, ignore_errors=True)
                (self.server.directory / left).unlink(missing_ok=True)
            await asyncio.to_thread(self.server.start)

    async def kill_and_keep(self, seconds: float) -> None:
        """Every write is in the file before it is answered."""
        self.server.kill()
        with self._blackout():
            await asyncio.sleep(seconds)
        await asyncio.to_thread(self.server.start)

    async def freeze(self, seconds: float) -> None:
        self.server.stop()
        with self._blackout():
            await asyncio.sleep(seconds)
        self.server.cont()

    async def flush(self, _: float) -> None:
        with self._loss():
            await self._admin("FLUSHALL")

    async def delete_set(self, _: float) -> None:
        with self._loss():
            await self._admin("UNLINK", "oidc:{log}:ledger")

    async def delete_stream(self, _: float) -> None:
        """Nothing is lost with it."""
        await self._admin("UNLINK", "oidc:{log}:revocations")

    async def evict(self, seconds: float) -> None:
        """Let whatever was not used for a while go, while others fill the memory."""
        with self._loss():
            used = (await asyncio.to_thread(self.server.admin.info, "memory"))["used_memory"]
            await self._admin("CONFIG", "SET", "maxmemory-policy", "allkeys-lru", "maxmemory", used + (1 << 20))
            end = monotonic() + seconds
            place = 0
            while place < _JUNK or monotonic() < end:
                await self._admin("SET", f"junk:{place % _JUNK}", b"x" * 65_536)
                place += 1
                await asyncio.sleep(0.01)
            await self._admin("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", 0)
            await self._admin("UNLINK", *(f"junk:{place}" for place in range(_JUNK)))

    async def fill(self, seconds: float) -> None:
        """Refuse writes for want of memory; who only reads is answered."""
        await self._admin("CONFIG", "SET", "maxmemory", 1)
        with self._blackout(hides=False):
            await asyncio.sleep(seconds)
        await self._admin("CONFIG", "SET", "maxmemory", 0)

    async def read_only(self, seconds: float) -> None:
        """Make it the replica of nobody."""
        await self._admin("REPLICAOF", "127.0.0.1", free_port())
        with self._blackout():
            await asyncio.sleep(seconds)
        await self._admin("REPLICAOF", "NO", "ONE")

    async def without_replicas(self, seconds: float) -> None:
        """Let it refuse writes, as a primary that may be alone on its side does."""
        await self._admin("CONFIG", "SET", "min-replicas-to-write", 1)
        with self._blackout():
            await asyncio.sleep(seconds)
        await self._admin("CONFIG", "SET", "min-replicas-to-write", 0)

    async def password(self, seconds: float) -> None:
        await self._admin("CONFIG", "SET", "requirepass", "changed")
        await self._admin("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with self._blackout():
            await asyncio.sleep(seconds)
        await self._admin("CONFIG", "SET", "requirepass", "")

    # ------------------------------------------------------------------------------------------------- links and nodes

    def _somebody(self) -> Node:
        return self.of_others.choice([node for node in self.nodes if node is not self._cut_off])

    async def _partition(self, seconds: float) -> None:
        """Cut one of three off, in one of two ways."""
        self._cut_off = self.of_partition.choice(self.nodes)
        await self._do(self.of_partition.choice((self.partition_half_open, self.partition)), seconds)
        self._cut_off = None

    async def partition(self, seconds: float) -> None:
        assert self._cut_off is not None
        async with self._refused(self._cut_off):
            await asyncio.sleep(seconds)

    async def partition_half_open(self, seconds: float) -> None:
        assert self._cut_off is not None
        async with self._swallowed(self._cut_off):
            await asyncio.sleep(seconds)

    async def refuse(self, seconds: float) -> None:
        async with self._refused(self._somebody()):
            await asyncio.sleep(seconds)

    async def half_open(self, seconds: float) -> None:
        async with self._swallowed(self._somebody()):
            await asyncio.sleep(seconds)

    @contextlib.asynccontextmanager
    async def _refused(self, node: Node) -> AsyncIterator[None]:
        node.proxy.refuse = True
        await node.proxy.cut()
        with self._blackout(node):
            yield
        node.proxy.refuse = False

    @contextlib.asynccontextmanager
    async def _swallowed(self, node: Node) -> AsyncIterator[None]:
        node.proxy.swallow = True
        with self._blackout(node):
            yield
        node.proxy.swallow = False
        await node.proxy.cut()

    async def cut(self, _: float) -> None:
        await self._somebody().proxy.cut()

    async def cut_all(self, _: float) -> None:
        for node in self.nodes:
            await node.proxy.cut()

    async def delay(self, seconds: float) -> None:
        """Delay all of a link, more than a call may take at times."""
        proxy = self._somebody().proxy
        before = proxy.to_server, proxy.to_client
        proxy.to_server = self.of_others.choice((0.0, 0.05, 0.15, 0.6))
        proxy.to_client = self.of_others.choice((0.02, 0.05, 0.15, 0.6))
        await asyncio.sleep(seconds)
        proxy.to_server, proxy.to_client = before

    async def freeze_node(self, seconds: float) -> None:
        node = self.of_others.choice(self.nodes)
        node.was_frozen = True
        node.signal(SIGSTOP)
        await asyncio.sleep(seconds)
        node.signal(SIGCONT)

    async def kill_node(self, _: float) -> None:
        await self.of_others.choice(self.nodes).crash()

    async def restart_node(self, _: float) -> None:
        await self.of_others.choice(self.nodes).restart()

    async def skew(self, _: float) -> None:
        """Set the clock of one node to another time; the others have the right one."""
        chosen = self.of_others.choice(self.nodes)
        for node in self.nodes:
            await node.set_clock(self.of_others.uniform(-LONGEST_SKEW, LONGEST_SKEW) if node is chosen else 0.0)
