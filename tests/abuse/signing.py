"""Tokens signed by hand, byte by byte, so that a case can break any part. Nothing of the package is used here."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

NOW = 1795423765.0
ISSUER = "https://idp.example"
AUDIENCE = "api://orders"

Json = dict[str, Any]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def b64_int(number: int, length: int | None = None) -> str:
    return b64(number.to_bytes(length or (number.bit_length() + 7) // 8, "big"))


def good_claims(**changes: Any) -> Json:
    claims: Json = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "exp": int(NOW) + 300,
        "iat": int(NOW) - 5,
        "jti": "t-1",
        "client_id": "client-a",
        "scope": "orders:read",
    }
    return claims | changes


class Signer:
    """One key of each kind, and what the issuer publishes of them: `r1`, `e1` and `o1`."""

    def __init__(self) -> None:
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.evil = rsa.generate_private_key(65537, 2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.okp = ed25519.Ed25519PrivateKey.generate()

    def rsa_jwk(self, key: rsa.RSAPrivateKey | None = None, **changes: Any) -> Json:
        numbers = (key or self.rsa).public_key().public_numbers()
        jwk = {
            "kty": "RSA",
            "kid": "r1",
            "alg": "RS256",
            "use": "sig",
            "n": b64_int(numbers.n),
            "e": b64_int(numbers.e),
        }
        return {name: value for name, value in (jwk | changes).items() if value is not None}

    def ec_jwk(self, **changes: Any) -> Json:
        numbers = self.ec.public_key().public_numbers()
        point = {"x": b64_int(numbers.x, 32), "y": b64_int(numbers.y, 32)}
        return {"kty": "EC", "crv": "P-256", "kid": "e1", "alg": "ES256", "use": "sig"} | point | changes

    def okp_jwk(self) -> Json:
        return {
            "kty": "OKP",
            "crv": "Ed25519",
            "kid": "o1",
            "alg": "EdDSA",
            "use": "sig",
            "x": b64(self.okp.public_key().public_bytes_raw()),
        }

    def jwks(self) -> bytes:
        return json.dumps({"keys": [self.rsa_jwk(), self.ec_jwk(), self.okp_jwk()]}).encode()

    def sign(self, alg: str, data: bytes, key: Any = None) -> bytes:
        if alg == "RS256":
            return (key or self.rsa).sign(data, padding.PKCS1v15(), hashes.SHA256())
        if alg == "PS256":
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)
            return self.rsa.sign(data, pss, hashes.SHA256())
        if alg == "EdDSA":
            return self.okp.sign(data)
        if alg == "HS256":
            return hmac.new(key, data, hashlib.sha256).digest()
        r, s = utils.decode_dss_signature(self.ec.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def token(
        self,
        *,
        alg: str = "RS256",
        header: Json | bytes | None = None,
        claims: Json | bytes | None = None,
        omit_header: tuple[str, ...] = (),
        omit: tuple[str, ...] = (),
        key: Any = None,
    ) -> str:
        """Sign a good token, or one that differs from it as said; bytes are taken as they are."""
        if not isinstance(header, bytes):
            kid = {"E": "e1", "d": "o1"}.get(alg[0] if alg != "EdDSA" else "d", "r1")
            fields = {"alg": alg, "kid": kid, "typ": "at+jwt"} | (header or {})
            header = json.dumps({name: value for name, value in fields.items() if name not in omit_header}).encode()
        if not isinstance(claims, bytes):
            fields = good_claims() if claims is None else good_claims(**claims)
            claims = json.dumps({name: value for name, value in fields.items() if name not in omit}).encode()
        signed = f"{b64(header)}.{b64(claims)}"
        return f"{signed}.{b64(self.sign(alg, signed.encode(), key))}"
