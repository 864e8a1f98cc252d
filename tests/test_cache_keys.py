"""Which key a name stands for: known for as long as it may matter, and never another one."""

from __future__ import annotations

from contextlib import ExitStack

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from oidc_middleware.cache import EVERYTHING, TYPES, CacheType, Change
from oidc_middleware.cache.keys import KeysByName
from oidc_middleware.testing import ManualClock

GENERAL, SESSION, BLACKLIST = TYPES["general"], TYPES["session"], TYPES["blacklist"]
KINDS = st.sampled_from([GENERAL, SESSION, BLACKLIST])
KEYS = st.integers(0, 12).map(lambda number: b"%d" % number)
MOST = 4


def names_of(key: bytes) -> list[bytes]:
    return [b"old " + key, b"new " + key]


def told(kind: CacheType, *names: bytes) -> Change:
    return Change(kind.name, frozenset(names))


class NamesOverTime(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(now=1000.0)
        self.keys = KeysByName(self.clock.monotonic, MOST)
        self.filled: dict[tuple[str, bytes], float] = {}
        self.asking: list[tuple[str, bytes, ExitStack]] = []

    @rule(kind=KINDS, key=KEYS)
    def fill(self, kind: CacheType, key: bytes) -> None:
        self.keys.remember(kind, dict.fromkeys(names_of(key), key))
        self.filled[kind.name, key] = self.clock.monotonic()

    @rule(kind=KINDS, key=KEYS)
    def ask(self, kind: CacheType, key: bytes) -> None:
        asking = ExitStack()
        asking.enter_context(self.keys.asking(kind, dict.fromkeys(names_of(key), key)))
        self.asking.append((kind.name, key, asking))

    @rule(number=st.integers(0, 5), found=st.booleans())
    def answer(self, number: int, *, found: bool) -> None:
        if number < len(self.asking):
            kind, key, asking = self.asking.pop(number)
            if found:
                self.fill(TYPES[kind], key)
            asking.close()

    @rule(seconds=st.sampled_from([0.5, 4.0, 30.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(kind=KINDS, key=KEYS, name=st.integers(0, 1))
    def change(self, kind: CacheType, key: bytes, name: int) -> None:
        change = self.keys.translate(told(kind, names_of(key)[name]))
        assert change in {None, Change(kind.name), told(kind, key)}
        filled_at = self.filled.get((kind.name, key), -1.0)
        life = kind.l1_life if kind.l1_life is not None else 1e9
        is_asked = any((name, asked) == (kind.name, key) for name, asked, _ in self.asking)
        if is_asked or (filled_at >= 0 and self.clock.monotonic() - filled_at <= life):
            assert change is not None, "memory may have it"

    @rule()
    def it_is_bounded(self) -> None:
        assert len(self.keys) <= 2 * len(TYPES) * (MOST + 1)


TestNamesOverTime = NamesOverTime.TestCase


def keys(most: int = 100) -> tuple[KeysByName, ManualClock]:
    clock = ManualClock(now=1000.0)
    return KeysByName(clock.monotonic, most), clock


def test_what_memory_cannot_have_is_nobody_s_business() -> None:
    known, clock = keys()
    assert known.translate(told(GENERAL, b"a name")) is None
    known.remember(SESSION, {b"name": b"k"})
    assert known.translate(told(SESSION, b"name", b"another")) == told(SESSION, b"k")
    assert known.translate(told(GENERAL, b"name")) is None, "types have nothing in common"
    clock.advance(6.1)
    known.remember(SESSION, {b"other name": b"l"})
    clock.advance(6.1)
    known.remember(SESSION, {b"other name": b"l"})
    assert known.translate(told(SESSION, b"name")) is None


def test_changes_without_names_pass() -> None:
    known, _ = keys()
    assert known.translate(EVERYTHING) == EVERYTHING
    assert known.translate(Change("general")) == Change("general")


def test_a_type_that_forgot_too_early_is_blind_until_that_does_not_matter() -> None:
    known, clock = keys(most=4)
    for number in range(9):
        known.remember(GENERAL, {b"name %d" % number: b"%d" % number})
    assert known.translate(told(GENERAL, b"name 8")) == told(GENERAL, b"8")
    assert known.translate(told(GENERAL, b"name 0")) == Change("general")
    clock.advance(61.1)
    assert known.translate(told(GENERAL, b"name 0")) is None


def test_a_flood_of_absent_keys_drives_out_nobody() -> None:
    known, _ = keys(most=4)
    known.remember(GENERAL, {b"name": b"k"})
    for number in range(1000):
        with known.asking(GENERAL, {b"absent %d" % number: b"%d" % number}):
            assert known.translate(told(GENERAL, b"absent %d" % number)) == told(GENERAL, b"%d" % number)
    assert known.translate(told(GENERAL, b"absent 1")) is None
    assert known.translate(told(GENERAL, b"name")) == told(GENERAL, b"k")
    assert len(known) == 1


def test_several_ask_for_one_key() -> None:
    known, _ = keys()
    with known.asking(GENERAL, {b"name": b"k"}):
        with known.asking(GENERAL, {b"name": b"k"}):
            pass
        assert known.translate(told(GENERAL, b"name")) == told(GENERAL, b"k")
    assert known.translate(told(GENERAL, b"name")) is None


def test_an_empty_key_is_a_key() -> None:
    known, _ = keys()
    known.remember(GENERAL, {b"name": b""})
    assert known.translate(told(GENERAL, b"name")) == told(GENERAL, b"")
