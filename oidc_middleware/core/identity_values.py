"""The identity headers that an app behind the proxy or behind forward auth gets: what stands in them, and how.

| header (each also as `X-Auth-Request-…`) | what it holds |
|---|---|
| `X-Forwarded-User` | the subject; of a token without one, its client |
| `X-Forwarded-Issuer` | who vouches: a subject is unique only with its issuer |
| `X-Forwarded-Email` | `email`, if `email_verified` is `true` and nothing else |
| `X-Forwarded-Preferred-Username` | `preferred_username` |
| `X-Forwarded-Groups` | the groups, sorted, with `,` between them |
| `X-Forwarded-Access-Token` | the access token, where it is asked for |

A value is the claim in UTF-8 with everything percent-encoded that is not printable ASCII, and `%`, `,` and a space at
either end too: percent-decoding gives the claim back, and no claim can end a line, add a header or a second group. What
has no value, or one that is longer than 8 KiB, has no header: a list that was cut would be another list.

Source: RFC 9110 §5.5 (what a field's value may hold), RFC 3986 §2.1 (percent-encoding).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from oidc_middleware.core.claim_paths import find
from oidc_middleware.core.identity_headers import Headers
from oidc_middleware.core.principal import Principal

LONGEST: Final = 8192
"""The longest value in bytes: servers take heads of 8 to 64 KiB."""

FAMILIES: Final = (b"x-forwarded-", b"x-auth-request-")
"""What the names begin with: apps know one or the other."""

_TO_ENCODE = re.compile(rb"[^ -~]|[%,]|\A +| +\Z")
# RFC 6750 §2.1: what a bearer token is made of. Another one could not be sent as one either.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
# One `@`, and nothing beside it that could be read as two addresses or none.
_EMAIL = re.compile(r"[^@\s,;<>]+@[^@\s,;<>]+")


def identity_headers(principal: Principal, access_token: str | None = None) -> Headers:
    """Return the headers that tell who `principal` is, in lower case as ASGI wants it.

    `access_token` is among them if it is given: whether it is, `pass_access_token` of the settings says.
    """
    claims = principal.claims
    values = (
        (b"user", encoded(principal.subject or principal.client_id)),
        (b"issuer", encoded(principal.issuer)),
        (b"email", encoded(verified_email(claims))),
        (b"preferred-username", encoded(claims.get("preferred_username"))),
        (b"groups", encoded_list(principal.groups)),
        (b"access-token", _token(access_token)),
    )
    return [(family + name, value) for family in FAMILIES for name, value in values if 0 < len(value) <= LONGEST]


def claim_header(claims: dict[str, Any], path: str) -> bytes:
    """Return the value of a header that carries the claim at `path`; nothing where the claim has no plain form.

    A list of texts is joined as groups are, a number and a boolean are written as JSON has them. An address must be
    verified here too.
    """
    claim = verified_email(claims) if path == "email" else find(claims, path)
    if isinstance(claim, bool | int):
        value = str(claim).lower().encode()
    elif isinstance(claim, list | tuple):
        value = encoded_list(item for item in claim if isinstance(item, str))
    else:
        value = encoded(claim)
    return value if len(value) <= LONGEST else b""


def verified_email(claims: dict[str, Any]) -> str | None:
    """Return the address that the issuer has verified; None where there is none, or it is not one plain address.

    Source: OpenID Connect Core §5.1 (`email_verified` is a boolean).
    """
    email = claims.get("email")
    if claims.get("email_verified") is not True or not isinstance(email, str):
        return None
    return email if _EMAIL.fullmatch(email) else None


def encoded(claim: object) -> bytes:
    """Return a claim that is text as a header's value; nothing of any other."""
    if not isinstance(claim, str):
        return b""
    return _TO_ENCODE.sub(_percent, claim.encode("utf-8", "surrogatepass"))


def encoded_list(claim: Iterable[str]) -> bytes:
    """Return texts as one value, sorted, `,` between them; those that are empty left out."""
    return b",".join(filter(None, map(encoded, sorted(claim))))


def _percent(found: re.Match[bytes]) -> bytes:
    return b"".join(b"%%%02X" % byte for byte in found[0])


def _token(token: str | None) -> bytes:
    return token.encode() if token is not None and _TOKEN.fullmatch(token) else b""
