"""What every test shares."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from oidc_middleware.testing import FakeIssuer


@pytest.fixture
def anyio_backend() -> str:
    """Pin the event loop of `@pytest.mark.anyio` tests: servers here run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="module")
def served_issuer() -> Iterator[FakeIssuer]:
    """Serve an issuer on loopback from a loop of its own, so that a test may block or use `await`."""
    issuer = FakeIssuer()
    loop, ready, done = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with issuer.serve():
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield issuer
    loop.call_soon_threadsafe(done.set)
    thread.join(10)
    loop.close()
