"""Tokens of an issuer that nobody but those whom they are for can verify, and why: for the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from oidc_middleware.errors import ClaimError


@dataclass(frozen=True, slots=True)
class ForeignHeader:
    """Tokens with a header member `name`; with `value`, if it has that value."""

    name: str
    reason: str
    value: str | None = None


@dataclass(frozen=True, slots=True)
class ForeignPrefix:
    """Opaque tokens that begin like this."""

    prefix: bytes
    reason: str


Foreign = ForeignHeader | ForeignPrefix


def check_header(header: Mapping[str, object], foreign: Iterable[Foreign]) -> None:
    """Refuse a token that only somebody else can verify, before its signature does not hold.

    Raises:
        ClaimError: it is one; the detail says why.
    """
    for kind in foreign:
        if isinstance(kind, ForeignHeader) and _has(header, kind):
            raise ClaimError(kind.name, "mismatch", kind.reason)


def reason_of_opaque(token: bytes, foreign: Iterable[Foreign]) -> str | None:
    """Return why nobody here, and no other issuer, can say anything about this opaque token; None: it is not known."""
    return next(
        (kind.reason for kind in foreign if isinstance(kind, ForeignPrefix) and token.startswith(kind.prefix)), None
    )


def reason_of_header(header: Mapping[str, object], foreign: Iterable[Foreign]) -> str | None:
    """Return why nobody here can verify a token with this header; None: it is not known."""
    return next((kind.reason for kind in foreign if isinstance(kind, ForeignHeader) and _has(header, kind)), None)


def _has(header: Mapping[str, object], kind: ForeignHeader) -> bool:
    return kind.name in header and (kind.value is None or header[kind.name] == kind.value)
