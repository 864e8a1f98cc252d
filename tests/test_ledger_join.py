"""Ledgers are joined, in any order and as often as one likes; nothing is forgotten before its time or kept after it."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import permutations
from unittest.mock import patch

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from oidc_middleware.core.ledger import table
from oidc_middleware.core.ledger.digests import LedgerKeys, Marks
from oidc_middleware.core.ledger.ledger import Ledger
from oidc_middleware.core.ledger.records import GRACE, Kind, Record

A, B, STRANGE = b"\0\0\0A", b"\0\0\0B", b"\xff" * 4
ALL_KEYS = {A: b"a" * 32, B: b"b" * 32}
KEYS = LedgerKeys({A: ALL_KEYS[A]})
ROTATED = LedgerKeys({B: ALL_KEYS[B], A: ALL_KEYS[A]})
ISSUER = "https://login.example.com"
T = 1_800_000_000
DAY = 86_400

Thing = tuple[Kind, bytes, int]
Numbers = tuple[int, int]

# Few things, so that they meet; 0 is what a token has where it has no session or client.
records = st.builds(
    lambda kind, key_id, digest, number, life: Record(kind, key_id, digest, number, number + life),
    st.sampled_from(Kind),
    st.sampled_from([A, B, STRANGE]),
    st.integers(0, 3) | st.integers(0, 3).map(lambda number: number << 62),
    st.integers(T - 50, T + 50),
    st.integers(0, 100),
)
batches = st.lists(records, max_size=12)


def thing(record: Record) -> Thing:
    return record.kind, record.key_id, record.digest


def contents(ledger: Ledger) -> list[Record]:
    return ledger.records(at_most=10_000)


def merged(*parts: list[Record]) -> Ledger:
    ledger = Ledger(ROTATED, leeway=0)
    for part in parts:
        ledger.merge(part)
    return ledger


def model(records: list[Record]) -> list[Record]:
    """Return what a ledger holds of records, found in the plainest way."""
    things: dict[Thing, Numbers] = {}
    for record in records:
        number, end = things.get(thing(record), (0, 0))
        things[thing(record)] = max(number, record.number), max(end, record.end)
    return sorted(Record(*of, *numbers) for of, numbers in things.items())


# The join


@given(batches, batches, batches)
def test_a_merge_does_not_ask_for_order_or_number(one: list[Record], two: list[Record], three: list[Record]) -> None:
    """It is commutative, associative and idempotent, and takes ledgers for records."""
    expected = model(one + two + three)
    for parts in permutations((one, two, three)):
        assert contents(merged(*parts)) == expected
    assert contents(merged(one, one, two, three, one)) == expected
    assert contents(merged(one, contents(merged(two, three)))) == expected
    assert contents(merged(contents(merged(one, two)), three)) == expected


@given(batches, batches)
def test_a_merge_tells_what_it_changed(before: list[Record], batch: list[Record]) -> None:
    ledger = merged(before)
    for record in batch:
        old = ledger.find(*thing(record))
        generation = ledger.generation
        is_new = old is None or record.number > old.number or record.end > old.end
        assert ledger.merge([record]) == ([record] if is_new else [])
        found = ledger.find(*thing(record))
        assert found == model([record] if old is None else [old, record])[0]
        may_refuse = (old is None or record.number > old.number) and record.key_id != STRANGE
        assert ledger.generation == generation + may_refuse
    assert ledger.merge(before + batch) == []


def test_a_later_end_is_a_change_that_refuses_nothing_more() -> None:
    ledger = Ledger(KEYS, leeway=0)
    record = KEYS.subject(ISSUER, "alice", T, DAY)
    longer, older = record._replace(end=T + 2 * DAY), record._replace(number=T - 1, end=T + 3 * DAY)
    assert (ledger.merge([record]), ledger.generation) == ([record], 1)
    assert (ledger.merge([longer, record]), ledger.generation) == ([longer], 1)
    assert (ledger.merge([older]), ledger.generation) == ([older], 1)
    assert contents(ledger) == [record._replace(end=T + 3 * DAY)]
    assert (ledger.merge([record._replace(number=T + 1)]), ledger.generation) == ([record._replace(number=T + 1)], 2)


@given(batches)
def test_what_is_counted_is_there(batch: list[Record]) -> None:
    ledger = merged(batch)
    held = contents(ledger)
    assert len(ledger) == len(held)
    assert ledger.counts == {kind: sum(record.kind is kind for record in held) for kind in Kind}
    assert ledger.unknown_key_ids == {record.key_id for record in held} - {A, B}
    assert ledger.memory_bytes > 0 or not held


def test_a_batch_that_breaks_off_counts_as_far_as_it_got() -> None:
    ledger = Ledger(KEYS, leeway=0)
    marks = KEYS.marks({"iss": ISSUER, "jti": "t"}, b"")

    def broken() -> object:
        yield KEYS.token(ISSUER, "t", T)
        raise OSError("the rest is lost")

    with pytest.raises(OSError, match="the rest is lost"):
        ledger.merge(broken())  # type: ignore[arg-type]
    assert ledger.refuses(marks) == KEYS.token(ISSUER, "t", T)
    assert ledger.generation == 1


# Time


class LedgerAndModel(RuleBasedStateMachine):
    """Merges, sweeps, pages and look-ups in any order, against a list of all that was ever merged."""

    LEEWAY = 5

    def __init__(self) -> None:
        super().__init__()
        self.patches = ExitStack()
        self.ledger = Ledger(ROTATED, leeway=self.LEEWAY)
        self.now = float(T)
        self.model: dict[Thing, Numbers] = {}
        self.swept_before = 0.0
        self.last: Record | None = None
        self.throughout: set[Thing] = set()
        self.paged: list[Thing] = []

    @initialize(few=st.sampled_from([0, 2, table.FEW]))
    def begin(self, few: int) -> None:
        self.patches.enter_context(patch.object(table, "FEW", few))

    def teardown(self) -> None:
        self.patches.close()

    @rule(batch=batches)
    def merge(self, batch: list[Record]) -> None:
        self.ledger.merge(batch)
        for record in batch:
            number, end = self.model.get(thing(record), (0, 0))
            self.model[thing(record)] = max(number, record.number), max(end, record.end)

    @rule(seconds=st.floats(0, 50) | st.sampled_from([0.0, 1.0, GRACE]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(at_most=st.integers(1, 5))
    def sweep(self, at_most: int) -> None:
        before, generation = len(self.ledger), self.ledger.generation
        self.ledger.sweep(self.now, at_most)
        assert 0 <= before - len(self.ledger) <= at_most
        assert self.ledger.generation == generation
        self.forget_what_may_be_gone()

    @rule(at_most=st.integers(1, 5))
    def sweep_all(self, at_most: int) -> None:
        """The round that is under way ends, then a whole one goes through."""
        for _ in range(2):
            turns = 0
            while not self.ledger.sweep(self.now, at_most):
                turns += 1
                assert turns <= len(self.model) + 1
        self.forget_what_may_be_gone()
        assert len(self.ledger) == len(self.model)

    def forget_what_may_be_gone(self) -> None:
        """What ended `GRACE` ago may be gone, and nothing else may."""
        for of in [of for of, (_, end) in self.model.items() if end + GRACE <= self.now]:
            if self.ledger.find(*of) is None:
                del self.model[of]
                self.throughout.discard(of)

    @rule()
    def sweep_all_leaves_nothing_that_ended(self) -> None:
        self.sweep_all(100)
        assert not [of for of, (_, end) in self.model.items() if end + GRACE <= self.now]

    @rule(at_most=st.integers(1, 4))
    def page(self, at_most: int) -> None:
        if self.last is None:
            self.throughout, self.paged = set(self.model), []
        page = self.ledger.records(self.last, at_most)
        assert page == [self.ledger.find(*thing(record)) for record in page]
        self.paged += map(thing, page)
        assert self.paged == sorted(set(self.paged))
        self.last = page[-1] if page else None
        if self.last is None:
            assert self.throughout <= set(self.paged)

    @rule(
        digests=st.tuples(*[st.integers(0, 3) | st.integers(0, 3).map(lambda number: number << 62)] * 8),
        iat=st.none() | st.integers(T - 60, T + 60) | st.floats(T - 60, T + 60),
    )
    def refuse(self, digests: tuple[int, ...], iat: float | None) -> None:
        reasons = []
        for key_id, kinds in ((B, digests[:4]), (A, digests[4:])):
            for kind, digest in zip(Kind, kinds, strict=False):
                numbers = self.model.get((kind, key_id, digest))
                if digest and numbers is not None:
                    until = numbers[0] + self.LEEWAY
                    if kind is Kind.TOKEN or iat is None or iat <= until:
                        reasons.append(Record(kind, key_id, digest, *numbers))
        found = self.ledger.refuses(Marks(iat, ROTATED.joined_ids, digests))
        assert found in reasons if reasons else found is None

    @invariant()
    def nothing_is_forgotten(self) -> None:
        assert contents(self.ledger) == sorted(Record(*of, *numbers) for of, numbers in self.model.items())
        assert self.ledger.unknown_key_ids == {of[1] for of in self.model} - {A, B}


TestLedgerAndModel = LedgerAndModel.TestCase
TestLedgerAndModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_record_is_kept_for_the_grace_and_no_longer() -> None:
    ledger = Ledger(KEYS, leeway=0)
    marks = KEYS.marks({"iss": ISSUER, "jti": "t"}, b"")
    record = KEYS.token(ISSUER, "t", T)
    ledger.merge([record])
    assert ledger.sweep(T + GRACE - 0.001, 10) is True
    assert ledger.refuses(marks) == record
    assert ledger.sweep(T + GRACE, 10) is True
    assert (ledger.refuses(marks), len(ledger), ledger.memory_bytes) == (None, 0, 0)


def test_a_sweep_does_not_look_at_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "FEW", 0)
    ledger = Ledger(KEYS, leeway=0)
    ledger.merge(KEYS.token(ISSUER, str(number), T) for number in range(95))
    turns = 1
    while not ledger.sweep(T + GRACE, 10):
        assert len(ledger) == 95 - 10 * turns
        turns += 1
    assert (turns, len(ledger)) == (10, 0)


# Secrets change


@given(st.text(max_size=5), st.booleans())
def test_rotation_forgets_nothing(jti: str, is_in_shards: bool) -> None:
    """What was revoked under the old key is refused under both, and what is new is revoked under the new one."""
    with patch.object(table, "FEW", 0 if is_in_shards else table.FEW):
        old = Ledger(KEYS, leeway=0)
        old.merge([KEYS.token(ISSUER, jti, T), KEYS.subject(ISSUER, "alice", T, DAY)])

        new = Ledger(ROTATED, leeway=0)
        new.merge(contents(old))

    tokens = {"iss": ISSUER, "jti": jti}, {"iss": ISSUER, "jti": jti + "2", "sub": "alice", "iat": T}
    assert [new.refuses(ROTATED.marks(token, b"")) for token in tokens] == contents(old)
    assert ROTATED.token(ISSUER, jti, T).key_id == B
    assert not new.unknown_key_ids


def test_what_is_under_an_unknown_key_is_kept() -> None:
    """It refuses nothing here and moves no generation, but it is paged and so healed, and swept at its time."""
    strange = LedgerKeys({STRANGE: b"s" * 32})
    records = [strange.token(ISSUER, "t", T), strange.subject(ISSUER, "alice", T, DAY)]
    ledger = Ledger(KEYS, leeway=0)
    ids = ledger.unknown_key_ids
    assert not ids

    assert ledger.merge(records) == records
    assert ids == {STRANGE}
    assert ledger.generation == 0
    assert ledger.refuses(KEYS.marks({"iss": ISSUER, "jti": "t", "sub": "alice"}, b"")) is None
    assert contents(ledger) == records

    ledger.sweep(T + GRACE, 10)
    assert ids == {STRANGE}
    ledger.sweep(T + DAY + GRACE, 10)
    assert (contents(ledger), set(ids)) == ([], set())


def test_marks_of_other_keys_are_an_error_and_no_pardon() -> None:
    ledger = Ledger(ROTATED, leeway=0)
    with pytest.raises(ValueError, match="marks made under other keys"):
        ledger.refuses(KEYS.marks({"iss": ISSUER, "jti": "t"}, b""))
