"""Issuers that are unknown at start: who asks for them, how often, what is kept, and what if nobody answers."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from provider_kit import until

from oidc_middleware import OIDC, Issuer, Rule, Settings
from oidc_middleware.auth import resolving
from oidc_middleware.errors import ConfigError
from oidc_middleware.testing import FakeIssuer, ManualClock

from abuse.door import Answer, Door, is_503
from abuse.signing import AUDIENCE, NOW, Signer
from tenants_kit import HOST, ONE, TEMPLATE, Documents, door_of, issuer_of, refusal, token_of

pytestmark = pytest.mark.anyio

NOT_OURS = "claim: iss mismatch (not one of the configured issuers)"


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


class Registry:
    """An app's table of its customers' issuers, and a resolver that looks them up in it."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.asked: Counter[str] = Counter()
        self.under_way = 0
        self.most_under_way = 0
        self.hold: asyncio.Event | None = None
        self.before: Callable[[str], Awaitable[None]] | None = None

    def add(self, issuer: str, **settings: Any) -> None:
        self.known[issuer] = Issuer(**{"issuer": issuer, "audience": AUDIENCE, **settings})

    async def __call__(self, issuer: str) -> Any:
        self.asked[issuer] += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if self.hold is not None:
                await self.hold.wait()
            if self.before is not None:
                await self.before(issuer)
            return self.known.get(issuer)
        finally:
            self.under_way -= 1


class Place:
    """A door whose issuers are all resolved; `one` and `two` are known."""

    def __init__(self, signer: Signer, **settings: Any) -> None:
        self.signer = signer
        self.registry = Registry()
        self.documents = Documents()
        self.one, self.two = issuer_of("one"), issuer_of("two")
        for issuer in (self.one, self.two):
            self.publish(issuer)
        self.clock = ManualClock(NOW)
        oidc = OIDC(
            clock=self.clock, transport=self.documents, leeway=0, **{"issuer_resolver": self.registry, **settings}
        )
        self.door = Door.before(oidc, self.clock)

    def publish(self, issuer: str, **settings: Any) -> None:
        self.documents.publish(issuer, self.signer.jwks())
        self.registry.add(issuer, **settings)

    def token(self, issuer: str, **changes: Any) -> str:
        claims = {"iss": issuer, "exp": int(NOW) + 86_400, **changes.pop("claims", {})}
        return self.signer.token(claims=claims, **changes)

    async def ask(self, issuer: str, **changes: Any) -> Answer:
        return await self.door.ask(token=self.token(issuer, **changes))

    @property
    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self.door.oidc.stats()["resolved_issuers"]["issuer_resolver"]
        return found

    @property
    def entries(self) -> dict[str, Any]:
        return dict(self.door.oidc._issuers._resolved["issuer_resolver"]._entries)


@pytest.fixture
def place(signer: Signer) -> Place:
    return Place(signer)


# Who gets in


async def test_an_issuer_is_found_when_its_first_token_comes(place: Place) -> None:
    place.registry.add(place.two, audience="another", role_claims="jobs")
    answer = await place.ask(place.one)
    assert answer.seen is not None
    assert answer.seen["user"].issuer == place.one
    assert (await place.ask(place.two)).status == 401
    answer = await place.ask(place.two, claims={"aud": "another", "jobs": ["baker"]})
    assert answer.seen is not None
    assert answer.seen["user"].roles == {"baker"}
    assert place.registry.asked == {place.one: 1, place.two: 1}


async def test_an_issuer_that_nobody_knows_is_refused_and_remembered(place: Place) -> None:
    stranger = issuer_of("stranger")
    for _ in range(3):
        assert await refusal(place.door, place.token(stranger)) == NOT_OURS
    assert place.registry.asked == {stranger: 1}
    place.publish(stranger)
    assert (await place.ask(stranger)).status == 401
    place.clock.advance(resolving.REFUSED_LIFE)
    assert (await place.ask(stranger)).status == 200
    assert not place.documents.asked[f"{issuer_of('nobody')}/keys"]


