"""A replica brings revocations to the store, or to the disk when it does not answer, and gives a receipt then."""

from __future__ import annotations

import pytest

from oidc_middleware.core.ledger.records import GRACE
from oidc_middleware.core.replica.events import (
    Acknowledge,
    Got,
    Journaled,
    JournalFailed,
    JournalLoaded,
    JournalNews,
    Keep,
    LoadJournal,
    Look,
    Looked,
    LookFailed,
    Read,
    ReadJournal,
    Revoked,
    SweepJournal,
    Tick,
    Write,
    WriteFailed,
    Written,
)

from replica_kit import BEGIN, WALL, Bench, entry, token

A, B, C = token(1), token(2), token(3)
FIRST = entry(BEGIN, A)


def test_the_mirror_knows_before_anybody_else() -> None:
    bench = Bench()
    bench.start()
    assert bench.tell(Revoked("ticket", [A])) == [Write([A])]
    assert bench.ledger.find(*A[:3]) == A
    assert bench.receipts == {}


def test_it_need_not_be_loaded_to_revoke() -> None:
    bench = Bench()
    bench.tell(Tick())
    assert bench.tell(Revoked(1, [A])) == [Write([A])]


def test_what_the_store_has_is_shared_and_kept_in_the_background() -> None:
    bench = Bench()
    bench.start()
    bench.tell(Revoked("ticket", [A]))
    bench.answer(Write, Written(FIRST.position))
    assert bench.receipts == {"ticket": "shared"}
    assert bench.under_way(Keep) == [Keep([A], is_acknowledged=True)]


def test_what_waits_while_a_write_is_on_the_wire_travels_together() -> None:
    bench = Bench(has_journal=False)
    bench.start()
    for ticket in range(20):
        bench.tell(Revoked(ticket, [token(ticket)]))
    assert bench.under_way(Write) == [Write([token(0)])]
    bench.answer(Write, Written(entry(BEGIN, token(0)).position))
    assert bench.under_way(Write) == [Write([token(number) for number in range(1, 20)])]
    bench.answer(Write, Written(entry(FIRST.position).position))
    assert bench.receipts == dict.fromkeys(range(20), "shared")


def test_batches_are_bounded_and_no_revocation_is_torn() -> None:
    bench = Bench(has_journal=False)
    bench.start()
    for ticket in range(10):
        bench.tell(Revoked(ticket, [token(100 * ticket + number) for number in range(90)]))
    bench.answer(Write, Written(FIRST.position))
    (write,) = bench.under_way(Write)
    assert isinstance(write, Write)
    assert len(write.records) == 450


def test_a_write_that_failed_is_on_the_disk_before_the_receipt() -> None:
    bench = Bench()
    bench.start()
    bench.tell(Revoked("ticket", [A]))
    bench.answer(Write, WriteFailed())
    assert bench.under_way(Keep) == [Keep([A], is_acknowledged=False)]
    assert bench.receipts == {}
    assert bench.replica.unacknowledged == 1
    bench.answer(Keep, Journaled())
    assert bench.receipts == {"ticket": "journaled"}


def test_a_journal_that_fails_leaves_the_revocation_to_this_process() -> None:
    bench = Bench()
    bench.start()
    bench.tell(Revoked("ticket", [A]))
    bench.answer(Write, WriteFailed())
    bench.answer(Keep, JournalFailed())
    assert bench.receipts == {"ticket": "local"}
    assert bench.ledger.find(*A[:3]) == A
    bench.wait(0.2)
    assert bench.under_way(Keep) == [Keep([A], is_acknowledged=False)], "the journal is tried again"


def test_without_a_journal_a_write_that_failed_is_local() -> None:
    bench = Bench(has_journal=False)
    bench.start()
    bench.tell(Revoked("ticket", [A]))
    bench.answer(Write, WriteFailed())
    assert bench.receipts == {"ticket": "local"}


