"""One node of the soak: it reads and writes at random, and looks at what it is served.

Started with the URL of the store, a number and a seed. It hears a line (`recover`, `rest`, `report`, `go`, `sessions`,
`end`) and answers with a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random
from typing import Any

from oidc_middleware.cache import (
    TYPES,
    CacheType,
    Entry,
    HybridBackend,
    MemoryBackend,
    RedisBackend,
    SealedBackend,
    Sealer,
)
from oidc_middleware.clock import SystemClock
from oidc_middleware.errors import BackendUnavailable

L1_LIFE = 2.0
"""Seconds that memory may answer here: short, so that a soak of minutes sees many lives."""
SECRET = "s" * 32
KINDS = {name: replace(TYPES[name], l1_life=L1_LIFE) for name in ("general", "token", "session")}
SESSION = KINDS["session"]
KEYS = [b"key %d" % number for number in range(40)]
TASKS = 8
BUDGET = 0.25
_REMEMBERED = 500

CLOCK = SystemClock()


class Memory:
    """What a node had of a key before it changed it, and so must never be served again."""

    def __init__(self) -> None:
        self.had: set[bytes] = set()
        self.gone: deque[bytes] = deque(maxlen=_REMEMBERED)
        self.changes = 0

    def change(self, value: bytes | None, *, ends_the_old: bool = True) -> None:
        """Note that the node replaces or deletes what it has."""
        if ends_the_old:
            self.gone.extend(self.had)
            self.had = set()
        if value is not None:
            self.had.add(value)
        self.changes += 1


class Node:
    """A backend under random calls."""

    def __init__(self, url: str, number: int, seed: str) -> None:
        sealed = SealedBackend(RedisBackend(url, clock=CLOCK, budget=BUDGET), Sealer([SECRET], "soak"), CLOCK)
        memory = MemoryBackend(CLOCK, [*KINDS.values(), TYPES["metadata"]])
        self.backend = HybridBackend(memory, sealed, clock=CLOCK, budget=BUDGET)
        self.number = number
        self.random = Random(seed)
        self.known: defaultdict[tuple[str, bytes], Memory] = defaultdict(Memory)
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.written = 0
        # Sessions that are known to be in the store, those that this node made since the last report, and the ended.
        self.sessions: list[str] = []
        self.born: list[str] = []
        self.ended: set[str] = set()
        # The highest version of a session whose storing was acknowledged to this node.
        self.versions: dict[str, int] = {}
        self.ended_everywhere: list[str] = []
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.busy = 0

    async def work(self) -> None:
        """Call at random until cancelled."""
        while True:
            await self.may_go.wait()
            self.busy += 1
            try:
                await self._call()
            finally:
                self.busy -= 1
            await asyncio.sleep(self.random.random() * 0.01)

    async def _call(self) -> None:
        kind, key = self.random.choice(list(KINDS.values())), self.random.choice(KEYS)
        calls = {self._get: 10, self._get_many: 2, self._set: 4, self._delete: 2, self._session: 2}
        call = self.random.choices(list(calls), list(calls.values()))[0]
        try:
            await call(kind, key)
            self.counts[call.__name__.strip("_")] += 1
        except BackendUnavailable as error:
            self.counts[f"unavailable: {error.kind}"] += 1

    async def _get(self, kind: CacheType, key: bytes) -> None:
        await self._read(kind, [key])

    async def _get_many(self, kind: CacheType, _: bytes) -> None:
        await self._read(kind, self.random.sample(KEYS, 10))

    async def _read(self, kind: CacheType, keys: list[bytes]) -> None:
        began = CLOCK.now()
        memories = {key: self._memory(kind, key) for key in keys}
        before = {key: (set(memory.gone), memory.changes) for key, memory in memories.items()}
        found: dict[bytes, Entry]
        if len(keys) == 1:
            entry = await self.backend.get(kind, keys[0])
            found = {} if entry is None else {keys[0]: entry}
        else:
            found = await self.backend.get_many(kind, keys)
        for key, entry in found.items():
            self.counts["served"] += 1
            gone, changes = before[key]
            if entry.value in gone:
                self._violated(f"{kind.name} {key!r}: what this node had replaced or deleted is back: {entry.value!r}")
            elif changes == memories[key].changes:
                memories[key].had.add(entry.value)
            self._look(kind, key, json.loads(entry.value), began)

    def _look(self, kind: CacheType, key: bytes, written: dict[str, Any], began: float) -> None:
        if (written["kind"], written["key"]) != (kind.name, key.decode()):
            self._violated(f"{kind.name} {key!r}: is served what belongs elsewhere: {written}")
        if written["ends"] <= began:
            self._violated(f"{kind.name} {key!r}: is served {began - written['ends']:.3f} s after its end")

    async def _set(self, kind: CacheType, key: bytes) -> None:
        self.written += 1
        ends = CLOCK.now() + self.random.choice((0.3, 1.0, 5.0, 60.0))
        what = {"kind": kind.name, "key": key.decode(), "by": self.number, "number": self.written, "ends": ends}
        value = json.dumps(what).encode()
        # A session that was changed while the store was away may be again what it was there.
        self._memory(kind, key).change(value, ends_the_old=kind.name != "session")
        await self.backend.set(kind, key, value, ends, wait=self.random.choice((None, None, True, False)))

    async def _delete(self, kind: CacheType, key: bytes) -> None:
        self._memory(kind, key).change(None)
        await self.backend.delete(kind, key)

    async def _session(self, _: CacheType, __: bytes) -> None:
        """Begin a session, or look for one, refresh it, or end it."""
        what = self.random.random()
        if what < 0.4 or not self.sessions:
            await self._begin()
            return
        name = self.random.choice(self.sessions)
        if what < 0.7:
            await self._look_for(name)
        elif what < 0.95:
            await self._refresh(name)
        else:
            self.ended.add(name)
            await self.backend.delete(SESSION, name.encode(), wait=True)
            self.ended_everywhere.append(name)

    async def _begin(self) -> None:
        name = f"{self.number}-{self.random.getrandbits(64):x}"
        if await self.backend.add(SESSION, name.encode(), name.encode(), CLOCK.now() + 300):
            self.born.append(name)
            self.sessions.append(name)

    async def _look_for(self, name: str) -> Entry | None:
        """Look for a session: none that this node ended is there again, and none is older than this node made it."""
        was_ended, version = name in self.ended, self.versions.get(name, 0)
        entry = await self.backend.get(SESSION, name.encode())
        if entry is not None and was_ended:
            self._violated(f"session {name} is served, though this node ended it")
        if entry is not None and entry.version < version:
            self._violated(f"session {name} is served in version {entry.version}, after {version} was stored")
        return entry

    async def _refresh(self, name: str) -> None:
        entry = await self._look_for(name)
        if entry is None:
            return
        version = entry.version + 1
        if await self.backend.update(SESSION, name.encode(), name.encode(), CLOCK.now() + 300, version):
            self.counts["refreshed"] += 1
            self.versions[name] = max(version, self.versions.get(name, 0))

    def _memory(self, kind: CacheType, key: bytes) -> Memory:
        return self.known[kind.name, key]

    def _violated(self, text: str) -> None:
        self.violations.append(f"node {self.number} at {CLOCK.now():.3f}: {text}")

    async def recover(self) -> None:
        """Return when the store answers and misses nothing."""
        await until_true(self.backend.check)

    async def rest(self) -> None:
        """Let no call begin any more, and return when all have ended and nothing waits to be written."""
        self.may_go.clear()

        async def is_at_rest() -> bool:
            return not (self.busy or self.backend.overview().queued) and await self.backend.check()

        await until_true(is_at_rest)

    async def report(self) -> dict[str, Any]:
        """Return what this node is served of every key, with its end; what it counted, and what was wrong."""
        served = {
            f"{kind.name} {key.decode()}": (entry.value.decode(), entry.expires_at)
            for kind in KINDS.values()
            for key, entry in (await self.backend.get_many(kind, KEYS)).items()
        }
        ended = [name.encode() for name in self.ended]
        for name in await self.backend.get_many(SESSION, ended):
            self._violated(f"session {name.decode()} is served, though this node ended it")
        told = {"served": served, "counts": self.counts, "violations": self.violations}
        told |= {"born": self.born, "ended": self.ended_everywhere}
        self.violations, self.born, self.ended_everywhere = [], [], []
        return told


async def until_true(ask: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again, as fast as the answers come, until the answer is yes."""
    while not await ask():  # noqa: ASYNC110  asking is what brings it about
        await asyncio.sleep(0)


async def main(url: str, number: int, seed: str) -> None:
    """Hear words and answer them until `end`."""
    logging.disable(logging.WARNING)  # that the store is away and back is what this is about
    node = Node(url, number, seed)
    tasks = [asyncio.create_task(node.work()) for _ in range(TASKS)]
    words = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), sys.stdin)
    while (word := (await words.readline()).decode().strip()) not in {"", "end"}:
        answer: dict[str, Any] = {}
        match word.split():
            case ["recover"]:
                await node.recover()
            case ["rest"]:
                await node.rest()
            case ["report"]:
                answer = await node.report()
            case ["go"]:
                node.may_go.set()
            case ["sessions", *names]:
                node.sessions = names
        for task in tasks:
            if task.done():
                task.result()
        print(json.dumps(answer), flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await node.backend.close()
    print(json.dumps({"closed": True}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
