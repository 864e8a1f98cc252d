"""One file, several processes: what they see of each other, and what a dying, hanging or replacing one does."""
# ruff: noqa: ASYNC240 (these tests are about files, and nobody else uses their loop)

from __future__ import annotations

import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from sqlite_peer import DEADLINE, Peer, is_whole, patient, peers

from oidc_middleware.cache import TYPES, Entry
from oidc_middleware.cache.changes import EVERYTHING, Change
from oidc_middleware.cache.sqlite import SqliteBackend
from oidc_middleware.clock import SystemClock
from oidc_middleware.errors import BackendUnavailable

from time_kit import Stopwatch

pytestmark = pytest.mark.anyio

GENERAL, TOKEN = TYPES["general"], TYPES["token"]
BUDGET = 1.0
"""Of which a fifth is left to say why: a thread that is late by less does not turn "busy" into "no answer"."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


@pytest.fixture
def peer(path: Path) -> Iterator[Peer]:
    with peers(path) as (peer,):
        yield peer


@pytest.fixture
async def backend(path: Path) -> AsyncIterator[SqliteBackend]:
    """Open the file in this process, with time to spare."""
    backend = patient(path, SystemClock())
    yield backend
    await backend.close()


async def nexts(changes: AsyncIterator[Change], wanted: Callable[[list[Change]], bool]) -> list[Change]:
    """Return changes as they come, until there is what is wanted."""
    found: list[Change] = []
    async with asyncio.timeout(DEADLINE):
        while not wanted(found):
            found.append(await anext(changes))
    return found


async def test_what_one_writes_another_reads(path: Path, backend: SqliteBackend) -> None:
    """Y-order: set, delete and clear of one process hold for all as soon as they are acknowledged."""
    with peers(path, 2) as (one, other):
        assert one.ask("backend.set(G, b'k', b'v', 5e9)") is None
        assert other.ask("backend.get(G, b'k')") == (b"v", 5e9, 0)
        assert await backend.get(GENERAL, b"k") == Entry(b"v", 5e9)
        assert other.ask("backend.delete(G, b'k')") is True
        assert one.ask("backend.get(G, b'k')") is None
        assert await backend.get(GENERAL, b"k") is None
        one.ask("backend.set_many(G, {b'%d' % n: Entry(b'v', end) for n in range(100)})")
        one.ask("backend.set(T, b'k', b'v', end)")
        await backend.clear(GENERAL)
        assert other.ask("backend.get_many(G, [b'%d' % n for n in range(100)])") == {}
        assert other.ask("backend.exists(T, b'k')") is True


async def test_a_file_that_many_make_at_once_is_one(path: Path) -> None:
    with peers(path, 4) as four:
        for turn in range(5):
            for number, peer in enumerate(four):
                peer.tell(f"backend.set(G, b'{turn} {number}', b'v', end)")
            assert [peer.answer() for peer in four] == [None] * 4
            for peer in four:
                keys = [f"{turn} {number}".encode() for number in range(4)]
                assert len(peer.ask(f"backend.get_many(G, {keys})")) == 4
            if turn == 3:  # all notice that their file is gone, and agree on the next
                path.unlink()
                await asyncio.sleep(0.03)
    assert is_whole(path)
    assert not Path(f"{path}.aside-1").exists()


# -------------------------------------------------------------------------------------------------------------- changes


async def test_changes_of_others_come_soon_and_own_ones_do_not(backend: SqliteBackend, peer: Peer) -> None:
    async with aclosing(backend.changes()) as changes:
        assert await anext(changes) == EVERYTHING
        peer.ask("backend.set(G, b'first', b'v', end)")
        peer.ask("backend.set(T, b'k', b'v', end)")
        peer.ask("backend.set(T, b'k', b'w', end)")
        await backend.set(GENERAL, b"first", b"mine", time.time() + 60)
        await backend.delete(GENERAL, b"mine")
        taken: list[float] = []
        for number in range(10):
            peer.ask(f"backend.delete(G, b'{number}')")
            with Stopwatch() as passed:
                assert await nexts(changes, bool) == [Change("general", frozenset({b"%d" % number}))]
                taken.append(passed())
        assert statistics.median(taken) < 0.05
        peer.ask("backend.set(G, b'first', b'theirs', end)")
        assert await nexts(changes, bool) == [Change("general", frozenset({b"first"}))]
        peer.ask("backend.set(B, b'revoked', b'1', end)")
        assert await nexts(changes, bool) == [Change("blacklist", frozenset({b"revoked"}))]
        peer.ask("backend.clear(S)")
        assert await nexts(changes, bool) == [Change("session")]
        await backend.close()
        assert [change async for change in changes] == []


async def test_a_large_change_names_no_keys(backend: SqliteBackend, peer: Peer) -> None:
    async with aclosing(backend.changes()) as changes:
        await anext(changes)
        peer.ask("backend.set_many(G, {b'%d' % n * 100: Entry(b'v', end) for n in range(500)})")
        peer.ask("backend.set_many(G, {b'%d' % n * 100: Entry(b'w', end) for n in range(500)})")
        assert await nexts(changes, bool) == [Change("general")]


async def test_who_missed_changes_hears_that_everything_may_have_changed(backend: SqliteBackend, peer: Peer) -> None:
    async with aclosing(backend.changes()) as changes:
        await anext(changes)
        # One after another, so that each is a transaction; the reader looks at nothing meanwhile.
        for _ in range(12):
            peer.ask("one_after_another(backend.delete, G, 100)")
        assert await nexts(changes, bool) == [EVERYTHING]
        peer.ask("backend.delete(G, b'k')")
        assert await nexts(changes, bool) == [Change("general", frozenset({b"k"}))]


async def test_no_change_is_lost_or_told_twice(backend: SqliteBackend, path: Path) -> None:
    with peers(path, 3) as three:
        async with aclosing(backend.changes(every=0.001)) as changes:
            await anext(changes)
            for number, peer in enumerate(three):
                peer.tell(f"one_after_another(backend.delete, G, 200, b'{number} ')")
            found = await nexts(changes, lambda found: sum(len(change.keys or ()) for change in found) >= 600)
            assert all(peer.answer() is None for peer in three)
    keys = [key for change in found for key in change.keys or ()]
    assert sorted(keys) == sorted(b"%d %d" % (number, n) for number in range(3) for n in range(200))


@pytest.mark.parametrize(
    "ends",
    [("",), ("", "-wal", "-shm"), ("", "-lock"), ("-wal", "-shm", "", "-lock")],
    ids=["file", "file and log", "file and lock", "all"],
)
async def test_a_removed_file_is_noticed(backend: SqliteBackend, path: Path, peer: Peer, ends: tuple[str, ...]) -> None:
    peer.ask("backend.set(G, b'k', b'v', end)")
    async with aclosing(backend.changes()) as changes:
        await anext(changes)
        assert await backend.exists(GENERAL, b"k")
        for end in ends:
            Path(f"{path}{end}").unlink()
        assert await nexts(changes, bool) == [EVERYTHING]
        assert await backend.get(GENERAL, b"k") is None
        await backend.set(GENERAL, b"k", b"new", 5e9)
        assert peer.ask("backend.get(G, b'k')") == (b"new", 5e9, 0)
        peer.ask("backend.delete(G, b'k')")
        assert await nexts(changes, bool) == [Change("general", frozenset({b"k"}))]
    assert is_whole(path)


async def test_a_lock_that_was_removed_harms_nobody(path: Path, backend: SqliteBackend, peer: Peer) -> None:
    """Something cleans the directory of what nobody touched for days."""
    peer.ask("backend.set(G, b'k', b'v', 5e9)")
    assert await backend.exists(GENERAL, b"k")
    Path(f"{path}-lock").unlink()
    with peers(path) as (late,):
        assert late.ask("backend.get(G, b'k')") == (b"v", 5e9, 0)
        for writer in (peer, late):
            writer.ask("backend.set(G, b'k', b'w', 5e9)")
            assert await backend.get(GENERAL, b"k") == Entry(b"w", 5e9)
            await backend.set(GENERAL, b"k", b"v", 5e9)
            assert [reader.ask("backend.get(G, b'k')") for reader in (peer, late)] == [(b"v", 5e9, 0)] * 2
    assert is_whole(path)


async def test_a_replaced_file_is_noticed(backend: SqliteBackend, path: Path, peer: Peer, tmp_path: Path) -> None:
    other = patient(tmp_path / "other.db", SystemClock())
    await other.set(GENERAL, b"k", b"of the other", 5e9)
    await other.close()
    await backend.set(GENERAL, b"k", b"v", 5e9)
    assert peer.ask("backend.get(G, b'k')") == (b"v", 5e9, 0)
    (tmp_path / "other.db").rename(path)
    with peers(path) as (late,):
        # The first to open it finds beside it what belongs to the file before, and in use.
        assert late.ask("backend.get(G, b'k')") == (b"of the other", 5e9, 0)
        assert await backend.get(GENERAL, b"k") == Entry(b"of the other", 5e9)
        assert peer.ask("backend.get(G, b'k')") == (b"of the other", 5e9, 0)
        assert late.ask("backend.set(G, b'k', b'new', 5e9)") is None
        assert await backend.get(GENERAL, b"k") == Entry(b"new", 5e9)
    assert is_whole(path)


# --------------------------------------------------------------------------------------------------------------- faults


async def test_a_writer_that_is_killed_loses_nothing_acknowledged(path: Path, backend: SqliteBackend) -> None:
    """Y-kill-midwrite, as it is without a server: at whatever instant it dies."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    acknowledged: list[bytes] = []
    for turn in range(5):
        with peers(path, 2) as two:
            for number, peer in enumerate(two):
                peer.tell(f"writing(backend, b'{turn}-{number}')")
                peer.answer()
            await asyncio.sleep(chance.uniform(0.01, 0.1))
            for number, peer in enumerate(two):
                acknowledged += [b"%d-%d %s" % (turn, number, line.encode()) for line in peer.kill()]
        found = await backend.get_many(GENERAL, acknowledged)
        assert len(found) == len(acknowledged), f"lost after turn {turn} of seed {seed}"
        assert all(entry.value == key.split()[1] * 40 for key, entry in found.items())
    assert len(acknowledged) > 100
    assert is_whole(path)


