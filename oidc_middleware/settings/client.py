"""Checks of our client at each issuer: what is given fits together, and something reads it."""

from __future__ import annotations

import logging

from oidc_middleware.core.bearer import is_token
from oidc_middleware.errors import ConfigError
from oidc_middleware.settings.issuer import Issuer

_log = logging.getLogger("oidc_middleware.settings")


def check_clients(trusted: tuple[Issuer, ...]) -> None:
    """Check the client of each issuer.

    Raises:
        ConfigError: something is missing, or nothing would read it.
    """
    for place, issuer in enumerate(trusted):
        _check_client(issuer, f"issuers[{place}]." if len(trusted) > 1 else "")


def warn_of_shown_tokens(trusted: tuple[Issuer, ...]) -> None:
    """Warn of issuers that see each other's opaque tokens: such a token does not say who issued it."""
    introspecting = [issuer for issuer in trusted if issuer.introspects]
    for prefix in dict.fromkeys(issuer.introspection_prefix for issuer in introspecting):
        alike = [issuer.issuer for issuer in introspecting if issuer.introspection_prefix == prefix]
        if len(alike) > 1:
            _log.warning(
                "introspection: opaque tokens do not say whose they are, so %s are asked one after another, and each "
                "could use the others' tokens. Where tokens of one begin alike, say so in introspection_prefix; where "
                "one has no opaque tokens, write introspection='never' for it.",
                " and ".join(alike),
            )


def _check_client(issuer: Issuer, before: str) -> None:
    has_secret, has_key = issuer.client_secret is not None, issuer.client_key_file is not None
    method = issuer.client_auth_method
    if has_secret and method == "private_key_jwt":
        cure = "Leave it out, or name another client_auth_method."
        raise ConfigError(before + "client_secret", "is set, and client_auth_method is private_key_jwt", cure)
    if has_key and method != "private_key_jwt":
        cure = "Write client_auth_method='private_key_jwt'."
        raise ConfigError(before + "client_key_file", f"is set, and client_auth_method is {method}", cure)
    if method == "private_key_jwt" and not has_key:
        cure = "Name the PEM file of the client's private key."
        raise ConfigError(before + "client_key_file", "is missing, and client_auth_method is private_key_jwt", cure)
    if issuer.client_key_id is not None and not has_key:
        raise ConfigError(before + "client_key_id", "names a key, and there is none", "Set client_key_file too.")
    if (has_secret or has_key) and method != "bearer" and issuer.client_id is None:
        raise ConfigError(before + "client_id", "is missing, and there is a secret or a key of it", "Name the client.")
    if issuer.client_secret is not None and method == "bearer" and not _is_token(issuer):
        cure = "Write an access token for the issuer's introspection endpoint."
        raise ConfigError(before + "client_secret", "is no bearer token, and client_auth_method is bearer", cure)
    if issuer.introspection == "always" and not (has_secret or has_key):
        cure = "Set client_id and client_secret, or another client_auth_method with what it needs."
        raise ConfigError(before + "introspection", "is always, and our client cannot say who it is", cure)
    _check_asked(issuer, before)


def _check_asked(issuer: Issuer, before: str) -> None:
    """Check that what says how the issuer is asked about tokens does not stand where it is not asked."""
    for name in ("introspection_endpoint", "introspection_prefix"):
        if getattr(issuer, name) is not None and not issuer.introspects:
            cure = "Set client_id and client_secret too, and do not write introspection='never'."
            raise ConfigError(before + name, "is set, and the issuer is not asked about tokens", cure)


def _is_token(issuer: Issuer) -> bool:
    secret = "" if issuer.client_secret is None else issuer.client_secret.get_secret_value()
    return is_token(secret.encode("utf-8", "surrogatepass"))
