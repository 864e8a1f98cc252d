"""A replica follows one line of the log, and says since when it knows everything."""

from __future__ import annotations

import math
from itertools import chain, repeat

import pytest

from oidc_middleware.core.ledger.records import GRACE, Position
from oidc_middleware.core.replica.events import (
    Got,
    JournalFailed,
    LoadJournal,
    Look,
    Looked,
    LookFailed,
    Read,
    ReadFailed,
    Revoked,
    Scan,
    ScanFailed,
    Scanned,
    Tick,
    Write,
    Written,
)

from replica_kit import BEGIN, WALL, Bench, entry, token

FIRST = entry(BEGIN, token(1))
SECOND = entry(FIRST.position, token(2))


def has_left_the_line(bench: Bench) -> bool:
    """Tell whether everything is read anew, and what was known is kept."""
    assert bench.replica.position is None
    bench.end_read()
    bench.wait(1.1)
    return bool(bench.under_way(Look))


def test_first_it_asks_where_the_log_is_and_what_the_journal_has() -> None:
    assert [type(command) for command in Bench().tell(Tick())] == [LoadJournal, Look]


def test_it_scans_from_the_beginning_while_it_follows() -> None:
    bench = Bench()
    bench.tell(Tick())
    bench.now += 0.125
    assert bench.answer(Look, Looked(BEGIN)) == [Read(BEGIN, 0.375), Scan(b"")]


def test_nothing_is_fresh_before_everything_is_loaded() -> None:
    bench = Bench(has_journal=False)
    bench.tell(Tick())
    bench.answer(Look, Looked(BEGIN))
    bench.answer(Scan, Scanned([token(1)], b"more", BEGIN))
    assert (bench.replica.is_loaded, bench.staleness) == (False, math.inf)
    assert bench.under_way(Scan) == [Scan(b"more")]
    bench.answer(Scan, Scanned([token(2)], b"", BEGIN))
    assert (bench.replica.is_loaded, bench.staleness) == (True, 0.0)
    assert len(bench.ledger) == 2


def test_it_is_fresh_as_of_when_the_look_was_sent() -> None:
    bench = Bench()
    bench.start()
    bench.end_read()
    assert bench.under_way(Look)
    assert (bench.now, bench.replica.fresh_as_of) == (1000.5, 1000.0)
    bench.now += 3.0
    bench.answer(Look, Looked(BEGIN))
    assert (bench.staleness, bench.replica.fresh_as_of) == (3.0, 1000.5)


def test_the_answer_to_a_read_proves_nothing() -> None:
    bench = Bench()
    bench.start()
    bench.now += 0.2
    bench.answer(Read, Got([FIRST]))
    bench.now += 0.2
    bench.answer(Read, Got([]))
    assert bench.replica.position == FIRST.position
    assert bench.replica.fresh_as_of == 1000.0


def test_a_look_proves_nothing_before_its_place_is_reached() -> None:
    bench = Bench()
    bench.start()
    before = bench.replica.fresh_as_of
    bench.look_again(SECOND.position)
    assert bench.under_way(Read) == [Read(BEGIN, 0.0)]
    bench.answer(Read, Got([FIRST]))
    assert bench.replica.fresh_as_of == before
    bench.answer(Read, Got([SECOND]))
    assert bench.staleness == 0.0
    assert bench.replica.position == SECOND.position


def test_there_is_a_look_every_half_second_also_while_entries_flow() -> None:
    bench = Bench()
    bench.start()
    at, looks, last = BEGIN, 0, bench.now
    for _ in range(100):
        bench.now += 0.04
        if bench.under_way(Look):
            looks += 1
            assert bench.now - last < 0.6
            last = bench.now
            bench.answer(Look, Looked(at))
        else:
            following = entry(at, token(1))
            bench.answer(Read, Got([following]))
            at = following.position
        assert len(bench.under_way(Look, Read)) == 1
    assert looks == 7
    assert bench.staleness < 0.65


