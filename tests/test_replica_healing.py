"""What a store has lost is written back by those who know it, spread over time and in small pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from oidc_middleware.core.ledger.ledger import Ledger
from oidc_middleware.core.ledger.records import GRACE, Position, Record
from oidc_middleware.core.replica.events import (
    Got,
    JournalFailed,
    JournalLoaded,
    JournalNews,
    LoadJournal,
    Look,
    Looked,
    Read,
    ReadJournal,
    Scan,
    Scanned,
    Tick,
    Write,
    WriteFailed,
    Written,
)

from replica_kit import BEGIN, Bench, entry, token

EMPTY = Position(b"another epoch", 0, b"")
MANY = [token(number) for number in range(1200)]


def lose(bench: Bench, *left: Record) -> None:
    """Let the store lose all records but some, and the replica see that."""
    bench.look_again(EMPTY)
    bench.wait(1.1)
    bench.answer(Look, Looked(EMPTY))
    bench.answer(Scan, Scanned(left, b"", EMPTY))


def written(bench: Bench) -> Sequence[Record]:
    """Return what is being written."""
    (write,) = bench.under_way(Write)
    assert isinstance(write, Write)
    return write.records


def test_what_the_scan_did_not_show_is_written_back_after_a_random_pause() -> None:
    bench = Bench(random=lambda: 0.5)
    bench.start(token(1), token(2), token(3))
    lose(bench, token(2))
    assert bench.replica.is_healing
    bench.wait(0.9)
    assert bench.under_way(Write) == []
    assert bench.replica.to_heal == 2
    bench.wait(0.2)
    assert written(bench) == [token(1), token(3)]
    bench.answer(Write, Written(entry(EMPTY, token(1), token(3)).position))
    bench.wait(0.1)
    assert (bench.replica.is_healing, bench.replica.to_heal) == (False, 0)


def test_nothing_is_written_back_while_nothing_is_lost() -> None:
    bench = Bench()
    bench.start(*MANY)
    lose(bench, *MANY)
    bench.wait(1.0)
    assert not bench.replica.is_healing
    assert bench.under_way(Write) == []


def test_what_others_write_back_meanwhile_is_left_out() -> None:
    bench = Bench()
    bench.start(token(1), token(2))
    lose(bench)
    bench.wait(1.0)
    bench.answer(Read, Got([entry(EMPTY, token(1))]))
    bench.wait(1.1)
    assert written(bench) == [token(2)]


def test_all_of_it_may_have_been_written_back_by_others() -> None:
    bench = Bench()
    bench.start(token(1))
    lose(bench)
    bench.answer(Read, Got([entry(EMPTY, token(1))]))
    bench.wait(2.1)
    assert bench.under_way(Write) == []
    assert not bench.replica.is_healing


def test_what_ended_is_not_written_back() -> None:
    bench = Bench()
    bench.start(token(1, life=10), token(2))
    bench.wait(10 + GRACE / 2)
    lose(bench)
    bench.wait(2.1)
    assert written(bench) == [token(2)]
    assert len(bench.ledger) == 2, "it is kept here until others with slower clocks need it no more"


def test_it_is_written_back_in_batches_and_whoever_leads_has_shorter_pauses() -> None:
    bench = Bench()
    bench.start(*MANY)
    lose(bench)
    at, begun, seen = EMPTY, bench.now, 0
    for _ in range(3):
        while not bench.under_way(Write):
            bench.wait(0.01)
        records = written(bench)
        assert len(records) <= 999
        seen += len(records)
        at = entry(at, *records).position
        bench.answer(Write, Written(at))
        if not bench.replica.is_healing or seen == len(MANY):
            break
    assert seen == len(MANY)
    assert bench.now - begun == pytest.approx(2.0 + 1.0, abs=0.6)


def test_a_batch_that_failed_is_written_back_later() -> None:
    bench = Bench()
    bench.start(token(1))
    lose(bench)
    bench.wait(2.1)
    bench.answer(Write, WriteFailed())
    assert bench.replica.unacknowledged == 0, "the store had it once: others may write it back"
    bench.wait(2.1)
    assert written(bench) == [token(1)]


def test_what_the_journal_alone_knows_is_written_back_after_a_restart() -> None:
    bench = Bench()
    bench.tell(Tick())
    bench.answer(Look, Looked(EMPTY))
    bench.answer(LoadJournal, JournalLoaded([(token(1), True)]))
    bench.answer(Scan, Scanned([], b"", EMPTY))
    bench.wait(2.1)
    assert written(bench) == [token(1)]


def test_what_a_journal_tells_late_while_the_store_is_loaded_is_written_back_too() -> None:
    bench = Bench()
    bench.tell(Tick())
    bench.answer(LoadJournal, JournalFailed())
    bench.answer(Look, Looked(EMPTY))
    bench.wait(0.2)
    bench.answer(LoadJournal, JournalLoaded([(token(1), True)]))
    bench.answer(Scan, Scanned([], b"", EMPTY))
    bench.wait(2.1)
    assert written(bench) == [token(1)]


def test_what_another_process_of_the_host_kept_is_written_back_unless_the_log_shows_it() -> None:
    bench = Bench()
    bench.start()
    bench.finish_journal()
    bench.wait(1.6)
    bench.answer(ReadJournal, JournalNews([(token(1), True), (token(2), True)]))
    assert bench.under_way(Write) == []
    bench.answer(Read, Got([entry(BEGIN, token(1))]))
    bench.wait(2.1)
    assert written(bench) == [token(2)]


def test_another_loss_while_healing_begins_anew() -> None:
    bench = Bench()
    bench.start(token(1), token(2))
    lose(bench)
    bench.wait(2.1)
    bench.answer(Write, Written(entry(EMPTY, token(1), token(2)).position))
    bench.look_again(EMPTY._replace(epoch=b"a third one"))
    assert not bench.replica.is_healing, "nobody knows what is lost"
    bench.wait(1.1)
    bench.answer(Look, Looked(EMPTY._replace(epoch=b"a third one")))
    bench.answer(Scan, Scanned([], b"", EMPTY._replace(epoch=b"a third one")))
    bench.wait(2.1)
    assert written(bench) == [token(1), token(2)]


def test_no_step_looks_at_more_than_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.start(*(token(number) for number in range(20_000)))
    lose(bench, *(token(number) for number in range(20_000)))
    steps: list[int] = []
    looked_at = Ledger.records

    def counted(ledger: Ledger, *arguments: Any) -> list[Record]:
        page = looked_at(ledger, *arguments)
        steps.append(len(page))
        return page

    monkeypatch.setattr(Ledger, "records", counted)
    ticks = 0
    while bench.replica.is_healing:
        bench.tell(Tick())
        ticks += 1
        assert sum(steps) <= 500 * ticks
    assert sum(steps) == 20_000 - 500, "the first slice came with the end of the scan"
