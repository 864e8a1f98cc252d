"""What the provider issues, by the judgement of joserfc: if these fail, the other modules' verdicts mean nothing."""

from __future__ import annotations

import time
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from .stranger import AUDIENCE, Stranger

ALGORITHMS = {
    "rs256": "RS256",
    "rs512": "RS512",
    "ps256": "PS256",
    "es256": "ES256",
    "es384": "ES384",
    "es512": "ES512",
    "eddsa": "EdDSA",
    "ed25519": "Ed25519",
}


def verified(stranger: Stranger, token: str, algorithm: str) -> jwt.Token:
    """Verify a token with joserfc, the published keys and one algorithm."""
    keys: Any = stranger.jwks()
    return jwt.decode(token, KeySet.import_key_set(keys), algorithms=[algorithm])


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # RFC 9864 renames it to Ed25519; issuers still send it
@pytest.mark.parametrize(("resource", "algorithm"), ALGORITHMS.items())
def test_access_token_is_an_rfc9068_jwt(stranger: Stranger, resource: str, algorithm: str) -> None:
    """Header `at+jwt`, the resource as audience, and a life of five minutes."""
    token = verified(stranger, stranger.client_credentials(resource), algorithm)
    assert token.header["typ"] == "at+jwt"
    assert token.header["alg"] == algorithm
    assert token.claims["iss"] == stranger.issuer
    assert token.claims["aud"] == AUDIENCE
    assert token.claims["sub"] == token.claims["client_id"] == "service"
    assert token.claims["scope"] == "read"
    assert 0 < token.claims["exp"] - time.time() <= 300


def test_code_flow_gives_access_id_and_refresh_tokens(stranger: Stranger) -> None:
    """The user is the subject; the ID token names the client as audience and has no `typ`."""
    tokens = stranger.sign_in("alice")
    access = verified(stranger, tokens["access_token"], "RS256")
    assert (access.claims["sub"], access.claims["client_id"]) == ("alice", "web")
    identity = verified(stranger, tokens["id_token"], "RS256")
    assert (identity.claims["sub"], identity.claims["aud"]) == ("alice", "web")
    assert "typ" not in identity.header
    assert tokens["refresh_token"].count(".") == 0


def test_discovery_names_its_issuer(stranger: Stranger) -> None:
    """The metadata holds what the middleware looks for."""
    metadata = stranger.discovery()
    assert metadata["issuer"] == stranger.issuer
    assert metadata["jwks_uri"] == f"{stranger.issuer}/jwks"
