"""The `http/authorization` abuse cases at the door, before a token is known and after."""

from __future__ import annotations

import logging
from itertools import permutations
from typing import Any

import pytest

from oidc_middleware.core.identity_headers import IDENTITY_HEADERS

from abuse.door import Door, Headers
from abuse.signing import Signer

pytestmark = pytest.mark.anyio

NO_CREDENTIALS = (401, 'Bearer realm="oidc"')
BAD_TOKEN = (401, 'Bearer error="invalid_token", error_description="The access token is invalid."')
BAD_REQUEST = (400, 'Bearer error="invalid_request", error_description="The request is malformed."')
LET_IN = (200, None)


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture
def door(signer: Signer) -> Door:
    return Door(signer.jwks(), public=["/health"], optional=["/hello"])


@pytest.fixture
def token(signer: Signer) -> bytes:
    return signer.token().encode()


async def verdict(door: Door, *values: bytes, **request: Any) -> tuple[int, str | None]:
    """Ask with these `Authorization` headers; whoever is refused must not have reached the app."""
    answer = await door.ask(headers=[(b"authorization", value) for value in values], **request)
    assert (answer.seen is not None) == (answer.status == 200)
    return answer.status, answer.challenge


# The value of the header; `<T>` stands for a good token.
VALUES = {
    "H-basic": (b"Basic dXNlcjpwdw==", NO_CREDENTIALS),
    "H-basic-token": (b"Basic <T>", NO_CREDENTIALS),
    "H-comma": (b"Bearer <T>, Bearer evil", BAD_REQUEST),
    "H-comma-alone": (b"Bearer <T>,", BAD_REQUEST),
    "H-comma-before": (b"Bearer evil, Bearer <T>", BAD_REQUEST),
    "H-comma-other-scheme": (b"Bearer <T>, Basic dXNlcjpwdw==", BAD_REQUEST),
    "H-case-lower": (b"bearer <T>", LET_IN),
    "H-case-upper": (b"BEARER <T>", LET_IN),
    "H-case-mixed": (b"bEaReR <T>", LET_IN),
    "H-twospaces": (b"Bearer  <T>", BAD_REQUEST),
    "H-twospaces-lower": (b"bearer  <T>", BAD_REQUEST),
    "H-space-before": (b" Bearer <T>", BAD_REQUEST),
    "H-space-after": (b"Bearer <T> ", BAD_REQUEST),
    "H-tab": (b"Bearer\t<T>", BAD_REQUEST),
    "H-tab-after-space": (b"Bearer \t<T>", BAD_REQUEST),
    "H-tab-after": (b"Bearer <T>\t", BAD_REQUEST),
    "H-quoted": (b'Bearer "<T>"', BAD_REQUEST),
    "H-named": (b"Bearer token=<T>", BAD_REQUEST),
    "H-dpop-scheme": (b"DPoP <T>", NO_CREDENTIALS),
    "H-other-scheme": (b"Token <T>", NO_CREDENTIALS),
    "H-longer-scheme": (b"Bearerx <T>", NO_CREDENTIALS),
    "H-colon": (b"Bearer: <T>", BAD_REQUEST),
    "H-no-space": (b"Bearer<T>", NO_CREDENTIALS),
    "H-no-scheme": (b"<T>", NO_CREDENTIALS),
    "H-empty": (b"", BAD_REQUEST),
    "H-scheme-alone": (b"Bearer", BAD_REQUEST),
    "H-scheme-and-space": (b"Bearer ", BAD_REQUEST),
    "H-padding-alone": (b"Bearer ==", BAD_REQUEST),
    "H-unicode-scheme": ("B\u0435arer <T>".encode(), BAD_REQUEST),
    "H-unicode-space": ("Bearer\u00a0<T>".encode(), BAD_REQUEST),
    "H-unicode-space-after": ("Bearer <T>\u00a0".encode(), BAD_TOKEN),
    "H-nul": (b"Bearer <T>\0", BAD_TOKEN),
    "H-crlf": (b"Bearer <T>\r\n", BAD_TOKEN),
    "H-crlf-header": (b"Bearer <T>\r\nX-Injected:1", BAD_TOKEN),
    "H-percent": (b"Bearer %54", BAD_TOKEN),
    "H-megabyte": (b"Bearer " + b"A" * 1_000_000, BAD_TOKEN),
    "H-megabyte-scheme": (b"A" * 1_000_000 + b" <T>", NO_CREDENTIALS),
    "H-megabyte-spaces": (b"Bearer" + b" " * 1_000_000 + b"<T>", BAD_TOKEN),
}