async def test_a_frozen_process_that_writes_holds_nobody_for_long(path: Path, peer: Peer) -> None:
    """Y-stop: reads go on, writes end within the budget, and all is well when the lock is free."""
    patient_one = patient(path, SystemClock())
    await patient_one.set(GENERAL, b"k", b"v", 5e9)
    backend = SqliteBackend(path, clock=SystemClock(), budget=BUDGET)
    assert (await backend.ping()).healthy
    peer.tell(f"hold({str(path)!r})")
    assert peer.answer() == "held"
    before = time.perf_counter()
    writes = [backend.set(GENERAL, b"k", b"w", 5e9), backend.delete(TOKEN, b"k"), backend.clear(TOKEN)]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert time.perf_counter() - before < 2 * BUDGET
    assert [result.kind for result in results if isinstance(result, BackendUnavailable)] == ["busy"] * 3
    assert "SQLITE_BUSY" in str(results[0])
    assert await backend.get(GENERAL, b"k") == Entry(b"v", 5e9)
    assert not (await backend.ping()).healthy
    with peers(path) as (late,):
        assert late.ask("backend.get(G, b'k')") == (b"v", 5e9, 0)
    assert peer.ask("let go") is None
    await patient_one.set(GENERAL, b"k", b"w", 5e9)
    async with asyncio.timeout(DEADLINE):
        while not (await backend.ping()).healthy:
            pass
    await backend.close()
    await patient_one.close()