def test_a_slow_store_is_read_between_two_looks() -> None:
    bench = Bench()
    bench.start()
    bench.end_read()
    bench.now += 2.0
    bench.answer(Look, Looked(FIRST.position))
    assert bench.under_way(Look, Read) == [Read(BEGIN, 0.0)]


@pytest.mark.parametrize(
    "other",
    [
        SECOND,
        FIRST._replace(previous_id=b"another"),
        FIRST._replace(epoch=b"another"),
        FIRST._replace(number=0),
    ],
    ids=["one is missing", "another one before it", "another epoch", "a number again"],
)
def test_an_entry_that_does_not_follow_is_not_applied(other: object) -> None:
    bench = Bench()
    bench.start(token(9))
    bench.answer(Read, Got([other]))  # type: ignore[list-item]
    assert len(bench.ledger) == 1
    assert has_left_the_line(bench)


@pytest.mark.parametrize(
    "found",
    [BEGIN, FIRST.position._replace(last_id=b"another"), FIRST.position._replace(epoch=b"another")],
    ids=["it went back", "another entry of that number", "another epoch"],
)
def test_a_look_that_does_not_fit_begins_anew(found: Position) -> None:
    bench = Bench()
    bench.start()
    bench.answer(Read, Got([FIRST]))
    bench.look_again(found)
    assert has_left_the_line(bench)
    assert len(bench.ledger) == 1, "the mirror is never cleared"
    bench.answer(Look, Looked(found))
    assert bench.under_way(Scan) == [Scan(b"")]
    before = bench.replica.fresh_as_of
    bench.answer(Scan, Scanned([], b"", found))
    assert before is not None
    assert bench.replica.fresh_as_of is not None
    assert bench.replica.fresh_as_of > before


def test_a_log_that_does_not_have_what_the_look_found_is_not_followed() -> None:
    bench = Bench()
    bench.start()
    bench.look_again(FIRST.position)
    bench.answer(Read, Got([]))
    assert has_left_the_line(bench)


def test_where_the_store_was_after_a_write_must_come_by_the_log() -> None:
    bench = Bench()
    bench.start()
    bench.tell(Revoked(1, [token(1)]))
    bench.answer(Write, Written(FIRST.position))
    bench.answer(Read, Got([FIRST._replace(id=b"of another server")]))
    assert has_left_the_line(bench)


def test_a_store_that_does_not_know_its_write_any_more_went_back() -> None:
    bench = Bench()
    bench.start()
    bench.tell(Revoked(1, [token(1)]))
    bench.answer(Write, Written(FIRST.position))
    bench.look_again(BEGIN)
    assert has_left_the_line(bench)


def test_a_write_on_another_line_is_noticed_however_late_the_answer_comes() -> None:
    bench = Bench()
    bench.start()
    bench.tell(Revoked(1, [token(1)]))
    bench.answer(Read, Got([entry(BEGIN, token(7), last_id=b"of the new primary")]))
    bench.answer(Write, Written(FIRST.position))
    assert has_left_the_line(bench)


def test_a_page_of_another_past_is_not_taken() -> None:
    bench = Bench(has_journal=False)
    bench.tell(Tick())
    bench.answer(Look, Looked(FIRST.position))
    bench.answer(Scan, Scanned([token(5)], b"", FIRST.position._replace(last_id=b"another")))
    assert not bench.replica.is_loaded
    assert has_left_the_line(bench)


def test_a_page_of_a_replica_that_is_behind_is_not_taken() -> None:
    bench = Bench(has_journal=False)
    bench.tell(Tick())
    bench.answer(Look, Looked(FIRST.position))
    bench.answer(Scan, Scanned([], b"", BEGIN))
    assert not bench.replica.is_loaded
    assert has_left_the_line(bench)


def test_it_is_loaded_when_the_log_has_come_to_where_the_last_page_was() -> None:
    bench = Bench(has_journal=False)
    bench.tell(Tick())
    bench.answer(Look, Looked(BEGIN))
    bench.answer(Scan, Scanned([token(1)], b"", FIRST.position))
    assert not bench.replica.is_loaded
    bench.answer(Read, Got([FIRST]))
    assert bench.replica.is_loaded