async def test_no_token_of_one_is_good_for_another(signer: Signer) -> None:
    """Both sign under the same `kid`."""
    place, other = Place(signer), Signer()
    place.documents.publish(place.two, other.jwks())
    assert (await place.ask(place.one)).status == 200
    assert (await place.ask(place.two, key=other.rsa)).status == 200
    assert str(await refusal(place.door, place.token(place.two))).startswith("bad_signature")
    assert str(await refusal(place.door, place.token(place.one, key=other.rsa))).startswith("bad_signature")


@pytest.mark.parametrize(
    "name", ["", "x", "http//x", "ftp://a.example", f"{HOST}/a?b", TEMPLATE, f"{HOST}/../x", f"{HOST}/" + "x" * 3000]
)
async def test_nobody_is_asked_about_what_is_no_issuer(name: str, place: Place) -> None:
    assert await refusal(place.door, place.token(name)) == NOT_OURS
    assert place.registry.asked == {}
    assert place.stats["refused"] == 0


async def test_the_resolver_must_name_the_very_issuer(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """A resolver that reads names generously would make two issuers one."""
    asked = place.one + "/"
    place.registry.known[asked] = place.registry.known[place.one]
    assert await refusal(place.door, place.token(asked)) == NOT_OURS
    assert "returned another" in caplog.text
    assert not place.documents.asked


async def test_configured_issuers_need_no_resolver(signer: Signer) -> None:
    registry = Registry()
    issuer = FakeIssuer(clock=ManualClock(NOW))
    door = Door.of(issuer, issuer_resolver=registry)
    assert (await door.ask(token=issuer.token())).status == 200
    assert registry.asked == {}
    assert await refusal(door, signer.token(claims={"iss": issuer_of("x")})) == NOT_OURS
    assert registry.asked == {issuer_of("x"): 1}


# At once


async def test_many_tokens_of_a_new_issuer_ask_once(place: Place) -> None:
    place.registry.hold = asyncio.Event()
    asks = [asyncio.create_task(place.ask(place.one, claims={"jti": f"t-{n}"})) for n in range(50)]
    await until(lambda: place.registry.under_way)
    place.registry.hold.set()
    assert {answer.status for answer in await asyncio.gather(*asks)} == {200}
    assert place.registry.asked == {place.one: 1}
    assert place.documents.asked[f"{place.one}/keys"] == 1


async def test_a_caller_that_goes_away_takes_nobody_along(place: Place) -> None:
    place.registry.hold = asyncio.Event()
    first = asyncio.create_task(place.ask(place.one))
    await until(lambda: place.registry.under_way)
    second = asyncio.create_task(place.ask(place.one, claims={"jti": "t-2"}))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    place.registry.hold.set()
    assert (await second).status == 200
    assert place.registry.asked == {place.one: 1}


async def test_a_flood_of_made_up_issuers_is_bounded(place: Place) -> None:
    """Neither memory nor the resolver: whoever comes on top of the bound hears 503."""
    place.registry.hold = asyncio.Event()
    flood = [asyncio.create_task(place.ask(issuer_of(f"x{n}"))) for n in range(500)]
    await until(lambda: sum(task.done() for task in flood) == 500 - resolving.MAX_CALLS)
    assert place.registry.under_way == resolving.MAX_CALLS
    place.registry.hold.set()
    answers = await asyncio.gather(*flood)
    assert Counter(answer.status for answer in answers) == {401: resolving.MAX_CALLS, 503: 500 - resolving.MAX_CALLS}
    assert all(is_503(answer) for answer in answers if answer.status == 503)
    assert place.registry.most_under_way == resolving.MAX_CALLS
    assert (await place.ask(place.one)).status == 200


async def test_what_is_kept_of_a_flood_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "MAX_REFUSED", 50)
    monkeypatch.setattr(resolving, "MAX_ISSUERS", 20)
    monkeypatch.setattr(resolving, "MAX_UNREADY", 5)
    assert (await place.ask(place.one)).status == 200
    for n in range(120):
        assert (await place.ask(issuer_of(f"unknown{n}"))).status == 401
    for n in range(60):  # accepted by a generous resolver, and nobody is there
        place.registry.add(issuer_of(f"gone{n}"))
        assert is_503(await place.ask(issuer_of(f"gone{n}")))
    assert (place.stats["refused"], place.stats["issuers"]) == (50, 6)
    asked = place.registry.asked[place.one]
    place.clock.advance(61)
    assert (await place.ask(place.one)).status == 200
    assert place.registry.asked[place.one] == asked, "whose keys are there is not washed out by those without"


