"""What names a token in the ledger: nothing collides, nothing raises, and nothing can be read from it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from oidc_middleware.cache.envelope import Sealer
from oidc_middleware.core.claims import MAX_NUMERIC_DATE
from oidc_middleware.core.ledger.digests import DIGESTS, LedgerKeys, Marks, cut_off, token_end
from oidc_middleware.core.ledger.records import LARGEST_NUMBER, Kind, Record, from_member, pack, unpack

A, B = b"\0\0\0A", b"\0\0\0B"
KEYS = LedgerKeys({A: b"a" * 32})
BOTH = LedgerKeys({B: b"b" * 32, A: b"a" * 32})
ISSUER = "https://login.example.com"
NOW = 1_800_000_000
LIFE = 86_400
# Lone surrogates too: JSON can say them, and `json.loads` passes them on.
texts = st.text(st.characters(), max_size=20) | st.text("a:b\0", max_size=4)
claims = st.fixed_dictionaries(
    {"iss": texts},
    optional={
        "jti": texts,
        "sid": texts,
        "sub": texts,
        "client_id": texts,
        "azp": texts,
        "iat": st.integers(0, MAX_NUMERIC_DATE) | st.floats(0, MAX_NUMERIC_DATE),
    },
)
records = st.builds(
    lambda kind, key_id, digest, end, life: Record(kind, key_id, digest, end - min(life, end), end),
    st.sampled_from(Kind),
    st.binary(min_size=4, max_size=4),
    st.integers(0, 2**64 - 1),
    st.integers(0, LARGEST_NUMBER),
    st.integers(0, LARGEST_NUMBER),
)


NO_MARKS = r"^(not the marks of a token|marks made under other keys)$"


def digest(kind: Kind, **of: str) -> int:
    return KEYS.marks({"iss": ISSUER} | of, b"input").digests[kind - 1]


# What names a token


@given(claims, claims, st.binary(max_size=8), st.binary(max_size=8))
def test_two_tokens_have_one_digest_if_they_have_one_name(
    one: dict[str, Any], other: dict[str, Any], first: bytes, second: bytes
) -> None:
    def name(token: dict[str, Any], signing_input: bytes) -> tuple[object, ...]:
        return ("jti", token["iss"], token["jti"]) if "jti" in token else ("input", signing_input)

    digests = KEYS.marks(one, first).digests[0], KEYS.marks(other, second).digests[0]
    assert (digests[0] == digests[1]) is (name(one, first) == name(other, second))
    assert [not digest for digest in digests] == [
        name(*token) == ("input", b"") for token in ((one, first), (other, second))
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(("x", "a:b"), ("x:a", "b"), id="C-jti-delim"),
        pytest.param(("x", "ab"), ("xa", "b"), id="C-jti-delim-nothing-between"),
        pytest.param(("x", ""), ("", "x"), id="C-jti-delim-empty"),
        pytest.param((ISSUER, "t"), ("https://other.example.com", "t"), id="same-jti-of-two-issuers"),
    ],
)
def test_parts_that_only_meet_elsewhere(one: tuple[str, str], other: tuple[str, str]) -> None:
    for make in (KEYS.token, KEYS.session, KEYS.subject, KEYS.client):
        arguments = (NOW,) if make == KEYS.token else (NOW, LIFE)
        assert make(*one, *arguments).digest != make(*other, *arguments).digest


def test_a_jti_that_looks_like_a_signing_input_is_none() -> None:
    """C-jti-missing: neither form of a name can be made to say what the other says."""
    without = KEYS.marks({"iss": ISSUER}, b"header.payload").digests[0]
    for jti in ("header.payload", "input", "\x00" * 7 + "\x0eheader.payload"):
        assert digest(Kind.TOKEN, jti=jti) != without
        assert digest(Kind.TOKEN, jti=jti, iss="") != without


def test_a_token_without_jti_is_named_by_what_was_signed() -> None:
    """C-jti-missing: another signature of the same payload is the same token."""
    marks = KEYS.marks({"iss": ISSUER, "sub": "alice"}, b"header.payload")
    assert KEYS.marked_token(marks, NOW) == Record(Kind.TOKEN, A, marks.digests[0], NOW, NOW)
    assert KEYS.marks({"iss": ISSUER, "sub": "alice"}, b"header.payload") == marks
    assert KEYS.marks({"iss": ISSUER, "sub": "alice"}, b"header.other").digests[0] != marks.digests[0]


def test_a_token_without_any_name_is_not_revoked_by_itself() -> None:
    """Were it named by nothing, revoking one such token would revoke all of them."""
    marks = KEYS.marks({"iss": ISSUER, "sub": "alice"}, b"")
    assert marks.digests[0] == 0
    with pytest.raises(ValueError, match="neither jti nor signing input"):
        KEYS.marked_token(marks, NOW)


def test_a_token_with_jti_is_named_by_nothing_else() -> None:
    one, other = (
        KEYS.marks({"iss": ISSUER, "jti": "t"}, b"1"),
        KEYS.marks({"iss": ISSUER, "jti": "t", "sub": "a"}, b"2"),
    )
    assert one.digests[0] == other.digests[0]
    assert KEYS.token(ISSUER, "t", NOW).digest == digest(Kind.TOKEN, jti="t")


@pytest.mark.parametrize(
    "jti",
    ["*", "?[a", "a\nb", "\0", "x" * 1_000_000, "🔑", "\ud800", "\udfff\ud800", "é", "e\u0301"],
    ids=lambda text: ascii(text[:8]),
)
def test_c_jti_glob(jti: str) -> None:
    """C-jti-glob: whatever it is, it is 64 bits afterwards, and they are its own."""
    record = KEYS.token(ISSUER, jti, NOW)
    assert 0 < record.digest < 2**64
    assert record.digest == digest(Kind.TOKEN, jti=jti)
    assert record.digest != KEYS.token(ISSUER, jti + "?", NOW).digest


def test_a_lone_surrogate_comes_through_json() -> None:
    (jti,) = json.loads(r'["\ud800"]')
    assert digest(Kind.TOKEN, jti=jti) != digest(Kind.TOKEN, jti="?")
    with pytest.raises(msgspec.DecodeError):  # what a token says it cannot say it in: the door refuses it before
        msgspec.json.decode(rb'["\ud800"]')


def test_kinds_have_nothing_in_common() -> None:
    made = [
        KEYS.token(ISSUER, "x", NOW),
        *(make(ISSUER, "x", NOW, LIFE) for make in (KEYS.session, KEYS.subject, KEYS.client)),
        KEYS.clear("x", NOW, LIFE),
    ]
    assert [record.kind for record in made] == list(Kind)
    assert len({record.digest for record in made}) == 5


@pytest.mark.parametrize("name", ["client_id", "azp", "appid", "cid"])
def test_the_client_is_the_first_claim_that_is_there(name: str) -> None:
    later = {"client_id": ["azp", "appid", "cid"], "azp": ["appid", "cid"], "appid": ["cid"], "cid": []}[name]
    token = {name: "web"} | dict.fromkeys(later, "other")
    assert digest(Kind.CLIENT, **token) == KEYS.client(ISSUER, "web", NOW, LIFE).digest


def test_what_a_token_does_not_have_is_zero() -> None:
    marks = KEYS.marks({"iss": ISSUER, "jti": "t"}, b"")
    assert marks.digests[1:] == (0, 0, 0)
    assert marks.iat is None


# Keys


def test_the_first_key_writes_and_all_are_looked_up() -> None:
    marks = BOTH.marks({"iss": ISSUER, "jti": "t"}, b"")
    assert BOTH.ids == (B, A)
    assert marks.digests[:DIGESTS] == LedgerKeys({B: b"b" * 32}).marks({"iss": ISSUER, "jti": "t"}, b"").digests
    assert marks.digests[DIGESTS:] == KEYS.marks({"iss": ISSUER, "jti": "t"}, b"").digests
    assert BOTH.token(ISSUER, "t", NOW) == Record(Kind.TOKEN, B, marks.digests[0], NOW, NOW)
    assert BOTH.clear_digests("token") == {
        B: BOTH.clear("token", NOW, LIFE).digest,
        A: KEYS.clear("token", NOW, LIFE).digest,
    }


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        pytest.param({}, "a ledger needs a key", id="none"),
        pytest.param({b"abc": b"a" * 32}, "a key id has 4 bytes, and a key has 32", id="short-id"),
        pytest.param({A: b"a" * 32, B: b"a" * 31}, "a key id has 4 bytes, and a key has 32", id="short-key"),
    ],
)
def test_what_are_no_keys(keys: dict[bytes, bytes], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        LedgerKeys(keys)


def test_keys_cannot_be_printed() -> None:
    assert repr(BOTH) == "LedgerKeys(ids=['00000042', '00000041'])"


def test_a_sealer_has_keys_for_the_ledger() -> None:
    """They are in the order of the secrets, of their own for each secret, namespace and purpose, and never change."""
    one, other = "0123456789abcdef" * 2, "fedcba9876543210" * 2
    keys = Sealer([one, other], "oidc").ledger_keys
    assert list(keys) == [bytes.fromhex(Sealer([secret], "oidc").key_id.decode()) for secret in (one, other)]
    assert keys == Sealer([other, one], "oidc").ledger_keys
    assert len({*keys.values(), *Sealer([one, other], "shop").ledger_keys.values()}) == 4
    assert keys[next(iter(keys))].hex() == "78f9c2a3074e2e8d7f5d9688da0e20ef5ce9c3565e2367b7902fc64880ac580b"
    assert LedgerKeys(keys).token(ISSUER, "t", NOW).digest == 0x2D7C95D12E6749C7


# Ends


@pytest.mark.parametrize(
    ("expires_at", "end"),
    [
        pytest.param(NOW + 60, NOW + 60, id="as-it-says"),
        pytest.param(NOW + 0.5, NOW + 1, id="rounded-up"),
        pytest.param(NOW - 60, NOW - 60, id="expired"),
        pytest.param(-1e9, 0, id="negative"),
        pytest.param(-math.inf, 0, id="negative-infinite"),
        pytest.param(None, NOW + LIFE, id="missing"),
        pytest.param(1e400, NOW + LIFE, id="1e400"),
        pytest.param(math.nan, NOW + LIFE, id="no-number"),
        pytest.param(MAX_NUMERIC_DATE, NOW + LIFE, id="year-9999"),
    ],
)
def test_c_bl_expired(expires_at: float | None, end: int) -> None:
    """C-bl-expired: whatever `exp` says, the record has an end that it can have, and not later than any token's."""
    assert token_end(expires_at, NOW, LIFE) == end
    assert token_end(expires_at, NOW + 1e12, 1e12) <= LARGEST_NUMBER
    assert type(token_end(expires_at, NOW, float(LIFE))) is int


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        pytest.param(NOW, (NOW, NOW + LIFE), id="then"),
        pytest.param(NOW + 0.1, (NOW + 1, NOW + 1 + LIFE), id="rounded-up"),
        pytest.param(-5, (0, LIFE), id="negative"),
        pytest.param(math.inf, (LARGEST_NUMBER, LARGEST_NUMBER), id="for-ever"),
    ],
)
def test_a_cut_off_ends_a_life_later(until: float, expected: tuple[int, int]) -> None:
    assert cut_off(until, LIFE) == expected
    assert cut_off(until, LIFE - 0.5) == expected
    record = KEYS.subject(ISSUER, "alice", until, LIFE)
    assert (record.number, record.end) == expected


