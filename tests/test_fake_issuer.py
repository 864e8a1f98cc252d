"""What the fake issuer mints and publishes, judged by joserfc and Authlib, which share no code with it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from authlib.oidc.discovery import OpenIDProviderMetadata
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from httpx2 import AsyncClient
from joserfc import jwk, jws, jwt
from joserfc.errors import BadSignatureError, JoseError

from oidc_middleware.testing import FakeIssuer, ManualClock, make_key
from oidc_middleware.testing.keys import KINDS, KeyPool
from oidc_middleware.testing.tokens import half_hash

ALGORITHMS = tuple(KINDS)
NOW = 1_800_000_000.75

# joserfc would rather see the newer name Ed25519 (RFC 9864), which no issuer sends yet.
pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")

Factory = Callable[..., FakeIssuer]


def published(issuer: FakeIssuer) -> jwk.KeySet:
    return jwk.KeySet.import_key_set({"keys": issuer.keys.jwks()})


def decoded(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, payload, _ = (base64.urlsafe_b64decode(part + "==") for part in token.split("."))
    return json.loads(header), json.loads(payload)


@pytest.fixture
def still() -> ManualClock:
    return ManualClock(NOW)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_stranger_verifies_tokens_of_every_algorithm(fake_issuer_factory: Factory, algorithm: str) -> None:
    issuer = fake_issuer_factory(algorithms=("RS256", "ES256", algorithm))
    token = issuer.token(algorithm=algorithm)

    verified = jwt.decode(token, published(issuer), algorithms=[algorithm])

    assert verified.header == {"alg": algorithm, "kid": f"{algorithm.lower()}-1", "typ": "at+jwt"}
    assert verified.claims["iss"] == issuer.url


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_stranger_refuses_a_changed_token(fake_issuer_factory: Factory, algorithm: str) -> None:
    issuer = fake_issuer_factory(algorithms=(algorithm,))
    header, payload, signature = issuer.token().split(".")
    other = issuer.token("mallory").split(".")[1]

    with pytest.raises(BadSignatureError):
        jws.deserialize_compact(f"{header}.{other}.{signature}", published(issuer), algorithms=[algorithm])
    jws.deserialize_compact(f"{header}.{payload}.{signature}", published(issuer), algorithms=[algorithm])


def test_published_keys_are_public(fake_issuer_factory: Factory) -> None:
    issuer = fake_issuer_factory(algorithms=ALGORITHMS)

    assert [key["kid"] for key in issuer.keys.jwks()] == [f"{algorithm.lower()}-1" for algorithm in ALGORITHMS]
    for key in issuer.keys.jwks():
        assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & key.keys()
        assert key["use"] == "sig"


def test_an_access_token_has_the_claims_of_rfc_9068(fake_issuer_factory: Factory, still: ManualClock) -> None:
    issuer = fake_issuer_factory(clock=still)

    header, claims = decoded(issuer.token("alice", scope="orders:read orders:write"))

    jti = claims.pop("jti")
    assert len(jti) == 32
    assert header == {"alg": "RS256", "kid": "rs256-1", "typ": "at+jwt"}
    assert claims == {
        "iss": "https://issuer.example",
        "sub": "alice",
        "aud": "https://api.example",
        "client_id": "client",
        "iat": 1_800_000_000,
        "exp": 1_800_000_300,
        "scope": "orders:read orders:write",
    }


def test_every_token_has_its_own_jti(fake_issuer: FakeIssuer) -> None:
    assert len({decoded(fake_issuer.token())[1]["jti"] for _ in range(20)}) == 20


def test_any_claim_and_header_can_be_replaced_added_or_left_out(fake_issuer: FakeIssuer) -> None:
    token = fake_issuer.token(
        audience=["a", "b"],
        expires_in=-5,
        claims={"nbf": None, "roles": ["x"], "iss": 7},
        headers={"typ": "JWT", "crit": ["x"]},
        omit=("jti", "sub"),
        omit_headers=("kid",),
    )
    header, claims = decoded(token)

    assert header == {"alg": "RS256", "typ": "JWT", "crit": ["x"]}
    assert claims.keys() == {"iss", "aud", "client_id", "iat", "exp", "nbf", "roles"}
    assert (claims["aud"], claims["nbf"], claims["iss"]) == (["a", "b"], None, 7)
    assert claims["exp"] == claims["iat"] - 5


def test_a_header_says_what_it_is_told_and_the_signature_stays(fake_issuer: FakeIssuer) -> None:
    token = fake_issuer.token(headers={"alg": "none"})

    assert decoded(token)[0]["alg"] == "none"
    assert token.split(".")[2]


def test_alg_none_is_signed_with_nothing(fake_issuer: FakeIssuer) -> None:
    token = fake_issuer.token(algorithm="none")

    assert decoded(token)[0] == {"alg": "none", "kid": "rs256-1", "typ": "at+jwt"}
    assert token.endswith(".")


def test_an_rsa_key_signs_with_another_algorithm_of_its_kind(fake_issuer: FakeIssuer) -> None:
    token = fake_issuer.token(key=fake_issuer.keys.current(), algorithm="PS256")
    key = {name: value for name, value in fake_issuer.keys.jwks()[0].items() if name != "alg"}

    assert jwt.decode(token, jwk.import_key(key), algorithms=["PS256"]).header["kid"] == "rs256-1"


def test_a_secret_signs_under_the_id_of_the_real_key(fake_issuer: FakeIssuer) -> None:
    public = fake_issuer.keys.current().private.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    token = fake_issuer.token(key=pem)

    signed, _, signature = token.rpartition(".")
    expected = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
    assert decoded(token)[0] == {"alg": "HS256", "kid": "rs256-1", "typ": "at+jwt"}
    assert base64.urlsafe_b64decode(signature + "==") == expected


def test_a_stranger_key_may_have_the_id_of_a_real_one(fake_issuer: FakeIssuer) -> None:
    token = fake_issuer.token(key=make_key("RS256", kid="rs256-1"))

    assert decoded(token)[0]["kid"] == "rs256-1"
    with pytest.raises(BadSignatureError):
        jwt.decode(token, published(fake_issuer))


def test_any_bytes_can_be_signed(fake_issuer: FakeIssuer) -> None:
    header = b'{"alg":"none","alg":"RS256","kid":"rs256-1"}'

    token = fake_issuer.raw_token(header, b"\xff\x00 no JSON")

    assert jws.deserialize_compact(token, published(fake_issuer), algorithms=["RS256"]).payload == b"\xff\x00 no JSON"
    assert base64.urlsafe_b64decode(token.split(".")[0] + "==") == header


def test_a_megabyte_can_be_signed(fake_issuer: FakeIssuer) -> None:
    assert len(fake_issuer.token(claims={"padding": "x" * 1_000_000})) > 1_333_333


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(lambda issuer: issuer.token(algorithm="ES256"), id="token"),
        pytest.param(lambda issuer: issuer.id_token(algorithm="ES256", access_token="x"), id="id_token"),
        pytest.param(lambda issuer: issuer.rotate(algorithm="ES256"), id="rotate"),
    ],
)
def test_an_algorithm_without_a_key_is_a_mistake_of_the_test(
    fake_issuer: FakeIssuer, refused: Callable[[FakeIssuer], object]
) -> None:
    with pytest.raises(ValueError, match="this issuer has no ES256 key"):
        refused(fake_issuer)


def test_a_claim_beside_claims_is_a_mistake_of_the_test(fake_issuer: FakeIssuer) -> None:
    keywords: dict[str, Any] = {"email": "alice@example.com"}
    with pytest.raises(TypeError, match=r"email: unknown; claims go into claims="):
        fake_issuer.token("alice", **keywords)


def test_an_issuer_signs_only_with_keys_of_its_own() -> None:
    with pytest.raises(ValueError, match="'HS256' is not a signature algorithm of an issuer"):
        FakeIssuer(algorithms=("HS256",))


@pytest.mark.parametrize("algorithm", ["RS256", "PS384", "ES512", "EdDSA"])
def test_an_id_token_satisfies_a_stranger(fake_issuer_factory: Factory, still: ManualClock, algorithm: str) -> None:
    issuer = fake_issuer_factory(clock=still, algorithms=(algorithm,))
    access_token = issuer.token()

    token = issuer.id_token("alice", client_id="web", nonce="n-1", access_token=access_token)

    verified = jwt.decode(token, published(issuer), algorithms=[algorithm])
    registry = jwt.JWTClaimsRegistry(
        now=int(NOW),
        iss={"essential": True, "value": issuer.url},
        aud={"essential": True, "value": "web"},
        nonce={"essential": True, "value": "n-1"},
        exp={"essential": True},
        at_hash={"essential": True, "value": half_hash(access_token, algorithm)},
    )
    registry.validate(verified.claims)
    assert verified.header["kid"] == f"{algorithm.lower()}-1"
    late = jwt.JWTClaimsRegistry(now=int(NOW) + 301)
    with pytest.raises(JoseError, match="expired"):
        late.validate(verified.claims)


@pytest.mark.parametrize(
    ("algorithm", "digest"), [("RS256", "sha256"), ("PS384", "sha384"), ("ES512", "sha512"), ("EdDSA", "sha512")]
)
def test_at_hash_is_the_left_half_of_the_digest_of_the_algorithm(algorithm: str, digest: str) -> None:
    whole = hashlib.new(digest, b"token").digest()

    assert base64.urlsafe_b64decode(half_hash("token", algorithm) + "==") == whole[: len(whole) // 2]


def test_at_hash_is_that_of_the_specification() -> None:
    """OIDC Core appendix A.3."""
    assert half_hash("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y", "RS256") == "77QmUPtjPfzWtF2AnpK9RQ"


def test_a_logout_token_has_the_shape_of_back_channel_logout(fake_issuer_factory: Factory, still: ManualClock) -> None:
    issuer = fake_issuer_factory(clock=still)

    header, claims = decoded(issuer.logout_token("alice", client_id="web", sid="s-1", omit=("jti",)))

    assert header["typ"] == "logout+jwt"
    assert claims == {
        "iss": issuer.url,
        "aud": "web",
        "iat": 1_800_000_000,
        "exp": 1_800_000_120,
        "sub": "alice",
        "sid": "s-1",
        "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
    }


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("url", "well_known"),
    [
        ("https://issuer.example", "https://issuer.example/.well-known/openid-configuration"),
        ("https://issuer.example/", "https://issuer.example/.well-known/openid-configuration"),
        ("https://issuer.example/realms/a", "https://issuer.example/realms/a/.well-known/openid-configuration"),
        ("https://issuer.example", "https://issuer.example/.well-known/oauth-authorization-server"),
        ("https://issuer.example/realms/a", "https://issuer.example/.well-known/oauth-authorization-server/realms/a"),
    ],
)
async def test_a_stranger_accepts_the_metadata(fake_issuer_factory: Factory, url: str, well_known: str) -> None:
    issuer = fake_issuer_factory(url)
    async with AsyncClient(transport=issuer.transport()) as client:
        document = (await client.get(well_known)).raise_for_status().json()
        keys = (await client.get(document["jwks_uri"])).raise_for_status().json()

    OpenIDProviderMetadata(document).validate()
    assert document["issuer"] == url
    assert document["authorization_response_iss_parameter_supported"] is True
    assert keys == {"keys": issuer.keys.jwks()}


def test_an_issuer_reads_its_own_tokens_only(fake_issuer_factory: Factory, oidc_clock: ManualClock) -> None:
    one, two = fake_issuer_factory(), fake_issuer_factory("https://other.example")
    token = one.token()

    claims = one.read(token)
    assert claims is not None
    assert claims["sub"] == "alice"
    assert two.read(token) is None
    assert one.read(one.id_token()) is None
    assert one.read("garbage") is None
    assert one.read(one.raw_token(b'{"alg":"RS256"}', b"[]")) is None
    assert one.read(one.token(claims={"exp": "soon"})) is None
    oidc_clock.advance(300)
    assert one.read(token) is None
    assert one.verify(token) == claims


def test_a_pool_lends_no_key_twice_and_takes_them_back() -> None:
    pool = KeyPool()
    with pool.borrow() as one, pool.borrow() as two:
        lent = [one("P-256"), two("P-256"), one("P-384")]
        assert lent[0] is not lent[1]
    with pool.borrow() as again:
        assert {id(again("P-256")), id(again("P-256")), id(again("P-384"))} == {id(key) for key in lent}


def test_private_keys_and_secrets_are_not_printed(fake_issuer: FakeIssuer) -> None:
    assert repr(fake_issuer.keys.current()) == "SigningKey(algorithm='RS256', kid='rs256-1')"
    assert "hidden" not in repr(fake_issuer.client("web", secret="hidden"))
