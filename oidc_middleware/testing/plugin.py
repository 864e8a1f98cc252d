"""pytest fixtures, found by every pytest in whose environment this package is installed.

Nothing but pytest may be imported at the top: other people's test runs load this file too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from oidc_middleware.testing import FakeIssuer, KeyPool, ManualClock

# Or a failure of the contract would show nothing but the line.
pytest.register_assert_rewrite("oidc_middleware.testing.contract")


@pytest.fixture(scope="session")
def oidc_key_pool() -> KeyPool:
    """Keep private keys between tests, so that each RSA key is made once in a run."""
    from oidc_middleware.testing import KeyPool

    return KeyPool()


@pytest.fixture
def oidc_clock() -> ManualClock:
    """Give a clock that starts at the machine's time and stands still; `fake_issuer` goes by it."""
    from oidc_middleware.testing import ManualClock

    return ManualClock()


@pytest.fixture
def fake_issuer_factory(oidc_key_pool: KeyPool, oidc_clock: ManualClock) -> Iterator[Callable[..., FakeIssuer]]:
    """Make fake issuers with arguments of your own; no two of them share a key."""
    from oidc_middleware.testing import FakeIssuer

    with oidc_key_pool.borrow() as make_private_key:

        def make(url: str = "https://issuer.example", **options: Any) -> FakeIssuer:
            return FakeIssuer(url, **{"clock": oidc_clock, "make_private_key": make_private_key, **options})

        yield make


@pytest.fixture
def fake_issuer(fake_issuer_factory: Callable[..., FakeIssuer]) -> FakeIssuer:
    """Give a fresh issuer, `https://issuer.example`, that signs with RS256."""
    return fake_issuer_factory()


@pytest.fixture
def oidc_token(fake_issuer: FakeIssuer) -> Callable[..., str]:
    """Mint access tokens of `fake_issuer`; arguments as `FakeIssuer.token`."""
    return fake_issuer.token
