"""The `http/path-exclusion` abuse cases at the door: what looks like a way round it is none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oidc_middleware import Rule
from oidc_middleware.errors import ConfigError

from abuse.door import Door, Headers
from abuse.signing import Signer

pytestmark = pytest.mark.anyio

ADMIN = Rule("/admin/*", scopes=("admin",))
NO_CREDENTIALS = (401, 'Bearer realm="oidc"')
NO_CREDENTIALS_FOR_ADMIN = (401, 'Bearer scope="admin"')
NOT_PERMITTED = (
    403,
    (
        'Bearer error="insufficient_scope", error_description="The access token does not permit this request.", '
        'scope="admin"'
    ),
)
BAD_PATH = (400, 'Bearer error="invalid_request", error_description="The request is malformed."')


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture
def door(signer: Signer) -> Door:
    return Door(signer.jwks(), public=["/health", "/docs/*"], optional=["/hello"], rules=[ADMIN])


# The path as on the wire, the answer without a token, and the answer with a token that lacks the scope `admin`.
IDENTITY = (NO_CREDENTIALS, (200, None))
FOR_ADMIN = (NO_CREDENTIALS_FOR_ADMIN, NOT_PERMITTED)
NOBODY = (BAD_PATH, BAD_PATH)
PATHS = {
    "P-pct-dotdot": ("/health/%2e%2e/admin", NOBODY),
    "P-pct-dotdot-upper": ("/health/%2E%2E/admin", NOBODY),
    "P-pct-dotdot-half": ("/health/.%2e/admin", NOBODY),
    "P-pct-dotdot-twice": ("/docs/%252e%252e/admin", NOBODY),
    "P-dotdot": ("/health/../admin", NOBODY),
    "P-dot": ("/health/./", NOBODY),
    "P-dotdot-end": ("/docs/..", NOBODY),
    "P-dotdot-matrix": ("/docs/..;x/admin", NOBODY),
    "P-pct-slash": ("/health%2f..%2fadmin", NOBODY),
    "P-pct-slash-in-public": ("/docs%2fx", NOBODY),
    "P-semicolon": ("/health;/../admin", NOBODY),
    "P-semicolon-public": ("/health;", NOBODY),
    "P-semicolon-escaped": ("/health%3b", NOBODY),
    "P-matrix": ("/admin;x=/health", NOBODY),
    "P-jsession": ("/health;jsessionid=1/../admin", NOBODY),
    "P-dblslash": ("//health/../admin", NOBODY),
    "P-dblslash-alone": ("//admin", NOBODY),
    "P-dblslash-public": ("//health", NOBODY),
    "P-dblslash-inside": ("/docs//admin", NOBODY),
    "P-backslash": ("/health\\..\\admin", NOBODY),
    "P-backslash-escaped": ("/docs%5cadmin", NOBODY),
    "P-nul": ("/admin%00/health", NOBODY),
    "P-nul-public": ("/health%00", NOBODY),
    "P-nl": ("/health%0a", NOBODY),
    "P-nl-inside": ("/admin%0a/health", NOBODY),
    "P-cr": ("/health%0d", NOBODY),
    "P-tab": ("/health%09", NOBODY),
    "P-pct-letter": ("/%61dmin", FOR_ADMIN),
    "P-pct-letter-below": ("/admi%6e/users", FOR_ADMIN),
    "P-pct-public": ("/%68ealth", ((200, None), (200, None))),
    "P-overlong": ("/%c0%ae%c0%ae/admin", NOBODY),
    "P-overlong-slash": ("/health%c0%afadmin", NOBODY),
    "P-pct-frag": ("/admin%23/health", NOBODY),
    "P-pct-q": ("/admin%3f/health", NOBODY),
    "P-pct-cut": ("/health%", NOBODY),
    "P-pct-u": ("/%u0061dmin", NOBODY),
    "P-prefix": ("/healthadmin", IDENTITY),
    "P-prefix-dash": ("/health-internal", IDENTITY),
    "P-prefix-z": ("/healthz/../x", NOBODY),
    "P-prefix-docs": ("/docsadmin", IDENTITY),
    "P-trail": ("/health/", IDENTITY),
    "P-trail-two": ("/health//", NOBODY),
    "P-trail-rule": ("/admin/", FOR_ADMIN),
    "P-asterisk": ("*", NOBODY),
    "P-noslash": ("health", NOBODY),
    "P-empty": ("", NOBODY),
    "P-absolute": ("http://evil.example/health", NOBODY),
    "P-unicode": ("/he%CC%81alth", IDENTITY),
    "P-unicode-composed": ("/h%C3%A9alth", IDENTITY),
    "P-unicode-full-width": ("/health%EF%BC%8Fadmin", IDENTITY),
    "P-unicode-full-width-dot": ("/docs/%EF%BC%8E%EF%BC%8E/admin", ((200, None), (200, None))),
    "P-unicode-separator": ("/health%E2%80%A8", NOBODY),
    "P-case": ("/HEALTH", IDENTITY),
    "P-long": ("/" + "a" * 65_535, IDENTITY),
    "P-long-public": ("/docs/" + "a/" * 32_000, ((200, None), (200, None))),
}


@pytest.mark.parametrize("server", ["raw", "no-raw"])
@pytest.mark.parametrize(("path", "expected"), PATHS.values(), ids=PATHS)
async def test_a_path(path: str, expected: tuple[Any, Any], server: str, door: Door, signer: Signer) -> None:
    """With `raw_path`, and without, which a server may leave out; asked twice, for decisions are remembered."""
    scope: dict[str, Any] = {} if server == "raw" else {"raw_path": None}
    if server == "no-raw" and path in {"/health%2f..%2fadmin", "/docs%2fx", "/health%"}:
        expected = {"/docs%2fx": ((200, None), (200, None)), "/health%": IDENTITY}.get(path, expected)
    for token, answer in ((None, expected[0]), (signer.token(), expected[1])) * 2:
        asked = await door.ask(path, token=token, **scope)
        assert (asked.status, asked.challenge) == answer
        assert (asked.seen is not None) == (asked.status == 200)


@pytest.mark.parametrize("path", ["/admin", "/admin/users", "/orders", "/hello/x"])
async def test_raw_path_never_opens_what_path_closes(path: str, door: Door) -> None:
    """A client that controls one of the two gains nothing: the stricter one counts."""
    for raw in (b"/health", b"/docs/x", b"", None, b"/hello", b"/oauth2/health"):
        assert (await door.ask(path, raw_path=raw)).status == 401
    for raw in (b"//health", b"/health/../admin", b"/health%2f", b"/\xff", b"/health;x"):
        assert (await door.ask("/health", raw_path=raw)).status == 400


QUERIES = {"P-query": b"x=/health", "P-query-bare": b"/health", "P-fragment": b"#/health"}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
async def test_a_query_is_no_path(query: bytes, door: Door) -> None:
    answer = await door.ask("/admin", query=query, raw_path=b"/admin?" + query)
    assert (answer.status, answer.challenge) == NO_CREDENTIALS_FOR_ADMIN


# Headers by which proxies and frameworks speak of another path, host or method.
HEADERS: dict[str, Headers] = {
    "P-xfu": [(b"x-forwarded-uri", b"/health")],
    "P-xfu-original-url": [(b"x-original-url", b"/health")],
    "P-xfu-original-uri": [(b"x-original-uri", b"/health")],
    "P-xfu-rewrite-url": [(b"x-rewrite-url", b"/health")],
    "P-xfu-prefix": [(b"x-forwarded-prefix", b"/admin"), (b"x-script-name", b"/admin"), (b"script_name", b"/admin")],
    "P-xfu-path": [(b"x-forwarded-path", b"/health"), (b"x-envoy-original-path", b"/health")],
    "P-xfu-method": [(b"x-forwarded-method", b"OPTIONS"), (b"x-original-method", b"OPTIONS")],
    "P-xfu-forwarded": [(b"forwarded", b'for=127.0.0.1;host="a/health";proto=https')],
    "P-xfu-from-here": [(b"x-forwarded-for", b"127.0.0.1"), (b"x-real-ip", b"127.0.0.1"), (b"x-client-ip", b"::1")],
    "P-host-poison": [(b"host", b"a/health?x=")],
    "P-host-poison-forwarded": [(b"host", b"api.example"), (b"x-forwarded-host", b"a/health?x=")],
    "P-host-poison-two": [(b"host", b"api.example"), (b"host", b"a/health?x=")],
    "P-method-override": [(b"x-http-method-override", b"OPTIONS"), (b"content-type", b"text/plain")],
    "P-method-override-other": [(b"x-http-method", b"OPTIONS"), (b"x-method-override", b"GET")],
    "P-ua-health": [(b"user-agent", b"GoogleHC/1.0")],
    "P-ua-health-kube": [(b"user-agent", b"kube-probe/1.30")],
    "P-ua-health-elb": [(b"user-agent", b"ELB-HealthChecker/2.0")],
    "P-sse": [(b"accept", b"text/event-stream"), (b"last-event-id", b"1")],
    "P-sse-upgrade": [(b"connection", b"Upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-key", b"eA==")],
    "P-origin-alone": [(b"origin", b"https://api.example")],
    "P-fetch-metadata": [(b"sec-fetch-site", b"same-origin"), (b"sec-fetch-mode", b"navigate")],
    "P-internal": [(b"x-internal", b"1"), (b"x-forwarded-proto", b"https"), (b"via", b"1.1 proxy")],
    "P-spoof-user": [(b"x-forwarded-user", b"admin"), (b"remote-user", b"admin")],
    "P-client-certificate": [(b"x-ssl-client-verify", b"SUCCESS"), (b"x-forwarded-client-cert", b"Subject=admin")],
}


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
async def test_no_header_speaks_for_path_or_method(headers: Headers, door: Door) -> None:
    for method in ("GET", "POST", "OPTIONS", "HEAD", "DELETE"):
        for path, expected in (("/admin", NO_CREDENTIALS_FOR_ADMIN), ("/orders", NO_CREDENTIALS)):
            answer = await door.ask(path, headers=headers, method=method, query=b"_method=GET")
            assert (answer.status, answer.challenge, answer.seen) == (*expected, None)


@pytest.mark.parametrize("root_path", ["/admin", "/ad", "/health", "/", "/admin/", "//", "admin", "/docs/.."])
async def test_a_root_path_opens_nothing(root_path: str, door: Door) -> None:
    """It comes from the server or a mount, never from a header; but an odd one must not open anything either."""
    for path in ("/admin", "/admin/users", "/orders"):
        assert (await door.ask(path, root_path=root_path)).status == 401


async def test_a_mounted_health_is_public(door: Door) -> None:
    assert (await door.ask("/api/health", root_path="/api")).status == 200
    assert (await door.ask("/apihealth", root_path="/api")).status == 401


ORIGIN = (b"origin", b"https://app.example")
ASKED_METHOD = (b"access-control-request-method", b"POST")


async def test_a_true_preflight_reaches_the_app_as_nobody(door: Door) -> None:
    """P-options: and what it claims of an identity is taken off."""
    headers = [ORIGIN, ASKED_METHOD, (b"x-forwarded-user", b"admin")]
    for path in ("/orders", "/admin", "/hello"):
        answer = await door.ask(path, method="OPTIONS", headers=headers)
        assert answer.status == 200
        assert answer.seen_headers == [ORIGIN, ASKED_METHOD]
        assert not answer.seen["user"].is_authenticated  # type: ignore[index]
        assert answer.seen["auth"].scopes == []  # type: ignore[index]


NO_PREFLIGHTS: dict[str, tuple[str, Headers]] = {
    "P-options": ("OPTIONS", []),
    "P-options-origin-alone": ("OPTIONS", [ORIGIN]),
    "P-options-method-alone": ("OPTIONS", [ASKED_METHOD]),
    "P-options-empty-values": ("OPTIONS", [(b"origin", b""), (b"access-control-request-method", b"")]),
    "P-options-headers-alone": ("OPTIONS", [ORIGIN, (b"access-control-request-headers", b"authorization")]),
    "P-options-lower-case": ("options", [ORIGIN, ASKED_METHOD]),
    "P-options-mixed-case": ("Options", [ORIGIN, ASKED_METHOD]),
    "P-options-space": ("OPTIONS ", [ORIGIN, ASKED_METHOD]),
    "P-options-get": ("GET", [ORIGIN, ASKED_METHOD]),
    "P-options-post": ("POST", [ORIGIN, ASKED_METHOD]),
    "P-options-with-scheme": ("OPTIONS", [ORIGIN, ASKED_METHOD, (b"authorization", b"Basic dXNlcjpwdw==")]),
}


@pytest.mark.parametrize(("method", "headers"), NO_PREFLIGHTS.values(), ids=NO_PREFLIGHTS)
async def test_what_is_no_preflight_needs_an_identity(method: str, headers: Headers, door: Door) -> None:
    answer = await door.ask(method=method, headers=headers)
    assert (answer.status, answer.challenge, answer.seen) == (*NO_CREDENTIALS, None)


async def test_a_preflight_with_a_bad_token_is_refused(door: Door) -> None:
    answer = await door.ask(method="OPTIONS", headers=[ORIGIN, ASKED_METHOD], token="evil")
    assert (answer.status, answer.seen) == (401, None)


async def test_preflights_need_an_identity_where_they_are_protected(signer: Signer) -> None:
    door = Door(signer.jwks(), preflight="protect")
    assert (await door.ask(method="OPTIONS", headers=[ORIGIN, ASKED_METHOD])).status == 401


async def test_a_preflight_is_no_way_round_a_bad_path_or_to_our_endpoints(signer: Signer) -> None:
    door = Door(signer.jwks(), admin_scope="ops", ambiguous_paths="protect", rules=[ADMIN])
    for path, status in (("/a/../b", 400), ("//orders", 401), ("/oauth2/status", 401)):
        answer = await door.ask(path, method="OPTIONS", headers=[ORIGIN, ASKED_METHOD])
        assert (answer.status, answer.seen) == (status, None)


METHODS = ("get", "GeT", "PROPFIND", "QUERY", "", "*", "GET /health", "GET\r\n", "G\u0130T", "\u017f", "X" * 100_000)


@pytest.mark.parametrize("method", METHODS, ids=range(len(METHODS)))
async def test_no_method_opens_a_path(method: str, door: Door, signer: Signer) -> None:
    """A rule holds for methods in any case: frameworks turn them into capitals behind our back."""
    answer = await door.ask("/admin", method=method)
    assert (answer.status, answer.seen) == (401, None)
    only = Door(signer.jwks(), rules=[Rule("/admin/*", methods=("DELETE", "POST"), scopes=("admin",))])
    for spelled in ("delete", "DELETE", "dElEtE", "po\u017ft", "post"):
        assert (await only.ask("/admin/x", method=spelled, token=signer.token())).status == 403
    assert (await only.ask("/admin/x", method=method, token=signer.token())).status == 200


# WebSockets


@pytest.mark.parametrize("path", ["/ws", "/health/ws", "/docsx", "/admin/ws"])
async def test_a_websocket_without_token_is_denied_before_it_opens(path: str, door: Door) -> None:
    """P-websocket: the status and challenge of a request; plain close where the server can do no better."""
    answer = await door.handshake(path)
    expected = NO_CREDENTIALS_FOR_ADMIN if path.startswith("/admin") else NO_CREDENTIALS
    assert (answer.status, answer.challenge, answer.seen) == (*expected, None)
    assert json.loads(answer.body)["error"] == "missing_token"
    closed = await door.handshake(path, denial=False)
    assert (closed.messages, closed.seen) == ([{"type": "websocket.close"}], None)


async def test_a_websocket_with_a_token_opens(door: Door, signer: Signer) -> None:
    for _ in range(2):
        answer = await door.handshake(token=signer.token())
        assert (answer.status, answer.seen["user"].subject) == (101, "alice")  # type: ignore[index]
    assert (await door.handshake("/docs/ws")).status == 101
    assert (await door.handshake("/hello")).status == 101
    denied = await door.handshake("/admin/ws", token=signer.token())
    assert (denied.status, denied.challenge) == NOT_PERMITTED


async def test_a_websocket_is_no_preflight(door: Door) -> None:
    assert (await door.handshake(headers=[ORIGIN, ASKED_METHOD])).status == 401
    assert (await door.handshake(headers=[ORIGIN, ASKED_METHOD], method="OPTIONS")).status == 401


PLACES: dict[str, Any] = {
    "subprotocol": lambda token: {"headers": [(b"sec-websocket-protocol", b"chat, bearer." + token)]},
    "query": lambda token: {"query": b"access_token=" + token},
    "query-token": lambda token: {"query": b"token=" + token},
    "cookie": lambda token: {"headers": [(b"cookie", b"access_token=" + token)]},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("configured", ["header", "subprotocol"])
async def test_a_websocket_token_is_read_where_it_is_configured_to_be(
    place: str, configured: str, signer: Signer
) -> None:
    """P-websocket-token: the header always; the subprotocol by configuration; query and cookie never."""
    door = Door(signer.jwks(), websocket_token=configured)
    request = PLACES[place](signer.token().encode())
    expected = 101 if place == "subprotocol" == configured else 401
    for _ in range(2):
        assert (await door.handshake(**request)).status == expected
        assert (await door.handshake(token=signer.token())).status == 101


async def test_a_subprotocol_carries_one_token_and_the_app_is_not_offered_it(signer: Signer) -> None:
    door = Door(signer.jwks(), websocket_token="subprotocol", optional=["/hello"])
    token = signer.token().encode()
    offer = (b"sec-websocket-protocol", b"chat, bearer." + token)
    answer = await door.handshake(headers=[offer], subprotocols=["chat", "bearer." + token.decode()])
    assert (answer.status, answer.seen["subprotocols"]) == (101, ["chat"])  # type: ignore[index]
    for path in ("/orders", "/hello"):
        for bad in (
            {"headers": [offer, offer]},
            {"headers": [offer], "token": token.decode()},
            {"headers": [offer], "query": b"access_token=" + token},
            {"headers": [(b"sec-websocket-protocol", b"bearer.")]},
        ):
            assert (await door.handshake(path, **bad)).status == 400
        evil = [(b"sec-websocket-protocol", b"bearer.evil")]
        assert (await door.handshake(path, headers=evil)).status == 401
    # A request is no handshake, whatever it offers.
    assert (await door.ask(headers=[offer])).status == 401


# Optional paths


async def test_a_bad_token_is_not_anonymous(door: Door, signer: Signer) -> None:
    """P-optional-auth."""
    pretended = (b"x-forwarded-user", b"admin")
    anonymous = await door.ask("/hello", headers=[pretended, (b"accept", b"*/*")])
    assert (anonymous.status, anonymous.seen_headers) == (200, [(b"accept", b"*/*")])
    assert not anonymous.seen["user"].is_authenticated  # type: ignore[index]
    known = await door.ask("/hello", headers=[pretended], token=signer.token())
    assert (known.status, known.seen["user"].subject) == (200, "alice")  # type: ignore[index]
    for token in ("evil", signer.token(key=signer.evil), signer.token(claims={"exp": 1})):
        answer = await door.ask("/hello", token=token)
        assert (answer.status, answer.seen) == (401, None)
    other_scheme = await door.ask("/hello", headers=[(b"authorization", b"Basic dXNlcjpwdw==")])
    assert (other_scheme.status, other_scheme.seen["user"].is_authenticated) == (200, False)  # type: ignore[index]


# Patterns


@pytest.mark.parametrize("field", ["public", "optional"])
@pytest.mark.parametrize("path", ["", "/", None, ".*", "/.*", "^/", "*", "/*", "/{any}", "/{a}/{b}", "//", "/x/../y"])
def test_nothing_opens_everything(field: str, path: Any, signer: Signer) -> None:
    """P-empty-rule: told at start."""
    settings: dict[str, Any] = {field: [path]}
    with pytest.raises(ConfigError) as refused:
        Door(signer.jwks(), **settings)
    assert refused.value.field == field


@pytest.mark.parametrize("path", ["^(/a+)+$", "/(a+)+", "/a+$", "/[ab]", "/a|/b", "/health.*", "(?i)/health"])
async def test_a_regular_expression_is_refused_or_taken_literally(path: str, signer: Signer) -> None:
    """P-regex-redos: nothing here can take longer than the path is long."""
    hostile = "/" + "a" * 4096 + "!"
    try:
        door = Door(signer.jwks(), public=[path])
    except ConfigError:
        return
    for asked in (hostile, "/aaa", "/a", "/b", "/HEALTH", "/healthadmin"):
        assert (await door.ask(asked)).status == 401
