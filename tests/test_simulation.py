"""The ledger's protocol under schedules of faults, and that the simulation would notice a broken rule."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from simulation.faults import FAULTS
from simulation.fleet import RECIPES, Plan, replay, run
from simulation.judge import Violation
from simulation.mutants import MUTANTS, PROVOKED_BY, broken
from simulation.noticed import NOTICED_BY

SLICE = 50


def carry_out(seeds: Sequence[int], kinds: Sequence[str] = ()) -> None:
    """Carry out schedules; show the first one that breaks a promise."""
    for seed in seeds:
        try:
            run(seed, kinds)
        except Violation:
            pytest.fail(replay(seed, kinds))


@pytest.mark.parametrize("first", range(0, 400, SLICE))
def test_no_promise_is_broken(first: int) -> None:
    carry_out(range(first, first + SLICE))


@pytest.mark.parametrize("kind", sorted(FAULTS))
def test_no_promise_is_broken_by_one_kind_of_fault(kind: str) -> None:
    carry_out(range(5), [kind])


def test_a_seed_replays_exactly() -> None:
    once, again = replay(11), replay(11)
    assert once == again
    assert once.endswith("no violation")
    assert replay(12) != once


def test_a_broken_promise_is_shown_with_its_schedule() -> None:
    with broken("nothing is written back"):
        shown = replay(NOTICED_BY["nothing is written back"][0])
    assert shown.startswith("Plan(seed=")
    assert "Revoked" in shown
    assert "violation: " in shown


def test_recipes_name_faults() -> None:
    assert {kind for recipe in (*RECIPES, *PROVOKED_BY.values()) for kind in recipe} <= set(FAULTS)
    assert Plan.of(7) == Plan.of(7)


def test_every_mutant_is_noticed_by_some_seed() -> None:
    assert set(NOTICED_BY) == set(MUTANTS)


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_broken_rule_is_noticed(name: str) -> None:
    kinds = PROVOKED_BY.get(name, ())
    carry_out(NOTICED_BY[name], kinds)
    with broken(name):
        for seed in NOTICED_BY[name]:
            with pytest.raises(Violation):
                run(seed, kinds)
