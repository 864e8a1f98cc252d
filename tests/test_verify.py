from __future__ import annotations

import json

import pytest

from oidc_middleware.core import verify
from oidc_middleware.core.keys import parse_jwks
from oidc_middleware.core.verify import Expected
from oidc_middleware.errors import ClaimError, TokenError

from abuse.signing import AUDIENCE, ISSUER, NOW, Signer
from abuse.token_cases import CASES, Case

ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
EXPECTED = Expected(
    issuer=ISSUER,
    audiences=frozenset({AUDIENCE}),
    audience_claim="aud",
    algorithms=ALGORITHMS,
    token_type="at+jwt",
    client_ids=frozenset(),
    leeway=0,
    max_token_life=30 * 86400,
)


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


def verdict(token: bytes, jwks: bytes, expected: Expected = EXPECTED, now: float = NOW) -> str | None:
    """None when the token is accepted, else the error: its class, and for a claim its name and reason."""
    try:
        read = verify.read(token)
        verify.issuer_of(read)
        verify.check(read, expected, now)
        keys = parse_jwks(jwks, expected.algorithms)
        verify.check_signature(read, keys.find(read.jws.kid, read.jws.algorithm))
    except ClaimError as error:
        return f"ClaimError {error.claim} {error.reason}"
    except TokenError as error:
        return type(error).__name__
    return None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_each_abuse_case_has_its_exact_outcome(case: Case, signer: Signer) -> None:
    jwks = signer.jwks() if case.jwks is None else json.dumps({"keys": case.jwks(signer)}).encode()
    assert verdict(case.token(signer).encode(), jwks) == case.expected
