"""Where a browser signs out, and what it brings back: pure, and by properties."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware.core.end_session import LONGEST_HINT, end_session_url
from oidc_middleware.core.navigation import is_asked_for
from oidc_middleware.core.return_path import return_path
from oidc_middleware.session.logout_states import LIFE, LogoutStates
from oidc_middleware.testing import ManualClock

BACK = "https://app.example/oauth2/signed_out"


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, strict_parsing=True))


def test_the_issuer_is_told_who_and_where_to() -> None:
    """G-hint."""
    url = end_session_url(
        "https://idp.example/end?tenant=1", id_token="e.y.j", client_id="web", post_logout_redirect_uri=BACK, state="s"
    )

    assert url.startswith("https://idp.example/end?tenant=1&")
    assert query_of(url) == {
        "tenant": "1",
        "id_token_hint": "e.y.j",
        "client_id": "web",
        "post_logout_redirect_uri": BACK,
        "state": "s",
    }


def test_without_a_place_to_come_back_to_there_is_no_state() -> None:
    url = end_session_url(
        "https://idp.example/end", id_token="e.y.j", client_id="web", post_logout_redirect_uri=None, state="s"
    )

    assert query_of(url) == {"id_token_hint": "e.y.j", "client_id": "web"}


@pytest.mark.parametrize(("length", "goes_along"), [(LONGEST_HINT, True), (LONGEST_HINT + 1, False)])
def test_an_id_token_that_is_too_long_is_left_out(length: int, *, goes_along: bool) -> None:
    url = end_session_url(
        "https://idp.example/end", id_token="x" * length, client_id="w&b", post_logout_redirect_uri=BACK, state="s"
    )

    assert ("id_token_hint" in query_of(url)) is goes_along
    assert query_of(url)["client_id"] == "w&b"


@given(st.text(max_size=200))
def test_a_state_says_where_to_and_nowhere_else(wanted: str) -> None:
    states = LogoutStates([b"s" * 32], "oidc", ManualClock(1_800_000_000))
    path = return_path("/" + wanted)

    assert states.path(states.state(path)) == path
    assert states.state(path) != states.state(path)


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda data: data.decode("latin-1")))
def test_what_is_none_of_ours_says_nothing(state: str) -> None:
    """G-state-other."""
    assert LogoutStates([b"s" * 32], "oidc", ManualClock(1_800_000_000)).path(state) is None


@given(st.data())
def test_no_changed_character_opens(data: st.DataObject) -> None:
    states = LogoutStates([b"s" * 32], "oidc", ManualClock(1_800_000_000))
    state = states.state("/orders")
    place = data.draw(st.integers(0, len(state) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda character: character != state[place]))

    assert states.path(state[:place] + other + state[place + 1 :]) is None


def test_a_state_is_over_after_ten_minutes() -> None:
    clock = ManualClock(1_800_000_000)
    states = LogoutStates([], "oidc", clock)
    state = states.state("/orders")
    clock.advance(LIFE - 1)
    assert states.path(state) == "/orders"
    clock.advance(1)
    assert states.path(state) is None


def test_secrets_may_rotate_and_services_are_told_apart() -> None:
    clock = ManualClock(1_800_000_000)
    old, new = b"o" * 32, b"n" * 32
    state = LogoutStates([old], "oidc", clock).state("/orders")

    assert LogoutStates([new, old], "oidc", clock).path(state) == "/orders"
    assert LogoutStates([new], "oidc", clock).path(state) is None
    assert LogoutStates([old], "other", clock).path(state) is None


NAVIGATES = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        ({}, True),
        ({"accept": "*/*"}, True),
        ({"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}, True),
        (NAVIGATES | {"sec-fetch-site": "none"}, True),
        (NAVIGATES | {"sec-fetch-site": "same-origin"}, True),
        (NAVIGATES | {"sec-fetch-site": "same-site"}, False),
        (NAVIGATES | {"sec-fetch-site": "cross-site"}, False),
        (NAVIGATES | {"sec-fetch-site": "same-origin", "sec-purpose": "prefetch;prerender"}, False),
        ({"purpose": "prefetch"}, False),
        ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, False),
        ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, False),
        ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}, False),
        ({"accept": "image/avif,image/webp,*/*;q=0.8"}, False),
        ({"accept": "application/json"}, False),
        ({"x-requested-with": "XMLHttpRequest"}, False),
    ],
)
def test_who_asks_to_be_signed_out_by_a_link(headers: dict[str, str], *, outcome: bool) -> None:
    """G-get-csrf."""
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]

    assert is_asked_for("GET", sent) is outcome
    assert is_asked_for("HEAD", sent) is False
