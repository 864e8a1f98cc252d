"""Three processes revoke over one Redis that fails in every way, and no promise of `docs/revocation.md` is broken.

`python tests/soak/revocations.py --seconds 150 --seed 7`. The first round of harm cuts one node off for a minute, the
second freezes the store for half a minute; in every other one the store loses nothing. After each round all is healed,
and all must know the same within a bounded time. Exit code: 0 no violation, 1 some.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from revocation_faults import Faults  # noqa: E402  the folders of both are named above
from revocation_promises import Life, Name, Promises  # noqa: E402

from oidc_middleware.core.ledger.records import from_member  # noqa: E402

from redis_kit import Proxy, RedisServer  # noqa: E402

NODES = 3
PATIENT = 60.0
HEALED = 45.0
"""Seconds in which all have to know the same after all was healed, on a busy machine."""
ROUND = 20.0
CUT_OFF = 60.0
FROZEN = 30.0
BUSY = 1.0
_ENDED = 240.0
_SAMPLE = 100
BOUNDS = {"memory": 160 << 20, "tasks": 16, "files": 40, "threads": 8}
"""What a node at rest may have: about twice what it has after a start."""
CLIENTS = 40
"""Connections that the store may have then: seven or so of each node."""


class Node:
    """A node's process, its own link to the store, and its own journal."""

    def __init__(self, number: int, proxy: Proxy, promises: Promises, given: dict[str, Any]) -> None:
        self.number = number
        self.proxy = proxy
        self.was_frozen = False
        self.life: Life
        self._promises = promises
        self._given = given | {"number": number, "url": proxy.url, "skew": 0.0, "start": 0}
        self._process: Process
        self._answers: asyncio.Queue[dict[str, Any] | None]
        self._reader: asyncio.Task[None]
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Start the process, for the first time or after a crash."""
        self._given["start"] += 1
        self.was_frozen = False
        self.life = self._promises.born(self.number, self._given["start"])
        script = str(Path(__file__).with_name("revoking_node.py"))
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, script, json.dumps(self._given), stdin=PIPE, stdout=PIPE, limit=1 << 26
        )
        self._answers = asyncio.Queue()
        self._reader = asyncio.create_task(self._read(self._process, self.life, self._answers))

    def signal(self, number: int) -> None:
        """Freeze or thaw it."""
        self._process.send_signal(number)

    async def crash(self) -> None:
        """Kill it, hear what it had said, and start another in its place."""
        self._process.kill()
        await self._process.wait()
        self._promises.died(self.life, monotonic())
        await self._reader
        await self.start()

    async def restart(self) -> None:
        """End it as a service ends, and start another in its place: all that it has acknowledged is kept."""
        async with self._turn:
            await self.end()
            await self.start()

    async def set_clock(self, skew: float) -> None:
        """Move its clock so many seconds ahead of the right time, or behind."""
        if skew != self._given["skew"]:
            self._given["skew"] = skew
            await self.ask("skew", seconds=skew)

    async def ask(self, what: str, **more: Any) -> dict[str, Any] | None:
        """Say a line and return the answer; None if the process was killed meanwhile."""
        async with self._turn:
            process, answers = self._process, self._answers
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps({"do": what, **more}).encode() + b"\n")
                await process.stdin.drain()
            except ConnectionError:
                return None
            async with asyncio.timeout(PATIENT):
                return await answers.get()

    async def sure(self, what: str, **more: Any) -> dict[str, Any]:
        """Ask while nobody kills it."""
        answer = await self.ask(what, **more)
        if answer is None:
            raise RuntimeError(f"node {self.number} ended by itself")
        return answer

    async def look(self, names: list[Name] | None = None) -> dict[str, Any] | None:
        """Ask what it knows, and hold that against the promises."""
        life = self.life
        names = self._promises.to_ask(life) if names is None else names
        answer = await self.ask("check", names=names)
        if answer is not None and life is self.life:
            self._promises.judge(life, names, answer)
        return answer

    async def end(self) -> None:
        """End it as a service ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(PATIENT):
            await self._reader
            if await self._process.wait():
                self._promises.violated(self.life, f"it ended with {self._process.returncode}")

    def kill(self) -> None:
        """End it at once, whatever it does."""
        if self._process.returncode is None:
            self._process.kill()

    async def _read(self, process: Process, life: Life, answers: asyncio.Queue[dict[str, Any] | None]) -> None:
        assert process.stdout is not None
        while (line := await process.stdout.readline()).endswith(b"\n"):
            told = json.loads(line)
            if "answer" in told:
                answers.put_nowait(told["answer"])
            else:
                self._promises.heard(life, told["receipt"], was_frozen=self.was_frozen)
        answers.put_nowait(None)


