"""Updates over two tiers: what a refreshed session goes through while the shared tier fails."""

from __future__ import annotations

import asyncio

import pytest

from oidc_middleware.cache import TYPES, Entry, HybridBackend, MemoryBackend
from oidc_middleware.cache.hybrid.unsettled import Unsettled
from oidc_middleware.errors import BackendUnavailable
from oidc_middleware.testing import ManualClock

from tier_kit import Mode, Tier, turns

pytestmark = pytest.mark.anyio

SESSION, GENERAL = TYPES["session"], TYPES["general"]
END = 1_000_000.0 + 3600


class Node:
    """A node with a link of its own to the store."""

    def __init__(self, clock: ManualClock, store: MemoryBackend) -> None:
        self.tier = Tier(clock, store)
        self.backend = HybridBackend(MemoryBackend(clock), self.tier, clock=clock, random=lambda: 1.0)

    async def update(self, version: int) -> bool:
        return await self.backend.update(SESSION, b"k", b"%d" % version, END, version)

    async def fails_to_update(self, version: int) -> None:
        with pytest.raises(BackendUnavailable):
            await self.update(version)

    async def seen(self) -> bytes | None:
        entry = await self.backend.get(SESSION, b"k")
        return None if entry is None else entry.value


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(now=1_000_000.0)


@pytest.fixture
def store(clock: ManualClock) -> MemoryBackend:
    return MemoryBackend(clock)


@pytest.fixture
def one(clock: ManualClock, store: MemoryBackend) -> Node:
    return Node(clock, store)


@pytest.fixture
def other(clock: ManualClock, store: MemoryBackend) -> Node:
    return Node(clock, store)


@pytest.fixture(autouse=True)
async def _born(one: Node, other: Node) -> object:
    """There is a session, and both nodes have it in memory."""
    assert await one.backend.add(SESSION, b"k", b"0", END)
    assert await other.seen() == b"0"
    yield
    await one.backend.close()
    await other.backend.close()


async def heal(clock: ManualClock, *nodes: Node) -> None:
    for node in nodes:
        node.tier.heal()
    for node in nodes:
        clock.advance(2)
        assert await node.backend.check()


async def test_memory_has_an_update_at_once_and_lets_go_of_one_that_lost(one: Node, other: Node) -> None:
    one.tier.hold("update")
    updating = asyncio.create_task(one.update(1))
    await turns()
    assert await one.seen() == b"1"
    assert await other.update(2)
    one.tier.release()
    assert not await updating
    assert await one.seen() == b"2"


async def test_what_memory_knows_to_be_newer_is_not_asked_for(one: Node) -> None:
    assert await one.update(5)
    for version in (0, 4, 5):
        assert not await one.update(version)
    assert one.tier.calls["update"] == 1


@pytest.mark.parametrize("mode", ["down", "unacknowledged"])
async def test_a_refreshed_session_outlives_an_outage(one: Node, other: Node, clock: ManualClock, mode: Mode) -> None:
    one.tier.writes = mode
    await one.fails_to_update(1)
    await one.fails_to_update(2)
    assert await one.seen() == b"2"
    clock.advance(6)
    assert await one.seen() == b"2", "memory's life is over, but this node still has the newest"
    assert one.backend.overview().unsettled.updates == 1
    await heal(clock, one)
    clock.advance(6)
    assert (await one.seen(), await other.seen()) == (b"2", b"2")
    assert one.backend.overview().unsettled.updates == 0


async def test_what_was_kept_loses_to_a_higher_version(one: Node, other: Node, clock: ManualClock) -> None:
    one.tier.writes = "down"
    await one.fails_to_update(1)
    assert await other.update(2)
    assert await one.seen() == b"1"
    await heal(clock, one)
    assert await one.seen() == b"2"


async def test_what_was_kept_does_not_revive_what_others_ended(one: Node, other: Node, clock: ManualClock) -> None:
    one.tier.writes = "down"
    await one.fails_to_update(1)
    await other.backend.delete(SESSION, b"k")
    await heal(clock, one)
    assert (await one.seen(), await other.seen()) == (None, None)


