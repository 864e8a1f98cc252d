"""The format, fixed: if it changed by accident, nodes of two versions could not read each other."""

from __future__ import annotations

import struct
from base64 import b64encode
from hashlib import blake2b, sha256

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from oidc_middleware.cache import Entry
from oidc_middleware.cache.envelope import Sealer

SECRET = "0123456789abcdef" * 2
OTHER = "fedcba9876543210" * 2
NOW = 1_800_000_000.0
HOUR = 3600.0
KEY = sha256(b"a token").digest()
VALUE = b'{"sub":"alice","iss":"https://login.example.com"}'
BLOB = Sealer([SECRET], "oidc").seal("token", KEY, VALUE, NOW + HOUR, NOW, version=7)


@pytest.fixture
def sealer() -> Sealer:
    return Sealer([SECRET], "oidc")


def parts(*texts: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(text)) + text for text in texts)


def derived(secret: str, length: int, *purpose: bytes) -> bytes:
    return HKDF(SHA256(), length, salt=b"oidc-middleware", info=parts(*purpose)).derive(secret.encode())


def test_a_fixed_blob_opens(sealer: Sealer) -> None:
    blob = bytes.fromhex(
        "026130323531333161000051611cb489614bd1d1074d17352b99cc3a000fcc71b05c6a4567ff3b66242f5183b6f00b071bfb"
        "812848f9238968e1a77e1013"
    )
    assert sealer.open("token", b"key", blob, NOW) == Entry(b"value", NOW + HOUR, 7)


def test_fixed_names_and_check_values() -> None:
    sealer = Sealer([SECRET, OTHER], "oidc")
    assert sealer.digests("token", b"key") == (
        b"oidc:token:a025131a:pvujMW1AZyZsDbryoWAHX7Hm",
        b"oidc:token:e231419e:2yAGeaZxwFXY52dycL5TQhtR",
    )
    assert {key_id: value.hex() for key_id, value in sealer.check_values.items()} == {
        b"a025131a": "642203dbb20f36da988c1b6013c22527",
        b"e231419e": "5d122f573fc3dc5790db39cccacbab8e",
    }


def test_names_from_the_primitives(sealer: Sealer) -> None:
    key_id = derived(SECRET, 4, b"key id").hex().encode()
    key = derived(SECRET, 64, b"name", b"\x02", b"oidc", b"token")
    digest = b64encode(blake2b(KEY, key=key, digest_size=18).digest())
    assert sealer.digest("token", KEY) == b":".join((b"oidc", b"token", key_id, digest))
    assert sealer.check_values == {key_id: derived(SECRET, 16, b"check value")}


def test_a_blob_opened_with_the_primitives() -> None:
    header, nonce, sealed = BLOB[:13], BLOB[13:25], BLOB[25:]
    assert header == b"\x02" + derived(SECRET, 4, b"key id").hex().encode() + struct.pack(">I", int(NOW // 86_400))
    key = derived(SECRET, 32, b"seal", header, b"oidc", b"token")
    plain = AESGCM(key).decrypt(nonce, sealed, parts(header, b"oidc", b"token") + KEY)
    assert plain == struct.pack(">dQ", NOW + HOUR, 7) + VALUE


def test_a_blob_made_with_the_primitives(sealer: Sealer) -> None:
    header = b"\x02" + sealer.key_id + struct.pack(">I", 20_000)
    key = derived(SECRET, 32, b"seal", header, b"oidc", b"metadata")
    sealed = AESGCM(key).encrypt(
        bytes(12), struct.pack(">dQ", NOW + 1, 8) + b"v", parts(header, b"oidc", b"metadata") + b"k"
    )
    assert sealer.open("metadata", b"k", header + bytes(12) + sealed, NOW) == Entry(b"v", NOW + 1, 8)
