"""Checks of what a login needs, and of what nothing would read without one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Protocol

from oidc_middleware.errors import ConfigError
from oidc_middleware.settings.issuer import Issuer

START: Final = ("start", "sign_in", "login")
CALLBACK: Final = "callback"
SIGN_OUT: Final = ("sign_out", "logout")
SIGNED_OUT: Final = "signed_out"
BACKCHANNEL: Final = "backchannel-logout"
FRONTCHANNEL: Final = "frontchannel-logout"
ENDPOINTS: Final = (*START, CALLBACK, *SIGN_OUT, SIGNED_OUT, BACKCHANNEL, FRONTCHANNEL)
"""The endpoints of a login and of its end, open to everybody."""

USERINFO: Final = "userinfo"
SESSIONS: Final = "sessions"
OWN: Final = (USERINFO, f"{SESSIONS}/*")
"""The endpoints for whoever is logged in."""

OF_SESSIONS: Final = (
    "base_url",
    "scope",
    "cookie_name",
    "session_idle",
    "session_absolute",
    "refresh_ahead",
    "authorization_params",
    "authorization_params_from_query",
    "userinfo",
    "trusted_origins",
    "post_logout_redirect_uri",
    "logout_token_exp",
)
"""The settings that only `login` reads."""


class _Sessions(Protocol):
    """What of the settings is looked at."""

    @property
    def login(self) -> bool: ...
    @property
    def base_url(self) -> str | None: ...
    @property
    def session_idle(self) -> float: ...
    @property
    def session_absolute(self) -> float: ...
    @property
    def login_issuers(self) -> tuple[Issuer, ...]: ...


def login_issuers(trusted: tuple[Issuer, ...]) -> tuple[Issuer, ...]:
    """Return the issuers where browsers can log in: our client is known there, and it is clear which issuer it is."""
    return tuple(
        issuer
        for issuer in trusted
        if issuer.client_id is not None and issuer.template is None and issuer.client_auth_method != "bearer"
    )


def check_login(settings: _Sessions, given: Collection[str]) -> None:
    """Check that a login can work; `given` are the names of the settings that came.

    Raises:
        ConfigError: something is missing, or nothing would read it.
    """
    if not settings.login:
        for name in OF_SESSIONS:
            if name in given:
                raise ConfigError(name, "is set, and login is off", "Set login=True, or leave it out.")
        return
    if settings.base_url is None:
        cure = "Write the address where browsers find this app, such as https://app.example.com."
        raise ConfigError("base_url", "is missing, and login is on", cure)
    if not settings.login_issuers:
        cure = "Set client_id of an issuer that is no template of tenants."
        raise ConfigError("client_id", "is missing, and login is on", cure)
    if "session_idle" in given and settings.session_idle > settings.session_absolute:
        cure = "Choose a session_idle that is not longer."
        raise ConfigError("session_idle", "is longer than session_absolute, so it never comes to it", cure)
