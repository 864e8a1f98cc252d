"""What every store of the ledger must do, as a suite of tests to be run over each of them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence

import pytest

from oidc_middleware.cache.ledger import TOGETHER, LedgerStore
from oidc_middleware.core.ledger.records import GRACE, LARGEST_NUMBER, Kind, LogEntry, Position, Record

from redis_kit import PATIENCE

OpenStore = Callable[[], LedgerStore]
"""Opens one more store over the same data, as another node does; it is closed when the test ends."""

KEY_ID = b"key1"
HOUR = 3600


def token(digest: int, end: int, key_id: bytes = KEY_ID) -> Record:
    """Return the revocation of a token that expires at `end`."""
    return Record(Kind.TOKEN, key_id, digest, end, end)


def cutoff(kind: Kind, digest: int, number: int, life: int) -> Record:
    """Return the revocation of all that was issued until `number` and lives for `life`."""
    return Record(kind, KEY_ID, digest, number, number + life)


async def contents(store: LedgerStore) -> set[Record]:
    """Return all records, page by page."""
    found: set[Record] = set()
    cursor = b""
    while True:
        page = await store.scan(cursor)
        found.update(page.records)
        cursor = page.cursor
        if not cursor:
            return found


async def logged(store: LedgerStore, after: Position) -> list[LogEntry]:
    """Return all that was logged after a place."""
    entries: list[LogEntry] = []
    while more := await store.read(after, 0):
        entries += more
        after = more[-1].position
    return entries


def follows(entries: Sequence[LogEntry], after: Position) -> bool:
    """Tell whether each entry follows on the one before it, and the first on a place."""
    places = [after, *(entry.position for entry in entries)]
    return all(
        Position(entry.epoch, entry.number - 1, entry.previous_id) == place
        for entry, place in zip(entries, places[:-1], strict=True)
    )


class LedgerStoreContract:
    """The suite. Derive a class `Test…` from it, with a fixture of your own.

    `open_store` is an `OpenStore` over data that begin empty. `now` is the time by the store's own clock, in seconds;
    it may be another one's than this machine's.
    """

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def now(self) -> int:
        return int(time.time())

    @pytest.fixture
    def store(self, open_store: OpenStore) -> LedgerStore:
        return open_store()

    @pytest.fixture
    def other(self, open_store: OpenStore) -> LedgerStore:
        return open_store()

    # -------------------------------------------------------------------------------------------------- places, joining

    async def test_an_empty_store_has_a_place_that_all_agree_on(self, store: LedgerStore, other: LedgerStore) -> None:
        place = await store.look()
        assert place.epoch
        assert (place.number, place.last_id) == (0, b"")
        assert await other.look() == place == await store.look()
        assert await store.read(place, 0) == []
        assert await other.scan(b"") == ([], b"", place)

    async def test_writing_nothing_changes_nothing(self, store: LedgerStore) -> None:
        place = await store.write([])
        assert place.number == 0
        assert await store.look() == place
        assert await store.write([]) == place

    async def test_what_one_writes_all_find(self, store: LedgerStore, other: LedgerStore, now: int) -> None:
        record = token(7, now + HOUR)
        place = await store.write([record])
        assert (place.number, place.last_id != b"") == (1, True)
        assert await other.look() == place
        assert await other.scan(b"") == ([record], b"", place)

    async def test_every_kind_and_the_largest_and_smallest_numbers_come_back_as_they_were(
        self, store: LedgerStore, other: LedgerStore, now: int
    ) -> None:
        records = {
            token(0, now, b"\0\0\0\0"),
            token(2**64 - 1, LARGEST_NUMBER, b"\xff\xff\xff\xff"),
            *(cutoff(kind, 2**63 + kind, now, 30 * 24 * HOUR) for kind in Kind),
            Record(Kind.CLEAR, KEY_ID, 9, 0, LARGEST_NUMBER),
            Record(Kind.SUBJECT, b"\r\n:-", 0x0D0A_0D0A_0D0A_0D0A, now, now + HOUR),
        }
        begin = await other.look()
        await store.write(list(records))
        assert await contents(other) == records
        (entry,) = await logged(other, begin)
        assert set(entry.records) == records

    async def test_the_larger_end_wins_and_what_changes_nothing_is_not_logged(
        self, store: LedgerStore, other: LedgerStore, now: int
    ) -> None:
        older, newer = (cutoff(Kind.SUBJECT, 1, now + later, HOUR) for later in (0, 5))
        begin = await store.look()
        await store.write([older])
        second = await other.write([newer])
        assert second.number == 2
        assert await store.write([older]) == second
        assert await store.write([newer, older, newer]) == second
        assert await other.look() == second
        assert await contents(store) == {newer}
        assert [entry.records for entry in await logged(other, begin)] == [(older,), (newer,)]

    async def test_of_one_thing_written_twice_at_once_the_larger_end_stays(self, store: LedgerStore, now: int) -> None:
        older, newer = (cutoff(Kind.SESSION, 1, now + later, HOUR) for later in (0, 5))
        place = await store.write([newer, older])
        assert await contents(store) == {newer}
        assert await store.write([older, newer]) == place

    async def test_records_of_different_lives_are_both_kept(self, store: LedgerStore, now: int) -> None:
        records = {cutoff(Kind.CLIENT, 1, now, HOUR), cutoff(Kind.CLIENT, 1, now, 2 * HOUR)}
        await store.write(list(records))
        assert await contents(store) == records

    async def test_only_what_changed_is_logged(self, store: LedgerStore, now: int) -> None:
        known = [token(n, now + HOUR) for n in range(10)]
        begin = await store.write(known)
        new = [token(n, now + HOUR) for n in range(10, 13)]
        place = await store.write([*known[:5], new[0], *known[5:], *new[1:]])
        (entry,) = await store.read(begin, 0)
        assert entry.position == place
        assert entry.records == tuple(new)

    async def test_as_many_as_may_be_written_together_are_and_more_are_not(self, store: LedgerStore, now: int) -> None:
        records = [token(n, now + HOUR) for n in range(TOGETHER)]
        begin = await store.look()
        with pytest.raises(ValueError, match=str(TOGETHER)):
            await store.write([*records, token(TOGETHER, now + HOUR)])
        assert await store.look() == begin
        place = await store.write(records)
        assert await store.write(records) == place
        (entry,) = await logged(store, begin)
        assert set(entry.records) == set(records) == await contents(store)

    async def test_a_write_that_nobody_waits_for_any_more_is_done_or_not(
        self, store: LedgerStore, other: LedgerStore, now: int
    ) -> None:
        for attempt in range(10):
            records = {token(attempt * TOGETHER + n, now + HOUR) for n in range(TOGETHER)}
            begin = await other.look()
            writing = asyncio.create_task(store.write(list(records)))
            await asyncio.sleep(attempt * 0.0005)
            writing.cancel()
            await asyncio.wait((writing,))
            await store.look()  # it can be used on
            place = await other.look()
            assert len(await contents(other) & records) in {0, TOGETHER}
            assert place.number - begin.number in {0, 1}

    # ---------------------------------------------------------------------------------------------------------- the log

    async def test_each_entry_follows_on_the_one_before(self, store: LedgerStore, other: LedgerStore, now: int) -> None:
        begin = await store.look()
        places = [await who.write([token(n, now + HOUR)]) for n, who in enumerate([store, other] * 50)]
        entries = await logged(store, begin)
        assert follows(entries, begin)
        assert [entry.position for entry in entries] == places
        assert [entry.records for entry in entries] == [(token(n, now + HOUR),) for n in range(100)]
        assert len({place.last_id for place in places}) == 100

    async def test_many_who_write_at_once_make_one_log(self, open_store: OpenStore, now: int) -> None:
        stores = [open_store() for _ in range(4)]
        begin = await stores[0].look()

        async def write(number: int) -> list[Position]:
            ends = itertools.count(now + HOUR)
            return [
                await stores[number].write([token(100 * number + n, now + HOUR), token(999, next(ends))])
                for n in range(30)
            ]

        places = await asyncio.gather(*map(write, range(4)))
        entries = await logged(stores[0], begin)
        assert follows(entries, begin)
        assert len(entries) == 120 == (await stores[1].look()).number
        assert {entry.position for entry in entries} == set(itertools.chain(*places))
        of_many = {token(100 * number + n, now + HOUR) for number in range(4) for n in range(30)}
        assert await contents(stores[2]) == of_many | {token(999, now + HOUR + 29)}

    async def test_a_read_waits_and_is_woken(self, store: LedgerStore, other: LedgerStore, now: int) -> None:
        place = await store.look()
        for n in range(5):
            reading = asyncio.create_task(store.read(place, PATIENCE))
            await asyncio.sleep(0.02)
            assert not reading.done()
            written = await other.write([token(n, now + HOUR)])
            begun = time.monotonic()
            (entry,) = await reading
            assert time.monotonic() - begun < PATIENCE / 2
            assert entry.position == written
            assert entry.records == (token(n, now + HOUR),)
            place = written

    async def test_a_read_of_nothing_new_waits_so_long(self, store: LedgerStore, now: int) -> None:
        place = await store.write([token(1, now + HOUR)])
        begun = time.monotonic()
        assert await store.read(place, 0) == []
        assert await store.read(place, 0.1) == []
        assert 0.09 < time.monotonic() - begun < PATIENCE

    async def test_what_is_there_is_read_without_waiting(self, store: LedgerStore, now: int) -> None:
        begin = await store.look()
        await store.write([token(1, now + HOUR)])
        begun = time.monotonic()
        assert len(await store.read(begin, PATIENCE)) == 1
        assert time.monotonic() - begun < PATIENCE / 2

    async def test_a_read_that_nobody_waits_for_any_more_leaves_the_store_well(
        self, store: LedgerStore, now: int
    ) -> None:
        place = await store.look()
        for n in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(store.read(place, PATIENCE), 0.03)
            begin, place = place, await store.write([token(n, now + HOUR)])
            assert [entry.position for entry in await store.read(begin, 0)] == [place]

    async def test_nothing_follows_on_a_place_of_another_life(self, store: LedgerStore, now: int) -> None:
        begin = await store.look()
        first = await store.write([token(1, now + HOUR)])
        await store.write([token(2, now + HOUR)])
        for place in (
            begin._replace(epoch=b"another"),
            first._replace(epoch=b"another"),
            first._replace(number=first.number + 1),
            first._replace(number=first.number - 1),
        ):
            entries = await store.read(place, 0)
            assert not entries or not follows(entries[:1], place)

    # -------------------------------------------------------------------------------------------------------------- all

    async def test_what_was_there_is_found_while_others_write_and_sweep(
        self, store: LedgerStore, other: LedgerStore, now: int
    ) -> None:
        live = {token(n, now + HOUR + n) for n in range(5 * TOGETHER)}
        ended = {token(10**6 + n, now - GRACE - 10) for n in range(TOGETHER)}
        for part in range(5):
            batch = [record for record in live if record.digest % 5 == part]
            await store.write([*batch[1:], *[record for record in ended if record.digest % 5 == part][:1]])
            await store.write(batch[:1])
        found: set[Record] = set()
        cursor, pages, later = b"", 0, itertools.count(10**7)
        while cursor or not pages:
            page = await store.scan(cursor)
            found.update(page.records)
            cursor, pages = page.cursor, pages + 1
            new = [token(next(later), now + HOUR) for _ in range(TOGETHER // 2)]
            position = await other.write(new)
            assert page.position.epoch == position.epoch
            assert page.position.number == position.number - 1
        assert live <= found
        assert pages > 1

    async def test_a_page_says_where_the_log_was(self, store: LedgerStore, other: LedgerStore, now: int) -> None:
        place = await other.write([token(1, now + HOUR)])
        assert (await store.scan(b"")).position == place
        place = await other.write([token(2, now + HOUR)])
        assert (await store.scan(b"")).position == place

    # ---------------------------------------------------------------------------------------------------------- the end

    async def test_a_record_is_swept_when_its_end_and_the_grace_have_passed_and_not_before(
        self, store: LedgerStore, now: int
    ) -> None:
        ended = [token(1, now - GRACE - 2), cutoff(Kind.SUBJECT, 2, now - GRACE - HOUR, HOUR - 2), token(3, 1)]
        kept = {
            token(4, now - GRACE + 300),
            cutoff(Kind.SUBJECT, 5, now - GRACE - HOUR, HOUR + 300),
            token(6, now - 1),
            token(7, now + 1),
        }
        begin = await store.look()
        await store.write([*ended, *kept])
        place = await store.write([])
        assert await contents(store) == kept
        assert await store.look() == place
        (entry,) = await store.read(begin, 0)
        assert set(entry.records) == {*ended, *kept}  # others may still need to hear of it

    async def test_sweeping_keeps_up_with_what_comes(self, store: LedgerStore, now: int) -> None:
        kept = {token(n, now + HOUR) for n in range(50)}
        for part in range(5):
            some = [record for record in kept if record.digest % 5 == part]
            await store.write([*(token(10**6 + 1000 * part + n, now - GRACE - 9) for n in range(900)), *some])
        place = await store.look()
        for _ in range(100):
            if await contents(store) == kept:
                break
            assert await store.write([]) == place
        assert await contents(store) == kept

    async def test_a_swept_record_that_comes_again_is_new(self, store: LedgerStore, now: int) -> None:
        record = token(1, now - GRACE - 2)
        first = await store.write([record])
        await store.write([])
        again = await store.write([record])
        assert again.number == first.number + 1
        await store.write([])
        assert await contents(store) == set()

    # --------------------------------------------------------------------------------------------------------- closing

    async def test_after_closing_it_opens_again(self, store: LedgerStore, other: LedgerStore, now: int) -> None:
        await store.aclose()
        place = await store.write([token(1, now + HOUR)])
        await store.aclose()
        await store.aclose()
        assert await store.look() == place == await other.look()
        assert await contents(store) == {token(1, now + HOUR)}

    async def test_a_new_store_finds_what_an_old_one_left(self, open_store: OpenStore, now: int) -> None:
        first = open_store()
        place = await first.write([token(1, now + HOUR)])
        await first.aclose()
        second = open_store()
        assert await second.look() == place
        assert (await second.write([token(2, now + HOUR)])).number == place.number + 1
        assert follows(await logged(second, place), place)
