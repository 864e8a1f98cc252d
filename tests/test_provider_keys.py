"""Keys of an issuer: fetched once, refreshed, rotated, withdrawn, and never lost to a failure."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections.abc import Callable
from typing import Any

import pytest
from provider_kit import HOUR, MINUTE, Bench, until

from oidc_middleware.cache import Caches
from oidc_middleware.core.addresses import Zone
from oidc_middleware.errors import BackendUnavailable, ProviderError, ProviderInvalid, ProviderUnavailable
from oidc_middleware.provider.http import Answer, HTTPDoor
from oidc_middleware.provider.provider import COOL_DOWN
from oidc_middleware.testing import FakeIssuer, ManualClock, faults, make_key

pytestmark = pytest.mark.anyio

MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(fake_issuer_factory: Callable[..., FakeIssuer], oidc_clock: ManualClock) -> MakeBench:
    def make(issuer: FakeIssuer | None = None, **options: Any) -> Bench:
        return Bench(issuer or fake_issuer_factory(algorithms=("ES256",)), oidc_clock, options)

    return make


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    return make_bench()


# The first request


async def test_nothing_is_fetched_before_it_is_needed(bench: Bench) -> None:
    assert bench.provider.peek_keys() is None
    assert not bench.provider.ready
    assert bench.fetches == (0, 0)


async def test_the_first_look_fetches_and_the_next_ones_do_not(bench: Bench) -> None:
    (key,) = await bench.find()
    assert key.kid == bench.kid
    assert bench.provider.ready
    for _ in range(100):
        assert await bench.find() == (key,)
    assert bench.fetches == (1, 1)
    assert (await bench.provider.metadata()).jwks_uri == bench.issuer.endpoint("jwks")
    assert bench.fetches == (1, 1)


async def test_five_hundred_first_requests_are_one_fetch_of_each(bench: Bench) -> None:
    """J-singleflight."""
    found = await asyncio.gather(*(bench.find() for _ in range(500)))
    assert {keys[0].kid for keys in found} == {bench.kid}
    assert bench.fetches == (1, 1)


@pytest.mark.parametrize("endpoint", ["discovery", "jwks"])
async def test_a_cancelled_leader_takes_nobody_along(bench: Bench, endpoint: str) -> None:
    """J-singleflight: the first of 500 goes away while the issuer is being asked."""
    release = asyncio.Event()
    bench.issuer.fault(endpoint, faults.held(release), 1)
    leader = asyncio.ensure_future(bench.find())
    await until(lambda: bench.issuer.requests[endpoint])
    others = [asyncio.ensure_future(bench.find()) for _ in range(499)]
    await asyncio.sleep(0)
    leader.cancel()
    others[100].cancel()
    release.set()
    answers = await asyncio.gather(leader, *others, return_exceptions=True)
    assert sum(isinstance(answer, asyncio.CancelledError) for answer in answers) == 2
    assert all(answer[0].kid == bench.kid for answer in answers if not isinstance(answer, BaseException))
    assert bench.fetches == (1, 1)


async def test_two_issuers_with_one_kid_never_share_a_key(
    make_bench: MakeBench, fake_issuer_factory: Callable[..., FakeIssuer]
) -> None:
    """J-singleflight-key, J-cross-issuer."""
    one, two = (
        make_bench(fake_issuer_factory(f"https://{name}.example", algorithms=("ES256",))) for name in ("one", "two")
    )
    assert one.kid == two.kid
    shared = make_bench(two.issuer, caches=one.caches)
    answers = await asyncio.gather(*(bench.find() for bench in (one, shared) for _ in range(50)))
    assert len({keys[0].thumbprint for keys in answers[:50]}) == 1
    assert len({keys[0].thumbprint for keys in answers[50:]}) == 1
    assert answers[0][0].thumbprint != answers[50][0].thumbprint


async def test_a_fetch_sees_nothing_of_the_request_that_caused_it(make_bench: MakeBench) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")
    seen: list[str] = []
    issuer = FakeIssuer(algorithms=("ES256",))
    inner = issuer.transport()

    class Watching(type(inner)):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            seen.append(variable.get())
            return await inner.handle_async_request(request)

    bench = make_bench(issuer, transport=Watching(issuer))
    variable.set("a request's secret")
    await bench.find()
    bench.clock.advance(4.5 * MINUTE)  # refresh is due
    await bench.find()
    await until(lambda: bench.fetches[1] == 2)
    assert set(seen) == {"nothing"}


# Where documents are looked for


async def test_the_oauth_place_is_asked_when_the_openid_place_has_nothing(make_bench: MakeBench) -> None:
    bench = make_bench(FakeIssuer("https://issuer.example/tenant", algorithms=("ES256",)))
    bench.issuer.fault("discovery", faults.status(404))
    assert await bench.find()
    assert bench.issuer.requests == {"discovery": 1, "oauth_metadata": 1, "jwks": 1}


@pytest.mark.parametrize(
    "fault",
    [faults.status(500), faults.down(), faults.redirect("https://evil.example/")],
    ids=["error", "down", "redirect"],
)
async def test_a_failure_is_no_reason_to_look_elsewhere(bench: Bench, fault: faults.Fault) -> None:
    """RP-x-discovery-redirect."""
    bench.issuer.fault("discovery", fault)
    with pytest.raises(ProviderError):
        await bench.find()
    assert bench.issuer.requests == {"discovery": 1}


async def test_configured_keys_need_no_discovery(make_bench: MakeBench) -> None:
    issuer = FakeIssuer(algorithms=("ES256",))
    bench = make_bench(issuer, jwks_uri=issuer.endpoint("jwks"))
    assert await bench.find()
    assert bench.fetches == (0, 1)


async def test_a_configured_discovery_url_replaces_the_well_known_places(make_bench: MakeBench) -> None:
    issuer = FakeIssuer(algorithms=("ES256",))
    bench = make_bench(issuer, discovery_url=issuer.endpoint("oauth_metadata"))
    assert await bench.find()
    assert bench.issuer.requests == {"oauth_metadata": 1, "jwks": 1}


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        pytest.param("http://issuer.example/jwks", "jwks_uri: http is for loopback only", id="J-scheme-http"),
        pytest.param("file:///etc/passwd", "jwks_uri: not an http or https URL", id="J-scheme-file"),
        pytest.param("https://127.1/jwks", "jwks_uri: a host that looks like an address", id="J-ssrf-ip-short"),
        pytest.param("https://169.254.169.254/jwks", "its address is forbidden", id="J-ssrf-ip-link-local"),
        pytest.param("https://[fd00::1]/jwks", "its address is private", id="J-ssrf-ip-unique-local"),
        pytest.param("https://100.64.0.1/jwks", "its address is private", id="J-ssrf-ip-carrier-grade-nat"),
        pytest.param("https://127.0.0.1/jwks", "its address is loopback", id="J-ssrf-ip-loopback"),
    ],
)
async def test_an_issuer_outside_may_not_name_addresses_inside(bench: Bench, uri: str, problem: str) -> None:
    bench.issuer.metadata_overrides["jwks_uri"] = uri
    with pytest.raises(ProviderInvalid, match=problem):
        await bench.find()
    assert bench.fetches[1] == 0


class Network:
    """A door to a network of our own: what lies where, and how far inside a request was let."""

    allow_http = False

    def __init__(self, zone: Zone, issuer: FakeIssuer, jwks_uri: str) -> None:
        self.zone = zone
        self.issuer = issuer
        self.jwks_uri = jwks_uri
        self.asked: list[tuple[str, Zone]] = []

    async def get(self, url: str, reach: Zone) -> Answer:
        self.asked.append((url, reach))
        issuer = HTTPDoor(transport=self.issuer.transport())
        if url == self.jwks_uri:
            return await issuer.get(self.issuer.endpoint("jwks"), Zone.PUBLIC)
        answer = await issuer.get(url, Zone.PUBLIC)
        return Answer(answer.body, answer.max_age, self.zone)


@pytest.mark.parametrize("zone", [Zone.PUBLIC, Zone.PRIVATE, Zone.LOOPBACK])
@pytest.mark.parametrize("same_host", [True, False])
async def test_an_issuer_may_name_hosts_as_far_inside_as_itself(
    make_bench: MakeBench, zone: Zone, same_host: bool
) -> None:
    """J-ssrf-ip: unless the configured issuer itself is on that network."""
    issuer = FakeIssuer(algorithms=("ES256",))
    uri = "https://issuer.example:8443/keys" if same_host else "https://keys.example/keys"
    issuer.metadata_overrides["jwks_uri"] = uri
    network = Network(zone, issuer, uri)
    bench = make_bench(issuer)
    bench.provider.http = network  # type: ignore[assignment]
    assert await bench.find()
    assert network.asked[0][1] is Zone.LOOPBACK
    assert network.asked[1] == (uri, Zone.LOOPBACK if same_host else zone)


# Documents that cannot be used


@pytest.mark.parametrize("issuer", ["https://issuer.example/", "https://ISSUER.example", "https://evil.example", None])
async def test_metadata_of_another_issuer_are_refused(bench: Bench, issuer: str | None) -> None:
    """J-issuer-mismatch, RP-oidcc-client-test-discovery-issuer-mismatch."""
    bench.issuer.metadata_overrides["issuer"] = issuer
    with pytest.raises(ProviderInvalid, match="its issuer is not the configured one"):
        await bench.find()
    assert bench.fetches == (1, 0)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faults.body(b'{"keys": {}}'), id="keys-not-a-list"),
        pytest.param(faults.body(b"[]"), id="not-an-object"),
        pytest.param(faults.garbage(), id="cut"),
        pytest.param(faults.body(b"[" * 100_000), id="D-json-depth-jwks"),
        pytest.param(faults.content_type("text/html"), id="RP-x-jwks-html"),
        pytest.param(faults.oversize(), id="RP-x-jwks-huge"),
        pytest.param(faults.redirect("https://evil.example/"), id="RP-x-jwks-redirect"),
    ],
)
async def test_keys_that_cannot_be_used_are_no_keys(bench: Bench, fault: faults.Fault) -> None:
    bench.issuer.fault("jwks", fault)
    with pytest.raises(ProviderInvalid):
        await bench.find()
    assert not bench.provider.ready


@pytest.mark.parametrize(
    "keys", [b"[]", b'[{"kty": "oct", "k": "AAAA", "alg": "HS256"}]'], ids=["RP-x-jwks-empty", "J-oct"]
)
async def test_an_issuer_without_a_key_of_use_is_believed_until_it_has_one(
    bench: Bench, keys: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Its tokens are refused, not put off: it answered, and what it said is that nobody can have signed them."""
    bench.issuer.fault("jwks", faults.body(b'{"keys": ' + keys + b"}"))
    assert await bench.find() == ()
    assert not bench.provider.ready
    assert "no token is accepted" in caplog.text
    bench.issuer.heal()
    assert len(await bench.find()) == 1
    assert bench.provider.ready