async def test_the_issuer_that_was_not_used_the_longest_goes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "MAX_ISSUERS", 3)
    seen: dict[str, Any] = {}
    async with place.door.oidc:
        names = [issuer_of(f"n{number}") for number in range(5)]
        for name in names:
            place.publish(name)
            assert (await place.ask(name)).status == 200
            assert (await place.ask(names[0], claims={"jti": name})).status == 200
            seen |= place.entries
        assert set(place.entries) == {names[0], names[3], names[4]}
        assert [name for name, entry in seen.items() if entry.open.provider._keys._timer.cancelled()] == names[1:3]
        asked = dict(place.registry.asked)
        for name in (names[0], names[4]):
            assert (await place.ask(name, claims={"jti": "again"})).status == 200
        assert dict(place.registry.asked) == asked
        assert (await place.ask(names[1], claims={"jti": "again"})).status == 200
        assert place.registry.asked[names[1]] == 2


async def test_keys_of_made_up_tenants_are_not_asked_for_without_bound(signer: Signer) -> None:
    """A template whose tenants have their own metadata, and `*`: each new name is a question to the issuer's host."""
    documents = Documents()
    documents.publish(issuer_of(ONE), signer.jwks())
    door = door_of(documents, tenants=["*"], discovery_url=None)
    assert await refusal(door, token_of(signer)) is None
    documents.hold = asyncio.Event()
    tenants = [f"00000000-0000-0000-0000-{number:012x}" for number in range(300)]
    flood = [asyncio.create_task(door.ask(token=token_of(signer, tenant))) for tenant in tenants]
    await until(lambda: sum(task.done() for task in flood) >= 300 - resolving.MAX_CALLS)
    assert documents.most_under_way <= resolving.MAX_CALLS
    assert await refusal(door, token_of(signer, claims={"jti": "t-2"})) is None
    documents.hold.set()
    assert {answer.status for answer in await asyncio.gather(*flood)} == {503}
    assert door.oidc.stats()["resolved_issuers"][TEMPLATE]["issuers"] <= resolving.MAX_UNREADY + 1


# When nobody answers


class Broken(Exception):
    """What a database driver raises."""


@pytest.mark.parametrize("wrong", ["raises", "text", "mapping", "http", "client", "preset"])
async def test_a_resolver_that_fails_is_503(wrong: str, place: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_: str) -> None:
        raise Broken(place.one)

    match wrong:
        case "raises":
            place.registry.before = fail
        case "text":
            place.registry.known[place.one] = place.one
        case "mapping":
            place.registry.known[place.one] = {"issuer": place.one, "audience": AUDIENCE}
        case "http":
            place.one = place.one.replace("https", "http")
            place.registry.add(place.one)
        case "client":
            place.registry.add(place.one, client_secret="s")
        case "preset":
            place.registry.add(place.one, preset="okta", token_type="at+jwt")
    for _ in range(2):
        assert is_503(await place.ask(place.one))
    assert place.stats["failures"] == 2
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1, "loud once"
    assert place.one not in caplog.text, "what a client sent is not logged"
    place.registry.before = None
    assert (await place.ask(place.two)).status == 200


async def test_a_resolver_that_hangs_is_503(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "DEADLINE", 0.05)
    place.registry.hold = asyncio.Event()
    assert is_503(await place.ask(place.one))
    place.registry.hold.set()
    assert (await place.ask(place.one)).status == 200
    assert place.registry.under_way == 0


async def test_a_resolver_that_is_cancelled_from_within_is_503(place: Place) -> None:
    async def cancelled(_: str) -> None:
        raise asyncio.CancelledError

    place.registry.before = cancelled
    assert is_503(await place.ask(place.one))


