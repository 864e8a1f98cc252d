"""The forward-auth endpoint as each proxy asks it: a real service over real sockets, without the proxies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from oidc_middleware.core.identity_headers import TOLD
from oidc_middleware.core.identity_values import FAMILIES
from oidc_middleware.testing import FakeIssuer

from serve_kit import serving
from servers_kit import ANSWER_SECONDS, Server

RULES = """[
  {"path": "/admin/*", "scopes": ["admin"]},
  {"path": "/orders/*", "methods": ["POST"], "scopes": ["write"]}
]"""
CHALLENGE = 'Bearer realm="oidc"'
FOR_ADMIN = 'Bearer scope="admin"'
FOR_WRITE = 'Bearer scope="write"'
_NOT = 'Bearer error="insufficient_scope", error_description="The access token does not permit this request.", scope='
NOT_ADMIN = _NOT + '"admin"'
NOT_WRITE = _NOT + '"write"'
Headers = dict[str, str]


@dataclass(frozen=True)
class Answer:
    """What the service said."""

    status: int
    headers: httpx2.Headers
    body: bytes

    @property
    def challenge(self) -> str | None:
        return self.headers.get("www-authenticate")

    @property
    def told(self) -> Headers:
        """The headers that tell an identity, those that are empty left out."""
        return {name: value for name in NAMES if (value := self.headers.get(name))}


NAMES = [family.decode() + what for family in FAMILIES for what in TOLD]
Ask = Callable[..., Answer]


def asker(port: int) -> Ask:
    """Return what asks a service."""

    def ask(headers: Any = None, *, method: str = "GET", path: str = "/oauth2/auth") -> Answer:
        # The client of the tests must not resolve dot segments: it takes what is called a target as it is.
        request = httpx2.Request(
            method,
            f"http://127.0.0.1:{port}/",
            headers=headers,
            extensions={"target": path.encode("latin-1")},
        )
        with httpx2.Client(trust_env=False, timeout=ANSWER_SECONDS) as client:
            answer = client.send(request)
        return Answer(answer.status_code, answer.headers, answer.content)

    return ask


@pytest.fixture(scope="module")
def settings(served_issuer: FakeIssuer) -> dict[str, str]:
    return {
        "issuer": served_issuer.url,
        "audience": served_issuer.audience,
        "public": "/health,/docs/*",
        "optional": "/hello",
        "rules": RULES,
    }


@pytest.fixture(scope="module")
def service(settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Believe what proxies on this machine say."""
    with serving(tmp_path_factory.mktemp("serve"), settings | {"trusted_proxies": "127.0.0.0/8"}) as port:
        yield asker(port)


