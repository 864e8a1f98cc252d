"""The `http/identity-headers` abuse cases, as far as a middleware has a part in them.

It sends no identity headers, so "exactly one value, the verified one" is this: the app sees none that the client sent,
and `request.user` is who the token says. What a proxy makes of claims is the proxy's part.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

import pytest
import uvicorn

from oidc_middleware import Rule
from oidc_middleware.core.identity_headers import removed
from oidc_middleware.testing import FakeIssuer

from abuse.door import Door, Headers
from abuse.signing import Signer, good_claims

pytestmark = pytest.mark.anyio

PARSERS = ["h11", *(["httptools"] if find_spec("httptools") else [])]


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


# On the wire. `None`: the server itself refuses the request with 400.
WIRE: dict[str, tuple[bytes, dict[str, str] | None]] = {
    "F-spoof": (b"X-Forwarded-User: admin", {}),
    "F-underscore": (b"X_Forwarded_User: admin", {}),
    "F-mixed": (b"X_Forwarded-User: admin\r\nX-Forwarded_User: admin\r\nx-FORWARDED-user: admin", {}),
    "F-dot": (b"X.Forwarded.User: admin", {}),
    "F-dup": (b"X-Forwarded-User: admin\r\nX-Forwarded-User: bob", {}),
    "F-comma": (b"X-Forwarded-User: admin, bob", {}),
    "F-conn": (b"Connection: close, X-Forwarded-User\r\nX-Forwarded-User: admin", {}),
    "F-conn-lower": (b"connection: close, x-forwarded-user, authorization", {}),
    "F-obsfold": (b"X-A: 1\r\n X-Forwarded-User: admin", {}),
    "F-remote-user": (
        b"\r\n".join(
            name + b": admin"
            for name in (
                b"Remote-User",
                b"Remote-Name",
                b"Remote-Email",
                b"Remote-Groups",
                b"X-Remote-User",
                b"X-Auth-Request-User",
                b"X-Auth-Request-Email",
                b"X-Auth-Request-Groups",
                b"X-Auth-Request-Preferred-Username",
                b"X-Auth-Request-Access-Token",
                b"X-Forwarded-Email",
                b"X-Forwarded-Groups",
                b"X-Forwarded-Preferred-Username",
                b"X-Forwarded-Access-Token",
                b"X-Userinfo",
                b"X-Id-Token",
            )
        ),
        {},
    ),
    "F-honest": (b"X-Forwarded-For: 192.0.2.1", {"x-forwarded-for": "192.0.2.1"}),
    "F-space-before-colon": (b"X-Forwarded-User : admin", None),
    "F-nul-in-name": (b"X-Forwarded-User\0: admin", None),
}


async def app(scope: Any, _: Any, send: Any) -> None:
    """Tell who the user is and what came in headers that a client should not use."""
    assert scope["type"] == "http"
    seen = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    for usual in ("host", "authorization", "connection", "transfer-encoding", "te", "trailer", "x-a"):
        seen.pop(usual, None)
    body = json.dumps({"user": scope["user"].subject, "seen": seen}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def served(door: Door, parser: Any) -> AsyncIterator[int]:
    """Serve the door's app by uvicorn on a loopback port."""
    door.app.app = app
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(door.app, http=parser, lifespan="off", log_config=None, ws="none")
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve([listening]))
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await running


