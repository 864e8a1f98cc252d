"""What is kept of a session: sealed with a key that only its cookie has, so that a copy of the store opens nothing."""

from __future__ import annotations

from typing import Final

import msgspec

from oidc_middleware.session.cookie import SessionCookie
from oidc_middleware.session.seal import seal, unseal

LARGEST: Final = 60 * 1024
"""Bytes of a record with new tokens: memory and store take few more. Tokens with thousands of groups do not fit."""


class Record(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One session. Times are Unix seconds.

    `name` is what the ledger and lists call it: it is no secret and opens nothing. `claims` is JSON: of the ID token
    and of userinfo. `version` grows with each change. `ends_at` is when it ends unless it is used, `deadline` when it
    ends in any case. The access token is of use until `access_ends` and renewed ahead from `renew_at` on, infinity
    where the issuer did not say; without a `refresh_token` it is never renewed.
    """

    version: int
    name: str
    issuer: str
    claims: bytes
    id_token: str
    nonce: str
    began: float
    ends_at: float
    deadline: float
    access_token: str
    access_ends: float
    renew_at: float
    refresh_token: str | None
    scope: str | None
    user_agent: str = ""

    def __repr__(self) -> str:
        return f"Record(name={self.name!r}, version={self.version!r}, '[REDACTED]')"


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


def check_size(record: Record) -> None:
    """Check that a record with new tokens can be stored.

    Raises:
        ValueError: it is larger than `LARGEST`.
    """
    size = len(_encode(record))
    if size > LARGEST:
        raise ValueError(f"the session has {size} bytes, and {LARGEST} are the most")


def sealed(record: Record, cookie: SessionCookie) -> bytes:
    """Return a record as it is stored."""
    return seal(cookie.key, _encode(record), cookie.store_key)


def opened(data: bytes, cookie: SessionCookie) -> Record | None:
    """Return a record; None when the cookie's key does not open it."""
    plain = unseal(cookie.key, data, cookie.store_key)
    if plain is None:
        return None
    try:
        return _decode(plain)
    except (msgspec.MsgspecError, RecursionError):
        return None
