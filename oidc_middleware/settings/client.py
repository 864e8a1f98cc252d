"""Checks of our client at each issuer: what is given fits together, and something reads it."""

from __future__ import annotations

from oidc_middleware.core.bearer import is_token
from oidc_middleware.errors import ConfigError
from oidc_middleware.settings.issuer import Issuer


def check_clients(trusted: tuple[Issuer, ...]) -> None:
    """Check the client of each issuer, and that one issuer at most is asked about opaque tokens.

    An opaque token does not say who issued it. Whoever else were asked could use it.

    Raises:
        ConfigError: something is missing, or nothing would read it; or opaque tokens would go to several issuers.
    """
    for place, issuer in enumerate(trusted):
        _check_client(issuer, f"issuers[{place}]." if len(trusted) > 1 else "")
    introspecting = [place for place, issuer in enumerate(trusted) if issuer.introspects]
    if len(introspecting) > 1:
        raise ConfigError(
            f"issuers[{introspecting[1]}].introspection",
            "is on for several issuers, and an opaque token does not say whose it is",
            "Write introspection='never' for all issuers but the one of the opaque tokens.",
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


def _is_token(issuer: Issuer) -> bool:
    secret = "" if issuer.client_secret is None else issuer.client_secret.get_secret_value()
    return is_token(secret.encode("utf-8", "surrogatepass"))
