"""Writing compact JWS of any shape, right or wrong: nothing here refuses anything."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jwt

from oidc_middleware.testing.keys import SigningKey

Key = SigningKey | bytes


def encode_json(value: object) -> bytes:
    """Write compact JSON; NaN and infinities are written as JavaScript spells them, for tests that want them."""
    return json.dumps(value, separators=(",", ":")).encode()


def encode_segment(data: bytes) -> bytes:
    """Encode base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def sign(header: bytes, payload: bytes, key: Key, algorithm: str | None = None) -> str:
    """Join any header and payload bytes into a signed compact JWS (RFC 7515 §7.1).

    `key` is a signing key, or bytes as a shared secret (then `algorithm` is HS256 unless given). `algorithm` only
    chooses the signature, whatever the header says about it; "none" leaves the signature empty.
    """
    message = encode_segment(header) + b"." + encode_segment(payload)
    return (message + b"." + encode_segment(_signature(message, key, algorithm))).decode()


def _signature(message: bytes, key: Key, algorithm: str | None) -> bytes:
    if algorithm == "none":
        return b""
    if isinstance(key, SigningKey):
        return key.sign(message, algorithm)
    return jwt.get_algorithm_by_name(algorithm or "HS256").sign(message, key)


def half_hash(text: str, algorithm: str) -> str:
    """Return what `at_hash` and `c_hash` hold: half of the digest that belongs to `algorithm`.

    Source: OIDC Core §3.1.3.6. For Ed25519 the digest is SHA-512, the one inside that signature (RFC 8032 §5.1).
    """
    digest = hashlib.new("sha512" if algorithm == "EdDSA" else f"sha{algorithm[2:]}", text.encode()).digest()
    return encode_segment(digest[: len(digest) // 2]).decode()


def lay_over(base: Mapping[str, Any], changes: Mapping[str, Any] | None, omit: Sequence[str]) -> dict[str, Any]:
    """Return `base` with `changes`, without the members named in `omit`; `None` in `changes` is JSON null."""
    return {name: value for name, value in {**base, **(changes or {})}.items() if name not in omit}
