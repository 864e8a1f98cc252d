"""What is known of a cluster's slots, and when its nodes are asked anew."""

from __future__ import annotations

import asyncio
from asyncio import Task
from collections.abc import Callable, Sequence
from contextvars import Context
from functools import partial
from random import shuffle

from oidc_middleware.cache.redis.link import Connect, ask_once
from oidc_middleware.cache.redis.seeds import first_answer
from oidc_middleware.cache.redis.slots import SlotMap, read_slots
from oidc_middleware.cache.redis.urls import Address
from oidc_middleware.cache.redis.wire import command
from oidc_middleware.cache.waiters import closed
from oidc_middleware.errors import BackendUnavailable

_QUESTION = command(b"CLUSTER", b"SLOTS")
_PAUSE = 0.25
"""Seconds between two questions at least, once something is known."""


class Topology:
    """The newest map of the slots, kept over one event loop.

    It is asked for when it is first needed, and anew in the background after a `doubt`: of all nodes that are known and
    of the `seeds`, in any order. The one that was doubted comes last, for it may be cut off from the others.
    """

    def __init__(self, seeds: Sequence[Address], connect_to: Callable[[Address], Connect], budget: float) -> None:
        self.map: SlotMap | None = None
        """None: nobody was asked yet, or nobody answered."""
        self.refreshes: int = 0
        """How often it was asked for."""
        self._seeds = seeds
        self._connect_to = connect_to
        self._budget = budget
        self._loop = asyncio.get_running_loop()
        self._task: Task[SlotMap] | None = None
        self._next = 0.0

    async def known(self) -> SlotMap:
        """Return the map; wait for it if there is none yet.

        Raises:
            BackendUnavailable: nobody knows it; after `aclose`.
        """
        if self.map is not None:
            return self.map
        task = self._refresh()
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise closed() from None
            raise

    def doubt(self, address: Address | None = None) -> None:
        """Ask anew soon: a node failed, or another one than expected has a slot."""
        if self.map is not None and self._loop.time() >= self._next:
            self._refresh(address)

    def move(self, slot: int, address: Address) -> None:
        """Note where a slot is now, and ask for the others."""
        if self.map is not None:
            self.map.assign(slot, address)
        self.doubt()

    async def aclose(self) -> None:
        """Ask no more."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    def _refresh(self, last: Address | None = None) -> Task[SlotMap]:
        if self._task is None or self._task.done():
            self._next = self._loop.time() + _PAUSE
            self.refreshes += 1
            self._task = self._loop.create_task(self._ask_around(last), context=Context())
            self._task.add_done_callback(_look_at)
        return self._task

    async def _ask_around(self, last: Address | None) -> SlotMap:
        nodes = list(dict.fromkeys((*(self.map.nodes if self.map else ()), *self._seeds)))
        shuffle(nodes)
        nodes.sort(key=lambda node: node == last)
        try:
            async with asyncio.timeout(self._budget):
                asks = [partial(self._ask, node) for node in nodes]
                self.map = await first_answer(asks, self._budget / (len(asks) + 1))
        except TimeoutError:
            raise BackendUnavailable("no node of the cluster answers", "timeout") from None
        return self.map

    async def _ask(self, node: Address) -> SlotMap:
        (reply,) = await ask_once(self._connect_to(node), _QUESTION)
        if isinstance(reply, BackendUnavailable):
            raise reply
        found = read_slots(reply, node)
        if found is None:
            raise BackendUnavailable(f"the node {node} knows of no slots", "busy")
        return found


def _look_at(task: Task[SlotMap]) -> None:
    """Let nobody report a failure that nobody waited for."""
    if not task.cancelled():
        task.exception()
