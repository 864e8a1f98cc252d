"""Several issuers that are asked about opaque tokens, and what the settings say about who is asked where."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from introspection_kit import AUDIENCE, ISSUER, OPAQUE, Asked, door_of
from introspection_kit import CLIENT as KIT_CLIENT
from lifecycle_kit import ask, http_scope, who
from provider_kit import until

from oidc_middleware import OIDC, Issuer, OIDCMiddleware, Settings
from oidc_middleware.auth import opaque
from oidc_middleware.cli.explain import explain
from oidc_middleware.errors import (
    BackendUnavailable,
    ClaimError,
    ConfigError,
    Inactive,
    Malformed,
    ProviderUnavailable,
    UnknownKey,
)
from oidc_middleware.testing import FakeIssuer

from abuse.door import Door, is_503
from abuse.signing import Signer, good_claims

pytestmark = pytest.mark.anyio

CLIENT: dict[str, Any] = dict(KIT_CLIENT)
FIRST, SECOND = "https://first.example", "https://second.example"
INACTIVE = {"active": False}


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


def active(issuer: str, **changes: Any) -> dict[str, Any]:
    return {"active": True} | good_claims(iss=issuer) | changes


class Pair(httpx2.AsyncBaseTransport):
    """Two issuers behind one API; each has a client for it, with a secret of its own."""

    def __init__(self, first: Any, second: Any, signer: Signer | None = None) -> None:
        self.first, self.second = self._issuer(FIRST, first, signer), self._issuer(SECOND, second, signer)

    @staticmethod
    def _issuer(url: str, answer: Any, signer: Signer | None) -> Asked:
        endpoint = f"{url}/introspect"
        asked = Asked(answer, issuer=url, jwks_uri=f"{url}/jwks", introspection_endpoint=endpoint)
        if signer is not None:
            asked.jwks = signer.jwks()
        return asked

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        asked = {FIRST: self.first, SECOND: self.second}[f"https://{request.url.host}"]
        return await asked.handle_async_request(request)

    @property
    def questions(self) -> tuple[int, int]:
        return len(self.first.asked), len(self.second.asked)

    def door(self, first: dict[str, Any] | None = None, second: dict[str, Any] | None = None) -> Door:
        issuers = [
            Issuer(issuer=url, audience=AUDIENCE, client_id="api", client_secret=f"secret of {url}", **(more or {}))
            for url, more in ((FIRST, first), (SECOND, second))
        ]
        return Door(b"", transport=self, issuers=issuers)


async def error_of(door: Door, token: str = OPAQUE) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011  the caller looks at it
        await door.oidc.authenticator.authenticate(f"Bearer {token}".encode())
    return caught.value


# Who is asked


async def test_the_first_that_calls_it_active_is_its_issuer() -> None:
    pair = Pair(active(FIRST), active(SECOND))
    answer = await pair.door().ask(token=OPAQUE)
    assert json.loads(answer.body)["iss"] == FIRST
    assert pair.questions == (1, 0)


async def test_the_second_is_asked_where_the_first_does_not_know_it() -> None:
    pair = Pair(INACTIVE, active(SECOND))
    door = pair.door()
    for _ in range(20):
        answer = await door.ask(token=OPAQUE)
        assert (answer.status, json.loads(answer.body)["iss"]) == (200, SECOND)
    assert pair.questions == (1, 1)


async def test_credentials_go_to_the_issuer_that_gave_them() -> None:
    pair = Pair(INACTIVE, active(SECOND))
    assert (await pair.door().ask(token=OPAQUE)).status == 200
    for asked, url in ((pair.first, FIRST), (pair.second, SECOND)):
        (request,) = asked.requests
        secret = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()
        assert (str(request.url), secret) == (f"{url}/introspect", f"api:secret+of+https%3A%2F%2F{url[8:]}")


async def test_what_all_call_inactive_is_refused() -> None:
    pair = Pair(INACTIVE, INACTIVE)
    door = pair.door()
    assert (await door.ask(token=OPAQUE)).status == 401
    assert isinstance(await error_of(door), Inactive)
    assert pair.questions == (1, 1)


async def test_nobody_speaks_for_another_issuer() -> None:
    """I-iss: an active answer with the other's name is refused, and the other is not asked instead."""
    pair = Pair(active(SECOND), active(SECOND))
    door = pair.door()
    answer = await door.ask(token=OPAQUE)
    assert (answer.status, answer.seen) == (401, None)
    error = await error_of(door)
    assert isinstance(error, ClaimError)
    assert (error.claim, error.reason) == ("iss", "mismatch")
    assert pair.questions == (1, 0)


