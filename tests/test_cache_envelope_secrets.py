"""The names that a store sees, and the secrets behind them: nothing shows, nothing collides, rotation loses nothing."""

from __future__ import annotations

import itertools
import re
import struct
from base64 import b64encode
from collections.abc import Callable
from hashlib import blake2b, sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware.cache import TYPES, Entry
from oidc_middleware.cache.envelope import Sealer, new_secret

SECRET = "0123456789abcdef" * 2
OTHER = "fedcba9876543210" * 2
NOW = 1_800_000_000.0
HOUR = 3600.0
KEY = sha256(b"a token").digest()
VALUE = b'{"sub":"alice","iss":"https://login.example.com"}'

SEALER = Sealer([SECRET], "oidc")
kinds = st.sampled_from(sorted(TYPES)) | st.text(st.characters(codec="utf-8"), max_size=20)


@pytest.fixture
def sealer() -> Sealer:
    return Sealer([SECRET], "oidc")


# Names


def test_a_name_shows_namespace_type_and_secret(sealer: Sealer) -> None:
    name = sealer.digest("token", KEY)
    assert re.fullmatch(rb"oidc:token:%b:[A-Za-z0-9+/]{24}" % sealer.key_id, name)
    assert sealer.digests("token", KEY) == (name,)


@given(first=st.tuples(kinds, st.binary(max_size=60)), second=st.tuples(kinds, st.binary(max_size=60)))
def test_two_entries_have_two_names(first: tuple[str, bytes], second: tuple[str, bytes]) -> None:
    assert (SEALER.digest(*first) == SEALER.digest(*second)) is (first == second)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(("a:b", "c", b"d"), ("a", "b:c", b"d"), id="C-jti-delim-namespace"),
        pytest.param(("a", "b", b"c:d"), ("a", "b:c", b"d"), id="C-jti-delim-type"),
        pytest.param(("a", "b", b"cd"), ("a", "bc", b"d"), id="C-jti-delim-nothing-between"),
        pytest.param(("ab", "c", b"d"), ("a", "bc", b"d"), id="C-jti-delim-nothing-between-the-first"),
        pytest.param(("a", "b", b""), ("a", "", b"b"), id="C-jti-delim-empty"),
    ],
)
def test_parts_that_only_meet_elsewhere(one: tuple[str, str, bytes], other: tuple[str, str, bytes]) -> None:
    """Names differ, and neither opens what was sealed for the other."""
    first, second = Sealer([SECRET], one[0]), Sealer([SECRET], other[0])
    assert first.digest(*one[1:]) != second.digest(*other[1:])
    assert first.digest(*one[1:]).rpartition(b":")[2] != second.digest(*other[1:]).rpartition(b":")[2]
    assert second.open(*other[1:], first.seal(*one[1:], VALUE, NOW + HOUR, NOW), NOW) is None
    assert second.stats().altered == 1


@pytest.mark.parametrize(
    "key", [b"*", b"?[a", b"a\nb", b"\0", b"x" * 1_000_000, "🔑".encode()], ids=lambda key: key[:4]
)
def test_no_key_becomes_a_pattern(sealer: Sealer, key: bytes) -> None:
    """C-jti-glob: whatever a key holds, its name is of one length and of one alphabet."""
    assert re.fullmatch(rb"oidc:general:[0-9a-f]{8}:[A-Za-z0-9+/]{24}", sealer.digest("general", key))
    assert sealer.open("general", key, sealer.seal("general", key, b"v", NOW + 1, NOW), NOW) == Entry(b"v", NOW + 1)


def test_two_apps_in_one_store(sealer: Sealer) -> None:
    """C-keyspace: neither another namespace nor another secret has a name in common with ours."""
    keys = [b"%d" % number for number in range(500)]
    others = [Sealer([SECRET], "shop"), Sealer([OTHER], "oidc"), Sealer([OTHER], "shop")]
    names = {each.digest("token", key).rpartition(b":")[2] for each in (sealer, *others) for key in keys}
    assert len(names) == 4 * 500


# Nothing is in clear


@given(key=st.binary(min_size=6, max_size=100), value=st.binary(min_size=6, max_size=2000))
def test_nothing_of_key_or_value_shows(key: bytes, value: bytes) -> None:
    """C-plaintext: no six bytes of a key or a value, nor a digest of either, are in what the store gets."""
    blob, name = SEALER.seal("token", key, value, NOW + HOUR, NOW), SEALER.digest("token", key)
    body = blob[25:] + name.rpartition(b":")[2]
    for text in (
        key,
        value,
        sha256(key).digest(),
        blake2b(key, digest_size=18).digest(),
        struct.pack(">d", NOW + HOUR),
    ):
        assert not any(text[start : start + 6] in body for start in range(len(text) - 5))
    assert b64encode(blake2b(key, digest_size=18).digest()) not in name
    assert len(blob) == len(value) + 57, "the length of a value is what shows"


@pytest.mark.parametrize("show", [repr, str, lambda sealer: repr(vars(sealer))], ids=["repr", "str", "vars"])
def test_a_sealer_does_not_show_its_secrets(show: Callable[[Sealer], str]) -> None:
    """O-exc: neither a secret nor what is derived from it is printed."""
    text = show(Sealer([SECRET, OTHER.encode()], "oidc"))
    assert SECRET not in text
    assert OTHER not in text
    assert not re.search(rf"{re.escape(repr(SEALER._roots[SEALER.key_id]._key))}", text)


