"""OpenID Connect in front of any ASGI app: only requests with a valid identity get in.

Names load on first use: pytest imports this package in every project of the environment, to find the fixtures.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oidc_middleware.asgi.middleware import OIDCMiddleware
    from oidc_middleware.core.principal import Principal
    from oidc_middleware.core.rule import Rule
    from oidc_middleware.errors import OIDCError
    from oidc_middleware.settings import Issuer, Settings
    from oidc_middleware.wiring import OIDC

__all__ = ["OIDC", "Issuer", "OIDCError", "OIDCMiddleware", "Principal", "Rule", "Settings"]

_HOMES = {
    "OIDC": "wiring",
    "Issuer": "settings",
    "OIDCError": "errors",
    "OIDCMiddleware": "asgi.middleware",
    "Principal": "core.principal",
    "Rule": "core.rule",
    "Settings": "settings",
}


def __getattr__(name: str) -> object:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
