"""The journal in one process: what it keeps, how it joins, what it tells of others, and what it says is wrong."""
# ruff: noqa: ASYNC240 (these tests are about files, and nobody else uses their loop)

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journal_peer import END, digests, journal_at, record

from oidc_middleware.cache.ledger import Noted
from oidc_middleware.cache.sqlite.journal import SqliteJournal
from oidc_middleware.clock import SystemClock
from oidc_middleware.core.ledger.records import LARGEST_NUMBER, Kind, Record
from oidc_middleware.errors import BackendUnavailable
from oidc_middleware.testing import ManualClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.db"


@pytest.fixture
async def journal(path: Path) -> AsyncIterator[SqliteJournal]:
    journal = journal_at(path)
    yield journal
    await journal.aclose()


@pytest.fixture
async def other(path: Path) -> AsyncIterator[SqliteJournal]:
    """Open the file a second time, as another process would."""
    other = journal_at(path)
    yield other
    await other.aclose()


def query(path: Path, statement: str) -> list[Any]:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        return db.execute(statement).fetchall()
    finally:
        db.close()


def problem(journal: SqliteJournal) -> str:
    """Return what is wrong, nothing when it is well."""
    return journal.problem or ""


# -------------------------------------------------------------------------------------------------------- what it keeps


async def test_what_was_added_is_there_for_all_and_after_a_restart(path: Path, journal: SqliteJournal) -> None:
    records = [
        record(0, 0, 0),
        record((1 << 64) - 1, 5, LARGEST_NUMBER, Kind.CLEAR),
        *(record(7, END - 100, END, kind) for kind in Kind),
        Record(Kind.TOKEN, b"else", 7, END, END),
    ]
    assert await journal.load() == []
    await journal.add(records, is_acknowledged=False)
    await journal.add([], is_acknowledged=True)
    again = journal_at(path)
    assert {note.record for note in await again.load()} == set(records)
    await again.aclose()
    await journal.aclose()
    assert {note.record for note in await journal.load()} == set(records)
    assert (journal.problem, journal.strangers) == (None, 0)


@pytest.mark.parametrize(
    "steps",
    [
        # (number, end, is_acknowledged) of what is added, and at last of what must be there
        [(5, 9, False), (5, 9, False)],
        [(5, 9, False), (4, 8, True), (5, 9, False)],
        [(5, 9, True), (4, 8, False), (5, 9, True)],
        [(5, 9, True), (5, 9, False), (5, 9, True)],
        [(5, 9, False), (5, 9, True), (5, 9, True)],
        [(5, 9, True), (4, 10, False), (5, 10, False)],
        [(5, 9, True), (6, 6, False), (6, 9, False)],
        [(5, 9, True), (6, 7, True), (6, 9, True)],
        [(5, 9, False), (6, 8, True), (6, 9, False)],
        [(5, 9, False), (6, 9, True), (6, 9, True)],
    ],
)
async def test_records_of_one_thing_are_joined(journal: SqliteJournal, steps: list[tuple[int, int, bool]]) -> None:
    """By the larger number and end; acknowledged is only what says no more than what the store has acknowledged."""
    *added, (number, end, is_acknowledged) = steps
    for some_number, some_end, flag in added:
        await journal.add([record(1, some_number, some_end)], is_acknowledged=flag)
    assert await journal.load() == [Noted(record(1, number, end), is_acknowledged)]


@pytest.mark.parametrize(
    ("acknowledged", "is_acknowledged"), [((5, 9), True), ((6, 10), True), ((4, 9), False), ((5, 8), False)]
)
async def test_what_the_store_has_is_noted(
    journal: SqliteJournal, acknowledged: tuple[int, int], is_acknowledged: bool
) -> None:
    await journal.add([record(1, 5, 9)], is_acknowledged=False)
    await journal.acknowledge([record(1, *acknowledged), record(2)])
    assert await journal.load() == [Noted(record(1, 5, 9), is_acknowledged)]


async def test_a_sweep_removes_what_has_ended(journal: SqliteJournal) -> None:
    await journal.add([record(digest, digest, digest) for digest in range(3000)], is_acknowledged=False)
    assert await journal.sweep(2500.5) == 2501
    assert digests(await journal.load()) == list(range(2501, 3000))
    assert await journal.sweep(2501) == 0


@pytest.mark.parametrize(
    "wrong",
    [record(1, 5, 4), record(1, -1, 4), record(1, 1, LARGEST_NUMBER + 1), record(1 << 64), record(-1)],
    ids=str,
)
async def test_what_is_no_record_is_refused_and_nothing_is_kept(journal: SqliteJournal, wrong: Record) -> None:
    with pytest.raises(ValueError, match="not a record"):
        await journal.add([record(1), wrong], is_acknowledged=False)
    with pytest.raises(ValueError, match="not a record"):
        await journal.acknowledge([wrong])
    assert await journal.load() == []


