"""The shared file: the contract of every tier, and what only a file can do."""
# ruff: noqa: ASYNC240 (these tests are about files, and nobody else uses their loop)

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sqlite3
import stat
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlite_peer import is_whole, patient
from test_cache_contract import BLACKLIST, GENERAL, HOUR, TOKEN, clock

from oidc_middleware.cache import TYPES, Backend, Entry
from oidc_middleware.cache.sqlite import SqliteBackend
from oidc_middleware.clock import SystemClock
from oidc_middleware.errors import BackendUnavailable
from oidc_middleware.testing import BackendContract, ManualClock

from time_kit import Turns, best_of

__all__ = ["clock"]

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


@pytest.fixture
async def backend(clock: ManualClock, path: Path) -> AsyncIterator[SqliteBackend]:
    backend = patient(path, clock)
    yield backend
    await backend.close()


@pytest.fixture
async def other(clock: ManualClock, path: Path) -> AsyncIterator[SqliteBackend]:
    """Open the file a second time, as another process would."""
    other = patient(path, clock)
    yield other
    await other.close()


def query(path: Path, statement: str) -> list[Any]:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        return db.execute(statement).fetchall()
    finally:
        db.close()


class TestSqliteBackend(BackendContract):
    @pytest.fixture
    def backend(self, backend: SqliteBackend) -> Backend:
        return backend


# ----------------------------------------------------------------------------------------------------- what the file is


async def test_nothing_is_made_before_it_is_needed(backend: SqliteBackend, path: Path) -> None:
    assert backend.stats()["token"].entries == 0
    assert not path.exists()
    await backend.close()
    assert not path.exists()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
async def test_only_the_owner_may_read(backend: SqliteBackend, path: Path, clock: ManualClock, umask: int) -> None:
    before = os.umask(umask)
    try:
        await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
    finally:
        os.umask(before)
    found = {entry.name: stat.S_IMODE(entry.stat().st_mode) & 0o077 for entry in path.parent.iterdir()}
    assert found == {"cache.db": 0, "cache.db-wal": 0, "cache.db-shm": 0, "cache.db-lock": 0}


async def test_a_file_that_others_could_read_is_closed_to_them(
    backend: SqliteBackend, path: Path, clock: ManualClock
) -> None:
    path.touch()
    path.chmod(0o666)
    await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
    assert {stat.S_IMODE(Path(f"{path}{end}").stat().st_mode) for end in ("", "-wal", "-shm")} == {0o600}


@pytest.mark.parametrize("name", ["a b?c#d%20e.db", "ü'\"&;.db", "mode=ro"])
async def test_a_path_is_only_a_path(tmp_path: Path, clock: ManualClock, name: str) -> None:
    backend = patient(tmp_path / name, clock)
    await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
    await backend.close()
    assert {entry.name for entry in tmp_path.iterdir()} == {name, f"{name}-lock"}


