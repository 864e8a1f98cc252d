"""How our client proves to an issuer who it is."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from urllib.parse import quote_plus

from oidc_middleware.core.assertion import client_assertion
from oidc_middleware.core.signature import PrivateKey

_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Proof(NamedTuple):
    """What goes with one request: headers and form parameters. Never log it."""

    headers: tuple[tuple[str, str], ...] = ()
    form: tuple[tuple[str, str], ...] = ()


class Credentials(Protocol):
    """Makes the proof for one request."""

    def prove(self) -> Proof:
        """Return a proof, which is not used twice."""


@dataclass(frozen=True, slots=True)
class Public:
    """`none`: a client without a secret says its name, and proves nothing (RFC 6749 §3.2.1)."""

    client_id: str

    def prove(self) -> Proof:
        """Return the parameter."""
        return Proof(form=(("client_id", self.client_id),))


@dataclass(frozen=True, slots=True)
class Basic:
    """`client_secret_basic`: both parts are form-encoded first (RFC 6749 §2.3.1)."""

    client_id: str
    secret: str = field(repr=False)

    def prove(self) -> Proof:
        """Return the header."""
        pair = f"{quote_plus(self.client_id)}:{quote_plus(self.secret)}".encode("ascii")
        return Proof(headers=(("Authorization", "Basic " + base64.b64encode(pair).decode("ascii")),))


@dataclass(frozen=True, slots=True)
class Post:
    """`client_secret_post` (RFC 6749 §2.3.1)."""

    client_id: str
    secret: str = field(repr=False)

    def prove(self) -> Proof:
        """Return the parameters."""
        return Proof(form=(("client_id", self.client_id), ("client_secret", self.secret)))


@dataclass(frozen=True, slots=True)
class Bearer:
    """An access token that opens the endpoint (RFC 7662 §2.1)."""

    token: str = field(repr=False)

    def prove(self) -> Proof:
        """Return the header."""
        return Proof(headers=(("Authorization", f"Bearer {self.token}"),))


@dataclass(frozen=True, slots=True)
class PrivateKeyJWT:
    """`private_key_jwt` (OpenID Connect Core §9, RFC 7523 §2.2): a new assertion for each request."""

    client_id: str
    key: PrivateKey
    key_id: str | None
    issuer: str
    now: Callable[[], float]

    def prove(self) -> Proof:
        """Return the parameters."""
        jti = secrets.token_urlsafe(16)
        assertion = client_assertion(
            self.key, self.key_id, client_id=self.client_id, audience=self.issuer, now=self.now(), jti=jti
        )
        return Proof(
            form=(
                ("client_id", self.client_id),
                ("client_assertion_type", _ASSERTION),
                ("client_assertion", assertion),
            )
        )
