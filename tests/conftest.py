"""What every test shares."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Pin the event loop of `@pytest.mark.anyio` tests: servers here run on asyncio."""
    return "asyncio"