async def test_a_bad_key_beside_a_good_one_harms_nobody(bench: Bench) -> None:
    """J-badkey-mixed, RP-x-jwks-one-bad-key."""
    bench.issuer.extra_jwks = [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "bad"}, 7, None]
    assert await bench.find()
    assert await bench.find("bad") == ()


async def test_a_published_private_key_is_shouted_about_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """T-k-private-leak."""
    stranger = make_key("ES256", "leaked")
    number = stranger.private.private_numbers().private_value  # type: ignore[union-attr]
    bench.issuer.extra_jwks = [stranger.public_jwk() | {"d": number.to_bytes(32, "big").hex()}]
    with caplog.at_level(logging.INFO, "oidc_middleware"):
        await bench.find()
        for _ in range(3):
            bench.clock.advance(HOUR)
            await bench.find()
    shouts = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert len(shouts) == 1
    assert "private part" in shouts[0].getMessage()
    assert bench.issuer.url in shouts[0].getMessage()
    assert number.to_bytes(32, "big").hex() not in caplog.text


# Unknown kids


async def test_a_rotated_key_is_accepted_at_its_first_token(bench: Bench) -> None:
    await bench.find()
    bench.issuer.rotate("overlap")
    answers = await asyncio.gather(*(bench.find() for _ in range(500)))
    assert all(keys[0].kid == bench.kid for keys in answers)
    assert bench.fetches == (1, 2)


