"""Sealing under a key that lies somewhere else: what is sealed cannot be read or changed without it."""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16


def derived_key(secret: bytes, purpose: bytes) -> bytes:
    """Return a key for one purpose, from which nobody learns the secret or the key of another.

    Source: RFC 5869.
    """
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=b"oidc-middleware", info=purpose).derive(secret)


def seal(key: bytes, data: bytes, place: bytes) -> bytes:
    """Return `data` sealed with AES-256-GCM under `key`; it opens at the same `place` only.

    Source: NIST SP 800-38D; `place` is its additional authenticated data.
    """
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data, place)


def unseal(key: bytes, sealed: bytes, place: bytes) -> bytes | None:
    """Return what was sealed; None when it was not sealed under this key, at this place, or was changed since."""
    if len(sealed) < _NONCE_BYTES + _TAG_BYTES:
        return None
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place)
    except InvalidTag:
        return None
