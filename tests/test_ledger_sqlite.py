"""The ledger in a file: the contract of every store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from oidc_middleware.cache.sqlite.ledger import SqliteLedger
from oidc_middleware.clock import SystemClock

from ledger_store_contract import LedgerStoreContract, OpenStore
from redis_kit import PATIENCE


class TestSqliteLedger(LedgerStoreContract):
    @pytest.fixture
    async def open_store(self, tmp_path: Path) -> AsyncIterator[OpenStore]:
        ledgers: list[SqliteLedger] = []

        def open_() -> SqliteLedger:
            ledgers.append(SqliteLedger(tmp_path / "cache.db", clock=SystemClock(), budget=PATIENCE))
            return ledgers[-1]

        yield open_
        await asyncio.gather(*(ledger.aclose() for ledger in ledgers))
