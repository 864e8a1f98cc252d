"""What every proxy of the docs does with the forward-auth service behind it, whoever asks."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx2
import pytest

from oidc_middleware.testing import FakeIssuer

from .app import App
from .proxies import Proxy
from servers_kit import ANSWER_SECONDS

USER = {"email": "alice@example.com", "email_verified": True, "groups": ["staff", "a,b"], "preferred_username": "José"}
TOLD = {
    "user": ["alice"],
    "email": ["alice@example.com"],
    "groups": ["a%2Cb,staff"],
    "preferred-username": ["Jos%C3%A9"],
}


def bearer(issuer: FakeIssuer, scope: str = "read", **claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {issuer.token('alice', scope=scope, claims=claims or USER)}"}


def ask(proxy: Proxy, method: str, path: str, headers: Any = None, **options: Any) -> httpx2.Response:
    return httpx2.request(method, proxy.url + path, headers=headers, trust_env=False, timeout=ANSWER_SECONDS, **options)


def identity(answer: httpx2.Response) -> dict[str, list[str]]:
    """Return what the app got of headers that tell an identity, in any spelling, those without a value left out."""
    assert answer.status_code == 200, (answer.status_code, answer.text)
    found: dict[str, list[str]] = {}
    body = answer.json()
    for name, value in [*body["headers"], *(line.split(": ", 1) for line in body["trailers"])]:
        folded = name.lower().replace("_", "-").replace(".", "-")
        if value and any(word in folded for word in WORDS):
            found.setdefault(folded, []).append(value)
    return found


WORDS = ("-user", "-email", "-groups", "preferred", "access-token", "-issuer", "userinfo", "id-token", "remote-")
USERS = {"x-forwarded-user", "x-auth-request-user"}


def told(found: dict[str, list[str]], family: str) -> dict[str, list[str]]:
    return {name.removeprefix(family): value for name, value in found.items() if name.startswith(family)}


def test_a_public_path_needs_no_identity(proxy: Proxy) -> None:
    assert identity(ask(proxy, "GET", "/health")) == {}
    assert identity(ask(proxy, "POST", "/docs/x?y=z", content=b"body")) == {}


def test_no_identity_is_401_for_everything_that_is_no_page(proxy: Proxy, app: App) -> None:
    before = app.requests
    for method, headers in (
        ("GET", {}),
        ("GET", {"Accept": "application/json"}),
        ("GET", {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}),
        ("POST", {}),
        ("GET", {"Accept": "text/event-stream"}),
    ):
        answer = ask(proxy, method, "/feed", headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="oidc"')
        assert answer.json()["error"] == "missing_token"
    assert app.requests == before


def test_an_invalid_token_is_401(proxy: Proxy) -> None:
    answer = ask(proxy, "GET", "/orders", {"Authorization": "Bearer a.b.c"})
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_the_identity_reaches_the_app(proxy: Proxy, issuer: FakeIssuer) -> None:
    answer = ask(proxy, "GET", "/orders?a=b", bearer(issuer))
    assert answer.json()["line"] == "GET /orders?a=b HTTP/1.1"
    found = identity(answer)
    for family in ("x-forwarded-", "x-auth-request-"):
        assert told(found, family) == TOLD | {"issuer": [issuer.url]}


def test_an_anonymous_request_may_pass_where_that_is_optional(proxy: Proxy, issuer: FakeIssuer) -> None:
    assert identity(ask(proxy, "GET", "/hello")) == {}
    assert identity(ask(proxy, "GET", "/hello", bearer(issuer)))["x-forwarded-user"] == ["alice"]
    assert ask(proxy, "GET", "/hello", {"Authorization": "Bearer a.b.c"}).status_code == 401


def test_rules_speak_of_the_method_and_the_path_that_the_client_sent(proxy: Proxy, issuer: FakeIssuer) -> None:
    assert ask(proxy, "GET", "/orders/1", bearer(issuer)).status_code == 200
    for method, path, scope in (
        ("POST", "/orders/1", "orders:write"),
        ("DELETE", "/orders/1?x=/health", "orders:write"),
        ("GET", "/admin/", "admin"),
        ("GET", "/%61dmin", "admin"),
    ):
        answer = ask(proxy, method, path, bearer(issuer))
        assert answer.status_code == 403, (method, path)
        assert f'scope="{scope}"' in answer.headers["www-authenticate"]
        assert ask(proxy, method, path, bearer(issuer, scope)).status_code == 200


OTHERS = (
    "Remote-User",
    "Remote_User",
    "Remote-Name",
    "Remote-Email",
    "Remote-Groups",
    "X-Remote-User",
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "X-Auth-Request-Groups",
    "X-Auth-Request-Preferred-Username",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Issuer",
    "X-Userinfo",
    "X-Id-Token",
)
SPOOFED: dict[str, dict[str, str] | list[tuple[str, str]]] = {
    "F-spoof": {"X-Forwarded-User": "admin"},
    "F-underscore": {"X_Forwarded_User": "admin"},
    "F-mixed": [("X_Forwarded_User", "admin"), ("X_Forwarded-User", "admin"), ("x-FORWARDED-user", "admin")],
    "F-dot": {"X.Forwarded.User": "admin"},
    "F-dup": [("X-Forwarded-User", "admin"), ("X-Forwarded-User", "root")],
    "F-comma": {"X-Forwarded-User": "admin, bob"},
    "F-remote-user": dict.fromkeys(OTHERS, "admin"),
    "H-xfwd-access-token": {"X-Forwarded-Access-Token": "admin", "X-Auth-Request-Access-Token": "admin"},
    "underscores-of-auth-request": {"X_Auth_Request_User": "admin", "X-Auth_Request-User": "admin"},
}


@pytest.mark.parametrize("headers", SPOOFED.values(), ids=SPOOFED)
@pytest.mark.parametrize("path", ["/orders", "/health", "/hello"])
def test_no_identity_of_a_client_reaches_the_app(proxy: Proxy, issuer: FakeIssuer, path: str, headers: Any) -> None:
    pairs = list(headers.items()) if isinstance(headers, dict) else headers
    sent = [*pairs, *(bearer(issuer, sub="alice", a="b").items() if path == "/orders" else ())]
    found = identity(ask(proxy, "GET", path, sent))
    known = {"x-forwarded-user": ["alice"], "x-auth-request-user": ["alice"]} if path == "/orders" else {}
    issuers = {"x-forwarded-issuer": [issuer.url], "x-auth-request-issuer": [issuer.url]} if known else {}
    assert found == known | issuers


RAW: dict[str, list[str]] = {
    "F-conn": ["Connection: close, X-Forwarded-User"],
    "F-conn-lower": ["connection: close, x-forwarded-user, authorization, x-auth-request-user"],
    "F-conn-twice": ["Connection: X-Forwarded-User", "Connection: close, X-Auth-Request-User, X-Forwarded-Issuer"],
    "F-lf": ["X-A: 1\nX-Forwarded-User: admin", "Connection: close"],
    "F-obsfold": ["X-A: 1", " X-Forwarded-User: admin", "Connection: close"],
    "F-space-before-colon": ["X-Forwarded-User : admin", "Connection: close"],
    "F-te-trailers": ["TE: trailers", "Trailer: X-Forwarded-User", "Transfer-Encoding: chunked", "Connection: close"],
}


@pytest.mark.parametrize("lines", RAW.values(), ids=RAW)
def test_what_only_some_read_as_a_header_tells_the_app_nothing(
    proxy: Proxy, issuer: FakeIssuer, lines: list[str]
) -> None:
    chunked = "Transfer-Encoding: chunked" in lines
    body = "1\r\nx\r\n0\r\nX-Forwarded-User: admin\r\n\r\n" if chunked else ""
    head = ["GET /feed HTTP/1.1", f"Host: 127.0.0.1:{proxy.port}", f"Authorization: {bearer(issuer)['Authorization']}"]
    status, answer = proxy.raw("\r\n".join([*head, *lines, "", body]))
    if status == 200:
        content = json.loads(answer[answer.index("{") : answer.rindex("}") + 1])
        found = [value for name, value in content["headers"] if name.lower() in USERS]
        assert found == ["alice", "alice"], content
        assert "admin" not in str(content["trailers"])
    else:
        assert status in {400, 401}, answer


# Paths, as the client's request line has them. Some proxies answer these themselves, some resolve dot segments, and
# Caddy has an empty 200 for a host that it does not know. What counts is that the app sees only what was judged.
PATHS = {
    "P-dotdot": "/health/../admin",
    "P-pct-dotdot": "/health/%2e%2e/admin",
    "P-dotdot-docs": "/docs/../admin/x",
    "P-pct-slash": "/health%2f..%2fadmin",
    "P-pct-slash-admin": "/docs%2f..%2fadmin",
    "P-semicolon": "/health;/../admin",
    "P-matrix": "/docs/..;/admin",
    "P-dblslash": "//admin",
    "P-dblslash-health": "//health/../admin",
    "P-backslash": "/docs\\..\\admin",
    "P-pct-backslash": "/docs%5c..%5cadmin",
    "P-nul": "/admin%00/health",
    "P-nl": "/health%0a/../admin",
    "P-pct-letter": "/%61dmin",
    "P-pct-twice": "/docs/%252e%252e/admin",
    "P-overlong": "/docs/%c0%ae%c0%ae/admin",
    "P-fragment": "/admin#/health",
    "P-pct-frag": "/admin%23/health",
    "P-query": "/admin?x=/health",
    "P-pct-q": "/admin%3f/health",
    "P-prefix": "/healthadmin",
    "P-trail": "/admin/",
    "P-asterisk": "*",
    "P-noslash": "health",
    "P-absolute": "http://evil.example/admin",
    "X-ssrf-at": "/@evil.example/",
}


@pytest.mark.parametrize("target", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("known", [False, True], ids=["anonymous", "known"])
def test_no_spelling_of_a_path_gets_to_the_app_that_its_policy_does_not_let_pass(
    proxy: Proxy, issuer: FakeIssuer, app: App, target: str, known: bool
) -> None:
    """Nobody gets to anything but what is public, and somebody without the scope to nothing below /admin."""
    before = app.requests
    lines = [f"GET {target} HTTP/1.1", f"Host: 127.0.0.1:{proxy.port}", "Connection: close"]
    lines += [f"Authorization: {bearer(issuer)['Authorization']}"] if known else []
    status, answer = proxy.raw("\r\n".join([*lines, "", ""]))
    if app.requests == before:
        assert status in {301, 307, 308, 400, 401, 403, 404} or "\r\nContent-Length: 0\r\n" in answer, answer
    else:
        path = json.loads(answer[answer.index("{") : answer.rindex("}") + 1])["line"].split(" ")[1]
        assert known, path
        assert path.partition("?")[0] in {"/healthadmin", "/@evil.example/"}


# What a client says of another request

TELLING = {
    "P-xfu": {"X-Forwarded-Uri": "/health", "X-Forwarded-Method": "GET"},
    "P-xfu-original": {"X-Original-URI": "/health", "X-Original-Method": "GET"},
    "P-xfu-original-url": {"X-Original-URL": "http://127.0.0.1/health"},
    "P-xfu-redirect": {"X-Auth-Request-Redirect": "/health"},
    "P-xfu-rewrite-url": {"X-Rewrite-URL": "/health"},
    "P-xfu-prefix": {"X-Forwarded-Prefix": "/health"},
    "P-method-override": {"X-HTTP-Method-Override": "OPTIONS"},
    "P-xfu-envoy": {"X-Envoy-Original-Path": "/health", "X-Envoy-Original-Method": "OPTIONS"},
    "X-xff": {"X-Forwarded-For": "10.0.0.1", "Forwarded": "for=10.0.0.1", "X-Real-Ip": "10.0.0.1"},
    "P-xfu-underscore": {"X_Forwarded_Uri": "/health"},
}


@pytest.mark.parametrize("headers", TELLING.values(), ids=TELLING)
def test_no_header_of_a_client_makes_another_request_of_its_own(
    proxy: Proxy, issuer: FakeIssuer, app: App, headers: dict[str, str]
) -> None:
    before = app.requests
    assert ask(proxy, "POST", "/orders/1", headers).status_code in {400, 401, 403}
    assert ask(proxy, "POST", "/orders/1", headers | bearer(issuer)).status_code in {400, 403}
    assert app.requests == before


def test_a_client_that_has_headers_taken_out_on_the_way_gets_no_further(
    proxy: Proxy, issuer: FakeIssuer, app: App
) -> None:
    """Whoever names a header in Connection has it taken out by some: what is not told counts as it is worst."""
    before = app.requests
    taken_out = (
        "Connection: close, X-Forwarded-Method, X-Forwarded-Uri, X-Original-Method, X-Original-URI, X-Forwarded-Host"
    )
    lines = [taken_out, f"Authorization: {bearer(issuer)['Authorization']}", "Content-Length: 0"]
    status, answer = proxy.raw(
        "\r\n".join(["POST /orders/1 HTTP/1.1", f"Host: 127.0.0.1:{proxy.port}", *lines, "", ""])
    )
    assert status in {400, 403}, answer
    assert app.requests == before


@pytest.mark.parametrize("path", ["/oauth2/auth", "/oauth2/auth/feed", "/oauth2/%61uth", "/oauth2/x/../auth"])
def test_a_client_cannot_ask_itself(proxy: Proxy, issuer: FakeIssuer, path: str) -> None:
    """The answer has what is for the app: with a session, an access token that no script of the page may read."""
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{proxy.port}\r\nConnection: close\r\n"
    more = f"X-Forwarded-Uri: /feed\r\nAuthorization: {bearer(issuer)['Authorization']}\r\n\r\n"
    _, answer = proxy.raw(head + more)
    assert not re.search(r"^x-(forwarded|auth-request)-", answer.partition("\r\n\r\n")[0], re.IGNORECASE | re.MULTILINE)


# Browsers and WebSockets


def test_a_preflight_passes_and_nothing_that_only_looks_like_one(proxy: Proxy) -> None:
    headers = {"Origin": "https://spa.example", "Access-Control-Request-Method": "GET"}
    assert identity(ask(proxy, "OPTIONS", "/feed", headers)) == {}
    assert ask(proxy, "GET", "/feed", headers).status_code == 401
    assert ask(proxy, "OPTIONS", "/feed").status_code == 401


def test_a_websocket_is_let_through_with_an_identity_alone(proxy: Proxy, issuer: FakeIssuer) -> None:
    lines = [
        "GET /ws HTTP/1.1",
        f"Host: 127.0.0.1:{proxy.port}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ]
    status, _ = proxy.raw("\r\n".join([*lines, "", ""]), until=b"\r\n\r\n")
    assert status == 401
    lines += [f"Authorization: {bearer(issuer)['Authorization']}", "X-Forwarded-User: admin"]
    status, answer = proxy.raw("\r\n".join([*lines, "", ""]), until=b"\r\n\r\n")
    assert status == 101
    seen = next(line for line in answer.split("\r\n") if line.lower().startswith("x-seen:"))
    assert [value for name, value in json.loads(seen.partition(": ")[2]) if name.lower() in USERS] == ["alice"] * 2


# What is big


def test_an_identity_with_many_groups_gets_through(proxy: Proxy, issuer: FakeIssuer) -> None:
    groups = [f"group-{number:03}" for number in range(400)]
    found = identity(ask(proxy, "GET", "/feed", bearer(issuer, groups=groups)))
    assert found["x-forwarded-groups"] == [",".join(groups)]


def test_a_body_gets_through(proxy: Proxy, issuer: FakeIssuer) -> None:
    answer = ask(proxy, "POST", "/orders/1", bearer(issuer, "orders:write"), content=b"x" * 200_000)
    assert answer.status_code == 200
