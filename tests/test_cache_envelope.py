"""What a sealer sealed opens in its place until its end, and nothing else opens."""

from __future__ import annotations

import logging
import math
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware.cache import TYPES, Entry, envelope
from oidc_middleware.cache.envelope import LARGEST_VALUE, Sealer, SealerCounts

SECRET = "0123456789abcdef" * 2
OTHER = "fedcba9876543210" * 2
NOW = 1_800_000_000.0
HOUR = 3600.0
DAY = 86_400.0
KEY = sha256(b"a token").digest()
VALUE = b'{"sub":"alice","iss":"https://login.example.com"}'
NONE = SealerCounts(sealed=0, opened=0, expired=0, malformed=0, unknown_key=0, altered=0)

SEALER = Sealer([SECRET], "oidc")
BLOB = SEALER.seal("token", KEY, VALUE, NOW + HOUR, NOW)

finite = st.floats(allow_nan=False, allow_infinity=False)
kinds = st.sampled_from(sorted(TYPES)) | st.text(st.characters(codec="utf-8"), max_size=20)


@pytest.fixture
def sealer() -> Sealer:
    return Sealer([SECRET], "oidc")


# Round trips


@given(kind=kinds, key=st.binary(max_size=100), value=st.binary(max_size=5000), end=finite, now=finite)
def test_what_was_sealed_opens_until_its_end(kind: str, key: bytes, value: bytes, end: float, now: float) -> None:
    blob = SEALER.seal(kind, key, value, end, now)
    assert SEALER.open(kind, key, blob, math.nextafter(end, -math.inf)) == Entry(value, end)
    assert SEALER.open(kind, key, blob, end) is None


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_value_is_anything_like_bytes(sealer: Sealer, kind: Callable[[bytes], bytes]) -> None:
    opened = sealer.open("token", KEY, sealer.seal("token", KEY, kind(VALUE), NOW + HOUR, NOW), NOW)
    assert opened == Entry(VALUE, NOW + HOUR)
    assert type(opened.value) is bytes


def test_an_end_need_not_be_a_float(sealer: Sealer) -> None:
    opened = sealer.open("token", KEY, sealer.seal("token", KEY, VALUE, int(NOW) + 5, NOW), NOW)
    assert opened == Entry(VALUE, NOW + 5)
    assert type(opened.expires_at) is float


def test_other_nodes_open_it(sealer: Sealer) -> None:
    assert Sealer([SECRET.encode()], "oidc").open("token", KEY, BLOB, NOW) == Entry(VALUE, NOW + HOUR)


def test_it_opens_on_later_days(sealer: Sealer) -> None:
    blob = sealer.seal("jwk", KEY, VALUE, NOW + 60 * DAY, NOW)
    assert sealer.open("jwk", KEY, blob, NOW + 59 * DAY) == Entry(VALUE, NOW + 60 * DAY)


def test_a_node_whose_clock_is_wrong_reads_and_writes(sealer: Sealer) -> None:
    for wrong in (-120.0, 120.0, -DAY, DAY, -NOW, -2 * NOW):
        blob = sealer.seal("token", KEY, VALUE, NOW + HOUR, NOW + wrong)
        assert sealer.open("token", KEY, blob, NOW) == Entry(VALUE, NOW + HOUR)


def test_no_two_blobs_are_alike(sealer: Sealer) -> None:
    blobs = [sealer.seal("token", KEY, VALUE, NOW + HOUR, NOW) for _ in range(1000)]
    assert len({blob[13:25] for blob in blobs}) == 1000
    assert len({blob[25:] for blob in blobs}) == 1000


