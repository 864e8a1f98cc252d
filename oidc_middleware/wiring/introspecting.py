"""The part of one service that asks an issuer about tokens."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from oidc_middleware.auth.introspection import Introspection
from oidc_middleware.cache import RAW, Caches, Codec
from oidc_middleware.cache.loader import Kept, kept
from oidc_middleware.clock import Clock
from oidc_middleware.core.signature import load_private_key
from oidc_middleware.errors import ConfigError
from oidc_middleware.provider import Provider
from oidc_middleware.provider.credentials import Basic, Bearer, Credentials, Post, PrivateKeyJWT, Public
from oidc_middleware.provider.introspection import Introspector
from oidc_middleware.provider.provider import Endpoint
from oidc_middleware.settings import Issuer

CODEC: Codec[Kept[bytes]] = kept(RAW)
"""How answers travel."""


def configured_endpoints(issuer: Issuer) -> dict[Endpoint, str]:
    """Return the endpoints of an issuer that its settings name."""
    return {"introspection_endpoint": url} if (url := issuer.introspection_endpoint) is not None else {}


def open_introspector(issuer: Issuer, provider: Provider, clock: Clock) -> Introspector | None:
    """Return what asks this issuer, None where it is not asked.

    Raises:
        ConfigError: the file of our private key changed since the settings were checked, and cannot be read now.
    """
    return Introspector(provider, credentials_of(issuer, clock)) if issuer.introspects else None


def open_introspection(
    issuer: Issuer, provider: Provider, introspector: Introspector, caches: Caches, clock: Clock
) -> Introspection:
    """Return the answers of this issuer."""
    # An issuer may tell another client something else, and about another audience.
    client = (issuer.introspection_endpoint or "", issuer.client_id or "")
    parts = (provider.source.hex(), *client, issuer.audience_claim, *sorted(issuer.audience))
    return Introspection(
        introspector,
        sha256("\n".join(parts).encode("utf-8", "surrogatepass")).digest(),
        caches.introspection,
        clock,
        asks_always=issuer.introspection == "always",
        needs_audience=issuer.introspection_audience == "require",
        prefix=(issuer.introspection_prefix or "").encode(),
    )


def credentials_of(issuer: Issuer, clock: Clock) -> Credentials:
    """Return how our client says at this issuer who it is.

    Raises:
        ConfigError: the file of our private key changed since the settings were checked, and cannot be read now.
    """
    client_id = issuer.client_id or ""
    if issuer.client_secret is None and issuer.client_key_file is None:
        return Public(client_id)
    if issuer.client_secret is None:
        return _private_key(issuer, client_id, clock)
    secret = issuer.client_secret.get_secret_value()
    if issuer.client_auth_method == "bearer":
        return Bearer(secret)
    return (Post if issuer.client_auth_method == "client_secret_post" else Basic)(client_id, secret)


def _private_key(issuer: Issuer, client_id: str, clock: Clock) -> PrivateKeyJWT:
    try:
        key = load_private_key(Path(issuer.client_key_file or "").read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError("client_key_file", f"cannot be read: {error}", "Check the file.") from None
    return PrivateKeyJWT(client_id, key, issuer.client_key_id, issuer.issuer, clock.now)
