"""Signatures, by PyJWT's algorithm objects (RFC 7518 §3, RFC 8037 §3.1, RFC 9864 §2.2)."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, NamedTuple

from jwt.algorithms import (
    Algorithm,
    ECAlgorithm,
    OKPAlgorithm,
    RSAAlgorithm,
    RSAPSSAlgorithm,
)

ALGORITHMS: MappingProxyType[str, Algorithm] = MappingProxyType(
    {
        "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
        "RS384": RSAAlgorithm(RSAAlgorithm.SHA384),
        "RS512": RSAAlgorithm(RSAAlgorithm.SHA512),
        "PS256": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256),
        "PS384": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA384),
        "PS512": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA512),
        "ES256": ECAlgorithm(ECAlgorithm.SHA256),
        "ES384": ECAlgorithm(ECAlgorithm.SHA384),
        "ES512": ECAlgorithm(ECAlgorithm.SHA512),
        "EdDSA": OKPAlgorithm(),
        "Ed25519": OKPAlgorithm(),
    }
)
"""Every algorithm that can be allowed. Asymmetric ones only: a shared secret or `none` cannot be listed."""

_MIN_RSA_BITS = 2048
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


class PrivateKey(NamedTuple):
    """A key that signs, and the algorithm that it signs with; `repr` does not show it."""

    algorithm: str
    key: Any

    def __repr__(self) -> str:
        return f"PrivateKey({self.algorithm!r})"

    def sign(self, data: bytes) -> bytes:
        """Return the signature of `data`."""
        signature: bytes = ALGORITHMS[self.algorithm].sign(data, self.key)
        return signature


def load_private_key(pem: bytes) -> PrivateKey:
    """Read a private key from PEM (RFC 7468 §10): RSA (RS256), an elliptic curve of NIST (ES*), or Ed25519 (EdDSA).

    Raises:
        ValueError: it is none of these, or locked by a passphrase. The message never quotes it.
    """
    for name in ("RS256", "ES256", "EdDSA"):
        try:
            key: Any = ALGORITHMS[name].prepare_key(pem)
        except Exception:  # noqa: BLE001, S112  PyJWT and cryptography raise all sorts for what is no such key
            continue
        if not hasattr(key, "sign"):
            raise ValueError("a public key")
        if name == "RS256" and key.key_size < _MIN_RSA_BITS:
            raise ValueError(f"an RSA key of less than {_MIN_RSA_BITS} bits")
        if name == "ES256":
            name = _CURVES.get(key.curve.name, "")  # noqa: PLW2901  the one of its curve
        if not name or (name == "EdDSA" and key.__class__.__name__.startswith("Ed448")):
            raise ValueError("of a curve that is not supported")
        return PrivateKey(name, key)
    raise ValueError("no private key without a passphrase, in PEM form")
