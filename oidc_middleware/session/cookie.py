"""The cookie of a session: what stands in it, how browsers are told, and how it is found among others.

It holds an id, by which the record is found, and a key, without which nobody can read it. Neither means anything, and
neither is kept anywhere else.
"""

from __future__ import annotations

import os
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from typing import Final, NamedTuple

from oidc_middleware.core.cookies import CookieShape, values
from oidc_middleware.errors import InvalidRequest
from oidc_middleware.session.seal import KEY_BYTES

ID_BYTES: Final = 16
_SHAPE = re.compile(rb"[A-Za-z0-9_-]{64}")


class SessionCookie(NamedTuple):
    """What a cookie of the right shape says: where the record lies, and what opens it. Never log it."""

    store_key: bytes
    """The digest of the id: whoever reads the store's keys learns no id."""
    key: bytes

    def __repr__(self) -> str:
        return "SessionCookie('[REDACTED]')"


def new_value() -> str:
    """Return the value of a new session's cookie: 64 characters, which nobody can guess."""
    return urlsafe_b64encode(os.urandom(ID_BYTES + KEY_BYTES)).decode("ascii")


def read(value: bytes) -> SessionCookie | None:
    """Return what a cookie says; None where it is none of ours, whatever it is: such never reach the store."""
    if not _SHAPE.fullmatch(value):
        return None
    data = urlsafe_b64decode(value)
    return SessionCookie(blake2b(data[:ID_BYTES], digest_size=32, person=b"session id").digest(), data[ID_BYTES:])


class Cookies:
    """The session cookie of one service: called `name` after the prefix of `shape`."""

    def __init__(self, name: str, shape: CookieShape) -> None:
        self.name: str = shape.name(name)
        self._shape = shape

    def find(self, header: bytes) -> bytes | None:
        """Return the value of the session's cookie in a Cookie header, None when there is none.

        Raises:
            InvalidRequest: there are two; one of them is perhaps somebody else's.

        Source: RFC 6265 §4.2.1, §5.4.
        """
        found = values(header, self.name)
        if len(found) > 1:
            raise InvalidRequest("two session cookies")
        return found[0] if found else None

    def set(self, value: str, max_age: float) -> str:
        """Return the Set-Cookie header that gives a browser a session for `max_age` seconds."""
        return self._shape.set(self.name, value, max_age)

    def clear(self) -> str:
        """Return the Set-Cookie header that takes it away, with the attributes that it was given with."""
        return self._shape.clear(self.name)
