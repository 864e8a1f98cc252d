"""What a refused client hears: status, challenge, one sentence, and never which check failed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import socket
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from oidc_middleware.asgi.responses import deny_websocket, error_response, stamp
from oidc_middleware.core.challenge import challenge
from oidc_middleware.errors import (
    AlgorithmNotAllowed,
    BackendUnavailable,
    BadSignature,
    ClaimError,
    ConfigError,
    Inactive,
    InsufficientScope,
    InvalidRequest,
    Malformed,
    MissingToken,
    OIDCError,
    ProviderInvalid,
    ProviderUnavailable,
    Revoked,
    UnknownKey,
)

INVALID_TOKEN = 'Bearer error="invalid_token", error_description="The access token is invalid."'
BROWSER = b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
EVIL = 'x", error="ok"\r\nX-Injected: 1'

TOKEN_ERRORS = [
    Malformed(EVIL),
    AlgorithmNotAllowed(EVIL),
    UnknownKey(EVIL),
    BadSignature(EVIL),
    Revoked(EVIL),
    Inactive(EVIL),
    ClaimError("aud", "mismatch", EVIL),
    ClaimError(EVIL, "expired"),
]
ALL_ERRORS: list[OIDCError] = [
    MissingToken(EVIL),
    InvalidRequest(EVIL),
    *TOKEN_ERRORS,
    InsufficientScope(EVIL, ("admin",)),
    ProviderUnavailable(EVIL),
    ProviderInvalid(EVIL),
    BackendUnavailable(EVIL),
    ConfigError("issuer", EVIL, EVIL),
    OIDCError(EVIL),
]


@pytest.mark.parametrize(
    ("error", "realm", "scopes", "expected"),
    [
        pytest.param(MissingToken(), "api", (), 'Bearer realm="api"', id="missing"),
        pytest.param(MissingToken(), "api", ("a", "b"), 'Bearer realm="api", scope="a b"', id="missing-with-scope"),
        pytest.param(MissingToken(), None, ("a",), 'Bearer scope="a"', id="missing-without-realm"),
        pytest.param(MissingToken(), None, (), 'Bearer realm="oidc"', id="one-parameter-is-needed"),
        pytest.param(BadSignature(), None, (), INVALID_TOKEN, id="token"),
        pytest.param(BadSignature(), None, ("a",), INVALID_TOKEN + ', scope="a"', id="token-with-scope"),
        pytest.param(
            InvalidRequest(),
            "api",
            ("a",),
            'Bearer realm="api", error="invalid_request", error_description="The request is malformed."',
            id="malformed-request",
        ),
        pytest.param(
            InsufficientScope("", ("a", "b")),
            None,
            ("c",),
            'Bearer error="insufficient_scope", '
            'error_description="The access token does not permit this request.", scope="a b"',
            id="scope-of-the-error",
        ),
        pytest.param(
            InsufficientScope(),
            None,
            ("c", "c"),
            'Bearer error="insufficient_scope", '
            'error_description="The access token does not permit this request.", scope="c"',
            id="scope-of-the-rule",
        ),
        pytest.param(ProviderUnavailable(), "api", ("a",), None, id="provider"),
        pytest.param(BackendUnavailable(), "api", ("a",), None, id="backend"),
        pytest.param(ConfigError("a", "b", "c"), "api", (), None, id="configuration"),
    ],
)
def test_the_challenge_of_each_error(
    error: OIDCError, realm: str | None, scopes: tuple[str, ...], expected: str | None
) -> None:
    assert challenge(error, realm=realm, scopes=scopes) == expected


@given(st.sampled_from(ALL_ERRORS), st.none() | st.text(), st.lists(st.text()))
def test_no_text_can_leave_its_quotes(error: OIDCError, realm: str | None, scopes: list[str]) -> None:
    """H-error-injection, even by way of the configuration."""
    value = challenge(InsufficientScope("", scopes) if error.status == 403 else error, realm=realm, scopes=scopes)
    parameter = r'(?:realm|error|error_description|scope)="[\x20\x21\x23-\x5b\x5d-\x7e]+"'
    assert value is None or re.fullmatch(rf"Bearer {parameter}(?:, {parameter})*", value)


@pytest.mark.parametrize("accept", [b"*/*", BROWSER], ids=["json", "page"])
@pytest.mark.parametrize("error", ALL_ERRORS, ids=lambda error: f"{error.code}-{getattr(error, 'reason', '')}")
def test_nothing_of_the_request_is_in_the_answer(error: OIDCError, accept: bytes) -> None:
    """H-error-injection, O-exc."""
    response = error_response(error, headers=[(b"accept", accept)])
    assert response.status_code == error.status
    everything = b"".join([bytes(response.body), *(name + value for name, value in response.raw_headers)])
    for part in (b"Injected", b'x"', b"\r", b"aud", b"mismatch"):
        assert part not in everything
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert ("retry-after" in response.headers) is (error.status == 503)
    assert ("www-authenticate" in response.headers) is (error.status < 500)


@pytest.mark.parametrize("accept", [b"*/*", BROWSER], ids=["json", "page"])
def test_all_refused_tokens_look_the_same(accept: bytes) -> None:
    """H-error-oracle."""
    answers = [error_response(error, headers=[(b"accept", accept)]) for error in TOKEN_ERRORS]
    assert len({(bytes(answer.body), tuple(answer.raw_headers), answer.status_code) for answer in answers}) == 1


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (MissingToken(), 401, ("missing_token", "Authentication is required.")),
        (BadSignature(), 401, ("invalid_token", "The access token is invalid.")),
        (InvalidRequest(), 400, ("invalid_request", "The request is malformed.")),
        (InsufficientScope(), 403, ("insufficient_scope", "The access token does not permit this request.")),
        (
            ProviderInvalid(),
            503,
            ("temporarily_unavailable", "The identity provider cannot be reached. Try again later."),
        ),
        (
            BackendUnavailable(),
            503,
            ("temporarily_unavailable", "The service is temporarily unavailable. Try again later."),
        ),
        (ConfigError("a", "b", "c"), 500, ("server_error", "The service is misconfigured.")),
    ],
    ids=lambda value: value.code if isinstance(value, OIDCError) else "",
)
def test_programs_get_json(error: OIDCError, status: int, body: tuple[str, str]) -> None:
    response = error_response(error)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert json.loads(bytes(response.body)) == {"error": body[0], "error_description": body[1]}


@pytest.mark.parametrize(("seconds", "header"), [(5, "5"), (1.9, "1"), (0, "1"), (-3, "1"), (120, "120")])
def test_503_says_when_to_come_back(seconds: int, header: str) -> None:
    assert error_response(ProviderUnavailable(retry_after=seconds)).headers["retry-after"] == header


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        pytest.param([BROWSER], "text/html", id="browser"),
        pytest.param([b"text/html"], "text/html", id="html"),
        pytest.param([b"TEXT/HTML"], "text/html", id="in-capitals"),
        pytest.param([b"application/json;q=0.5", b"text/html;q=0.6"], "text/html", id="two-headers"),
        pytest.param([b"text/html, application/*;q=0.2"], "text/html", id="html-over-wildcard"),
        pytest.param([], "application/json", id="nothing"),
        pytest.param([b""], "application/json", id="empty"),
        pytest.param([b"*/*"], "application/json", id="curl"),
        pytest.param([b"application/json"], "application/json", id="json"),
        pytest.param([b"application/json, text/html"], "application/json", id="as-much"),
        pytest.param([b"text/html;q=0.3, */*;q=0.5"], "application/json", id="html-less"),
        pytest.param([b"text/html;q=0"], "application/json", id="html-refused"),
        pytest.param([b"text/html;q=x"], "application/json", id="no-weight"),
        pytest.param([b"text/html;q=nan"], "application/json", id="nan"),
        pytest.param([b"text/html;level=1;q=0.1, application/json"], "application/json", id="parameters"),
        pytest.param([b"text/event-stream"], "application/json", id="P-sse"),
        pytest.param([b"text/htmlx"], "application/json", id="another-type"),
        pytest.param([b"text/html," * 1000], "application/json", id="too-long-to-read"),
        pytest.param([b"\xff;;;=,text/html"], "text/html", id="garbage-around"),
    ],
)
def test_browsers_get_a_page(accept: list[bytes], media_type: str) -> None:
    response = error_response(BadSignature(), headers=[(b"accept", value) for value in accept])
    assert response.headers["content-type"].partition(";")[0] == media_type
    assert response.headers["www-authenticate"] == INVALID_TOKEN


@given(st.lists(st.binary(max_size=60), max_size=3))
def test_any_accept_header_gets_an_answer(values: list[bytes]) -> None:
    assert error_response(MissingToken(), headers=[(b"accept", value) for value in values]).status_code == 401


def test_the_page_is_self_contained_and_locked() -> None:
    response = error_response(InsufficientScope(), headers=[(b"accept", BROWSER)])
    page = bytes(response.body).decode()
    style = re.search("<style>(.*)</style>", page, re.DOTALL)
    assert style
    digest = b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = response.headers["content-security-policy"]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert response.headers["referrer-policy"] == "no-referrer"
    assert "<title>403 Forbidden</title>" in page
    assert "<p>Your account does not permit this.</p>" in page
    assert "http" not in page


def test_the_users_own_answer_keeps_its_body_and_our_status_and_challenge() -> None:
    theirs = PlainTextResponse("no", 200, {"X-Mine": "1", "WWW-Authenticate": "Basic", "Cache-Control": "public"})
    ours = stamp(theirs, MissingToken(), realm="api", scopes=("a",))
    assert (ours.status_code, bytes(ours.body), ours.headers["x-mine"]) == (401, b"no", "1")
    assert ours.headers.getlist("www-authenticate") == ['Bearer realm="api", scope="a"']
    assert ours.headers.getlist("cache-control") == ["no-store"]
    unavailable = stamp(RedirectResponse("/", headers={"WWW-Authenticate": "Basic"}), ProviderUnavailable())
    assert (unavailable.status_code, "www-authenticate" in unavailable.headers) == (503, False)


async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse every request and WebSocket, as the middleware does."""
    response = error_response(MissingToken(), headers=scope["headers"], realm="api")
    if scope["type"] == "websocket":
        await deny_websocket(response, scope, receive, send)
    elif scope["type"] == "http":
        await response(scope, receive, send)