async def test_known_issuers_outlive_a_resolver_that_fails(place: Place) -> None:
    assert (await place.ask(place.one)).status == 200

    async def fail(_: str) -> None:
        raise Broken

    place.registry.before = fail
    place.clock.advance(resolving.LIFE)
    for number in range(3):
        assert (await place.ask(place.one, claims={"jti": f"t-{number}"})).status == 200
    assert place.registry.asked[place.one] == 2, "asked again after a pause, not for each token"
    place.clock.advance(resolving.PAUSE)
    assert (await place.ask(place.one, claims={"jti": "t-4"})).status == 200
    await until(lambda: place.registry.asked[place.one] == 3)
    place.clock.advance(resolving.STALE_LIFE)
    assert is_503(await place.ask(place.one, claims={"jti": "t-5"}))


async def test_nobody_waits_again_and_again_for_a_resolver_that_hangs(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await place.ask(place.one)).status == 200
    place.registry.hold = asyncio.Event()
    place.clock.advance(resolving.LIFE)
    monkeypatch.setattr(resolving, "DEADLINE", 0.05)
    assert (await place.ask(place.one, claims={"jti": "t-2"})).status == 200
    monkeypatch.setattr(resolving, "DEADLINE", 3600)
    place.clock.advance(resolving.PAUSE)
    assert (await place.ask(place.one, claims={"jti": "t-3"})).status == 200
    await until(lambda: place.registry.under_way)  # beside
    del place.registry.known[place.one]
    place.registry.hold.set()
    await until(lambda: not place.entries)
    assert (await place.ask(place.one, claims={"jti": "t-4"})).status == 401


async def test_an_issuer_whose_keys_do_not_come_is_503(place: Place) -> None:
    del place.documents.documents[f"{place.one}/keys"]
    assert is_503(await place.ask(place.one))
    assert (await place.ask(place.two)).status == 200


# What changes


async def test_an_issuer_that_is_trusted_no_more_is_out_within_minutes(place: Place) -> None:
    token = place.token(place.one)
    assert (await place.door.ask(token=token)).status == 200
    del place.registry.known[place.one]
    assert (await place.door.ask(token=token)).status == 200
    place.clock.advance(resolving.LIFE)
    assert await refusal(place.door, token) == NOT_OURS
    assert place.stats["issuers"] == 0


async def test_known_tokens_end_with_their_issuer(place: Place) -> None:
    """A token that was verified a moment ago is verified anew when another one shows that its issuer is gone."""
    old = place.token(place.one)
    assert (await place.door.ask(token=old)).status == 200
    place.clock.advance(resolving.LIFE - 1)
    assert (await place.door.ask(token=old)).status == 200
    del place.registry.known[place.one]
    place.clock.advance(1)
    assert (await place.ask(place.one, claims={"jti": "t-2"})).status == 401
    assert (await place.door.ask(token=old)).status == 401


async def test_new_settings_of_an_issuer_hold_for_known_tokens_too(place: Place) -> None:
    old = place.token(place.one)
    assert (await place.door.ask(token=old)).status == 200
    place.clock.advance(resolving.LIFE - 1)
    assert (await place.door.ask(token=old)).status == 200
    place.registry.add(place.one, audience="another")
    place.clock.advance(1)
    assert (await place.ask(place.one, claims={"aud": "another"})).status == 200
    assert await refusal(place.door, old) == "claim: aud mismatch"


async def test_the_same_answer_changes_nothing(place: Place) -> None:
    assert (await place.ask(place.one)).status == 200
    place.registry.add(place.one)  # an equal one
    place.clock.advance(resolving.LIFE)
    assert (await place.ask(place.one, claims={"jti": "t-2"})).status == 200
    assert place.registry.asked[place.one] == 2
    assert place.documents.asked[f"{place.one}/keys"] == 1


# Start and stop


async def test_what_is_resolved_starts_and_stops_with_the_service(place: Place) -> None:
    oidc = place.door.oidc
    async with oidc:
        assert (await place.ask(place.one)).status == 200
        await until(lambda: oidc.ready)
        (entry,) = place.entries.values()
        timer = entry.open.provider._keys._timer
        assert (entry.runs, timer.cancelled()) == (True, False)
    assert (entry.runs, timer.cancelled()) == (False, True)
    async with oidc:
        assert (entry.runs, entry.open.provider._keys._timer.cancelled()) == (True, False)
        assert (await place.ask(place.one, claims={"jti": "t-2"})).status == 200
    assert place.registry.asked == {place.one: 1}