@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
@pytest.mark.parametrize(("value", "expected"), VALUES.values(), ids=VALUES)
async def test_one_header(
    value: bytes, expected: tuple[int, str | None], known: bool, door: Door, token: bytes
) -> None:
    if known:
        assert await verdict(door, b"Bearer " + token) == LET_IN
    assert await verdict(door, value.replace(b"<T>", token)) == expected


@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
async def test_no_octet_goes_unnoticed(known: bool, door: Door, token: bytes) -> None:
    """A good header with any one octet put into it is another header, before and after its token is known."""
    if known:
        assert await verdict(door, b"Bearer " + token) == LET_IN
    good = b"Bearer " + token
    for octet in range(256):
        for at in (0, 6, 7, 8, len(good) // 2, len(good) - 1, len(good)):
            status, _ = await verdict(door, good[:at] + bytes([octet]) + good[at:])
            assert (octet, at, status) == (octet, at, 400) or status == 401


@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
async def test_two_headers_are_never_one(known: bool, door: Door, token: bytes) -> None:
    """H-dup-same, and every other pair: good and bad, of two schemes, empty, with another header between them."""
    good = b"Bearer " + token
    if known:
        assert await verdict(door, good) == LET_IN
    others = (good, b"bearer " + token, b"Bearer evil", b"Basic dXNlcjpwdw==", b"", b"Bearer")
    for pair in ((good, good), *permutations(others, 2)):
        for path in ("/orders", "/hello"):
            assert await verdict(door, *pair, path=path) == BAD_REQUEST
    for between in ((b"accept", b"*/*"), (b"x-forwarded-user", b"admin")):
        headers = [(b"authorization", good), between, (b"authorization", good)]
        assert (await door.ask(headers=headers)).status == 400
    many = [(b"authorization", good)] * 5_000
    assert (await door.ask(headers=many)).status == 400


async def test_where_identity_is_not_asked_for_nothing_is_read(door: Door, token: bytes) -> None:
    """A public path ignores credentials, as many and as bad as they are."""
    for values in ((b"Bearer evil",), (b"Bearer " + token, b"Bearer evil"), (b"\xff\0",)):
        headers = [(b"authorization", value) for value in values]
        answer = await door.ask("/health", headers=headers, query=b"access_token=x")
        assert (answer.status, answer.body) == (200, b"null")
        assert not answer.seen["user"].is_authenticated  # type: ignore[index]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"proxy-authorization", id="H-proxy-authz"),
        pytest.param(b"x-authorization", id="x-authorization"),
        pytest.param(b"x-original-authorization", id="x-original-authorization"),
        pytest.param(b"authorization ", id="space-in-name"),
        pytest.param(b"authorisation", id="british"),
        pytest.param(b"x-forwarded-access-token", id="H-xfwd-access-token"),
        pytest.param(b"x-auth-request-access-token", id="H-xfwd-access-token-auth-request"),
    ],
)
async def test_no_other_header_is_a_credential(name: bytes, door: Door, token: bytes) -> None:
    for path, status in (("/orders", 401), ("/hello", 200)):
        answer = await door.ask(path, headers=[(name, b"Bearer " + token)])
        assert answer.status == status
        assert answer.seen is None or not answer.seen["user"].is_authenticated
        assert status == 200 or answer.challenge == NO_CREDENTIALS[1]


@pytest.mark.parametrize("name", [b"cookie", b"cookie2", b"set-cookie"])
async def test_no_cookie_is_a_credential(name: bytes, door: Door, token: bytes) -> None:
    for key in (b"access_token", b"Authorization", b"session", b"bearer"):
        answer = await door.ask(headers=[(name, key + b"=" + token)])
        assert (answer.status, answer.challenge) == NO_CREDENTIALS


