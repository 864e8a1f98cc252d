"""Base64url as JOSE uses it: no padding, no white space, no spare bits (RFC 7515 §2, RFC 4648 §3.5)."""

from __future__ import annotations

import msgspec

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

# msgspec reads base64 twice as fast as `binascii` and refuses every character that is none, so one pass translates to
# the standard alphabet, sends whatever base64url does not have to a character that base64 does not have either, and
# leaves the check to the decoder.
_ELSEWHERE = bytes(octet for octet in range(256) if octet not in _ALPHABET)
_TO_STANDARD = bytes.maketrans(b"-_" + _ELSEWHERE, b"+/" + b"!" * len(_ELSEWHERE))
_decode_base64 = msgspec.json.Decoder(bytes).decode
_CLOSE = (b'"', b"", b'=="', b'="')

# The last character of a text whose length is 2 or 3 mod 4 carries 4 or 2 bits that encode nothing and must be zero;
# else several texts would mean the same bytes, and one token would have several spellings.
_LAST: tuple[frozenset[int], ...] = (
    frozenset(_ALPHABET),
    frozenset(),
    frozenset(b"AQgw"),
    frozenset(b"AEIMQUYcgkosw048"),
)


def decode(text: bytes) -> bytes:
    """Decode `text`.

    Raises:
        ValueError: a character outside the alphabet, padding, an impossible length, or bits set that encode nothing.
    """
    rest = len(text) & 3
    if text and text[-1] not in _LAST[rest]:
        raise ValueError("not canonical base64url")
    try:
        return _decode_base64(b'"' + text.translate(_TO_STANDARD) + _CLOSE[rest])
    except msgspec.DecodeError:
        raise ValueError("not base64url") from None
