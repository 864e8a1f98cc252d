"""JWTs as an issuer signs them, and every way in which a test may want them different."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from oidc_middleware.testing.keys import KeyRing, SigningKey
from oidc_middleware.testing.tokens import Key, encode_json, lay_over, sign


class Shape(TypedDict, total=False):
    """How a minted JWT differs from the usual one."""

    claims: Mapping[str, Any]
    """Claims to add or replace; `None` is JSON null."""
    headers: Mapping[str, Any]
    """Header members to add or replace; they do not choose the signature."""
    omit: Sequence[str]
    """Claims to leave out."""
    omit_headers: Sequence[str]
    """Header members to leave out."""
    algorithm: str | None
    """Signature algorithm, where it is not the issuer's default."""
    key: Key | None
    """Key to sign with, where it is not the issuer's current one: see `make_key`."""


def signer(keys: KeyRing, shape: Shape) -> tuple[Key, str, str]:
    """Return the key that `shape` chooses, its algorithm, and the `kid` to name.

    A bare secret goes under the `kid` of the current key, as whoever confuses the two would send it.

    Raises:
        ValueError: there is no key for the algorithm.
    """
    key, algorithm = shape.get("key"), shape.get("algorithm")
    if key is None:
        key = keys.current(None if algorithm == "none" else algorithm)
    if isinstance(key, SigningKey):
        return key, algorithm or key.algorithm, key.kid
    return key, algorithm or "HS256", keys.current().kid


def mint(keys: KeyRing, typ: str, claims: Mapping[str, Any], shape: Shape) -> str:
    """Sign `claims` under the usual header, both changed as `shape` says.

    Raises:
        ValueError: there is no key for the algorithm.
        TypeError: `shape` has what no shape has, such as a claim beside `claims`.
    """
    if unknown := shape.keys() - Shape.__annotations__.keys():
        raise TypeError(f"{', '.join(sorted(unknown))}: unknown; claims go into claims={{...}}")
    key, algorithm, kid = signer(keys, shape)
    usual = {"alg": algorithm, "kid": kid, "typ": typ}
    header = lay_over(usual, shape.get("headers"), shape.get("omit_headers", ()))
    payload = lay_over(claims, shape.get("claims"), shape.get("omit", ()))
    return sign(encode_json(header), encode_json(payload), key, algorithm)
