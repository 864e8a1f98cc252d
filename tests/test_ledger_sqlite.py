"""The ledger in a file: the contract of every store, and what only a file can do."""
# ruff: noqa: ASYNC240 (these tests are about files, and nobody else uses their loop)

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from journal_peer import record
from ledger_peer import checked, everything, ledger_at

from oidc_middleware.cache.sqlite.ledger import SqliteLedger
from oidc_middleware.clock import SystemClock
from oidc_middleware.core.ledger.records import LARGEST_NUMBER, LogEntry, Position, Record
from oidc_middleware.errors import BackendUnavailable

from ledger_store_contract import LedgerStoreContract, OpenStore
from redis_kit import PATIENCE, until

pytestmark = pytest.mark.anyio


class TestSqliteLedger(LedgerStoreContract):
    @pytest.fixture
    async def open_store(self, tmp_path: Path) -> AsyncIterator[OpenStore]:
        ledgers: list[SqliteLedger] = []

        def open_() -> SqliteLedger:
            ledgers.append(SqliteLedger(tmp_path / "cache.db", clock=SystemClock(), budget=PATIENCE))
            return ledgers[-1]

        yield open_
        await asyncio.gather(*(ledger.aclose() for ledger in ledgers))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the file of the cache; that of the ledger lies beside it."""
    return tmp_path / "cache.db"


@pytest.fixture
def file(path: Path) -> Path:
    return Path(f"{path}-ledger")


@pytest.fixture
async def ledger(path: Path) -> AsyncIterator[SqliteLedger]:
    ledger = ledger_at(path)
    yield ledger
    await ledger.aclose()


@pytest.fixture
async def other(path: Path) -> AsyncIterator[SqliteLedger]:
    """Open the file a second time, as another process would."""
    other = ledger_at(path)
    yield other
    await other.aclose()


def query(path: Path, statement: str) -> list[Any]:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        return db.execute(statement).fetchall()
    finally:
        db.close()


async def test_it_lies_beside_the_cache_for_its_owner_alone_and_safe_on_the_disk(
    ledger: SqliteLedger, file: Path
) -> None:
    await ledger.look()
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in file.parent.iterdir()}
    assert modes == {f"cache.db-ledger{end}": 0o600 for end in ("", "-lock", "-shm", "-wal")}
    opened = ledger._worker._file
    assert opened is not None
    assert opened.writer.execute("PRAGMA synchronous").fetchone() == (2,)


async def test_a_closed_ledger_leaves_one_file_and_no_thread(ledger: SqliteLedger, file: Path) -> None:
    await ledger.write([record(1)])
    await ledger.aclose()
    assert {entry.name for entry in file.parent.iterdir()} == {"cache.db-ledger", "cache.db-ledger-lock"}
    for thread in threading.enumerate():
        if thread.name.startswith("oidc-sqlite"):
            thread.join(PATIENCE)
            assert not thread.is_alive()


# -------------------------------------------------------------------------------------------------------------- the log


async def test_who_waits_hears_at_once_of_what_is_written_through_the_same_object(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oidc_middleware.cache.sqlite.ledger._EVERY", 10 * PATIENCE)
    place = await ledger.look()
    for digest in range(5):
        reading = [asyncio.create_task(ledger.read(place, 10 * PATIENCE)) for _ in range(3)]
        await until(lambda: len(ledger._waiters) == 3)
        place = await ledger.write([record(digest)])
        async with asyncio.timeout(PATIENCE):
            read = await asyncio.gather(*reading)
        assert [[entry.position for entry in entries] for entries in read] == [[place]] * 3
    assert ledger._waiters == set()


async def test_what_is_written_while_the_log_is_read_is_read_too(
    ledger: SqliteLedger, other: SqliteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = await ledger.look()
    fetch = ledger._worker.fetch

    async def fetch_slowly(ask: Callable[[Any], Any]) -> Any:
        found = await fetch(ask)
        await other.write([record(1)])
        return found

    monkeypatch.setattr(ledger._worker, "fetch", fetch_slowly)
    (entry,) = await ledger.read(place, 2 * PATIENCE)
    assert entry.records == (record(1),)


async def test_the_log_is_bounded_and_who_is_far_behind_sees_a_gap(path: Path) -> None:
    ledger = ledger_at(path, kept=50)
    begin = await ledger.look()
    places = [await ledger.write([record(digest)]) for digest in range(120)]
    entries = await ledger.read(begin, 0)
    assert [entry.number for entry in entries] == list(range(71, 103))
    assert entries[0].previous_id == places[69].last_id
    assert checked(await ledger.read(places[69], 0), places[69]) == places[101]
    assert await everything(ledger) == list(range(120))
    await ledger.aclose()


async def test_the_log_is_bounded_by_its_records_too(path: Path, file: Path) -> None:
    ledger = ledger_at(path, kept=50)
    for part in range(10):
        await ledger.write([record(1000 * part + digest) for digest in range(1000)])
    assert query(file, "SELECT number FROM log") == [(10,)]
    place = await ledger.look()
    following = await ledger.write([record(1 << 40)])
    assert (following.number, following.epoch) == (11, place.epoch)
    assert checked(await ledger.read(place, 0), place) == following
    await ledger.aclose()


async def test_an_entry_that_cannot_be_read_follows_on_nothing(ledger: SqliteLedger, file: Path) -> None:
    begin = await ledger.look()
    for digest in range(4):
        await ledger.write([record(digest)])
    for number, wrong in enumerate(["records = x'00'", "records = 7", "previous = 'text'"], 1):
        query(file, f"UPDATE log SET {wrong} WHERE number = {number}")
    *wrong_entries, last = await ledger.read(begin, 0)
    assert wrong_entries == [LogEntry(b"", 0, b"", b"", ())] * 3
    assert last.position == await ledger.look()


async def test_a_log_that_somebody_spoiled_is_said(ledger: SqliteLedger, file: Path) -> None:
    await ledger.write([record(1)])
    query(file, "DELETE FROM epoch")
    for call in (ledger.look(), ledger.scan(b""), ledger.write([record(2)])):
        with pytest.raises(BackendUnavailable, match="cannot be read: remove the file"):
            await call
    file.unlink()
    assert (await ledger.write([record(2)])).number == 1


async def test_what_anybody_put_into_a_row_is_skipped_counted_and_written_over(
    ledger: SqliteLedger, file: Path
) -> None:
    await ledger.write([record(digest) for digest in range(6)])
    wrongs = ["member = 'text'", "member = x'00'", "ends = 'never'", "ends = 9e99", "ends = -1"]
    for number, wrong in enumerate(wrongs, 1):
        query(file, f"UPDATE records SET {wrong} WHERE place = {number}")
    assert await everything(ledger) == [5]
    assert ledger.strangers == 5
    place = await ledger.write([record(digest) for digest in range(6)])
    assert place.number == 2
    assert await everything(ledger) == list(range(6))


@pytest.mark.parametrize("wrong", [record(1, 5, 4), record(1, 1, LARGEST_NUMBER + 1), record(1 << 64)], ids=str)
async def test_what_is_no_record_is_refused_and_nothing_is_written(ledger: SqliteLedger, wrong: Record) -> None:
    with pytest.raises(ValueError, match="not a record"):
        await ledger.write([record(1), wrong])
    assert (await ledger.look()).number == 0


# ------------------------------------------------------------------------------------------------------- other files


async def test_a_removed_file_begins_another_life(ledger: SqliteLedger, other: SqliteLedger, file: Path) -> None:
    old = await ledger.write([record(digest) for digest in range(1000)])
    page = await other.scan(b"")
    reading = asyncio.create_task(other.read(old, 2 * PATIENCE))
    await asyncio.sleep(0)
    file.unlink()
    new = await ledger.write([record(1)])
    assert (new.number, new.epoch != old.epoch) == (1, True)
    (entry,) = await reading
    assert entry.position == new
    assert await other.look() == new
    with pytest.raises(BackendUnavailable, match="was replaced while it was read"):
        await other.scan(page.cursor)
    assert await everything(other) == [1]


async def test_a_file_from_before_has_another_past_than_what_is_written_after_it(
    ledger: SqliteLedger, file: Path, tmp_path: Path
) -> None:
    """A backup that is put back: the same life, the same number, and no equal place."""
    first = await ledger.write([record(1)])
    await ledger.aclose()
    shutil.copy(file, tmp_path / "backup")
    lost = await ledger.write([record(2)])
    (tmp_path / "backup").rename(file)
    assert await ledger.look() == first
    assert await ledger.read(lost, 0) == []
    again = await ledger.write([record(3)])
    assert (again.epoch, again.number) == (lost.epoch, lost.number)
    assert again != lost
    assert await everything(ledger) == [1, 3]


async def test_a_damaged_ledger_is_set_aside_and_begins_another_life(
    ledger: SqliteLedger, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = await ledger.write([record(1)])
    await ledger.aclose()
    file.write_bytes(b"garbage" * 1000)
    new = await ledger.look()
    assert (new.number, new.epoch != old.epoch) == (0, True)
    assert Path(f"{file}.aside-1").exists()
    assert "is damaged" in caplog.text
    assert "the nodes that run write what they know of it into the new one" in caplog.text


async def test_damage_that_shows_later_is_set_aside(ledger: SqliteLedger, file: Path) -> None:
    for part in range(5):
        await ledger.write([record(1000 * part + digest) for digest in range(1000)])
    await ledger.aclose()
    with file.open("r+b") as opened:
        opened.seek(4096)
        opened.write(os.urandom(file.stat().st_size - 4096))
    with pytest.raises(BackendUnavailable, match="SQLITE_CORRUPT"):
        await everything(ledger)
    assert (await ledger.write([record(1)])).number == 1
    assert await everything(ledger) == [1]


async def test_the_file_of_another_application_or_version_is_refused_and_stays(
    ledger: SqliteLedger, file: Path
) -> None:
    await ledger.look()
    await ledger.aclose()
    query(file, "PRAGMA user_version = 9")
    with pytest.raises(BackendUnavailable, match="is of version 9, and this release reads 1"):
        await ledger.look()
    query(file, "PRAGMA application_id = 7")
    with pytest.raises(BackendUnavailable, match="another application"):
        await ledger.write([record(1)])
    file.unlink()
    file.mkdir()
    with pytest.raises(BackendUnavailable, match="is a directory"):
        await ledger.read(Position(b"", 0, b""), 0)
    file.rmdir()
    assert (await ledger.write([record(1)])).number == 1


async def test_a_file_that_is_full_takes_nothing_and_is_read(ledger: SqliteLedger) -> None:
    place = await ledger.write([record(1)])
    file = ledger._worker._file
    assert file is not None
    (pages,) = file.writer.execute("PRAGMA page_count").fetchone()
    file.writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(BackendUnavailable, match="SQLITE_FULL") as refusal:
        await ledger.write([record(digest) for digest in range(1000)])
    assert refusal.value.kind == "full"
    assert await ledger.look() == place
    assert await everything(ledger) == [1]
    file.writer.execute("PRAGMA max_page_count = 100000")
    assert (await ledger.write([record(digest) for digest in range(1000)])).number == 2


def test_one_loop_after_another(path: Path) -> None:
    ledger = ledger_at(path)

    async def once(number: int) -> None:
        place = await ledger.look()
        reading = asyncio.create_task(ledger.read(place, PATIENCE))
        await asyncio.sleep(0)
        assert (await ledger.write([record(number)])).number == number
        assert len(await reading) == 1

    for number in range(1, 4):
        asyncio.run(once(number))
    asyncio.run(ledger.aclose())


async def test_a_hundred_thousand_are_read_in_bounded_pages(ledger: SqliteLedger, file: Path) -> None:
    place = await ledger.look()
    db = sqlite3.connect(file)
    rows = ((each.member, each.end) for each in map(record, range(100_000)))
    with db:
        db.executemany("INSERT INTO records (member, ends) VALUES (?, ?)", rows)
    db.close()
    found: set[Record] = set()
    sizes: list[int] = []
    cursor = b""
    while cursor or not sizes:
        page = await ledger.scan(cursor)
        found.update(page.records)
        sizes.append(len(page.records))
        cursor = page.cursor
        assert page.position == place
    assert found == set(map(record, range(100_000)))
    assert max(sizes) == 1000
