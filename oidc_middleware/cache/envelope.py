"""Sealing: what leaves the process shows nothing of itself, and what comes in is ours or counts as a miss.

```
name in the store   namespace ":" type ":" key id ":" digest         keyed BLAKE2b of the key, in base64
blob                format 1 · key id 8 · day 4 · nonce 12 · AES-256-GCM of (end 8 · version 8 · value) · tag 16
bound to it         header (format, key id, day), namespace, type, key
keys                HKDF-SHA256 (RFC 5869) of a secret, by purpose: names by namespace and type, blobs by the day too,
                    the ledger by namespace
```
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets as chance
import struct
from binascii import b2a_base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from types import MappingProxyType
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from oidc_middleware.cache.backend import Entry, checked_end, checked_value, checked_version

SHORTEST_SECRET: Final = 32
"""The least length of a secret, in bytes."""
LARGEST_VALUE: Final = 16 * 1024 * 1024
"""The most bytes that one envelope holds: opening more would hold the event loop."""

_FORMAT = 2
_SALT = b"oidc-middleware"
_HEADER = struct.Struct(">B8sI")
_START = struct.Struct(">dQ")
_NONCE_BYTES = 12
_TAG_BYTES = 16
_SHORTEST_BLOB = _HEADER.size + _NONCE_BYTES + _START.size + _TAG_BYTES
_LONGEST_BLOB = _SHORTEST_BLOB + LARGEST_VALUE
# 144 bits: far beyond chance, and without padding in base64.
_DIGEST_BYTES = 18
_DAY = 86_400
# Derived keys are kept for so many pairs of type and day, and of type and secret. A new one costs 3 µs.
_KEPT = 128

_REFUSALS = {
    "malformed": "was not written by this version",
    "unknown_key": "was sealed with a secret that is not configured here",
    "altered": "was altered, or lies under another key than its own",
}

_log = logging.getLogger("oidc_middleware.cache")


def new_secret() -> str:
    """Return a new secret: 256 random bits in hexadecimal digits, which no shell, URL or YAML reader takes apart."""
    return chance.token_hex(32)


@dataclass(frozen=True, slots=True)
class SealerCounts:
    """What a sealer did since it was made. `malformed`, `unknown_key` and `altered` did not open."""

    sealed: int
    opened: int
    expired: int
    malformed: int
    unknown_key: int
    altered: int


class Sealer:
    """Names entries and seals them, for a store that others can read and write.

    Everything new is named and sealed with the first of `secrets`; whatever was sealed with any of them opens. A secret
    is text or bytes, of 32 bytes at least, and the same on every node. Two namespaces have nothing in common, even
    under one secret.

    AES-GCM must not see a nonce twice under one key. Nonces are 96 random bits, drawn for each blob from the operating
    system, so that forked processes and other nodes need no coordination. NIST SP 800-38D §8.3 allows 2^32 of them a
    key, which is 49,700 blobs a second in a fleet, for each type, for a whole day.

    Raises:
        ValueError: no secret, one that is too short or not UTF-8, or two with the same id.
        TypeError: a secret is neither text nor bytes.
    """

    def __init__(self, secrets: Sequence[bytes | str], namespace: str) -> None:
        self.namespace: bytes = namespace.encode()
        self.check_name: bytes = self.namespace + b":check"
        """Where nodes leave their check values: no name of an entry, for those have more parts."""
        self._roots = _roots(secrets)
        self.key_id: bytes = next(iter(self._roots))
        """The id of the first secret, eight hexadecimal digits."""
        self.check_values: Mapping[bytes, bytes] = MappingProxyType(
            {key_id: root.derive(16, b"check value") for key_id, root in self._roots.items()}
        )
        """By key id what nodes compare to learn whether they have the same secrets; it tells nothing about them."""
        self.ledger_keys: Mapping[bytes, bytes] = MappingProxyType(
            {
                bytes.fromhex(key_id.decode()): root.derive(32, b"ledger", self.namespace)
                for key_id, root in self._roots.items()
            }
        )
        """By key id (four bytes) the keys of the ledger's digests, in the order of the secrets."""
        self._naming = lru_cache(_KEPT)(self._derive_naming)
        self._namings = lru_cache(_KEPT)(lambda kind_name: [self._naming(key_id, kind_name) for key_id in self._roots])
        self._box = lru_cache(_KEPT)(self._derive_box)
        self._sealed = self._opened = self._expired = 0
        self._refused = dict.fromkeys(_REFUSALS, 0)

    def __repr__(self) -> str:
        ids = ", ".join(key_id.decode() for key_id in self._roots)
        return f"Sealer(namespace={self.namespace.decode()!r}, key_ids=[{ids}])"

    def digest(self, kind_name: str, key: bytes) -> bytes:
        """Return the name under which the entry is written: printable ASCII after the namespace."""
        return self._name(self.key_id, kind_name, key)

    def digests(self, kind_name: str, key: bytes) -> tuple[bytes, ...]:
        """Return every name under which the entry may lie, one a secret, that of the first one first."""
        return tuple(self._name(key_id, kind_name, key) for key_id in self._roots)

    def names(self, kind_name: str, key: bytes) -> list[bytes]:
        """Return what `digests` does, each without namespace and type: for a store that knows those."""
        names = []
        for naming in self._namings(kind_name):
            keyed = naming.keyed.copy()
            keyed.update(key)
            names.append(naming.short + b2a_base64(keyed.digest(), newline=False))
        return names

    def seal(
        self, kind_name: str, key: bytes, value: bytes, expires_at: float, now: float, *, version: int = 0
    ) -> bytes:
        """Return a blob that `open` takes for this type and key until `expires_at` (Unix time in seconds).

        Raises:
            ValueError: `expires_at` is not a finite number, there is no such `version`, or the value is larger than
                `LARGEST_VALUE`.
            TypeError: `value` is not bytes-like, or `version` no integer.
        """
        plain = _START.pack(checked_end(expires_at), checked_version(version)) + checked_value(value)
        if len(plain) - _START.size > LARGEST_VALUE:
            raise ValueError(f"a value of {len(value)} bytes is larger than an envelope, {LARGEST_VALUE}")
        header = _HEADER.pack(_FORMAT, self.key_id, _day(now))
        box = self._box(kind_name, header)
        nonce = os.urandom(_NONCE_BYTES)
        self._sealed += 1
        return header + nonce + box.cipher.encrypt(nonce, plain, box.bound + key)

    def open(self, kind_name: str, key: bytes, blob: bytes, now: float, version: int | None = None) -> Entry | None:
        """Return what was sealed for this type and key; None, and counted, if nothing was, or if its end has come.

        `version` is what the store says of it, which must be so; None: it says nothing. `blob` may be anything. What
        does not open is told in the log, each reason once.
        """
        if not _SHORTEST_BLOB <= len(blob) <= _LONGEST_BLOB or blob[0] != _FORMAT:
            self._refuse("malformed", kind_name)
            return None
        header, body = blob[: _HEADER.size], blob[_HEADER.size :]
        if header[1:9] not in self._roots:
            self._refuse("unknown_key", kind_name)
            return None
        box = self._box(kind_name, header)
        try:
            plain = box.cipher.decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], box.bound + key)
        except InvalidTag:
            self._refuse("altered", kind_name)
            return None
        end, sealed_version = _START.unpack_from(plain)
        if version is not None and version != sealed_version:
            self._refuse("altered", kind_name)
            return None
        if not now < end:
            self._expired += 1
            return None
        self._opened += 1
        return Entry(plain[_START.size :], end, sealed_version)

    def stats(self) -> SealerCounts:
        """Return what happened so far."""
        return SealerCounts(self._sealed, self._opened, self._expired, **self._refused)

    def _refuse(self, reason: str, kind_name: str) -> None:
        self._refused[reason] += 1
        if self._refused[reason] == 1:
            _log.warning(
                "An entry of the shared cache (type %s) %s. Such entries count as misses; this is told once.",
                kind_name,
                _REFUSALS[reason],
            )

    def _name(self, key_id: bytes, kind_name: str, key: bytes) -> bytes:
        naming = self._naming(key_id, kind_name)
        keyed = naming.keyed.copy()
        keyed.update(key)
        return naming.prefix + b2a_base64(keyed.digest(), newline=False)

    def _derive_naming(self, key_id: bytes, kind_name: str) -> _Naming:
        kind = kind_name.encode()
        key = self._roots[key_id].derive(64, b"name", bytes([_FORMAT]), self.namespace, kind)
        prefix = b":".join((self.namespace, kind, key_id, b""))
        return _Naming(prefix, key_id + b":", blake2b(key=key, digest_size=_DIGEST_BYTES))

    def _derive_box(self, kind_name: str, header: bytes) -> _Box:
        parts = header, self.namespace, kind_name.encode()
        key = self._roots[header[1:9]].derive(32, b"seal", *parts)
        return _Box(AESGCM(key), _joined(parts))


