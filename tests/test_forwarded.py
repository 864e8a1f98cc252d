"""What a proxy tells of the request that it asks about: read in one way only, or refused."""

from __future__ import annotations

from ipaddress import ip_network
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware import Rule
from oidc_middleware.core.forwarded import Forwarded, comes_from, read
from oidc_middleware.core.policy import Access, Policy
from oidc_middleware.errors import InvalidRequest

ADMIN = Rule("/admin/*", scopes=("admin",))
EDIT = Rule("/orders/*", methods=("POST",), scopes=("write",))
SEE = Rule("/orders/*", methods=("GET",), scopes=("read",))
POLICY = Policy(
    public=["/health", "/docs/*"],
    optional=["/hello"],
    rules=[ADMIN, EDIT, SEE],
    endpoints={"health": None, "auth/*": None, "status": ("ops",)},
)


def forwarded(**headers: str) -> Forwarded:
    found = read([(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()])
    assert found is not None
    return found


def asked(method: str | None, uri: str) -> Forwarded:
    return forwarded(x_forwarded_uri=uri, **({"x_forwarded_method": method} if method else {}))


TELLING: dict[str, tuple[dict[str, str], str | None, str, str | None, str | None]] = {
    "traefik": (
        {
            "x_forwarded_method": "POST",
            "x_forwarded_uri": "/orders/1?a=b",
            "x_forwarded_host": "App.example.com",
            "x_forwarded_proto": "https",
        },
        "POST",
        "/orders/1?a=b",
        "app.example.com",
        "https",
    ),
    "traefik-websocket": (
        {"x_forwarded_uri": "/ws", "x_forwarded_host": "app.example.com:443", "x_forwarded_proto": "wss"},
        None,
        "/ws",
        "app.example.com",
        "https",
    ),
    "nginx": ({"x_original_method": "PUT", "x_original_uri": "/a?b"}, "PUT", "/a?b", None, None),
    "nginx-ingress": (
        {
            "x_original_method": "GET",
            "x_original_url": "https://app.example.com/a?b",
            "x_auth_request_redirect": "/a?b",
        },
        "GET",
        "/a?b",
        "app.example.com",
        "https",
    ),
    "nginx-for-oauth2-proxy": (
        {"x_auth_request_redirect": "https://app.example.com:8443/a"},
        None,
        "/a",
        "app.example.com:8443",
        "https",
    ),
    "url-without-a-path": ({"x_original_url": "http://app.example.com"}, None, "/", "app.example.com", "http"),
    "url-with-a-query-only": ({"x_original_url": "http://[::1]:80?x"}, None, "/?x", "[::1]", "http"),
    "twice-alike": ({"x_forwarded_uri": "/a", "x_original_uri": "/a"}, None, "/a", None, None),
}


@pytest.mark.parametrize(("headers", "method", "target", "host", "scheme"), TELLING.values(), ids=TELLING)
def test_a_request_is_read_as_each_proxy_tells_it(
    headers: dict[str, str], method: str | None, target: str, host: str | None, scheme: str | None
) -> None:
    found = forwarded(**headers)
    assert (found.method, found.target, found.host, found.scheme) == (method, target, host, scheme)


def test_a_path_is_decoded_once() -> None:
    found = forwarded(x_forwarded_uri="/%61dmin%252f?%61")
    assert (found.path, found.raw_path, found.query) == ("/admin%2f", b"/%61dmin%252f", b"%61")


def test_envoy_puts_the_path_below_the_endpoint() -> None:
    found = read([], below=b"/orders/1?a=b", method="DELETE")
    assert found is not None
    assert (found.method, found.target) == ("DELETE", "/orders/1?a=b")


def test_without_a_path_nothing_is_known() -> None:
    assert read([]) is None
    assert read([(b"x-forwarded-method", b"POST"), (b"x-forwarded-host", b"app.example.com")]) is None
    assert (
        read([(b"x_forwarded_uri", b"/health"), (b"x-rewrite-url", b"/health"), (b"x-forwarded-prefix", b"/h")]) is None
    )


REFUSED: dict[str, list[tuple[bytes, bytes]]] = {
    "twice": [(b"x-forwarded-uri", b"/a"), (b"x-forwarded-uri", b"/a")],
    "method-twice": [(b"x-forwarded-method", b"GET"), (b"x-forwarded-method", b"GET"), (b"x-forwarded-uri", b"/a")],
    "two-paths": [(b"x-forwarded-uri", b"/health"), (b"x-original-uri", b"/admin")],
    "two-methods": [(b"x-forwarded-method", b"GET"), (b"x-original-method", b"POST"), (b"x-forwarded-uri", b"/")],
    "two-methods-in-two-cases": [
        (b"x-forwarded-method", b"get"),
        (b"x-original-method", b"GET"),
        (b"x-forwarded-uri", b"/"),
    ],
    "two-hosts": [(b"x-forwarded-host", b"a.example"), (b"x-original-url", b"https://b.example/")],
    "two-schemes": [(b"x-forwarded-proto", b"http"), (b"x-original-url", b"https://b.example/")],
    "two-methods-and-no-path": [(b"x-forwarded-method", b"GET"), (b"x-original-method", b"POST")],
    "empty": [(b"x-forwarded-uri", b"")],
    "absolute": [(b"x-forwarded-uri", b"https://app.example.com/health")],
    "absolute-original-uri": [(b"x-original-uri", b"http://evil.example/health")],
    "no-slash": [(b"x-forwarded-uri", b"health")],
    "asterisk": [(b"x-forwarded-uri", b"*")],
    "authority": [(b"x-forwarded-uri", b"app.example.com:443")],
    "space": [(b"x-forwarded-uri", b"/health /admin")],
    "tab": [(b"x-forwarded-uri", b"/health\t")],
    "nul": [(b"x-forwarded-uri", b"/health\0")],
    "fragment": [(b"x-forwarded-uri", b"/admin#/health")],
    "fragment-in-the-query": [(b"x-forwarded-uri", b"/admin?#/health")],
    "user-in-a-url": [(b"x-original-url", b"https://app.example.com@evil.example/health")],
    "other-scheme": [(b"x-original-url", b"ftp://app.example.com/health")],
    "no-host": [(b"x-original-url", b"https:///health")],
    "backslash-host": [(b"x-original-url", b"https://a\\b/health")],
    "method-with-a-space": [(b"x-forwarded-method", b"GET POST"), (b"x-forwarded-uri", b"/")],
    "method-list": [(b"x-forwarded-method", b"GET, POST"), (b"x-forwarded-uri", b"/")],
    "no-method": [(b"x-forwarded-method", b""), (b"x-forwarded-uri", b"/")],
    "scheme-list": [(b"x-forwarded-proto", b"https, http"), (b"x-forwarded-uri", b"/")],
    "scheme": [(b"x-forwarded-proto", b"javascript"), (b"x-forwarded-uri", b"/")],
    "host-list": [(b"x-forwarded-host", b"a.example, b.example"), (b"x-forwarded-uri", b"/")],
    "host-with-a-path": [(b"x-forwarded-host", b"a.example/x"), (b"x-forwarded-uri", b"/")],
}


@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED)
def test_what_is_garbage_or_told_in_two_ways_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(InvalidRequest):
        read(headers)


