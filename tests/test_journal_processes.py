"""One journal, several processes: what they hear of each other, and what a dying, frozen or forked one does."""
# ruff: noqa: ASYNC240 (these tests are about files, and nobody else uses their loop)

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import journal_peer
import pytest
from journal_peer import PATIENCE, digests, journal_at, record
from sqlite_peer import DEADLINE, Peer, is_whole, peers

from oidc_middleware.cache.sqlite.journal import SqliteJournal
from oidc_middleware.errors import BackendUnavailable

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.db"


@pytest.fixture
async def journal(path: Path) -> AsyncIterator[SqliteJournal]:
    journal = journal_at(path)
    yield journal
    await journal.aclose()


@contextmanager
def others(path: Path, count: int = 1) -> Iterator[list[Peer]]:
    """Start processes with a journal of their own on the same file."""
    with peers(path, count, journal_peer.__file__) as started:
        yield started


async def heard(journal: SqliteJournal, wanted: set[int]) -> set[int]:
    """Return what is news until all that is wanted is among it."""
    found: set[int] = set()
    async with asyncio.timeout(DEADLINE):
        while not found >= wanted:
            found.update(digests(await journal.news()))
            await asyncio.sleep(0.001)
    return found


async def test_what_one_adds_all_hear_once_and_all_keep(path: Path, journal: SqliteJournal) -> None:
    await journal.load()
    with others(path, 3) as three:
        for number, peer in enumerate(three):
            peer.tell(f"add_each(journal, {number * 1000}, 200)")
        wanted = {number * 1000 + digest for number in range(3) for digest in range(200)}
        assert await heard(journal, wanted) == wanted
        for peer in three:
            assert peer.answer() is None
            assert peer.ask("names(journal)") == sorted(wanted)


async def test_many_processes_make_one_file(path: Path) -> None:
    with others(path, 4) as four:
        for number, peer in enumerate(four):
            peer.tell(f"journal.add([record({number})], is_acknowledged=False)")
        assert [peer.answer() for peer in four] == [None] * 4
        assert [peer.ask("names(journal)") for peer in four] == [[0, 1, 2, 3]] * 4
    assert is_whole(path)


async def test_processes_that_are_killed_lose_nothing_acknowledged(path: Path, journal: SqliteJournal) -> None:
    """At whatever instant: in a commit, between two, while it opens the file, while the log is moved into the file."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    acknowledged: set[int] = set()
    told: set[int] = set()
    await journal.load()
    for turn in range(12):
        with others(path, 2) as two:
            for number, peer in enumerate(two):
                peer.tell(f"adding(journal, {(2 * turn + number) << 32})")
            if turn % 3:
                acknowledged.update(peer.answer() for peer in two)
            await asyncio.sleep(chance.uniform(0, 0.1))
            for peer in two:
                acknowledged.update(int(line) for line in peer.kill())
        told.update(digests(await journal.news()))
        if turn % 4 == 3:
            await journal.aclose()  # nobody has it open now, and the next to open it recovers it
            assert is_whole(path)
        again = journal_at(path)
        assert acknowledged <= set(digests(await again.load())), f"lost after turn {turn} of seed {seed}"
        await again.aclose()
        assert acknowledged <= told | set(digests(await journal.news())), f"not told after turn {turn} of seed {seed}"
    assert len(acknowledged) > 100
    assert is_whole(path)


async def test_a_frozen_process_that_holds_the_lock_costs_the_budget_and_no_more(path: Path) -> None:
    """Who adds hears of it in time, what is there is read, and all is well when the lock is free."""
    patient = journal_at(path)
    await patient.add([record(1)], is_acknowledged=False)
    journal = journal_at(path, budget=0.5)
    with locked(path):
        with pytest.raises(BackendUnavailable) as refusal:
            await journal.add([record(2)], is_acknowledged=False)
        assert refusal.value.kind in {"busy", "timeout"}
        assert journal.problem is not None
        assert digests(await patient.news()) == [1]
    await patient.add([record(3)], is_acknowledged=False)
    assert set(digests(await patient.load())) >= {1, 3}
    await patient.aclose()
    await journal.aclose()


async def test_what_was_not_acknowledged_in_time_may_still_be_made(path: Path, journal: SqliteJournal) -> None:
    await journal.add([record(1)], is_acknowledged=False)
    with locked(path):
        hasty = asyncio.create_task(journal.add([record(2)], is_acknowledged=False))
        await asyncio.sleep(0)
        hasty.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hasty
    await journal.add([record(3)], is_acknowledged=False)
    assert digests(await journal.load()) == [1, 2, 3]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep everybody else from writing, as a process does that was frozen in a transaction."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
    finally:
        db.close()


async def test_who_commits_without_end_lets_others_in(path: Path, journal: SqliteJournal) -> None:
    with others(path, 2) as two:
        for number, peer in enumerate(two):
            peer.tell(f"adding(journal, {number << 32})")
            peer.answer()
        for digest in range(20):
            await journal.add([record(1 << 40 | digest)], is_acknowledged=False)


async def test_a_full_disk(path: Path, journal: SqliteJournal) -> None:
    await journal.load()
    with others(path) as (peer,):
        peer.ask("limit(200_000)")
        answer = peer.ask("add_each(journal, 0, 10_000)")
        assert answer.startswith("! backend_unavailable: ")
        assert "SQLITE_" in peer.ask("journal.problem")
        kept = peer.ask("names(journal)")
        assert kept == list(range(len(kept)))
        assert digests(await journal.load()) == kept
        peer.ask("limit(None)")
        assert peer.ask(f"add_each(journal, {len(kept)}, 10)") is None
        assert peer.ask("journal.problem") is None
    assert len(digests(await journal.load())) == len(kept) + 10
    assert is_whole(path)


READ_ONLY = """
import asyncio, os, sys
from journal_peer import journal_at, names, record
path = sys.argv[1]
directory = os.path.dirname(path)
names_there = [os.path.join(directory, name) for name in os.listdir(directory)]
if os.geteuid() == 0:
    for name in [directory, *names_there]:
        os.chown(name, 65534, 65534)
