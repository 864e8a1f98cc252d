"""Verification is total, sees every changed byte, and never accepts later what it refused as expired."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_verify import ALGORITHMS, EXPECTED

from oidc_middleware.core import strict_json, verify
from oidc_middleware.core.keys import KeySet, parse_jwks
from oidc_middleware.errors import TokenError

from abuse.signing import NOW, Signer, b64, good_claims

SIGNER = Signer()
KEYS = parse_jwks(SIGNER.jwks(), ALGORITHMS)
TOKENS = tuple(SIGNER.token(alg=alg).encode() for alg in ("RS256", "ES256", "EdDSA"))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "sid", "scope", "scp", "typ", "azp", "nonce"])


def accepts(token: bytes, keys: KeySet = KEYS, now: float = NOW) -> bool:
    """Verify; every error but `TokenError` passes through and fails the test."""
    try:
        read = verify.read(token)
        verify.issuer_of(read)
        deadline = verify.check(read, EXPECTED, now)
        verify.check_signature(read, keys.find(read.jws.kid, read.jws.algorithm))
    except TokenError:
        return False
    assert now < deadline
    return True


@given(st.binary(max_size=400))
def test_any_bytes_give_claims_or_a_token_error(token: bytes) -> None:
    assert not accepts(token)


@given(st.binary(max_size=60), st.binary(max_size=200), st.binary(max_size=80))
def test_any_three_parts_give_claims_or_a_token_error(header: bytes, payload: bytes, signature: bytes) -> None:
    assert not accepts(f"{b64(header)}.{b64(payload)}.{b64(signature)}".encode())


@given(
    st.dictionaries(names, json_values, max_size=5),
    st.dictionaries(st.sampled_from(["typ", "kid", "crit"]), json_values),
)
def test_any_signed_claims_give_claims_or_a_token_error(claims: dict[str, Any], header: dict[str, Any]) -> None:
    payload = json.dumps(good_claims(**claims)).encode()
    accepts(SIGNER.token(alg="EdDSA", claims=payload, header=header).encode())


@given(st.sampled_from(TOKENS), st.data())
def test_no_changed_byte_verifies(token: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(token) - 1))
    octet = data.draw(st.integers(0, 255).filter(lambda octet: octet != token[place]))
    assert not accepts(token[:place] + bytes([octet]) + token[place + 1 :])


@pytest.mark.parametrize("token", TOKENS, ids=("RS256", "ES256", "EdDSA"))
def test_no_changed_bit_of_any_byte_verifies(token: bytes) -> None:
    accepted = [
        (place, bit)
        for place in range(len(token))
        for bit in range(8)
        if accepts(token[:place] + bytes([token[place] ^ (1 << bit)]) + token[place + 1 :])
    ]
    assert accepts(token)
    assert accepted == []


@given(
    st.integers(0, 2**34),
    st.none() | st.integers(0, 2**34),
    st.floats(0, 2**34, allow_nan=False),
    st.floats(0, 2**34, allow_nan=False),
)
def test_expiry_is_monotone_in_time(expires: int, issued: int | None, earlier: float, later: float) -> None:
    """Once over, over for good: what is refused as expired at one time is refused at every later one."""
    earlier, later = sorted((earlier, later))
    claims = good_claims(exp=expires) | ({"iat": issued} if issued is not None else {})
    if issued is None:
        del claims["iat"]
    read = verify.read(SIGNER.token(alg="EdDSA", claims=json.dumps(claims).encode()).encode())
    try:
        deadline = verify.check(read, EXPECTED, earlier)
    except TokenError as error:
        if "expired" in str(error):
            with pytest.raises(TokenError):
                verify.check(read, EXPECTED, later)
        return
    assert earlier < deadline <= expires + EXPECTED.leeway
    if later >= deadline:
        with pytest.raises(TokenError):
            verify.check(read, EXPECTED, later)


@given(json_values)
def test_strict_json_reads_what_json_writes(value: Any) -> None:
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:
        return
    try:
        assert strict_json.loads(text.encode()) == value
    except strict_json.StrictJSONError as error:
        # Lone surrogates and numbers without a double are JSON's grammar, but have no one meaning (RFC 8259 §8.2, §6).
        assert "\\ud" in text or "out of range" in str(error)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_strict_json_is_total(data: bytes) -> None:
    try:
        strict_json.loads(data)
    except strict_json.StrictJSONError as error:
        assert str(error)


@given(
    st.dictionaries(
        st.sampled_from(["kty", "kid", "alg", "use", "key_ops", "n", "e", "crv", "x", "y", "d"]), json_values
    )
)
def test_any_jwk_beside_good_ones_harms_nobody(jwk: dict[str, Any]) -> None:
    document = json.loads(SIGNER.jwks())
    document["keys"].insert(0, SIGNER.rsa_jwk(kid="odd") | jwk)
    try:
        keys = parse_jwks(json.dumps(document).encode(), ALGORITHMS)
    except strict_json.StrictJSONError:
        return
    assert accepts(TOKENS[1], keys)
    assert accepts(TOKENS[2], keys)