QUERIES = {
    "H-query": b"access_token=T",
    "H-query-second": b"a=b&access_token=T",
    "H-query-escaped": b"%61ccess%5ftoken=T",
    "H-query-empty": b"access_token=",
    "H-query-bare": b"access_token",
    "H-query-twice": b"access_token=T&access_token=T",
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
async def test_a_token_in_the_query_is_no_credential_and_never_logged(
    query: bytes, door: Door, token: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """RFC 9700 §4.3.2. On an optional path it is nobody, for it was not read."""
    caplog.set_level(logging.DEBUG)
    sent = query.replace(b"T", token)
    assert await verdict(door, query=sent) == NO_CREDENTIALS
    answer = await door.ask("/hello", query=sent)
    assert (answer.status, answer.body) == (200, b"null")
    assert not answer.seen["user"].is_authenticated  # type: ignore[index]
    assert "ccess" not in caplog.text
    assert token.decode()[-40:] not in caplog.text


@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
async def test_a_token_in_the_query_beside_one_in_the_header(
    query: bytes, known: bool, door: Door, token: bytes
) -> None:
    """H-query-and-header: one request, one credential (RFC 6750 §2)."""
    if known:
        assert await verdict(door, b"Bearer " + token) == LET_IN
    for path in ("/orders", "/hello"):
        assert await verdict(door, b"Bearer " + token, query=query.replace(b"T", token), path=path) == BAD_REQUEST
    handshake = await door.handshake(token=token.decode(), query=query.replace(b"T", token))
    assert (handshake.status, handshake.seen) == (400, None)


@pytest.mark.parametrize("query", [b"", b"a=%", b"xaccess_token=1", b"access_tokens=1", b"token=access_token", b"%ff"])
async def test_other_queries_do_not_matter(query: bytes, door: Door, token: bytes) -> None:
    assert await verdict(door, b"Bearer " + token, query=query) == LET_IN


async def test_headers_that_pretend_an_identity_never_arrive(door: Door, token: bytes) -> None:
    """H-xfwd-access-token, in every spelling, wherever the request is let in; all other headers keep their order."""
    honest: Headers = [(b"accept", b"*/*"), (b"x-forwarded-for", b"192.0.2.1"), (b"accept", b"text/html"), (b"x", b"")]
    preflight: Headers = [(b"origin", b"https://app.example"), (b"access-control-request-method", b"POST")]
    credentials: Headers = [(b"authorization", b"Bearer " + token)]
    assert b"x-forwarded-access-token" in IDENTITY_HEADERS
    assert b"x_auth.request-access_token" in IDENTITY_HEADERS
    for name in sorted(IDENTITY_HEADERS):
        forged = (name, b"admin")
        for path, method, more in (
            ("/orders", "GET", credentials),
            ("/hello", "GET", credentials),
            ("/hello", "GET", []),
            ("/health", "GET", credentials),
            ("/orders", "OPTIONS", preflight),
        ):
            for headers in ([forged, *honest, *more], [*more, *honest, forged], [forged, *more, forged, *honest]):
                answer = await door.ask(path, method=method, headers=headers)
                assert (answer.status, answer.seen_headers) == (200, [entry for entry in headers if entry[0] != name])


@pytest.mark.parametrize("where", ["kid", "iss", "typ", "alg", "sub", "jti", "aud"])
async def test_no_text_of_a_token_reaches_the_challenge_or_the_log(
    where: str, door: Door, signer: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    """H-error-injection."""
    caplog.set_level(logging.DEBUG)
    evil = 'x", error="ok"\r\nX-Injected: 1\r\n\r\n<script>'
    changes: dict[str, Any] = {"header" if where in {"kid", "typ", "alg"} else "claims": {where: evil}}
    answer = await door.ask(token=signer.token(key=signer.evil, **changes))
    assert (answer.status, answer.challenge, answer.seen) == (*BAD_TOKEN, None)
    assert answer.body == b'{"error":"invalid_token","error_description":"The access token is invalid."}'
    assert all("\r" not in value and "\n" not in value for value in answer.headers.values())
    for message in caplog.messages:
        assert "Injected" not in message
        assert "\n" not in message


async def test_a_path_cannot_forge_a_line_of_the_log(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await door.ask("/a%0d%0aINFO:root:admin logged in%1b[31m" + "x" * 100_000)
    (message,) = caplog.messages
    assert "\n" not in message
    assert "\x1b" not in message
    assert len(message) < 400


class Compared(bytes):
    """A header value that counts how often it is compared as a whole."""

    __hash__ = bytes.__hash__

    def __eq__(self, other: object) -> bool:
        self.comparisons = getattr(self, "comparisons", 0) + 1
        return bytes.__eq__(self, other)


async def test_a_guess_is_compared_with_a_known_token_only_if_it_has_its_last_192_bits(
    door: Door, token: bytes
) -> None:
    """H-timing: known tokens are found by their last 32 characters, which are of the signature, or by SHA-256.

    So how long a comparison takes tells something only to whoever has those already. There are no other secrets here:
    no cookie, no state. (Nothing is looked up for a token whose signature is not verified yet.)
    """
    for _ in range(3):
        assert await verdict(door, b"Bearer " + token) == LET_IN
    near = Compared(b"Bearer " + token[:-1] + (b"A" if token[-1:] != b"A" else b"B"))
    assert (await door.ask(headers=[(b"authorization", near)])).status == 401
    assert getattr(near, "comparisons", 0) == 0
    good = Compared(b"Bearer " + token)
    assert (await door.ask(headers=[(b"authorization", good)])).status == 200
    assert good.comparisons == 1
