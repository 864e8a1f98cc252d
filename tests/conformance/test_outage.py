"""A provider that is down, broken, or not the one that was meant; and two of them at once."""

from __future__ import annotations

import time

import httpx2
import pytest

from oidc_middleware import Issuer
from oidc_middleware.testing import ManualClock

from .answers import assert_token_refused, assert_unavailable
from .conftest import Serve
from .service import Served
from .stranger import AUDIENCE, Stranger

OTHER_AUDIENCE = "https://other.example/"
RECOVERY_SECONDS = 60
HOUR = 3600


def ask_until_accepted(served: Served, token: str) -> httpx2.Response:
    """Ask again as often as the answers allow, until one is no longer 503."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    answer = served.get("/who", token)
    while answer.status_code == httpx2.codes.SERVICE_UNAVAILABLE:
        assert_unavailable(answer)
        assert time.monotonic() < deadline, "it did not recover"
        time.sleep(0.1)
        answer = served.get("/who", token)
    return answer


def test_provider_gone_after_its_keys_were_seen(own_stranger: Stranger, serve: Serve) -> None:
    """Known tokens, and new ones under known keys, need no provider."""
    served = serve(issuer=own_stranger.issuer)
    known = own_stranger.client_credentials()
    unseen = [own_stranger.client_credentials(resource) for resource in ("rs256", "es256", "eddsa")]
    assert served.get("/who", known).status_code == httpx2.codes.OK
    own_stranger.stop()
    for token in (known, *unseen):
        assert served.get("/who", token).status_code == httpx2.codes.OK


def test_provider_gone_for_longer_than_keys_are_trusted(own_stranger: Stranger, serve: Serve) -> None:
    """J-stale-forever: keys serve for a day past their freshness, which is twelve hours at most; then 503."""
    clock = ManualClock()
    served = serve(issuer=own_stranger.issuer, clock=clock, leeway=60)
    tokens = [own_stranger.client_credentials("long") for _ in range(3)]
    assert served.get("/who", tokens[0]).status_code == httpx2.codes.OK
    own_stranger.stop()
    clock.advance(24 * HOUR)
    assert served.get("/who", tokens[1]).status_code == httpx2.codes.OK
    clock.advance(12 * HOUR)
    assert_unavailable(served.get("/who", tokens[2]))


def test_cold_start_without_the_provider(own_stranger: Stranger, serve: Serve) -> None:
    """Nobody can say who that is: 503 until the provider is back, then all is well, without a restart."""
    token = own_stranger.client_credentials()
    own_stranger.stop()
    served = serve(issuer=own_stranger.issuer)
    assert served.get("/health").text == "ok"
    assert_unavailable(served.get("/who", token))
    with Stranger(own_stranger.port) as reborn:
        assert ask_until_accepted(served, reborn.client_credentials()).status_code == httpx2.codes.OK
        # The process is another one with other keys, so tokens of the first are nobody's now.
        assert_token_refused(served.get("/who", token), token)


def test_refusals_need_no_provider(own_stranger: Stranger, serve: Serve) -> None:
    """What is wrong whatever the keys are is 401 also while the provider is down."""
    wrong, opaque = own_stranger.client_credentials(OTHER_AUDIENCE), own_stranger.client_credentials("opaque")
    own_stranger.stop()
    served = serve(issuer=own_stranger.issuer)
    for token in (wrong, opaque):
        assert_token_refused(served.get("/who", token), token)


@pytest.mark.parametrize("path", [".well-known/openid-configuration", "jwks"])
def test_provider_answers_500(own_stranger: Stranger, serve: Serve, path: str) -> None:
    """An error of the provider's is not the caller's: 503, and 200 when it has healed."""
    own_stranger.fault(**{path: {"status": 500}})
    served = serve(issuer=own_stranger.issuer)
    token = own_stranger.client_credentials()
    assert_unavailable(served.get("/who", token))
    own_stranger.fault()
    assert ask_until_accepted(served, token).status_code == httpx2.codes.OK


def test_new_key_while_the_keys_cannot_be_fetched(own_stranger: Stranger, serve: Serve) -> None:
    """J-storm-failing: a failed refresh loses no good key; a token of the key that nobody could fetch is refused."""
    served = serve(issuer=own_stranger.issuer)
    old = own_stranger.client_credentials()
    assert served.get("/who", old).status_code == httpx2.codes.OK
    own_stranger.publish("second", "first")
    own_stranger.fault(jwks={"status": 500})
    new = own_stranger.client_credentials()
    assert_token_refused(served.get("/who", new), new)
    assert served.get("/who", old).status_code == httpx2.codes.OK
    own_stranger.publish("first", "second")
    assert served.get("/who", own_stranger.client_credentials()).status_code == httpx2.codes.OK


def test_metadata_of_another_issuer(stranger: Stranger, own_stranger: Stranger, serve: Serve) -> None:
    """J-issuer-mismatch: metadata that names another issuer is not used at all (OIDC Discovery §4.3)."""
    served = serve(issuer=own_stranger.issuer, discovery_url=f"{stranger.issuer}/.well-known/openid-configuration")
    assert_unavailable(served.get("/who", own_stranger.client_credentials()))
    token = stranger.client_credentials()
    assert_token_refused(served.get("/who", token), token)


def test_issuer_with_a_slash_too_many(stranger: Stranger, serve: Serve) -> None:
    """The issuer is compared exactly: another spelling is another issuer (OIDC Discovery §4.3)."""
    served = serve(issuer=f"{stranger.issuer}/")
    token = stranger.client_credentials()
    assert_token_refused(served.get("/who", token), token)


def test_two_issuers_share_nothing(stranger: Stranger, own_stranger: Stranger, serve: Serve) -> None:
    """J-cross-issuer: each issuer has its own audience and keys, though both use the same key ids (RFC 8725 §3.8)."""
    ids = [{key["kid"] for key in provider.jwks()["keys"]} for provider in (stranger, own_stranger)]
    assert ids[0] == ids[1]
    served = serve(
        issuers=[
            Issuer(issuer=stranger.issuer, audience=AUDIENCE),
            Issuer(issuer=own_stranger.issuer, audience=OTHER_AUDIENCE),
        ],
        audience=None,
    )
    for provider, audience, other in (
        (stranger, AUDIENCE, OTHER_AUDIENCE),
        (own_stranger, OTHER_AUDIENCE, AUDIENCE),
    ):
        own = provider.client_credentials("rs256" if audience == AUDIENCE else audience)
        answer = served.get("/who", own)
        assert (answer.status_code, answer.json()["issuer"]) == (httpx2.codes.OK, provider.issuer)
        crossed = provider.client_credentials("rs256" if other == AUDIENCE else other)
        assert_token_refused(served.get("/who", crossed), crossed)


def test_same_subject_of_two_issuers_is_two_identities(
    stranger: Stranger, own_stranger: Stranger, serve: Serve
) -> None:
    """`alice` here is not `alice` there."""
    served = serve(
        issuers=[Issuer(issuer=each.issuer, audience=AUDIENCE) for each in (stranger, own_stranger)], audience=None
    )
    answers = [served.get("/who", each.sign_in("alice")["access_token"]).json() for each in (stranger, own_stranger)]
    assert [answer["subject"] for answer in answers] == ["alice", "alice"]
    assert answers[0]["identity"] != answers[1]["identity"]


def test_unconfigured_issuer(stranger: Stranger, own_stranger: Stranger, serve: Serve) -> None:
    """J-issuer-from-token: a provider that nobody configured is not even asked."""
    served = serve(issuer=stranger.issuer)
    token = own_stranger.client_credentials()
    assert_token_refused(served.get("/who", token), token)
    assert "/jwks" not in own_stranger.requests()
