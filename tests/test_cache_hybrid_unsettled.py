"""What a shared tier missed: the account of it is bounded, and one part of it never costs another its room."""

from __future__ import annotations

from oidc_middleware.cache import Entry
from oidc_middleware.cache.hybrid.unsettled import Unsettled, UnsettledCounts

ENTRY = Entry(b"1", 5e9)


def test_deletes_leave_room_for_revocations() -> None:
    """Y-queue-overflow: an outage of many writes must not lose what has no other source."""
    unsettled = Unsettled(max_keys=100_000, max_bytes=100_000)
    noted = sum(unsettled.must_delete(b"%d" % number) for number in range(1000))
    assert 300 <= noted < 1000
    unsettled.must_add(b"revoked", ENTRY)
    assert unsettled.kept(b"revoked") == ENTRY
    assert unsettled.counts() == UnsettledCounts(deletes=noted, adds=1)


def test_what_finds_no_room_is_counted() -> None:
    unsettled = Unsettled(max_bytes=10_000)
    for number in range(100):
        unsettled.must_add(b"%d" % number, Entry(bytes(100), 5e9))
    counts = unsettled.counts()
    assert counts.adds + counts.refused == 100
    assert 20 <= counts.adds <= 25
    assert unsettled.must_delete(b"k")


def test_room_comes_back() -> None:
    unsettled = Unsettled(max_keys=10, max_bytes=5000)
    for _ in range(3):
        assert [unsettled.must_delete(b"%d" % number) for number in range(11)] == [True] * 10 + [False]
        for number in range(10):
            unsettled.must_add(b"%d" % number, Entry(bytes(50), 5e9))
        assert unsettled.counts() == UnsettledCounts(adds=10)
        for number in range(10):
            unsettled.discard(b"%d" % number)
        assert not unsettled
