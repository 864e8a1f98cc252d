"""RFC 8725, best practices for JWTs: what the checklist in `docs/standards.md` asks for and no other test shows."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from oidc_middleware.core.keys import parse_jwk, parse_jwks
from oidc_middleware.core.signature import ALGORITHMS

from abuse.signing import Signer, b64, b64_int

EVERY = frozenset(ALGORITHMS)


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


def refused(jwk: dict[str, Any]) -> str:
    with pytest.raises(ValueError, match=r".+") as caught:
        parse_jwk(jwk, EVERY)
    return str(caught.value)


def test_3_4_points_that_are_not_on_the_curve(signer: Signer) -> None:
    """§2.5, §3.4: an invalid point is no key, whatever it would verify."""
    x = signer.ec.public_key().public_numbers().x
    for y in (0, 1, 2**256 - 1):
        assert refused(signer.ec_jwk(y=b64_int(y, 32))) == "its numbers make no key"
    assert refused(signer.ec_jwk(x=b64_int(0, 32), y=b64_int(0, 32))) == "its numbers make no key"
    assert refused(signer.ec_jwk(x=b64_int(x, 33))) == "its numbers make no key"
    assert refused(signer.ec_jwk(crv="P-384")) == "its type and alg allow no algorithm of the allow-list"
    assert refused(signer.okp_jwk() | {"x": b64(b"\x01" * 31)}) == "its numbers make no key"


@pytest.mark.parametrize("bits", [1024, 2047])
def test_3_5_rsa_keys_are_large_enough(bits: int, signer: Signer) -> None:
    numbers = rsa.generate_private_key(65537, max(bits, 1024)).public_key().public_numbers()
    jwk = signer.rsa_jwk(n=b64_int(numbers.n), e=b64_int(numbers.e))
    assert refused(jwk) == "an RSA key must have 2048 to 8192 bits"


def test_3_5_no_shared_secret_is_a_key() -> None:
    """§2.2: whoever can check it could write it, and passwords make poor keys."""
    assert refused({"kty": "oct", "k": b64(b"k" * 64), "alg": "HS256"}) == (
        "its type and alg allow no algorithm of the allow-list"
    )
    assert len(parse_jwks(b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', EVERY)) == 0


def test_3_1_a_key_serves_one_algorithm_where_its_issuer_says_which(signer: Signer) -> None:
    assert parse_jwk(signer.rsa_jwk(), EVERY).algorithms == {"RS256"}
    assert parse_jwk(signer.ec_jwk(), EVERY).algorithms == {"ES256"}
    assert refused(signer.rsa_jwk(alg="ES256")) == "its type and alg allow no algorithm of the allow-list"


def test_3_2_what_can_be_allowed() -> None:
    """Asymmetric ones only, none with RSA's old padding for encryption, and no `none`."""
    assert {name[:2] for name in EVERY} == {"RS", "PS", "ES", "Ed"}