async def test_a_storm_of_unknown_kids_costs_four_fetches_and_hides_no_rotation(bench: Bench) -> None:
    """J-kid-storm, and a real rotation in its middle."""
    await bench.find()
    rng = random.Random(7)
    accepted_after: float | None = None
    rotated_at = 0.0
    old = bench.kid
    for number in range(10_000):
        if number == 5_000:
            bench.issuer.rotate("overlap")
            rotated_at = bench.clock.monotonic()
        assert await bench.find(f"{rng.getrandbits(64):x}") == ()
        assert await bench.find(old)
        if number >= 5_000 and accepted_after is None and await bench.find():
            accepted_after = bench.clock.monotonic() - rotated_at
        bench.clock.advance(60 / 10_000)
    assert bench.fetches[1] <= 4
    assert accepted_after is not None
    assert accepted_after <= COOL_DOWN


async def test_a_storm_at_once_is_one_fetch(bench: Bench) -> None:
    await bench.find()
    answers = await asyncio.gather(*(bench.find(f"random-{number}") for number in range(1_000)))
    assert set(answers) == {()}
    assert bench.fetches == (1, 2)


async def test_a_storm_on_a_cold_start_is_two_fetches_at_most(bench: Bench) -> None:
    await asyncio.gather(*(bench.find(f"random-{number}") for number in range(1_000)))
    assert bench.fetches[1] <= 2