def test_a_header_that_a_client_adds_to_envoys_path_is_refused_unless_it_says_the_same() -> None:
    assert read([(b"x-forwarded-uri", b"/admin")], below=b"/admin", method="GET") is not None
    with pytest.raises(InvalidRequest):
        read([(b"x-forwarded-uri", b"/health")], below=b"/admin", method="GET")
    with pytest.raises(InvalidRequest):
        read([(b"x-original-method", b"GET")], below=b"/admin", method="POST")


_NAMES = [
    b"x-forwarded-uri",
    b"x-original-uri",
    b"x-original-url",
    b"x-auth-request-redirect",
    b"x-forwarded-method",
    b"x-original-method",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"accept",
]


@given(
    st.lists(
        st.tuples(st.sampled_from(_NAMES), st.binary(max_size=40) | st.sampled_from([b"/", b"https://a/", b"GET"]))
    ),
    st.none() | st.binary(max_size=20),
    st.text(max_size=5),
)
def test_any_headers_are_read_or_refused(headers: list[tuple[bytes, bytes]], below: bytes | None, method: str) -> None:
    try:
        found = read(headers, below=below, method=method)
    except InvalidRequest:
        return
    if found is not None:
        assert found.raw_path.startswith(b"/")
        assert POLICY.decide_forwarded(found).endpoint is None


_PIECES = [
    "/",
    "health",
    "docs",
    "admin",
    "orders",
    "..",
    "%2e",
    "%2f",
    ";",
    "\\",
    "%61",
    "%00",
    "?",
    "#",
    "%",
    "é",
    "*",
]


@given(
    st.lists(st.sampled_from(_PIECES), max_size=8).map(lambda pieces: "/" + "".join(pieces)),
    st.sampled_from(["GET", "POST"]),
)
def test_a_forwarded_request_is_decided_like_one_at_the_door(uri: str, method: str) -> None:
    """Whatever an app would get with this request line, the answer is the same."""
    raw = uri.encode("latin-1").partition(b"?")[0]
    at_the_door = POLICY.decide(method, unquote(raw.decode("utf-8", "replace")), raw)
    try:
        found = asked(method, uri)
    except InvalidRequest:
        assert "#" in uri
        return
    decision = POLICY.decide_forwarded(found)
    assert (decision.access, decision.rules) == (at_the_door.access, at_the_door.rules)


# Who is believed


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("11.0.0.1", False),
        ("::2", False),
        ("testclient", False),
        ("", False),
        (None, False),
    ],
)
def test_proxies_are_believed_by_their_address(address: str | None, expected: bool) -> None:
    networks = [ip_network("10.0.0.0/8"), ip_network("::1"), ip_network("fe80::/10")]
    assert comes_from(networks, address) is expected