@pytest.mark.parametrize("end", [math.nan, math.inf, -math.inf, 10**400])
def test_an_end_that_is_no_time_is_refused(sealer: Sealer, end: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        sealer.seal("token", KEY, VALUE, end, NOW)
    assert sealer.stats() == NONE


@pytest.mark.parametrize("value", ["text", 7, None])
def test_what_is_not_bytes_is_refused(sealer: Sealer, value: bytes) -> None:
    with pytest.raises(TypeError, match="bytes"):
        sealer.seal("token", KEY, value, NOW + HOUR, NOW)
    assert sealer.stats() == NONE


def test_a_value_that_is_too_large_is_refused(sealer: Sealer) -> None:
    largest = bytes(LARGEST_VALUE)
    assert sealer.open("general", b"k", sealer.seal("general", b"k", largest, NOW + HOUR, NOW), NOW) is not None
    with pytest.raises(ValueError, match="larger than an envelope"):
        sealer.seal("general", b"k", largest + b"x", NOW + HOUR, NOW)


# What does not open


def refused(sealer: Sealer, reason: str, blob: bytes, kind: str = "token", key: bytes = KEY) -> bool:
    """Tell whether the blob is a miss, and one that is counted for this reason and no other."""
    before = sealer.stats()
    count = getattr(before, reason) + 1
    return sealer.open(kind, key, blob, NOW) is None and sealer.stats() == replace(before, **{reason: count})


def reason_at(position: int) -> str:
    return "malformed" if position == 0 else "unknown_key" if position < 9 else "altered"


@pytest.mark.parametrize("position", range(len(BLOB)))
def test_a_flipped_bit(sealer: Sealer, position: int) -> None:
    """C-tamper-claims: not one bit of a verified token's entry can be changed."""
    for bit in range(8):
        blob = bytearray(BLOB)
        blob[position] ^= 1 << bit
        assert refused(sealer, reason_at(position), bytes(blob))


def test_a_blob_that_was_cut_or_grew(sealer: Sealer) -> None:
    for length in range(len(BLOB)):
        shortest = len(BLOB) - len(VALUE)
        assert refused(sealer, "malformed" if length < shortest else "altered", BLOB[:length])
    assert refused(sealer, "altered", BLOB + b"\0")
    assert refused(sealer, "altered", BLOB + BLOB)


@given(garbage=st.binary(max_size=300))
def test_garbage(garbage: bytes) -> None:
    assert SEALER.open("token", KEY, garbage, NOW) is None
    assert SEALER.open("token", KEY, BLOB[:9] + garbage, NOW) is None
    assert SEALER.open("token", KEY, BLOB[:25] + garbage, NOW) is None


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return pytest.fail, ("a pickle was loaded",)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(pickle.dumps(Bomb()), id="pickle"),
        pytest.param(b"cos\nsystem\n(S'exit 1'\ntR.", id="pickle-of-old"),
        pytest.param(VALUE, id="not-sealed"),
        pytest.param(b'{"sub":"admin","exp":', id="cut-JSON"),
        pytest.param(b"[" * 100_000, id="deep-nesting"),
        pytest.param(b'{"exp":NaN}', id="NaN"),
        pytest.param(msgspec.msgpack.encode(msgspec.msgpack.Ext(5, b"x" * 99)), id="ext-type"),
        pytest.param(b"1", id="a-number-of-INCR"),
        pytest.param(bytes(LARGEST_VALUE * 4), id="64-MB"),
        pytest.param(b"\x02" + bytes(LARGEST_VALUE * 4), id="64-MB-with-our-version"),
        pytest.param(b"\x03" + BLOB[1:], id="a-later-version"),
        pytest.param(b"\x01" + BLOB[1:], id="an-earlier-version"),
    ],
)
def test_what_others_wrote_is_a_miss(sealer: Sealer, value: bytes) -> None:
    """C-serial, C-keyspace: neither another program's nor another version's bytes are read."""
    assert refused(sealer, "malformed", value)


def test_a_pickle_behind_a_header_like_ours_is_a_miss(sealer: Sealer) -> None:
    """C-serial: nothing is loaded, whoever the header says wrote it."""
    pickled = pickle.dumps(Bomb()) * 9
    assert refused(sealer, "unknown_key", b"\x02" + pickled)
    assert refused(sealer, "altered", BLOB[:13] + pickled)