async def test_a_storm_while_the_issuer_fails_costs_little_and_loses_no_key(bench: Bench) -> None:
    """J-storm-failing."""
    (key,) = await bench.find()
    bench.issuer.fault("jwks", faults.status(500))
    for number in range(1_000):
        assert await bench.find(f"random-{number}") == ()
        assert await bench.find() == (key,)
        bench.clock.advance(0.06)
    assert bench.fetches[1] <= 4
    bench.issuer.heal()
    bench.issuer.rotate("overlap")
    bench.clock.advance(COOL_DOWN)
    assert (await bench.find())[0].kid == bench.kid


async def test_a_kid_that_was_unknown_is_known_once_it_is_published(bench: Bench) -> None:
    """J-cache-on-neg: nothing but the moment of the last look is remembered."""
    await bench.find()
    assert await bench.find("es256-2") == ()
    bench.issuer.rotate("overlap")
    assert await bench.find("es256-2") == ()
    bench.clock.advance(COOL_DOWN)
    assert (await bench.find("es256-2"))[0].kid == "es256-2"


async def test_a_token_without_kid_gets_a_new_look_once_in_a_cool_down(bench: Bench) -> None:
    (old,) = await bench.find()
    new = bench.issuer.rotate("replace")
    answers = [await bench.provider.find_keys(None, "ES256", (old,)) for _ in range(10)]
    assert {keys[0].kid for keys in answers} == {new.kid}
    assert old.kid != new.kid
    assert bench.fetches[1] == 2


async def test_a_kid_that_was_given_to_another_key_gets_a_new_look_once_in_a_cool_down(bench: Bench) -> None:
    (old,) = await bench.find()
    bench.issuer.rotate("replace")
    bench.issuer.keys.corrupt(bench.issuer.keys.current(), kid=old.kid)
    answers = [await bench.provider.find_keys(old.kid, "ES256", (old,)) for _ in range(10)]
    assert {keys[0].kid for keys in answers} == {old.kid}
    assert {keys[0].thumbprint for keys in answers} != {old.thumbprint}
    assert bench.fetches[1] == 2


# Withdrawn keys


async def test_a_withdrawn_key_is_gone_after_the_refresh_and_what_it_signed_is_forgotten(bench: Bench) -> None:
    """J-keyrefresh-remove."""
    bench.issuer.cache_control["jwks"] = "max-age=600"
    await bench.find()
    old = bench.kid
    bench.issuer.rotate("replace")
    bench.clock.advance(600)
    assert await bench.find(old) == ()
    assert (await bench.find())[0].kid == bench.kid
    assert bench.removals == 1