# Through the wire


@given(claims, st.binary(max_size=8), st.sampled_from([KEYS, BOTH]))
def test_marks_come_back(token: dict[str, Any], signing_input: bytes, keys: LedgerKeys) -> None:
    marks = keys.marks(token, signing_input)
    assert len(marks.pack()) == 8 + len(keys.ids) * (4 + 8 * DIGESTS)
    assert keys.unpack(marks.pack()) == marks


@given(st.binary(max_size=100) | st.binary(min_size=44, max_size=44))
def test_garbage_is_no_marks(data: bytes) -> None:
    with pytest.raises(ValueError, match=NO_MARKS):
        KEYS.unpack(data)


@pytest.mark.parametrize("iat", [math.inf, -math.inf, -1.0, MAX_NUMERIC_DATE + 1.0])
def test_marks_with_a_moment_that_no_token_has(iat: float) -> None:
    """Of these, the infinite one would be after every cut-off."""
    with pytest.raises(ValueError, match="not the marks of a token"):
        KEYS.unpack(Marks(iat, A, (1, 0, 0, 0)).pack())


def test_marks_of_other_keys_are_not_believed() -> None:
    swapped = LedgerKeys({A: b"a" * 32, B: b"b" * 32})
    data = BOTH.marks({"iss": ISSUER}, b"").pack()
    for other in (KEYS, swapped):
        with pytest.raises(ValueError, match=NO_MARKS):
            other.unpack(data)


@given(st.lists(records))
def test_records_come_back(made: list[Record]) -> None:
    assert list(unpack(pack(made))) == made
    assert [from_member(record.member, record.end) for record in made] == made


@given(st.binary(max_size=60) | st.binary(min_size=25, max_size=25), st.integers(-5, 2**40))
def test_garbage_is_no_record(data: bytes, end: int) -> None:
    reads: list[Callable[[], list[Record]]] = [lambda: list(unpack(data)), lambda: [from_member(data, end)]]
    for read in reads:
        try:
            found = read()
        except ValueError:
            continue
        assert all(0 <= record.number <= record.end <= LARGEST_NUMBER for record in found)