def test_nobody_is_believed_where_no_proxy_is_named() -> None:
    assert comes_from([], "127.0.0.1") is False


# What the policy makes of it


@pytest.mark.parametrize(
    ("method", "uri", "access", "rules"),
    [
        ("POST", "/health", Access.PUBLIC, ()),
        (None, "/docs/x?y", Access.PUBLIC, ()),
        (None, "/hello", Access.OPTIONAL, ()),
        ("GET", "/orders/1", Access.IDENTITY, (SEE,)),
        ("POST", "/orders/1?x=/health", Access.IDENTITY, (EDIT,)),
        ("post", "/orders/1", Access.IDENTITY, (EDIT,)),
        ("DELETE", "/orders/1", Access.IDENTITY, ()),
        (None, "/orders/1", Access.IDENTITY, (EDIT, SEE)),
        (None, "/elsewhere", Access.IDENTITY, ()),
        ("GET", "/%61dmin", Access.IDENTITY, (ADMIN,)),
        ("GET", "/health/%2e%2e/admin", Access.REFUSED, ()),
        ("GET", "/health;x", Access.REFUSED, ()),
        ("GET", "//health", Access.REFUSED, ()),
        ("GET", "/health%2fadmin", Access.REFUSED, ()),
        ("GET", "/oauth2/health", Access.PUBLIC, ()),
        ("GET", "/oauth2/auth/x", Access.PUBLIC, ()),
    ],
)
def test_public_optional_and_rules_speak_of_the_forwarded_request(
    method: str | None, uri: str, access: Access, rules: tuple[Rule, ...]
) -> None:
    decision = POLICY.decide_forwarded(asked(method, uri))
    assert (decision.access, decision.rules, decision.endpoint) == (access, rules, None)


def test_an_endpoint_of_ours_asks_for_what_it_needs() -> None:
    decision = POLICY.decide_forwarded(forwarded(x_forwarded_uri="/oauth2/status"))
    assert (decision.access, decision.scopes, decision.endpoint) == (Access.IDENTITY, ("ops",), None)


def test_a_request_that_nobody_tells_of_is_never_public_and_has_to_satisfy_every_rule() -> None:
    decision = POLICY.decide_forwarded(None)
    assert (decision.access, decision.rules) == (Access.IDENTITY, (ADMIN, EDIT, SEE))
    assert decision.ambiguous  # no place for a preflight


def test_protect_holds_for_forwarded_paths_too() -> None:
    policy = Policy(public=["/docs/*"], rules=[ADMIN, EDIT], ambiguous_paths="protect")
    for method in ("GET", None):
        decision = policy.decide_forwarded(asked(method, "/docs//x"))
        assert (decision.access, decision.rules, decision.ambiguous) == (Access.IDENTITY, (ADMIN, EDIT), True)


# Endpoints with paths below them


@pytest.mark.parametrize(
    "path", ["/oauth2/auth", "/oauth2/auth/", "/oauth2/auth/orders/1", "/oauth2/auth/oauth2/health"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "PROPFIND"])
def test_an_endpoint_may_have_paths_below_it(path: str, method: str) -> None:
    decision = POLICY.decide(method, path, path.encode())
    assert (decision.access, decision.endpoint) == (Access.PUBLIC, "auth")


@pytest.mark.parametrize("path", ["/oauth2/authx", "/oauth2/health/x", "/OAUTH2/auth", "/x/oauth2/auth"])
def test_nothing_else_is_below_an_endpoint(path: str) -> None:
    assert POLICY.decide("GET", path).endpoint is None


def test_ambiguous_paths_below_an_endpoint_are_for_it_to_judge_where_they_are_protected() -> None:
    policy = Policy(ambiguous_paths="protect", endpoints={"auth/*": None})
    assert policy.decide("GET", "/oauth2/auth//x").endpoint == "auth"
    assert POLICY.decide("GET", "/oauth2/auth//x").access is Access.REFUSED
    assert policy.decide("GET", "/oauth2/auth/../health").access is Access.REFUSED


@pytest.mark.parametrize("uri", ["/oauth2/auth/%252e%252e/%252e%252e/admin", "/oauth2/auth//admin", "/oauth2/auth/;/a"])
def test_an_ambiguous_path_below_an_endpoint_opens_nothing_of_the_app(uri: str) -> None:
    """A proxy that lets it pass sends it to the app, which may decode twice."""
    policy = Policy(rules=[ADMIN], ambiguous_paths="protect", endpoints={"auth/*": None})
    decision = policy.decide_forwarded(asked("GET", uri))
    assert (decision.access, decision.rules, decision.ambiguous) == (Access.IDENTITY, (ADMIN,), True)
    assert POLICY.decide_forwarded(asked("GET", uri)).access is Access.REFUSED


def test_no_list_opens_what_is_below_an_endpoint() -> None:
    with pytest.raises(ValueError, match="match the same paths"):
        Policy(public=["/oauth2/auth/x"], endpoints={"auth/*": None})
