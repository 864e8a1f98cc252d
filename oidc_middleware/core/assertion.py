"""How a client that has a private key says who it is."""

from __future__ import annotations

import base64
import json
from typing import Any

from oidc_middleware.core.signature import PrivateKey

LIFE = 60
"""Seconds for which an assertion holds: it is made for one request."""


def client_assertion(
    key: PrivateKey, key_id: str | None, *, client_id: str, audience: str, now: float, jti: str
) -> str:
    """Return a JWT that only the owner of `key` can make, for the issuer `audience`.

    Source: RFC 7523 §3 (`iss` and `sub` are the client, `aud` the server), OpenID Connect Core §9 (`jti`).
    """
    header = {"alg": key.algorithm, "typ": "JWT"} | ({} if key_id is None else {"kid": key_id})
    issued = int(now)
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "iat": issued,
        "exp": issued + LIFE,
        "jti": jti,
    }
    signed = f"{_encoded(header)}.{_encoded(claims)}"
    return f"{signed}.{_base64url(key.sign(signed.encode('ascii')))}"


def _encoded(value: dict[str, Any]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
