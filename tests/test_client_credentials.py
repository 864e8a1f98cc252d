"""How our client says who it is where the issuer is asked about tokens, and that this goes nowhere else."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from introspection_kit import AUDIENCE, ISSUER, OPAQUE, Asked, door_of

from oidc_middleware import Settings
from oidc_middleware.core.signature import load_private_key
from oidc_middleware.errors import ConfigError

from abuse.door import is_503
from abuse.signing import NOW, Signer

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


def pem(key: Any, password: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption),
    )


def key_file(folder: Path, key: Any) -> Path:
    path = folder / "client.pem"
    path.write_bytes(pem(key))
    return path


async def test_client_secret_basic(signer: Signer) -> None:
    asked = Asked()
    assert (await door_of(asked, signer).ask(token=OPAQUE)).status == 200
    scheme, _, pair = asked.requests[0].headers["authorization"].partition(" ")
    assert (scheme, base64.b64decode(pair)) == ("Basic", b"orders-api:s3cret+of+the+api")
    assert asked.asked == [{"token": OPAQUE, "token_type_hint": "access_token"}]


async def test_client_secret_post(signer: Signer) -> None:
    asked = Asked()
    assert (await door_of(asked, signer, client_auth_method="client_secret_post").ask(token=OPAQUE)).status == 200
    assert "authorization" not in asked.requests[0].headers
    expected = {"client_id": "orders-api", "client_secret": "s3cret of the api"}
    assert asked.asked == [{"token": OPAQUE, "token_type_hint": "access_token"} | expected]


async def test_bearer(signer: Signer) -> None:
    """The request of RFC 7662 §2.1."""
    asked = Asked()
    settings = {"client_auth_method": "bearer", "client_secret": "23410913-abewfq.123483", "client_id": None}
    assert (await door_of(asked, signer, **settings).ask(token=OPAQUE)).status == 200
    assert asked.requests[0].headers["authorization"] == "Bearer 23410913-abewfq.123483"
    assert asked.asked == [{"token": OPAQUE, "token_type_hint": "access_token"}]


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        pytest.param(rsa.generate_private_key(65537, 2048), "RS256", id="rsa"),
        pytest.param(ec.generate_private_key(ec.SECP256R1()), "ES256", id="p-256"),
        pytest.param(ec.generate_private_key(ec.SECP384R1()), "ES384", id="p-384"),
        pytest.param(ec.generate_private_key(ec.SECP521R1()), "ES512", id="p-521"),
        pytest.param(ed25519.Ed25519PrivateKey.generate(), "EdDSA", id="ed25519"),
    ],
)
async def test_private_key_jwt(key: Any, algorithm: str, signer: Signer, tmp_path: Path) -> None:
    asked = Asked()
    settings = {
        "client_secret": None,
        "client_auth_method": "private_key_jwt",
        "client_key_file": key_file(tmp_path, key),
        "client_key_id": "k1",
    }
    door = door_of(asked, signer, **settings)
    for token in (OPAQUE, "another"):
        assert (await door.ask(token=token)).status == 200
    seen = []
    for form in asked.asked:
        assert form["client_id"] == "orders-api"
        assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        assertion = form["client_assertion"]
        assert jwt.get_unverified_header(assertion) == {"alg": algorithm, "kid": "k1", "typ": "JWT"}
        claims = json.loads(jwt.PyJWS().decode(assertion, key.public_key(), [algorithm]))
        seen.append(claims.pop("jti"))
        expected = {"iss": "orders-api", "sub": "orders-api", "aud": ISSUER, "iat": int(NOW), "exp": int(NOW) + 60}
        assert claims == expected
    assert len(set(seen)) == 2, "an assertion serves once"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no private key"),
        (pem(ec.generate_private_key(ec.SECP256R1()), b"passphrase"), "no private key without a passphrase"),
        (pem(rsa.generate_private_key(65537, 1024)), "less than 2048 bits"),
        (pem(ec.generate_private_key(ec.SECP256K1())), "curve"),
        (pem(ed448.Ed448PrivateKey.generate()), "curve"),
        (pem(dsa.generate_private_key(2048)), "no private key"),
        (
            ec.generate_private_key(ec.SECP256R1())
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
            "a public key",
        ),
    ],
)
def test_keys_refused(content: bytes, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=problem):
        load_private_key(content)
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    error = refused(client_id="a", client_auth_method="private_key_jwt", client_key_file=path)
    assert error.field == "client_key_file"
    assert problem in error.problem


def refused(**settings: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        Settings(**({"issuer": ISSUER, "audience": AUDIENCE} | settings))
    assert caught.value.cure
    return caught.value


@pytest.mark.parametrize(
    ("settings", "field", "problem"),
    [
        ({"client_secret": "x"}, "client_id", "is missing"),
        ({"introspection": "always"}, "introspection", "cannot say who it is"),
        ({"introspection": "always", "client_id": "a"}, "introspection", "cannot say who it is"),
        ({"introspection": "sometimes"}, "introspection", "not one of its values"),
        ({"introspection_audience": "ignore"}, "introspection_audience", "not one of its values"),
        ({"client_auth_method": "tls_client_auth"}, "client_auth_method", "not one of its values"),
        ({"client_id": "a", "client_secret": ""}, "client_secret", "is empty"),
        ({"client_id": "a", "client_secret": "s3cret "}, "client_secret", "white space"),
        ({"client_id": "a", "client_secret": 7}, "client_secret", "must be text"),
        ({"client_id": "a", "client_auth_method": "private_key_jwt"}, "client_key_file", "is missing"),
        ({"client_id": "a", "client_key_file": "/nowhere/at/all"}, "client_key_file", "cannot be read"),
        ({"client_id": "a", "client_key_file": 7}, "client_key_file", "must be a path"),
        ({"client_id": "a", "client_key_id": "k"}, "client_key_id", "there is none"),
        ({"client_auth_method": "bearer", "client_secret": "a b"}, "client_secret", "no bearer token"),
        (
            {"client_id": "a", "client_secret": "x", "client_auth_method": "private_key_jwt"},
            "client_secret",
            "private_key_jwt",
        ),
    ],
)
def test_settings_refused(settings: dict[str, Any], field: str, problem: str) -> None:
    error = refused(**settings)
    assert (error.field, problem in error.problem) == (field, True), str(error)
    assert "s3cret" not in str(error)


def test_a_key_that_nothing_reads_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    assert refused(client_id="a", client_key_file=path).field == "client_key_file"


def test_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    monkeypatch.setenv("OIDC_CLIENT_SECRET_FILE", str(secret))
    settings = Settings(issuer=ISSUER, audience=AUDIENCE, client_id="a")
    assert settings.client_secret is not None
    assert settings.client_secret.get_secret_value() == "s3cret"
    assert settings.trusted[0].introspects
    assert "s3cret" not in repr(settings) + str(settings) + repr(settings.trusted)
    copy = settings.model_copy(update={"client_auth_method": "client_secret_post"})
    assert copy.client_secret == settings.client_secret


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://idp.example/introspect",
        "https://169.254.169.254/introspect",
        "https://10.0.0.1/introspect",
        "https://127.0.0.1/introspect",
        "file:///etc/passwd",
        "https://user@idp.example/introspect",
    ],
)
async def test_credentials_go_nowhere_else(endpoint: str, signer: Signer) -> None:
    """J-ssrf-ip, J-scheme: the rules of keys hold for what gets our secret too."""
    asked = Asked(introspection_endpoint=endpoint)
    assert is_503(await door_of(asked, signer).ask(token=OPAQUE))
    assert asked.requests == []


async def test_another_host_is_told_once(signer: Signer, caplog: pytest.LogCaptureFixture) -> None:
    """J-ssrf-origin: the issuer may name it, and the operator hears of it."""
    asked = Asked(introspection_endpoint="https://elsewhere.example/introspect")
    door = door_of(asked, signer)
    for token in (OPAQUE, "another"):
        assert (await door.ask(token=token)).status == 200
    told = [record.getMessage() for record in caplog.records if "another host" in record.getMessage()]
    assert told == [
        f"introspection_endpoint of {ISSUER} lies on another host, as it says itself: https://elsewhere.example/introspect"
    ]


async def test_a_redirect_takes_no_credentials_along(signer: Signer) -> None:
    asked = Asked()
    asked.status = 307
    assert is_503(await door_of(asked, signer).ask(token=OPAQUE))
    assert len(asked.requests) == 1


async def test_a_form_holds_one_token_whatever_it_is(signer: Signer) -> None:
    """I-token-in-form."""
    asked = Asked()
    door = door_of(asked, signer)
    await door.oidc.providers[ISSUER].post("introspection_endpoint", [("token", "a&active=true&x=%00+é")])
    assert asked.asked == [{"token": "a&active=true&x=%00+é"}]
    assert asked.requests[0].headers["content-type"] == "application/x-www-form-urlencoded"
    assert json.loads((await door.ask(token="a+b/c~d")).body)["sub"] == "alice"
    assert asked.asked[1]["token"] == "a+b/c~d"
