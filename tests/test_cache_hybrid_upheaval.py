"""Three nodes over one store: nodes that begin anew, loops that end in the middle, a store that forgets, any failure.

Calls are begun and left to themselves, so that any number of them may be under way when the next step comes.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import Task
from collections import defaultdict
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from oidc_middleware.cache import TYPES, CacheType, Entry, HybridBackend, MemoryBackend
from oidc_middleware.cache.hybrid import backend as hybrid_module
from oidc_middleware.errors import BackendUnavailable, FailureKind
from oidc_middleware.testing.clock import ManualClock

from tier_kit import Mode, Tier, turns

GENERAL, TOKEN, SESSION = TYPES["general"], TYPES["token"], TYPES["session"]
NODES = st.sampled_from([0, 0, 0, 1, 2])
KINDS = st.sampled_from([GENERAL, TOKEN, SESSION])
BOTH = [b"a", b"b"]
KEYS = st.sampled_from([b"a", b"a", b"b"])
LIVES = st.sampled_from([-1.0, 0.5, 30.0, 5000.0, 5000.0, 5000.0])
MODES = st.sampled_from(["well", "well", "down", "unacknowledged"])
FAILURES: st.SearchStrategy[FailureKind | Exception] = st.sampled_from(
    ["link", "link", "timeout", "readonly", "full", "auth", "busy", "refused", OSError("cut"), ValueError("a mistake")]
)
NEVER = 1000.0
Known = tuple[str, bytes]
T = TypeVar("T")


@pytest.fixture(autouse=True, scope="module")
def _ends_come_soon() -> Iterator[None]:
    """Nobody waits 5 s for a store that hangs until the test lets it go on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hybrid_module, "_DRAIN", 0.005)
        yield


class Node:
    """A node, and what it must never serve again: what it had of a key before it changed it."""

    def __init__(self, clock: ManualClock, store: MemoryBackend) -> None:
        self.clock = clock
        self.tier = Tier(clock, store)
        self.backend: HybridBackend
        self.begin()

    def begin(self) -> None:
        """Begin as a node does that knows nothing of what was before."""
        self.backend = HybridBackend(
            MemoryBackend(self.clock), self.tier, clock=self.clock, budget=NEVER, queue_size=4, random=lambda: 1.0
        )
        self.had: defaultdict[Known, set[bytes]] = defaultdict(set)
        self.gone: defaultdict[Known, set[bytes]] = defaultdict(set)
        self.changes: defaultdict[Known, int] = defaultdict(int)

    def change(self, known: Known, value: bytes | None, *, ends_the_old: bool = True) -> None:
        if ends_the_old:
            self.gone[known] |= self.had.pop(known, set())
        if value is not None:
            self.had[known].add(value)
        self.changes[known] += 1

    def served(self, known: Known, value: bytes, gone: set[bytes], changes: int) -> None:
        assert value not in gone, f"{value!r} of {known} is served again"
        if changes == self.changes[known]:
            self.had[known].add(value)
        elif value not in self.had[known]:  # it was asked for before a change that ended it
            self.gone[known].add(value)


