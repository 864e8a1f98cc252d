"""Nodes over one store that fails in every way, for state machines: what they share."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import Task
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Literal, TypeVar

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from oidc_middleware.cache import HybridBackend, MemoryBackend
from oidc_middleware.errors import BackendUnavailable
from oidc_middleware.testing import ManualClock

from tier_kit import Tier, turns

NODES = st.sampled_from([0, 0, 1])
MODES = st.sampled_from(["well", "well", "down", "unacknowledged"])
HELD = st.sampled_from([("get_many",), ("set", "set_many"), ("delete",), ("add",), ("update",), ("clear",)])
NEVER = 1000.0


class FallibleNode:
    """A backend with a link of its own to the store."""

    def __init__(self, clock: ManualClock, store: MemoryBackend) -> None:
        self.tier = Tier(clock, store)
        self.backend = HybridBackend(
            MemoryBackend(clock), self.tier, clock=clock, budget=NEVER, queue_size=4, random=lambda: 1.0
        )


N = TypeVar("N", bound=FallibleNode)


class FallibleNodes(RuleBasedStateMachine, Generic[N]):
    """Calls are begun and left to themselves, so that any number of them may be under way when the next step comes."""

    def __init__(self, new_node: Callable[[ManualClock, MemoryBackend], N]) -> None:
        super().__init__()
        self.clock = ManualClock(now=1_000_000.0)
        self.runner = asyncio.Runner()
        self.store = MemoryBackend(self.clock)
        self.nodes = [new_node(self.clock, self.store) for _ in range(2)]
        self.tasks: list[Task[None]] = []

    def teardown(self) -> None:
        for node in self.nodes:
            node.tier.heal()
            self.runner.run(node.backend.close())
        self.runner.run(self.finish())
        self.runner.close()
        self.no_call_broke()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin a call, so far as it goes at once."""

        async def start() -> None:
            self.tasks.append(asyncio.create_task(work))
            await asyncio.sleep(0)

        self.runner.run(start())

    async def finish(self) -> None:
        if self.tasks:
            await asyncio.wait(self.tasks)

    # ---------------------------------------------------------------------------------------------------------- faults

    @rule(node=NODES, reads=st.sampled_from(["well", "down"]), writes=MODES, pings=st.booleans())
    def change_the_link(
        self, node: int, reads: Literal["well", "down"], writes: Literal["well", "down", "unacknowledged"], pings: bool
    ) -> None:
        tier = self.nodes[node].tier
        tier.reads, tier.writes, tier.pings = reads, writes, pings

    @rule(node=NODES, operations=HELD)
    def hold(self, node: int, operations: tuple[str, ...]) -> None:
        self.nodes[node].tier.hold(*operations)

    @rule(node=NODES)
    def release(self, node: int) -> None:
        self.nodes[node].tier.release()
        self.runner.run(turns())

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(count=st.sampled_from([1, 3, 20]))
    def the_loop_turns(self, count: int) -> None:
        self.runner.run(turns(count))

    @rule(node=NODES)
    def look_after_it(self, node: int) -> None:
        self.begin(self._check(self.nodes[node]))

    async def _check(self, node: FallibleNode) -> None:
        with contextlib.suppress(BackendUnavailable):  # the end of the run ends it
            await node.backend.check()

    def heal(self) -> None:
        """Make all well, and wait until nothing is left to be put right."""
        for node in self.nodes:
            node.tier.heal()
        self.runner.run(self.recover())

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