def test_what_failed_is_written_again_as_soon_as_the_store_answers() -> None:
    bench = Bench()
    bench.start()
    bench.tell(Revoked("ticket", [A]))
    bench.answer(Write, WriteFailed())
    bench.answer(Keep, Journaled())
    bench.wait(0.05)
    assert bench.under_way(Write) == []
    bench.look_again(BEGIN)
    assert bench.under_way(Write) == [Write([A])]
    bench.finish_journal()
    bench.answer(Write, Written(FIRST.position))
    assert bench.replica.unacknowledged == 0
    assert bench.under_way(Acknowledge) == [Acknowledge([A])]
    assert bench.receipts == {"ticket": "journaled"}, "one receipt, the first"


def test_what_the_log_shows_needs_no_acknowledgement() -> None:
    bench = Bench()
    bench.start()
    bench.tell(Revoked("ticket", [A]))
    bench.answer(Write, WriteFailed())
    bench.answer(Keep, Journaled())
    bench.answer(Read, Got([FIRST]))
    assert bench.replica.unacknowledged == 0
    bench.wait(0.2)
    assert Acknowledge([A]) in bench.asked


def test_after_three_failures_nobody_waits_for_the_store() -> None:
    bench = Bench()
    bench.start()
    bench.tell(Revoked(0, [A]))
    bench.fail_writes(3)
    assert not bench.replica.is_store_well
    bench.tell(Revoked(1, [B]))
    bench.finish_journal()
    assert bench.receipts == {0: "journaled", 1: "journaled"}
    assert bench.under_way(Write) == [Write([A])]


def test_looks_that_fail_count_too_and_whoever_waits_already_is_told() -> None:
    bench = Bench()
    bench.start()
    bench.end_read()
    bench.tell(Revoked(0, [A]))
    bench.tell(Revoked(1, [B]))
    for _ in range(3):
        bench.wait(1.1)
        bench.answer(Look, LookFailed())
    bench.finish_journal()
    assert bench.receipts == {1: "journaled"}
    assert bench.under_way(Write) == [Write([A])]


def test_a_look_that_succeeds_lets_one_write_through_and_its_fate_decides() -> None:
    bench = Bench()
    bench.start()
    bench.tell(Revoked(0, [A]))
    bench.fail_writes(3)
    assert bench.under_way(Write) == [Write([A])], "the pause is over: one is tried, whatever looks say"
    bench.tell(Revoked(1, [B]))
    bench.finish_journal()
    assert bench.receipts[1] == "journaled", "nobody waits for the one that is tried"
    bench.answer(Write, Written(FIRST.position))
    assert bench.replica.is_store_well
    bench.answer(Write, Written(entry(FIRST.position, B).position))
    bench.tell(Revoked(2, [C]))
    assert bench.under_way(Write) == [Write([C])]


def test_a_store_that_answers_no_look_but_takes_writes_gets_what_is_unacknowledged() -> None:
    bench = Bench()
    bench.start()
    bench.end_read()
    for _ in range(3):
        bench.wait(1.1)
        bench.answer(Look, LookFailed())
    bench.tell(Revoked(0, [A]))
    bench.finish_journal()
    assert (bench.receipts, bench.under_way(Write)) == ({0: "journaled"}, [])
    bench.wait(1.1)
    assert bench.under_way(Write) == [Write([A])]
    bench.answer(Write, Written(FIRST.position))
    assert bench.replica.is_store_well


def test_what_ended_long_ago_is_not_written_any_more() -> None:
    bench = Bench()
    bench.start()
    bench.tell(Revoked(0, [token(1, life=5)]))
    bench.answer(Write, WriteFailed())
    bench.finish_journal()
    bench.now += 5 + GRACE / 2 + 1
    bench.look_again(BEGIN)
    assert bench.under_way(Write) == []
    assert bench.replica.unacknowledged == 0


