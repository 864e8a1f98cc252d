"""A fake issuer, a clock, pytest fixtures and the contract of cache tiers: for our tests and everybody's.

Names load on first use, because pytest imports this package when it starts, in every project of the environment.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oidc_middleware.testing import faults
    from oidc_middleware.testing.clock import ManualClock
    from oidc_middleware.testing.contract import BackendContract
    from oidc_middleware.testing.issuer import FakeIssuer
    from oidc_middleware.testing.keys import KeyPool, SigningKey, make_key

__all__ = ["BackendContract", "FakeIssuer", "KeyPool", "ManualClock", "SigningKey", "faults", "make_key"]

_HOMES = {
    "BackendContract": "contract",
    "FakeIssuer": "issuer",
    "KeyPool": "keys",
    "ManualClock": "clock",
    "SigningKey": "keys",
    "make_key": "keys",
}


def __getattr__(name: str) -> object:
    if name == "faults":
        return import_module("oidc_middleware.testing.faults")
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return __all__
