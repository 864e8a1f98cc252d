"""What `doctor` says of logins: whether browsers can log in at an issuer, and what is to be registered there."""

from __future__ import annotations

from typing import Final

from oidc_middleware.cli.terminal import print_line, shown
from oidc_middleware.errors import OIDCError
from oidc_middleware.provider import Provider
from oidc_middleware.settings import Issuer, Settings
from oidc_middleware.settings.logins import CALLBACK

_NEEDED: Final = ("authorization_endpoint", "token_endpoint")
_OF_USE: Final = {
    "userinfo_endpoint": "claims that the ID token lacks stay unknown",
    "end_session_endpoint": "a sign-out ends the session here alone",
    "revocation_endpoint": "refresh tokens are not revoked at a sign-out",
}


async def examine_login(issuer: Issuer, provider: Provider, settings: Settings) -> bool:
    """Print whether browsers can log in at an issuer, and which addresses it has to know; tell whether they can.

    Source: OpenID Connect Discovery §3, RP-Initiated Logout §2.1, Back-Channel Logout §2.2.
    """
    if issuer not in settings.login_issuers:
        return True
    try:
        metadata = await provider.metadata()
    except OIDCError as error:
        print_line("FAILED", "login", error.detail)
        return False
    lacking = [name for name in _NEEDED if getattr(metadata, name) is None]
    for name in lacking:
        print_line("FAILED", "login", f"its metadata name no {name}")
    for name, consequence in _OF_USE.items():
        if getattr(metadata, name) is None and (name != "userinfo_endpoint" or settings.userinfo):
            print_line("note", "login", f"its metadata name no {name}: {consequence}")
    ours = f"{settings.base_url}{settings.prefix}"
    print_line("", "register", f"redirect URI {shown(f'{ours}/{CALLBACK}')}")
    print_line("", "register", f"back-channel logout URI {shown(f'{ours}/backchannel-logout')}")
    if settings.post_logout_redirect_uri is not None:
        print_line("", "register", f"post-logout redirect URI {shown(settings.post_logout_redirect_uri)}")
    if not lacking:
        print_line("ok", "login", f"{shown(issuer.client_id or '')} asks for {' '.join(settings.scope)}")
    return not lacking
