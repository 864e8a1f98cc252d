"""Tokens that only their issuer can read, told apart from those that are written as JWTs."""

from __future__ import annotations

import base64
import json

_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


def is_opaque(token: bytes) -> bool:
    """Tell whether a token is not written as a JWT (RFC 7519 §3): before its first dot stands no header with an `alg`.

    The header is read as liberally as any issuer might. A JWT in a spelling that is refused here must not pass for an
    opaque token: its issuer could call it active, and the ledger of revocations would know it by another name.
    """
    head, dot, _ = token.partition(b".")
    if not dot:
        return True
    text = head.translate(_TO_STANDARD, b"=")
    text = text[: len(text) - (len(text) % 4 == 1)]
    try:
        header = json.loads(base64.b64decode(text + b"==="))
    except RecursionError:
        return False
    except ValueError:
        return True
    return not (isinstance(header, dict) and "alg" in header)


def signing_input(token: bytes) -> bytes:
    """Return what the ledger of revocations knows a token by that has no `jti`: all of it before the last dot.

    Of an opaque token that is the whole: nobody knows a part of it that does not matter.

    Source: RFC 7515 §2 (JWS Signing Input).
    """
    return token if is_opaque(token) else token.rpartition(b".")[0]