for name in names_there:
    os.chmod(name, 0o400)
os.chmod(directory, 0o500)
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
async def main():
    journal = journal_at(path)
    try:
        print(await names(journal))
    except Exception as error:
        print(type(error).__name__)
    try:
        await journal.add([record(2)], is_acknowledged=False)
    except Exception as error:
        print(type(error).__name__)
    print(journal.problem)
    os.chmod(directory, 0o700)
    for name in names_there:
        os.chmod(name, 0o600)
    await journal.add([record(3)], is_acknowledged=False)
    print(await names(journal), journal.problem)
    await journal.aclose()
asyncio.run(main())
"""


@pytest.mark.parametrize("left", ["by one that closed it", "by one that was killed", "by nobody"])
async def test_a_directory_that_may_not_be_written(left: str) -> None:
    """What is there is known all the same, and all is well when the directory may be written."""
    with tempfile.TemporaryDirectory() as directory:  # pytest's own may not be entered by others
        path = Path(directory, "journal.db")
        if left != "by nobody":
            with others(path) as (peer,):
                peer.ask("journal.add([record(1)], is_acknowledged=False)")
                if left == "by one that closed it":
                    peer.ask("journal.aclose()")
                assert Path(f"{path}-wal").exists() == (left == "by one that was killed")
                peer.kill()
        *errors, problem, last = run_script(READ_ONLY, path)
    assert errors == ["BackendUnavailable" if left == "by nobody" else "[1]", "BackendUnavailable"]
    assert problem.endswith("let the user of this process write the file and its directory")
    assert last == ("[3] None" if left == "by nobody" else "[1, 3] None")


async def test_what_is_there_is_known_to_who_starts_with_a_full_disk(path: Path, journal: SqliteJournal) -> None:
    await journal.add([record(digest) for digest in range(50)], is_acknowledged=False)
    await journal.aclose()
    with others(path) as (peer,):
        peer.ask("limit(100)")
        assert peer.ask("names(journal)") == list(range(50))
        assert "SQLITE_" in peer.ask("journal.problem")
        assert peer.ask("journal.add([record(99)], is_acknowledged=False)").startswith("! ")
        peer.ask("limit(None)")
        assert peer.ask("journal.add([record(99)], is_acknowledged=False)") is None
        assert peer.ask("journal.problem") is None
    assert digests(await journal.load()) == [*range(50), 99]


FORKING = """
import asyncio, os, sys, warnings
from journal_peer import digests, journal_at, record
warnings.simplefilter("ignore")
journal = journal_at(sys.argv[1])

async def work(first):
    for digest in range(first, first + 50):
        await journal.add([record(digest)], is_acknowledged=False)

async def listen(wanted):
    found = set()
    async with asyncio.timeout(15):
        while not found >= wanted:
            found.update(digests(await journal.news()))
            await asyncio.sleep(0.001)

async def main():
    await journal.load()
    busy = asyncio.gather(work(0), work(100))
    await asyncio.sleep(0.005)
    children = []
    for number in range(2, 5):
        child = os.fork()
        if not child:
            try:
                asyncio.run(work(100 * number))
                asyncio.run(journal.aclose())
            finally:
                os._exit(sys.exc_info()[0] is not None)
        children.append(child)
        await asyncio.sleep(0.002)
    await busy
    await listen({100 * number + n for number in range(5) for n in range(50)})
    for child in children:
        assert os.waitpid(child, 0)[1] == 0, "a child failed"
    print(len(await journal.load()))
    await journal.aclose()

asyncio.run(main())
"""


async def test_a_fork_shares_no_connection(path: Path) -> None:
    """Forked in the middle of commits, by a loop that runs: parent and children go on, and the parent hears all."""
    assert run_script(FORKING, path) == ["250"]
    assert is_whole(path)


FORKED_EARLY = """
import asyncio, os, sys, warnings
from journal_peer import journal_at, names, record
warnings.simplefilter("ignore")
journal = journal_at(sys.argv[1])

async def main():
    first = asyncio.create_task(journal.add([record(1)], is_acknowledged=False))
    await asyncio.sleep(0)
    child = os.fork()
    if not child:
        try:
            asyncio.run(journal.add([record(2)], is_acknowledged=False))
        finally:
            os._exit(sys.exc_info()[0] is not None)
    await first
    assert os.waitpid(child, 0)[1] == 0, "the child failed"
    print(await names(journal))
    await journal.aclose()

asyncio.run(main())
"""


async def test_a_fork_while_it_is_opened_for_the_first_time(path: Path) -> None:
    assert run_script(FORKED_EARLY, path) == ["[1, 2]"]


def run_script(script: str, path: Path) -> list[str]:
    """Run a script in a process of its own and return its lines; nothing may go wrong."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


async def test_a_process_that_ends_without_closing_ends_and_has_kept_all(path: Path, journal: SqliteJournal) -> None:
    script = """
import asyncio, sys, warnings
from journal_peer import journal_at, record
warnings.simplefilter("ignore", ResourceWarning)  # Python tells that it was not closed
journal = journal_at(sys.argv[1])
async def main():
    for digest in range(100):
        asyncio.create_task(journal.add([record(digest)], is_acknowledged=False))
    await asyncio.sleep(0)
asyncio.run(main())
"""
    assert run_script(script, path) == []
    assert digests(await journal.load()) == list(range(100))
    assert is_whole(path)
