"""A provider that changes its keys while requests run."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx2
from joserfc import jwt
from joserfc.jwk import ECKey

from oidc_middleware.testing import ManualClock

from .answers import assert_token_refused
from .conftest import Serve
from .service import Served
from .stranger import AUDIENCE, Stranger

JWKS = "/jwks"
DISCOVERY = "/.well-known/openid-configuration"
COOL_DOWN_SECONDS = 30
BURST = 100
FORGED = 40


def ask_all(served: Served, tokens: list[str]) -> Counter[int]:
    """Ask with all tokens at once and count the statuses."""
    with ThreadPoolExecutor(len(tokens)) as pool:
        return Counter(pool.map(lambda token: served.get("/who", token).status_code, tokens))


def test_hundred_first_requests_fetch_the_keys_once(own_stranger: Stranger, serve: Serve) -> None:
    """J-singleflight: a cold service that is asked a hundred times at once asks the provider once."""
    tokens = [own_stranger.client_credentials("es256") for _ in range(BURST)]
    own_stranger.fault(jwks={"delay": 300})
    served = serve(issuer=own_stranger.issuer)
    assert ask_all(served, tokens) == {200: BURST}
    requests = own_stranger.requests()
    assert (requests[DISCOVERY], requests[JWKS]) == (1, 1)


def test_overlap_keeps_old_and_new_tokens(own_stranger: Stranger, serve: Serve) -> None:
    """The usual rotation: a new key signs, the old one stays published; both tokens get in, for one fetch more."""
    served = serve(issuer=own_stranger.issuer)
    old = own_stranger.client_credentials()
    assert served.get("/who", old).status_code == httpx2.codes.OK
    unseen = own_stranger.client_credentials()
    own_stranger.publish("second", "first")
    new = own_stranger.client_credentials()
    for token in (new, old, unseen):
        assert served.get("/who", token).status_code == httpx2.codes.OK
    assert own_stranger.requests()[JWKS] == 2


def test_prepublished_key_costs_no_fetch(own_stranger: Stranger, serve: Serve) -> None:
    """The careful rotation: the next key was published before it signed, so nobody notices."""
    own_stranger.publish("first", "second")
    served = serve(issuer=own_stranger.issuer)
    assert served.get("/who", own_stranger.client_credentials()).status_code == httpx2.codes.OK
    own_stranger.publish("second", "first")
    for resource in ("rs256", "es256", "eddsa"):
        assert served.get("/who", own_stranger.client_credentials(resource)).status_code == httpx2.codes.OK
    assert own_stranger.requests()[JWKS] == 1


def test_replaced_key_is_refused_once_the_new_one_was_seen(own_stranger: Stranger, serve: Serve) -> None:
    """J-keyrefresh-remove: the emergency rotation withdraws the old key, and its known tokens go with it."""
    served = serve(issuer=own_stranger.issuer)
    known, unseen = own_stranger.client_credentials(), own_stranger.client_credentials()
    assert served.get("/who", known).status_code == httpx2.codes.OK
    own_stranger.publish("second")
    assert served.get("/who", own_stranger.client_credentials()).status_code == httpx2.codes.OK
    for token in (known, unseen):
        assert_token_refused(served.get("/who", token), token)


def test_second_rotation_is_seen_after_the_cool_down(own_stranger: Stranger, serve: Serve) -> None:
    """A provider that rotates again at once is looked at again after 30 seconds, and not before."""
    clock = ManualClock()
    # The middleware's time stands still while the provider's goes on, so tokens come from its future.
    served = serve(issuer=own_stranger.issuer, clock=clock, leeway=60)
    for generation, fetches in (("first", 1), ("second", 2)):
        own_stranger.publish(generation)
        assert served.get("/who", own_stranger.client_credentials()).status_code == httpx2.codes.OK
        assert own_stranger.requests()[JWKS] == fetches
    own_stranger.publish("third", "second")
    token = own_stranger.client_credentials()
    clock.advance(COOL_DOWN_SECONDS - 1)
    assert_token_refused(served.get("/who", token), token)
    assert own_stranger.requests()[JWKS] == 2
    clock.advance(2)
    assert served.get("/who", token).status_code == httpx2.codes.OK
    assert own_stranger.requests()[JWKS] == 3


def test_rotation_while_requests_run(own_stranger: Stranger, serve: Serve) -> None:
    """No request of anybody fails while the provider rotates with overlap."""
    served = serve(issuer=own_stranger.issuer)
    tokens = [own_stranger.client_credentials(resource) for resource in ("rs256", "es256", "eddsa")]
    rotated, seen_after = threading.Event(), Counter[int]()
    deadline = time.monotonic() + 20

    def ask_until_rotated() -> Counter[int]:
        statuses = Counter[int]()
        after = 0
        while after < BURST and time.monotonic() < deadline:
            after += rotated.is_set()
            # The list grows: whoever asks after the rotation asks with new tokens too.
            statuses[served.get("/who", tokens[sum(statuses.values()) % len(tokens)]).status_code] += 1
        seen_after[after] += 1
        return statuses

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(ask_until_rotated) for _ in range(4)]
        own_stranger.publish("second", "first")
        tokens.extend(own_stranger.client_credentials(resource) for resource in ("rs256", "es256", "eddsa"))
        rotated.set()
        total = sum((future.result() for future in running), Counter[int]())
    assert set(total) == {200}
    assert seen_after == {BURST: 4}


def test_unknown_kids_do_not_reach_the_provider(own_stranger: Stranger, serve: Serve) -> None:
    """J-kid-storm: forged tokens with made-up key ids cause a few fetches at most, and good ones pass meanwhile."""
    served = serve(issuer=own_stranger.issuer)
    good = own_stranger.client_credentials()
    assert served.get("/who", good).status_code == httpx2.codes.OK
    key = ECKey.generate_key("P-256")
    now = int(time.time())
    claims = {"iss": own_stranger.issuer, "aud": AUDIENCE, "sub": "x", "iat": now, "exp": now + 60}
    for _ in range(FORGED):
        forged = jwt.encode({"alg": "ES256", "typ": "at+jwt", "kid": secrets.token_hex(8)}, claims, key)
        assert_token_refused(served.get("/who", forged), forged)
        assert served.get("/who", own_stranger.client_credentials()).status_code == httpx2.codes.OK
    assert own_stranger.requests()[JWKS] <= 4
