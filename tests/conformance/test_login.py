"""Somebody logs in at the provider, and has a session on three nodes until somebody ends it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice

from .logins import Fleet, fleet, log_in, wait_for
from .person import Person
from .stranger import Stranger

REQUESTS = 20


def test_login_with_a_secret(app: Fleet, alice: Person) -> None:
    """`client_secret_basic`. The page that was asked for is where the login ends; claims come from userinfo."""
    log_in(app, alice, "/orders/7?part=a%20b")
    said = [alice.fetch(url + "/me").json() for url in app.urls]
    assert said == [{"subject": "alice", "email": "alice@example.com", "name": "The real alice"}] * len(app.urls)
    assert app.provider.requests()["/token"] == 1


def test_login_with_a_key(keyed_app: Fleet, alice: Person) -> None:
    """`private_key_jwt`: at the login and at a refresh."""
    keyed_app.provider.lives(AccessToken=2)
    log_in(keyed_app, alice)
    first = alice.fetch(keyed_app.base + "/token").json()["access_token"]
    wait_for(lambda: alice.fetch(keyed_app.base + "/token").json()["access_token"] != first)


def test_what_is_no_navigation_is_not_sent_to_the_login(app: Fleet, alice: Person) -> None:
    """A script gets 401 and no redirect, with the challenge of RFC 6750."""
    answer = alice.fetch(app.base + "/me")
    assert (answer.status_code, answer.headers["WWW-Authenticate"][:6]) == (401, "Bearer")
    assert app.provider.requests()["/auth"] == 0


def test_twenty_requests_refresh_once_on_three_nodes(provider_installed: None, patient_tiers: None) -> None:
    """The access token is over, the refresh token rotates: one exchange, and all have the same new token."""
    with fleet(refresh_ahead=0) as app, Person() as alice, ThreadPoolExecutor(REQUESTS) as pool:
        app.provider.lives(AccessToken=2)
        log_in(app, alice)
        over = time.time() + 3
        app.provider.lives()
        exchanges = app.provider.requests()["/token"]
        wait_for(lambda: time.time() > over)

        urls = [url + "/token" for url in islice(cycle(app.urls), REQUESTS)]
        answers = list(pool.map(alice.fetch, urls))

        assert [answer.status_code for answer in answers] == [200] * REQUESTS
        assert len({answer.json()["access_token"] for answer in answers}) == 1
        assert app.provider.requests()["/token"] == exchanges + 1


def test_rotation_goes_on(provider_installed: None, patient_tiers: None, alice: Person) -> None:
    """Five tokens one after the other, asked for on one node after the other: no refresh token is used twice."""
    with fleet(refresh_ahead=0) as app:
        app.provider.lives(AccessToken=1)
        log_in(app, alice)
        seen: set[str] = set()
        nodes = cycle(app.urls)

        def another() -> bool:
            answer = alice.fetch(next(nodes) + "/token")
            assert answer.status_code == 200, answer.text
            seen.add(answer.json()["access_token"])
            return len(seen) > 5

        wait_for(another, 30)


def test_a_refresh_that_is_refused_ends_the_session(app: Fleet, alice: Person) -> None:
    """`invalid_grant`: the provider has forgotten everything. 401 on every node, and no second try."""
    app.provider.lives(AccessToken=1)
    log_in(app, alice)
    port = app.provider.port
    app.provider.stop()
    with Stranger(port, apps=app.urls) as provider:
        wait_for(lambda: alice.fetch(app.urls[1] + "/token").status_code == 401)
        tries = provider.requests()["/token"]
        wait_for(lambda: app.statuses(alice) == [401, 401, 401])
        assert (tries, provider.requests()["/token"]) == (1, 1)
        log_in(app, alice)


def test_a_provider_that_hangs_ends_no_session(app: Fleet, alice: Person) -> None:
    """503 and no 401 while it does, on every node. What it makes of the refresh token afterwards is its affair."""
    app.provider.lives(AccessToken=2)
    log_in(app, alice)
    app.provider.freeze()
    try:
        seen: set[int] = set()
        nodes = cycle(app.urls)

        def is_over() -> bool:
            seen.add(alice.fetch(next(nodes) + "/token").status_code)
            return 503 in seen

        wait_for(is_over, 60)
        assert seen <= {200, 503}
    finally:
        app.provider.thaw()
    app.provider.lives()
    log_in(app, alice)
    assert app.statuses(alice) == [200, 200, 200]


def test_a_redis_that_comes_back_empty(app: Fleet, alice: Person) -> None:
    """Sessions are lost with it. Nobody is let in by that, and the provider, which knows who it is, asks nothing."""
    log_in(app, alice)
    app.redis.kill()
    with Person("alice") as elsewhere:
        elsewhere.browser.cookies.update(alice.browser.cookies)
        assert elsewhere.fetch(app.urls[2] + "/me").status_code == 503
    app.redis.start()
    wait_for(lambda: alice.fetch(app.urls[2] + "/me").status_code == 401)
    alice.places.clear()
    log_in(app, alice)
    assert not any("/interaction/" in place for place in alice.places)
    wait_for(lambda: app.statuses(alice) == [200, 200, 200])
