"""The settings that are options too: those that decide about a token. Each takes the text that its variable takes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oidc_middleware.settings import Settings

_OPTIONS = {
    "issuer": ("URL", "the exact issuer, as in the token's iss"),
    "audience": ("LIST", "accepted audiences, between commas"),
    "preset": ("NAME", "what is known of a vendor's tokens: keycloak, entra, auth0, okta, google or cognito"),
    "tenants": ("LIST", "tenants of an issuer with {tenantid} in it, between commas, or *"),
    "audience_claim": ("CLAIM", "the claim that names the audience (aud)"),
    "algorithms": ("LIST", "accepted signature algorithms, between commas"),
    "token_type": ("TYPE", "auto or at+jwt (auto)"),
    "client_id": ("ID", "this API's own client at the issuer"),
    "leeway": ("SECONDS", "how far clocks may differ (30)"),
    "max_token_life": ("SECONDS", "how long after its issue a token is accepted at most (30 days)"),
    "discovery_url": ("URL", "where the discovery document is, if not below the issuer"),
    "jwks_uri": ("URL", "where the keys are; then no discovery document is needed"),
    "ca_file": ("FILE", "the private CA of the issuer's certificate (PEM)"),
}


def add_to(command: argparse.ArgumentParser) -> None:
    """Give `command` an option for each of these settings, and `--env-file`."""
    settings = command.add_argument_group(
        "settings", "An option goes before the variable, the variable before the file."
    )
    for name, (value, text) in _OPTIONS.items():
        settings.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar=value, help=text)
    settings.add_argument(
        "--allow-http", dest="allow_http", action="store_const", const="true", help="permit http:// to other machines"
    )
    settings.add_argument("--env-file", metavar="FILE", help="read OIDC_* variables from this file too")


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Return the settings that options, variables and the file make together.

    Raises:
        ConfigError: they cannot work.
    """
    from oidc_middleware.settings import Settings
    from oidc_middleware.settings.sources import Texts

    texts = {name: text for name in (*_OPTIONS, "allow_http") if (text := getattr(arguments, name)) is not None}
    keywords: dict[str, Any] = Texts(Settings, texts)()
    return Settings(env_file=arguments.env_file, **keywords)
