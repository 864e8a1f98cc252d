"""Three processes over one Redis that is killed, frozen, flushed, filled and cut off at random, and nothing is wrong.

`python tests/soak/soak.py --seconds 300 --seed 7`. Every half minute all is healed; then all nodes must be served the
same, and nothing that was ended. Exit code: 0 no violation, 1 some.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from signal import SIGCONT, SIGKILL, SIGSTOP
from time import monotonic
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from soak_node import KINDS, L1_LIFE, SECRET  # noqa: E402  the folders of both are named above

from oidc_middleware.cache import RedisBackend, SealedBackend, Sealer  # noqa: E402

from redis_kit import CLOCK, PATIENCE, Proxy, RedisServer  # noqa: E402

NODES = 3
PATIENT = 60.0
WINDOW = 25.0
CALM = 2.0


class Node:
    """A node's process and its own link to the store."""

    def __init__(self, number: int, proxy: Proxy, seed: str) -> None:
        self.number = number
        self.proxy = proxy
        self.starts = 0
        self._seed = seed
        self._process: Process | None = None

    async def start(self) -> None:
        """Start the process, for the first time or after a crash."""
        self.starts += 1
        script = str(Path(__file__).with_name("soak_node.py"))
        arguments = (self.proxy.url, str(self.number), f"{self._seed}-{self.number}-{self.starts}")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, script, *arguments, stdin=PIPE, stdout=PIPE, limit=1 << 26
        )

    def signal(self, number: int) -> None:
        """Freeze, thaw or kill it."""
        assert self._process is not None
        self._process.send_signal(number)

    async def crash(self) -> None:
        """Kill it and start another in its place."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()
        await self.start()

    async def say(self, word: str) -> dict[str, Any]:
        """Say a line and return the answer."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        async with asyncio.timeout(PATIENT):
            process.stdin.write(f"{word}\n".encode())
            await process.stdin.drain()
            line = await process.stdout.readline()
        if not line:
            raise RuntimeError(f"node {self.number} ended by itself")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def end(self) -> None:
        """End it as a service ends."""
        await self.say("end")
        assert self._process is not None
        await self._process.wait()


