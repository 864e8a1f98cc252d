"""Several nodes over one store that fails in every way, step by step, under hypothesis; then through upheavals, too."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import initialize, rule

from oidc_middleware.cache import TYPES, CacheType, Entry
from oidc_middleware.cache.hybrid import backend as hybrid_module
from oidc_middleware.errors import BackendUnavailable

from hybrid_machine import NODES, FallibleNode, FallibleNodes
from tier_kit import Mode, turns

GENERAL, TOKEN, SESSION = TYPES["general"], TYPES["token"], TYPES["session"]
KINDS = st.sampled_from([GENERAL, TOKEN, SESSION])
BOTH = [b"a", b"b"]
KEYS = st.sampled_from([b"a", b"a", b"a", b"b"])
LIVES = st.sampled_from([-1.0, 0.5, 30.0, 500.0, 5000.0, 5000.0])
WAITS = st.sampled_from([None, True, False])
CHANGES = st.sampled_from(["delete", "delete", "set", "set", "clear"])
ROUNDS = st.sampled_from([0, 3, 20, 20])
TROUBLE: st.SearchStrategy[Mode] = st.sampled_from(["down", "down", "unacknowledged"])
Known = tuple[str, bytes]


@pytest.fixture(autouse=True, scope="module")
def _ends_come_soon() -> Iterator[None]:
    """Nobody waits 5 s for a store that hangs until the test lets it go on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hybrid_module, "_DRAIN", 0.005)
        yield