def test_a_websocket_is_refused_with_the_same_answer() -> None:
    """P-websocket."""
    with pytest.raises(WebSocketDenialResponse) as raised, TestClient(refusing).websocket_connect("/ws"):
        pass
    denial = raised.value
    assert (denial.status_code, denial.headers["www-authenticate"]) == (401, 'Bearer realm="api"')
    assert denial.json() == {"error": "missing_token", "error_description": "Authentication is required."}


@pytest.mark.anyio
@pytest.mark.parametrize("extensions", [None, {}, {"tls": {}}], ids=["none", "empty", "others"])
async def test_without_the_extension_it_is_closed_before_it_is_accepted(extensions: dict[str, object] | None) -> None:
    """P-websocket, plain close."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    scope: Scope = {"type": "websocket", "headers": [], "path": "/ws", "extensions": extensions}
    await refusing(scope, receive, send)
    scope.pop("extensions")
    await refusing(scope, receive, send)
    assert sent == [{"type": "websocket.close"}] * 2


def test_starlette_sees_that_close_as_a_disconnect() -> None:
    async def old_server(scope: Scope, receive: Receive, send: Send) -> None:
        await refusing({**scope, "extensions": {}}, receive, send)

    with pytest.raises(WebSocketDisconnect), TestClient(old_server).websocket_connect("/ws"):
        pass


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    """Serve `refusing` with uvicorn on a free port of the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(refusing, ws="websockets-sansio", lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve([listening]))
        try:  # connections queue at the socket until the server accepts them
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await running


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["GET", "HEAD", "websocket"])
async def test_on_the_wire(method: str) -> None:
    """P-websocket and plain requests, through a real server."""
    request = f"{'GET' if method == 'websocket' else method} /ws HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    if method == "websocket":
        request = request.replace("close", "Upgrade") + "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        request += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    async with asyncio.timeout(10), serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{request}\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
    lines = head.decode().lower().split("\r\n")
    assert lines[0].startswith("http/1.1 401 ")
    assert 'www-authenticate: bearer realm="api"' in lines
    assert "cache-control: no-store" in lines
    assert (b"missing_token" in body) is (method != "HEAD")