class Soak:
    """The nodes, the server, and what is done to them."""

    def __init__(self, server: RedisServer, nodes: list[Node], random: Random) -> None:
        self.server = server
        self.nodes = nodes
        self.random = random
        self.faults: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.compared = 0
        self.sessions: dict[str, None] = {}
        self.ended: set[str] = set()

    async def run(self, seconds: float) -> None:
        """Do harm for so many seconds, with a look at everybody every half minute."""
        for node in self.nodes:
            await node.start()
        begun = monotonic()
        while (left := begun + seconds - monotonic()) > 0:
            await self._harm(min(WINDOW, left))
            await self._compare()
            print(
                f"{monotonic() - begun:4.0f} s  {sum(self.faults.values())} faults, {self.counts['served']:,} values "
                f"served, {self.compared:,} compared, {len(self.ended)} sessions ended, "
                f"{len(self.violations)} violations",
                flush=True,
            )
        for node in self.nodes:
            await node.end()

    async def _harm(self, seconds: float) -> None:
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            await asyncio.sleep(min(left, self.random.uniform(0.0, 1.5)))
            harm = self.random.choice(self._harms())
            self.faults[harm.__name__.strip("_")] += 1
            await harm(self.random.choice(self.nodes), self.random.uniform(0.05, 2.5))

    def _harms(self) -> list[Callable[[Node, float], Awaitable[None]]]:
        return [
            self._kill_redis,
            self._freeze_redis,
            self._flush,
            self._fill,
            self._cut,
            self._cut_all,
            self._half_open,
            self._slow,
            self._partition,
            self._freeze_node,
            self._kill_node,
        ]

    async def _kill_redis(self, _: Node, seconds: float) -> None:
        self.server.kill()
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self.server.start)

    async def _freeze_redis(self, _: Node, seconds: float) -> None:
        self.server.stop()
        await asyncio.sleep(seconds)
        self.server.cont()

    async def _flush(self, _: Node, __: float) -> None:
        await asyncio.to_thread(self.server.admin.flushall)

    async def _fill(self, _: Node, seconds: float) -> None:
        """Refuse writes for want of memory."""
        await asyncio.to_thread(self.server.admin.config_set, "maxmemory", "1")
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self.server.admin.config_set, "maxmemory", "0")

    async def _cut(self, node: Node, _: float) -> None:
        await node.proxy.cut()

    async def _cut_all(self, _: Node, __: float) -> None:
        for node in self.nodes:
            await node.proxy.cut()

    async def _half_open(self, node: Node, seconds: float) -> None:
        node.proxy.swallow = True
        await asyncio.sleep(seconds)
        node.proxy.swallow = False
        await node.proxy.cut()

    async def _slow(self, node: Node, seconds: float) -> None:
        node.proxy.to_server = self.random.choice((0.05, 0.2, 0.6))
        await asyncio.sleep(seconds)
        node.proxy.to_server = 0.0

    async def _partition(self, node: Node, seconds: float) -> None:
        node.proxy.refuse = True
        await node.proxy.cut()
        await asyncio.sleep(seconds)
        node.proxy.refuse = False

    async def _freeze_node(self, node: Node, seconds: float) -> None:
        node.signal(SIGSTOP)
        await asyncio.sleep(seconds)
        node.signal(SIGCONT)

    async def _kill_node(self, node: Node, _: float) -> None:
        node.signal(SIGKILL)
        await node.crash()

    async def _compare(self) -> None:
        """Let all recover and work for a while, then rest; when memory must be current compare what all are served."""
        await asyncio.gather(*(node.say("recover") for node in self.nodes))
        await asyncio.sleep(CALM)
        await asyncio.gather(*(node.say("rest") for node in self.nodes))
        await asyncio.sleep(L1_LIFE + 0.1)
        reports = await asyncio.gather(*(node.say("report") for node in self.nodes))
        now = CLOCK.now()
        served = [{name: value for name, (value, end) in report["served"].items() if end > now} for report in reports]
        for name in set().union(*served):
            self.compared += 1
            values = {one.get(name) for one in served}
            if len(values) > 1:
                self.violations.append(f"the nodes differ about {name}: {values}")
        for report in reports:
            self.violations += report["violations"]
            self.counts.update(report["counts"])
            self.sessions |= dict.fromkeys(report["born"])
            self.ended.update(report["ended"])
        await self._look_for_ended_sessions()
        known = " ".join(self.random.sample(list(self.sessions), min(200, len(self.sessions))))
        for node in self.nodes:
            await node.say(f"sessions {known}")
            await node.say("go")

    async def _look_for_ended_sessions(self) -> None:
        """Ask the store itself whether anything lives whose end was acknowledged."""
        redis = RedisBackend(self.server.url, clock=CLOCK, budget=PATIENCE)
        store = SealedBackend(redis, Sealer([SECRET], "soak"), CLOCK)
        names = [name.encode() for name in self.ended]
        for name in await store.get_many(KINDS["session"], names) if names else ():
            self.violations.append(f"session {name.decode()} is in the store, though its end was acknowledged")
        await store.close()


async def soak(seconds: float, seed: str) -> int:
    """Run it, print the totals, and return how many violations there were."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(RedisServer())
        proxies = [await stack.enter_async_context(Proxy(server.port)) for _ in range(NODES)]
        nodes = [Node(number, proxy, seed) for number, proxy in enumerate(proxies)]
        run = Soak(server, nodes, Random(seed))
        await run.run(seconds)
    print(f"faults: {dict(sorted(run.faults.items()))}")
    print(f"calls:  {dict(sorted(run.counts.items()))}")
    for violation in run.violations[:50]:
        print(f"VIOLATION {violation}")
    print(f"{len(run.violations)} violations; seed {seed}")
    return len(run.violations)


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long harm is done (300)")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="repeats the same faults and calls")
    arguments = parser.parse_args()
    print(f"soak: {NODES} nodes, {arguments.seconds:g} s, seed {arguments.seed}", flush=True)
    return min(1, asyncio.run(soak(arguments.seconds, arguments.seed)))


if __name__ == "__main__":
    sys.exit(main())
