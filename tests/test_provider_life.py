"""How documents age: refreshed ahead, kept while the issuer fails, given up after a day."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from provider_kit import HOUR, MINUTE, Bench, until

from oidc_middleware.cache import Caches
from oidc_middleware.clock import SystemClock
from oidc_middleware.core.addresses import Zone
from oidc_middleware.errors import ProviderError, ProviderInvalid, ProviderUnavailable
from oidc_middleware.provider.document import Document, Source
from oidc_middleware.provider.freshness import Life
from oidc_middleware.provider.http import Answer
from oidc_middleware.provider.stored import Store
from oidc_middleware.testing import FakeIssuer, ManualClock, faults

pytestmark = pytest.mark.anyio

DAY = 24 * HOUR
AT_ONCE = 3.0
"""Seconds; whoever waits for the issuer does so for five."""
PATIENCE = 10.0


@pytest.fixture
def bench(fake_issuer_factory: Callable[..., FakeIssuer], oidc_clock: ManualClock) -> Bench:
    return Bench(fake_issuer_factory(algorithms=("ES256",)), oidc_clock)


# Freshness


@pytest.mark.parametrize(
    ("cache_control", "life"),
    [
        pytest.param("max-age=0", 5 * MINUTE, id="J-clock-cachecontrol-zero"),
        pytest.param("max-age=-7", 5 * MINUTE, id="J-clock-cachecontrol-negative"),
        pytest.param("max-age=soon", 5 * MINUTE, id="J-clock-cachecontrol-garbage"),
        pytest.param("no-store", 5 * MINUTE, id="J-clock-cachecontrol-no-store"),
        pytest.param("max-age=1000000000000", 12 * HOUR, id="J-clock-cachecontrol-huge"),
        pytest.param("max-age=3600", HOUR, id="one-hour"),
        pytest.param("public", 15 * MINUTE, id="not-said"),
    ],
)
async def test_keys_live_as_long_as_the_issuer_says_within_bounds(
    bench: Bench, cache_control: str, life: float
) -> None:
    bench.issuer.cache_control["jwks"] = cache_control
    await bench.find()
    bench.clock.advance(life * 0.71)
    await bench.find()
    assert bench.fetches[1] == 1
    bench.clock.advance(life * 0.29)
    await bench.find()
    assert bench.fetches[1] == 2


async def test_a_refresh_ahead_makes_nobody_wait(bench: Bench) -> None:
    bench.issuer.cache_control["discovery"] = "max-age=3600"
    (key,) = await bench.find()
    release = asyncio.Event()
    bench.issuer.fault("jwks", faults.held(release))
    bench.clock.advance(4.5 * MINUTE)
    for _ in range(1_000):
        assert await asyncio.wait_for(bench.find(), AT_ONCE) == (key,)
    await until(lambda: bench.fetches[1] == 2)
    release.set()
    await until(lambda: bench.provider.stats()["keys_age"] == 0)
    assert await bench.find() == (key,)
    assert bench.fetches == (1, 2)


async def test_a_thousand_readers_of_what_has_just_expired_are_one_fetch(bench: Bench) -> None:
    """D-stampede, on one node."""
    await bench.find()
    bench.clock.advance(5 * MINUTE)
    found = await asyncio.gather(*(bench.find() for _ in range(1_000)))
    assert all(found)
    assert bench.fetches[1] == 2


async def test_the_nodes_of_a_fleet_refresh_at_different_moments(
    fake_issuer_factory: Callable[..., FakeIssuer],
) -> None:
    issuer, dues = fake_issuer_factory(algorithms=("ES256",)), set()
    for seed in range(20):
        node = Bench(issuer, ManualClock(), {"name": issuer.url})
        node.provider._keys._random = Random(seed)
        await node.find()
        assert node.provider._keys._held is not None
        dues.add(node.provider._keys._held.refresh_at)
    assert len(dues) == 20
    assert all(0.72 * 5 * MINUTE <= due <= 0.8 * 5 * MINUTE for due in dues)


async def test_setting_the_clock_back_lengthens_no_life(bench: Bench) -> None:
    await bench.find()
    bench.clock.jump(-DAY)
    bench.clock.advance(5 * MINUTE)
    await bench.find()
    assert bench.fetches[1] == 2
    bench.clock.jump(3 * DAY)
    bench.clock.advance(MINUTE)
    assert await bench.find()
    assert bench.fetches[1] == 2


# While the issuer fails


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faults.status(500), id="J-storm-failing-error"),
        pytest.param(faults.down(), id="J-storm-failing-down"),
        pytest.param(faults.garbage(), id="cut"),
        pytest.param(faults.body(b'{"keys": []}'), id="RP-x-jwks-empty"),
        pytest.param(faults.body(b'{"keys": [{"kty": "RSA", "n": "AA", "e": "AQAB"}]}'), id="only-a-bad-key"),
        pytest.param(faults.content_type("text/html"), id="RP-x-jwks-html"),
    ],
)
async def test_a_failed_refresh_never_loses_good_keys(bench: Bench, fault: faults.Fault) -> None:
    (key,) = await bench.find()
    bench.issuer.fault("jwks", fault)
    for _ in range(100):
        bench.clock.advance(10 * MINUTE)
        assert await bench.find() == (key,)
    assert bench.removals == 0
    bench.issuer.heal()
    bench.issuer.rotate("replace")
    bench.clock.advance(2 * MINUTE)
    await bench.find()
    await until(lambda: bench.provider.stats()["keys_age"] == 0)
    assert (await bench.find())[0].kid == bench.kid
    assert bench.removals == 1


async def test_old_keys_are_given_up_after_a_day(bench: Bench) -> None:
    """J-stale-forever."""
    await bench.find()
    bench.issuer.fault("*", faults.down())
    bench.clock.advance(5 * MINUTE + DAY - 1)
    assert await bench.find()
    bench.clock.advance(1)
    with pytest.raises(ProviderUnavailable) as refused:
        await bench.find()
    assert refused.value.status == 503
    assert not bench.provider.ready
    bench.issuer.heal()
    bench.clock.advance(refused.value.retry_after)
    assert await bench.find()


async def test_old_keys_are_not_used_when_the_issuer_can_be_asked(bench: Bench) -> None:
    await bench.find()
    old = bench.kid
    bench.issuer.rotate("replace")
    bench.clock.advance(HOUR)
    assert bench.provider.peek_keys() is None
    assert await bench.find(old) == ()


async def test_a_day_later_an_old_failure_is_no_excuse(bench: Bench) -> None:
    """An outage that nobody looked at for hours may be over: whoever comes waits for the issuer."""
    await bench.find()
    old = bench.kid
    bench.issuer.fault("jwks", faults.down(), 1)
    bench.clock.advance(5 * MINUTE)
    assert await bench.find()
    bench.issuer.rotate("replace")
    bench.clock.advance(20 * HOUR)
    assert await bench.find(old) == ()


async def test_during_an_outage_old_keys_make_nobody_wait(bench: Bench) -> None:
    (key,) = await bench.find()
    bench.clock.advance(5 * MINUTE)
    bench.issuer.fault("*", faults.down())
    assert await bench.find() == (key,)
    bench.issuer.fault("*", faults.slow(60))
    for _ in range(20):
        bench.clock.advance(2)
        assert await asyncio.wait_for(bench.find(), AT_ONCE) == (key,)
    await bench.provider.stop()


async def test_without_keys_an_outage_is_answered_at_once_and_says_when_to_come_back(bench: Bench) -> None:
    bench.issuer.fault("*", faults.status(503))
    waits = []
    for _ in range(8):
        with pytest.raises(ProviderUnavailable) as refused:
            await bench.find()
        requests = sum(bench.fetches)
        with pytest.raises(ProviderUnavailable) as again:
            await bench.find()
        assert sum(bench.fetches) == requests
        assert again.value.retry_after == refused.value.retry_after
        waits.append(refused.value.retry_after)
        bench.clock.advance(refused.value.retry_after)
    assert waits == sorted(waits)
    assert waits[0] == 1
    assert 30 <= waits[-1] <= 60
    bench.issuer.heal()
    assert await bench.find()


async def test_a_cold_storm_on_a_dead_issuer_is_a_handful_of_requests(bench: Bench) -> None:
    bench.issuer.fault("*", faults.down())
    for number in range(1_000):
        with pytest.raises(ProviderError):
            await bench.find(f"random-{number}")
        bench.clock.advance(0.06)
    assert sum(bench.fetches) <= 12


async def test_all_who_wait_for_a_failing_issuer_are_told(bench: Bench) -> None:
    bench.issuer.fault("discovery", faults.status(500))
    answers = await asyncio.gather(*(bench.find() for _ in range(100)), return_exceptions=True)
    assert all(isinstance(answer, ProviderUnavailable) for answer in answers)
    assert sum(bench.fetches) == 1


async def test_the_deadline_ends_a_wait_for_keys(
    fake_issuer_factory: Callable[..., FakeIssuer], oidc_clock: ManualClock
) -> None:
    """J-slow, RP-x-jwks-slow: one byte a second."""
    bench = Bench(fake_issuer_factory(algorithms=("ES256",)), oidc_clock, {"deadline": 0.2})
    bench.issuer.fault("jwks", faults.dripping(1))
    begin = time.monotonic()
    with pytest.raises(ProviderUnavailable, match="no whole answer"):
        await bench.find()
    assert time.monotonic() - begin < PATIENCE


async def test_an_outage_is_logged_once_and_its_end_too(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.find()
    with caplog.at_level(logging.INFO, "oidc_middleware"):
        bench.issuer.fault("jwks", faults.status(500))
        bench.clock.advance(5 * MINUTE)
        for _ in range(10):
            await bench.find()
            bench.clock.advance(MINUTE)
        bench.issuer.heal()
        bench.clock.advance(MINUTE)
        await bench.find()
        await until(lambda: bench.provider.stats()["keys_age"] == 0)
    lines = [record.getMessage() for record in caplog.records]
    assert sum("cannot fetch the keys of https://issuer.example" in line for line in lines) == 1
    assert sum("answers again" in line for line in lines) == 1


# Metadata that change


async def test_keys_that_moved_are_looked_for_where_the_issuer_now_says(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """J-disco-swap."""
    bench.issuer.cache_control["discovery"] = "max-age=86400"
    bench.issuer.metadata_overrides["jwks_uri"] = "https://issuer.example/old"
    with pytest.raises(ProviderUnavailable):
        await bench.find()
    assert bench.fetches == (1, 0)
    bench.issuer.metadata_overrides.clear()
    bench.clock.advance(2)
    with caplog.at_level(logging.WARNING, "oidc_middleware"):
        assert await bench.find()
    assert bench.fetches == (2, 1)
    assert "changed" in caplog.text


async def test_other_metadata_replace_the_old_ones_only_when_they_are_whole(bench: Bench) -> None:
    """J-disco-swap: metadata that name an address inside, or another issuer, change nothing."""
    await bench.find()
    before = await bench.provider.metadata()
    for override in ({"jwks_uri": "http://issuer.example/jwks"}, {"issuer": "https://evil.example"}):
        bench.issuer.metadata_overrides = dict(override)
        bench.clock.advance(10 * MINUTE)
        assert await bench.find()
        assert await bench.provider.metadata() == before


async def test_keys_on_another_host_are_warned_about_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """J-ssrf-origin: some issuers do so (Google), and nothing but GETs goes there."""
    bench.issuer.metadata_overrides["jwks_uri"] = "https://keys.example/jwks"
    for _ in range(3):
        with pytest.raises(ProviderUnavailable):
            await bench.find()
        bench.clock.advance(10 * MINUTE)
    warnings = [record.getMessage() for record in caplog.records if "another host" in record.getMessage()]
    assert warnings == [
        "keys of https://issuer.example lie on another host, as it says itself: https://keys.example/jwks"
    ]


async def test_new_metadata_make_the_keys_of_the_old_ones_expire(bench: Bench) -> None:
    bench.issuer.cache_control["jwks"] = "max-age=43200"
    await bench.find()
    bench.issuer.metadata_overrides["jwks_uri"] = "https://issuer.example/jwks?v=2"
    bench.clock.advance(10 * MINUTE)
    assert (await bench.provider.metadata()).jwks_uri == "https://issuer.example/jwks?v=2"
    assert bench.provider.peek_keys() is None
    assert await bench.find()
    assert bench.fetches == (2, 2)


# Refreshing unasked: on the machine's clock, with lives of milliseconds


class Pages:
    """A document that counts how often it is fetched, and fails on demand."""

    def __init__(self, life: Life) -> None:
        clock = SystemClock()
        self.fetched = 0
        self.error: Exception | None = None
        self.replaced: list[tuple[int | None, int]] = []
        source = Source(
            "pages", "https://issuer.example", Store(Caches(clock).metadata, b"pages"), self._fetch, self._read
        )
        self.document = Document(source, life, clock, Random(1), lambda old, new: self.replaced.append((old, new)))

    async def _fetch(self) -> Answer:
        self.fetched += 1
        if self.error is not None:
            raise self.error
        return Answer(str(self.fetched).encode(), None, Zone.PUBLIC)

    def _read(self, body: bytes, _: Zone) -> int:
        return int(body)


QUICK = Life(shortest=0.02, longest=0.02, default=0.02)


async def test_a_started_document_stays_fresh_with_nobody_asking() -> None:
    pages = Pages(QUICK)
    tasks = len(asyncio.all_tasks())
    pages.document.keep_fresh()
    await until(lambda: pages.fetched >= 5)
    assert pages.replaced[:3] == [(None, 1), (1, 2), (2, 3)]
    await pages.document.stop()
    fetched = pages.fetched
    await asyncio.sleep(0.1)
    assert pages.fetched == fetched
    assert len(asyncio.all_tasks()) == tasks


async def test_a_started_document_comes_back_after_failures() -> None:
    pages = Pages(QUICK)
    pages.error = ProviderInvalid("no")
    pages.document.keep_fresh()
    await until(lambda: pages.fetched)
    pages.error = None
    await until(lambda: pages.document.peek() is not None)
    await pages.document.stop()


async def test_a_mistake_of_ours_neither_hides_nor_hurries() -> None:
    pages = Pages(QUICK)
    pages.error = RuntimeError("a mistake")
    with pytest.raises(RuntimeError):
        await pages.document.get()
    with pytest.raises(ProviderUnavailable, match="RuntimeError"):
        await pages.document.get()
    assert pages.fetched == 1


def test_a_timer_of_a_dead_loop_is_replaced() -> None:
    pages = Pages(QUICK)

    async def begin() -> None:
        pages.document.keep_fresh()
        await until(lambda: pages.fetched)

    async def go_on() -> None:
        fetched = pages.fetched
        pages.document.keep_fresh()
        await until(lambda: pages.fetched > fetched + 1)
        await pages.document.stop()

    asyncio.run(begin())
    asyncio.run(go_on())


async def test_starting_a_provider_loads_its_keys(bench: Bench) -> None:
    bench.provider.start()
    await until(lambda: bench.provider.ready)
    stats: dict[str, Any] = bench.provider.stats()
    assert (stats["ready"], stats["keys"], stats["keys_fetches"], stats["metadata_fetches"]) == (True, 1, 1, 1)
    await bench.provider.stop()


async def test_a_provider_starts_without_its_issuer(bench: Bench) -> None:
    bench.issuer.fault("*", faults.down())
    bench.provider.start()
    await until(lambda: bench.provider.stats()["keys_failures"])
    assert not bench.provider.ready
    await bench.provider.stop()
    await bench.provider.stop()
