"""Three nodes that change and read the same keys while their links and their store fail: in the end all agree."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from random import Random
from typing import Any

import pytest

from oidc_middleware.cache import TYPES, HybridBackend, MemoryBackend, RedisBackend, SealedBackend, Sealer
from oidc_middleware.errors import BackendUnavailable

from redis_kit import CLOCK, PATIENCE, Proxy, RedisServer, end, proxy_of, until

pytestmark = pytest.mark.anyio

GENERAL, SESSION = TYPES["general"], TYPES["session"]
KEYS = [b"%d" % number for number in range(8)]
STEPS = 400
AGREED = 15.0
"""Seconds in which nodes agree again; memory alone would take 60."""
CALM, FAULTS = 30, 1
"""How often nothing fails for each time that something does."""


class Node:
    """A node that reaches the store through a link of its own."""

    def __init__(self, proxy: Proxy, *, is_sealed: bool) -> None:
        self.proxy = proxy
        redis = RedisBackend(proxy.url, clock=CLOCK)
        shared = SealedBackend(redis, Sealer(["s" * 32], "app"), CLOCK) if is_sealed else redis
        self.backend = HybridBackend(MemoryBackend(CLOCK), shared, clock=CLOCK)

    async def act(self, random: Random) -> None:
        """Do something that a request does; that it fails is no failure."""
        key = random.choice(KEYS)
        acts: list[Callable[[], Any]] = [
            lambda: self.backend.get(GENERAL, key),
            lambda: self.backend.get_many(GENERAL, KEYS),
            lambda: self.backend.set(GENERAL, key, random.randbytes(4), end(), wait=random.random() < 0.3),
            lambda: self.backend.add(GENERAL, key, random.randbytes(4), end()),
            lambda: self.backend.delete(GENERAL, key),
        ]
        with suppress(BackendUnavailable):
            await random.choices(acts, [10, 5, 10, 2, 4])[0]()


@pytest.fixture(params=[False, True], ids=["plain", "sealed"])
async def nodes(request: pytest.FixtureRequest, redis_server: RedisServer) -> AsyncIterator[list[Node]]:
    async with AsyncExitStack() as stack:
        nodes = []
        for _ in range(3):
            node = Node(await stack.enter_async_context(proxy_of(redis_server)), is_sealed=request.param)
            stack.push_async_callback(node.backend.close)
            node.backend.start()
            nodes.append(node)
        yield nodes


async def fail(random: Random, node: Node, server: RedisServer) -> None:
    """Let something fail, and be well again after a while."""
    fault = random.choice(["cut", "flush", "trim", "swallow", "restart", "refuse"])
    match fault:
        case "cut":
            await node.proxy.cut()
        case "flush":
            server.admin.flushall()
        case "trim":
            server.admin.xtrim("oidc:{log}:changes", maxlen=0)
        case "restart":
            server.restart()
        case "swallow":
            node.proxy.swallow = random.random() < 0.5
        case "refuse":
            node.proxy.refuse = random.random() < 0.5
            await node.proxy.cut()


@pytest.mark.parametrize("seed", range(4))
async def test_all_agree_in_the_end(nodes: list[Node], redis_server: RedisServer, seed: int) -> None:
    random = Random(seed)
    calls: set[asyncio.Task[None]] = set()
    for _ in range(STEPS):
        node = random.choice(nodes)
        if random.choices([True, False], [FAULTS, CALM])[0]:
            await fail(random, node, redis_server)
        call = asyncio.create_task(node.act(random))
        calls.add(call)
        call.add_done_callback(calls.discard)
        await asyncio.sleep(random.choice([0, 0, 0.002]))
    for node in nodes:
        node.proxy.swallow = node.proxy.refuse = False
    if calls:
        await asyncio.wait(calls)
    await all_well(nodes)
    async with asyncio.timeout(AGREED):
        while not await agree(nodes):  # noqa: ASYNC110  no event says so
            await asyncio.sleep(0.01)


async def all_well(nodes: list[Node]) -> None:
    """Wait until every node reaches the store, has made up for what it missed, and follows the others."""
    for node in nodes:
        async with asyncio.timeout(PATIENCE):
            while not await node.backend.check():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await until(lambda node=node: node.backend.overview().queued == 0)
        await until(lambda node=node: (node.backend.overview().staleness or 9) < 1)


async def agree(nodes: list[Node]) -> bool:
    """Tell whether all nodes have the same entries, which are those of the store."""
    first, *others = [await node.backend.get_many(GENERAL, KEYS) for node in nodes]
    shared = await nodes[0].backend._tiers.shared.get_many(GENERAL, KEYS)
    return all(other == first for other in others) and first == shared
