"""The examples that the standards print, to the letter, with what becomes of each."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

import httpx2
import pytest
from introspection_kit import Asked

from oidc_middleware.core import introspection
from oidc_middleware.core.metadata import Metadata, parse_metadata, well_known_urls
from oidc_middleware.core.opaque import is_opaque
from oidc_middleware.core.verify import Expected
from oidc_middleware.errors import ClaimError
from oidc_middleware.testing import ManualClock

from abuse.door import Door
from abuse.signing import Signer, b64

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


# RFC 7662

SERVER = "https://server.example.com/"
PROTECTED = "https://protected.example.net/resource"
ISSUED, EXPIRES = 1419350238, 1419356238
INTROSPECTED = """{
      "active": true,
      "client_id": "l238j323ds-23ij4",
      "username": "jdoe",
      "scope": "read write dolphin",
      "sub": "Z5O3upPC88QrAjx00dis",
      "aud": "https://protected.example.net/resource",
      "iss": "https://server.example.com/",
      "exp": 1419356238,
      "iat": 1419350238,
      "extension_field": "twenty-seven"
     }"""
REQUESTS = [
    pytest.param(
        {"client_auth_method": "bearer", "client_secret": "23410913-abewfq.123483"},
        "Bearer 23410913-abewfq.123483",
        "2YotnFZFEjr1zCsicMWpAA",
        id="bearer",
    ),
    pytest.param(
        {"client_id": "s6BhdRkqt3", "client_secret": "gX1fBat3bV"},
        "Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW",
        "mF_9.B5f-4.1JqM",
        id="basic",
    ),
]


def door_of_7662(answer: str, now: float, **settings: Any) -> tuple[Asked, Door]:
    asked = Asked(
        answer.encode(),
        issuer=SERVER,
        jwks_uri=f"{SERVER}jwks",
        introspection_endpoint=f"{SERVER}introspect",
    )
    trust = {"issuer": SERVER, "audience": PROTECTED, "token_type": "auto", "max_token_life": 86_400}
    return asked, Door(b"", transport=asked, clock=ManualClock(now), **(trust | settings))


@pytest.mark.parametrize(("settings", "authorization", "token"), REQUESTS)
async def test_rfc_7662_2_1_requests(settings: dict[str, Any], authorization: str, token: str) -> None:
    asked, door = door_of_7662(INTROSPECTED, ISSUED + 1, **settings)
    assert (await door.ask(token=token)).status == 200
    (request,) = asked.requests
    assert (request.method, str(request.url)) == ("POST", "https://server.example.com/introspect")
    assert request.headers["host"] == "server.example.com"
    assert request.headers["accept"].split(", ")[0] == "application/json"
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert request.headers["authorization"] == authorization
    assert parse_qsl(request.content.decode()) == [("token", token), ("token_type_hint", "access_token")]


async def test_rfc_7662_2_2_active() -> None:
    _, door = door_of_7662(INTROSPECTED, ISSUED + 1, client_id="s6BhdRkqt3", client_secret="gX1fBat3bV")
    answer = await door.ask(token="mF_9.B5f-4.1JqM")
    assert answer.status == 200
    assert answer.seen is not None
    user = answer.seen["user"]
    expected = json.loads(INTROSPECTED)
    del expected["active"]
    assert user.claims == expected
    assert (user.issuer, user.subject, user.client_id) == (SERVER, "Z5O3upPC88QrAjx00dis", "l238j323ds-23ij4")
    assert (user.scopes, user.expires_at) == ({"read", "write", "dolphin"}, EXPIRES)


@pytest.mark.parametrize(("now", "status"), [(ISSUED, 200), (EXPIRES - 1, 200), (EXPIRES, 401), (ISSUED - 1, 401)])
async def test_rfc_7662_2_2_in_time(now: float, status: int) -> None:
    _, door = door_of_7662(INTROSPECTED, now, client_id="s6BhdRkqt3", client_secret="gX1fBat3bV")
    assert (await door.ask(token="mF_9.B5f-4.1JqM")).status == status


async def test_rfc_7662_2_2_inactive() -> None:
    answer = '{\n      "active": false\n     }'
    assert introspection.read(answer.encode(), SERVER) == b""
    _, door = door_of_7662(answer, ISSUED + 1, client_id="s6BhdRkqt3", client_secret="gX1fBat3bV")
    refused = await door.ask(token="mF_9.B5f-4.1JqM")
    assert (refused.status, refused.seen) == (401, None)
    assert refused.challenge == 'Bearer error="invalid_token", error_description="The access token is invalid."'


@pytest.mark.parametrize("token", ["2YotnFZFEjr1zCsicMWpAA", "mF_9.B5f-4.1JqM"])
def test_rfc_7662_tokens_are_opaque(token: str) -> None:
    assert is_opaque(token.encode())


# RFC 6750


@pytest.mark.parametrize(
    ("request_", "status", "challenge"),
    [
        pytest.param({"headers": [(b"authorization", b"Bearer mF_9.B5f-4.1JqM")]}, 200, None, id="2.1"),
        pytest.param(
            {
                "method": "POST",
                "headers": [(b"content-type", b"application/x-www-form-urlencoded")],
                "body": b"access_token=mF_9.B5f-4.1JqM",
            },
            401,
            'Bearer realm="example"',
            id="2.2",
        ),
        pytest.param({"query": b"access_token=mF_9.B5f-4.1JqM"}, 401, 'Bearer realm="example"', id="2.3"),
        pytest.param({}, 401, 'Bearer realm="example"', id="3"),
    ],
)
async def test_rfc_6750_examples(request_: dict[str, Any], status: int, challenge: str | None) -> None:
    """A token in the header is one; in a body or a query it is nothing (§2.2, §2.3: not to be used)."""
    client = {"client_id": "s6BhdRkqt3", "client_secret": "gX1fBat3bV"}
    _, door = door_of_7662(INTROSPECTED, ISSUED + 1, realm="example", **client)
    answer = await door.ask("/resource", **request_)
    assert (answer.status, answer.challenge) == (status, challenge)


# RFC 9068 §2.2, figures 2 and 3

AS, RS = "https://authorization-server.example.com/", "https://rs.example.com/"
HEADER = b'{"typ":"at+JWT","alg":"RS256","kid":"RjEwOwOA"}'
CLAIMS = b"""{
       "iss": "https://authorization-server.example.com/",
       "sub": "5ba552d67",
       "aud":   "https://rs.example.com/",
       "exp": 1639528912,
       "iat": 1618354090,
       "jti" : "dbe39bf3a3ba4238a513f51d6e1691c4",
       "client_id": "s6BhdRkqt3",
       "scope": "openid profile reademail"
     }"""


def door_of_9068(signer: Signer, now: float, **settings: Any) -> Door:
    def handle(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.startswith("/.well-known/"):
            return httpx2.Response(200, json={"issuer": AS, "jwks_uri": f"{AS}jwks"})
        return httpx2.Response(200, json={"keys": [signer.rsa_jwk(kid="RjEwOwOA")]})

    trust = {"issuer": AS, "audience": RS, "max_token_life": 365 * 86_400}
    return Door(b"", transport=httpx2.MockTransport(handle), clock=ManualClock(now), **(trust | settings))


@pytest.mark.parametrize("token_type", ["at+jwt", "auto"])
async def test_rfc_9068_2_2_example(token_type: str, signer: Signer) -> None:
    token = signer.token(header=HEADER, claims=CLAIMS)
    assert token.split(".")[:2] == [b64(HEADER), b64(CLAIMS)]
    answer = await door_of_9068(signer, 1618354090, token_type=token_type).ask(token=token)
    assert answer.status == 200
    assert answer.seen is not None
    user = answer.seen["user"]
    assert user.claims == json.loads(CLAIMS)
    assert (user.issuer, user.subject, user.client_id) == (AS, "5ba552d67", "s6BhdRkqt3")
    assert (user.jti, user.expires_at) == ("dbe39bf3a3ba4238a513f51d6e1691c4", 1639528912)
    assert user.scopes == {"openid", "profile", "reademail"}


@pytest.mark.parametrize(
    ("now", "claim"),
    [(1618354089, "iat not_yet"), (1639528911, None), (1639528912, "exp expired"), (1795423765, "exp expired")],
)
async def test_rfc_9068_2_2_example_in_time(now: float, claim: str | None, signer: Signer) -> None:
    door = door_of_9068(signer, now)
    value = b"Bearer " + signer.token(header=HEADER, claims=CLAIMS).encode()
    if claim is None:
        assert (await door.oidc.authenticator.authenticate(value)).principal.subject == "5ba552d67"
        return
    with pytest.raises(ClaimError) as caught:
        await door.oidc.authenticator.authenticate(value)
    assert f"{caught.value.claim} {caught.value.reason}" == claim


async def test_rfc_9068_2_2_example_lives_longer_than_we_let_it(signer: Signer) -> None:
    """245 days: `max_token_life` of 30 days, where nobody says otherwise, ends it earlier."""
    token = signer.token(header=HEADER, claims=CLAIMS)
    last = 1618354090 + 30 * 86_400
    for now, status in ((last - 1, 200), (last, 401)):
        assert (await door_of_9068(signer, now, max_token_life=30 * 86_400).ask(token=token)).status == status


# RFC 8414

METADATA = b"""{
      "issuer":
        "https://server.example.com",
      "authorization_endpoint":
        "https://server.example.com/authorize",
      "token_endpoint":
        "https://server.example.com/token",
      "token_endpoint_auth_methods_supported":
        ["client_secret_basic", "private_key_jwt"],
      "token_endpoint_auth_signing_alg_values_supported":
        ["RS256", "ES256"],
      "userinfo_endpoint":
        "https://server.example.com/userinfo",
      "jwks_uri":
        "https://server.example.com/jwks.json",
      "registration_endpoint":
        "https://server.example.com/register",
      "scopes_supported":
        ["openid", "profile", "email", "address",
         "phone", "offline_access"],
      "response_types_supported":
        ["code", "code token"],
      "service_documentation":
        "http://server.example.com/service_documentation.html",
      "ui_locales_supported":
        ["en-US", "en-GB", "en-CA", "fr-FR", "fr-CA"]
     }"""


def test_rfc_8414_3_1_where_the_metadata_lie() -> None:
    """`/.well-known/oauth-authorization-server` for `https://example.com`, and inserted before the path `issuer1`."""
    assert well_known_urls("https://example.com") == (
        "https://example.com/.well-known/openid-configuration",
        "https://example.com/.well-known/oauth-authorization-server",
    )
    assert well_known_urls("https://example.com/issuer1") == (
        "https://example.com/issuer1/.well-known/openid-configuration",
        "https://example.com/.well-known/oauth-authorization-server/issuer1",
        "https://example.com/.well-known/openid-configuration/issuer1",
    )


def test_rfc_8414_3_2_example() -> None:
    assert parse_metadata(METADATA, "https://server.example.com") == Metadata(
        issuer="https://server.example.com",
        jwks_uri="https://server.example.com/jwks.json",
        authorization_endpoint="https://server.example.com/authorize",
        token_endpoint="https://server.example.com/token",
        userinfo_endpoint="https://server.example.com/userinfo",
    )


@pytest.mark.parametrize("issuer", ["https://server.example.com/", "https://example.com", "http://server.example.com"])
def test_rfc_8414_3_3_another_issuer(issuer: str) -> None:
    with pytest.raises(ValueError, match="its issuer is not the configured one"):
        parse_metadata(METADATA, issuer)


@pytest.mark.parametrize(
    "place",
    ["/.well-known/oauth-authorization-server/issuer1", "/.well-known/openid-configuration/issuer1"],
)
async def test_rfc_8414_an_issuer_that_has_its_metadata_there_only(place: str, signer: Signer) -> None:
    """Tokens are verified and introspected all the same; places that have nothing are asked in order."""
    issuer = "https://example.com/issuer1"
    asked: list[str] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.path)
        if request.url.path == place:
            names = {"jwks_uri": f"{issuer}/jwks", "introspection_endpoint": f"{issuer}/introspect"}
            return httpx2.Response(200, json={"issuer": issuer} | names)
        if request.url.path == "/issuer1/jwks":
            return httpx2.Response(200, content=signer.jwks(), headers={"Content-Type": "application/json"})
        if request.url.path == "/issuer1/introspect":
            return httpx2.Response(200, json={"active": False})
        return httpx2.Response(404)

    client = {"client_id": "api", "client_secret": "secret"}
    door = Door(b"", transport=httpx2.MockTransport(handle), issuer=issuer, **client)  # type: ignore[arg-type]
    assert (await door.ask(token=signer.token(claims={"iss": issuer}))).status == 200
    assert (await door.ask(token="an-opaque-token")).status == 401
    places = [url.removeprefix("https://example.com") for url in well_known_urls(issuer)]
    assert asked == [*places[: places.index(place) + 1], "/issuer1/jwks", "/issuer1/introspect"]


def test_the_example_of_rfc_7662_is_checked_in_full() -> None:
    """What `check` returns is all that was said, and the deadline has the leeway in it."""
    expected = Expected(
        issuer=SERVER,
        audiences=frozenset({PROTECTED}),
        audience_claim="aud",
        algorithms=frozenset(),
        token_type="auto",
        client_ids=frozenset(),
        leeway=30,
        max_token_life=86_400,
    )
    payload = introspection.read(INTROSPECTED.encode(), SERVER)
    _, deadline = introspection.check(payload, expected, ISSUED + 62, needs_audience=True)
    assert deadline == EXPIRES + 30
