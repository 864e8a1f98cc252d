"""What the requests of a login say: cookies, navigations, answers of issuers. Pure functions, any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware.core.authorization import authorization_url, code_of, read_answer, refusal, state_of
from oidc_middleware.core.cookies import CookieShape, cookie_header, grouped, values
from oidc_middleware.core.navigation import is_navigation, may_navigate
from oidc_middleware.errors import LoginError

HTML = b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("headers", "is_one", "may_be"),
    [
        ({"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, True, True),
        ({"sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "accept": "*/*"}, True, True),
        ({"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, False, False),
        ({"sec-fetch-mode": "cors", "sec-fetch-dest": "empty", "accept": "text/html"}, False, False),
        ({"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, False, False),
        ({"sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "sec-purpose": "prefetch"}, False, False),
        (
            {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "sec-purpose": "prefetch;prerender"},
            False,
            False,
        ),
        ({"accept": "text/html"}, True, True),
        ({"accept": HTML.decode()}, True, True),
        ({"accept": HTML.decode(), "x-requested-with": "XMLHttpRequest"}, False, False),
        ({"accept": "application/json, text/html;q=0.5"}, False, True),
        ({"accept": "text/event-stream"}, False, False),
        ({"accept": "*/*"}, False, True),
        ({}, False, True),
    ],
    ids=str,
)
def test_a_navigation(headers: dict[str, str], is_one: bool, may_be: bool) -> None:
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]

    assert (is_navigation("GET", sent), may_navigate(sent)) == (is_one, may_be)
    assert not is_navigation("POST", sent)
    assert not is_navigation("HEAD", sent)


def test_several_cookie_headers_are_one() -> None:
    headers = [(b"cookie", b"a=1; b=2"), (b"accept", b"x"), (b"cookie", b"c=3")]

    assert cookie_header(headers) == b"a=1; b=2; c=3"
    assert values(cookie_header(headers), "c") == [b"3"]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"", []),
        (b"a", []),
        (b"a=", [b""]),
        (b"a=1", [b"1"]),
        (b"b=a=1; a=2", [b"2"]),
        (b"a=1;a=2 ; \ta=3", [b"1", b"2", b"3"]),
        (b"A=1; aa=2", []),
        (b"a=b=c", [b"b=c"]),
        (b";;;=;a =1", [b"1"]),
    ],
)
def test_the_values_of_a_cookie(header: bytes, expected: list[bytes]) -> None:
    assert values(header, "a") == expected


@given(st.binary(max_size=200) | st.text(alphabet="a_=; \t\xff", max_size=60).map(lambda text: text.encode("latin-1")))
def test_any_cookie_header_can_be_read(header: bytes) -> None:
    found = grouped(header, "a", 3)

    assert len(found) <= 3
    assert all(name.startswith("a") for name in found)
    assert all(values(header, name) == found[name] for name in found)


@pytest.mark.parametrize("is_secure", [True, False])
def test_a_cookie_of_ours(is_secure: bool) -> None:
    shape = CookieShape(is_secure=is_secure)
    name = shape.name("x")
    tail = "; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if is_secure else "")

    assert name == ("__Host-x" if is_secure else "x")
    assert shape.set(name, "v", 600.9) == f"{name}=v; Max-Age=600{tail}"
    assert shape.clear(name) == f"{name}=; Max-Age=0{tail}"


@given(st.binary(max_size=100) | st.text(alphabet="statecodr=&%41+;", max_size=80).map(str.encode))
def test_any_query_is_an_answer_or_a_login_error(query: bytes) -> None:
    try:
        answer = read_answer(query)
        code = code_of(answer)
    except LoginError as error:
        assert len(error.said) <= 200
        return
    assert code == answer["code"]
    assert code.isascii()


@pytest.mark.parametrize(
    "query",
    [
        b"",
        b"state=",
        b"state=x",
        b"state=" + b"A" * 42,
        b"state=" + b"A" * 43 + b"&state=" + b"A" * 43,
        b"state=%00" * 43,
    ],
)
def test_what_has_no_state_of_a_login(query: bytes) -> None:
    with pytest.raises(LoginError):
        state_of(query)


@given(st.text(), st.text())
def test_what_an_issuer_says_is_one_short_line(error: str, description: str) -> None:
    made = refusal({"error": error, "error_description": description})

    assert len(made.said) <= 200
    assert made.said.isprintable()
    assert made.said
    assert str(made).isprintable()
    assert len(str(made)) < 3000


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("https://issuer.example/auth", "https://issuer.example/auth?a=b+%26&c=%C3%A4"),
        ("https://issuer.example/auth?tenant=1", "https://issuer.example/auth?tenant=1&a=b+%26&c=%C3%A4"),
    ],
)
def test_the_url_of_a_request(endpoint: str, expected: str) -> None:
    assert authorization_url(endpoint, {"a": "b &", "c": "\u00e4"}.items()) == expected
