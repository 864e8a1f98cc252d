"""What the proxy makes of targets, addresses, cookies and bodies, without a socket."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware.core.paths import classify
from oidc_middleware.errors import ConfigError, InvalidRequest
from oidc_middleware.proxy import ReverseProxy
from oidc_middleware.proxy.cookies import OwnCookies
from oidc_middleware.proxy.fields import of_request, of_response
from oidc_middleware.proxy.origin import origin, told
from oidc_middleware.proxy.outgoing import Body, outgoing
from oidc_middleware.proxy.upstream import Upstream

UPSTREAM = Upstream.parse("http://app.internal:9000/base/")


@pytest.mark.parametrize(
    ("url", "authority", "path", "shown"),
    [
        ("http://127.0.0.1:9000", b"127.0.0.1:9000", b"", "http://127.0.0.1:9000"),
        ("https://App.Internal/", b"app.internal", b"", "https://app.internal"),
        ("http://[::1]:80/a/b/", b"[::1]", b"/a/b", "http://[::1]/a/b"),
        ("https://a.example:444/x", b"a.example:444", b"/x", "https://a.example:444/x"),
    ],
)
def test_upstreams(url: str, authority: bytes, path: bytes, shown: str) -> None:
    found = Upstream.parse(url)
    assert (found.authority, found.path, str(found)) == (authority, path, shown)


@pytest.mark.parametrize(
    "url", ["app:9000", "ftp://a", "http://a/?x", "http://a/#x", "http://u@a", "http://a/../b", ""]
)
def test_what_is_no_upstream(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        ReverseProxy(url)
    assert refused.value.field == "upstream"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"connect_timeout": 0}, "connect_timeout"),
        ({"read_timeout": -1}, "read_timeout"),
        ({"claim_headers": {"X A": "sub"}}, "claim_headers"),
        *(
            ({"claim_headers": {name: "sub"}}, "claim_headers")
            for name in ("Content-Length", "transfer_encoding", "Cookie", "TE", "X-Forwarded-For", "X_Real_IP")
        ),
        ({"claim_headers": {"X-Name": "name", "x_name": "sub"}}, "claim_headers"),
        ({"ca_file": __file__}, "ca_file"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as refused:
        ReverseProxy("https://app.internal", **options)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("path", "raw_path", "root_path", "query", "target"),
    [
        ("/a b", b"/a%20b", "", b"", b"/base/a%20b"),
        ("/a", b"/a", "", b"x=%2F&&", b"/base/a?x=%2F&&"),
        ("/a", b"/a?x=1", "", b"x=1", b"/base/a?x=1"),
        ("/sub/a,b", b"/sub/a%2Cb", "/sub", b"", b"/base/a%2Cb"),
        ("/sub", b"/sub", "/sub", b"", b"/base/"),
        ("/s b/a", b"/s%20b/a", "/s b", b"", b"/base/a"),
        ("/subs/a", b"/subs/a", "/sub", b"", b"/base/subs/a"),
        ("/a", b"/a", "/sub", b"", b"/base/a"),  # hypercorn leaves it out
        ("/a b/é%", None, "", b"", b"/base/a%20b/%C3%A9%25"),
    ],
)
def test_targets(path: str, raw_path: bytes | None, root_path: str, query: bytes, target: bytes) -> None:
    assert UPSTREAM.target(path, raw_path, root_path, query) == target


@pytest.mark.parametrize(
    ("path", "raw_path", "root_path", "query"),
    [
        ("http://evil.example/", b"http://evil.example/", "", b""),
        ("*", b"*", "", b""),
        ("", b"", "", b""),
        ("/sub/a", b"/%73ub/a", "/sub", b""),  # nobody can say where the root ends
        ("/a", b"/a b", "", b""),
        ("/a", b"/a\r\nX: 1", "", b""),
        ("/a", b"/a#x", "", b""),
        ("/a", b"/a", "", b"x\x00"),
        ("/a", b"/a", "", b"x y"),
        ("/\u00e9", b"/\xc3\xa9", "", b""),
    ],
)
def test_what_is_no_target(path: str, raw_path: bytes, root_path: str, query: bytes) -> None:
    with pytest.raises(InvalidRequest):
        UPSTREAM.target(path, raw_path, root_path, query)


@given(st.text().map("/".__add__))
def test_a_target_stays_below_the_path_of_the_upstream(path: str) -> None:
    """Whatever a server that tells no raw path hands on, if the door let it through."""
    if classify(path).kind == "bad":
        return
    target = UPSTREAM.target(path, None, "", b"")
    assert target.startswith(b"/base/")
    assert b"/../" not in target
    assert not set(target) & set(b" \r\n\0#")


def where(headers: list[tuple[bytes, bytes]], trusted: tuple[str, ...] = (), client: Any = ("192.0.2.7", 1)) -> Any:
    scope = {"headers": [(b"host", b"app.example"), *headers], "client": client, "scheme": "https"}
    return dict(told(of_request(headers), origin(scope, None), [ip_network(each) for each in trusted]))


@pytest.mark.parametrize(
    "name", [b"x-forwarded", b"forwarded-for", b"x-original-host", b"x_host", b"cf-connecting-ipv6", b"x-remote-addr"]
)
def test_only_a_trusted_proxy_says_where_a_request_came_from(name: bytes) -> None:
    """X-xff: under whatever name."""
    assert name not in where([(name, b"evil")])
    believed = where([(name, b"a")], ("192.0.2.0/24",))
    assert believed.get(name) == (None if b"_" in name else b"a")


def test_addresses() -> None:
    assert where([])[b"forwarded"] == b'for=192.0.2.7;host="app.example";proto=https'
    assert where([], client=("2001:db8::1", 1))[b"forwarded"][:21] == b'for="[2001:db8::1]";h'
    assert where([], client=("fe80::1%eth0", 1))[b"x-forwarded-for"] == b"fe80::1"
    of_socket = where([(b"x-forwarded-for", b"192.0.2.9"), (b"x-real-ip", b"192.0.2.9")], client=None)
    assert b"x-forwarded-for" not in of_socket
    assert b"x-real-ip" not in of_socket
    assert of_socket[b"forwarded"].startswith(b"for=unknown;")
    mapped = where([(b"x-forwarded-for", b"192.0.2.9")], ("10.0.0.0/8",), ("::ffff:10.0.0.1", 1))
    assert mapped[b"x-real-ip"] == b"192.0.2.9"
    all_trusted = where([(b"x-forwarded-for", b"10.0.0.9")], ("10.0.0.0/8",), ("10.0.0.1", 1))
    assert all_trusted[b"x-real-ip"] == b"10.0.0.9"
    assert all_trusted[b"x-forwarded-port"] == b"443"


@given(st.binary())
def test_cookies_lose_ours_and_nothing_else(cookie: bytes) -> None:
    ours = OwnCookies("oidc_session")
    left = ours.without(cookie)
    names = [pair.partition(b"=")[0].strip().lower() for pair in left.split(b";")]
    assert not any(name.removeprefix(b"__host-") == b"oidc_session" for name in names)
    if b"oidc_session" not in cookie.lower():
        assert left == cookie
    with_another = ours.without(cookie + b"; __Host-oidc_session=x")
    assert [pair.strip() for pair in with_another.split(b";")] == [pair.strip() for pair in left.split(b";")]


def test_what_connection_names_goes_away_but_not_the_way_a_body_ends() -> None:
    headers = [(b"connection", b"content-type, x-a"), (b"x-a", b"1"), (b"content-type", b"a/b"), (b"x-b", b"2")]
    assert of_request(headers) == [(b"x-b", b"2")]
    assert of_response([(b"Content-Length", b"1"), (b"Transfer-Encoding", b"chunked"), (b"X-B", b"2")]) == [
        (b"x-b", b"2")
    ]


@pytest.mark.parametrize(
    ("version", "headers", "body"),
    [
        ("1.1", {}, Body.NONE),
        ("1.0", {}, Body.NONE),
        ("2", {}, Body.UNKNOWN),
        ("3", {}, Body.UNKNOWN),
        ("2", {b"content-length": b"0"}, Body.LENGTH),
        ("1.1", {b"transfer-encoding": b"Chunked"}, Body.CHUNKED),
    ],
)
def test_bodies(version: str, headers: dict[bytes, bytes], body: Body) -> None:
    scope = {"method": "GET", "http_version": version, "headers": list(headers.items())}
    assert outgoing(scope, b"/", []).body is body


@pytest.mark.parametrize(
    "name",
    [b"content_length", b"content.length", b"transfer_encoding", b"proxy", b"te", b"keep_alive", b"http2_settings"],
)
def test_what_some_reader_would_take_for_something_else_ends_here(name: bytes) -> None:
    assert of_request([(name, b"5"), (b"x-b", b"2")]) == [(b"x-b", b"2")]