@pytest.mark.parametrize(
    ("change", "removals"),
    [
        pytest.param(lambda issuer: issuer.rotate("overlap"), 0, id="added"),
        pytest.param(lambda issuer: issuer.keys.corrupt(issuer.keys.current(), kid="renamed"), 0, id="renamed"),
        pytest.param(lambda issuer: issuer.rotate("replace"), 1, id="replaced"),
        pytest.param(lambda _: None, 0, id="unchanged"),
    ],
)
async def test_only_a_lost_key_is_told(bench: Bench, change: Callable[[FakeIssuer], object], removals: int) -> None:
    await bench.find()
    change(bench.issuer)
    bench.clock.advance(HOUR)
    await bench.find("whatever")
    assert bench.removals == removals


async def test_a_kid_with_another_key_behind_it_is_a_lost_key(bench: Bench) -> None:
    (old,) = await bench.find()
    bench.issuer.keys.published[0] = make_key("ES256", bench.kid)
    bench.clock.advance(HOUR)
    (new,) = await bench.find()
    assert new.kid == old.kid
    assert new.thumbprint != old.thumbprint
    assert bench.removals == 1


# Stopping, and other loops


async def test_who_waits_when_the_service_stops_is_told(bench: Bench) -> None:
    bench.issuer.fault("jwks", faults.slow(60))
    waiting = asyncio.ensure_future(bench.find())
    await until(lambda: bench.issuer.requests["jwks"])
    await bench.provider.stop()
    with pytest.raises(BackendUnavailable):
        await waiting
    bench.issuer.heal()
    assert await bench.find()


async def test_keys_are_shared_through_the_cache(make_bench: MakeBench, bench: Bench) -> None:
    await bench.find()
    other = make_bench(bench.issuer, caches=bench.caches)
    assert (await other.find())[0].kid == bench.kid
    assert bench.fetches == (1, 1)
    bench.issuer.rotate("overlap")
    bench.clock.advance(1)
    assert await bench.find()
    assert await other.find()
    assert bench.fetches == (1, 2)


async def test_what_cannot_be_read_in_the_cache_is_fetched(bench: Bench, oidc_clock: ManualClock) -> None:
    key = bench.provider._keys._source.store.key
    for rubbish in (b"", b"\x00", b"\x94\xc4\x02{}\x00\xcb" + bytes(8)):
        await bench.caches.jwk.set(key, rubbish or b"x", oidc_clock.now() + HOUR)
        assert await bench.find()


async def test_a_closed_cache_is_no_reason_to_fail(make_bench: MakeBench, oidc_clock: ManualClock) -> None:
    caches = Caches(oidc_clock)
    await caches.close()
    bench = make_bench(caches=caches)
    assert await bench.find()


def test_one_provider_serves_one_event_loop_after_another(bench: Bench) -> None:
    bench.issuer.fault("discovery", faults.slow(60), 1)

    async def started() -> None:
        bench.provider.start()
        await until(lambda: bench.issuer.requests["discovery"])

    asyncio.run(started())  # the loop is gone in the middle of a fetch, and nobody called stop
    assert asyncio.run(bench.find())
    bench.clock.advance(HOUR)
    assert asyncio.run(bench.find())

    async def restarted() -> None:
        bench.provider.start()
        bench.clock.advance(HOUR)
        fetches = bench.fetches[1]
        assert await bench.find()
        assert bench.fetches[1] == fetches + 1
        await bench.provider.stop()

    asyncio.run(restarted())


def test_peek_outside_an_event_loop_starts_nothing(bench: Bench) -> None:
    asyncio.run(bench.find())
    bench.clock.advance(4.5 * MINUTE)
    assert bench.provider.peek_keys() is not None
    assert bench.fetches[1] == 1


@pytest.mark.parametrize("option", ["discovery_url", "jwks_uri"])
@pytest.mark.parametrize("url", ["https://issuer.example/#x", "ftp://issuer.example", ""])
def test_a_url_that_is_none_is_told_at_once(make_bench: MakeBench, option: str, url: str) -> None:
    with pytest.raises(ValueError, match="plain form"):
        make_bench(**{option: url})


async def test_an_unreachable_issuer_is_unavailable(bench: Bench) -> None:
    bench.issuer.fault("*", faults.down())
    with pytest.raises(ProviderUnavailable):
        await bench.provider.metadata()
