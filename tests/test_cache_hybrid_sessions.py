"""Sessions on several nodes over one store that fails in every way: born once, refreshed anywhere, ended once."""

from __future__ import annotations

from collections import defaultdict

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import initialize, rule

from oidc_middleware.cache import TYPES, Entry, MemoryBackend
from oidc_middleware.errors import BackendUnavailable
from oidc_middleware.testing import ManualClock

from hybrid_machine import NODES, FallibleNode, FallibleNodes
from tier_kit import Mode, turns

SESSION = TYPES["session"]
LIVES = st.sampled_from([-1.0, 30.0, 500.0, 500.0, 500.0, 500.0])
NEWEST = st.sampled_from([0, 0, 0, 1])
# Versions come in order, again, and too late.
VERSIONS = st.sampled_from([1, 1, 1, 0, -1])
ROUNDS = st.sampled_from([0, 3, 20, 20])
TROUBLE = st.sampled_from(["down", "unacknowledged"])


class Node(FallibleNode):
    """A node, the sessions that it saw and ended, and the versions that were acknowledged to it."""

    def __init__(self, clock: ManualClock, store: MemoryBackend) -> None:
        super().__init__(clock, store)
        self.seen: list[bytes] = []
        self.ended: set[bytes] = set()
        self.acknowledged: defaultdict[bytes, int] = defaultdict(int)

    def sees(self, key: bytes) -> None:
        if key not in self.seen:
            self.seen.append(key)

    def kept(self) -> dict[bytes, Entry]:
        rooms = self.backend._tiers.rooms
        return {rooms.split(full)[1]: entry for full, entry in self.backend._tiers.unsettled.entries()}


class Sessions(FallibleNodes[Node]):
    def __init__(self) -> None:
        super().__init__(Node)
        self.written: dict[bytes, tuple[bytes, Entry]] = {}
        self.newest: defaultdict[bytes, int] = defaultdict(int)
        self.surely_born: set[bytes] = set()

    def new_entry(self, key: bytes, version: int, life: float) -> Entry:
        entry = Entry(b"%d" % len(self.written), self.clock.now() + life, version)
        self.written[entry.value] = key, entry
        return entry

    @initialize()
    def all_know_a_session(self) -> None:
        self.birth(0, 20)
        self.begin(self._look(self.nodes[1], self.nodes[0].seen[0]))
        self.runner.run(turns())

    @rule(node=NODES, rounds=ROUNDS)
    def birth(self, node: int, rounds: int) -> None:
        key = b"session %d" % len(self.written)
        self.begin(self._birth(self.nodes[node], key, self.new_entry(key, 0, 500.0)))
        self.runner.run(turns(rounds))

    async def _birth(self, node: Node, key: bytes, entry: Entry) -> None:
        try:
            assert await node.backend.add(SESSION, key, *entry)
            self.surely_born.add(key)
        except BackendUnavailable:
            pass
        node.sees(key)

    @rule(node=NODES, back=NEWEST, version=VERSIONS, life=LIVES, rounds=ROUNDS)
    def refresh(self, node: int, back: int, version: int, life: float, rounds: int) -> None:
        if key := self.a_session(node, back):
            version = max(1, self.newest[key] + version)
            self.newest[key] = max(self.newest[key], version)
            self.begin(self._refresh(self.nodes[node], key, self.new_entry(key, version, life)))
            self.runner.run(turns(rounds))

    @rule(node=NODES, back=NEWEST, version=VERSIONS, writes=TROUBLE, rounds=ROUNDS)
    def refresh_in_trouble(self, node: int, back: int, version: int, writes: Mode, rounds: int) -> None:
        self.nodes[node].tier.writes = writes
        self.refresh(node, back, version, 500.0, rounds)

    async def _refresh(self, node: Node, key: bytes, entry: Entry) -> None:
        try:
            stored = await node.backend.update(SESSION, key, *entry)
        except BackendUnavailable:
            return
        if stored:
            node.acknowledged[key] = max(node.acknowledged[key], entry.version)

    @rule(node=NODES, back=NEWEST)
    def end(self, node: int, back: int) -> None:
        if key := self.a_session(node, back):
            self.nodes[node].ended.add(key)
            self.begin(self._end(self.nodes[node], key))

    async def _end(self, node: Node, key: bytes) -> None:
        await node.backend.delete(SESSION, key)

    @rule(node=NODES, back=st.sampled_from([1, 2, 3]))
    def look(self, node: int, back: int) -> None:
        """Ask for a session that was born anywhere."""
        keys = list(dict.fromkeys(key for key, _ in self.written.values()))
        if len(keys) >= back:
            self.begin(self._look(self.nodes[node], keys[-back]))

    async def _look(self, node: Node, key: bytes) -> None:
        has_ended, least = key in node.ended and key in self.surely_born, node.acknowledged[key]
        try:
            entry = await node.backend.get(SESSION, key)
        except BackendUnavailable:
            return
        if entry is not None:
            assert self.written[entry.value] == (key, entry)
            assert not has_ended, f"{key!r} is served again"
            assert entry.version >= least, f"version {entry.version} of {key!r} is served after {least}"
            node.sees(key)

    @rule(node=NODES, back=NEWEST)
    def invalidate(self, node: int, back: int) -> None:
        async def invalidate(key: bytes) -> None:
            self.nodes[node].backend.invalidate(SESSION, key)

        if key := self.a_session(node, back):
            self.begin(invalidate(key))

    def a_session(self, node: int, back: int) -> bytes | None:
        """Return a session that the node saw, the newest but so many."""
        seen = self.nodes[node].seen
        return seen[-1 - back] if len(seen) > back else None

    @rule()
    def all_is_well_again(self) -> None:
        kept = [node.kept() for node in self.nodes]
        self.heal()
        self.clock.advance(61)
        for key in {key for key, _ in self.written.values()}:
            stored = self.runner.run(self.store.get(SESSION, key))
            for node in self.nodes:
                assert self.runner.run(node.backend.get(SESSION, key)) == stored
            self.is_what_it_should_be(key, stored, [entries[key] for entries in kept if key in entries])

    def is_what_it_should_be(self, key: bytes, stored: Entry | None, kept: list[Entry]) -> None:
        now = self.clock.now()
        if any(key in node.ended for node in self.nodes):
            assert stored is None or key not in self.surely_born, f"{key!r} is revived"
            return
        least = max(node.acknowledged[key] for node in self.nodes)
        least = max([least, *(entry.version for entry in kept if now < entry.expires_at)])
        if stored is not None:
            assert stored.version >= least, f"{key!r} fell back from {least} to {stored.version}"
        else:
            ends = [entry.expires_at for known, entry in self.written.values() if known == key]
            assert min(ends) <= now, f"{key!r} is lost"


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
