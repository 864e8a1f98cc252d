"""The `keys/fetch` abuse cases as a client and an operator see them: whole requests, and what they cost the issuer."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from provider_kit import HOUR, MINUTE, until

from oidc_middleware.provider.provider import COOL_DOWN
from oidc_middleware.testing import FakeIssuer, faults, make_key

from abuse.door import Door, fetches, is_503

pytestmark = pytest.mark.anyio

DAY = 24 * HOUR
MakeIssuer = Callable[..., FakeIssuer]


@pytest.fixture
def make_issuer(fake_issuer_factory: MakeIssuer) -> MakeIssuer:
    def make(url: str = "https://issuer.example", **options: Any) -> FakeIssuer:
        return fake_issuer_factory(url, algorithms=("ES256",), **options)

    return make


@pytest.fixture
def issuer(make_issuer: MakeIssuer) -> FakeIssuer:
    return make_issuer()


# Storms


@pytest.mark.parametrize("forged", ["kid", "no-kid", "signature"])
async def test_ten_thousand_made_up_tokens_in_a_minute(forged: str, issuer: FakeIssuer) -> None:
    """J-kid-storm: four fetches of keys at most, and a key that rotates in the middle is accepted in the cool-down.

    Made up are the `kid`, or there is none, or it is that of a real key.
    """
    door = Door.of(issuer)
    evil = make_key("ES256", kid="evil")
    rng = random.Random(11)
    good = issuer.token()
    head, payload, signature = issuer.token(key=evil).split(".")
    shape: dict[str, Any] = {"no-kid": {"omit_headers": ("kid",)}, "signature": {}}.get(forged, {})
    rotated_at = 0.0
    accepted_at: float | None = None
    for number in range(10_000):
        if number % 100 == 0:
            kid = issuer.keys.current().kid if forged == "signature" else f"{rng.getrandbits(64):x}"
            head = issuer.token(key=evil, headers={} if forged == "no-kid" else {"kid": kid}, **shape).split(".")[0]
        if number == 3_333:
            issuer.rotate("overlap")
            rotated_at = door.clock.monotonic()
        storm = f"{head}.{payload}.{signature[:-8]}{number:08d}"
        assert (await door.ask(token=storm)).status == 401
        if number % 10 == 0:
            assert (await door.ask(token=good)).status == 200
            if number > 3_333 and accepted_at is None and (await door.ask(token=issuer.token())).status == 200:
                accepted_at = door.clock.monotonic()
        door.clock.advance(60 / 10_000)
    assert fetches(issuer)[1] <= 4
    assert fetches(issuer)[0] == 1
    assert accepted_at is not None
    assert 0 < accepted_at - rotated_at <= COOL_DOWN


async def test_ten_thousand_random_kids_at_once_are_two_fetches(issuer: FakeIssuer) -> None:
    """J-kid-storm, the first requests that ever come; the good ones among them get in."""
    door = Door.of(issuer)
    head, payload, signature = issuer.token().split(".")
    storm = [f"{head}.{payload}.{signature[:-8]}{number:08d}" for number in range(2_000)]
    storm += [issuer.token(headers={"kid": f"kid-{number}"}) for number in range(2_000)]
    answers = await asyncio.gather(*(door.ask(token=token) for token in (issuer.token(), *storm, issuer.token())))
    assert [answers[0].status, answers[-1].status] == [200, 200]
    assert {answer.status for answer in answers[1:-1]} == {401}
    assert fetches(issuer)[0] == 1
    assert fetches(issuer)[1] <= 2


@pytest.mark.parametrize("fault", [faults.status(500), faults.down(), faults.garbage()], ids=["500", "down", "garbage"])
async def test_a_storm_while_the_issuer_fails(fault: faults.Fault, issuer: FakeIssuer) -> None:
    """J-storm-failing: the keys from before stay, failures are limited too, and afterwards all is well."""
    door = Door.of(issuer)
    assert (await door.ask(token=issuer.token())).status == 200
    issuer.fault("jwks", fault)
    for number in range(2_000):
        assert (await door.ask(token=issuer.token(headers={"kid": f"kid-{number}"}))).status == 401
        if number % 20 == 0:
            assert (await door.ask(token=issuer.token())).status == 200
        door.clock.advance(60 / 2_000)
    assert fetches(issuer)[1] <= 4
    issuer.heal()
    issuer.rotate("replace")
    door.clock.advance(COOL_DOWN)
    assert (await door.ask(token=issuer.token())).status == 200


# Single flight


@pytest.mark.parametrize("held", ["discovery", "jwks"])
async def test_five_hundred_first_requests(held: str, issuer: FakeIssuer) -> None:
    """J-singleflight: one discovery and one fetch of keys; who is cancelled, the first too, takes nobody along."""
    door = Door.of(issuer)
    release = asyncio.Event()
    issuer.fault(held, faults.held(release), 1)
    leader = asyncio.ensure_future(door.ask(token=issuer.token()))
    await until(lambda: issuer.requests[held])
    others = [asyncio.ensure_future(door.ask(token=issuer.token(f"user-{number}"))) for number in range(499)]
    await asyncio.sleep(0)
    for gone in (leader, others[0], others[250]):
        gone.cancel()
    release.set()
    answers = await asyncio.gather(leader, *others, return_exceptions=True)
    served = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert sum(isinstance(answer, asyncio.CancelledError) for answer in answers) == 3
    assert [answer.status for answer in served] == [200] * 497
    assert len({json.loads(answer.body)["sub"] for answer in served}) == 497
    assert fetches(issuer) == (1, 1)


async def test_five_hundred_first_requests_are_all_told_when_the_issuer_fails(issuer: FakeIssuer) -> None:
    issuer.fault("*", faults.down())
    door = Door.of(issuer)
    answers = await asyncio.gather(*(door.ask(token=issuer.token()) for _ in range(500)))
    assert all(map(is_503, answers))
    assert fetches(issuer) == (1, 0)


async def test_a_thousand_requests_when_the_keys_have_just_ended(issuer: FakeIssuer) -> None:
    """D-stampede on one node."""
    door = Door.of(issuer)
    assert (await door.ask(token=issuer.token())).status == 200
    door.clock.advance(DAY)
    answers = await asyncio.gather(*(door.ask(token=issuer.token()) for _ in range(1_000)))
    assert {answer.status for answer in answers} == {200}
    assert fetches(issuer) == (2, 2)


# Several issuers


async def test_keys_of_two_issuers_never_cross(make_issuer: MakeIssuer) -> None:
    """J-cross-issuer, J-singleflight-key: both publish the same `kid` for different keys, and are asked at once."""
    one, two = make_issuer("https://one.example"), make_issuer("https://two.example")
    assert one.keys.current().kid == two.keys.current().kid
    door = Door.of(one, two)
    tokens = [one.token(), two.token(), one.token(claims={"iss": two.url}), two.token(claims={"iss": one.url})] * 50
    answers = await asyncio.gather(*(door.ask(token=token) for token in tokens))
    assert [answer.status for answer in answers] == [200, 200, 401, 401] * 50
    again = [await door.ask(token=token) for token in tokens[:4]]
    assert [answer.status for answer in again] == [200, 200, 401, 401]
    identities = {answer.seen["user"].identity for answer in again[:2]}  # type: ignore[index]
    assert len(identities) == 2


async def test_an_audience_belongs_to_its_issuer(make_issuer: MakeIssuer) -> None:
    one = make_issuer("https://one.example", audience="api://one")
    two = make_issuer("https://two.example", audience="api://two")
    door = Door.of(one, two)
    assert (await door.ask(token=one.token())).status == 200
    assert (await door.ask(token=one.token(audience=two.audience))).status == 401


async def test_an_issuer_that_is_down_harms_only_its_own_users(make_issuer: MakeIssuer) -> None:
    one, two = make_issuer("https://one.example"), make_issuer("https://two.example")
    one.fault("*", faults.down())
    door = Door.of(one, two)
    assert is_503(await door.ask(token=one.token()))
    assert (await door.ask(token=two.token())).status == 200


async def test_a_token_names_no_place_to_look(make_issuer: MakeIssuer, issuer: FakeIssuer) -> None:
    """J-issuer-from-token: no request leaves for an issuer, or a URL, that only the token knows."""
    evil = make_issuer("https://evil.example")
    asked: list[str] = []
    inner = issuer.transport(evil)

    class Watched(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            asked.append(str(request.url))
            return await inner.handle_async_request(request)

    door = Door(b"", transport=Watched(), issuer=issuer.url, audience=issuer.audience)
    door.clock.jump(issuer.clock.now() - door.clock.now())
    jwks = evil.endpoint("jwks")
    for token in (
        evil.token(),
        evil.token(headers={"jku": jwks, "x5u": jwks}),
        evil.token(claims={"iss": issuer.url}, headers={"jku": jwks}),
        evil.token(headers={"iss": evil.url, "aud": evil.audience}),
    ):
        assert (await door.ask(token=token)).status == 401
    assert asked == []
    assert (await door.ask(token=issuer.token())).status == 200
    assert evil.requests == {}


# Rotation, withdrawal, outage


async def test_a_key_that_was_unknown_is_accepted_once_it_is_published(issuer: FakeIssuer) -> None:
    """J-cache-on-neg."""
    door = Door.of(issuer)
    new = make_key("ES256", kid="new")
    token = issuer.token(key=new)
    assert (await door.ask(token=token)).status == 401
    issuer.extra_jwks.append(new.public_jwk())
    door.clock.advance(COOL_DOWN)
    assert (await door.ask(token=token)).status == 200


async def test_a_withdrawn_key_takes_its_tokens_along(issuer: FakeIssuer) -> None:
    """J-keyrefresh-remove, C-key-removed: known tokens too, as soon as the keys were refreshed."""
    door = Door.of(issuer)
    old = issuer.token(expires_in=DAY)
    for _ in range(3):
        assert (await door.ask(token=old)).status == 200
    issuer.rotate("replace")
    assert (await door.ask(token=issuer.token())).status == 200  # an unknown kid: a new look at the keys
    for _ in range(3):
        assert (await door.ask(token=old)).status == 401


async def test_a_withdrawn_key_is_noticed_with_nothing_but_known_tokens(issuer: FakeIssuer) -> None:
    """J-keyrefresh-remove: known tokens are verified anew every minute, and keys are refreshed when they are due."""
    door = Door.of(issuer)
    old = issuer.token(expires_in=DAY)
    assert (await door.ask(token=old)).status == 200
    issuer.rotate("replace")
    elapsed = 0.0
    while (await door.ask(token=old)).status == 200:
        door.clock.advance(30)
        elapsed += 30
        assert elapsed <= 6 * MINUTE  # no-store: keys live for five minutes
        await asyncio.sleep(0.001)  # a refresh ahead runs beside the requests
    assert fetches(issuer)[1] <= 3


async def test_an_issuer_that_is_down_for_three_days(issuer: FakeIssuer) -> None:
    """J-stale-forever: keys serve for a day, known tokens included; then 503, and afterwards all is well."""
    door = Door.of(issuer)
    known = issuer.token(expires_in=7 * DAY)
    assert (await door.ask(token=known)).status == 200
    issuer.fault("*", faults.down())
    for _ in range(23):
        door.clock.advance(HOUR)
        assert (await door.ask(token=known)).status == 200
        assert (await door.ask(token=issuer.token())).status == 200
    door.clock.advance(2 * HOUR)
    for _ in range(3):
        for token in (known, known, issuer.token(), issuer.token(key=make_key("ES256", kid="evil"))):
            assert is_503(await door.ask(token=token))
        door.clock.advance(DAY)
    assert (await door.ask(token="evil")).status == 401  # what is no token at all is still told so
    issuer.heal()
    door.clock.advance(MINUTE)
    assert (await door.ask(token=known)).status == 200


@pytest.mark.parametrize("kind", ["good", "wrong-key", "unknown-kid"])
async def test_without_keys_nobody_can_say(kind: str, issuer: FakeIssuer) -> None:
    """503 whatever the token, while none of its keys are known; but what needs no key to refuse is refused."""
    issuer.fault("*", faults.down())
    door = Door.of(issuer)
    evil = make_key("ES256", kid=issuer.keys.current().kid)
    token = {
        "good": issuer.token(),
        "wrong-key": issuer.token(key=evil),
        "unknown-kid": issuer.token(headers={"kid": "zzz"}),
    }[kind]
    assert is_503(await door.ask(token=token))
    assert is_503(await door.handshake(token=token))
    for refused in (issuer.token(expires_in=-1), issuer.token(audience="other"), issuer.token(algorithm="none")):
        assert (await door.ask(token=refused)).status == 401
    assert (await door.ask()).status == 401
