"""How keys, values and commands look on the way to Redis."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware.cache import TYPES, Entry
from oidc_middleware.cache.redis.wire import (
    command,
    glob_of,
    key_prefix,
    milliseconds_left,
    read_end,
    seal_end,
    split_key,
)

TIMES = st.floats(allow_nan=False, allow_infinity=False)
NOW = 1_800_000_000.0


@given(st.binary(), TIMES, st.integers(0, 2**53 - 1))
def test_a_value_comes_back_with_its_end_and_version(value: bytes, end: float, version: int) -> None:
    assert read_end(seal_end(value, end, version)) == Entry(value, end, version)


@given(st.binary())
def test_whatever_lies_in_redis_is_an_entry_or_nothing(stored: bytes) -> None:
    entry = read_end(stored)
    assert entry is None or (math.isfinite(entry.expires_at) and seal_end(*entry) == stored)


def test_the_format_does_not_change_by_accident() -> None:
    """What a node of another version wrote must be read, or begin with another byte."""
    assert seal_end(b"value", NOW, 5).hex() == "0241dad274800000" + "00" + "0000000000000005" + b"value".hex()
    assert key_prefix(b"oidc", "token") + b"digest" == b"oidc:token:digest"


@given(st.binary(), st.sampled_from(list(TYPES)), st.binary())
def test_a_key_is_taken_apart_as_it_was_made(prefix: bytes, kind: str, key: bytes) -> None:
    assert split_key(prefix, key_prefix(prefix, kind) + key) == (kind, key)


@given(TIMES, st.floats(0, 1e11))
def test_a_life_is_one_that_redis_takes(end: float, now: float) -> None:
    life = milliseconds_left(end, now)
    assert 0 <= life < 2**62
    assert (life == 0) == (end <= now)


@pytest.mark.parametrize(
    ("left", "milliseconds"), [(-1.0, 0), (0.0, 0), (0.0004, 1), (0.5, 500), (1.0, 1000), (1e300, 3_153_600_000_000)]
)
def test_milliseconds(left: float, milliseconds: int) -> None:
    """Seed 10: what is left of a life never rounds to nothing."""
    assert milliseconds_left(left, 0.0) == milliseconds


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=8))
def test_a_command_is_read_as_it_was_written(words: list[bytes]) -> None:
    assert parsed(command(*words)) == words


def parsed(data: bytes) -> list[bytes]:
    """Return the words of a command as a server reads it, by lengths alone."""
    head, _, rest = data.partition(b"\r\n")
    assert head[:1] == b"*"
    words = []
    for _ in range(int(head[1:])):
        size, _, rest = rest.partition(b"\r\n")
        assert size[:1] == b"$"
        words.append(rest[: int(size[1:])])
        assert rest[len(words[-1]) :][:2] == b"\r\n"
        rest = rest[len(words[-1]) + 2 :]
    assert rest == b""
    return words


@given(st.binary(max_size=12))
def test_a_pattern_keeps_its_special_characters_to_itself(literal: bytes) -> None:
    pattern = glob_of(literal)
    assert pattern.endswith(b"*")
    plain = bytearray()
    rest = iter(pattern[:-1])
    for byte in rest:
        assert byte not in b"*?["
        plain.append(next(rest) if byte == ord("\\") else byte)
    assert bytes(plain) == literal