async def test_what_anybody_put_into_a_row_is_skipped_and_counted(path: Path, journal: SqliteJournal) -> None:
    await journal.add([record(digest) for digest in range(9)], is_acknowledged=False)
    for place, wrong in enumerate(
        ["key = 'text'", "key = x'00'", "key = x'63010203040000000000000000'", "number = 'x'", "number = 1.5"], 1
    ):
        query(path, f"UPDATE records SET {wrong} WHERE place = {place}")
    for place, wrong in enumerate(["ends = x'00'", "ends = 5", "ends = 99999999999"], 6):
        query(path, f"UPDATE records SET {wrong} WHERE place = {place}")
    assert digests(await journal.load()) == [8]
    assert journal.strangers == 8
    await journal.add([record(digest) for digest in range(9)], is_acknowledged=False)
    assert digests(await journal.load()) == list(range(9))


_RECORDS = st.builds(
    lambda digest, number, life: record(digest, number, number + life),
    st.integers(0, 2),
    st.integers(0, 3),
    st.integers(0, 2),
)
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add acknowledged", "acknowledge", "news", "sweep", "close"]),
        st.integers(0, 1),
        st.lists(_RECORDS, max_size=3),
    ),
    max_size=12,
)


@given(steps=_STEPS)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_two_journals_hold_the_join_of_what_both_were_told(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, list[Record]]]
) -> None:
    """A model of two journals in one process; each hears all that the other was told."""
    path = tmp_path_factory.mktemp("journals") / "journal.db"
    asyncio.run(_follow_model(path, steps))


async def _follow_model(path: Path, steps: list[tuple[str, int, list[Record]]]) -> None:
    journals = [journal_at(path), journal_at(path)]
    told: dict[int, list[tuple[Record, bool]]] = {}
    heard: list[dict[int, Noted]] = [{}, {}]

    async def check() -> None:
        expected = {digest: _joined(some) for digest, some in told.items()}
        for journal, notes in zip(journals, heard, strict=True):
            notes.update((note.record.digest, note) for note in await journal.news())
            assert {digest: notes.get(digest) for digest in expected} == expected
            assert {note.record.digest: note for note in await journal.load()} == expected

    try:
        for action, which, records in steps:
            await _act(journals[which], heard[which], action, records)
            _tell(told, action, records)
        await check()
    finally:
        for journal in journals:
            await journal.aclose()


async def _act(journal: SqliteJournal, heard: dict[int, Noted], action: str, records: list[Record]) -> None:
    match action:
        case "add" | "add acknowledged":
            await journal.add(records, is_acknowledged=action != "add")
        case "acknowledge":
            await journal.acknowledge(records)
        case "sweep":
            await journal.sweep(3)
        case "close":
            await journal.aclose()
        case _:
            heard.update((note.record.digest, note) for note in await journal.news())


def _tell(told: dict[int, list[tuple[Record, bool]]], action: str, records: list[Record]) -> None:
    if action.startswith("add"):
        for some in records:
            told.setdefault(some.digest, []).append((some, action != "add"))
    elif action == "acknowledge":
        for some in records:
            held = _joined(told.get(some.digest, []))
            if held and some.number >= held.record.number and some.end >= held.record.end:
                told[some.digest].append((held.record, True))
    elif action == "sweep":
        for digest in [digest for digest, some in told.items() if max(record.end for record, _ in some) < 3]:
            del told[digest]


def _joined(told: Sequence[tuple[Record, bool]]) -> Noted | None:
    """Say what is true of all that was told in that order, with no regard to how it is stored."""
    if not told:
        return None
    number, end = max(some.number for some, _ in told), max(some.end for some, _ in told)
    known = [some for some, flag in told if flag]
    covers = bool(known) and (max(s.number for s in known), max(s.end for s in known)) == (number, end)
    return Noted(told[0][0]._replace(number=number, end=end), covers)


# ------------------------------------------------------------------------------------------------------- news of others


async def test_news_are_what_another_added_since(journal: SqliteJournal, other: SqliteJournal) -> None:
    await other.add([record(1)], is_acknowledged=False)
    assert digests(await journal.load()) == [1]
    await journal.news()  # that it looked whether it can write
    assert await journal.news() == ()
    await other.add([record(2)], is_acknowledged=True)
    await other.add([record(3), record(2)], is_acknowledged=False)
    assert set(await journal.news()) == {Noted(record(2), True), Noted(record(3), False)}
    assert await journal.news() == ()
    await other.acknowledge([record(3)])
    assert await journal.news() == [Noted(record(3), True)]
    await other.sweep(END + 1)
    assert list(await journal.news()) == []
    await other.add([record(4)], is_acknowledged=False)
    assert await journal.news() == [Noted(record(4), False)]


