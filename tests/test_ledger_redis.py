"""The contract of a ledger's store over every Redis and Valkey that is here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from oidc_middleware.cache.redis.ledger import RedisLedger

from ledger_store_contract import LedgerStoreContract, OpenStore
from redis_kit import PATIENCE, RedisServer, programs


@pytest.fixture(scope="module", params=list(programs()))
def any_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(request.param) as server:
        yield server


class TestRedisLedger(LedgerStoreContract):
    @pytest.fixture(params=["by port", "by unix socket"])
    def url(self, any_server: RedisServer, request: pytest.FixtureRequest) -> str:
        any_server.admin.flushall()
        return any_server.url if request.param == "by port" else any_server.unix_url

    @pytest.fixture
    async def open_store(self, url: str) -> AsyncIterator[OpenStore]:
        ledgers: list[RedisLedger] = []

        def open_() -> RedisLedger:
            ledgers.append(RedisLedger(url, budget=PATIENCE))
            return ledgers[-1]

        yield open_
        await asyncio.gather(*(ledger.aclose() for ledger in ledgers))