def test_what_a_writer_of_the_store_can_make_of_what_he_finds_there(sealer: Sealer) -> None:
    """C-tamper-claims, C-tamper-jwks: without a secret nobody fills an entry, be it with claims or with keys."""
    header, nonce = BLOB[:13], BLOB[13:25]
    claims = struct.pack(">d", NOW + HOUR) + b'{"sub":"admin"}'
    for key in (bytes(32), SEALER.key_id * 4, sha256(SEALER.digest("token", KEY)).digest()):
        forged = AESGCM(key).encrypt(nonce, claims, header)
        assert refused(sealer, "altered", header + nonce + forged)
    jwks = SEALER.seal("jwk", KEY, b'{"keys":[]}', NOW + HOUR, NOW)
    assert refused(sealer, "altered", jwks[:25] + BLOB[25:], "jwk")
    assert refused(sealer, "altered", BLOB[:25] + jwks[25:], "jwk")


def test_a_blob_that_is_moved(sealer: Sealer) -> None:
    """C-tamper-claims, C-tamper-jwks: alice's entry is not bob's, and a general value is no verified token."""
    assert refused(sealer, "altered", BLOB, key=sha256(b"another token").digest())
    assert refused(sealer, "altered", BLOB, key=KEY + b"\0")
    assert refused(sealer, "altered", BLOB, key=b"")
    assert refused(sealer, "altered", BLOB, kind="introspection")
    assert refused(Sealer([SECRET], "other"), "altered", BLOB)
    assert refused(Sealer([OTHER], "oidc"), "unknown_key", BLOB)


def test_the_key_id_of_one_secret_on_the_blob_of_another(sealer: Sealer) -> None:
    both = Sealer([SECRET, OTHER], "oidc")
    other_id = Sealer([OTHER], "oidc").key_id
    assert refused(both, "altered", BLOB[:1] + other_id + BLOB[9:])


def test_a_blob_that_comes_back_after_its_end(sealer: Sealer) -> None:
    """The end is inside: whoever writes it back with a longer life in the store gains nothing."""
    assert sealer.open("token", KEY, BLOB, NOW + HOUR - 0.001) == Entry(VALUE, NOW + HOUR)
    assert sealer.open("token", KEY, BLOB, NOW + HOUR) is None
    assert sealer.open("token", KEY, BLOB, math.inf) is None
    assert sealer.open("token", KEY, BLOB, math.nan) is None
    assert sealer.stats() == replace(NONE, opened=1, expired=3)


def test_a_life_that_was_over_when_it_was_sealed(sealer: Sealer) -> None:
    assert sealer.open("token", KEY, sealer.seal("token", KEY, VALUE, NOW - 1, NOW), NOW) is None


def test_each_reason_is_in_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    sealer = Sealer([SECRET], "oidc")
    foreign = Sealer([OTHER], "oidc").seal("token", KEY, VALUE, NOW + HOUR, NOW)
    with caplog.at_level(logging.DEBUG, "oidc_middleware"):
        for _ in range(3):
            for blob in (b"not ours", foreign, BLOB + b"\0", BLOB):
                sealer.open("token", KEY, blob, NOW)
            sealer.open("token", KEY, BLOB, NOW + HOUR)
    assert [record.getMessage().partition(".")[0] for record in caplog.records] == [
        "An entry of the shared cache (type token) was not written by this version",
        "An entry of the shared cache (type token) was sealed with a secret that is not configured here",
        "An entry of the shared cache (type token) was altered, or lies under another key than its own",
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert sealer.stats() == SealerCounts(sealed=0, opened=3, expired=3, malformed=3, unknown_key=3, altered=3)


def test_a_flood_of_made_up_days_leaves_nothing_behind(sealer: Sealer) -> None:
    """D-memory: headers choose which keys are derived, not how many are kept."""
    for day in range(1000):
        sealer.open("token", KEY, BLOB[:9] + struct.pack(">I", day) + BLOB[13:], NOW)
    assert sealer._box.cache_info().currsize == envelope._KEPT
    for number in range(1000):
        sealer.digest(f"type {number}", KEY)
    assert sealer._naming.cache_info().currsize == envelope._KEPT
    assert sealer.open("token", KEY, BLOB, NOW) == Entry(VALUE, NOW + HOUR)