async def send_raw(port: int, *lines: bytes, body: bytes = b"") -> tuple[int, Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\r\n".join((*lines, b"", b"")) + body)
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        answer = json.loads(await reader.read(65_536)) if status == 200 else None
    writer.close()
    await writer.wait_closed()
    return status, answer


@pytest.mark.parametrize("parser", PARSERS)
async def test_on_the_wire(parser: str, signer: Signer) -> None:
    token = signer.token().encode()
    async with served(Door(signer.jwks()), parser) as port:
        for name, (header, seen) in WIRE.items():
            answer = await send_raw(
                port, b"GET /orders HTTP/1.1", b"Host: x", b"Authorization: Bearer " + token, header
            )
            expected = (400, None) if seen is None else (200, {"user": "alice", "seen": seen})
            if parser == "httptools" and name == "F-obsfold":
                assert answer[0] in {200, 400}
                assert answer[0] == 400 or answer[1] == expected[1]
                continue
            assert (name, answer) == (name, expected)


@pytest.mark.parametrize("parser", PARSERS)
async def test_a_bare_line_feed_smuggles_nothing(parser: str, signer: Signer) -> None:
    """F-lf: one parser takes it for the end of a line; then the header is there, and it is taken off."""
    token = signer.token().encode()
    async with served(Door(signer.jwks()), parser) as port:
        status, answer = await send_raw(
            port,
            b"GET /orders HTTP/1.1",
            b"Host: x",
            b"Authorization: Bearer " + token,
            b"X-A: 1\nX-Forwarded-User: admin",
        )
    assert status in {200, 400}
    assert status == 400 or answer == {"user": "alice", "seen": {}}


@pytest.mark.parametrize("parser", PARSERS)
async def test_a_trailer_is_no_header(parser: str, signer: Signer) -> None:
    """F-te-trailers: a parser that adds them to the headers has then read two credentials."""
    token = signer.token().encode()
    async with served(Door(signer.jwks()), parser) as port:
        answer = await send_raw(
            port,
            b"POST /orders HTTP/1.1",
            b"Host: x",
            b"Authorization: Bearer " + token,
            b"TE: trailers",
            b"Trailer: X-Forwarded-User",
            b"Transfer-Encoding: chunked",
            body=b"2\r\nhi\r\n0\r\nX-Forwarded-User: admin\r\nAuthorization: Bearer evil\r\n\r\n",
        )
    assert answer == ((400, None) if parser == "httptools" else (200, {"user": "alice", "seen": {}}))


@pytest.mark.parametrize("path", ["/orders", "/hello", "/health"])
async def test_a_trailer_that_comes_late_is_no_header_either(path: str, signer: Signer) -> None:
    """F-te-trailers: a server may add to its list of headers while the app reads the body."""
    door = Door(signer.jwks(), public=["/health"], optional=["/hello"])
    headers = [(b"transfer-encoding", b"chunked"), (b"authorization", b"Bearer " + signer.token().encode())]
    seen: list[Any] = []

    async def reads_the_body_first(scope: Any, _: Any, __: Any) -> None:
        headers.append((b"x-forwarded-user", b"admin"))
        seen.extend(scope["headers"])

    door.app.app = reads_the_body_first
    for _ in range(2):
        await door.app({"type": "http", "method": "POST", "path": path, "headers": headers}, None, None)  # type: ignore[arg-type]
        assert seen == headers[:2]
        seen.clear()
        del headers[2:]


@pytest.mark.parametrize("path", ["/orders", "/hello", "/health"])
async def test_many_forged_headers_are_taken_off_at_once(
    path: str, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as fit into a head: the list is copied once, not once for each of them."""
    copies: list[int] = []

    def counted(headers: Headers) -> Headers:
        copies.append(len(headers))
        return removed(headers)

    monkeypatch.setattr("oidc_middleware.asgi.middleware.removed", counted)
    door = Door(signer.jwks(), public=["/health"], optional=["/hello"])
    headers = [(b"x-forwarded-user", b"admin"), (b"a", b"")] * 2_000
    answer = await door.ask(path, headers=headers, token=signer.token())
    assert (answer.status, len(answer.seen_headers), len(copies)) == (200, 2_001, 1)


# What claims hold

TEXTS = {
    "F-crlf-claim": "alice\r\nX-Admin: 1",
    "F-nul-claim": "alice\0admin",
    "F-unicode-claim": "José 李",
    "F-unicode-claim-emoji": "👩\u200d🚀 \u202eadmin",
    "F-unicode-claim-line-separator": "alice\u2028X-Admin: 1",
}


@pytest.mark.parametrize("claim", ["sub", "name", "email", "preferred_username", "jti", "sid", "client_id"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_a_text_of_any_kind_is_that_text_and_in_no_header(text: str, claim: str, signer: Signer) -> None:
    """The issuer signed it, so it is what it is: `request.user` has it unchanged, and no header of ours has it."""
    door = Door(signer.jwks())
    answer = await door.ask(token=signer.token(claims={claim: text}))
    assert (answer.status, answer.headers) == (200, {})
    assert json.loads(answer.body)[claim] == text
    assert answer.seen is not None
    user = answer.seen["user"]
    assert text in {user.subject, user.display_name, user.jti, user.sid, user.client_id}
    assert answer.seen_headers == [(b"authorization", b"Bearer " + user.token.encode())]


ONLY_ALICE = Rule("/orders", claims={"email": ["alice@corp.com", "José@corp.com"], "email_verified": True})


@pytest.mark.parametrize(
    "email",
    [
        pytest.param("ALICE@corp.com", id="F-unicode-confusable-capitals"),
        pytest.param("alice@co\u200brp.com", id="F-unicode-confusable-zero-width"),
        pytest.param("Jose\u0301@corp.com", id="F-unicode-confusable-decomposed"),
        pytest.param("\u0430lice@corp.com", id="F-unicode-confusable-cyrillic"),
        pytest.param("alice@corp\u3002com", id="F-unicode-confusable-full-stop"),
        pytest.param("alice@corp.com ", id="F-unicode-confusable-space"),
        pytest.param("alice@evil.com@corp.com", id="F-multi-at"),
        pytest.param("evil@x.com,alice@corp.com", id="F-multi-at-comma"),
        pytest.param("alice@evilcorp.com", id="F-suffix-domain"),
        pytest.param("alice@corp.com.evil.com", id="F-suffix-domain-longer"),
        pytest.param(["x", ["alice@corp.com"]], id="nested"),
        pytest.param({"alice@corp.com": True}, id="object"),
        pytest.param(None, id="null"),
        pytest.param("", id="empty"),
    ],
)
async def test_a_claim_is_compared_exactly(email: Any, signer: Signer) -> None:
    door = Door(signer.jwks(), rules=[ONLY_ALICE])
    good = {"email": "alice@corp.com", "email_verified": True}
    assert (await door.ask(token=signer.token(claims=good))).status == 200
    refused = await door.ask(token=signer.token(claims=good | {"email": email}))
    assert (refused.status, refused.seen) == (403, None)


@pytest.mark.parametrize("verified", [False, None, "true", "True", 1, 1.0, [], {}, "absent"])
async def test_an_email_counts_only_if_it_is_verified(verified: Any, signer: Signer) -> None:
    """F-email-unverified."""
    claims = good_claims(email="alice@corp.com") | ({} if verified == "absent" else {"email_verified": verified})
    door = Door(signer.jwks(), rules=[ONLY_ALICE])
    refused = await door.ask(token=signer.token(claims=claims))
    assert (refused.status, refused.seen) == (403, None)


@pytest.mark.parametrize(
    ("groups", "status"),
    [
        pytest.param(["staff", "admin"], 200, id="F-groups-type-member"),
        pytest.param("admin", 200, id="F-groups-type-text-as-some-issuers-send-a-list-of-one"),
        pytest.param("administrators", 403, id="F-groups-type-longer"),
        pytest.param("staff admin", 403, id="F-groups-type-words"),
        pytest.param(["administrators"], 403, id="F-groups-type-substring"),
        pytest.param(["a,admin"], 403, id="F-groups-type-comma"),
        pytest.param([["admin"]], 403, id="F-groups-type-nested"),
        pytest.param({"admin": True}, 403, id="F-groups-type-object"),
        pytest.param([{"admin": "admin"}], 403, id="F-groups-type-objects"),
        pytest.param([*map(str, range(1_500)), "admin"], 200, id="F-groups-type-many"),
        pytest.param([*map(str, range(10_000)), "admin"], 401, id="F-groups-type-10000-is-beyond-16-KiB"),
        pytest.param(None, 403, id="F-groups-type-null"),
        pytest.param(True, 403, id="F-groups-type-true"),
    ],
)
async def test_groups_are_members_of_a_list(groups: Any, status: int, signer: Signer) -> None:
    door = Door(signer.jwks(), rules=[Rule("/orders", claims={"groups": "admin"})])
    answer = await door.ask(token=signer.token(claims={"groups": groups}))
    assert (answer.status, answer.seen is None) == (status, status != 200)


# Answers


async def test_an_answer_of_the_app_passes_as_it_is(signer: Signer) -> None:
    """F-resp-leak: two cookies, a challenge of the app's own, a header twice; there is no cookie of ours to protect."""
    door = Door(signer.jwks())
    headers = [
        (b"set-cookie", b"session=1"),
        (b"set-cookie", b"b=2"),
        (b"www-authenticate", b"Basic"),
        (b"server-timing", b"db;dur=1"),
        (b"X-MiXed", b"1"),
    ]
    door.answers = [
        {"type": "http.response.start", "status": 418, "headers": headers, "trailers": True},
        {"type": "http.response.body", "body": b"a", "more_body": True},
        {"type": "http.response.body", "body": b"b"},
    ]
    answer = await door.ask(token=signer.token())
    assert answer.messages == door.answers
    assert answer.messages[0]["headers"] is headers


async def test_no_refusal_may_be_stored(signer: Signer) -> None:
    """F-cache-control, our part: every answer of ours is no-store.

    The app's own are its business: to a request with `Authorization` no shared cache may keep an answer that does not
    allow it (RFC 9111 §3.5).
    """
    token = signer.token()
    door = Door(signer.jwks(), rules=[Rule("/admin", scopes=("admin",))], admin_scope="orders:read")
    down = Door(b"", transport=FakeIssuer("https://elsewhere.example", algorithms=("ES256",)).transport())
    broken = Door(signer.jwks())
    broken.app = type(broken.app)(app, issuer="https://idp.example")
    asked = {
        401: await door.ask(),
        400: await door.ask("//", token=token),
        403: await door.ask("/admin", token=token),
        503: await down.ask(token=token),
        500: await broken.ask(token=token),
        405: await door.ask("/oauth2/health", method="POST"),
    }
    for status, answer in asked.items():
        assert (status, answer.status, answer.headers.get("cache-control")) == (status, status, "no-store")
        assert answer.headers["x-content-type-options"] == "nosniff"
    for path in ("/oauth2/health", "/oauth2/status"):
        answer = await door.ask(path, token=token)
        assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