def test_a_revocation_of_nothing_is_done() -> None:
    bench = Bench()
    bench.start()
    bench.tell(Revoked("ticket", []))
    assert bench.receipts == {"ticket": "shared"}


def test_without_a_store_a_receipt_says_local_at_once() -> None:
    bench = Bench(has_store=False, has_journal=False)
    assert bench.tell(Tick()) == []
    assert bench.replica.is_loaded
    bench.tell(Revoked("ticket", [A]))
    assert bench.receipts == {"ticket": "local"}
    assert (bench.staleness, bench.replica.unacknowledged, bench.replica.pending) == (0.0, 0, 0)
    bench.wait(3600.0)
    assert bench.asked == []


def test_without_a_store_a_journal_keeps_what_is_revoked() -> None:
    bench = Bench(has_store=False)
    bench.tell(Tick())
    bench.answer(LoadJournal, JournalLoaded([(B, False)]))
    assert bench.replica.is_loaded
    bench.finish_journal()
    bench.tell(Revoked("ticket", [A]))
    bench.answer(Keep, Journaled())
    assert bench.receipts == {"ticket": "journaled"}
    assert (len(bench.ledger), bench.replica.unacknowledged) == (2, 0)


# ------------------------------------------------------------------------------------------------------------ journal


def test_what_the_journal_has_is_known_before_the_store_answers() -> None:
    bench = Bench()
    bench.tell(Tick())
    bench.answer(LoadJournal, JournalLoaded([(A, True), (B, False), (token(4, life=-GRACE), True)]))
    assert (len(bench.ledger), bench.replica.unacknowledged) == (2, 1)
    assert bench.under_way(Write) == [Write([B])]


def test_a_long_journal_is_taken_in_by_slices() -> None:
    bench = Bench()
    bench.tell(Tick())
    bench.answer(LoadJournal, JournalLoaded([(token(number), True) for number in range(2000)]))
    bench.answer(Look, Looked(BEGIN))
    assert 0 < len(bench.ledger) <= 1000
    assert bench.replica.due <= bench.now
    bench.wait(0.0)
    assert len(bench.ledger) == 2000


def test_what_others_of_the_host_revoke_is_heard_ten_times_a_second_while_the_store_does_not_answer() -> None:
    bench = Bench()
    bench.start()
    bench.finish_journal()
    bench.wait(1.6)
    assert bench.under_way(ReadJournal) == [ReadJournal()]
    bench.answer(ReadJournal, JournalNews([(A, False)]))
    assert bench.ledger.find(*A[:3]) == A
    assert bench.replica.unacknowledged == 1
    readings = 0
    for _ in range(100):
        bench.wait(0.01)
        readings += len(bench.under_way(ReadJournal))
        bench.finish_journal()
    assert readings == pytest.approx(10, abs=1)


def test_the_journal_is_read_seldom_while_all_is_well_and_swept_every_minute() -> None:
    bench = Bench()
    bench.start()
    for _ in range(1200):
        bench.wait(0.1)
        if bench.under_way(Look):
            bench.answer(Look, Looked(BEGIN))
        elif bench.under_way(Read):
            bench.answer(Read, Got([]))
        bench.finish_journal()
    kinds = [type(command) for command in bench.journal_did]
    assert kinds.count(ReadJournal) == pytest.approx(25, abs=1)
    assert kinds.count(SweepJournal) == pytest.approx(2, abs=1)
    assert bench.journal_did[1] == SweepJournal(WALL - GRACE)


def test_what_waits_for_a_broken_journal_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oidc_middleware.core.replica.journal.LARGEST", 10)
    bench = Bench()
    bench.start()
    at = BEGIN
    for number in range(50):
        bench.tell(Revoked(number, [token(number)]))
        at = entry(at, token(number)).position
        bench.answer(Write, Written(at))
        while bench.under_way(Keep):
            bench.answer(Keep, JournalFailed())
    assert bench.replica.pending == 10
    assert len(bench.ledger) == 50