class Soak:
    """Rounds of harm, each with a time after it in which all recover."""

    def __init__(self, server: RedisServer, nodes: list[Node], promises: Promises, seed: str) -> None:
        self.server = server
        self.nodes = nodes
        self.promises = promises
        self.faults = Faults(server, nodes, promises, seed)
        self.random = Random(seed)
        self.slowest = {"fresh": 0.0, "at one": 0.0}
        self.most: dict[str, int] = {}

    async def run(self, seconds: float) -> None:
        """Do harm for about so many seconds, and compare after each round."""
        began = monotonic()
        watching = [asyncio.create_task(self._watch(node)) for node in self.nodes]
        longest = [{"cut_off": min(CUT_OFF, seconds / 2)}, {"frozen": min(FROZEN, seconds / 4)}]
        loses = True
        await self._healed()
        self.slowest = dict.fromkeys(self.slowest, 0.0)  # processes that start are another matter
        while longest or monotonic() < began + seconds:
            await self.faults.harm(min(ROUND, seconds / 4), loses=loses, **(longest.pop(0) if longest else {}))
            await self._healed()
            loses = not loses
            self._tell(monotonic() - began)
            for task in watching:
                if task.done():
                    task.result()
        for task in watching:
            task.cancel()
        await asyncio.wait(watching)
        for node in self.nodes:
            await node.end()

    def _tell(self, passed: float) -> None:
        promises = self.promises
        print(
            f"{passed:4.0f} s  {sum(self.faults.done.values())} faults, {promises.receipts.total():,} receipts, "
            f"{promises.counts['checks']:,} checks, {self.slowest_in_words}, "
            f"{len(promises.violations)} violations",
            flush=True,
        )

    async def _watch(self, node: Node) -> None:
        """Ask a node all the time."""
        while True:
            await node.look()
            await asyncio.sleep(self.random.uniform(0.02, 0.2))

    async def _healed(self) -> None:
        """See all become fresh while they work, and then agree about everything."""
        healed = monotonic()
        for node in self.nodes:
            while (await node.sure("check", names=[]))["stale"]:
                self._hurry(healed, f"node {node.number} is not fresh")
                await asyncio.sleep(0.05)
        self._took("fresh", healed)
        await asyncio.sleep(BUSY)
        for node in self.nodes:
            await node.sure("rest")
        rested = monotonic()
        while why := await self._differ():
            self._hurry(rested, why)
            await asyncio.sleep(0.05)
        self._took("at one", rested)
        for node in self.nodes:
            await node.look(list(node.life.open))
            await self._refuse(node)
            await self._measure(node)
        clients = len(await asyncio.to_thread(self.server.admin.client_list))
        self._bound("clients of the store", clients, CLIENTS)
        self.promises.settle()
        for node in self.nodes:
            await node.sure("go")

    def _took(self, what: str, since: float) -> None:
        self.slowest[what] = max(self.slowest[what], monotonic() - since)

    @property
    def slowest_in_words(self) -> str:
        """After how long all had recovered, at most."""
        return f"fresh after {self.slowest['fresh']:.1f} s and at one after {self.slowest['at one']:.1f} s at most"

    def _hurry(self, since: float, why: str) -> None:
        if monotonic() > since + HEALED:
            for violation in self.promises.violations[:20]:
                print(f"VIOLATION {violation}")
            raise TimeoutError(f"{HEALED:g} s after all was healed {why}")

    async def _differ(self) -> str | None:
        """Say in what the nodes are not yet at rest, or not of one mind with each other and the store."""
        for node in self.nodes:
            answer = await node.sure("check", names=[])
            for fact in ("stale", "unacknowledged", "healing"):
                if answer[fact]:
                    return f"node {node.number} has {fact}: {answer[fact]}"
        exports = [(await node.sure("export"))["export"] for node in self.nodes]
        after = time.time() - _ENDED  # others are swept, by everybody's own clock
        ledgers = [{_entry(line) for line in export if json.loads(line)["end"] > after} for export in exports]
        ledgers.append({entry for entry in await self._stored() if entry[-1] > after})
        if all(ledger == ledgers[0] for ledger in ledgers):
            return None
        missing = [len(set().union(*ledgers) - ledger) for ledger in ledgers]
        return f"what the nodes and the store know differs: each lacks {missing} of {len(set().union(*ledgers))}"

    async def _stored(self) -> set[tuple[Any, ...]]:
        pairs = await asyncio.to_thread(
            self.server.admin.zrange, "oidc:{log}:ledger", 0, "+inf", byscore=True, offset=0, num=-1, withscores=True
        )
        return {tuple(from_member(member, int(end))) for member, end in pairs}

    async def _refuse(self, node: Node) -> None:
        names = self.random.sample(list(node.life.refused), min(_SAMPLE, len(node.life.refused)))
        answer = await node.sure("refuse", names=names)
        self.promises.counts["requests refused"] += answer["statuses"].count(401)
        if answer["other"] != 200:
            self.promises.violated(node.life, f"a request with nothing revoked is answered with {answer['other']}")
        for name, status in zip(names, answer["statuses"], strict=True):
            if status != 401:
                self.promises.violated(node.life, f"a request with {name} is answered with {status}")

    async def _measure(self, node: Node) -> None:
        for what, found in (await node.sure("sizes")).items():
            self._bound(what, found, BOUNDS[what])

    def _bound(self, what: str, found: int, bound: int) -> None:
        self.most[what] = max(found, self.most.get(what, 0))
        if found > bound:
            self.promises.violations.append(f"{found:,} {what}, more than {bound:,}")