async def test_stop_ends_a_resolver_under_way(place: Place) -> None:
    oidc = place.door.oidc
    await oidc.start()
    place.registry.hold = asyncio.Event()
    asking = asyncio.create_task(place.ask(place.one))
    await until(lambda: place.registry.under_way)
    await oidc.stop()
    assert is_503(await asking)
    assert place.registry.under_way == 0
    place.registry.hold.set()
    assert (await place.ask(place.one)).status == 200


def test_what_is_resolved_serves_one_loop_after_another(signer: Signer) -> None:
    place = Place(signer)
    for number in range(3):
        answer = asyncio.run(place.ask(place.one, claims={"jti": f"t-{number}"}))
        assert answer.status == 200
    assert place.registry.asked == {place.one: 1}


def test_background_work_goes_on_after_a_loop_that_nobody_stopped_it_on(signer: Signer) -> None:
    place = Place(signer)

    async def visit(number: int) -> bool:
        await place.door.oidc.start()
        assert (await place.ask(place.one, claims={"jti": f"t-{number}"})).status == 200
        (entry,) = place.entries.values()
        timer = entry.open.provider._keys._timer
        return entry.runs and not timer.cancelled() and timer._loop is asyncio.get_running_loop()

    for number in range(3):
        assert asyncio.run(visit(number))


async def test_revocations_name_resolved_issuers(place: Place) -> None:
    await place.door.oidc.revoke.subject("alice", issuer=place.one)
    assert (await place.ask(place.one)).status == 401
    assert (await place.ask(place.two)).status == 200
    with pytest.raises(ValueError, match="not a configured issuer"):
        await place.door.oidc.revoke.subject("alice", issuer="no issuer")


async def test_jwts_of_resolved_issuers_may_be_asked_about(place: Place) -> None:
    place.registry.add(place.one, client_id="api", client_secret="s", introspection="always")
    place.documents.documents[f"{place.one}/.well-known/openid-configuration"]["introspection_endpoint"] = (
        f"{place.one}/introspect"
    )
    place.documents.documents[f"{place.one}/introspect"] = {"active": False}
    assert await refusal(place.door, place.token(place.one)) == "inactive: the issuer says that it is not active"
    place.clock.advance(11)
    place.documents.documents[f"{place.one}/introspect"] = {"active": True}
    assert await refusal(place.door, place.token(place.one)) is None
    await place.door.oidc.stop()


# Addresses


async def test_a_resolved_issuer_reaches_no_metadata_service_of_a_cloud(signer: Signer) -> None:
    """The rules of the provider's door hold: link-local addresses never, plain http for loopback only."""
    place = Place(signer, allow_http=True)
    for issuer in ("https://169.254.169.254", "http://169.254.169.254", "https://[fd00:ec2::254]"):
        place.publish(issuer)
        assert is_503(await place.ask(issuer))
    assert not place.documents.asked


# Settings


def test_a_resolver_alone_is_enough() -> None:
    settings = Settings(issuer_resolver=Registry(), rules=[Rule("/x", scopes=("a",))])
    assert settings.trusted == ()


@pytest.mark.parametrize(
    ("keywords", "field", "problem"),
    [
        ({"issuer_resolver": "x"}, "issuer_resolver", "must be a function"),
        ({"issuer_resolver": lambda _: None}, "issuer_resolver", "must be asynchronous"),
        ({"issuer_resolver": Registry(), "audience": "a"}, "issuer", "is missing"),
        ({"issuer_resolver": Registry(), "issuer": HOST}, "audience", "is missing"),
        ({}, "issuer", "is missing"),
    ],
)
def test_a_resolver_that_cannot_work(keywords: dict[str, Any], field: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as refused:
        Settings(**keywords)
    assert (refused.value.field, bool(refused.value.cure)) == (field, True)


def test_a_resolver_cannot_come_from_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OIDC_ISSUER_RESOLVER", "x")
    with pytest.raises(ConfigError, match="cannot come from a variable"):
        Settings(issuer=HOST, audience="a")
