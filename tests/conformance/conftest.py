"""The provider once for all who only read from it, and one's own for those who rotate or break it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from . import glewlwyd
from .logins import Fleet, fleet
from .node import find_node, install
from .person import Person
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


@pytest.fixture
def app(provider_installed: None, patient_tiers: None) -> Iterator[Fleet]:
    """Return three nodes."""
    with fleet() as found:
        yield found


@pytest.fixture
def keyed_app(provider_installed: None, patient_tiers: None, tmp_path: Path) -> Iterator[Fleet]:
    """Return a node whose client has a key instead of a secret."""
    key = tmp_path / "client.pem"
    client: dict[str, Any] = {"client_id": "app-keyed", "client_secret": None, "client_auth_method": "private_key_jwt"}
    with fleet(size=1, client_key=key, client_key_file=str(key), **client) as found:
        yield found


@pytest.fixture
def alice() -> Iterator[Person]:
    """Return somebody with a browser that nobody used before."""
    with Person("alice") as person:
        yield person


@pytest.fixture
def bob() -> Iterator[Person]:
    """Return somebody else."""
    with Person("bob") as person:
        yield person
