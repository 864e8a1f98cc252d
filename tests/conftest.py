"""What every test shares."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from oidc_middleware import cache
from oidc_middleware.cache import RedisBackend
from oidc_middleware.cache.redis.ledger import RedisLedger
from oidc_middleware.cache.sqlite import journal, ledger
from oidc_middleware.cache.sqlite.journal import SqliteJournal
from oidc_middleware.cache.sqlite.ledger import SqliteLedger
from oidc_middleware.testing import FakeIssuer

from hybrid_kit import Node, OpenNode, new_node
from ledger_redis_kit import OpenLedger
from redis_kit import CLOCK, PATIENCE, OpenRedis, RedisServer

# How long an example takes says more about the machine than about the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_collection_finish() -> None:
    """Let the garbage collector pass by what stays to the end: thousands of tests, and what they import."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def state_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let no journal of a test lie where the user's own are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def patient_files() -> Iterator[None]:
    """Give ledgers and journals of services, in files, time to spare: each write waits for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "SqliteLedger", partial(SqliteLedger, budget=PATIENCE))
        patch.setattr(journal, "SqliteJournal", partial(SqliteJournal, budget=PATIENCE))
        yield


@pytest.fixture
def anyio_backend() -> str:
    """Pin the event loop of `@pytest.mark.anyio` tests: servers here run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="module")
def served_issuer() -> Iterator[FakeIssuer]:
    """Serve an issuer on loopback from a loop of its own, so that a test may block or use `await`."""
    with FakeIssuer().serve_in_thread() as issuer:
        yield issuer


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """Start a server of the newest kind that is here, for a test that may do to it what it likes."""
    with RedisServer() as server:
        yield server


@pytest.fixture
async def open_redis() -> AsyncIterator[OpenRedis]:
    """Open backends that are closed in the end."""
    backends: list[RedisBackend] = []

    def open_(url: str, **options: Any) -> RedisBackend:
        backends.append(RedisBackend(url, **{"clock": CLOCK, "budget": PATIENCE, **options}))
        return backends[-1]

    yield open_
    await asyncio.gather(*(backend.close() for backend in backends))


@pytest.fixture
def patient_tiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the caches of services that are made from settings a budget with time to spare."""
    for name in ("HybridBackend", "RedisBackend", "SqliteBackend"):
        monkeypatch.setattr(cache, name, partial(getattr(cache, name), budget=PATIENCE))


@pytest.fixture(name="cache", params=["redis", "sqlite"])
def shared_cache(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a cache that nodes share, of each kind that processes of one host may have."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/cache.sqlite"
    server: RedisServer = request.getfixturevalue("redis_server")
    return server.url


@pytest.fixture
async def open_ledger() -> AsyncIterator[OpenLedger]:
    """Open ledgers that are closed in the end."""
    ledgers: list[RedisLedger] = []

    def open_(url: str, **options: Any) -> RedisLedger:
        ledgers.append(RedisLedger(url, **{"budget": PATIENCE, **options}))
        return ledgers[-1]

    yield open_
    await asyncio.gather(*(ledger.aclose() for ledger in ledgers))


@pytest.fixture
async def open_node() -> AsyncIterator[OpenNode]:
    """Open nodes that are closed in the end."""
    nodes: list[Node] = []

    def open_(url: str, **options: Any) -> Node:
        nodes.append(new_node(url, **options))
        return nodes[-1]

    yield open_
    await asyncio.gather(*(node.hybrid.close() for node in nodes))