def _entry(line: str) -> tuple[Any, ...]:
    row = json.loads(line)
    kinds = {"token": 1, "session": 2, "subject": 3, "client": 4, "clear": 5}
    return kinds[row["kind"]], bytes.fromhex(row["key_id"]), int(row["digest"], 16), row["number"], row["end"]


async def soak(seconds: float, seed: str, rate: float) -> int:
    """Run it, print the totals, and return how many violations there were."""
    promises = Promises(Random(seed))
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        # Whatever is answered is in the file, and the disk is not waited for: processes are killed here, not machines.
        server = stack.enter_context(RedisServer(options={"appendonly": "yes", "appendfsync": "no"}))
        nodes = []
        for number in range(NODES):
            proxy = await stack.enter_async_context(Proxy(server.port))
            given = {"seed": seed, "rate": rate, "journal": str(folder / f"{number}.journal")}
            nodes.append(Node(number, proxy, promises, given))
            await nodes[-1].start()
            stack.callback(nodes[-1].kill)
        run = Soak(server, nodes, promises, seed)
        try:
            await run.run(seconds)
        except TimeoutError as error:
            promises.violations.append(str(error))
    print(f"receipts: {dict(sorted(promises.receipts.items()))}; a caller waited for {promises.longest:.2f} s at most")
    print(f"faults:   {dict(sorted(run.faults.done.items()))}")
    print(f"checks:   {dict(sorted(promises.counts.items()))}")
    print(f"at most:  {run.most}, {run.slowest_in_words}")
    for violation in promises.violations[:50]:
        print(f"VIOLATION {violation}")
    print(f"{len(promises.violations)} violations; seed {seed}")
    return len(promises.violations)


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=150.0, help="how long harm is done, about (150)")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="does the same in the same order")
    parser.add_argument("--rate", type=float, default=30.0, help="revocations a second of each node (30)")
    arguments = parser.parse_args()
    print(f"revocations: {NODES} nodes, {arguments.seconds:g} s, seed {arguments.seed}", flush=True)
    return min(1, asyncio.run(soak(arguments.seconds, arguments.seed, arguments.rate)))


if __name__ == "__main__":
    sys.exit(main())
