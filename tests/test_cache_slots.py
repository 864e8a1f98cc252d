"""Which node of a cluster has which keys, and how requests follow keys that have moved."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot as redis_key_slot

from oidc_middleware.cache.redis.journey import Journey, Parcel
from oidc_middleware.cache.redis.route import Request
from oidc_middleware.cache.redis.slots import SLOTS, SlotMap, by_slot, key_slot, read_slots
from oidc_middleware.cache.redis.urls import Address
from oidc_middleware.cache.redis.wire import Elsewhere, command
from oidc_middleware.errors import BackendUnavailable

ONE, TWO, THREE = (Address("127.0.0.1", port) for port in (7000, 7001, 7002))
ASKING = command(b"ASKING")
HALF = SLOTS // 2


@given(st.one_of(st.binary(), st.text("{}ab").map(str.encode)))
def test_slots_are_those_of_everybody_else(key: bytes) -> None:
    assert key_slot(key) == redis_key_slot(key)


@pytest.mark.parametrize(
    ("key", "same"),
    [
        (b"a{user}b", b"user"),
        (b"{user}", b"user"),
        (b"a{{user}}b", b"{user"),
        (b"a{user}{other}", b"user"),
    ],
)
def test_what_stands_in_braces_decides(key: bytes, same: bytes) -> None:
    """Redis cluster specification, "Hash tags"."""
    assert key_slot(key) == key_slot(same)


@pytest.mark.parametrize(("key", "slot"), [(b"123456789", 0x31C3), (b"", 0)])
def test_known_slots(key: bytes, slot: int) -> None:
    """Redis cluster specification, appendix A."""
    assert key_slot(key) == slot % SLOTS


@pytest.mark.parametrize(("key", "other"), [(b"a{}b", b"a{}c"), (b"a{b", b"c{b"), (b"}a{", b"}b{")])
def test_empty_or_open_braces_decide_nothing(key: bytes, other: bytes) -> None:
    assert key_slot(key) != key_slot(other)


def test_keys_are_grouped() -> None:
    groups = by_slot([b"{a}1", b"b", b"{a}2"])
    assert sorted(groups.values()) == [[b"b"], [b"{a}1", b"{a}2"]]


class TestReadSlots:
    def test_a_map(self) -> None:
        reply = [
            [0, HALF - 1, [b"127.0.0.1", 7000, b"id", []], [b"127.0.0.1", 7002, b"id"]],
            [HALF, SLOTS - 1, [b"127.0.0.1", 7001, b"id"]],
        ]
        slots = read_slots(reply, ONE)
        assert slots is not None
        assert [slots.owner(slot) for slot in (0, HALF - 1, HALF, SLOTS - 1)] == [ONE, ONE, TWO, TWO]
        assert slots.primaries == (ONE, TWO)
        assert slots.nodes == (ONE, THREE, TWO)
        assert slots.is_complete

    @pytest.mark.parametrize("host", [None, b"", b"?"])
    def test_a_node_that_does_not_know_its_own_address(self, host: bytes | None) -> None:
        slots = read_slots([[0, 5, [host, 7001, b"id"]]], ONE)
        assert slots is not None
        assert slots.owner(5) == TWO
        assert slots.owner(6) is None
        assert not slots.is_complete

    @pytest.mark.parametrize(
        "reply", [[], None, 7, b"OK", [b"x"], [[0, 5]], [[0, 5, []]], [[0, 5, [b"h", b"x"]]], [[b"a", b"b", [b"h", 1]]]]
    )
    def test_nonsense_is_no_map(self, reply: Any) -> None:
        assert read_slots(reply, ONE) is None

    def test_a_slot_moves(self) -> None:
        slots = SlotMap([ONE] * SLOTS, [ONE])
        slots.assign(7, TWO)
        assert slots.owner(7) == TWO
        assert slots.owner(8) == ONE
        assert slots.primaries == (ONE, TWO)


class TestJourney:
    """What is sent where: `ask` is a request of two commands."""

    @staticmethod
    def journey(*keys: bytes, owners: list[Address | None] | None = None) -> Journey:
        requests = [Request(key, (b"first " + key, b"second " + key)) for key in keys]
        halves: list[Address | None] = [*[ONE] * HALF, *[TWO] * HALF]
        return Journey(requests, SlotMap(owners or halves, [ONE, TWO]))

    @staticmethod
    def key_of(address: Address) -> bytes:
        return next(key for n in range(100) if (key_slot(key := b"%d" % n) < HALF) == (address == ONE))

    def test_each_node_gets_its_own_at_once(self) -> None:
        one, two = self.key_of(ONE), self.key_of(TWO)
        journey = self.journey(one, two)
        parcels = {parcel.address: parcel for parcel in journey.parcels()}
        assert parcels[ONE].commands == [b"first " + one, b"second " + one]
        journey.arrive(parcels[TWO], [b"c", b"d"])
        journey.arrive(parcels[ONE], [b"a", b"b"])
        assert journey.answers == [[b"a", b"b"], [b"c", b"d"]]
        assert journey.parcels() == []
        assert not journey.is_at_a_loss
        assert not journey.moves

    def test_a_node_that_fails_fails_its_own(self) -> None:
        journey = self.journey(self.key_of(ONE), self.key_of(TWO))
        failure = BackendUnavailable("gone", "link")
        for parcel in journey.parcels():
            journey.arrive(parcel, failure if parcel.address == ONE else [b"c", b"d"])
        assert journey.answers == [failure, [b"c", b"d"]]

    def test_moved(self) -> None:
        journey, slot = self.one_is_elsewhere(THREE, is_lasting=True)
        (parcel,) = journey.parcels()
        assert parcel.address == THREE
        assert ASKING not in parcel.commands
        journey.arrive(parcel, [b"a", b"b"])
        assert journey.answers == [[b"a", b"b"]]
        assert journey.moves == {slot: THREE}

    def test_ask(self) -> None:
        journey, _ = self.one_is_elsewhere(THREE, is_lasting=False)
        (parcel,) = journey.parcels()
        assert parcel.commands[::2] == [ASKING, ASKING]
        journey.arrive(parcel, [b"OK", b"a", b"OK", b"b"])
        assert journey.answers == [[b"a", b"b"]]
        assert journey.moves == {}

    @pytest.mark.parametrize(("host", "expected"), [("", ONE.host), ("other", "other")])
    def test_an_empty_host_is_the_same_host(self, host: str, expected: str) -> None:
        journey, _ = self.one_is_elsewhere(Address(host, 7009), is_lasting=True)
        assert [parcel.address for parcel in journey.parcels()] == [Address(expected, 7009)]

    def test_a_node_without_a_name_is_not_looked_for(self) -> None:
        journey, _ = self.one_is_elsewhere(Address("?", 7009), is_lasting=True)
        assert journey.parcels() == []
        assert journey.is_at_a_loss
        (answer,) = journey.answers
        assert isinstance(answer, BackendUnavailable)
        assert answer.kind == "busy"

    def test_a_slot_without_a_node(self) -> None:
        """Y-loading, CLUSTERDOWN."""
        journey = self.journey(b"k", owners=[None] * SLOTS)
        assert journey.parcels() == []
        (answer,) = journey.answers
        assert isinstance(answer, BackendUnavailable)
        assert answer.kind == "busy"
        assert journey.is_at_a_loss

    def one_is_elsewhere(self, address: Address, *, is_lasting: bool) -> tuple[Journey, int]:
        """Begin with a request whose second command only is sent elsewhere: both go there."""
        key = self.key_of(ONE)
        journey = self.journey(key)
        (parcel,) = journey.parcels()
        elsewhere = Elsewhere("MovedError: 1 h:1", key_slot(key), address, is_lasting=is_lasting)
        journey.arrive(parcel, [b"a", elsewhere])
        (answer,) = journey.answers
        assert type(answer) is BackendUnavailable
        return journey, key_slot(key)


def test_a_parcel_knows_whose_answers_are_whose() -> None:
    parcel = Parcel(ONE)
    parcel.put(0, (b"a", b"b"), asking=False)
    parcel.put(1, (b"c",), asking=True)
    parcel.put(2, (b"d", b"e"), asking=True)
    assert parcel.commands == [b"a", b"b", ASKING, b"c", ASKING, b"d", ASKING, b"e"]
    assert [(number, parcel.commands[place]) for number, place in parcel.places] == [
        (0, [b"a", b"b"]),
        (1, [b"c"]),
        (2, [b"d", b"e"]),
    ]