class Node(FallibleNode):
    """A node, and what it must never serve again: what it had of a key before it changed it.

    What is `under_way` meanwhile, an addition or an update, may come before that or after.
    """

    def begin(self) -> None:
        super().begin()
        self.had: defaultdict[Known, set[bytes]] = defaultdict(set)
        self.gone: defaultdict[Known, set[bytes]] = defaultdict(set)
        self.changes: defaultdict[Known, int] = defaultdict(int)
        self.under_way: set[bytes] = set()

    def change(self, known: Known, value: bytes | None, *, ends_the_old: bool = True) -> None:
        if ends_the_old:
            self.gone[known] |= self.had[known] - self.under_way
            self.had[known] &= self.under_way
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
            self.has_not_ended(entry)
            node.served((kind.name, key), entry.value, *before[key])

    @rule(node=NODES, key=KEYS, life=LIVES, wait=WAITS)
    def set(self, node: int, key: bytes, life: float, wait: bool | None) -> None:
        self.begin(self._set(self.nodes[node], self.kind, {key: self.new_value(life)}, wait))

    @rule(node=NODES, life=LIVES, wait=WAITS)
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
        known = (kind.name, key)
        node.under_way.add(value)
        node.had[known].add(value)
        try:
            if not await node.backend.add(kind, key, value, self.ends[value]):
                node.had[known].discard(value)
        except BackendUnavailable:
            pass  # perhaps it is there
        finally:
            node.under_way.discard(value)

    @rule(node=NODES, key=KEYS, life=LIVES, version=st.integers(1, 4))
    def update(self, node: int, key: bytes, life: float, version: int) -> None:
        self.begin(self._update(self.nodes[node], self.kind, key, Entry(self.new_value(life), 0.0, version)))

    async def _update(self, node: Node, kind: CacheType, key: bytes, entry: Entry) -> None:
        known, value = (kind.name, key), entry.value
        node.under_way.add(value)
        node.change(known, value, ends_the_old=False)
        try:
            if not await node.backend.update(kind, key, value, self.ends[value], entry.version):
                node.had[known].discard(value)
                node.gone[known].add(value)
        except BackendUnavailable:
            pass
        finally:
            node.under_way.discard(value)

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

    @rule(node=NODES, key=st.sampled_from([b"a", b"a", b"b", None]))
    def news(self, node: int, key: bytes | None) -> None:
        """Another node changed a key, or any of the type."""

        async def hear() -> None:
            self.nodes[node].hear(self.kind, key)

        self.run(hear())

    # ------------------------------------------------------------------------------------------ what meets rarely else

    def change(self, node: int, key: bytes, change: str, life: float) -> None:
        if change == "set":
            self.set(node, key, life, wait=False)
        elif change == "clear":
            self.clear(node)
        else:
            self.delete(node, key)

    @rule(node=NODES, key=KEYS, change=CHANGES, writes=TROUBLE, rounds=ROUNDS)
    def a_change_in_trouble(self, node: int, key: bytes, change: str, writes: Mode, rounds: int) -> None:
        """The store has what this node knows of the key, and does not say that it changed it."""
        self.nodes[node].tier.heal()
        self.set(node, key, 5000.0, wait=None)
        self.run(turns())
        self.nodes[node].tier.writes = writes
        self.change(node, key, change, 5000.0)
        self.run(turns(rounds))
        self.get(node, key)

    @rule(node=NODES, key=KEYS, change=CHANGES, life=LIVES)
    def a_change_overtakes_a_read(self, node: int, key: bytes, change: str, life: float) -> None:
        """The answer of the store is under way when this node changes the key."""
        self.news(node, key)  # so memory has nothing
        self.hold(node, ("get_many",))
        self.get(node, key)
        self.run(turns())
        self.change(node, key, change, life)
        self.release(node)
        self.get(node, key)

    @rule(node=NODES, key=KEYS, change=CHANGES, arrives=st.booleans())
    def a_change_is_under_way(self, node: int, key: bytes, change: str, arrives: bool) -> None:
        """The store still has what this node changed, memory forgets the change; the loop ends, or its life does."""
        self.nodes[node].tier.heal()
        self.set(node, key, 5000.0, wait=None)
        self.run(turns())
        self.hold(node, ("set", "set_many", "delete", "clear"))
        self.change(node, key, change, 30.0)
        self.news(node, key)
        self.get(node, key)
        self.run(turns())
        if arrives:
            self.time_passes(31.0)
            self.run(turns())
            self.get(node, key)
            self.release(node)
        else:
            self.the_loop_ends()
            self.get(node, key)

    @rule(node=NODES, key=KEYS)
    def an_entry_ends_while_it_is_read(self, node: int, key: bytes) -> None:
        self.nodes[node].tier.heal()
        self.set(node, key, 30.0, wait=None)
        self.run(turns())
        self.hold(node, ("get_many",))
        self.news(node, key)
        self.get(node, key)
        self.run(turns())
        self.time_passes(31.0)
        self.run(turns())
        self.release(node)

    @rule(node=NODES, key=KEYS, one=st.booleans())
    def news_overtake_a_read(self, node: int, key: bytes, one: bool) -> None:
        """The answer under way is older than what another node wrote meanwhile: nobody but who asked may have it."""
        if self.tasks:
            return  # what this node writes itself may fill memory, too
        self.news(node, key)
        self.hold(node, ("get_many",))
        self.get(node, key)
        self.run(turns())
        before = self.run(self.store.get(self.kind, key))
        value = self.new_value(500.0)
        self.run(self.store.set(self.kind, key, value, self.ends[value]))
        self.news(node, key if one else None)
        self.release(node)
        kept = self.nodes[node].backend.memory.find(self.kind, key)
        assert kept is None or kept != before, f"{kept} is kept, which another node changed before it came"

    @rule()
    def all_is_well_again(self) -> None:
        self.heal()
        for key in BOTH:
            stored = self.all_have(self.kind, key)
            for node in self.nodes:
                assert stored is None or stored.value not in node.gone[self.kind.name, key], f"{stored} is back"


class Upheavals(NodesAndStore):
    """A store that forgets, and nodes that end with all that they still owed it and begin anew."""

    @rule()
    def the_store_forgets(self) -> None:
        self.run(self.store.clear(self.kind))

    @rule(node=NODES)
    def a_node_begins_anew(self, node: int) -> None:
        self.run(self._restart(self.nodes[node]))

    async def _restart(self, node: Node) -> None:
        await node.backend.close()
        node.begin()


TestNodesAndStore = NodesAndStore.TestCase
TestNodesAndStore.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

TestUpheavals = Upheavals.TestCase
TestUpheavals.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
