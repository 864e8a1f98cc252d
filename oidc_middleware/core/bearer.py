"""Find the one credential of a request: a bearer token in the Authorization header, or none.

Two credentials, or one that can be read in two ways, are refused with 400 instead of choosing between them. A scheme
other than Bearer (Basic, DPoP) counts as no credentials: the challenge then tells which one is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from oidc_middleware.errors import InvalidRequest, Malformed, MissingToken

Headers = Iterable[tuple[bytes, bytes]]

MAX_TOKEN = 16 * 1024
"""Bytes; a longer token is refused unread."""

_B64TOKEN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"
_SCHEME = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_STRUCTURE = re.compile(rb'[ \t,"=]')
_SUBPROTOCOL = b"bearer."


def _escaped(name: str) -> str:
    """Return a regular expression for `name` in a query, each letter as it is or escaped (RFC 3986 §2.1)."""
    return "".join(f"(?:{letter}|%(?i:{ord(letter):02x}))" for letter in name)


# A search in one pass: a query may have tens of thousands of parameters, and to decode each would hold the loop.
_ACCESS_TOKEN = re.compile(rf"(?:\A|&){_escaped('access_token')}(?:[=&]|\Z)".encode())


def authorization(headers: Headers) -> bytes | None:
    """Return the value of the Authorization header, `None` when there is none.

    Raises:
        InvalidRequest: There are two, equal or not.

    Source: RFC 9110 §5.3, §11.6.2.
    """
    found = None
    for name, value in headers:
        if name == b"authorization":
            if found is not None:
                raise InvalidRequest("more than one Authorization header")
            found = value
    return found


def credential(value: bytes) -> bytes:
    """Return the token in the value of an Authorization header: `Bearer`, exactly one space, a b64token.

    RFC 9110 allows more than one space, RFC 6750 one; a second one is refused, as are tabs, quotes and lists.

    Raises:
        MissingToken: It is of another scheme.
        InvalidRequest: It is malformed.
        Malformed: The token is longer than `MAX_TOKEN`, or has characters that none may have.

    Source: RFC 6750 §2.1 (b64token); RFC 9110 §11.1 (schemes are case-insensitive), §11.4.
    """
    if is_of_another_scheme(value):
        raise MissingToken("the Authorization header is not of the Bearer scheme")
    scheme, _, token = value.partition(b" ")
    if scheme.lower() != b"bearer":
        raise InvalidRequest("the Authorization header is malformed")
    return _b64token(token)


def is_of_another_scheme(value: bytes) -> bool:
    """Tell whether the value of an Authorization header is of another scheme, and so no credentials here.

    Source: RFC 9110 §11.1.
    """
    scheme = value.partition(b" ")[0]
    return scheme.lower() != b"bearer" and _SCHEME.fullmatch(scheme) is not None


def is_token(token: bytes) -> bool:
    """Tell whether a request could carry this token.

    Source: RFC 6750 §2.1 (b64token).
    """
    text = token.rstrip(b"=")
    return 0 < len(text) <= len(token) <= MAX_TOKEN and not text.translate(None, _B64TOKEN)


def check_query(query_string: bytes) -> None:
    """Refuse a token in the query, beside one in the header: a request has one credential.

    Raises:
        InvalidRequest: The query has a parameter `access_token`.

    Source: RFC 6750 §2 (no more than one method), §2.3.
    """
    if _ACCESS_TOKEN.search(query_string):
        raise InvalidRequest("a token in the header and one in the query")


def subprotocol_token(headers: Headers) -> bytes:
    """Return the token that a browser sends as WebSocket subprotocol `bearer.<token>`, where that is configured.

    Raises:
        MissingToken: None of the offered subprotocols is one.
        InvalidRequest: Two are, or an Authorization header came too, or the token is malformed.
        Malformed: The token is longer than `MAX_TOKEN`.

    Source: RFC 6455 §4.1 (Sec-WebSocket-Protocol may come several times); RFC 6750 §2.
    """
    headers = tuple(headers)
    tokens = [
        offered.strip(b" \t")[len(_SUBPROTOCOL) :]
        for name, value in headers
        if name == b"sec-websocket-protocol"
        for offered in value.split(b",")
        if offered.strip(b" \t").startswith(_SUBPROTOCOL)
    ]
    if not tokens:
        raise MissingToken("no subprotocol bearer.<token>")
    if len(tokens) > 1 or authorization(headers) is not None:
        raise InvalidRequest("more than one credential")
    return _b64token(tokens[0])


def _b64token(token: bytes) -> bytes:
    """Return `token` if it has only characters that a token may have.

    What separates or quotes the parts of a header makes the request ambiguous; anything else is a bad token, and so is
    a JWS in its JSON form, which has such characters too.

    Source: RFC 6750 §2.1 (b64token), §3.1 (`invalid_request`, `invalid_token`); RFC 7515 §7.2.
    """
    if len(token) > MAX_TOKEN:
        raise Malformed("longer than 16 KiB")
    text = token.rstrip(b"=")
    if not text:
        raise InvalidRequest("the bearer token is empty")
    if text.translate(None, _B64TOKEN):
        if _STRUCTURE.search(text) and b"{" not in text:
            raise InvalidRequest("the Authorization header holds more than one token")
        raise Malformed("characters that no token may have")
    return token
