"""Which paths read alike for everybody, and what is left of them below `root_path`."""

from __future__ import annotations

from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette._utils import get_route_path

from oidc_middleware.core.paths import CLEAN, Shape, classify, route_path

SEVERITY = {"clean": 0, "ambiguous": 1, "bad": 2}

# What an attacker builds paths of.
PIECES = [
    "/",
    "//",
    ".",
    "..",
    "%2e",
    "%2F",
    "%5c",
    "%25",
    "%",
    ";",
    "\\",
    "#",
    "?",
    "\n",
    "\0",
    "a",
    "é",
    "\ufffd",
    "\udc80",
]
hostile_paths = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=8).map("".join)


def wire(raw: bytes) -> Shape:
    """Classify a request target as servers pass it on: decoded once, and raw."""
    return classify(unquote(raw.decode("ascii")), raw)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"/", id="root"),
        pytest.param(b"/admin/users/7", id="plain"),
        pytest.param(b"/docs/", id="slash-at-the-end"),
        pytest.param(b"/%61dmin", id="P-pct-letter"),
        pytest.param(b"/a%20b,c=d&e+f:g@h!$'()*~", id="sub-delims"),
        pytest.param(b"/h%C3%A9alth", id="P-unicode-composed"),
        pytest.param(b"/he%CC%81alth", id="P-unicode-decomposed"),
        pytest.param(b"/health%EF%BC%8Fadmin", id="P-unicode-full-width-slash"),
        pytest.param(b"/100%25", id="a-percent-sign"),
        pytest.param(b"/.well-known/x", id="dot-before-a-name"),
        pytest.param(b"/a..b/...", id="dots-in-names"),
    ],
)
def test_everyday_paths_are_clean(raw: bytes) -> None:
    assert wire(raw) == CLEAN


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(b"/health/../admin", "dot segment", id="dotdot"),
        pytest.param(b"/health/%2e%2e/admin", "dot segment", id="P-pct-dotdot"),
        pytest.param(b"/health/.%2E/admin", "dot segment", id="P-pct-dotdot-half"),
        pytest.param(b"/health/.", "dot segment", id="dot-at-the-end"),
        pytest.param(b"/health%2f..%2fadmin", "dot segment", id="P-pct-slash"),
        pytest.param(b"/health;/../admin", "dot segment", id="P-semicolon"),
        pytest.param(b"/health;jsessionid=1/../admin", "dot segment", id="P-jsession"),
        pytest.param(b"/health/..;/admin", "dot segment", id="dotdot-with-parameter"),
        pytest.param(b"//health/../admin", "dot segment", id="P-dblslash-dotdot"),
        pytest.param(b"/health\\..\\admin", "backslash", id="P-backslash"),
        pytest.param(b"/health%5c..%5cadmin", "backslash", id="P-backslash-encoded"),
        pytest.param(b"/admin%00/health", "control character", id="P-nul"),
        pytest.param(b"/health%0a", "control character", id="P-nl"),
        pytest.param(b"/admin%0a/health", "control character", id="P-nl-inside"),
        pytest.param(b"/health%7f", "control character", id="delete"),
        pytest.param(b"/health%C2%85", "control character", id="next-line"),
        pytest.param(b"/health%E2%80%A8", "control character", id="line-separator"),
        pytest.param(b"/%c0%ae%c0%ae/admin", "not UTF-8", id="P-overlong"),
        pytest.param(b"/admin#/health", "encoded ? or #", id="P-fragment"),
        pytest.param(b"/admin%23/health", "encoded ? or #", id="P-pct-frag"),
        pytest.param(b"/admin%3f/health", "encoded ? or #", id="P-pct-q"),
        pytest.param(b"*", "no leading slash", id="P-asterisk"),
        pytest.param(b"health", "no leading slash", id="P-noslash"),
        pytest.param(b"", "no leading slash", id="P-noslash-empty"),
        pytest.param(b"http://evil.example/health", "no leading slash", id="absolute-form"),
        pytest.param(b"evil.example:443", "no leading slash", id="authority-form"),
    ],
)
def test_what_no_honest_client_sends_is_bad(raw: bytes, reason: str) -> None:
    assert wire(raw) == Shape("bad", reason)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(b"//admin", "empty segment", id="P-dblslash"),
        pytest.param(b"/health//", "empty segment", id="P-trail-two"),
        pytest.param(b"/admin;x=/health", "path parameter", id="P-matrix"),
        pytest.param(b"/health%3Bx", "path parameter", id="P-matrix-encoded"),
        pytest.param(b"/health%2fadmin", "encoded slash", id="encoded-slash"),
        pytest.param(b"/health%2Fadmin", "encoded slash", id="encoded-slash-upper"),
        pytest.param(b"/%2561dmin", "encoded twice", id="letter-encoded-twice"),
        pytest.param(b"/health/%252e%252e/admin", "encoded twice", id="dotdot-encoded-twice"),
        pytest.param(b"/%u0061dmin", "encoded twice", id="percent-u"),
        pytest.param(b"/100%", "incomplete escape", id="lone-percent"),
        pytest.param(b"/%zz", "incomplete escape", id="no-hex"),
    ],
)
def test_what_two_readers_take_for_two_paths_is_ambiguous(raw: bytes, reason: str) -> None:
    assert wire(raw) == Shape("ambiguous", reason)