async def test_a_path_is_that_of_the_moment_when_it_was_given(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    backend = patient("cache.db", clock)
    monkeypatch.chdir("/")
    await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
    await backend.close()
    assert (tmp_path / "cache.db").exists()


async def test_it_outlives_the_process(backend: SqliteBackend, other: SqliteBackend, clock: ManualClock) -> None:
    await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
    await backend.close()
    assert await other.get(TOKEN, b"k") == Entry(b"v", clock.now() + HOUR)


# ----------------------------------------------------------------------------------------- what cannot be used, and why


@pytest.mark.parametrize(
    "garbage",
    [b"garbage", bytes(8192), os.urandom(100_000), b"SQLite format 3\0" + os.urandom(5000)],
    ids=["short", "zeros", "noise", "a header that lies"],
)
async def test_garbage_is_set_aside(
    backend: SqliteBackend, path: Path, clock: ManualClock, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(garbage)
    Path(f"{path}-wal").write_bytes(garbage)
    assert await backend.get(TOKEN, b"k") is None
    await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
    assert await backend.exists(TOKEN, b"k")
    assert Path(f"{path}.aside-1").read_bytes() == garbage
    assert [(record.levelno, record.name) for record in caplog.records] == [(logging.ERROR, "oidc_middleware.cache")]
    assert "is damaged; it is now" in caplog.text


async def test_damage_that_shows_later_is_set_aside(
    path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    backend = patient(path, clock)
    await backend.set_many(TOKEN, {b"%d" % n: Entry(bytes(500), clock.now() + HOUR) for n in range(1000)})
    await backend.close()
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(path.stat().st_size - 8192))
    again = patient(path, clock)
    found = await again.get_many(TOKEN, [b"%d" % n for n in range(1000)])
    assert all(entry.value == bytes(500) for entry in found.values())
    await again.set(TOKEN, b"k", b"v", clock.now() + HOUR)
    assert await again.get(TOKEN, b"k") == Entry(b"v", clock.now() + HOUR)
    await again.close()
    assert Path(f"{path}.aside-1").exists()
    assert is_whole(path)
    assert caplog.text.count("is damaged") == 1


async def test_a_file_of_another_version_is_set_aside(backend: SqliteBackend, path: Path, clock: ManualClock) -> None:
    await backend.set(TOKEN, b"k", b"old", clock.now() + HOUR)
    await backend.close()
    query(path, "PRAGMA user_version = 99")
    newer = patient(path, clock)
    assert await newer.get(TOKEN, b"k") is None
    await newer.close()
    assert query(path, "PRAGMA user_version") == [(2,)]
    assert query(Path(f"{path}.aside-1"), "SELECT value FROM entries_token") == [(b"old",)]


async def test_the_process_of_the_older_version_gives_way(
    backend: SqliteBackend, path: Path, clock: ManualClock
) -> None:
    """Two versions that run at the same time do not set aside each other's file for ever."""
    await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
    path.rename(f"{path}.aside-1")
    await (newer := patient(path, clock)).set(TOKEN, b"k", b"v", clock.now() + HOUR)
    await newer.close()
    query(path, "PRAGMA user_version = 3")
    clock.advance(1)
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match="of version 3 now: a newer process uses it"):
            await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
    assert query(path, "PRAGMA user_version") == [(3,)]
    assert not Path(f"{path}.aside-2").exists()


async def test_the_database_of_another_application_is_not_touched(backend: SqliteBackend, path: Path) -> None:
    query(path, "CREATE TABLE customers (name)")
    path.chmod(0o644)
    before = path.read_bytes()
    with pytest.raises(BackendUnavailable, match="another application"):
        await backend.get(TOKEN, b"k")
    health = await backend.ping()
    assert not health.healthy
    assert "another application" in health.detail
    assert path.read_bytes() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


async def test_files_are_not_set_aside_for_ever(backend: SqliteBackend, path: Path) -> None:
    path.write_bytes(b"garbage")
    for number in range(1, 10):
        Path(f"{path}.aside-{number}").touch()
    with pytest.raises(BackendUnavailable, match="9 such files lie beside it"):
        await backend.get(TOKEN, b"k")
    assert path.read_bytes() == b"garbage"


async def test_a_directory_is_no_file(backend: SqliteBackend, path: Path, clock: ManualClock) -> None:
    path.mkdir()
    with pytest.raises(BackendUnavailable, match="is a directory"):
        await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
    path.rmdir()
    await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
    assert await backend.exists(TOKEN, b"k")


async def test_a_device_is_no_file(backend: SqliteBackend, path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(BackendUnavailable, match="is no file"):
        await backend.get(TOKEN, b"k")


async def test_the_directory_may_come_later(tmp_path: Path, clock: ManualClock) -> None:
    backend = patient(tmp_path / "later" / "cache.db", clock)
    for call in (backend.get(TOKEN, b"k"), backend.delete(TOKEN, b"k"), backend.clear(TOKEN)):
        with pytest.raises(BackendUnavailable, match="No such file") as refusal:
            await call
        assert refusal.value.kind == "link"
    assert not (await backend.ping()).healthy
    (tmp_path / "later").mkdir()
    await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
    assert await backend.exists(TOKEN, b"k")
    await backend.close()


# -------------------------------------------------------------------------------------------------------- what it holds


async def test_what_anybody_put_into_a_row_is_a_miss(backend: SqliteBackend, path: Path, clock: ManualClock) -> None:
    """C-serial: a value of another type is counted and not served."""
    await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
    for value in ("'text'", "7", "1.5", "zeroblob(0)"):
        query(path, f"UPDATE entries_token SET value = {value}")
        entry = await backend.get(TOKEN, b"k")
        assert entry is None or entry.value == b""
    for ends in ("'never'", "x'00'", "9e999"):
        query(path, f"UPDATE entries_token SET ends = {ends}, value = x'00'")
        assert await backend.get(TOKEN, b"k") is None
        assert await backend.get_many(TOKEN, [b"k"]) == {}
        assert not await backend.exists(TOKEN, b"k")
        assert await backend.delete(TOKEN, b"k") is False
        await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
    assert backend.stats()["token"].refused == 3 + 2 * 3


async def test_a_value_that_is_too_large_is_refused_and_counted(backend: SqliteBackend, clock: ManualClock) -> None:
    """Y-big-value: refused here by its size; what the key had before is outdated."""
    end = clock.now() + HOUR
    await backend.set(TOKEN, b"k", b"v", end)
    await backend.set(TOKEN, b"large", bytes(1 << 20), end)
    await backend.set_many(TOKEN, {b"k": Entry(bytes(9 << 20), end), b"n": Entry(b"v", end)})
    assert await backend.get_many(TOKEN, [b"k", b"n"]) == {b"n": Entry(b"v", end)}
    assert await backend.get(TOKEN, b"large") == Entry(bytes(1 << 20), end)
    assert backend.stats()["token"].refused == 1


async def test_totals_are_those_of_all(backend: SqliteBackend, other: SqliteBackend, clock: ManualClock) -> None:
    end = clock.now() + HOUR
    await backend.set_many(TOKEN, {b"%d" % n: Entry(bytes(10), end) for n in range(10)})
    await other.set_many(TOKEN, {b"%d" % n: Entry(bytes(20), end) for n in range(5, 15)})
    for n in (0, 14, 99):
        await other.delete(TOKEN, b"%d" % n)
    expected = (13, 4 * 10 + 9 * 20 + sum(len(b"%d" % n) for n in range(1, 14)))
    assert {(c.entries, c.bytes) for c in (backend.stats()["token"], other.stats()["token"])} == {expected}
    await other.clear(TOKEN)
    await other.set(TOKEN, b"k", b"v", end)
    assert (backend.stats()["token"].entries, backend.stats()["token"].bytes) == (1, 2)
    assert (backend.stats()["token"].sets, other.stats()["token"].sets) == (10, 11)


async def test_who_sets_sweeps(backend: SqliteBackend, path: Path, clock: ManualClock) -> None:
    await backend.set_many(TOKEN, {b"%d" % n: Entry(bytes(10), clock.now() + n) for n in range(1, 201)})
    clock.advance(200)
    for n in range(4):
        await backend.set(TOKEN, b"new %d" % n, b"", clock.now() + HOUR)
    assert query(path, "SELECT count(*) FROM entries_token") == [(4,)]
    assert (backend.stats()["token"].expired, backend.stats()["token"].entries) == (200, 4)
    assert backend.stats()["token"].bytes == 4 * 5


async def test_a_large_clear_lets_others_write(
    backend: SqliteBackend, other: SqliteBackend, clock: ManualClock
) -> None:
    end = clock.now() + HOUR
    await backend.set_many(TOKEN, {b"%d" % n: Entry(bytes(100), end) for n in range(20_000)})
    clearing = asyncio.create_task(backend.clear(TOKEN))
    meanwhile = 0
    while not clearing.done():
        await other.set(GENERAL, b"%d" % meanwhile, b"v", end)
        meanwhile += 1
    await clearing
    assert meanwhile > 0
    assert (other.stats()["token"].entries, other.stats()["token"].bytes) == (0, 0)
    await other.set(TOKEN, b"1", b"v", end)
    assert await backend.exists(TOKEN, b"1")


async def test_there_is_a_bound_and_what_must_stay_stays(path: Path, clock: ManualClock) -> None:
    """C-bl-flood, I-neg-dos: a flood evicts what ends first; a revocation is never evicted."""
    backend = patient(path, clock, max_bytes=4 << 20)
    await backend.set(BLACKLIST, b"revoked", b"1", clock.now() + 1)
    for turn in range(20):
        many = {b"%d %d" % (turn, n): Entry(bytes(1000), clock.now() + HOUR + turn) for n in range(500)}
        await backend.set_many(TOKEN, many)
    counts = backend.stats()["token"]
    assert counts.evicted > 4000
    assert counts.entries == 10_000 - counts.evicted
    assert path.stat().st_size < 6 << 20
    assert await backend.exists(BLACKLIST, b"revoked")
    assert await backend.exists(TOKEN, b"19 499")
    assert not await backend.exists(TOKEN, b"0 0")
    await backend.close()
    assert is_whole(path)


async def test_types_are_the_callers(path: Path, clock: ManualClock) -> None:
    kind = replace(GENERAL, name='my "own" type')
    backend = patient(path, clock, types=[kind])
    await backend.set(kind, b"k", b"v", clock.now() + HOUR)
    assert await backend.get(kind, b"k") == Entry(b"v", clock.now() + HOUR)
    await backend.close()
    more = patient(path, clock, types=[kind, GENERAL])
    await more.set(GENERAL, b"k", b"w", clock.now() + HOUR)
    assert await more.get(kind, b"k") == Entry(b"v", clock.now() + HOUR)
    await more.close()


# ---------------------------------------------------------------------------------------------------- loops and callers


async def test_a_cancelled_caller_harms_nobody(backend: SqliteBackend, clock: ManualClock) -> None:
    """Y-cancel-dirty: what was queued is written; the others are served."""
    end = clock.now() + HOUR
    await backend.set(TOKEN, b"first", b"v", end)
    writes = [asyncio.create_task(backend.set(TOKEN, b"%d" % n, b"v", end)) for n in range(200)]
    await asyncio.sleep(0)
    for write in writes[::2]:
        write.cancel()
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(result) for result in results[::2]] == [asyncio.CancelledError] * 100
    assert results[1::2] == [None] * 100
    await backend.set(TOKEN, b"last", b"v", end)
    assert len(await backend.get_many(TOKEN, [b"%d" % n for n in range(200)])) == 200


async def test_a_cancelled_caller_while_it_opens_harms_nobody(backend: SqliteBackend) -> None:
    reads = [asyncio.create_task(backend.get(TOKEN, b"k")) for _ in range(20)]
    await asyncio.sleep(0)
    reads[0].cancel()
    results = await asyncio.gather(*reads, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [None] * 19


async def test_close_makes_the_writes_that_wait(path: Path, other: SqliteBackend, clock: ManualClock) -> None:
    backend = patient(path, clock)
    end = clock.now() + HOUR
    writes = [asyncio.create_task(backend.set(TOKEN, b"%d" % n, b"v", end)) for n in range(1000)]
    await asyncio.sleep(0)
    await asyncio.gather(backend.close(), backend.close())
    assert await asyncio.gather(*writes) == [None] * 1000
    assert len(await other.get_many(TOKEN, [b"%d" % n for n in range(1000)])) == 1000
    for call in (backend.get(TOKEN, b"1"), backend.delete(TOKEN, b"1"), backend.exists(TOKEN, b"1")):
        with pytest.raises(BackendUnavailable, match="closed"):
            await call
    assert [change async for change in backend.changes()] == []
    assert backend.stats()["token"].sets == 1000


async def test_the_last_to_close_leaves_one_file(backend: SqliteBackend, path: Path, clock: ManualClock) -> None:
    await backend.set(TOKEN, b"k", b"v", clock.now() + HOUR)
    await backend.close()
    assert {entry.name for entry in path.parent.iterdir()} == {"cache.db", "cache.db-lock"}


async def test_the_loop_goes_on_while_ten_thousand_writes_wait(path: Path) -> None:
    backend = patient(path, SystemClock())
    end = time.time() + HOUR

    async def longest_turn() -> float:
        writes: list[asyncio.Task[None]] = []
        with Turns() as turns:
            for n in range(10_000):
                writes.append(asyncio.create_task(backend.set(TOKEN, b"%d" % n, bytes(700), end)))
                if n % 200 == 0:
                    await asyncio.sleep(0)
            await asyncio.gather(*writes)
        return turns.longest

    gc.disable()
    try:
        assert await best_of(3, 0.05, longest_turn) < 0.05
    finally:
        gc.enable()
    assert backend.stats()["token"].entries == 10_000
    await backend.close()


async def test_too_many_writes_are_refused_at_once(backend: SqliteBackend, clock: ManualClock) -> None:
    """Y-queue-overflow: memory is bounded by bytes as well, and whoever is refused knows it."""
    end = clock.now() + HOUR
    writes = [asyncio.create_task(backend.set(TOKEN, b"%d" % n, bytes(1 << 20), end)) for n in range(100)]
    results = await asyncio.gather(*writes, return_exceptions=True)
    refused = [result for result in results if isinstance(result, BackendUnavailable)]
    assert 0 < len(refused) < 100
    assert "too many writes wait" in {result.detail for result in refused}


@pytest.fixture
def by_hand(path: Path, clock: ManualClock) -> Iterator[SqliteBackend]:
    backend = patient(path, clock)
    yield backend
    asyncio.run(backend.close())


def test_one_loop_after_another(by_hand: SqliteBackend, clock: ManualClock) -> None:
    end = clock.now() + HOUR

    async def once(n: int) -> None:
        await by_hand.set(TOKEN, b"%d" % n, b"v", end)
        assert len(await by_hand.get_many(TOKEN, [b"%d" % k for k in range(n + 1)])) == n + 1

    for n in range(4):
        asyncio.run(once(n))


def test_a_loop_that_was_closed_over_its_writes(by_hand: SqliteBackend, clock: ManualClock) -> None:
    end = clock.now() + HOUR
    loop = asyncio.new_event_loop()
    write = by_hand.set(TOKEN, b"k", b"v", end)
    task = loop.create_task(write)
    loop.call_soon(loop.stop)
    loop.run_forever()
    task.cancel()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()

    async def read() -> Entry | None:
        await by_hand.ping()
        return await by_hand.get(TOKEN, b"k")

    assert asyncio.run(read()) == Entry(b"v", end)


async def test_every_type_of_the_table_has_a_place(backend: SqliteBackend, clock: ManualClock) -> None:
    end = clock.now() + HOUR
    for kind in TYPES.values():
        await backend.set(kind, b"k", kind.name.encode(), end)
    for kind in TYPES.values():
        assert await backend.get(kind, b"k") == Entry(kind.name.encode(), end)
