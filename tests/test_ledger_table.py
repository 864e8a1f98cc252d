"""A table of digests is a dict that takes less: under any sequence of joins, sweeps and pages, and any digests."""

from __future__ import annotations

from contextlib import ExitStack
from unittest.mock import patch

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from oidc_middleware.core.ledger import table as room
from oidc_middleware.core.ledger.table import FEW, LAST_DIGEST, Joined, Table

# The first and last of all, those of one shard, neighbours across a border, and any.
BORDER = 1 << 51
DIGESTS = st.one_of(
    st.sampled_from([0, 1, LAST_DIGEST, LAST_DIGEST - 1, BORDER - 1, BORDER, BORDER + 1]),
    st.integers(7 * BORDER, 7 * BORDER + 40),
    st.integers(0, LAST_DIGEST),
)
NUMBERS = st.integers(0, 20) | st.integers(0, 0xFFFF_FFFF)


class TableAndDict(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patches = ExitStack()
        self.table = Table()
        self.model: dict[int, tuple[int, int]] = {}
        self.go_on = 0

    @initialize(few=st.sampled_from([0, 3, FEW]))
    def begin(self, few: int) -> None:
        self.patches.enter_context(patch.object(room, "FEW", few))

    def teardown(self) -> None:
        self.patches.close()

    @rule(digest=DIGESTS, number=NUMBERS, end=NUMBERS)
    def join(self, digest: int, number: int, end: int) -> None:
        old = self.model.get(digest)
        new = (number, end) if old is None else (max(number, old[0]), max(end, old[1]))
        self.model[digest] = new
        expected = Joined.NUMBER if old is None or new[0] > old[0] else Joined(new != old)
        assert self.table.join(digest, number, end) is expected

    @rule(start=DIGESTS, at_most=st.integers(1, 50))
    def page(self, start: int, at_most: int) -> None:
        expected = [(digest, end << 32 | number) for digest, (number, end) in self.model.items() if digest >= start]
        assert self.table.page(start, at_most) == sorted(expected)[:at_most]

    @rule(at_most=st.integers(0, 10), before=NUMBERS)
    def sweep(self, at_most: int, before: int) -> None:
        ahead = sorted(digest for digest in self.model if digest >= self.go_on)
        looked_at = ahead[:at_most]
        for digest in looked_at:
            if self.model[digest][1] < before:
                del self.model[digest]
        start, self.go_on = self.go_on, 0
        go_on, left = self.table.sweep(start, at_most, before)
        if go_on <= LAST_DIGEST:
            self.go_on = go_on
            assert len(looked_at) == at_most
            assert left == 0
            assert start <= go_on
            assert not [digest for digest in ahead[at_most:] if digest < go_on]
        else:
            assert looked_at == ahead
            assert left == at_most - len(ahead)

    @rule(digest=DIGESTS)
    def get(self, digest: int) -> None:
        known = self.model.get(digest)
        assert self.table.get(digest) == (None if known is None else known[1] << 32 | known[0])

    @invariant()
    def nothing_else_is_there(self) -> None:
        assert len(self.table) == len(self.model)
        assert (self.table.memory_bytes >= 16 * len(self.model)) is True
        for digest, (number, end) in self.model.items():
            assert self.table.get(digest) == end << 32 | number


TestTableAndDict = TableAndDict.TestCase
TestTableAndDict.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


@pytest.fixture
def in_shards(monkeypatch: pytest.MonkeyPatch) -> Table:
    """Give a table that never uses a dict."""
    monkeypatch.setattr(room, "FEW", 0)
    return Table()


@pytest.mark.parametrize("step", [1, BORDER, 1 << 32], ids=["one-shard", "one-in-each-shard", "few-shards"])
def test_digests_that_were_chosen(step: int, in_shards: Table) -> None:
    """Digests that meet in one place are as well off as others: there is no slot to meet in."""
    digests = [number * step for number in range(4000)]
    for digest in digests:
        in_shards.join(digest, digest % 97, 100)
    assert in_shards.page(0, 5000) == [(digest, 100 << 32 | digest % 97) for digest in digests]

    start = 0
    while start <= LAST_DIGEST:
        start, _ = in_shards.sweep(start, 1000, 101)
    assert len(in_shards) == 0
    assert in_shards.page(0, 1) == []


@pytest.mark.parametrize("ended", range(3))
@pytest.mark.parametrize("at_most", [1, 2, 3])
def test_what_lies_beside_what_is_swept_is_found(ended: int, at_most: int, in_shards: Table) -> None:
    """Three in one cell of the map, of which one goes, however far each sweep looks."""
    for digest in range(3):
        in_shards.join(digest, 0, 1 if digest == ended else 2)
    start = 0
    while start <= LAST_DIGEST:
        start, _ = in_shards.sweep(start, at_most, 2)
    assert [in_shards.get(digest) is None for digest in range(3)] == [digest == ended for digest in range(3)]


def test_what_is_swept_leaves_no_room_behind(in_shards: Table) -> None:
    """As often as it is filled and swept, a table grows no larger than what it holds: there are no tombstones."""
    for turn in range(20):
        for number in range(1000):
            in_shards.join(number << 30, turn, turn)
        in_shards.sweep(0, 10_000, turn + 1)
        assert len(in_shards) == 0
        assert sum(digests.buffer_info()[1] for digests in in_shards._digests) == 0
        assert not any(in_shards._map)


def test_a_dict_becomes_shards_when_it_is_full() -> None:
    table = Table()
    for number in range(FEW + 1):
        table.join(number << 40, number, number + 1)
        assert (table._few is None) is (number == FEW)
    assert table.page(0, FEW + 2) == [(number << 40, number + 1 << 32 | number) for number in range(FEW + 1)]
    assert [table.get(number << 40) for number in (0, FEW, FEW + 1)] == [1 << 32, FEW + 1 << 32 | FEW, None]
