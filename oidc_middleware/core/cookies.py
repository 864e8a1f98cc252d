"""Cookies: reading those that a browser sends, writing those of ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

_HOST_PREFIX: Final = "__Host-"

Headers = Iterable[tuple[bytes, bytes]]


def cookie_header(headers: Headers) -> bytes:
    """Return what all `Cookie` headers of a request say together: HTTP/2 lets a browser split it (RFC 9113 §8.2.3)."""
    return b"; ".join(value for name, value in headers if name == b"cookie")


def pairs(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and value of each cookie, in the order in which they came, none left out.

    Source: RFC 6265 §5.4, §4.2.2 (several may have one name).
    """
    for part in header.split(b";"):
        name, found, value = part.partition(b"=")
        if found:
            yield name.strip(b" \t"), value.strip(b" \t")


def values(header: bytes, name: str) -> list[bytes]:
    """Return the values of all cookies of this name."""
    wanted = name.encode("ascii")
    if wanted not in header:
        return []
    return [value for found, value in pairs(header) if found == wanted]


class CookieShape:
    """How every cookie of ours is written: for this host alone, and for no script.

    `is_secure` is whether the app is reached by https. A browser then sends it over https only, and takes one of this
    name, which begins with `__Host-`, from nobody but this very host. Over http to the machine itself neither works.

    Source: RFC 6265bis §4.1.2, §4.1.3.2 (`__Host-`).
    """

    def __init__(self, *, is_secure: bool) -> None:
        self._prefix = _HOST_PREFIX if is_secure else ""
        self._attributes = f"; Path=/; HttpOnly; SameSite=Lax{'; Secure' if is_secure else ''}"

    def name(self, name: str) -> str:
        """Return the whole name of a cookie."""
        return self._prefix + name

    def set(self, name: str, value: str, max_age: float) -> str:
        """Return a `Set-Cookie` header; `name` is a whole name, `max_age` in seconds."""
        return f"{name}={value}; Max-Age={int(max_age)}{self._attributes}"

    def clear(self, name: str) -> str:
        """Return the `Set-Cookie` header that takes a cookie away."""
        return f"{name}=; Max-Age=0{self._attributes}"


def grouped(header: bytes, prefix: str, most: int) -> dict[str, list[bytes]]:
    """Return the values by name of the cookies whose names begin so: of `most` names, further ones are left out."""
    wanted = prefix.encode("ascii")
    found: dict[str, list[bytes]] = {}
    if wanted not in header:
        return found
    for name, value in pairs(header):
        if name.startswith(wanted) and name.isascii():
            text = name.decode("ascii")
            if text in found or len(found) < most:
                found.setdefault(text, []).append(value)
    return found
