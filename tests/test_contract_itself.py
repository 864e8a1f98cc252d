"""The exported contract notices what a tier does wrong, and says it so that one can read it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import broken_tiers

CAUGHT_BY = {
    broken_tiers.ForgetsEnds: "test_a_value_comes_back_with_its_end",
    broken_tiers.ServesWhatHasEnded: "test_an_end_is_exclusive",
    broken_tiers.StoresWhatHasEnded: "test_a_life_of_zero_or_less_stores_nothing",
    broken_tiers.RoundsEnds: "test_half_a_second_is_half_a_second",
    broken_tiers.KeepsReferences: "test_a_value_is_a_copy",
    broken_tiers.TakesAnything: "test_what_is_not_bytes_is_refused",
    broken_tiers.ManyWithoutEnds: "test_many_at_once",
    broken_tiers.ManyOneByOne: "test_of_many_none_is_stored_when_one_is_wrong",
    broken_tiers.AlwaysDeleted: "test_delete_tells_whether_something_was_there",
    broken_tiers.DeletesNothing: "test_a_set_before_a_delete_does_not_come_back",
    broken_tiers.CutsKeys: "test_keys_that_differ_late_are_two",
    broken_tiers.OneTypeForAll: "test_the_type_is_no_part_of_the_key",
    broken_tiers.ClearsAll: "test_clear_ends_one_type_alone",
    broken_tiers.AddReplaces: "test_add_stores_only_where_there_is_nothing",
    broken_tiers.AddIsNotAtomic: "test_of_those_who_add_at_once_one_is_first",
    broken_tiers.UpdateRevives: "test_an_update_revives_nothing",
    broken_tiers.UpdateReplaces: "test_an_update_loses_to_its_own_version_and_to_a_higher_one",
    broken_tiers.VersionsAreText: "test_the_highest_version_stays_in_whatever_order_they_come",
    broken_tiers.ForgetsVersions: "test_an_update_replaces_a_lower_version",
    broken_tiers.WorksWhenClosed: "test_a_set_after_close_raises_and_a_second_close_does_nothing",
}


@pytest.fixture(scope="module")
def outcome() -> str:
    """Run the contract in a pytest of its own, all of it over the flawless tier; return what that says."""
    file = Path(broken_tiers.__file__)
    chosen = " or ".join(["Flawless", *(f"({broken.__name__} and {test})" for broken, test in CAUGHT_BY.items())])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-q",
        "--tb=short",
        "-rf",
        "-k",
        chosen,
        file.name,
    ]
    return subprocess.run(command, cwd=file.parent, capture_output=True, text=True, timeout=300, check=False).stdout


def failed(outcome: str, broken: type) -> set[str]:
    return {
        name
        for name, case in re.findall(r"^FAILED \S+::TestBroken::(\w+)\[(\S+)\]", outcome, re.MULTILINE)
        if broken.__name__ in case.split("-")
    }


def test_a_tier_that_does_all_right_passes(outcome: str) -> None:
    assert failed(outcome, broken_tiers.Flawless) == set()
    assert re.search(r"\d+ failed, \d+ passed", outcome), outcome


@pytest.mark.parametrize(("broken", "test"), CAUGHT_BY.items(), ids=[broken.__name__ for broken in CAUGHT_BY])
def test_what_a_tier_does_wrong_is_noticed(outcome: str, broken: type, test: str) -> None:
    assert test in failed(outcome, broken)


def test_every_broken_tier_is_looked_at() -> None:
    assert {*CAUGHT_BY, broken_tiers.Flawless} == set(broken_tiers.BROKEN)


def test_a_failure_shows_the_values(outcome: str) -> None:
    """As in a test file: pytest rewrites the assertions of the contract."""
    assert "expires_at: inf != 1800003600.25" in outcome
