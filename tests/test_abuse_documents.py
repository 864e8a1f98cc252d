"""The `keys/fetch` abuse cases about what issuers publish: metadata and key sets, as whole requests meet them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from provider_kit import HOUR, until

from oidc_middleware.testing import FakeIssuer

from abuse.door import Door, fetches, is_503, issuer_transport
from abuse.signing import AUDIENCE, ISSUER, Signer

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture
def issuer(fake_issuer_factory: Callable[..., FakeIssuer]) -> FakeIssuer:
    return fake_issuer_factory("https://issuer.example", algorithms=("ES256",))


BAD_METADATA: dict[str, Any] = {
    "J-issuer-mismatch-slash": {"issuer": "https://issuer.example/"},
    "J-issuer-mismatch-case": {"issuer": "https://ISSUER.example"},
    "J-issuer-mismatch-port": {"issuer": "https://issuer.example:443"},
    "J-issuer-mismatch-scheme": {"issuer": "http://issuer.example"},
    "J-issuer-mismatch-path": {"issuer": "https://issuer.example/tenant"},
    "J-issuer-mismatch-unicode": {"issuer": "https://issuer\u3002example"},
    "J-issuer-mismatch-missing": {"issuer": None},
    "J-issuer-mismatch-list": {"issuer": ["https://issuer.example"]},
    "J-scheme-http": {"jwks_uri": "http://keys.example/jwks"},
    "J-scheme-file": {"jwks_uri": "file:///etc/passwd"},
    "J-scheme-ftp": {"jwks_uri": "ftp://issuer.example/jwks"},
    "J-scheme-data": {"jwks_uri": 'data:application/json,{"keys":[]}'},
    "J-scheme-jar": {"jwks_uri": "jar:https://issuer.example/jwks!/x"},
    "J-ssrf-ip-metadata": {"jwks_uri": "https://169.254.169.254/jwks"},
    "J-ssrf-ip-mapped": {"jwks_uri": "https://[::ffff:169.254.169.254]/jwks"},
    "J-ssrf-ip-hex": {"jwks_uri": "https://0x7f.1/jwks"},
    "J-ssrf-ip-number": {"jwks_uri": "https://2130706433/jwks"},
    "J-ssrf-ip-short": {"jwks_uri": "https://127.1/jwks"},
    "J-ssrf-ip-dot": {"jwks_uri": "https://localhost./jwks"},
    "J-ssrf-ip-private": {"jwks_uri": "https://[fd00::1]/jwks"},
    "J-ssrf-ip-nat": {"jwks_uri": "https://100.64.0.1/jwks"},
    "J-ssrf-ip-name": {"jwks_uri": "https://metadata.google.internal/jwks"},
    "jwks-uri-missing": {"jwks_uri": None},
    "jwks-uri-list": {"jwks_uri": ["https://issuer.example/jwks"]},
    "jwks-uri-userinfo": {"jwks_uri": "https://issuer.example@evil.example/jwks"},
}


@pytest.mark.parametrize("changes", BAD_METADATA.values(), ids=BAD_METADATA)
async def test_metadata_that_cannot_be_believed_let_nobody_in(changes: dict[str, Any], issuer: FakeIssuer) -> None:
    issuer.metadata_overrides |= changes
    door = Door.of(issuer)
    assert is_503(await door.ask(token=issuer.token()))
    assert fetches(issuer) == (1, 0)


@pytest.mark.parametrize("changes", BAD_METADATA.values(), ids=BAD_METADATA)
async def test_bad_metadata_replace_no_good_ones(changes: dict[str, Any], issuer: FakeIssuer) -> None:
    """J-disco-swap: a document is validated whole before it takes another's place."""
    door = Door.of(issuer)
    assert (await door.ask(token=issuer.token())).status == 200
    issuer.metadata_overrides |= changes
    for _ in range(5):
        door.clock.advance(4 * HOUR)
        assert (await door.ask(token=issuer.token())).status == 200


async def test_keys_that_moved_are_found(issuer: FakeIssuer, caplog: pytest.LogCaptureFixture) -> None:
    """J-disco-swap: a good new `jwks_uri` is followed, and the log says so."""
    door = Door.of(issuer)
    assert (await door.ask(token=issuer.token())).status == 200
    issuer.metadata_overrides["jwks_uri"] = issuer.endpoint("jwks") + "?v=2"
    door.clock.advance(12 * HOUR)
    assert (await door.ask(token=issuer.token())).status == 200
    await until(lambda: "metadata of https://issuer.example changed" in caplog.text)