@pytest.mark.parametrize("raw", [None, b""])
def test_raw_path_may_be_absent(raw: bytes | None) -> None:
    assert classify("/admin", raw) == CLEAN
    assert classify("/a/../b", raw) == Shape("bad", "dot segment")
    assert classify("/a//b", raw) == Shape("ambiguous", "empty segment")


@pytest.mark.parametrize(
    ("path", "raw", "shape"),
    [
        pytest.param("/admin", b"/x/../admin", Shape("bad", "dot segment"), id="somebody-normalised"),
        pytest.param("/admin", b"/%2561dmin", Shape("ambiguous", "encoded twice"), id="somebody-decoded-twice"),
        pytest.param("/a//b", b"/a/../b", Shape("bad", "dot segment"), id="raw-is-worse"),
        pytest.param("/a//b", b"/a/b", Shape("ambiguous", "empty segment"), id="path-is-worse"),
        pytest.param("/b", b"/a/b", CLEAN, id="an-outer-middleware-cut-a-prefix"),
        pytest.param("/a", b"/a?b=//../", CLEAN, id="raw-with-a-query"),
        pytest.param("/é", "/é".encode(), CLEAN, id="raw-is-not-escaped"),
        pytest.param("/\ufffd", b"/\xff", Shape("bad", "not UTF-8"), id="raw-is-not-utf8"),
        pytest.param("/a", b"/\xff", Shape("bad", "not UTF-8"), id="only-raw-is-not-utf8"),
        pytest.param("/\udc80", None, Shape("bad", "not UTF-8"), id="surrogate"),
    ],
)
def test_the_worse_of_path_and_raw_path_counts(path: str, raw: bytes | None, shape: Shape) -> None:
    assert classify(path, raw) == shape


@given(hostile_paths, st.none() | st.binary(max_size=20))
def test_any_path_has_a_shape_and_raw_path_never_makes_it_milder(path: str, raw: bytes | None) -> None:
    assert SEVERITY[classify(path, raw).kind] >= SEVERITY[classify(path).kind]


@given(hostile_paths)
def test_a_clean_path_decodes_and_splits_in_one_way_only(path: str) -> None:
    if classify(path).kind == "clean":
        segments = path.split("/")[1:]
        assert path.startswith("/")
        assert unquote(path) == path
        assert not {".", ".."} & set(segments)
        assert "" not in segments[:-1]
        assert classify(path, quote(path, safe="/").encode()) == CLEAN


def test_a_megabyte_is_classified_in_linear_time() -> None:
    assert classify("/" + "a" * 1_000_000, b"/" + b"a" * 1_000_000) == CLEAN
    assert classify("/.;" * 333_333).kind == "bad"
    assert classify("/..;" + "x" * 1_000_000).kind == "bad"
    assert classify("/a" + "%" * 1_000_000, b"/a" + b"%25" * 333_333) == CLEAN


@pytest.mark.parametrize(
    ("path", "root_path", "route"),
    [
        ("/admin", "", "/admin"),
        ("/api/admin", "/api", "/admin"),
        ("/api/", "/api", "/"),
        ("/api", "/api", "/"),
        ("/apiadmin", "/api", "/apiadmin"),
        ("/admin", "/api", "/admin"),
        ("/a/b/c", "/a/b", "/c"),
        ("/api/x", "/api/", "/api/x"),
        ("/x", "/", "/x"),
    ],
)
def test_root_path_goes_at_a_segment_boundary(path: str, root_path: str, route: str) -> None:
    assert route_path(path, root_path) == route


@given(hostile_paths, hostile_paths, st.booleans())
def test_the_route_is_the_one_that_starlette_routes_by(root_path: str, rest: str, below: bool) -> None:
    path = root_path + rest if below else rest
    expected = get_route_path({"type": "http", "path": path, "root_path": root_path})
    assert route_path(path, root_path) == (expected or ("/" if path else ""))
