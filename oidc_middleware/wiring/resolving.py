"""What stands between a token's `iss` and the settings of its issuer: the app's resolver, and what is asked of it."""

from __future__ import annotations

import logging

from oidc_middleware.errors import ConfigError
from oidc_middleware.settings import Issuer, Settings
from oidc_middleware.settings.problem import Problem
from oidc_middleware.settings.urls import issuer as checked_issuer

_log = logging.getLogger("oidc_middleware.auth")


def could_be_issuer(name: str) -> bool:
    """Tell whether this is an issuer's name by its form: nobody is asked about anything else."""
    try:
        checked_issuer(name)
    except Problem:
        return False
    return "{" not in name


async def described(settings: Settings, name: str) -> Issuer | None:
    """Return what the app's resolver says about an issuer, checked like the issuers of the settings.

    Another one than was asked for is none: whoever reads names generously must not make two issuers one.

    Raises:
        ConfigError: what it says cannot work.
        Exception: whatever the resolver raises.

    Source: RFC 8725 §3.8.
    """
    assert settings.issuer_resolver is not None  # noqa: S101  asked where there is one
    found: object = await settings.issuer_resolver(name)
    if found is None:
        return None
    if not isinstance(found, Issuer):
        raise ConfigError("issuer_resolver", f"returned {type(found).__name__}", "Return Issuer(...) or None.")
    if found.issuer != name:
        _log.warning("issuer_resolver: it was asked for one issuer and returned another, %.200r", found.issuer)
        return None
    settings.check_issuers((found,))
    return found
