"""The provider once for all who only read from it, and one's own for those who rotate or break it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from . import glewlwyd
from .node import find_node, install
from .service import Served, protected_app, serving
from .stranger import Stranger

Serve = Callable[..., Served]

# Debian has a package of it; elsewhere the others are provider enough.
collect_ignore = [] if glewlwyd.is_here() else ["test_glewlwyd.py"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say plainly what this machine left out."""
    for name in collect_ignore:
        terminalreporter.write_line(
            f"left out: tests/conformance/{name} (no glewlwyd here; Debian has a package of it)"
        )


@pytest.fixture(scope="session")
def provider_installed() -> None:
    """Install the provider that the lock file pins."""
    install(find_node().npm)


@pytest.fixture(scope="session")
def stranger(provider_installed: None) -> Iterator[Stranger]:
    """Return the provider that all tests share; nobody may change it."""
    with Stranger() as provider:
        yield provider


@pytest.fixture
def own_stranger(provider_installed: None) -> Iterator[Stranger]:
    """Return a provider that this test may rotate, break and kill."""
    with Stranger() as provider:
        yield provider


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Return a function that serves the protected app with the given settings until the test ends."""
    with ExitStack() as stack:

        def start(app: Any = None, *, root_path: str = "", **settings: Any) -> Served:
            return stack.enter_context(serving(app or protected_app(**settings), root_path))

        yield start


@pytest.fixture(scope="session")
def shared_service(stranger: Stranger) -> Iterator[Served]:
    """Return the protected app with the usual settings, in front of the shared provider."""
    with serving(protected_app(issuer=stranger.issuer)) as served:
        yield served
