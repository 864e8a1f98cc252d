"""How long documents are used, and how long a failing issuer is left alone."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware.errors import ProviderInvalid, ProviderUnavailable
from oidc_middleware.provider.backoff import FIRST, LONGEST, Backoff
from oidc_middleware.provider.freshness import Life, max_age
from oidc_middleware.provider.http import ErrorStatus
from oidc_middleware.testing import ManualClock

LIFE = Life(shortest=300, longest=3600, default=900)


@pytest.mark.parametrize(
    ("cache_control", "age", "seconds"),
    [
        (None, None, None),
        ("public", None, None),
        ("s-maxage=5", None, None),
        ("public, max-age=600", None, 600),
        ("Max-Age=600", None, 600),
        ('max-age="600"', None, 600),
        ("max-age=600", "100", 500),
        ("max-age=600", "1000", 0),
        ("max-age=600", "-5", 600),
        ("max-age=600", "soon", 600),
        ("max-age=600, max-age=60", None, 60),
        ("max-age=600, no-store", None, 0),
        ("no-cache", None, 0),
        ('no-cache="set-cookie", max-age=600', None, 0),
        pytest.param("max-age=0", None, 0, id="J-clock-cachecontrol-zero"),
        pytest.param("max-age=-1", None, 0, id="J-clock-cachecontrol-negative"),
        pytest.param("max-age=1e3", None, 0, id="J-clock-cachecontrol-garbage"),
        pytest.param("max-age=", None, 0, id="J-clock-cachecontrol-empty"),
        pytest.param("max-age=\u0663", None, 0, id="J-clock-cachecontrol-other-digits"),
        pytest.param("max-age=1000000000000", None, 10.0**12, id="J-clock-cachecontrol-huge"),
        pytest.param("max-age=" + "9" * 10_000, None, 10.0**12, id="J-clock-cachecontrol-ten-thousand-digits"),
    ],
)
def test_what_an_answer_says_of_its_freshness(
    cache_control: str | None, age: str | None, seconds: float | None
) -> None:
    assert max_age(cache_control, age) == seconds


@given(st.text(), st.none() | st.text())
def test_any_header_is_a_number_of_seconds_or_nothing(cache_control: str, age: str | None) -> None:
    seconds = max_age(cache_control, age)
    assert seconds is None or 0 <= seconds < math.inf


@pytest.mark.parametrize(
    ("said", "kept"),
    [(None, 900), (0, 300), (299, 300), (301, 301), (3599, 3599), (10.0**12, 3600)],
)
def test_a_life_is_clamped(said: float | None, kept: float) -> None:
    assert LIFE.clamp(said) == kept


def test_waits_double_to_a_minute_and_are_shortened_at_random() -> None:
    clock = ManualClock()
    backoff = Backoff(clock, Random(1))
    backoff.check()
    for number in range(20):
        error = ProviderUnavailable()
        backoff.failed(error)
        whole = min(LONGEST, FIRST * 2**number)
        wait = backoff.retry_at - clock.monotonic()
        assert whole / 2 <= wait <= whole
        assert error.retry_after == max(1, math.ceil(wait))
        with pytest.raises(ProviderUnavailable):
            backoff.check()
        clock.advance(wait)
        backoff.check()
    backoff.succeeded()
    assert backoff.failures == 0
    assert not backoff.outage


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ProviderInvalid("no JSON"), ProviderInvalid),
        (ProviderUnavailable("no answer"), ProviderUnavailable),
        (ErrorStatus("https://issuer.example", 500), ProviderUnavailable),
    ],
)
def test_while_it_waits_the_last_failure_is_told_again(
    error: ProviderUnavailable, kind: type[ProviderUnavailable]
) -> None:
    clock = ManualClock()
    backoff = Backoff(clock, Random(1))
    backoff.failed(error)
    with pytest.raises(kind) as told:
        backoff.check()
    assert type(told.value) is kind
    assert told.value is not error
    assert told.value.detail == error.detail
    assert told.value.retry_after == 1


def test_two_nodes_do_not_come_back_at_the_same_moment() -> None:
    clock = ManualClock()
    nodes = [Backoff(clock, Random(seed)) for seed in range(100)]
    for node in nodes:
        for _ in range(4):
            node.failed(ProviderUnavailable())
    assert len({node.retry_at for node in nodes}) == 100
