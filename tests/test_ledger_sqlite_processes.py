"""One ledger in a file, several processes: who hears of what, and what a dying, frozen or forked one does."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import ledger_peer
import pytest
from journal_peer import record
from ledger_peer import everything, followed, ledger_at
from sqlite_peer import Peer, is_whole, peers
from test_journal_processes import locked, run_script

from oidc_middleware.cache.sqlite.ledger import SqliteLedger
from oidc_middleware.errors import BackendUnavailable

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


@pytest.fixture
def file(path: Path) -> Path:
    return Path(f"{path}-ledger")


@pytest.fixture
async def ledger(path: Path) -> AsyncIterator[SqliteLedger]:
    ledger = ledger_at(path)
    yield ledger
    await ledger.aclose()


@contextmanager
def others(path: Path, count: int = 1) -> Iterator[list[Peer]]:
    """Start processes with a ledger of their own on the same file."""
    with peers(path, count, ledger_peer.__file__) as started:
        yield started


async def test_many_processes_begin_one_epoch(path: Path) -> None:
    with others(path, 4) as four:
        for peer in four:
            peer.tell("ledger.look()")
        assert len({peer.answer() for peer in four}) == 1


async def test_all_hear_of_a_thousand_a_second_in_one_line(path: Path, ledger: SqliteLedger) -> None:
    """Two processes write, each at its time, and a third follows: every revocation once, each after the one before."""
    begin = await ledger.look()
    with others(path, 2) as two:
        for peer in two:
            assert peer.ask("ledger.look()") == begin
        begun = time.monotonic()
        for number, peer in enumerate(two):
            peer.tell(f"write_each(ledger, {number << 32}, 1000, every=0.002)")
        wanted = {number << 32 | digest for number in range(2) for digest in range(1000)}
        place, found = await followed(ledger, begin, wanted)
        assert found == wanted
        assert time.monotonic() - begun >= 1.9
        assert place == await ledger.look()
        assert place.number == 2000
        assert all(len(peer.answer()) == 1000 for peer in two)
        assert two[0].ask("everything(ledger)") == sorted(wanted)


async def test_processes_that_are_killed_lose_nothing_acknowledged(
    path: Path, ledger: SqliteLedger, file: Path
) -> None:
    """At whatever instant: what was acknowledged is there and was in the log, and the log is unbroken."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    begin = place = await ledger.look()
    acknowledged: set[int] = set()
    told: set[int] = set()
    for turn in range(10):
        with others(path, 2) as two:
            for number, peer in enumerate(two):
                peer.tell(f"writing(ledger, {(2 * turn + number) << 32})")
            if turn % 3:
                acknowledged.update(peer.answer() for peer in two)
            await asyncio.sleep(chance.uniform(0, 0.1))
            for peer in two:
                acknowledged.update(int(line) for line in peer.kill())
        if turn % 4 == 3:
            await ledger.aclose()  # nobody has it open now, and the next to open it recovers it
            assert is_whole(file)
        assert acknowledged <= set(await everything(ledger)), f"lost after turn {turn} of seed {seed}"
        place, more = await followed(ledger, place, acknowledged - told)
        told |= more
    assert place.epoch == begin.epoch
    assert len(acknowledged) > 100
    assert is_whole(file)


async def test_a_frozen_process_that_holds_the_lock_costs_the_budget_and_no_more(path: Path, file: Path) -> None:
    """Who looks or writes hears of it in time: nothing could be written. What is there is read."""
    patient = ledger_at(path)
    place = await patient.write([record(1)])
    ledger = ledger_at(path, budget=0.5)
    with locked(file):
        for call in (ledger.look(), ledger.write([record(2)])):
            with pytest.raises(BackendUnavailable) as refusal:
                await call
            assert refusal.value.kind in {"busy", "timeout"}
        assert await everything(patient) == [1]
        assert await patient.read(place, 0) == []
    assert (await patient.look()).number in {1, 2}
    assert (await patient.write([record(3)])).number in {2, 3}
    await patient.aclose()
    await ledger.aclose()


async def test_a_full_disk(path: Path, ledger: SqliteLedger, file: Path) -> None:
    begin = await ledger.look()
    with others(path) as (peer,):
        peer.ask("limit(200_000)")
        answer = peer.ask("write_each(ledger, 0, 10_000)")
        assert answer.startswith("! backend_unavailable: ")
        kept = peer.ask("everything(ledger)")
        assert kept == list(range(len(kept)))
        assert (await ledger.look()).number == len(kept)
        peer.ask("limit(None)")
        assert len(peer.ask(f"write_each(ledger, {len(kept)}, 10)")) == 10
    place, _ = await followed(ledger, begin, set(range(len(kept) + 10)))
    assert place == await ledger.look()
    assert is_whole(file)


READ_ONLY = """
import asyncio, os, sys
from ledger_peer import everything, ledger_at, record
path = sys.argv[1]
file, directory = path + "-ledger", os.path.dirname(path)
async def main():
    before, after = ledger_at(path), ledger_at(path)
    place = await before.look()
    os.chmod(file, 0o400)
    for ledger in (before, after):
        try:
            await ledger.look()
        except Exception as error:
            print(type(error).__name__, error.kind)
        assert await ledger.read(place, 0) == []
        assert await everything(ledger) == [1]
    os.chmod(file, 0o600)
    for ledger in (before, after):
        print((await ledger.write([record(2 + (ledger is after))])).number)
        await ledger.aclose()
if os.geteuid() == 0:
    os.chown(directory, 65534, 65534)
    for name in os.listdir(directory):
        os.chown(os.path.join(directory, name), 65534, 65534)
    os.setegid(65534)
    os.seteuid(65534)
asyncio.run(main())
"""


async def test_a_file_that_may_not_be_written_any_more_has_no_place(path: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:  # pytest's own may not be entered by others
        own = Path(directory, "cache.db")
        ledger = ledger_at(own)
        await ledger.write([record(1)])
        await ledger.aclose()
        assert run_script(READ_ONLY, own) == ["BackendUnavailable readonly"] * 2 + ["2", "3"]


FORKING = """
import asyncio, os, sys, warnings
from journal_peer import record
from ledger_peer import everything, followed, ledger_at
warnings.simplefilter("ignore")
ledger = ledger_at(sys.argv[1])

async def work(first):
    for digest in range(first, first + 50):
        await ledger.write([record(digest)])

async def main():
    place = await ledger.look()
    following = asyncio.create_task(followed(ledger, place, {100 * n + k for n in range(5) for k in range(50)}))
    busy = asyncio.gather(work(0), work(100))
    await asyncio.sleep(0.005)
    children = []
    for number in range(2, 5):
        child = os.fork()
        if not child:
            try:
                asyncio.run(work(100 * number))
                asyncio.run(ledger.aclose())
            finally:
                os._exit(sys.exc_info()[0] is not None)
        children.append(child)
        await asyncio.sleep(0.002)
    await busy
    await following
    for child in children:
        assert os.waitpid(child, 0)[1] == 0, "a child failed"
    print(len(await everything(ledger)))
    await ledger.aclose()

asyncio.run(main())
"""


async def test_a_fork_shares_no_connection(path: Path, file: Path) -> None:
    """Forked in the middle of commits, by a loop that runs: parent and children go on, and the log is one line."""
    assert run_script(FORKING, path) == ["250"]
    assert is_whole(file)
