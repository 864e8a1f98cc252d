"""The one credential of a request."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oidc_middleware.core.bearer import MAX_TOKEN, authorization, check_query, credential, subprotocol_token
from oidc_middleware.errors import InvalidRequest, Malformed, MissingToken, OIDCError

TOKEN = b"eyJhbGciOiJSUzI1NiJ9.e30.c2ln"


def extract(headers: list[tuple[bytes, bytes]], query_string: bytes = b"") -> bytes:
    """Take the steps that the middleware takes, in its order."""
    value = authorization(headers)
    if value is None:
        raise MissingToken("no Authorization header")
    check_query(query_string)
    return credential(value)


def header(*values: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"api.example.com"), *((b"authorization", value) for value in values), (b"accept", b"*/*")]


@pytest.mark.parametrize(
    ("value", "token"),
    [
        pytest.param(b"Bearer " + TOKEN, TOKEN, id="plain"),
        pytest.param(b"bearer " + TOKEN, TOKEN, id="H-case-lower"),
        pytest.param(b"BEARER " + TOKEN, TOKEN, id="H-case-upper"),
        pytest.param(b"Bearer aZ09-._~+/==", b"aZ09-._~+/==", id="every-character-that-may-be"),
        pytest.param(b"Bearer " + b"a" * MAX_TOKEN, b"a" * MAX_TOKEN, id="as-long-as-may-be"),
    ],
)
def test_a_bearer_token_is_found(value: bytes, token: bytes) -> None:
    assert extract(header(value)) == token


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"Bearer " + TOKEN + b", Bearer evil", id="H-comma"),
        pytest.param(b"Bearer " + TOKEN + b",evil", id="H-comma-without-space"),
        pytest.param(b"Bearer  " + TOKEN, id="H-twospaces"),
        pytest.param(b"Bearer\t" + TOKEN, id="H-tab"),
        pytest.param(b"Bearer \t" + TOKEN, id="H-tab-after-space"),
        pytest.param(b'Bearer "' + TOKEN + b'"', id="H-quoted"),
        pytest.param(b"Bearer token=" + TOKEN, id="parameter"),
        pytest.param(b"Bearer", id="no-token"),
        pytest.param(b"Bearer ", id="empty-token"),
        pytest.param(b"Bearer ==", id="padding-only"),
        pytest.param(b"Bearer a=b", id="padding-inside"),
        pytest.param(b"Bearer " + TOKEN + b" ", id="space-at-the-end"),
        pytest.param(b" Bearer " + TOKEN, id="space-at-the-start"),
        pytest.param(b"Bearer " + TOKEN + b"\r\nX-Admin: 1", id="newline"),
        pytest.param(b"Bearer\xc2\xa0" + TOKEN, id="no-break-space"),
        pytest.param(b"", id="empty-header"),
        pytest.param(b"\xff\xfe", id="garbage"),
        pytest.param(b'"Bearer" ' + TOKEN, id="quoted-scheme"),
        pytest.param(b"Bearer, Basic x", id="list-of-schemes"),
    ],
)
def test_a_malformed_header_is_a_bad_request(value: bytes) -> None:
    with pytest.raises(InvalidRequest) as raised:
        extract(header(value))
    assert TOKEN.decode() not in str(raised.value)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(header(), id="none"),
        pytest.param(header(b"Basic dXNlcjpwdw=="), id="H-basic"),
        pytest.param(header(b"DPoP " + TOKEN), id="H-dpop-scheme"),
        pytest.param(header(b'Digest username="x", realm="y"'), id="digest"),
        pytest.param(header(b"Bearerx " + TOKEN), id="longer-scheme"),
        pytest.param(header(TOKEN), id="token-without-scheme"),
        pytest.param([(b"proxy-authorization", b"Bearer " + TOKEN)], id="H-proxy-authz"),
        pytest.param([(b"x-forwarded-access-token", TOKEN)], id="H-xfwd-access-token"),
        pytest.param([(b"x-authorization", b"Bearer " + TOKEN), (b"cookie", b"token=" + TOKEN)], id="other-headers"),
    ],
)
def test_anything_else_is_no_credential(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(MissingToken):
        extract(headers)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param((b"Bearer " + TOKEN, b"Bearer " + TOKEN), id="H-dup-same"),
        pytest.param((b"Bearer " + TOKEN, b"Bearer evil"), id="H-dup-other"),
        pytest.param((b"Bearer " + TOKEN, b"Basic x"), id="H-dup-scheme"),
        pytest.param((b"", b"Bearer " + TOKEN), id="H-dup-empty"),
        pytest.param((b"a", b"b", b"c"), id="H-dup-three"),
    ],
)
def test_two_headers_are_a_bad_request(values: tuple[bytes, ...]) -> None:
    with pytest.raises(InvalidRequest, match="more than one Authorization header"):
        extract(header(*values))


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(TOKEN + b"\n", id="T-mall-newline"),
        pytest.param(TOKEN + b"\0", id="nul"),
        pytest.param(TOKEN + b"!", id="T-mall-junk"),
        pytest.param("é".encode(), id="T-shape-nonascii"),
        pytest.param(b'{"payload": "e30", "signatures": []}', id="T-shape-json"),
    ],
)
def test_a_token_with_other_characters_is_refused_as_a_token(token: bytes) -> None:
    with pytest.raises(Malformed, match="characters that no token may have"):
        extract(header(b"Bearer " + token))


def test_the_scan_returns_the_value_as_it_came() -> None:
    assert authorization(header(b"bEaReR  x")) == b"bEaReR  x"
    assert authorization([]) is None


@pytest.mark.parametrize("size", [MAX_TOKEN + 1, 1_000_000])
def test_a_longer_token_is_refused_unread(size: int) -> None:
    with pytest.raises(Malformed, match="longer than 16 KiB"):
        credential(b"Bearer " + b"\xff" * size)


QUERIES = [
    b"access_token=" + TOKEN,
    b"a=b&access_token=" + TOKEN,
    b"access%5Ftoken=" + TOKEN,
    b"%61ccess_token=" + TOKEN,
    b"access_token",
    b"access_token=",
]


@pytest.mark.parametrize("query", QUERIES)
def test_a_token_in_the_query_is_not_read(query: bytes) -> None:
    """H-query."""
    with pytest.raises(MissingToken):
        extract(header(), query)


@pytest.mark.parametrize("query", QUERIES)
def test_a_token_in_header_and_query_is_a_bad_request(query: bytes) -> None:
    """H-query-and-header."""
    with pytest.raises(InvalidRequest, match="one in the query"):
        extract(header(b"Bearer " + TOKEN), query)


@pytest.mark.parametrize(
    "query", [b"", b"q=access_token", b"my_access_token=1", b"access_token_type=x", b"a=%26access_token=1", b"&&%"]
)
def test_other_queries_do_not_matter(query: bytes) -> None:
    check_query(query)
    assert extract(header(b"Bearer " + TOKEN), query) == TOKEN


def protocols(*values: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"sec-websocket-protocol", value) for value in values]


@pytest.mark.parametrize(
    "values",
    [
        (b"bearer." + TOKEN,),
        (b"chat, bearer." + TOKEN,),
        (b"chat ,\tbearer." + TOKEN + b"\t, v2",),
        (b"chat", b"bearer." + TOKEN),
    ],
)
def test_a_subprotocol_may_carry_the_token(values: tuple[bytes, ...]) -> None:
    """P-websocket-token."""
    assert subprotocol_token(protocols(*values)) == TOKEN


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        pytest.param([], MissingToken, id="nothing"),
        pytest.param(protocols(b"chat"), MissingToken, id="other-protocol"),
        pytest.param(protocols(b"Bearer." + TOKEN), MissingToken, id="names-are-exact"),
        pytest.param(protocols(TOKEN), MissingToken, id="no-prefix"),
        pytest.param(header(b"Bearer " + TOKEN), MissingToken, id="P-websocket-token-header-is-not-the-way"),
        pytest.param(protocols(b"bearer.a, bearer.a"), InvalidRequest, id="two"),
        pytest.param(protocols(b"bearer.a", b"bearer.b"), InvalidRequest, id="two-headers"),
        pytest.param(protocols(b"bearer.a") + header(b"Bearer a"), InvalidRequest, id="subprotocol-and-header"),
        pytest.param(protocols(b"bearer."), InvalidRequest, id="empty"),
        pytest.param(protocols(b"bearer.a b"), InvalidRequest, id="malformed"),
        pytest.param(protocols(b"bearer." + b"a" * (MAX_TOKEN + 1)), Malformed, id="too-long"),
    ],
)
def test_other_subprotocols(headers: list[tuple[bytes, bytes]], error: type[OIDCError]) -> None:
    with pytest.raises(OIDCError) as raised:
        subprotocol_token(headers)
    assert type(raised.value) is error


B64TOKEN = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")
values = st.binary(max_size=40) | st.builds(
    lambda scheme, gap, rest: scheme + gap + rest,
    st.sampled_from([b"Bearer", b"bearer", b"Basic", b""]),
    st.sampled_from([b" ", b"", b"  ", b"\t"]),
    st.text('abAB01-._~+/=, \t"\0', max_size=12).map(str.encode) | st.binary(max_size=8),
)


@given(values)
@example(b"Bearer a")
def test_any_value_is_a_token_of_the_grammar_or_an_error_without_it(value: bytes) -> None:
    """What comes out is what RFC 6750 §2.1 allows, and comes out whenever it does."""
    match = re.fullmatch(rb"(?i:bearer) (" + B64TOKEN.pattern + rb")", value)
    try:
        found = credential(value)
    except (MissingToken, InvalidRequest, Malformed):
        found = None
    assert found == (match[1] if match else None)


@given(st.binary(max_size=60))
def test_any_query_passes_or_is_a_bad_request(query: bytes) -> None:
    try:
        check_query(query)
    except InvalidRequest:
        assert b"token" in query or b"%" in query