async def test_a_full_disk(backend: SqliteBackend, path: Path, peer: Peer) -> None:
    """Y-oom, as it is without a server: reads go on, writes fail loudly, and go on when there is room."""
    assert peer.ask("backend.set(G, b'k', b'v', 5e9)") is None
    peer.ask("limit(300_000)")
    answers = [peer.ask(f"backend.set(G, b'{n}', bytes(10_000), 5e9)") for n in range(60)]
    assert answers[0] is None
    assert "SQLITE_" in answers[-1]
    assert peer.ask("backend.get(G, b'0')") == (bytes(10_000), 5e9, 0)
    peer.ask("limit(1000)")
    assert peer.ask("backend.ping()")[0] is False
    assert peer.ask("backend.get(G, b'0')") == (bytes(10_000), 5e9, 0)
    refused = [n for n, answer in enumerate(answers) if answer is not None]
    assert await backend.get_many(GENERAL, [b"%d" % n for n in refused]) == {}
    peer.ask("limit(None)")
    assert peer.ask("backend.set(G, b'k', b'w', 5e9)") is None
    assert await backend.get(GENERAL, b"k") == Entry(b"w", 5e9)
    assert is_whole(path)


READ_ONLY = """
import asyncio, os, sys
from sqlite_peer import SystemClock, TYPE_OF, patient
path, is_there = sys.argv[1], os.path.exists(sys.argv[1])
if os.geteuid() == 0:
    os.chown(os.path.dirname(path), 65534, 65534)
    for name in os.listdir(os.path.dirname(path)):
        os.chown(os.path.join(os.path.dirname(path), name), 65534, 65534)
os.chmod(os.path.dirname(path), 0o555)
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
async def main():
    backend = patient(path, SystemClock())
    for call in (backend.get(TYPE_OF["G"], b"k"), backend.set(TYPE_OF["G"], b"k", b"v", 5e9)):
        try:
            await call
        except Exception as error:
            print(type(error).__name__, error)
    print(await backend.ping())
    await backend.close()
    os.chmod(os.path.dirname(path), 0o755)
    again = patient(path, SystemClock())
    await again.set(TYPE_OF["G"], b"k", b"w", 5e9)
    print(await again.get(TYPE_OF["G"], b"k"))
    await again.close()
asyncio.run(main())
"""