@pytest.mark.parametrize("mode", ["down", "unacknowledged"])
async def test_a_deletion_discards_what_was_kept(one: Node, clock: ManualClock, mode: Mode) -> None:
    one.tier.writes = mode
    await one.fails_to_update(1)
    await one.backend.delete(SESSION, b"k")
    assert await one.seen() is None
    assert not await one.update(2), "nothing is there that could be updated"
    await heal(clock, one)
    assert await one.seen() is None


async def test_what_is_not_known_to_live_is_sent_and_not_served(one: Node, other: Node, clock: ManualClock) -> None:
    """It may have been deleted long ago, here as well."""
    await one.backend.delete(SESSION, b"k")
    one.tier.writes = one.tier.reads = "down"
    await one.fails_to_update(1)
    with pytest.raises(BackendUnavailable):
        await one.seen()
    await heal(clock, one)
    assert await one.seen() is None


async def test_a_refreshed_session_that_memory_had_forgotten(one: Node, other: Node, clock: ManualClock) -> None:
    clock.advance(6)
    one.tier.writes = "down"
    await one.fails_to_update(1)
    await heal(clock, one)
    assert (await one.seen(), await other.seen()) == (b"1", b"1")


async def test_a_deletion_meanwhile_stands_although_the_update_failed(one: Node, clock: ManualClock) -> None:
    """The update arrives first or last: either way nothing of the session is left."""
    one.tier.hold("update")
    updating = asyncio.create_task(one.update(1))
    await turns()
    await one.backend.delete(SESSION, b"k")
    one.tier.writes = "unacknowledged"
    one.tier.release()
    with pytest.raises(BackendUnavailable):
        await updating
    assert one.backend.overview().unsettled.updates == 0
    assert await one.seen() is None
    await heal(clock, one)
    assert await one.seen() is None


@pytest.mark.parametrize("mode", ["down", "unacknowledged"])
async def test_a_session_born_and_refreshed_during_an_outage(
    one: Node, other: Node, clock: ManualClock, mode: Mode
) -> None:
    """Whether its birth reached the store or not: in the end the store has what is newest."""
    one.tier.writes = mode
    with pytest.raises(BackendUnavailable):
        await one.backend.add(SESSION, b"new", b"born", END)
    one.tier.writes = "down"
    with pytest.raises(BackendUnavailable):
        await one.backend.update(SESSION, b"new", b"refreshed", END, 1)
    assert one.backend.overview().unsettled.adds == 1
    assert await one.backend.get(SESSION, b"new") == Entry(b"refreshed", END, 1)
    await heal(clock, one)
    clock.advance(6)
    for node in (one, other):
        assert await node.backend.get(SESSION, b"new") == Entry(b"refreshed", END, 1)


@pytest.mark.parametrize("mode", ["down", "unacknowledged"])
async def test_a_session_born_and_written_anew_during_an_outage(
    one: Node, other: Node, clock: ManualClock, mode: Mode
) -> None:
    """What is kept of it is what was written last."""
    one.tier.writes = "down"
    with pytest.raises(BackendUnavailable):
        await one.backend.add(SESSION, b"new", b"born", END)
    one.tier.writes = mode
    with pytest.raises(BackendUnavailable):
        await one.backend.set(SESSION, b"new", b"written", END, wait=True)
    await heal(clock, one)
    clock.advance(6)
    for node in (one, other):
        assert await node.backend.get(SESSION, b"new") == Entry(b"written", END)


async def test_a_key_that_is_to_be_deleted_is_not_kept_to_be_added(one: Node, other: Node, clock: ManualClock) -> None:
    """The store would have the old entry still, and so it would come back."""
    await one.backend.set(SESSION, b"new", b"old", END, wait=True)
    one.tier.writes = "down"
    await one.backend.delete(SESSION, b"new")
    with pytest.raises(BackendUnavailable):
        await one.backend.add(SESSION, b"new", b"newer", END)
    assert await one.backend.get(SESSION, b"new") is None
    await heal(clock, one)
    for node in (one, other):
        assert await node.backend.get(SESSION, b"new") is None