@pytest.fixture(scope="module")
def suspicious(settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Believe nobody on this machine."""
    with serving(tmp_path_factory.mktemp("serve"), settings | {"trusted_proxies": "10.0.0.0/8"}) as port:
        yield asker(port)


def bearer(issuer: FakeIssuer, scope: str = "read", **claims: Any) -> Headers:
    return {"Authorization": f"Bearer {issuer.token('alice', scope=scope, claims=claims)}"}


# How each proxy asks: of a method and a target, the method and path of its own request, and its headers.
STYLES: dict[str, Callable[[str, str], tuple[str, str, Headers]]] = {
    "traefik": lambda method, target: (
        "GET",
        "/oauth2/auth",
        {"X-Forwarded-Method": method, "X-Forwarded-Uri": target, "X-Forwarded-Host": "a.example"},
    ),
    "nginx": lambda method, target: (
        "GET",
        "/oauth2/auth",
        {"X-Original-Method": method, "X-Original-URI": target, "X-Forwarded-Proto": "https"},
    ),
    "nginx-ingress": lambda method, target: (
        "GET",
        "/oauth2/auth",
        {
            "X-Original-Method": method,
            "X-Original-URL": f"https://a.example{target}",
            "X-Auth-Request-Redirect": target,
        },
    ),
    "envoy": lambda method, target: (method, f"/oauth2/auth{target}", {}),
}


@pytest.fixture(params=STYLES)
def style(request: pytest.FixtureRequest) -> Callable[[str, str], tuple[str, str, Headers]]:
    found: Callable[[str, str], tuple[str, str, Headers]] = STYLES[request.param]
    return found


@pytest.mark.parametrize(
    ("method", "target", "anonymous", "reader"),
    [
        ("GET", "/health", (200, None), (200, None)),
        ("POST", "/docs/x?y=/admin", (200, None), (200, None)),
        ("GET", "/hello", (200, None), (200, None)),
        ("GET", "/", (401, CHALLENGE), (200, None)),
        ("GET", "/x?y=/health", (401, CHALLENGE), (200, None)),
        ("GET", "/orders/1", (401, CHALLENGE), (200, None)),
        ("POST", "/orders/1", (401, FOR_WRITE), (403, NOT_WRITE)),
        ("GET", "/admin", (401, FOR_ADMIN), (403, NOT_ADMIN)),
        ("PROPFIND", "/admin/x", (401, FOR_ADMIN), (403, NOT_ADMIN)),
        ("GET", "/%61dmin", (401, FOR_ADMIN), (403, NOT_ADMIN)),
        ("GET", "/oauth2/health", (200, None), (200, None)),
    ],
)
def test_the_request_that_is_asked_about_decides(  # noqa: PLR0917  a table has as many columns as it has
    service: Ask,
    served_issuer: FakeIssuer,
    style: Any,
    method: str,
    target: str,
    anonymous: tuple[int, str | None],
    reader: tuple[int, str | None],
) -> None:
    own, path, headers = style(method, target)
    answer = service(headers, method=own, path=path)
    assert (answer.status, answer.challenge) == anonymous
    assert answer.told == {}
    answer = service(headers | bearer(served_issuer), method=own, path=path)
    assert (answer.status, answer.challenge) == reader


HOSTILE = {
    "P-dotdot": "/health/../admin",
    "P-pct-dotdot": "/health/%2e%2e/admin",
    "P-pct-slash": "/health%2f..%2fadmin",
    "P-pct-slash-in-public": "/docs%2fx",
    "P-semicolon": "/health;/../admin",
    "P-matrix": "/health;x",
    "P-dblslash": "//health",
    "P-dblslash-inside": "/docs//admin",
    "P-backslash": "/health\\..\\admin",
    "P-nul": "/health%00",
    "P-nl": "/health%0a",
    "P-overlong": "/docs/%c0%ae%c0%ae/admin",
    "P-pct-frag": "/admin%23/health",
    "P-pct-q": "/admin%3f/health",
    "P-pct-twice": "/docs/%252e%252e/admin",
    "P-pct-cut": "/health%",
}


@pytest.mark.parametrize("target", HOSTILE.values(), ids=HOSTILE)
def test_a_path_that_is_read_in_two_ways_opens_nothing(
    service: Ask, served_issuer: FakeIssuer, style: Any, target: str
) -> None:
    """400; nginx, which makes a 500 of that, hears 403."""
    own, path, headers = style("GET", target)
    expected = 403 if any(name.startswith("X-Original-U") for name in headers) else 400
    assert service(headers, method=own, path=path).status == expected
    assert service(headers | bearer(served_issuer, "admin write"), method=own, path=path).status == expected


def test_what_is_told_in_two_ways_is_refused(service: Ask, served_issuer: FakeIssuer) -> None:
    user = bearer(served_issuer)
    assert service({"X-Forwarded-Uri": "/health", "X-Original-URI": "/admin"} | user).status == 403
    assert service({"X-Forwarded-Uri": "/health"} | user, path="/oauth2/auth/admin").status == 400
    assert service({"X-Forwarded-Uri": "/admin", "X-Auth-Request-Redirect": "/health"} | user).status == 400
    assert service([("X-Forwarded-Uri", "/x"), ("X-Forwarded-Uri", "/x"), *user.items()]).status == 400
    assert service({"X-Forwarded-Uri": "https://a.example/health"}).status == 400


def test_the_endpoint_itself_is_written_as_it_is(service: Ask) -> None:
    assert service(path="/oauth2/%61uth/health").status == 400
    assert service({"X-Forwarded-Uri": "/health"}, path="/oauth2/%61uth").status == 400
    assert service(path="/oauth2/auth/health").status == 200


def test_without_a_method_every_rule_for_the_path_has_to_be_satisfied(service: Ask, served_issuer: FakeIssuer) -> None:
    asked = {"X-Forwarded-Uri": "/orders/1"}
    assert service(asked | bearer(served_issuer)).status == 403
    assert service(asked | bearer(served_issuer, "write")).status == 200
    assert service({"X-Forwarded-Uri": "/health"}).status == 200


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
def test_a_proxy_may_ask_in_any_method(service: Ask, method: str) -> None:
    assert service({"X-Forwarded-Uri": "/health"}, method=method).status == 200
    assert service({"X-Forwarded-Uri": "/x", "X-Forwarded-Method": "GET"}, method=method).status == 401


# Who is not believed


@pytest.mark.parametrize("target", ["/health", "/hello", "/x", "/admin"])
def test_nobody_is_believed_who_is_no_trusted_proxy(
    suspicious: Ask, served_issuer: FakeIssuer, style: Any, target: str
) -> None:
    own, path, headers = style("GET", target)
    for scope, status in (("read", 403), ("admin", 403), ("write", 403), ("admin write", 200)):
        assert suspicious(headers | bearer(served_issuer, scope), method=own, path=path).status == status
    answer = suspicious(headers, method=own, path=path)
    assert (answer.status, answer.challenge) == (401, 'Bearer scope="admin write"')


def test_a_preflight_that_nobody_vouches_for_does_not_pass(suspicious: Ask, service: Ask) -> None:
    headers = {
        "Origin": "https://spa.example",
        "Access-Control-Request-Method": "GET",
        "X-Forwarded-Method": "OPTIONS",
        "X-Forwarded-Uri": "/x",
    }
    assert suspicious(headers).status == 401
    assert service(headers).status == 200
    assert service(headers | {"X-Forwarded-Method": "GET"}).status == 401
    assert service({"X-Forwarded-Method": "OPTIONS", "X-Forwarded-Uri": "/x"}).status == 401


# What is told


def test_the_identity_is_told_in_headers_and_everything_else_is_told_to_be_empty(
    service: Ask, served_issuer: FakeIssuer
) -> None:
    claims: dict[str, Any] = {"email": "alice@example.com", "email_verified": True, "groups": ["staff", "a,b"]}
    answer = service({"X-Forwarded-Uri": "/x"} | bearer(served_issuer, **claims))
    assert (answer.status, answer.body, answer.headers["cache-control"]) == (200, b"", "no-store")
    values = {"user": "alice", "issuer": served_issuer.url, "email": "alice@example.com", "groups": "a%2Cb,staff"}
    for family in ("x-forwarded-", "x-auth-request-"):
        assert {name: answer.headers[family + name] for name in TOLD} == dict.fromkeys(TOLD, "") | values


def test_nobody_is_told_where_no_identity_is_needed(service: Ask, served_issuer: FakeIssuer) -> None:
    for headers in ({}, bearer(served_issuer), {"X-Forwarded-User": "admin", "X_Auth_Request_User": "admin"}):
        answer = service(headers | {"X-Forwarded-Uri": "/health"})
        assert {name: answer.headers[name] for name in NAMES} == dict.fromkeys(NAMES, "")


def test_an_identity_is_told_where_it_is_optional(service: Ask, served_issuer: FakeIssuer) -> None:
    asked = {"X-Forwarded-Uri": "/hello"}
    assert service(asked | bearer(served_issuer)).told["x-forwarded-user"] == "alice"
    assert service(asked | {"Authorization": "Basic YTpi"}).told == {}
    assert service(asked | {"Authorization": "Bearer x"}).status == 401


CRLF = {"F-crlf-claim": "a\r\nX-Admin: 1", "F-nul-claim": "a\0b", "F-unicode-claim": "José 李"}


@pytest.mark.parametrize("claim", CRLF.values(), ids=CRLF)
def test_no_claim_breaks_out_of_its_header(service: Ask, served_issuer: FakeIssuer, claim: str) -> None:
    answer = service({"X-Forwarded-Uri": "/x"} | bearer(served_issuer, preferred_username=claim))
    assert answer.status == 200
    assert "x-admin" not in answer.headers
    told = answer.headers["x-forwarded-preferred-username"]
    assert told.isascii()
    assert told.isprintable()


# Credentials


def test_there_is_one_credential(service: Ask, served_issuer: FakeIssuer) -> None:
    user = bearer(served_issuer)["Authorization"]
    twice = [("X-Forwarded-Uri", "/x"), ("Authorization", user), ("Authorization", user)]
    assert service(twice).status == 400  # H-dup-same
    token = user.partition(" ")[2]
    in_query = {"X-Forwarded-Uri": f"/x?access_token={token}"}
    assert service(in_query).status == 401  # H-query
    assert service(in_query | {"Authorization": user}).status == 400  # H-query-and-header


def test_an_invalid_token_is_401(service: Ask) -> None:
    answer = service({"X-Forwarded-Uri": "/x", "Authorization": "Bearer a.b.c"})
    assert answer.status == 401
    assert 'error="invalid_token"' in (answer.challenge or "")


def test_the_body_is_a_page_where_the_browser_wants_one(service: Ask) -> None:
    answer = service({"X-Forwarded-Uri": "/x", "Accept": "text/html,*/*;q=0.1"})
    assert answer.status == 401
    assert answer.headers["content-type"].startswith("text/html")


def test_a_bad_issuer_is_no_refusal(tmp_path_factory: pytest.TempPathFactory) -> None:
    with FakeIssuer().serve_in_thread() as issuer:
        settings = {"issuer": issuer.url, "audience": issuer.audience, "trusted_proxies": "127.0.0.1"}
        with serving(tmp_path_factory.mktemp("serve"), settings) as port:
            token = issuer.token("alice", headers={"kid": "of-a-key-that-nobody-has"})
            answer = asker(port)({"X-Forwarded-Uri": "/x", "Authorization": f"Bearer {token}"})
    assert answer.status == 401


# The service itself


def test_there_is_nothing_else(service: Ask, served_issuer: FakeIssuer) -> None:
    for path in ("/", "/health", "/docs/x", "/hello", "/favicon.ico", "/admin"):
        answer = service(bearer(served_issuer), path=path)
        assert (answer.status, answer.headers["cache-control"]) == (404, "no-store")
        assert b"/oauth2/auth" in answer.body
    assert "server" not in service(path="/").headers
    assert service(path="/oauth2/health").body == b'{"status":"ok"}'


def test_a_websocket_is_asked_about_like_a_request(service: Ask, served_issuer: FakeIssuer) -> None:
    """Caddy passes the whole handshake on, the others leave out what is for the next hop."""
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    for more in ({}, upgrade):
        asked = {"X-Forwarded-Uri": "/ws", "Sec-WebSocket-Key": "eA==", "Sec-WebSocket-Version": "13"} | more
        assert service(asked).status == 401
        assert service(asked | bearer(served_issuer)).status == 200


def test_bytes_that_no_path_has_are_refused(settings: dict[str, str], tmp_path: Path) -> None:
    with serving(tmp_path, settings | {"trusted_proxies": "127.0.0.1"}) as port:
        server = Server("serve", port, 0)
        assert server.raw("OPTIONS * HTTP/1.1")[0] in {400, 404}
        assert server.raw("GET /oauth2/auth HTTP/1.1", "X-Forwarded-Uri: /he\xe9")[0] == 400
        assert server.raw("GET /oauth2/auth HTTP/1.1", "X-Forwarded-Uri: /docs/\x01")[0] == 400
