"""What every cache tier must do, as a suite of tests to be run over each of them.

In the docstrings of the tests, "Seed n" is a failure of the backend that this package goes back to, and "C-…" or "I-…"
a case of abuse: what the test is there for.
"""

from __future__ import annotations

import pytest

from oidc_middleware.testing.contract.adding import AddContract
from oidc_middleware.testing.contract.calls import CallsContract
from oidc_middleware.testing.contract.contents import ContentsContract
from oidc_middleware.testing.contract.lives import LivesContract
from oidc_middleware.testing.contract.updating import UpdateContract

__all__ = ["BackendContract"]


class BackendContract(LivesContract, ContentsContract, CallsContract, AddContract, UpdateContract):
    """The suite. Derive a class `Test…` from it, with two fixtures of your own.

    `clock` gives a `ManualClock`, and `backend` an empty `Backend` that goes by it. They must be made anew for each
    test, and the backend is closed by some of them. The tests run on asyncio, by anyio's plugin for pytest.

    A tier that does not know what it holds has a `test_ping_and_stats` of its own.
    """

    pytestmark: pytest.MarkDecorator = pytest.mark.anyio

    @pytest.fixture(scope="session")
    @classmethod
    def anyio_backend(cls) -> str:
        """Pin the event loop: backends belong to asyncio."""
        return "asyncio"
