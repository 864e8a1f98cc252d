"""The request as the app gets it: written anew from what came, with what we know instead of what the client says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Any, Final

from oidc_middleware.core.identity_headers import Headers, folded
from oidc_middleware.core.identity_values import claim_header, identity_headers
from oidc_middleware.core.known import Known
from oidc_middleware.core.principal import Principal
from oidc_middleware.errors import InvalidRequest
from oidc_middleware.proxy import fields
from oidc_middleware.proxy.cookies import OwnCookies
from oidc_middleware.proxy.origin import Networks, origin, told
from oidc_middleware.proxy.upstream import Upstream

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_LONGEST_LENGTH: Final = 18
"""Digits: an exabyte."""


_KEPT_IDENTITIES: Final = 1024

Identity = Callable[[Principal, str | None], Headers]
"""Makes the headers that say who it is; `access_token` is among them if it is given."""


class Body(Enum):
    """How the body of a request ends."""

    NONE = auto()
    LENGTH = auto()
    CHUNKED = auto()
    UNKNOWN = auto()
    """HTTP/2 without a length: whether there is a body, its first part tells."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request for the app: `headers` without what says how its body ends."""

    method: str
    target: bytes
    headers: Headers
    body: Body
    length: bytes
    expects_continue: bool

    @property
    def may_be_repeated(self) -> bool:
        """Whether it does no harm when the app gets it twice, and can be sent twice (RFC 9110 §9.2.2)."""
        return self.body is Body.NONE and self.method in _IDEMPOTENT


@dataclass(frozen=True, slots=True)
class Rewriting:
    """What is done to the fields of requests and responses; the settings are those of `ReverseProxy` and the door.

    `identity` makes the headers that say who it is (see `identity_of`), `ends_here` are the names, folded, that clients
    cannot send on besides those that they never can.
    """

    upstream: Upstream
    trusted: Networks
    cookies: OwnCookies
    base_url: str | None
    pass_access_token: bool
    pass_host: bool
    identity: Identity
    ends_here: frozenset[bytes]

    def headers(self, scope: Any, access_token: str | None) -> Headers:
        """Return the fields of a request or of a handshake, `Host` first.

        Raises:
            InvalidRequest: it names no host, or two.
        """
        found = origin(scope, self.base_url)
        kept = self._without_cookies(fields.of_request(scope["headers"], self.ends_here))
        host = found.asked if self.pass_host else self.upstream.authority
        return [(b"host", host), *told(kept, found, self.trusted), *self._identity(scope, access_token)]

    def response_headers(self, headers: Headers, *, is_known: bool) -> Headers:
        """Return the fields of the app's response; `is_known` tells whether it is for somebody whom we know."""
        kept = [
            (name, value)
            for name, value in fields.of_response(headers)
            if name != b"set-cookie" or not self.cookies.are_set_by(value)
        ]
        return fields.kept_private(kept) if is_known else kept

    def _identity(self, scope: Any, access_token: str | None) -> Headers:
        known = scope.get("auth")
        return self.identity(known.principal, access_token) if isinstance(known, Known) else []

    def _without_cookies(self, headers: Headers) -> Headers:
        without = self.cookies.without
        found = ((name, without(value) if name == b"cookie" else value) for name, value in headers)
        return [(name, value) for name, value in found if value or name != b"cookie"]


def identity_of(claim_headers: tuple[tuple[bytes, str], ...]) -> Identity:
    """Return what makes the headers of an identity, and those of `claim_headers`: pairs of a name and a claim.

    Where both have a name, that of `claim_headers` is meant, whether or not there is such a claim.

    It keeps those of the identities that were here last, for most come back with the next request.
    """
    replaced = {folded(name) for name, _ in claim_headers}

    @lru_cache(_KEPT_IDENTITIES)
    def identity(principal: Principal, access_token: str | None) -> Headers:
        chosen = ((name, claim_header(principal.claims, claim)) for name, claim in claim_headers)
        ours = [field for field in identity_headers(principal, access_token) if field[0] not in replaced]
        return [*ours, *((name, value) for name, value in chosen if value)]

    return identity


def outgoing(scope: Any, target: bytes, headers: Headers) -> Outgoing:
    """Return the request of an ASGI scope as it goes to the app.

    Raises:
        InvalidRequest: its body can be read in two ways.

    Source: RFC 9112 §6.1 and §6.3, RFC 9110 §10.1.1 (`Expect`).
    """
    body, length = _body(scope)
    expects = any(name == b"expect" and value.lower() == b"100-continue" for name, value in scope["headers"])
    return Outgoing(scope["method"], target, headers, body, length, expects)


def _body(scope: Any) -> tuple[Body, bytes]:
    lengths = {value for name, value in scope["headers"] if name == b"content-length"}
    codings = [value.strip().lower() for name, value in scope["headers"] if name == b"transfer-encoding"]
    if lengths and codings:
        raise InvalidRequest("Content-Length and Transfer-Encoding")
    if codings:
        if codings != [b"chunked"]:
            raise InvalidRequest("a transfer coding besides chunked")
        return Body.CHUNKED, b""
    if lengths:
        length = lengths.pop()
        if lengths or not length.isdigit() or len(length) > _LONGEST_LENGTH:
            raise InvalidRequest("two lengths, or one that is none")
        return Body.LENGTH, length
    return (Body.NONE if scope["http_version"].startswith("1.") else Body.UNKNOWN), b""