async def test_only_a_bare_get_goes_to_another_domain(signer: Signer, caplog: pytest.LogCaptureFixture) -> None:
    """J-ssrf-origin: such keys are used, as Google's are, and warned about; nothing of ours goes there."""
    asked: list[httpx2.Request] = []
    inner = issuer_transport(signer.jwks(), jwks_uri="https://keys.example/certs")

    class Watched(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            asked.append(request)
            return await inner.handle_async_request(request)

    door = Door(b"", transport=Watched(), client_id="our-client")
    answer = await door.ask(token=signer.token(), headers=[(b"cookie", b"session=1"), (b"user-agent", b"browser")])
    assert answer.status == 200
    assert [str(request.url) for request in asked] == [
        f"{ISSUER}/.well-known/openid-configuration",
        "https://keys.example/certs",
    ]
    for request in asked:
        assert request.method == "GET"
        assert request.headers["user-agent"] == "oidc-middleware"
        assert not {"authorization", "cookie", "referer"} & set(request.headers)
        assert "our-client" not in str(request.headers)
    assert "lie on another host" in caplog.text


async def test_a_bad_key_beside_a_good_one(signer: Signer) -> None:
    """J-badkey-mixed."""
    bad = signer.rsa_jwk(n="AA", kid="r2"), signer.ec_jwk(kid="e2", x="AA"), {"kty": "OKP", "crv": "Ed25519", "x": "AA"}
    door = Door(json.dumps({"keys": [*bad, signer.rsa_jwk(), signer.ec_jwk()]}).encode())
    assert (await door.ask(token=signer.token())).status == 200
    assert (await door.ask(token=signer.token(alg="ES256"))).status == 200
    assert (await door.ask(token=signer.token(header={"kid": "r2"}))).status == 401


async def test_a_shared_secret_in_the_key_set_signs_nothing(signer: Signer) -> None:
    """J-oct."""
    secret = {"kty": "oct", "kid": "h1", "k": "c2VjcmV0", "alg": "HS256", "use": "sig"}
    door = Door(json.dumps({"keys": [secret, signer.rsa_jwk()]}).encode())
    token = signer.token(alg="HS256", key=b"secret", header={"kid": "h1"})
    assert (await door.ask(token=token)).status == 401
    disguised = signer.token(alg="HS256", key=b"secret", header={"kid": "h1", "alg": "RS256"})
    assert (await door.ask(token=disguised)).status == 401
    assert (await door.ask(token=signer.token())).status == 200


@pytest.mark.parametrize("x5c", [["MIIB"], [], "MIIB", None, [1], ["MIIB"] * 1_000], ids=range(6))
async def test_a_certificate_beside_a_key_is_not_read(x5c: Any, signer: Signer) -> None:
    """J-x5c-mismatch: `n` and `e` are the key; a certificate that says otherwise is ignored."""
    entry = signer.rsa_jwk() | {"x5c": x5c, "x5t": "AA", "x5u": "https://evil.example/cert"}
    door = Door(json.dumps({"keys": [entry]}).encode())
    assert (await door.ask(token=signer.token())).status == 200
    assert (await door.ask(token=signer.token(key=signer.evil))).status == 401


async def test_a_key_set_of_more_than_a_hundred_keys(signer: Signer, caplog: pytest.LogCaptureFixture) -> None:
    """The first hundred are read; without a `kid`, a token that any of them may have signed says too little."""
    caplog.set_level(logging.INFO)
    others = [signer.ec_jwk(kid=f"e{number}") for number in range(2, 101)]
    first = Door(json.dumps({"keys": [signer.rsa_jwk(), *others, signer.ec_jwk()]}).encode())
    assert (await first.ask(token=signer.token())).status == 200
    assert (await first.ask(token=signer.token(omit_header=("kid",)))).status == 200
    assert (await first.ask(token=signer.token(alg="ES256", header={"kid": "e50"}))).status == 200
    assert (await first.ask(token=signer.token(alg="ES256"))).status == 401
    assert (await first.ask(token=signer.token(alg="ES256", omit_header=("kid",)))).status == 401
    assert "1 keys beyond the first 100" in caplog.text


async def test_configured_keys_need_no_discovery(signer: Signer) -> None:
    door = Door(signer.jwks(), jwks_uri=f"{ISSUER}/jwks", audience=AUDIENCE)
    assert (await door.ask(token=signer.token())).status == 200