def test_a_sealer_says_which_secrets_it_has() -> None:
    sealer = Sealer([SECRET, OTHER], "oidc")
    assert repr(sealer) == "Sealer(namespace='oidc', key_ids=[a025131a, e231419e])"


# Secrets


def test_new_secrets_are_long_and_differ() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"[0-9a-f]{64}", secret) for secret in made)
    Sealer(sorted(made), "oidc")


@pytest.mark.parametrize("secret", ["", "x" * 31, b"x" * 31, "hunter2"], ids=["empty", "31", "31-bytes", "word"])
def test_a_short_secret_is_refused_and_not_shown(secret: str | bytes) -> None:
    with pytest.raises(
        ValueError, match=r"^secret 2 has \d+ bytes, and 32 are the least: `oidc-middleware secret`"
    ) as at:
        Sealer([SECRET, secret], "oidc")
    assert "hunter2" not in str(at.value)
    assert at.value.__context__ is None


def test_bytes_are_counted_not_letters() -> None:
    Sealer(["ü" * 16], "oidc")
    with pytest.raises(ValueError, match="has 30 bytes"):
        Sealer(["ü" * 15], "oidc")


def test_no_secret_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^there is no secret: `oidc-middleware secret` prints a new one$"):
        Sealer([], "oidc")


def test_a_text_that_is_not_utf_8_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match=r"^secret 1 is not UTF-8") as at:
        Sealer(["\udcff" + SECRET], "oidc")
    assert at.value.__context__ is None, "an error of `encode` holds what it could not encode"


@pytest.mark.parametrize("secret", [200, None, bytearray(40), [SECRET]], ids=["int", "None", "bytearray", "list"])
def test_a_secret_of_another_type_is_refused(secret: str) -> None:
    with pytest.raises(TypeError, match=r"^secret 1 is neither text nor bytes"):
        Sealer([secret], "oidc")


def test_a_secret_that_is_not_in_a_list_is_refused() -> None:
    with pytest.raises(ValueError, match="secret 1 has 1 bytes"):
        Sealer(SECRET, "oidc")
    with pytest.raises(TypeError, match="secret 1 is neither"):
        Sealer(SECRET.encode(), "oidc")  # type: ignore[arg-type]


def test_a_secret_that_is_listed_twice_counts_once() -> None:
    assert len(Sealer([SECRET, OTHER, SECRET.encode()], "oidc").digests("token", KEY)) == 2


def test_two_secrets_with_one_id_are_refused() -> None:
    """These two were searched for."""
    with pytest.raises(ValueError, match="have the same id 7cc1b1dc"):
        Sealer([f"{26929:032}", f"{91285:032}"], "oidc")


# Rotation


def test_a_rotation_loses_nothing() -> None:
    """Append, then move first, then remove: at each step nodes of the step before and after read each other."""
    steps = [Sealer(secrets, "oidc") for secrets in ([SECRET], [SECRET, OTHER], [OTHER, SECRET], [OTHER])]
    for before, after in itertools.pairwise(steps):
        for writer, reader in ((before, after), (after, before)):
            blob = writer.seal("session", KEY, VALUE, NOW + HOUR, NOW)
            assert writer.digest("session", KEY) in reader.digests("session", KEY)
            assert reader.open("session", KEY, blob, NOW) == Entry(VALUE, NOW + HOUR)
    first, *_, last = steps
    assert last.open("session", KEY, first.seal("session", KEY, VALUE, NOW + HOUR, NOW), NOW) is None
    assert last.stats().unknown_key == 1


def test_names_come_in_the_order_of_the_secrets() -> None:
    one, two = Sealer([SECRET], "oidc").digest("token", KEY), Sealer([OTHER], "oidc").digest("token", KEY)
    assert Sealer([SECRET, OTHER], "oidc").digests("token", KEY) == (one, two)
    assert Sealer([OTHER, SECRET], "oidc").digests("token", KEY) == (two, one)
    assert Sealer([OTHER, SECRET], "oidc").digest("token", KEY) == two


def test_nodes_with_different_secrets_find_out() -> None:
    one, other = Sealer([SECRET], "oidc"), Sealer([OTHER], "oidc")
    assert one.check_values.keys().isdisjoint(other.check_values)
    assert one.check_values == Sealer([SECRET.encode()], "shop").check_values
    assert [*Sealer([SECRET, OTHER], "oidc").check_values] == [one.key_id, other.key_id]
    with pytest.raises(TypeError):
        one.check_values[one.key_id] = b""  # type: ignore[index]


def test_two_secrets_with_one_id_on_two_nodes_find_out_as_well() -> None:
    one, other = Sealer([f"{26929:032}"], "oidc"), Sealer([f"{91285:032}"], "oidc")
    assert one.key_id == other.key_id
    assert one.check_values != other.check_values
    assert one.digest("token", KEY) != other.digest("token", KEY)
    assert one.open("token", KEY, other.seal("token", KEY, VALUE, NOW + HOUR, NOW), NOW) is None
    assert one.stats().altered == 1