async def test_an_active_token_for_somebody_else_is_not_shown_to_the_next() -> None:
    pair = Pair(active(FIRST, aud="other"), active(SECOND))
    door = pair.door()
    error = await error_of(door)
    assert isinstance(error, ClaimError)
    assert (error.claim, error.reason) == ("aud", "mismatch")
    assert pair.questions == (1, 0)


async def test_one_answer_does_not_lie_under_the_others_name() -> None:
    """I-cross-client, between issuers: what one said about a token is not what the other says about it."""
    pair = Pair(active(FIRST, exp=None), active(SECOND))
    del pair.first.answer["exp"]
    door = pair.door()
    assert json.loads((await door.ask(token=OPAQUE)).body)["iss"] == FIRST
    pair.first.answer = INACTIVE
    door.clock.advance(61)
    assert json.loads((await door.ask(token=OPAQUE)).body)["iss"] == SECOND
    assert pair.questions == (2, 1)


@pytest.mark.parametrize("always", ["first", "second"])
async def test_a_jwt_is_shown_to_the_issuer_that_it_names(always: str, signer: Signer) -> None:
    url = FIRST if always == "first" else SECOND
    pair = Pair(active(FIRST), active(SECOND), signer)
    door = pair.door(**{always: {"introspection": "always"}})
    assert (await door.ask(token=signer.token(claims={"iss": FIRST}))).status == 200
    assert (await door.ask(token=signer.token(claims={"iss": SECOND}))).status == 200
    assert pair.questions == ((1, 0) if url == FIRST else (0, 1))
    asked = pair.first if url == FIRST else pair.second
    asked.answer = INACTIVE
    door.clock.advance(61)
    assert (await door.ask(token=signer.token(claims={"iss": url}))).status == 401


# One is gone


async def test_an_issuer_that_is_down_makes_no_token_of_another_invalid() -> None:
    for down, up in ((0, 1), (1, 0)):
        urls = (FIRST, SECOND)
        pair = Pair(INACTIVE, INACTIVE)
        asked = (pair.first, pair.second)
        asked[down].status = 500
        asked[up].answer = lambda token, url=urls[up]: active(url) if token == OPAQUE else INACTIVE
        door = pair.door()
        assert json.loads((await door.ask(token=OPAQUE)).body)["iss"] == urls[up]
        assert is_503(await door.ask(token="nobody-says-it-is-active"))
        assert isinstance(await error_of(door, "another"), ProviderUnavailable)
        asked[down].status = 200
        assert (await door.ask(token="nobody-says-it-is-active")).status == 401


async def test_who_gave_no_answer_is_asked_last() -> None:
    """Others' tokens need not wait for its time-out, and it is first again as soon as it answers."""
    pair = Pair(INACTIVE, lambda token: active(SECOND) if token.startswith("second") else INACTIVE)
    pair.first.status = 500
    door = pair.door()
    for token in ("second-1", "second-2", "second-3"):
        assert (await door.ask(token=token)).status == 200
    assert pair.questions == (1, 3)
    pair.first.status = 200
    assert (await door.ask(token="nobody-knows-it")).status == 401
    assert pair.questions == (2, 4)
    assert (await door.ask(token="second-4")).status == 200
    assert pair.questions == (3, 5)


async def test_a_flood_that_one_issuer_does_not_answer_leaves_the_other_alone() -> None:
    """I-neg-dos, with two."""
    pair = Pair(INACTIVE, lambda token: active(SECOND) if token == OPAQUE else INACTIVE)
    release = asyncio.Event()
    pair.first.before = release.wait
    door = pair.door()
    waiting = [asyncio.ensure_future(door.ask(token=f"made-up-{number}")) for number in range(256)]
    await until(lambda: pair.questions[0] == 256)
    assert json.loads((await door.ask(token=OPAQUE)).body)["iss"] == SECOND
    error = await error_of(door, "one-more")
    assert isinstance(error, BackendUnavailable)
    release.set()
    assert {answer.status for answer in await asyncio.gather(*waiting)} == {401}


