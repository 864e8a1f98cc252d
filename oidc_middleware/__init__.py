"""OpenID Connect in front of any ASGI app: only requests with a valid identity get in.

The names below are imported when they are first used: pytest imports this package in every run, to look for fixtures.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oidc_middleware.asgi.endpoints.resource_metadata import resource_metadata_routes
    from oidc_middleware.asgi.middleware import OIDCMiddleware
    from oidc_middleware.asgi.requires import optional_user, requires
    from oidc_middleware.core.principal import Principal
    from oidc_middleware.core.rule import Rule
    from oidc_middleware.errors import OIDCError
    from oidc_middleware.settings import Issuer, Settings
    from oidc_middleware.wiring import OIDC

__all__ = [
    "OIDC",
    "Issuer",
    "OIDCError",
    "OIDCMiddleware",
    "Principal",
    "Rule",
    "Settings",
    "optional_user",
    "requires",
    "resource_metadata_routes",
]


def __getattr__(name: str) -> object:
    match name:
        case "resource_metadata_routes":
            module = "asgi.endpoints.resource_metadata"
        case "OIDCMiddleware":
            module = "asgi.middleware"
        case "optional_user" | "requires":
            module = "asgi.requires"
        case "Principal":
            module = "core.principal"
        case "Rule":
            module = "core.rule"
        case "OIDCError":
            module = "errors"
        case "Issuer" | "Settings":
            module = "settings"
        case "OIDC":
            module = "wiring"
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
