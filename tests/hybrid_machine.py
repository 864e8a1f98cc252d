"""Nodes over one store that fails in every way, for state machines: what they share."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import Task
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from oidc_middleware.cache import CacheType, Entry, HybridBackend, MemoryBackend
from oidc_middleware.errors import BackendUnavailable, FailureKind
from oidc_middleware.testing import ManualClock

from tier_kit import Mode, Tier, turns

# Most of it happens on one node, so that it meets there.
NODES = st.sampled_from([0, 0, 0, 1, 2])
READS: st.SearchStrategy[Mode] = st.sampled_from(["well", "down"])
WRITES: st.SearchStrategy[Mode] = st.sampled_from(["well", "well", "down", "unacknowledged"])
HELD = st.sampled_from([("get_many",), ("set", "set_many"), ("delete",), ("add",), ("update",), ("clear",)])
FAILURES: st.SearchStrategy[FailureKind | Exception] = st.sampled_from(
    ["link", "link", "timeout", "readonly", "full", "auth", "busy", "refused", OSError("cut"), ValueError("a mistake")]
)
NEVER = 1000.0
# No type in use here lives longer in memory, in seconds.
LIFE_IN_MEMORY = 60.0
T = TypeVar("T")


class FallibleNode:
    """A backend with a link of its own to the store."""

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

    def hear(self, kind: CacheType, key: bytes | None) -> None:
        """Hear that another node changed a key, or that it changed any of a type: memory has nothing of it then."""
        if key is None:
            self.backend.invalidate_all(kind)
            assert self.backend.memory.stats()[kind.name].entries == 0
        else:
            self.backend.invalidate(kind, key)
            assert not self.backend.memory.holds(kind, key)


N = TypeVar("N", bound=FallibleNode)


class FallibleNodes(RuleBasedStateMachine, Generic[N]):
    """Calls are begun and left to themselves, so that any number of them may be under way when the next step comes."""

    def __init__(self, new_node: Callable[[ManualClock, MemoryBackend], N]) -> None:
        super().__init__()
        self.clock = ManualClock(now=1_000_000.0)
        self.runner = asyncio.Runner()
        self.store = MemoryBackend(self.clock)
        self.nodes = [new_node(self.clock, self.store) for _ in range(3)]
        self.tasks: list[Task[None]] = []
        self.ran_at = self.runs_at = self.clock.now()

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

    # ---------------------------------------------------------------------------------------------------------- faults

    @rule(node=NODES, reads=READS, writes=WRITES, pings=st.booleans(), failure=FAILURES)
    def change_the_link(
        self, node: int, reads: Mode, writes: Mode, pings: bool, failure: FailureKind | Exception
    ) -> None:
        tier = self.nodes[node].tier
        tier.reads, tier.writes, tier.pings, tier.failure = reads, writes, pings, failure

    @rule(node=NODES, operations=HELD, late=st.booleans())
    def hold(self, node: int, operations: tuple[str, ...], late: bool = False) -> None:
        self.nodes[node].tier.hold(*operations)
        self.nodes[node].tier.late = late

    @rule(node=NODES)
    def release(self, node: int) -> None:
        self.nodes[node].tier.release()
        self.run(turns())

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, LIFE_IN_MEMORY + 1]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(count=st.sampled_from([1, 3, 20]))
    def the_loop_turns(self, count: int) -> None:
        self.run(turns(count))

    @rule()
    def the_loop_ends(self) -> None:
        """Interrupt everything that runs where it stands; another loop takes over."""
        self.no_call_broke()
        self.tasks.clear()
        self.runner.close()
        for node in self.nodes:
            node.tier.release()
        self.runner = asyncio.Runner()

    @rule(node=NODES)
    def look_after_it(self, node: int) -> None:
        self.begin(self._check(self.nodes[node]))

    async def _check(self, node: FallibleNode) -> None:
        with contextlib.suppress(BackendUnavailable):  # the end of the run ends it
            await node.backend.check()

    # --------------------------------------------------------------------------------------------------------- healing

    def all_is_well_again(self) -> None:
        """Heal, and check what must be true then: it is a rule of every machine, and the end of every run."""
        raise NotImplementedError

    def heal(self) -> None:
        """Make all well, and wait until nothing is left to be put right: memory may differ for as long as it lives."""
        for node in self.nodes:
            node.tier.heal()
        self.run(self.recover())
        self.clock.advance(LIFE_IN_MEMORY + 1)

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

    def all_have(self, kind: CacheType, key: bytes) -> Entry | None:
        """Return what every node has of a key: what the store has."""
        stored = self.run(self.store.get(kind, key))
        for node in self.nodes:
            found = self.run(node.backend.get(kind, key))
            assert found == stored, f"a node has {found} of {key!r}, the store {stored}"
        return stored

    # ------------------------------------------------------------------------------------------------------ invariants

    @invariant()
    def no_call_broke(self) -> None:
        left = []
        for task in self.tasks:
            if task.done():
                task.result()
            else:
                left.append(task)
        self.tasks = left

    def has_not_ended(self, entry: Entry) -> None:
        """Check what a call returned; the answer may have been given when the loop stood still."""
        assert entry.expires_at > self.ran_at, f"{entry} is served after its end"
