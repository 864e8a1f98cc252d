"""Versions in a store that somebody else can write: what the store tells of them has to be what was sealed."""

from __future__ import annotations

import logging
from dataclasses import asdict

import pytest

from oidc_middleware.cache import TYPES, Entry, MemoryBackend, SealedBackend, Sealer
from oidc_middleware.testing import ManualClock

pytestmark = pytest.mark.anyio

SESSION = TYPES["session"]
NOW = 1_800_000_000.0
END = NOW + 3600
OLD, NEW = "o" * 32, "n" * 32


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(now=NOW)


@pytest.fixture
def store(clock: ManualClock) -> MemoryBackend:
    """What the attacker writes, and all see."""
    return MemoryBackend(clock)


async def blob_in(store: MemoryBackend, sealer: Sealer) -> tuple[bytes, Entry]:
    """Return the name under which the session lies, and what lies there."""
    name = sealer.digest("session", b"k").split(b":", 2)[2]
    entry = await store.get(SESSION, name)
    assert entry is not None
    return name, entry


@pytest.mark.parametrize("told", [0, 2, 2**53 - 1])
async def test_an_older_value_under_another_version_does_not_open(
    store: MemoryBackend, clock: ManualClock, caplog: pytest.LogCaptureFixture, told: int
) -> None:
    """C-keyspace: whoever could do that would undo every later update."""
    sealer = Sealer([NEW], "app")
    backend = SealedBackend(store, sealer, clock)
    await backend.add(SESSION, b"k", b"old", END)
    assert await backend.update(SESSION, b"k", b"older", END, 1)
    name, older = await blob_in(store, sealer)
    assert await backend.update(SESSION, b"k", b"newer", END, 2)
    await store.set_many(SESSION, {name: older._replace(version=told)})
    with caplog.at_level(logging.WARNING):
        assert await backend.get(SESSION, b"k") is None
        assert await backend.get_many(SESSION, [b"k"]) == {}
    assert asdict(sealer.stats())["altered"] == 2
    assert "was altered" in caplog.text


async def test_an_older_value_that_is_put_back_is_what_it_was(store: MemoryBackend, clock: ManualClock) -> None:
    """Nobody can tell it from one that was never replaced, and the next update replaces it."""
    sealer = Sealer([NEW], "app")
    backend = SealedBackend(store, sealer, clock)
    await backend.add(SESSION, b"k", b"older", END, 1)
    name, older = await blob_in(store, sealer)
    assert await backend.update(SESSION, b"k", b"newer", END, 2)
    await store.set_many(SESSION, {name: older})
    assert await backend.get(SESSION, b"k") == Entry(b"older", END, 1)
    assert await backend.update(SESSION, b"k", b"newest", END, 3)
    assert await backend.get(SESSION, b"k") == Entry(b"newest", END, 3)


async def test_an_entry_is_updated_under_the_name_where_it_lies(store: MemoryBackend, clock: ManualClock) -> None:
    """While secrets rotate: one entry stays one entry, and every node that has both secrets reads it."""
    old, both = Sealer([OLD], "app"), Sealer([NEW, OLD], "app")
    await SealedBackend(store, old, clock).add(SESSION, b"k", b"v", END, 5)
    backend = SealedBackend(store, both, clock)
    assert not await backend.update(SESSION, b"k", b"w", END, 5)
    assert await backend.update(SESSION, b"k", b"w", END, 6)
    assert store.stats()["session"].entries == 1
    _, blob = await blob_in(store, old)
    assert blob.value[1:9] == both.key_id
    assert await SealedBackend(store, Sealer([OLD, NEW], "app"), clock).get(SESSION, b"k") == Entry(b"w", END, 6)
    assert await backend.delete(SESSION, b"k")
    assert not await backend.update(SESSION, b"k", b"x", END, 7)


async def test_what_does_not_open_under_one_name_does_not_hide_what_lies_under_another(
    store: MemoryBackend, clock: ManualClock
) -> None:
    both = Sealer([NEW, OLD], "app")
    await SealedBackend(store, Sealer([OLD], "app"), clock).add(SESSION, b"k", b"v", END)
    garbage = both.digest("session", b"k").split(b":", 2)[2]
    await store.set_many(SESSION, {garbage: Entry(b"garbage", END, 9)})
    backend = SealedBackend(store, both, clock)
    assert await backend.update(SESSION, b"k", b"w", END, 1)
    assert await backend.get(SESSION, b"k") == Entry(b"w", END, 1)


async def test_a_value_that_no_envelope_holds_changes_nothing(store: MemoryBackend, clock: ManualClock) -> None:
    backend = SealedBackend(store, Sealer([NEW], "app"), clock)
    await backend.add(SESSION, b"k", b"v", END)
    assert not await backend.update(SESSION, b"k", bytes(16 * 1024 * 1024 + 1), END, 1)
    assert await backend.get(SESSION, b"k") == Entry(b"v", END)
