"""Request headers by which a proxy tells an app who the user is, and by which a client could pretend to be one.

Behind the middleware the identity is `request.user`. An app that used to sit behind a login proxy may still read such a
header, and nobody but us could have vouched for it: so they are removed from every request, on public paths too, in
every spelling that a WSGI bridge or a CGI environment folds into one name.

A proxy knows less of who reads them, so it compares names as the most generous reader does: `folded`.
"""

from __future__ import annotations

from itertools import product
from typing import Final

Headers = list[tuple[bytes, bytes]]

TOLD: Final = ("user", "issuer", "email", "groups", "preferred-username", "access-token")
"""What the names of the headers end with that tell an identity to an app."""
_NAMES = (
    *(f"remote-{what}" for what in ("user", "name", "email", "groups")),
    "x-remote-user",
    "x-userinfo",
    "x-id-token",
    *(f"x-forwarded-{what}" for what in TOLD),
    *(f"x-auth-request-{what}" for what in TOLD),
)


def _spellings(name: str) -> frozenset[bytes]:
    words = name.split("-")
    return frozenset(
        (words[0] + "".join(sign + word for sign, word in zip(signs, words[1:], strict=True))).encode()
        for signs in product("-_.", repeat=len(words) - 1)
    )


IDENTITY_HEADERS: frozenset[bytes] = frozenset().union(*map(_spellings, _NAMES))
"""Every spelling (`-`, `_` and `.` between the words) of every such name, in lower case as ASGI wants it."""


def removed(headers: Headers) -> Headers:
    """Return the headers without those that claim an identity."""
    return [(name, value) for name, value in headers if name not in IDENTITY_HEADERS]


def _fold(byte: int) -> int:
    sign = chr(byte)
    return ord(sign.lower()) if sign.isascii() and sign.isalnum() else ord("-")


_FOLD = bytes(map(_fold, range(256)))


def folded(name: bytes) -> bytes:
    """Return a header's name as a reader that folds most sees it: in lower case, every other sign a `-`."""
    return name.translate(_FOLD)
