"""The shared file: the contract of every tier, and what only a file can do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from test_cache_contract import BackendContract, clock

from oidc_middleware.cache.sqlite import SqliteBackend
from oidc_middleware.testing.clock import ManualClock

__all__ = ["clock"]

pytestmark = pytest.mark.anyio


class TestSqliteBackend(BackendContract):
    @pytest.fixture
    async def backend(self, clock: ManualClock, tmp_path: Path) -> AsyncIterator[SqliteBackend]:
        backend = SqliteBackend(tmp_path / "cache.db", clock=clock)
        yield backend
        await backend.close()
