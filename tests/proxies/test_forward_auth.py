"""What every proxy of the docs does with the forward-auth service behind it, whoever asks."""

from __future__ import annotations

import json
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


SPOOFED: dict[str, dict[str, str] | list[tuple[str, str]]] = {
    "F-spoof": {"X-Forwarded-User": "admin"},
    "F-underscore": {"X_Forwarded_User": "admin"},
    "F-mixed": [("X_Forwarded_User", "admin"), ("X_Forwarded-User", "admin"), ("x-FORWARDED-user", "admin")],
    "F-dot": {"X.Forwarded.User": "admin"},
    "F-dup": [("X-Forwarded-User", "admin"), ("X-Forwarded-User", "root")],
    "F-comma": {"X-Forwarded-User": "admin, bob"},
    "F-remote-user": dict.fromkeys(("Remote-User", "Remote_User", "X-Remote-User", "X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-Request-Groups", "X-Auth-Request-Preferred-Username", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username", "X-Forwarded-Issuer", "X-Userinfo", "X-Id-Token", "Remote-Name", "Remote-Email", "Remote-Groups"), "admin"),
    "H-xfwd-access-token": {"X-Forwarded-Access-Token": "admin", "X-Auth-Request-Access-Token": "admin"},
    "underscores-of-auth-request": {"X_Auth_Request_User": "admin", "X-Auth_Request-User": "admin"},
}  # fmt: skip


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
