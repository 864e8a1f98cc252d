"""Sessions on several nodes over one store that fails in every way: born once, refreshed anywhere, ended once."""

from __future__ import annotations

import math
from collections import defaultdict

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import initialize, rule

from oidc_middleware.cache import TYPES, Entry
from oidc_middleware.errors import BackendUnavailable

from hybrid_machine import NODES, WRITES, FallibleNode, FallibleNodes
from tier_kit import Mode, turns

SESSION = TYPES["session"]
LIVES = st.sampled_from([-1.0, 30.0, 500.0, 500.0, 500.0, 500.0])
NEWEST = st.sampled_from([0, 0, 0, 1])
# Versions come in order, again, and too late.
VERSIONS = st.sampled_from([1, 1, 1, 0, -1])
ROUNDS = st.sampled_from([0, 3, 20, 20])
TROUBLE: st.SearchStrategy[Mode] = st.sampled_from(["down", "unacknowledged"])
ENDED = math.inf


class Node(FallibleNode):
    """A node, the sessions that it saw and ended, and what it knows of them.

    `acknowledged` has the highest version that the store acknowledged to it, `heard` the highest that it heard of from
    others, ENDED if they ended it. What it `wrote` itself it may go by nevertheless until that is settled; of what it
    `promised` to send again it has the newest.
    """

    def begin(self) -> None:
        super().begin()
        self.seen: list[bytes] = []
        self.ended: set[bytes] = set()
        self.acknowledged: defaultdict[bytes, int] = defaultdict(int)
        self.heard: defaultdict[bytes, float] = defaultdict(float)
        self.wrote: set[bytes] = set()
        self.promised: dict[bytes, Entry] = {}

    def sees(self, key: bytes) -> None:
        if key not in self.seen:
            self.seen.append(key)

    def promise(self, key: bytes, entry: Entry) -> None:
        """Note an entry that the store did not acknowledge, and that this node sends again."""
        before = self.promised.get(key)
        if before is None or before.version <= entry.version:
            self.promised[key] = entry

    def kept(self) -> dict[bytes, Entry]:
        rooms = self.backend._tiers.rooms
        return {rooms.split(full)[1]: entry for full, entry in self.backend._tiers.unsettled.entries()}

    def owes(self, key: bytes) -> bool:
        return self.backend._tiers.rooms.of(SESSION).prefix + key in self.backend._tiers.unsettled


