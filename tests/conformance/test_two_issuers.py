"""Two real providers at once, with the same key ids, behind two nodes that share a Redis: nobody passes for another."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from oidc_middleware import Issuer

from .answers import assert_token_refused, assert_unavailable
from .conftest import Serve
from .service import Served
from .stranger import AUDIENCE, Stranger
from redis_kit import RedisServer

CLIENT: dict[str, Any] = {"audience": AUDIENCE, "client_id": "service", "client_secret": "service-secret"}
KINDS = ["rs256", "es256", "eddsa"]


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """Return a Redis of this test's own."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def shared(redis: RedisServer, patient_tiers: None) -> dict[str, Any]:
    """Return the settings of nodes that share a cache, every verified token included."""
    return {"audience": None, "cache": redis.url, "secret": "s" * 32, "journal": None, "share_tokens": "always"}


@pytest.fixture
def nodes(stranger: Stranger, own_stranger: Stranger, serve: Serve, shared: dict[str, Any]) -> list[Served]:
    """Return two nodes that trust both providers, in different order."""
    trusted = [Issuer(issuer=provider.issuer, **CLIENT) for provider in (stranger, own_stranger)]
    return [serve(issuers=order, **shared) for order in (trusted, trusted[::-1])]


def with_issuer(token: str, issuer: str) -> str:
    """Return a token that names another issuer, under the signature that it had."""
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "==")) | {"iss": issuer}
    changed = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"{header}.{changed}.{signature}"


def kid_of(token: str) -> str:
    """Return the key id in a token's header."""
    return str(json.loads(base64.urlsafe_b64decode(token.split(".", maxsplit=1)[0] + "=="))["kid"])


def test_colliding_kids_on_two_nodes(stranger: Stranger, own_stranger: Stranger, nodes: list[Served]) -> None:
    """J-cross-issuer: each token is its own issuer's on every node, whoever saw it first."""
    for number, kind in enumerate(KINDS):
        tokens = [provider.client_credentials(kind) for provider in (stranger, own_stranger)]
        assert kid_of(tokens[0]) == kid_of(tokens[1])
        for provider, foreign, token in ((stranger, own_stranger, tokens[0]), (own_stranger, stranger, tokens[1])):
            for node in (nodes[number % 2], nodes[1 - number % 2]):
                answer = node.get("/who", token)
                assert (answer.status_code, answer.json()["issuer"]) == (httpx2.codes.OK, provider.issuer)
                forged = with_issuer(token, foreign.issuer)
                assert_token_refused(node.get("/who", forged), forged)


def test_same_subject_on_two_nodes(stranger: Stranger, own_stranger: Stranger, nodes: list[Served]) -> None:
    """`alice` here is not `alice` there, and each is the same on both nodes."""
    seen = []
    for provider in (stranger, own_stranger):
        token = provider.sign_in("alice")["access_token"]
        answers = [node.get("/who", token).json() for node in nodes]
        assert answers[0] == answers[1]
        seen.append((answers[0]["subject"], answers[0]["identity"]))
    assert [subject for subject, _ in seen] == ["alice", "alice"]
    assert seen[0][1] != seen[1][1]


def test_a_verdict_in_the_shared_cache_is_its_issuers(
    stranger: Stranger, own_stranger: Stranger, nodes: list[Served], serve: Serve, shared: dict[str, Any]
) -> None:
    """What others verified lets nobody in where that issuer is not trusted, or has other keys under the same name."""
    only = serve(issuer=own_stranger.issuer, **(shared | {"audience": AUDIENCE}))
    swapped = serve(issuer=stranger.issuer, jwks_uri=f"{own_stranger.issuer}/jwks", **(shared | {"audience": AUDIENCE}))
    for kind in KINDS:
        token = stranger.client_credentials(kind)
        for node in nodes:
            assert node.get("/who", token).status_code == httpx2.codes.OK
        for node in (only, swapped):
            assert_token_refused(node.get("/who", token), token)
        theirs = own_stranger.client_credentials(kind)
        assert only.get("/who", theirs).json()["issuer"] == own_stranger.issuer
        assert_token_refused(swapped.get("/who", theirs), theirs)


def test_a_key_that_one_withdraws_is_still_the_others(
    stranger: Stranger, own_stranger: Stranger, serve: Serve, shared: dict[str, Any]
) -> None:
    """J-keyrefresh-remove, with two: the same id, and only one of the keys behind it is gone.

    Verdicts are not shared here: another node's would hold for the minute for which that node believes it.
    """
    trusted = [Issuer(issuer=provider.issuer, **CLIENT) for provider in (stranger, own_stranger)]
    nodes = [serve(issuers=order, **(shared | {"share_tokens": "never"})) for order in (trusted, trusted[::-1])]
    kept, gone = stranger.client_credentials(), own_stranger.client_credentials()
    for node in nodes:
        assert [node.get("/who", token).status_code for token in (kept, gone)] == [200, 200]
    own_stranger.publish("second")
    for node in nodes:
        new = own_stranger.client_credentials()
        assert node.get("/who", new).json()["issuer"] == own_stranger.issuer
        assert_token_refused(node.get("/who", gone), gone)
        assert node.get("/who", kept).json()["issuer"] == stranger.issuer
        assert node.get("/who", stranger.client_credentials()).json()["issuer"] == stranger.issuer


def test_opaque_tokens_of_two_issuers(own_stranger: Stranger, serve: Serve, shared: dict[str, Any]) -> None:
    """I-cross-client, between issuers: whoever calls it active is its issuer, and the answer serves both nodes."""
    with Stranger() as another:
        trusted = [Issuer(issuer=provider.issuer, **CLIENT) for provider in (own_stranger, another)]
        nodes = [serve(issuers=order, **shared) for order in (trusted, trusted[::-1])]
        for provider in (own_stranger, another):
            token = provider.client_credentials("opaque")
            for node in nodes:
                assert node.get("/who", token).json()["issuer"] == provider.issuer
        # Both were asked about the first token at most, and nobody about his own twice.
        counts = [provider.requests()["/token/introspection"] for provider in (own_stranger, another)]
        assert counts == [2, 2]
        for node in nodes:
            assert_token_refused(node.get("/who", "nobody-issued-this"), "nobody-issued-this")


def test_an_issuer_that_hangs_makes_no_token_of_the_other_invalid(
    stranger: Stranger, own_stranger: Stranger, serve: Serve, shared: dict[str, Any]
) -> None:
    """The hanging one is first in order. Nobody says 401 of what it may have issued."""
    served = serve(issuers=[Issuer(issuer=each.issuer, **CLIENT) for each in (own_stranger, stranger)], **shared)
    known, unseen = own_stranger.client_credentials("opaque"), own_stranger.client_credentials("opaque")
    assert served.get("/who", known).json()["issuer"] == own_stranger.issuer
    own_stranger.freeze()
    try:
        for _ in range(3):
            token = stranger.client_credentials("opaque")
            assert served.get("/who", token).json()["issuer"] == stranger.issuer
        assert served.get("/who", known).json()["issuer"] == own_stranger.issuer
        assert_unavailable(served.get("/who", unseen))
    finally:
        own_stranger.thaw()
    assert served.get("/who", unseen).json()["issuer"] == own_stranger.issuer
    assert_token_refused(served.get("/who", "nobody-issued-this"), "nobody-issued-this")