class _Naming(NamedTuple):
    """What begins the names of a type under one secret (`short`: its last part alone), and the hash that ends them."""

    prefix: bytes
    short: bytes
    keyed: blake2b


class _Box(NamedTuple):
    """The cipher of a type on a day, and what every blob of it is bound to before its key."""

    cipher: AESGCM
    bound: bytes


class _Root:
    """One secret, which cannot be printed."""

    __slots__ = ("_key",)

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(_SALT, secret, "sha256")

    def derive(self, length: int, *purpose: bytes) -> bytes:
        """Return a key of `length` bytes that is good for one purpose.

        Source: RFC 5869 §2.3; the constructor is its §2.2.
        """
        return HKDFExpand(SHA256(), length, _joined(purpose)).derive(self._key)


def _roots(secrets: Sequence[bytes | str]) -> dict[bytes, _Root]:
    """Return what the secrets give, by key id, in their order; one that is listed twice counts once."""
    roots: dict[bytes, _Root] = {}
    for secret in dict.fromkeys(_bytes_of(secret, place) for place, secret in enumerate(secrets, 1)):
        root = _Root(secret)
        key_id = root.derive(4, b"key id").hex().encode()
        if key_id in roots:
            raise ValueError(f"two secrets have the same id {key_id.decode()} by chance: replace one of them")
        roots[key_id] = root
    if not roots:
        raise ValueError("there is no secret: `oidc-middleware secret` prints a new one")
    return roots


def _bytes_of(secret: bytes | str, place: int) -> bytes:
    if not isinstance(secret, str | bytes):
        raise TypeError(f"secret {place} is neither text nor bytes, but {type(secret).__name__}")
    raw = secret.encode(errors="replace") if isinstance(secret, str) else secret
    if isinstance(secret, str) and raw.decode() != secret:  # an error of `encode` would hold the secret
        raise ValueError(f"secret {place} is not UTF-8: `oidc-middleware secret` prints a new one")
    if len(raw) < SHORTEST_SECRET:
        raise ValueError(
            f"secret {place} has {len(raw)} bytes, and {SHORTEST_SECRET} are the least: "
            "`oidc-middleware secret` prints a new one"
        )
    return raw


def _day(now: float) -> int:
    """Return the day of `now` as a number that fits into the header whatever the clock says."""
    return int(now // _DAY) & 0xFFFF_FFFF


def _joined(parts: Iterable[bytes]) -> bytes:
    """Return the parts, each after its length, so that no other parts give the same bytes."""
    return b"".join(len(part).to_bytes(4) + part for part in parts)
