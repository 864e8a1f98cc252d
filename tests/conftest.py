"""What every test shares."""

from __future__ import annotations

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
    with FakeIssuer().serve_in_thread() as issuer:
        yield issuer
