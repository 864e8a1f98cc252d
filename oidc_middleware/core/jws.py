"""A compact JWS taken apart, and its header checked before any key is looked for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from oidc_middleware.core import base64url, strict_json
from oidc_middleware.errors import AlgorithmNotAllowed, Malformed

MAX_TOKEN_BYTES = 16 * 1024
MAX_KID_CHARACTERS = 256

_NONE: Mapping[bytes, dict[str, Any]] = MappingProxyType({})

# Each of these would let the sender choose the key, change what is signed, or wrap something else (RFC 8725 §3.10).
# `crit` is among them because we understand no extension at all, so that every list of critical ones must be refused.
_REFUSED_PARAMETERS = frozenset({"crit", "b64", "jku", "x5u", "jwk", "zip", "cty"})


class JWS(NamedTuple):
    """The parts of a compact JWS. Nothing of it is verified."""

    header: dict[str, Any]
    payload: bytes
    signing_input: bytes
    signature: bytes
    encoded_header: bytes

    @property
    def algorithm(self) -> str:
        """The header's `alg`, a string once `check_header` passed."""
        return self.header["alg"]  # type: ignore[no-any-return]

    @property
    def kid(self) -> str | None:
        """The header's `kid`, a string or absent once `check_header` passed."""
        return self.header.get("kid")


def parse(token: bytes, known_headers: Mapping[bytes, dict[str, Any]] = _NONE) -> JWS:
    """Take a compact JWS apart.

    `known_headers` are headers read before, by their encoded form: an issuer sends the same ones over and over.

    Raises:
        Malformed: longer than 16 KiB, not three parts, not strict base64url, or a header that is no strict JSON object.

    Source: RFC 7515 §7.1 (compact serialisation), §5.2 steps 1-4; a JWE (five parts) is refused here.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise Malformed("longer than 16 KiB")
    # A dot too many is left in the payload, where it is no base64url; one too few leaves the header empty.
    signing_input, _, signature = token.rpartition(b".")
    header, _, payload = signing_input.partition(b".")
    try:
        return JWS(
            known_headers.get(header) or strict_json.load_object(base64url.decode(header)),
            base64url.decode(payload),
            signing_input,
            base64url.decode(signature),
            header,
        )
    except ValueError as error:
        if token.count(b".") != 2:  # noqa: PLR2004  between three parts
            raise Malformed("not three parts") from None
        where = "header: " if isinstance(error, strict_json.StrictJSONError) else ""
        raise Malformed(f"{where}{error}") from None


def check_header(header: dict[str, Any], algorithms: frozenset[str]) -> None:
    """Check what can be known of a header without a key.

    Raises:
        AlgorithmNotAllowed: `alg` is not one of `algorithms`.
        Malformed: a parameter that we refuse, or `kid` is not a string of at most 256 characters.

    Source: RFC 7515 §4.1, RFC 7797 §6, RFC 8725 §3.1 and §3.10.
    """
    _check_algorithm(header.get("alg"), algorithms)
    if not _REFUSED_PARAMETERS.isdisjoint(header):
        raise Malformed("header: refused parameter " + ", ".join(sorted(_REFUSED_PARAMETERS & header.keys())))
    _check_kid(header)


def _check_algorithm(alg: object, algorithms: frozenset[str]) -> None:
    """Source: RFC 8725 §3.1 (an allow-list, never what the token says)."""
    if type(alg) is not str or alg not in algorithms:
        raise AlgorithmNotAllowed("alg is not on the allow-list")


def _check_kid(header: dict[str, Any]) -> None:
    """Source: RFC 7515 §4.1.4 (a case-sensitive string); its length is ours."""
    if "kid" not in header:
        return
    kid = header["kid"]
    if type(kid) is not str or len(kid) > MAX_KID_CHARACTERS:
        raise Malformed("header: kid is not a string of at most 256 characters")
