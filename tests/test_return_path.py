"""A return path leads to the same origin in every browser, whatever was asked for."""

from __future__ import annotations

from urllib.parse import unquote, urljoin, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oidc_middleware.core.return_path import LONGEST, return_path

OURS = "https://app.example/oauth2/callback"


def browser(location: str, base: str = OURS) -> str:
    """Return the origin to which a browser goes, by the rules of WHATWG URL §4.4 that matter here."""
    location = location.strip("".join(map(chr, range(0x21))))
    location = "".join(character for character in location if character not in "\t\r\n").replace("\\", "/")
    return "{0.scheme}://{0.netloc}".format(urlsplit(urljoin(base, location)))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("/", "/"),
        ("/orders?id=1&x=%2F%2Fevil", "/orders?id=1&x=%2F%2Fevil"),
        ("/a/b/", "/a/b/"),
        ("/a//b", "/a//b"),
        ("/a#part", "/a"),
        ("/a?b=c#d?e", "/a?b=c"),
        ("/caf\u00e9?q=\u65e5", "/caf%C3%A9?q=%E6%97%A5"),
        ("/http://evil.example", "/http://evil.example"),
        ("/@evil.example", "/@evil.example"),
        ("/a?next=https://evil.example", "/a?next=https://evil.example"),
        ("/.well-known/x", "/.well-known/x"),
        ("/" + "a" * (LONGEST - 1), "/" + "a" * (LONGEST - 1)),
    ],
)
def test_a_path_of_ours_is_kept(wanted: str, expected: str) -> None:
    assert return_path(wanted) == expected


ELSEWHERE = [
    None, "", "evil", "https://evil.example", "//evil.example", "///evil.example", "/\\evil.example",
    "\\/evil.example", "\\\\evil.example", "/\t/evil.example", "/\n/evil.example", "\t//evil.example", " /a",
    "/ /evil.example", "/a\x00", "/a\x7f", "/a\r\nSet-Cookie: x=y", "/a\\b", "/.//evil.example", "/..//evil.example",
    "/%2e//evil.example", "/a/..//evil.example", "/a/%2E%2e//evil.example", "/././/evil.example",
    "javascript:alert(1)", "data:text/html,x", "/\ud800", "/" + "a" * LONGEST, "/" + "a" * 65_536,
    "/" + "\u00e9" * 1000, "?a", "#a", "http:/evil", "https:evil.example",
]  # fmt: skip


@pytest.mark.parametrize("wanted", ELSEWHERE, ids=range(len(ELSEWHERE)))
def test_z_next_long_anything_else_is_the_front_page(wanted: str | None) -> None:
    assert return_path(wanted) == "/"


@given(st.text(alphabet=st.sampled_from("/\\.%2eE?#@:ab \t\n\r\x00\x7f\ud800\u00e9"), max_size=30) | st.text())
@example("/%2e%2e//evil.example")
def test_it_always_leads_to_the_same_origin(wanted: str) -> None:
    found = return_path(wanted)

    assert browser(found) == "https://app.example"
    assert browser(browser(found) + found) == "https://app.example"
    assert browser(urlsplit(urljoin(OURS, found)).path or "/") == "https://app.example"
    assert found.isascii()
    assert found.isprintable()
    assert " " not in found
    assert not {"\\", "#"} & set(found)
    assert len(found) <= LONGEST


@given(st.from_regex(r"(/[a-z]{1,5}){1,4}(\?[a-z]=%2F)?", fullmatch=True))
def test_a_plain_path_is_left_as_it_is(wanted: str) -> None:
    assert return_path(wanted) == wanted
    assert return_path(return_path(wanted)) == wanted


@given(st.text())
def test_to_ask_again_changes_nothing(wanted: str) -> None:
    found = return_path(wanted)

    assert return_path(found) == found
    assert unquote(found)
