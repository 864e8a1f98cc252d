"""Nodes with different secrets over one store: none of them looks healthy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware.cache import (
    TYPES,
    Backend,
    HybridBackend,
    MemoryBackend,
    RedisBackend,
    SealedBackend,
    Sealer,
    SqliteBackend,
)
from oidc_middleware.testing import ManualClock

from redis_kit import CLOCK, PATIENCE, RedisServer, until

pytestmark = pytest.mark.anyio

GENERAL = TYPES["general"]
A, B, C = "a" * 32, "b" * 32, "c" * 32
NAME = b"app:check"
WELL = ""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(now=CLOCK.now())


Store = Callable[[], Backend]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["redis", "sqlite"])
def store(request: pytest.FixtureRequest, server: RedisServer, tmp_path: Path, clock: ManualClock) -> Store:
    if request.param == "redis":
        server.admin.flushall()
        return lambda: RedisBackend(server.url, clock=clock, budget=PATIENCE)
    return lambda: SqliteBackend(tmp_path / "cache.db", clock=clock, budget=PATIENCE)


async def look(clock: ManualClock, *nodes: SealedBackend) -> list[str]:
    """Let each node look, one after the other, and return what each has to say."""
    clock.advance(20)
    return [(await node.ping()).detail for node in nodes]


def nodes(store: Store, clock: ManualClock, *secrets: tuple[str, ...], namespace: str = "app") -> list[SealedBackend]:
    return [SealedBackend(store(), Sealer(some, namespace), clock) for some in secrets]


async def close(*backends: SealedBackend) -> None:
    await asyncio.gather(*(backend.close() for backend in backends))


async def test_two_secrets(store: Store, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    here, there = nodes(store, clock, (A,), (B,))
    assert await look(clock, here) == [WELL], "nobody else was here yet"
    await look(clock, there, here)
    said_there, said_here = await look(clock, there, here)
    assert Sealer([A], "app").key_id.decode() in said_there
    assert Sealer([B], "app").key_id.decode() in said_here
    assert (await here.ping()).healthy
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2, "each says it once"
    assert A not in caplog.text
    assert (here.strangers, there.strangers) == (1, 1)
    await there.close()
    clock.advance(100)
    assert await look(clock, here) == [WELL], "it is gone"
    assert here.strangers == 1
    await here.close()


async def test_one_of_many_nodes(store: Store, clock: ManualClock) -> None:
    """All of them see it, though each entry is written over by the next node."""
    fleet = nodes(store, clock, (A,), (A,), (A,), (B,), (A,))
    await look(clock, *fleet)
    assert all(await look(clock, *fleet))
    await close(*fleet)


async def test_a_rotation(store: Store, clock: ManualClock) -> None:
    for step in [((A,), (A,)), ((A,), (A, B)), ((A, B), (B, A)), ((B, A), (B,)), ((B,), (B,))]:
        here, there = nodes(store, clock, *step)
        for _ in range(3):
            assert await look(clock, here, there) == [WELL, WELL], step
        await close(here, there)
        clock.advance(100)


async def test_a_rotation_that_went_too_fast(store: Store, clock: ManualClock) -> None:
    here, there = nodes(store, clock, (A,), (B,))
    middle = nodes(store, clock, (B, A))[0]
    await look(clock, here, middle, there)
    said = await look(clock, here, middle, there)
    assert [bool(text) for text in said] == [True, False, True]
    await close(here, there, middle)


async def test_other_namespaces_never_meet(store: Store, clock: ManualClock) -> None:
    (here,) = nodes(store, clock, (A,))
    (there,) = nodes(store, clock, (B,), namespace="other")
    for _ in range(3):
        assert await look(clock, here, there) == [WELL, WELL]
    await close(here, there)


async def test_the_same_id_with_another_secret(store: Store, clock: ManualClock) -> None:
    """One in four thousand millions, or somebody who plays: no reason to believe in a common secret."""
    (here,) = nodes(store, clock, (A,))
    left = [({Sealer([A], "app").key_id: bytes(16)}, clock.now() + 60)]
    tier = store()
    await tier.set(GENERAL, NAME, msgspec.msgpack.encode(left), clock.now() + 100, wait=True)
    assert all(await look(clock, here))
    await tier.close()
    await here.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xc1",
        b"\x90",
        b"\x93" * 3000,
        b"\x91\x92\x80\xcb" + bytes(8),
        bytes(10_000),
        msgspec.msgpack.encode([{"a": 1}]),
        msgspec.msgpack.encode([({b"1": b"2"}, float("nan"))]),
    ],
)
async def test_garbage(store: Store, clock: ManualClock, garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (here,) = nodes(store, clock, (A,))
    tier = store()
    await tier.set(GENERAL, NAME, garbage, clock.now() + 100, wait=True)
    assert await look(clock, here, here) == [WELL, WELL]
    assert caplog.records == []
    await tier.close()
    await here.close()


async def test_a_flood_of_strangers(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """Who can write the store cannot fill the log."""
    tier = MemoryBackend(clock)
    here = SealedBackend(tier, Sealer([A], "app"), clock)
    for n in range(100):
        left = [({b"%d %d" % (n, m): b"x"}, float("inf")) for m in range(10)]
        await tier.set(GENERAL, NAME, msgspec.msgpack.encode(left), clock.now() + 100)
        await look(clock, here)
    assert here.strangers == len(caplog.records) == 16
    clock.advance(100)
    await tier.delete(GENERAL, NAME)
    assert await look(clock, here) == [WELL]


@given(st.binary(max_size=80))
def test_anything_may_lie_there(blob: bytes) -> None:
    async def look_at() -> None:
        clock = ManualClock(now=1000.0)
        tier = MemoryBackend(clock)
        await tier.set(GENERAL, NAME, blob, 2000.0)
        assert (await SealedBackend(tier, Sealer([A], "app"), clock).ping()).healthy

    asyncio.run(look_at())


async def test_it_looks_seldom(clock: ManualClock) -> None:
    tier = MemoryBackend(clock)
    here = SealedBackend(tier, Sealer([A], "app"), clock)
    for _ in range(50):
        await here.ping()
    assert tier.stats()["general"].sets == 1


async def test_a_store_that_cannot_be_written(redis_server: RedisServer) -> None:
    """Nodes cannot tell each other then; that is told by whoever writes."""
    redis_server.admin.config_set("maxmemory", 1)
    here = SealedBackend(RedisBackend(redis_server.url, clock=CLOCK), Sealer([A], "app"), CLOCK)
    assert (await here.ping()).healthy
    await here.close()


async def test_nodes_say_so_as_soon_as_they_start(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    here, there = (
        HybridBackend(
            MemoryBackend(CLOCK),
            SealedBackend(RedisBackend(redis_server.url, clock=CLOCK), Sealer([secret], "app"), CLOCK),
            clock=CLOCK,
        )
        for secret in (A, B)
    )
    here.start()
    await until(lambda: redis_server.admin.exists("oidc:general:app:check"))
    there.start()
    await until(lambda: "a secret that is not configured here" in caplog.text)
    assert "another node seals" in (await there.ping()).detail
    await here.close()
    await there.close()
