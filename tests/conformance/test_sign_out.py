"""Somebody signs out, here or at the provider, and is signed out on three nodes."""

from __future__ import annotations

from .logins import Fleet, log_in, wait_for
from .person import Person


def test_sign_out_here_and_at_the_provider(app: Fleet, alice: Person, bob: Person) -> None:
    """RP-initiated: every node refuses, the refresh token is revoked (RFC 7009), the provider asks who it is again."""
    log_in(app, alice)
    log_in(app, bob)
    answer = alice.leave(app.base + "/oauth2/sign_out", app.base)

    assert (answer.status_code, answer.url.path) == (200, "/oauth2/signed_out")
    assert any(place.startswith(app.provider.issuer + "/session/end?") for place in alice.places)
    wait_for(lambda: app.statuses(alice) == [401, 401, 401])
    assert app.provider.requests()["/token/revocation"] == 1
    assert app.statuses(bob) == [200, 200, 200]
    logins = app.provider.requests()["/auth"]
    alice.places.clear()
    log_in(app, alice)
    assert any("/interaction/" in place for place in alice.places)
    assert app.provider.requests()["/auth"] > logins


def test_the_old_cookie_is_worth_nothing(app: Fleet, alice: Person) -> None:
    """G-after: who has a copy of the cookie gets nothing on any node, once somebody signed out."""
    log_in(app, alice)
    copy = "; ".join(
        f"{cookie.name}={cookie.value}" for cookie in alice.browser.cookies.jar if "session" in cookie.name
    )
    with Person() as thief:
        assert thief.fetch(app.urls[2] + "/me", Cookie=copy).status_code == 200
        alice.leave(app.base + "/oauth2/sign_out", app.base)
        wait_for(lambda: all(thief.fetch(url + "/me", Cookie=copy).status_code == 401 for url in app.urls))


def test_logout_at_the_provider_ends_it_on_every_node(app: Fleet, alice: Person, bob: Person) -> None:
    """Back-channel: the logout token comes to one node, and only this person's session is over, on all of them."""
    log_in(app, alice)
    log_in(app, bob)
    assert app.statuses(alice) == [200, 200, 200]
    alice.go(app.provider.issuer + "/session/end")
    wait_for(lambda: app.statuses(alice) == [401, 401, 401])
    assert app.statuses(bob) == [200, 200, 200]
    log_in(app, alice)
    assert app.statuses(alice) == [200, 200, 200]


def test_the_refresh_token_is_revoked_with_a_key(keyed_app: Fleet, alice: Person) -> None:
    """RFC 7009 by a client that has no secret."""
    log_in(keyed_app, alice)
    alice.leave(keyed_app.base + "/oauth2/sign_out", keyed_app.base)
    assert keyed_app.provider.requests()["/token/revocation"] == 1
    assert keyed_app.statuses(alice) == [401]