async def test_all_issuers_together_have_one_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many hang, nobody waits for each of them in turn."""
    monkeypatch.setattr(opaque, "PATIENCE", 0.05)
    pair = Pair(active(FIRST), active(SECOND))
    never = asyncio.Event()
    pair.first.before = pair.second.before = never.wait
    door = pair.door()
    error = await error_of(door)
    assert (type(error), str(error)) == (
        ProviderUnavailable,
        "provider_unavailable: introspection: the issuers together take too long",
    )
    assert is_503(await door.ask(token=OPAQUE))
    never.set()
    monkeypatch.undo()
    assert (await door.ask(token=OPAQUE)).status == 200


# Prefixes


async def test_a_prefix_says_whose_token_it_is() -> None:
    pair = Pair(INACTIVE, INACTIVE)
    door = pair.door({"introspection_prefix": "ya29."}, {})
    assert (await door.ask(token="ya29.abc")).status == 401
    assert pair.questions == (1, 0)
    assert (await door.ask(token="gho_abc")).status == 401
    assert pair.questions == (1, 1)
    assert (await door.ask(token="ya29")).status == 401
    assert pair.questions == (1, 2)


async def test_the_longest_prefix_counts() -> None:
    pair = Pair(INACTIVE, INACTIVE)
    door = pair.door({"introspection_prefix": "acme_"}, {"introspection_prefix": "acme_dev_"})
    for token in ("acme_dev_1", "acme_1", "acme_dev"):
        assert (await door.ask(token=token)).status == 401
    assert ([form["token"] for form in pair.first.asked], [form["token"] for form in pair.second.asked]) == (
        ["acme_1", "acme_dev"],
        ["acme_dev_1"],
    )


async def test_what_begins_otherwise_is_no_question(signer: Signer) -> None:
    asked = Asked()
    door = door_of(asked, signer, introspection_prefix="2Yot")
    assert (await door.ask(token="other")).status == 401
    assert isinstance(await error_of(door, "other"), Malformed)
    assert asked.asked == []
    assert (await door.ask(token=OPAQUE)).status == 200


# Where it is asked


async def test_a_configured_endpoint_needs_no_metadata() -> None:
    class Plain(httpx2.AsyncBaseTransport):
        def __init__(self) -> None:
            self.urls: list[str] = []

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            self.urls.append(str(request.url))
            return httpx2.Response(200, json=active(ISSUER))

    plain = Plain()
    url = "https://10.0.0.1:8443/internal/introspect?realm=a"
    door = Door(b"", transport=plain, introspection_endpoint=url, **CLIENT)
    assert (await door.ask(token=OPAQUE)).status == 200
    assert plain.urls == [url]


async def test_a_configured_endpoint_goes_before_that_of_the_metadata(signer: Signer) -> None:
    """It is the operator's word, so its host may lie in the private network."""
    asked = Asked()
    inner = Asked(introspection_endpoint="https://10.0.0.1/introspect")

    class Both(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            return await (inner if request.url.host == "10.0.0.1" else asked).handle_async_request(request)

    asked.jwks = signer.jwks()
    settings = {"introspection_endpoint": "https://10.0.0.1/introspect", "introspection": "always"} | CLIENT
    door = Door(b"", transport=Both(), **settings)
    assert (await door.ask(token=signer.token())).status == 200
    assert (len(inner.asked), len(asked.asked)) == (1, 0)


async def test_a_configured_endpoint_follows_no_redirect_and_keeps_to_the_rules() -> None:
    asked = Asked(introspection_endpoint="https://other.example/introspect")
    door = Door(b"", transport=asked, introspection_endpoint="https://other.example/introspect", **CLIENT)
    asked.status = 307
    assert is_503(await door.ask(token=OPAQUE))
    forbidden = Door(b"", transport=asked, introspection_endpoint="https://169.254.169.254/introspect", **CLIENT)
    assert is_503(await forbidden.ask(token=OPAQUE))
    assert len(asked.requests) == 1


# Without keys


async def test_an_issuer_of_opaque_tokens_needs_no_keys(signer: Signer, caplog: pytest.LogCaptureFixture) -> None:
    """RFC 8414 §2: `jwks_uri` is optional. Its JWTs are refused, and the service is ready without."""
    asked = Asked()
    del asked.metadata["jwks_uri"]
    with caplog.at_level(logging.INFO, "oidc_middleware"):
        door = Door(b"", transport=asked, **CLIENT)
        async with door.oidc as oidc:
            await until(lambda: oidc.ready)
            assert (await door.ask("/oauth2/health")).status == 200
            assert (await door.ask(token=OPAQUE)).status == 200
            for token in (signer.token(), signer.token(header={"kid": "another"})):
                assert isinstance(await error_of(door, token), UnknownKey)
                assert (await door.ask(token=token)).status == 401
    assert len(asked.requests) == 1
    told = [record.getMessage() for record in caplog.records if "keys" in record.getMessage()]
    assert told == [f"{ISSUER} publishes no keys: its JWTs are refused"]


async def test_keys_that_are_left_out_of_the_metadata_are_not_lost(signer: Signer) -> None:
    asked = Asked()
    door = door_of(asked, signer)
    assert (await door.ask(token=signer.token())).status == 200
    jwks_uri = asked.metadata.pop("jwks_uri")
    door.clock.advance(3_500)
    assert (
        await door.ask(token=signer.token(claims={"iat": None, "exp": int(door.clock.now()) + 60}, omit=("iat",)))
    ).status == 200
    asked.metadata["jwks_uri"] = jwks_uri


async def test_an_issuer_that_is_not_asked_needs_keys(signer: Signer) -> None:
    asked = Asked()
    del asked.metadata["jwks_uri"]
    door = door_of(asked, None, client_secret=None)
    assert is_503(await door.ask(token=signer.token()))
    async with door.oidc as oidc:
        assert not oidc.ready


# Settings


@pytest.mark.parametrize(
    ("settings", "field", "problem"),
    [
        ({"introspection_endpoint": "https://a.example/i"}, "introspection_endpoint", "is not asked"),
        ({"introspection_prefix": "a"}, "introspection_prefix", "is not asked"),
        (
            {"introspection_endpoint": "https://a.example/i", "introspection": "never"} | CLIENT,
            "introspection_endpoint",
            "is not asked",
        ),
        ({"introspection_endpoint": "http://a.example/i"} | CLIENT, "introspection_endpoint", "is not encrypted"),
        ({"introspection_endpoint": "ftp://a.example/i"} | CLIENT, "introspection_endpoint", "is not an https URL"),
        ({"introspection_endpoint": "https://u@a.example/i"} | CLIENT, "introspection_endpoint", "user name"),
        ({"introspection_prefix": "a b"} | CLIENT, "introspection_prefix", "begins no bearer token"),
        ({"introspection_prefix": "é"} | CLIENT, "introspection_prefix", "begins no bearer token"),
        ({"introspection_prefix": ""} | CLIENT, "introspection_prefix", "is empty"),
    ],
)
def test_settings_refused(settings: dict[str, Any], field: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings(**({"issuer": ISSUER, "audience": AUDIENCE} | settings))
    assert (caught.value.field, problem in caught.value.problem) == (field, True), str(caught.value)


def test_settings_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OIDC_INTROSPECTION_ENDPOINT", "https://inner.example/introspect")
    monkeypatch.setenv("OIDC_INTROSPECTION_PREFIX", "ya29.")
    settings = Settings(issuer=ISSUER, audience=AUDIENCE, **CLIENT)
    (issuer,) = settings.trusted
    assert issuer.introspection_endpoint == "https://inner.example/introspect"
    assert issuer.introspection_prefix == "ya29."


@pytest.mark.parametrize(
    ("second", "is_told"),
    [
        ({}, True),
        ({"introspection_prefix": "b_"}, False),
        ({"introspection": "never"}, False),
        ({"client_secret": None}, False),
    ],
)
def test_issuers_that_see_each_others_tokens_are_told_of(
    second: dict[str, Any], is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    client: dict[str, Any] = {"audience": AUDIENCE, "client_id": "api", "client_secret": "s"}
    with caplog.at_level(logging.WARNING, "oidc_middleware.settings"):
        Settings(issuers=[Issuer(issuer=FIRST, **client), Issuer(issuer=SECOND, **(client | second))])
    told = [record.getMessage() for record in caplog.records if "do not say whose they are" in record.getMessage()]
    assert [f"{FIRST} and {SECOND} are asked one after another" in text for text in told] == [True] * is_told


# What is revoked of an opaque token


async def test_the_ledger_is_asked_about_an_opaque_token(signer: Signer) -> None:
    asked = Asked(lambda token: {"active": True} | good_claims(jti=f"id of {token}"))
    door = door_of(asked, signer)
    check = door.oidc.revocations.check
    assert check("never-seen").status == "unknown"
    assert (await door.ask(token=OPAQUE)).status == 200
    assert check(OPAQUE).status == "valid"
    await door.oidc.revoke.token(issuer=ISSUER, jti=f"id of {OPAQUE}")
    assert check(OPAQUE).status == check(OPAQUE.encode()).status == "revoked"
    assert check(jti=f"id of {OPAQUE}").status == "revoked"
    assert len(asked.asked) == 1
    door.clock.advance(61)
    assert check(OPAQUE).status == "unknown", "who knows its jti was not asked"


async def test_an_opaque_token_without_a_name_is_known_to_be_revoked_for_good(signer: Signer) -> None:
    claims = {name: value for name, value in good_claims().items() if name != "jti"}
    door = door_of(Asked({"active": True, **claims}), signer)
    await door.oidc.revoke.token(OPAQUE)
    assert door.oidc.revocations.check(OPAQUE).status == "revoked"
    door.clock.advance(61)
    assert door.oidc.revocations.check(OPAQUE).status == "revoked"
    assert door.oidc.revocations.check(OPAQUE + "x").status == "unknown"


async def test_what_no_issuer_is_asked_about_is_no_token(signer: Signer) -> None:
    door = door_of(Asked(), signer, client_secret=None)
    with pytest.raises(Malformed):
        door.oidc.revocations.check(OPAQUE)
    with pytest.raises(Malformed):
        door_of(Asked(), signer).oidc.revocations.check("no token at all")


async def test_a_revocation_concerns_the_issuer_that_it_names() -> None:
    """Two issuers may give the same `jti`, `sub` and `client_id`."""
    pair = Pair(lambda token: active(FIRST) if token == "a" else INACTIVE, active(SECOND))
    door = pair.door()
    await door.oidc.revoke.subject("alice", issuer=SECOND)
    await door.oidc.revoke.token(issuer=SECOND, jti="t-1")
    assert (await door.ask(token="a")).status == 200
    assert (await door.ask(token="b")).status == 401


# A fleet, with real issuers in this process


@pytest.fixture
async def fleet(
    fake_issuer_factory: Callable[..., FakeIssuer], cache: str, tmp_path: Path, patient_tiers: None
) -> AsyncIterator[tuple[list[FakeIssuer], list[OIDC]]]:
    """Two issuers, and two nodes that trust both, in different order."""
    issuers = [fake_issuer_factory(url=url, algorithms=("ES256",)) for url in (FIRST, SECOND)]
    for issuer in issuers:
        issuer.client("api", secret=f"secret of {issuer.url}")
    trusted = [
        Issuer(issuer=each.url, audience=each.audience, client_id="api", client_secret=f"secret of {each.url}")
        for each in issuers
    ]
    nodes = [
        OIDC(
            issuers=order,
            cache=cache,
            secret="s" * 32,
            journal=tmp_path / f"{number}.journal",
            transport=issuers[0].transport(issuers[1]),
        )
        for number, order in enumerate((trusted, trusted[::-1]))
    ]
    for oidc in nodes:
        await oidc.start()
    await until(lambda: all(oidc.ready for oidc in nodes))
    yield issuers, nodes
    for oidc in nodes:
        await oidc.stop()
        await oidc.caches.close()


async def test_nodes_share_answers_of_each_issuer(fleet: tuple[list[FakeIssuer], list[OIDC]]) -> None:
    issuers, nodes = fleet
    tokens = [issuer.opaque_token("alice") for issuer in issuers]
    for issuer, token in zip(issuers, tokens, strict=True):
        for oidc in nodes:
            answer = await ask(OIDCMiddleware(who, oidc=oidc), http_scope(token=token))
            principal = await oidc.authenticator.authenticate(f"Bearer {token}".encode())
            assert (answer.status, principal.principal.issuer) == (200, issuer.url)
    # The first node's own issuer knew the first token; each was asked once about the second, and once about the first.
    assert [issuer.requests["introspect"] for issuer in issuers] == [2, 2]


async def test_64_at_once_are_one_question_to_each(fleet: tuple[list[FakeIssuer], list[OIDC]]) -> None:
    """I-concurrent, with two issuers."""
    issuers, nodes = fleet
    token = issuers[1].opaque_token("alice")
    doors = [OIDCMiddleware(who, oidc=oidc) for oidc in nodes]
    answers = await asyncio.gather(*(ask(doors[number % 2], http_scope(token=token)) for number in range(64)))
    assert {answer.status for answer in answers} == {200}
    assert [issuer.requests["introspect"] for issuer in issuers] == [1, 1]


# What `explain` says


async def test_explain_names_all_who_are_asked(capsys: pytest.CaptureFixture[str]) -> None:
    pair = Pair(INACTIVE, active(SECOND))
    assert await explain(OPAQUE.encode(), pair.door().oidc) == 0
    said = capsys.readouterr().out
    assert f'an opaque token: "{FIRST}" and "{SECOND}" are asked in this order' in said
    assert f'accepted: "alice" of "{SECOND}"' in said