async def test_an_update_of_a_session_whose_birth_is_still_to_be_made_up_for(one: Node, other: Node) -> None:
    """The store is back before anybody looked after it."""
    one.tier.writes = "down"
    with pytest.raises(BackendUnavailable):
        await one.backend.add(SESSION, b"new", b"born", END)
    one.tier.heal()
    assert await one.backend.update(SESSION, b"new", b"refreshed", END, 1)
    assert await other.backend.get(SESSION, b"new") == Entry(b"refreshed", END, 1)
    assert one.backend.overview().unsettled.adds == 0


async def test_a_read_that_was_overtaken_does_not_bring_back_the_older_one(
    one: Node, other: Node, clock: ManualClock
) -> None:
    clock.advance(6)
    one.tier.hold("get_many", "update")
    updating = asyncio.create_task(one.update(1))
    await turns()
    reading = asyncio.create_task(one.seen())
    await turns()
    one.tier.gates.pop("update").set()
    assert await updating
    one.tier.release()
    await reading
    assert await one.seen() == b"1"


async def test_an_update_comes_after_a_set_that_waits(one: Node, other: Node) -> None:
    one.tier.hold("set")
    await one.backend.set(SESSION, b"k", b"set", END)
    updating = asyncio.create_task(one.update(1))
    await turns()
    assert one.tier.calls["update"] == 0
    one.tier.release()
    assert await updating
    assert await other.backend.get(SESSION, b"k") == Entry(b"0", END), "until its life in memory is over"
    other.backend.invalidate(SESSION, b"k")
    assert await other.seen() == b"1"


@pytest.mark.parametrize("mode", ["down", "unacknowledged"])
async def test_what_has_another_source_is_deleted_instead(one: Node, clock: ManualClock, mode: Mode) -> None:
    await one.backend.set(GENERAL, b"k", b"0", END, wait=True)
    one.tier.writes = mode
    with pytest.raises(BackendUnavailable):
        await one.backend.update(GENERAL, b"k", b"1", END, 1)
    assert one.backend.overview().unsettled.deletes == 1
    await heal(clock, one)
    assert await one.backend.get(GENERAL, b"k") is None


async def test_who_changes_something_is_told_of_updates(one: Node, clock: ManualClock, store: MemoryBackend) -> None:
    told: list[object] = []
    telling = HybridBackend(MemoryBackend(clock), store, clock=clock, on_written=told.extend)
    assert await telling.update(SESSION, b"k", b"1", END, 1)
    assert not await telling.update(SESSION, b"k", b"1", END, 1)
    assert told == [("session", frozenset({b"k"}))]
    await telling.close()


async def test_what_is_kept_is_bounded() -> None:
    """Where there is no room the update is lost and counted, and so is what it should have replaced."""
    unsettled = Unsettled(max_bytes=1000)
    unsettled.must_update(b"a", Entry(bytes(100), END, 1), lives=True)
    unsettled.must_update(b"a", Entry(bytes(200), END, 2), lives=True)
    unsettled.must_update(b"a", Entry(b"late", END, 1), lives=True)
    unsettled.must_add(b"b", Entry(b"", END))
    assert unsettled.kept(b"a") == Entry(bytes(200), END, 2)
    unsettled.must_update(b"c", Entry(bytes(900), END, 1), lives=True)
    unsettled.must_update(b"b", Entry(b"", END, 1), lives=True)
    assert unsettled.is_born(b"b")
    assert not unsettled.is_born(b"a")
    assert list(unsettled.entries()) == [(b"a", Entry(bytes(200), END, 2)), (b"b", Entry(b"", END, 1))]
    counts = unsettled.counts()
    assert (counts.adds, counts.updates, counts.refused) == (1, 1, 1)
    unsettled.discard_kept(b"")
    assert not unsettled