def test_a_scan_that_fails_begins_at_the_beginning() -> None:
    bench = Bench(has_journal=False)
    bench.tell(Tick())
    bench.answer(Look, Looked(BEGIN))
    bench.answer(Scan, Scanned([token(1)], b"more", BEGIN))
    bench.answer(Scan, ScanFailed())
    bench.wait(0.2)
    assert bench.under_way(Scan) == [Scan(b"")]


def test_a_page_that_was_asked_for_on_an_earlier_line_is_dropped() -> None:
    bench = Bench(has_journal=False)
    bench.tell(Tick())
    bench.answer(Look, Looked(BEGIN))
    bench.answer(Read, Got([SECOND]))
    bench.wait(0.2)
    bench.answer(Look, Looked(SECOND.position))
    assert bench.under_way(Scan) == [Scan(b"")], "the first one is still on its way"
    bench.answer(Scan, Scanned([token(5)], b"", BEGIN))
    assert bench.under_way(Scan) == [Scan(b"")]
    assert not bench.replica.is_loaded


def test_a_journal_that_cannot_be_read_does_not_keep_the_store_from_being_loaded() -> None:
    bench = Bench()
    bench.tell(Tick())
    bench.answer(Look, Looked(BEGIN))
    bench.answer(Scan, Scanned([], b"", BEGIN))
    assert not bench.replica.is_loaded
    bench.answer(LoadJournal, JournalFailed())
    assert bench.replica.is_loaded


def test_what_nobody_here_can_read_makes_a_node_stale_until_it_is_swept() -> None:
    bench = Bench()
    bench.start(token(1, key_id=b"them", life=10))
    assert len(bench.ledger) == 1
    assert (bench.replica.fresh_as_of, bench.staleness) == (None, math.inf)
    bench.wait(10 + GRACE + 31.0)
    assert len(bench.ledger) == 0
    assert bench.replica.fresh_as_of is not None


def test_after_a_failure_it_looks_again_after_a_random_pause() -> None:
    draws = chain([0.5], repeat(1.0))
    bench = Bench(has_journal=False, random=lambda: next(draws))
    bench.tell(Tick())
    pauses = []
    for _ in range(6):
        bench.answer(Look, LookFailed())
        failed_at = bench.now
        while not bench.under_way(Look):
            bench.now = bench.replica.due
            bench.tell(Tick())
        pauses.append(round(bench.now - failed_at, 6))
    assert pauses == [0.05, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_after_a_read_that_failed_it_looks_first() -> None:
    bench = Bench()
    bench.start()
    bench.answer(Read, ReadFailed())
    bench.wait(0.15)
    assert bench.under_way(Look, Read) == [Look()]
    assert bench.replica.position == BEGIN


def test_the_wall_clock_may_jump_without_changing_how_fresh_it_is() -> None:
    bench = Bench()
    bench.start()
    bench.now += 1.0
    for jump in (-5000.0, 100.0, 86_400.0):
        bench.wall_ahead = WALL - 1000.0 + jump
        bench.tell(Tick())
        assert bench.staleness == 1.0


def test_a_clock_that_jumps_ahead_sweeps_nothing_until_that_has_lasted() -> None:
    bench = Bench()
    bench.start(token(1, life=60))
    bench.wall_ahead += 86_400
    bench.wait(GRACE - 10)
    assert len(bench.ledger) == 1
    bench.wait(50.0)
    assert len(bench.ledger) == 0


def test_a_clock_that_is_set_right_again_has_done_no_harm() -> None:
    bench = Bench()
    bench.start(token(1, life=60))
    bench.wall_ahead += 86_400
    bench.wait(30.0)
    bench.wall_ahead -= 86_400
    bench.wait(GRACE)
    assert len(bench.ledger) == 1
    bench.wait(100.0)
    assert len(bench.ledger) == 0