class Sessions(FallibleNodes[Node]):
    def __init__(self) -> None:
        super().__init__(Node)
        self.written: dict[bytes, tuple[bytes, Entry]] = {}
        self.newest: defaultdict[bytes, int] = defaultdict(int)
        self.born: set[bytes] = set()
        self.surely_born: set[bytes] = set()
        self.surely_ended: set[bytes] = set()

    def new_entry(self, node: int, key: bytes, version: int, life: float) -> Entry:
        entry = Entry(b"%d" % len(self.written), self.clock.now() + life, version)
        self.written[entry.value] = key, entry
        self.nodes[node].wrote.add(entry.value)
        return entry

    def a_session(self, node: int, back: int) -> bytes | None:
        """Return a session that the node saw, the newest but so many."""
        seen = self.nodes[node].seen
        return seen[-1 - back] if len(seen) > back else None

    # ----------------------------------------------------------------------------------------------------------- calls

    @initialize()
    def all_know_a_session(self) -> None:
        self.birth(0, 20)
        for node in self.nodes[1:]:
            self.begin(self._look(node, self.nodes[0].seen[0]))
        self.run(turns())

    @rule(node=NODES, rounds=ROUNDS)
    def birth(self, node: int, rounds: int) -> None:
        key = b"session %d" % len(self.written)
        self.begin(self._birth(self.nodes[node], key, self.new_entry(node, key, 0, 500.0)))
        self.run(turns(rounds))

    async def _birth(self, node: Node, key: bytes, entry: Entry) -> None:
        try:
            assert await node.backend.add(SESSION, key, *entry)
            self.surely_born.add(key)
        except BackendUnavailable:
            pass
        self.born.add(key)
        node.sees(key)

    @rule(node=NODES, back=NEWEST, version=VERSIONS, life=LIVES, rounds=ROUNDS)
    def refresh(self, node: int, back: int, version: int, life: float, rounds: int) -> None:
        if key := self.a_session(node, back):
            self.begin_refresh(node, key, version, life)
            self.run(turns(rounds))

    @rule(node=NODES, back=NEWEST, version=VERSIONS, writes=TROUBLE, rounds=ROUNDS)
    def refresh_in_trouble(self, node: int, back: int, version: int, writes: Mode, rounds: int) -> None:
        self.nodes[node].tier.writes = writes
        self.refresh(node, back, version, 500.0, rounds)

    def begin_refresh(self, node: int, key: bytes, step: int, life: float) -> None:
        """Begin a refresh, to a version so far from the newest one."""
        version = max(1, self.newest[key] + step)
        self.newest[key] = max(self.newest[key], version)
        self.begin(self._refresh(self.nodes[node], key, self.new_entry(node, key, version, life)))

    async def _refresh(self, node: Node, key: bytes, entry: Entry) -> None:
        try:
            stored = await node.backend.update(SESSION, key, *entry)
        except BackendUnavailable:
            if key not in node.ended:
                node.promise(key, entry)
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
        if key in self.surely_born and not node.owes(key):
            self.surely_ended.add(key)

    @rule(node=NODES, back=st.sampled_from([1, 2, 3]))
    def look(self, node: int, back: int) -> None:
        """Ask for a session that was born anywhere."""
        keys = list(dict.fromkeys(key for key, _ in self.written.values()))
        if len(keys) >= back:
            self.begin(self._look(self.nodes[node], keys[-back]))

    async def _look(self, node: Node, key: bytes) -> None:
        has_ended, least = key in node.ended and key in self.surely_born, node.acknowledged[key]
        heard = node.heard[key]
        try:
            entry = await node.backend.get(SESSION, key)
        except BackendUnavailable:
            return
        if entry is not None:
            assert self.written[entry.value] == (key, entry)
            self.has_not_ended(entry)
            assert not has_ended, f"{key!r} is served again"
            assert entry.version >= least, f"version {entry.version} of {key!r} is served after {least}"
            assert entry.version >= heard or entry.value in node.wrote, f"{entry} is served after news of {heard}"
            node.sees(key)

    @rule(node=NODES, back=NEWEST, one=st.booleans())
    def news(self, node: int, back: int, one: bool) -> None:
        """Others changed a session, or any of them: what the store has acknowledged until now is known."""

        async def hear(node: Node, key: bytes | None) -> None:
            node.hear(SESSION, key)

        if key := self.a_session(node, back):
            for known in [key] if one else self.nodes[node].seen:
                self.nodes[node].heard[known] = self.acknowledged(known)
            self.begin(hear(self.nodes[node], key if one else None))

    def acknowledged(self, key: bytes) -> float:
        """Return the highest version that the store acknowledged to anybody, ENDED if it did so of the end."""
        return ENDED if key in self.surely_ended else max(node.acknowledged[key] for node in self.nodes)

    @rule(node=NODES, back=NEWEST, writes=WRITES)
    def an_end_overtakes_a_refresh(self, node: int, back: int, writes: Mode) -> None:
        """The refresh is under way when this node ends the session."""
        if key := self.a_session(node, back):
            self.hold(node, ("update",))
            self.refresh(node, back, 1, 500.0, 20)
            self.end(node, back)
            self.run(turns())
            self.nodes[node].tier.writes = writes
            self.release(node)
            self.begin(self._look(self.nodes[node], key))

    @rule(node=NODES, back=NEWEST, writes=TROUBLE)
    def refreshes_in_the_wrong_order(self, node: int, back: int, writes: Mode) -> None:
        """The newer one is lost first, and memory knows of neither."""
        self.time_passes(6.0)
        self.nodes[node].tier.writes = writes
        if key := self.a_session(node, back):
            self.begin_refresh(node, key, 2, 500.0)
            self.begin_refresh(node, key, -1, 500.0)
            self.run(turns())

    @rule(node=NODES, back=NEWEST, writes=WRITES)
    def an_answer_overtakes_another(self, node: int, back: int, writes: Mode) -> None:
        """The answer to an older refresh comes after the newer one was answered, or lost."""
        tier = self.nodes[node].tier
        tier.heal()
        if key := self.a_session(node, back):
            self.hold(node, ("update",), late=True)
            self.begin_refresh(node, key, 1, 500.0)
            self.run(turns())
            answer = tier.gates.pop("update")
            tier.writes = writes
            self.begin_refresh(node, key, 1, 500.0)
            self.run(turns())
            tier.writes = "well"
            answer.set()
            self.run(turns())
            self.begin(self._look(self.nodes[node], key))

    @rule(node=NODES, other=NODES, back=NEWEST, one=st.booleans())
    def news_overtake_a_look(self, node: int, other: int, back: int, one: bool) -> None:
        """The answer of the store is under way when another node refreshes the session, and this one hears of it."""
        self.time_passes(6.0)  # memory has nothing
        self.hold(node, ("get_many",))
        if (key := self.a_session(node, back)) and node != other and key in self.nodes[other].seen:
            self.begin(self._look(self.nodes[node], key))
            self.run(turns())
            self.nodes[other].tier.heal()
            self.begin_refresh(other, key, 1, 500.0)
            self.run(turns())
            self.news(node, back, one)
            self.release(node)
            self.begin(self._look(self.nodes[node], key))

    # --------------------------------------------------------------------------------------------------------- healing

    @rule()
    def all_is_well_again(self) -> None:
        kept = [node.kept() for node in self.nodes] + [node.promised for node in self.nodes]
        self.heal()
        for key in {key for key, _ in self.written.values()}:
            stored = self.all_have(SESSION, key)
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
        elif key in self.born:  # else its birth was interrupted
            ends = [entry.expires_at for known, entry in self.written.values() if known == key]
            assert min(ends) <= now, f"{key!r} is lost"


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
