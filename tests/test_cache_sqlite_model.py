"""Two nodes over one file against a plain dict, step by step, under hypothesis."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlite_peer import patient

from oidc_middleware.cache import TYPES, Entry
from oidc_middleware.cache.sqlite.watch import Watch
from oidc_middleware.cache.sqlite.worker import NotOpenError
from oidc_middleware.testing.clock import ManualClock

NODES = st.sampled_from([0, 1])
KINDS = st.sampled_from([TYPES["token"], TYPES["general"], TYPES["blacklist"]])
KEYS = st.sampled_from([b"a", b"b", b"c", b"\0", b""])
VALUES = st.binary(max_size=8)
LIVES = st.one_of(st.floats(-5, 20), st.sampled_from([0.0, 1e-9, 5.0, 1e9]))


class Node:
    """A backend, and what a first tier over it would hold that drops whatever it is told to."""

    def __init__(self, path: Path, clock: ManualClock) -> None:
        self.backend = patient(path, clock)
        self.watch = Watch(self.backend._worker)
        self.memory: dict[tuple[str, bytes], Entry] = {}

    def follow(self) -> bool:
        """Drop what others changed; tell whether the file could be looked at."""
        try:
            changes = self.watch.look()
        except NotOpenError:
            return False
        for kind, keys in changes:
            for known in list(self.memory):
                if kind in {None, known[0]} and (keys is None or known[1] in keys):
                    del self.memory[known]
        return True


class FileAndModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(now=1_000_000.0)
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name, "cache.db")
        self.runner = asyncio.Runner()
        self.run = self.runner.run
        self.nodes = [Node(self.path, self.clock) for _ in range(2)]
        self.model: dict[tuple[str, bytes], Entry] = {}

    def teardown(self) -> None:
        for node in self.nodes:
            self.run(node.backend.close())
        self.runner.close()
        self.directory.cleanup()

    def expected(self, name: str, key: bytes) -> Entry | None:
        entry = self.model.get((name, key))
        return entry if entry is not None and self.clock.now() < entry.expires_at else None

    @rule(node=NODES, kind=KINDS, entries=st.dictionaries(KEYS, st.tuples(VALUES, LIVES)))
    def set_many(self, node: int, kind: Any, entries: dict[bytes, tuple[bytes, float]]) -> None:
        many = {key: Entry(value, self.clock.now() + life) for key, (value, life) in entries.items()}
        self.run(self.nodes[node].backend.set_many(kind, many))
        named = {(kind.name, key): entry for key, entry in many.items()}
        self.model |= named
        self.nodes[node].memory |= named

    @rule(node=NODES, kind=KINDS, key=KEYS)
    def get(self, node: int, kind: Any, key: bytes) -> None:
        found = self.run(self.nodes[node].backend.get(kind, key))
        assert found == self.expected(kind.name, key)
        assert self.run(self.nodes[node].backend.exists(kind, key)) == (found is not None)
        assert self.nodes[node].follow()
        if found is not None:
            self.nodes[node].memory[kind.name, key] = found

    @rule(node=NODES, kind=KINDS, keys=st.lists(KEYS))
    def get_many(self, node: int, kind: Any, keys: list[bytes]) -> None:
        found = {key: self.expected(kind.name, key) for key in keys}
        many = self.run(self.nodes[node].backend.get_many(kind, keys))
        assert many == {key: entry for key, entry in found.items() if entry}

    @rule(node=NODES, kind=KINDS, key=KEYS)
    def delete(self, node: int, kind: Any, key: bytes) -> None:
        was_there = self.run(self.nodes[node].backend.delete(kind, key))
        assert was_there == (self.expected(kind.name, key) is not None)
        self.model.pop((kind.name, key), None)
        self.nodes[node].memory.pop((kind.name, key), None)

    @rule(node=NODES, kind=KINDS)
    def clear(self, node: int, kind: Any) -> None:
        self.run(self.nodes[node].backend.clear(kind))
        for held in (self.model, self.nodes[node].memory):
            for known in [known for known in held if known[0] == kind.name]:
                del held[known]

    @rule(node=NODES)
    def restart(self, node: int) -> None:
        self.run(self.nodes[node].backend.close())
        self.nodes[node] = Node(self.path, self.clock)

    @rule(seconds=st.sampled_from([0.5, 5.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def whoever_follows_holds_nothing_that_others_changed(self) -> None:
        for node in self.nodes:
            if not node.follow():
                continue
            for (name, key), entry in node.memory.items():
                # A token that was set anew is as good as before: only its revocation is told.
                if name != "token" and self.clock.now() < entry.expires_at:
                    assert entry == self.expected(name, key)

    @invariant()
    def totals_are_what_is_there(self) -> None:
        if not self.path.exists():
            return
        counts = self.nodes[0].backend.stats()
        db = sqlite3.connect(self.path)
        try:
            for name, count in counts.items() if self.nodes[0].follow() else ():
                there = db.execute(
                    f"SELECT count(*), total(length(key) + length(value)) FROM entries_{name}"
                ).fetchone()
                assert (count.entries, count.bytes) == there
        finally:
            db.close()


TestFileAndModel = FileAndModel.TestCase
TestFileAndModel.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