async def test_what_changes_nothing_is_no_news(journal: SqliteJournal, other: SqliteJournal) -> None:
    await other.add([record(1, 5, 9)], is_acknowledged=True)
    await journal.load()
    await other.add([record(1, 4, 9), record(1, 5, 9)], is_acknowledged=False)
    await other.acknowledge([record(1, 5, 9)])
    assert list(await journal.news()) == []


async def test_news_of_many_are_complete_whenever_they_are_asked_for(
    journal: SqliteJournal, other: SqliteJournal
) -> None:
    await journal.load()
    adding = asyncio.gather(*(other.add([record(digest)], is_acknowledged=False) for digest in range(3000)))
    found: set[int] = set()
    while not adding.done():
        found.update(digests(await journal.news()))
        await asyncio.sleep(0)
    await adding
    found.update(digests(await journal.news()))
    assert found == set(range(3000))


async def test_what_is_added_while_news_are_read_comes_the_next_time(
    journal: SqliteJournal, other: SqliteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    await journal.load()
    fetch = journal._worker.fetch

    async def fetch_slowly(ask: Callable[[Any], Any]) -> Any:
        page = await fetch(ask)
        await other.add([record(2)], is_acknowledged=False)
        return page

    await other.add([record(1)], is_acknowledged=False)
    with monkeypatch.context() as patch:
        patch.setattr(journal._worker, "fetch", fetch_slowly)
        assert digests(await journal.news()) == [1]
    assert digests(await journal.news()) == [2]


async def test_news_whose_reader_was_cancelled_come_again(journal: SqliteJournal, other: SqliteJournal) -> None:
    await journal.load()
    await other.add([record(digest) for digest in range(5000)], is_acknowledged=False)
    reading = asyncio.create_task(journal.news())
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert digests(await journal.news()) == list(range(5000))


async def test_a_removed_file_is_noticed_and_the_next_one_is_news(
    path: Path, journal: SqliteJournal, other: SqliteJournal
) -> None:
    await journal.add([record(1)], is_acknowledged=False)
    assert digests(await other.load()) == [1]
    path.unlink()
    await journal.add([record(2)], is_acknowledged=False)
    assert digests(await other.news()) == [2]
    assert digests(await journal.load()) == [2]


async def test_a_replaced_file_is_news_from_its_beginning(path: Path, journal: SqliteJournal, tmp_path: Path) -> None:
    elsewhere = journal_at(tmp_path / "other.db")
    await elsewhere.add([record(7), record(8)], is_acknowledged=False)
    await elsewhere.aclose()
    await journal.add([record(digest) for digest in range(5)], is_acknowledged=False)
    assert len(await journal.load()) == 5
    (tmp_path / "other.db").rename(path)
    assert digests(await journal.news()) == [7, 8]
    assert await journal.news() == ()
    await journal.add([record(9)], is_acknowledged=False)
    assert digests(await journal.load()) == [7, 8, 9]


# ------------------------------------------------------------------------------------------------------ files and disks


async def test_it_is_for_its_owner_alone_and_safe_on_the_disk(path: Path, journal: SqliteJournal) -> None:
    old = os.umask(0)
    try:
        await journal.add([record(1)], is_acknowledged=False)
    finally:
        os.umask(old)
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    assert modes == dict.fromkeys(["journal.db", "journal.db-lock", "journal.db-shm", "journal.db-wal"], 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    file = journal._worker._file
    assert file is not None
    assert file.writer.execute("PRAGMA synchronous").fetchone() == (2,)
    assert file.writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_a_directory_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    journal = journal_at(tmp_path / "journal.db")
    await journal.load()
    await journal.aclose()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


async def test_a_closed_journal_leaves_one_file_and_no_thread(path: Path, journal: SqliteJournal) -> None:
    await journal.add([record(1)], is_acknowledged=False)
    await journal.aclose()
    await journal.aclose()
    assert {entry.name for entry in path.parent.iterdir()} == {"journal.db", "journal.db-lock"}
    for thread in threading.enumerate():
        if thread.name.startswith("oidc-sqlite"):
            thread.join(10)
            assert not thread.is_alive()
    assert digests(await journal.news()) == [1]


async def test_a_damaged_journal_is_set_aside_and_said(
    path: Path, journal: SqliteJournal, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    path.write_bytes(b"garbage" * 1000)
    with caplog.at_level(logging.ERROR):
        assert await journal.load() == []
    await journal.add([record(1)], is_acknowledged=False)
    assert Path(f"{path}.aside-1").read_bytes() == b"garbage" * 1000
    (error,) = caplog.records
    assert error.getMessage() == (
        f"the journal of revocations {path} is damaged; it is now {path}.aside-1, and the revocations in it are known "
        "to the nodes that run and to nobody who starts"
    )
    assert journal.problem is None


async def test_damage_that_shows_later_is_set_aside(path: Path, journal: SqliteJournal) -> None:
    await journal.add([record(digest) for digest in range(3000)], is_acknowledged=False)
    await journal.aclose()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    with pytest.raises(BackendUnavailable, match="SQLITE_CORRUPT"):
        await journal.load()
    assert "SQLITE_CORRUPT" in problem(journal)
    assert list(await journal.news()) == []
    assert problem(journal) == ""
    await journal.add([record(1)], is_acknowledged=False)
    assert digests(await journal.load()) == [1]
    assert Path(f"{path}.aside-1").exists()


async def test_a_directory_in_its_place_is_said_until_it_is_gone(path: Path) -> None:
    clock = ManualClock()
    journal = SqliteJournal(path, clock=clock, budget=10)
    path.mkdir(parents=True)
    for call in (journal.load(), journal.news(), journal.sweep(1), journal.add([record(1)], is_acknowledged=False)):
        with pytest.raises(BackendUnavailable, match="is a directory"):
            await call
        assert journal.problem == (
            f'{path} is a directory; put right what lies there, or name another file in "journal"'
        )
    path.rmdir()
    clock.advance(1)
    assert list(await journal.news()) == []
    assert journal.problem is None
    await journal.aclose()


async def test_the_file_of_another_application_is_not_touched(path: Path, journal: SqliteJournal) -> None:
    path.parent.mkdir()
    query(path, "CREATE TABLE customers (name)")
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match="another application"):
            await journal.load()
    assert path.read_bytes() == before
    path.rename(path.with_name("customers.db"))
    await journal.add([record(1)], is_acknowledged=False)
    assert journal.problem is None


async def test_a_journal_of_another_version_is_refused_and_stays(path: Path, journal: SqliteJournal) -> None:
    await journal.add([record(1)], is_acknowledged=False)
    await journal.aclose()
    query(path, "PRAGMA user_version = 9")
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match="is of version 9, and this release reads 1"):
            await journal.add([record(2)], is_acknowledged=False)
    query(path, "PRAGMA user_version = 1")
    await journal.add([record(2)], is_acknowledged=False)
    assert digests(await journal.load()) == [1, 2]
    assert not Path(f"{path}.aside-1").exists()


async def test_a_file_that_is_full_is_said_until_there_is_room(path: Path) -> None:
    """SQLite's own bound on pages: reads go on, what is there already is no failure."""
    clock = ManualClock()
    journal = SqliteJournal(path, clock=clock, budget=10)
    await journal.add([record(1)], is_acknowledged=False)
    file = journal._worker._file
    assert file is not None
    (pages,) = file.writer.execute("PRAGMA page_count").fetchone()
    file.writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(BackendUnavailable, match="SQLITE_FULL") as refusal:
        await journal.add([record(digest) for digest in range(2, 1000)], is_acknowledged=False)
    assert refusal.value.kind == "full"
    assert problem(journal).endswith("database or disk is full; make room on its disk")
    assert digests(await journal.load()) == [1]
    file.writer.execute("PRAGMA max_page_count = 100000")
    clock.advance(1)
    await journal.news()
    assert problem(journal) == ""
    await journal.add([record(digest) for digest in range(2, 1000)], is_acknowledged=False)
    assert len(await journal.load()) == 999
    await journal.aclose()


# ---------------------------------------------------------------------------------------------------- loops and callers


async def test_a_cancelled_caller_harms_nobody(journal: SqliteJournal) -> None:
    adds = [asyncio.create_task(journal.add([record(digest)], is_acknowledged=False)) for digest in range(200)]
    await asyncio.sleep(0)
    for add in adds[::2]:
        add.cancel()
    results = await asyncio.gather(*adds, return_exceptions=True)
    assert results[1::2] == [None] * 100
    assert set(digests(await journal.load())) >= set(range(1, 200, 2))


def test_one_loop_after_another(path: Path) -> None:
    journal = SqliteJournal(path, clock=SystemClock(), budget=10)

    async def once(digest: int) -> None:
        await journal.add([record(digest)], is_acknowledged=False)
        assert digests(await journal.load()) == list(range(digest + 1))

    for digest in range(3):
        asyncio.run(once(digest))
    asyncio.run(journal.aclose())


async def test_ten_thousand_that_wait_are_committed_together(journal: SqliteJournal) -> None:
    await asyncio.gather(*(journal.add([record(digest)], is_acknowledged=False) for digest in range(10_000)))
    assert digests(await journal.load()) == list(range(10_000))
