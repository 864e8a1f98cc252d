"""Signing keys: made, published, rotated and broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
KeyKind = Literal["RSA", "P-256", "P-384", "P-521", "Ed25519"]
MakeKey = Callable[[KeyKind], PrivateKey]
Rotation = Literal["overlap", "replace", "pre-publish"]

KINDS: dict[str, KeyKind] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    "ES256": "P-256",
    "ES384": "P-384",
    "ES512": "P-521",
    "EdDSA": "Ed25519",
}
"""Which kind of key each JWS algorithm signs with (RFC 7518 §3.1, RFC 8037 §3.1)."""


def make_private_key(kind: KeyKind) -> PrivateKey:
    """Make a fresh private key; an RSA key (2048 bits) takes about 100 ms."""
    match kind:
        case "RSA":
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        case "P-256":
            return ec.generate_private_key(ec.SECP256R1())
        case "P-384":
            return ec.generate_private_key(ec.SECP384R1())
        case "P-521":
            return ec.generate_private_key(ec.SECP521R1())
        case "Ed25519":
            return ed25519.Ed25519PrivateKey.generate()


def kind_of(algorithm: str) -> KeyKind:
    """Return the kind of key that `algorithm` signs with.

    Raises:
        ValueError: no issuer signs with this algorithm.
    """
    try:
        return KINDS[algorithm]
    except KeyError:
        raise ValueError(
            f"{algorithm!r} is not a signature algorithm of an issuer: choose from {', '.join(KINDS)}"
        ) from None


class KeyPool:
    """Private keys kept between tests, because making RSA keys is slow.

    Whoever borrows gets keys that nobody else holds at the same time, so two issuers never share one.
    """

    def __init__(self) -> None:
        self._spare: dict[KeyKind, list[PrivateKey]] = {}

    @contextmanager
    def borrow(self) -> Iterator[MakeKey]:
        """Lend a `MakeKey` whose keys come back to the pool at the end of the block."""
        lent: list[tuple[KeyKind, PrivateKey]] = []

        def make(kind: KeyKind) -> PrivateKey:
            spare = self._spare.get(kind)
            key = spare.pop(0) if spare else make_private_key(kind)
            lent.append((kind, key))
            return key

        try:
            yield make
        finally:
            for kind, key in lent:
                self._spare.setdefault(kind, []).append(key)


@dataclass(frozen=True, eq=False)
class SigningKey:
    """A private key with the `kid` and `alg` under which an issuer publishes its public half."""

    algorithm: str
    kid: str
    private: PrivateKey = field(repr=False)

    def sign(self, message: bytes, algorithm: str | None = None) -> bytes:
        """Return the JWS signature over `message` (RFC 7515 §5.1); `algorithm` replaces the key's own."""
        return jwt.get_algorithm_by_name(algorithm or self.algorithm).sign(message, self.private)

    def public_jwk(self) -> dict[str, Any]:
        """Return the public half as a JWK (RFC 7517 §4)."""
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        jwk = dict(algorithm.to_jwk(self.private.public_key(), as_dict=True))
        jwk.pop("key_ops", None)
        return {**jwk, "kid": self.kid, "alg": self.algorithm, "use": "sig"}


def make_key(algorithm: str = "RS256", kid: str = "stranger", make: MakeKey = make_private_key) -> SigningKey:
    """Make a key that no issuer publishes: an attacker's, or one to `KeyRing.publish`.

    Raises:
        ValueError: no issuer signs with this algorithm.
    """
    return SigningKey(algorithm, kid, make(kind_of(algorithm)))


class KeyRing:
    """The keys of one issuer: which it publishes, and which of them signs for each algorithm.

    Key ids count up for each algorithm (`rs256-1`, `rs256-2`), so two issuers have the same ids for different keys.
    """

    def __init__(self, algorithms: tuple[str, ...], make: MakeKey) -> None:
        self._make = make
        self._serial = dict.fromkeys(algorithms, 0)
        self._corrupted: dict[SigningKey, dict[str, Any]] = {}
        self.published: list[SigningKey] = []
        self.issued: list[SigningKey] = []
        """Every key that was ever on this ring, withdrawn ones too: the issuer knows its own tokens."""
        self._current = {algorithm: self.publish(self._next(algorithm)) for algorithm in self._serial}

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The algorithms that this issuer signs with; the first is its default."""
        return tuple(self._current)

    def current(self, algorithm: str | None = None) -> SigningKey:
        """Return the key that signs now, for `algorithm` or for the issuer's default.

        Raises:
            ValueError: this issuer does not sign with `algorithm`.
        """
        chosen = algorithm or self.algorithms[0]
        try:
            return self._current[chosen]
        except KeyError:
            raise ValueError(
                f"this issuer has no {chosen} key: name it in FakeIssuer(algorithms=...), or pass key=make_key(...)"
            ) from None

    def rotate(self, how: Rotation = "overlap", algorithm: str | None = None) -> SigningKey:
        """Make and publish a new key, and return it.

        `overlap`: the new key signs at once, the old one stays published. `replace`: the new key signs at once, the
        old one is withdrawn. `pre-publish`: the old key goes on signing until `activate` names the new one.

        Raises:
            ValueError: `how` is none of these, or this issuer does not sign with `algorithm`.
        """
        if how not in {"overlap", "replace", "pre-publish"}:
            raise ValueError(f"cannot rotate by {how!r}: choose overlap, replace or pre-publish")
        old = self.current(algorithm)
        new = self.publish(self._next(old.algorithm))
        if how != "pre-publish":
            self.activate(new)
        if how == "replace":
            self.withdraw(old)
        return new

    def activate(self, key: SigningKey) -> None:
        """Sign with `key` from now on."""
        self._current[key.algorithm] = key

    def publish(self, key: SigningKey) -> SigningKey:
        """Put `key` into the JWKS, and return it."""
        self.published.append(key)
        self.issued.append(key)
        return key

    def withdraw(self, key: SigningKey) -> None:
        """Take `key` out of the JWKS; it goes on signing until another is activated.

        Raises:
            ValueError: the key is not published.
        """
        self.published.remove(key)

    def corrupt(self, key: SigningKey, **members: object) -> None:
        """Replace members of the published JWK of `key`, such as `n="AA"`; `None` leaves a member out."""
        self._corrupted.setdefault(key, {}).update(members)

    def jwks(self) -> list[dict[str, Any]]:
        """Return the public JWKs, in the order of publication, corrupted where a test asked for it."""
        return [override(key.public_jwk(), self._corrupted.get(key, {})) for key in self.published]

    def _next(self, algorithm: str) -> SigningKey:
        self._serial[algorithm] += 1
        return make_key(algorithm, f"{algorithm.lower()}-{self._serial[algorithm]}", self._make)


def override(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `document` with `changes`; where a change is `None` the member is left out."""
    return {name: value for name, value in {**document, **changes}.items() if value is not None}
