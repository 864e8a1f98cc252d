"""Several nodes over one store that fails in every way, step by step, under hypothesis."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import initialize, rule

from oidc_middleware.cache import TYPES, CacheType, Entry, MemoryBackend
from oidc_middleware.errors import BackendUnavailable
from oidc_middleware.testing.clock import ManualClock

from hybrid_machine import NODES, FallibleNode, FallibleNodes

GENERAL, TOKEN, SESSION = TYPES["general"], TYPES["token"], TYPES["session"]
KINDS = st.sampled_from([GENERAL, TOKEN, SESSION])
BOTH = [b"a", b"b"]
KEYS = st.sampled_from([b"a", b"a", b"b"])
LIVES = st.sampled_from([-1.0, 0.5, 30.0, 500.0, 500.0, 500.0])
Known = tuple[str, bytes]


class Node(FallibleNode):
    """A node, and what it must never serve again: what it had of a key before it changed it."""

    def __init__(self, clock: ManualClock, store: MemoryBackend) -> None:
        super().__init__(clock, store)
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


class NodesAndStore(FallibleNodes[Node]):
    def __init__(self) -> None:
        super().__init__(Node)
        self.ends: dict[bytes, float] = {}
        self.kind = GENERAL

    @initialize(kind=KINDS)
    def choose(self, kind: CacheType) -> None:
        """One run is about one type: types have nothing in common, and so faults meet more often."""
        self.kind = kind

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
        before = {key: (set(node.gone[kind.name, key]), node.changes[kind.name, key]) for key in keys}
        found: dict[bytes, Entry]
        try:
            if len(keys) == 1:
                entry = await node.backend.get(kind, keys[0])
                found = {} if entry is None else {keys[0]: entry}
            else:
                found = await node.backend.get_many(kind, keys)
        except BackendUnavailable:
            assert kind is SESSION or node.backend._closed
            return
        for key, entry in found.items():
            assert entry.expires_at == self.ends[entry.value]
            node.served((kind.name, key), entry.value, *before[key])

    @rule(node=NODES, key=KEYS, life=LIVES, wait=st.sampled_from([None, True, False]))
    def set(self, node: int, key: bytes, life: float, wait: bool | None) -> None:
        self.begin(self._set(self.nodes[node], self.kind, {key: self.new_value(life)}, wait))

    @rule(node=NODES, life=LIVES, wait=st.sampled_from([None, True, False]))
    def set_many(self, node: int, life: float, wait: bool | None) -> None:
        self.begin(self._set(self.nodes[node], self.kind, {key: self.new_value(life) for key in BOTH}, wait))

    async def _set(self, node: Node, kind: CacheType, values: dict[bytes, bytes], wait: bool | None) -> None:
        for key, value in values.items():
            # A session that was changed while the store was away is again what it was there.
            node.change((kind.name, key), value, ends_the_old=kind is not SESSION)
        entries = {key: Entry(value, self.ends[value]) for key, value in values.items()}
        must_wait = kind is TOKEN if wait is None else wait
        try:
            if len(entries) == 1:
                ((key, entry),) = entries.items()
                await node.backend.set(kind, key, entry.value, entry.expires_at, wait)
            else:
                await node.backend.set_many(kind, entries, wait)
        except BackendUnavailable:
            assert must_wait or node.backend._closed

    @rule(node=NODES, key=KEYS, life=LIVES)
    def add(self, node: int, key: bytes, life: float) -> None:
        self.begin(self._add(self.nodes[node], self.kind, key, self.new_value(life)))

    async def _add(self, node: Node, kind: CacheType, key: bytes, value: bytes) -> None:
        with contextlib.suppress(BackendUnavailable):
            await node.backend.add(kind, key, value, self.ends[value])

    @rule(node=NODES, key=KEYS, life=LIVES, version=st.integers(1, 4))
    def update(self, node: int, key: bytes, life: float, version: int) -> None:
        self.begin(self._update(self.nodes[node], self.kind, key, Entry(self.new_value(life), 0.0, version)))

    async def _update(self, node: Node, kind: CacheType, key: bytes, entry: Entry) -> None:
        node.change((kind.name, key), entry.value, ends_the_old=False)
        with contextlib.suppress(BackendUnavailable):
            await node.backend.update(kind, key, entry.value, self.ends[entry.value], entry.version)

    @rule(node=NODES, key=KEYS)
    def delete(self, node: int, key: bytes) -> None:
        self.begin(self._delete(self.nodes[node], self.kind, key))

    async def _delete(self, node: Node, kind: CacheType, key: bytes) -> None:
        node.change((kind.name, key), None)
        try:
            await node.backend.delete(kind, key)
        except BackendUnavailable:
            assert kind is TOKEN or node.backend._closed

    @rule(node=NODES)
    def clear(self, node: int) -> None:
        self.begin(self._clear(self.nodes[node], self.kind))
        self.runner.run(asyncio.sleep(0))

    async def _clear(self, node: Node, kind: CacheType) -> None:
        for key in BOTH:
            node.change((kind.name, key), None)
        with contextlib.suppress(BackendUnavailable):
            await node.backend.clear(kind)

    @rule(node=NODES, key=KEYS)
    def invalidate(self, node: int, key: bytes) -> None:
        async def invalidate() -> None:
            self.nodes[node].backend.invalidate(self.kind, key)

        self.runner.run(invalidate())

    @rule()
    def all_is_well_again(self) -> None:
        """Afterwards memory differs from the store for as long as its life there at most."""
        self.heal()
        self.clock.advance(61)
        for key in BOTH:
            stored = self.runner.run(self.store.get(self.kind, key))
            for node in self.nodes:
                assert self.runner.run(node.backend.get(self.kind, key)) == stored
                if stored is not None:
                    assert stored.value not in node.gone[self.kind.name, key]


TestNodesAndStore = NodesAndStore.TestCase
TestNodesAndStore.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