@pytest.mark.parametrize("is_there", [True, False], ids=["with the file", "without"])
async def test_a_directory_that_may_not_be_written(is_there: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "cache.db")
        if is_there:
            backend = patient(path, SystemClock())
            await backend.set(GENERAL, b"k", b"v", 5e9)
            await backend.close()
        output = run_script(READ_ONLY, path)
    assert output[0].startswith("BackendUnavailable backend_unavailable: ")
    assert output[1].startswith("BackendUnavailable backend_unavailable: ")
    assert output[2].startswith("Health(healthy=False, detail=")
    assert output[3] == "Entry(value=b'w', expires_at=5000000000.0, version=0)"


FORKING = """
import asyncio, os, sys, traceback, warnings
from sqlite_peer import SystemClock, TYPE_OF, patient
warnings.simplefilter("ignore")
G = TYPE_OF["G"]
backend = patient(sys.argv[1], SystemClock())

async def work(name):
    for n in range(50):
        await backend.set(G, b"%s %d" % (name, n), b"v", 5e9)
        assert await backend.get(G, b"%s %d" % (name, n)), name

async def main():
    busy = asyncio.gather(work(b"one"), work(b"two"))
    await asyncio.sleep(0.005)
    children = []
    for number in range(3):
        child = os.fork()
        if not child:
            try:
                asyncio.run(work(b"%d" % number))
                asyncio.run(backend.close())
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
        await asyncio.sleep(0.002)
    await busy
    await work(b"three")
    for child in children:
        assert os.waitpid(child, 0)[1] == 0, "a child failed"
    names = (b"one", b"two", b"three", b"0", b"1", b"2")
    found = await backend.get_many(G, [b"%s %d" % (name, n) for name in names for n in range(50)])
    print(len(found))
    await backend.close()

asyncio.run(main())
"""


async def test_a_fork_shares_no_connection(path: Path) -> None:
    """Forked in the middle of writes, by a loop that runs: parent and children go on, each with a file of its own."""
    assert run_script(FORKING, path) == ["300"]
    assert is_whole(path)


FORKING_EARLY = """
import asyncio, os, sys, traceback, warnings
from sqlite_peer import SystemClock, TYPE_OF, patient
warnings.simplefilter("ignore")
sys.setswitchinterval(1)  # the thread that writes has not begun when the process forks
G = TYPE_OF["G"]
backend = patient(sys.argv[1], SystemClock())

async def main():
    first = asyncio.create_task(backend.set(G, b"of the parent", b"v", 5e9))
    await asyncio.sleep(0)
    child = os.fork()
    if not child:
        try:
            asyncio.run(backend.set(G, b"of the child", b"v", 5e9))
            asyncio.run(backend.close())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    await first
    assert os.waitpid(child, 0)[1] == 0, "the child failed"
    print(len(await backend.get_many(G, [b"of the parent", b"of the child"])))
    await backend.close()

asyncio.run(main())
"""


async def test_a_fork_before_the_first_write_is_made(path: Path) -> None:
    """The child does not wait for a thread that only its parent has."""
    assert run_script(FORKING_EARLY, path) == ["2"]


LEAVING = """
import asyncio, sys, warnings
from sqlite_peer import SystemClock, TYPE_OF, patient
warnings.simplefilter("ignore", ResourceWarning)  # Python tells that it was not closed
backend = patient(sys.argv[1], SystemClock())
async def main():
    for n in range(100):
        asyncio.create_task(backend.set(TYPE_OF["G"], b"%d" % n, b"v", 5e9))
    await asyncio.sleep(0)
asyncio.run(main())
"""


async def test_a_process_that_ends_without_closing_ends_at_once(path: Path, backend: SqliteBackend) -> None:
    before = time.perf_counter()
    run_script(LEAVING, path)
    assert time.perf_counter() - before < DEADLINE / 2
    assert len(await backend.get_many(GENERAL, [b"%d" % n for n in range(100)])) == 100
    assert is_whole(path)


def run_script(script: str, path: Path) -> list[str]:
    """Run a script in a process of its own and return its lines; nothing may go wrong."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.splitlines()
