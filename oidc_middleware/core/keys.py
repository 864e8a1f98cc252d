"""The keys of one issuer: a JSON Web Key Set read so that a bad key beside a good one harms nobody (RFC 7517)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.exceptions import PyJWTError

from oidc_middleware.core import base64url, strict_json
from oidc_middleware.core.signature import ALGORITHMS

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192
MAX_KEYS = 100
MAX_CANDIDATES = 4

_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
# What a key can be used for by its type and curve alone (RFC 7518 §3.1, RFC 8037 §3.1, RFC 9864 §2.2). `oct` is not
# among them.
_SUITABLE: MappingProxyType[tuple[str, str | None], frozenset[str]] = MappingProxyType(
    {
        ("RSA", None): _RSA,
        ("EC", "P-256"): frozenset({"ES256"}),
        ("EC", "P-384"): frozenset({"ES384"}),
        ("EC", "P-521"): frozenset({"ES512"}),
        ("OKP", "Ed25519"): frozenset({"EdDSA", "Ed25519"}),
        ("OKP", "Ed448"): frozenset({"EdDSA"}),
    }
)
# The members that make a public key, in the order in which RFC 7638 §3.2 hashes them.
_PUBLIC_MEMBERS: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "RSA": ("e", "kty", "n"),
        "EC": ("crv", "kty", "x", "y"),
        "OKP": ("crv", "kty", "x"),
    }
)
_RSA_EXPONENTS = range(3, 1 << 32, 2)


@dataclass(frozen=True, slots=True)
class Key:
    """One public key. `algorithms` are those that it may be used with; `thumbprint` is RFC 7638's SHA-256.

    `issuer` is whose tokens it signs, where the document says so: Entra ID's, which all tenants share, does.
    """

    kid: str | None
    algorithms: frozenset[str]
    thumbprint: bytes
    public_key: Any = field(repr=False, compare=False)
    issuer: str | None = None

    def is_of(self, names: frozenset[str], *, any_template: bool = False) -> bool:
        """Tell whether it signs for an issuer called by `names`, or by a template, whichever: or for everybody."""
        return self.issuer is None or self.issuer in names or (any_template and "{" in self.issuer)


class KeySet:
    """The usable keys of one JWKS document. Immutable.

    `document` is what it was read from, `skipped` says which keys were left out and why, `warnings` what the issuer
    should be told. Neither text holds anything of a key.
    """

    __slots__ = ("_by_issuer", "_candidates", "_issuers", "_templates", "document", "keys", "skipped", "warnings")

    def __init__(
        self,
        keys: Iterable[Key],
        document: bytes = b"",
        skipped: Iterable[str] = (),
        warnings: Iterable[str] = (),
    ) -> None:
        self.keys: tuple[Key, ...] = tuple(keys)
        self.document: bytes = document
        self.skipped: tuple[str, ...] = tuple(skipped)
        self.warnings: tuple[str, ...] = tuple(warnings)
        self._candidates = _index(self.keys)
        self._issuers = frozenset(key.issuer for key in self.keys if key.issuer is not None)
        self._templates = frozenset(issuer for issuer in self._issuers if "{" in issuer)
        self._by_issuer: dict[frozenset[str], KeySet] = {}

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        return f"KeySet({len(self.keys)} keys, {len(self.skipped)} skipped)"

    def find(self, kid: str | None, alg: str) -> tuple[Key, ...]:
        """Return the keys that a header with this `kid` and `alg` may mean, none when it fits none.

        Two keys of one `kid` are both tried. Without `kid` every key that fits is; where these are more than four
        the token does not say enough and fits none.

        Source: RFC 7515 §4.1.4, §6; RFC 7517 §4.5 (a `kid` need not be unique across key types).
        """
        return self._candidates.get((kid, alg), ())

    def of_issuer(self, names: frozenset[str], *, any_template: bool = False) -> KeySet:
        """Return the keys without those that the document gives to another issuer; see `Key.is_of`."""
        if self._issuers <= names:
            return self
        # As many different sets at most as the document names issuers, and one.
        named = self._issuers & (names | self._templates if any_template else names)
        subset = self._by_issuer.get(named)
        if subset is None:
            keys = (key for key in self.keys if key.is_of(named))
            subset = self._by_issuer[named] = KeySet(keys, self.document, self.skipped, self.warnings)
        return subset


def parse_jwks(document: bytes, algorithms: frozenset[str]) -> KeySet:
    """Read a JWKS document, leaving out every key that cannot verify with one of `algorithms`.

    Raises:
        StrictJSONError: the document is not strict JSON.
        ValueError: the document has no list of `keys`.

    Source: RFC 7517 §5 (keys that are not understood are ignored).
    """
    entries = strict_json.load_object(document).get("keys")
    if type(entries) is not list:
        raise ValueError("a JWKS must hold a list of keys")
    keys: list[Key] = []
    skipped: list[str] = []
    warnings: list[str] = []
    for number, entry in enumerate(entries):
        if number >= MAX_KEYS:
            skipped.append(f"{len(entries) - MAX_KEYS} keys beyond the first {MAX_KEYS}")
            break
        try:
            keys.append(parse_jwk(entry, algorithms))
        except ValueError as error:
            skipped.append(f"key {number}: {error}")
        if type(entry) is dict and "d" in entry:
            warnings.append(f"key {number} is published with its private part: the issuer must replace it")
    return KeySet(keys, document, skipped, warnings)


def parse_jwk(jwk: object, algorithms: frozenset[str]) -> Key:
    """Read one JWK, its public part only.

    Raises:
        ValueError: not a key of a type, size, use or algorithm that can verify here.

    Source: RFC 7517 §4, RFC 7518 §6.2 and §6.3, RFC 8037 §2.
    """
    if type(jwk) is not dict:
        raise ValueError("not an object")
    allowed = _suitable(jwk) & algorithms & _own_algorithm(jwk)
    if not allowed:
        raise ValueError("its type and alg allow no algorithm of the allow-list")
    _check_use(jwk)
    kid = jwk.get("kid")
    if kid is not None and type(kid) is not str:
        raise ValueError("kid is not a string")
    issuer = jwk.get("issuer")
    if issuer is not None and type(issuer) is not str:
        raise ValueError("issuer is not a string")
    members = _public_members(jwk)
    return Key(kid, allowed, _thumbprint(members), _load(members, next(iter(allowed))), issuer)


def _suitable(jwk: Mapping[str, Any]) -> frozenset[str]:
    kty, curve = jwk.get("kty"), jwk.get("crv")
    if type(kty) is not str or not (curve is None or type(curve) is str):
        raise ValueError("kty is not a string")
    return _SUITABLE.get((kty, None if kty == "RSA" else curve), frozenset())


def _own_algorithm(jwk: Mapping[str, Any]) -> frozenset[str]:
    """Source: RFC 7517 §4.4; RFC 8725 §3.1 (a key is used with one algorithm, where the issuer says which)."""
    alg = jwk.get("alg")
    return frozenset(ALGORITHMS) if alg is None else frozenset({str(alg)})


def _check_use(jwk: Mapping[str, Any]) -> None:
    """Source: RFC 7517 §4.2 (`use`), §4.3 (`key_ops`). As with `kid` and `alg`, null is as good as absent."""
    if jwk.get("use") not in (None, "sig"):
        raise ValueError("use is not sig")
    operations = jwk.get("key_ops")
    if operations is not None and (type(operations) is not list or "verify" not in operations):
        raise ValueError("key_ops does not hold verify")


def _public_members(jwk: Mapping[str, Any]) -> dict[str, str]:
    members: dict[str, str] = {}
    for name in _PUBLIC_MEMBERS[jwk["kty"]]:
        value = jwk.get(name)
        if type(value) is not str:
            raise ValueError(f"{name} is not a string")
        if name in {"e", "n", "x", "y"}:
            _check_number(name, value)
        members[name] = value
    return members


def _check_number(name: str, value: str) -> None:
    try:
        base64url.decode(value.encode("ascii"))
    except ValueError:
        raise ValueError(f"{name} is not base64url") from None


def _thumbprint(members: dict[str, str]) -> bytes:
    """Source: RFC 7638 §3."""
    return hashlib.sha256(msgspec.json.encode(members)).digest()


def _load(members: dict[str, str], algorithm: str) -> Any:
    try:
        key = ALGORITHMS[algorithm].from_jwk(dict(members))
    except (PyJWTError, ValueError, TypeError, OverflowError):
        raise ValueError("its numbers make no key") from None
    if isinstance(key, RSAPublicKey):
        _check_rsa(key)
    return key


def _check_rsa(key: RSAPublicKey) -> None:
    """Source: RFC 7518 §3.3 (2048 bits or more); the upper bounds keep the cost of a signature check bounded."""
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise ValueError(f"an RSA key must have {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
    if key.public_numbers().e not in _RSA_EXPONENTS:
        raise ValueError("an RSA exponent must be odd and of 3 to 2**32 - 1")


def _index(
    keys: tuple[Key, ...],
) -> MappingProxyType[tuple[str | None, str], tuple[Key, ...]]:
    found: dict[tuple[str | None, str], list[Key]] = {}
    for key in keys:
        for algorithm in key.algorithms:
            found.setdefault((None, algorithm), []).append(key)
            if key.kid is not None:
                found.setdefault((key.kid, algorithm), []).append(key)
    return MappingProxyType({name: tuple(fit) for name, fit in found.items() if len(fit) <= MAX_CANDIDATES})