class NodesAndStore(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(now=1_000_000.0)
        self.runner = asyncio.Runner()
        self.store = MemoryBackend(self.clock)
        self.nodes = [Node(self.clock, self.store) for _ in range(3)]
        self.ends: dict[bytes, float] = {}
        self.tasks: list[Task[None]] = []
        self.ran_at = self.runs_at = self.clock.now()
        self.kind = GENERAL

    @initialize(kind=KINDS)
    def choose(self, kind: CacheType) -> None:
        """One run is about one type: types have nothing in common, and so faults meet more often."""
        self.kind = kind

    def teardown(self) -> None:
        try:
            self.all_is_well_again()
        finally:
            for node in self.nodes:
                node.tier.heal()
                self.run(node.backend.close())
            self.run(self.finish())
            self.runner.close()
        self.no_call_broke()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Let the loop go on until this is done, and note when it went on the time before."""
        self.ran_at, self.runs_at = self.runs_at, self.clock.now()
        return self.runner.run(work)

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin a call, so far as it goes at once."""

        async def start() -> None:
            self.tasks.append(asyncio.create_task(work))
            await asyncio.sleep(0)

        self.run(start())

    async def finish(self) -> None:
        if self.tasks:
            await asyncio.wait(self.tasks)

    def new_value(self, life: float) -> bytes:
        value = b"%d" % len(self.ends)
        self.ends[value] = self.clock.now() + life
        return value

    # ----------------------------------------------------------------------------------------------------------- calls

    @rule(node=NODES, key=KEYS)
    def get(self, node: int, key: bytes) -> None:
        self.begin(self._get(self.nodes[node], self.kind, [key]))

    @rule(node=NODES)
    def get_many(self, node: int) -> None:
        self.begin(self._get(self.nodes[node], self.kind, BOTH))

    async def _get(self, node: Node, kind: CacheType, keys: list[bytes]) -> None:
        backend = node.backend
        before = {key: (set(node.gone[kind.name, key]), node.changes[kind.name, key]) for key in keys}
        found: dict[bytes, Entry]
        try:
            if len(keys) == 1:
                entry = await backend.get(kind, keys[0])
                found = {} if entry is None else {keys[0]: entry}
            else:
                found = await backend.get_many(kind, keys)
        except BackendUnavailable:
            assert kind is SESSION or backend._closed
            return
        if node.backend is not backend:
            return
        for key, entry in found.items():
            assert entry.expires_at == self.ends[entry.value]
            assert entry.expires_at > self.ran_at, "an answer may have been given when the loop stood still"
            node.served((kind.name, key), entry.value, *before[key])

    @rule(node=NODES, key=KEYS, life=LIVES, wait=st.sampled_from([None, True, False]))
    def set(self, node: int, key: bytes, life: float, wait: bool | None) -> None:
        self.begin(self._set(self.nodes[node], self.kind, {key: self.new_value(life)}, wait))

    @rule(node=NODES, life=LIVES, wait=st.sampled_from([None, True, False]))
    def set_many(self, node: int, life: float, wait: bool | None) -> None:
        self.begin(self._set(self.nodes[node], self.kind, {key: self.new_value(life) for key in BOTH}, wait))

    async def _set(self, node: Node, kind: CacheType, values: dict[bytes, bytes], wait: bool | None) -> None:
        backend = node.backend
        for key, value in values.items():
            # A session that was changed while the store was away is again what it was there.
            node.change((kind.name, key), value, ends_the_old=kind is not SESSION)
        entries = {key: Entry(value, self.ends[value]) for key, value in values.items()}
        must_wait = kind is TOKEN if wait is None else wait
        try:
            if len(entries) == 1:
                ((key, entry),) = entries.items()
                await backend.set(kind, key, entry.value, entry.expires_at, wait)
            else:
                await backend.set_many(kind, entries, wait)
        except BackendUnavailable:
            assert must_wait or backend._closed

    @rule(node=NODES, key=KEYS, life=LIVES)
    def add(self, node: int, key: bytes, life: float) -> None:
        self.begin(self._add(self.nodes[node], self.kind, key, self.new_value(life)))

    async def _add(self, node: Node, kind: CacheType, key: bytes, value: bytes) -> None:
        with contextlib.suppress(BackendUnavailable):
            await node.backend.add(kind, key, value, self.ends[value])

    @rule(node=NODES, key=KEYS)
    def delete(self, node: int, key: bytes) -> None:
        self.begin(self._delete(self.nodes[node], self.kind, key))

    async def _delete(self, node: Node, kind: CacheType, key: bytes) -> None:
        backend = node.backend
        node.change((kind.name, key), None)
        try:
            await backend.delete(kind, key)
        except BackendUnavailable:
            assert kind is TOKEN or backend._closed

    @rule(node=NODES)
    def clear(self, node: int) -> None:
        self.begin(self._clear(self.nodes[node], self.kind))
        self.run(asyncio.sleep(0))

    async def _clear(self, node: Node, kind: CacheType) -> None:
        for key in BOTH:
            node.change((kind.name, key), None)
        with contextlib.suppress(BackendUnavailable):
            await node.backend.clear(kind)

    @rule(node=NODES, key=KEYS)
    def invalidate(self, node: int, key: bytes) -> None:
        async def invalidate() -> None:
            self.nodes[node].backend.invalidate(self.kind, key)

        self.run(invalidate())

    # ---------------------------------------------------------------------------------------------------------- faults

    @rule(node=NODES, reads=st.sampled_from(["well", "down"]), writes=MODES, pings=st.booleans(), failure=FAILURES)
    def change_the_link(
        self, node: int, reads: Mode, writes: Mode, pings: bool, failure: FailureKind | Exception
    ) -> None:
        tier = self.nodes[node].tier
        tier.reads, tier.writes, tier.pings, tier.failure = reads, writes, pings, failure

    @rule(node=NODES, upheaval=st.sampled_from(["the store forgets", "a node begins anew", "the loop ends"]))
    def all_is_different(self, node: int, upheaval: str) -> None:
        if upheaval == "the store forgets":
            self.run(self.store.clear(self.kind))
        elif upheaval == "a node begins anew":
            self.run(self._restart(self.nodes[node]))
        else:
            self._end_the_loop()

    async def _restart(self, node: Node) -> None:
        """Let a node end, whatever it has under way; what it still owed the store is forgotten."""
        await node.backend.close()
        node.begin()

    def _end_the_loop(self) -> None:
        """Interrupt everything that runs where it stands; another loop takes over."""
        self.no_call_broke()
        self.tasks.clear()
        self.runner.close()
        for node in self.nodes:
            node.tier.release()
        self.runner = asyncio.Runner()

    @rule(node=NODES, key=KEYS, life=LIVES, change=st.sampled_from(["delete", "set", "invalidate", "clear"]))
    def a_change_overtakes_a_read(self, node: int, key: bytes, life: float, change: str) -> None:
        """The answer of the store is under way when this node changes the key, or hears that another did."""
        self.hold(node, ("get_many",))
        self.get(node, key)
        self.run(turns())
        if change == "set":
            self.set(node, key, life, wait=False)
        elif change == "clear":
            self.clear(node)
        elif change == "delete":
            self.delete(node, key)
        else:
            self.invalidate(node, key)
        self.release(node)
        self.get(node, key)

    @rule(
        node=NODES, operations=st.sampled_from([("get_many",), ("set", "set_many"), ("delete",), ("add",), ("clear",)])
    )
    def hold(self, node: int, operations: tuple[str, ...]) -> None:
        self.nodes[node].tier.hold(*operations)

    @rule(node=NODES)
    def release(self, node: int) -> None:
        self.nodes[node].tier.release()
        self.run(turns())

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(count=st.sampled_from([1, 3, 20]))
    def the_loop_turns(self, count: int) -> None:
        self.run(turns(count))

    @rule(node=NODES)
    def look_after_it(self, node: int) -> None:
        self.begin(self._check(self.nodes[node]))

    async def _check(self, node: Node) -> None:
        with contextlib.suppress(BackendUnavailable):  # the end of the run ends it
            await node.backend.check()

    @rule()
    def all_is_well_again(self) -> None:
        """Afterwards memory differs from the store for as long as its life there at most."""
        for node in self.nodes:
            node.tier.heal()
        self.run(self.recover())
        self.clock.advance(61)
        for key in BOTH:
            stored = self.run(self.store.get(self.kind, key))
            for node in self.nodes:
                assert self.run(node.backend.get(self.kind, key)) == stored
                if stored is not None:
                    assert stored.value not in node.gone[self.kind.name, key]

    async def recover(self) -> None:
        await self.finish()
        for _ in range(10):
            self.clock.advance(2)
            if all([await node.backend.check() for node in self.nodes]):
                break
        else:
            raise AssertionError("the nodes do not recover")
        for node in self.nodes:
            assert not node.backend.fallback
            assert not node.backend._tiers.unsettled
            await turns()
            assert node.backend.overview().queued == 0
            assert len(node.backend._tiers.placeholders) == 0

    @invariant()
    def no_call_broke(self) -> None:
        left = []
        for task in self.tasks:
            if task.done():
                task.result()
            else:
                left.append(task)
        self.tasks = left


TestNodesAndStore = NodesAndStore.TestCase
TestNodesAndStore.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
