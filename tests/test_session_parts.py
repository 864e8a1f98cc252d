"""What sessions are made of, each by itself: cookie, seal, record, lives, memory and list."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware.cache import Caches
from oidc_middleware.core.cookies import CookieShape
from oidc_middleware.core.grant import Grant
from oidc_middleware.errors import InvalidRequest
from oidc_middleware.session import cookie as cookies
from oidc_middleware.session.cookie import Cookies, SessionCookie
from oidc_middleware.session.index import MOST_LISTED, Index, Listed
from oidc_middleware.session.limits import LOOK_SECONDS, TOUCHES, Limits
from oidc_middleware.session.record import LARGEST, Record, check_size, opened, sealed
from oidc_middleware.session.seal import seal, unseal
from oidc_middleware.testing import ManualClock

NAME = "__Host-oidc_session"
COOKIES = Cookies("oidc_session", CookieShape(is_secure=True))
RECORD = Record(
    version=1,
    name="a-name",
    issuer="https://issuer.example",
    claims=b'{"sub":"alice"}',
    id_token="id.token.x",
    nonce="n-1",
    began=1000.0,
    ends_at=2000.0,
    deadline=5000.0,
    access_token="access",
    access_ends=1300.0,
    renew_at=1240.0,
    refresh_token="refresh",
    scope="openid",
)


def new_cookie() -> SessionCookie:
    found = cookies.read(cookies.new_value().encode())
    assert found is not None
    return found


# ------------------------------------------------------------------------------------------------------- the cookie


def test_no_two_cookies_have_anything_in_common() -> None:
    """Z-session-idor: 128 random bits of id, 256 of key."""
    found = [cookies.read(cookies.new_value().encode()) for _ in range(1000)]

    assert len({each.store_key for each in found if each is not None}) == 1000
    assert len({each.key for each in found if each is not None}) == 1000


@given(st.binary(max_size=100))
def test_any_bytes_are_a_cookie_of_the_one_shape_or_none(value: bytes) -> None:
    """Z-session-idor."""
    found = cookies.read(value)

    is_of_the_shape = len(value) == 64 and all(
        byte in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" for byte in value
    )
    assert (found is not None) == is_of_the_shape
    if found is not None:
        assert (len(found.store_key), len(found.key)) == (32, 32)


def test_a_value_with_something_at_its_end_is_none() -> None:
    assert cookies.read(b"A" * 64 + b"\n") is None


def test_the_key_in_the_store_says_nothing_of_the_id() -> None:
    one, two = cookies.read(b"A" * 64), cookies.read(b"A" * 63 + b"B")
    assert one is not None
    assert two is not None
    assert one.store_key == two.store_key  # the same id
    assert one.key != two.key
    assert repr(one) == "SessionCookie('[REDACTED]')"
    assert bytes(16) not in one.store_key


@given(st.lists(st.sampled_from([f"{NAME}=x", f"{NAME}2=y", "a=b", "", " ", "=", f" {NAME} = z ", NAME, ";"])))
def test_any_header_has_none_one_or_too_many(parts: list[str]) -> None:
    """Z-toss."""
    header = ";".join(parts).encode()
    ours = [part for part in parts if part.strip().startswith((f"{NAME}=", f"{NAME} ="))]
    if len(ours) > 1:
        with pytest.raises(InvalidRequest):
            COOKIES.find(header)
    else:
        assert COOKIES.find(header) == (ours[0].partition("=")[2].strip().encode() if ours else None)


def test_what_takes_the_cookie_away_has_its_attributes() -> None:
    """Z-attrs: a browser takes it for another cookie else."""
    set_, clear = COOKIES.set("v", 60), COOKIES.clear()

    assert set_ == f"{NAME}=v; Max-Age=60; Path=/; HttpOnly; SameSite=Lax; Secure"
    assert clear == f"{NAME}=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax; Secure"


# ------------------------------------------------------------------------------------------------- seal and record


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_what_is_sealed_opens_with_its_key_at_its_place(data: bytes, place: bytes) -> None:
    key = bytes(range(32))
    blob = seal(key, data, place)

    assert unseal(key, blob, place) == data
    assert unseal(bytes(32), blob, place) is None
    assert unseal(key, blob, place + b"x") is None
    assert seal(key, data, place) != blob


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_a_changed_byte_opens_nothing(position: int, change: int) -> None:
    key, blob = bytes(range(32)), bytearray(seal(bytes(range(32)), b"what was said", b"here"))

    blob[position % len(blob)] ^= change

    assert unseal(key, bytes(blob), b"here") is None


@given(st.binary(max_size=300))
def test_any_bytes_in_the_store_are_a_record_or_none(data: bytes) -> None:
    one = new_cookie()

    assert opened(data, one) is None
    assert opened(seal(one.key, data, one.store_key), one) is None  # sealed, and no record


def test_a_record_opens_with_its_cookie_alone() -> None:
    one, other = new_cookie(), new_cookie()
    data = sealed(RECORD, one)

    assert opened(data, one) == RECORD
    assert opened(data, other) is None
    assert opened(data, SessionCookie(one.store_key, other.key)) is None
    assert opened(data, SessionCookie(other.store_key, one.key)) is None
    for secret in (b"alice", b"access", b"refresh", b"id.token.x", b"a-name"):
        assert secret not in data
    assert "access" not in repr(RECORD)


def test_a_record_that_does_not_fit_is_refused() -> None:
    check_size(RECORD)
    with pytest.raises(ValueError, match=f"{LARGEST} are the most"):
        check_size(msgspec.structs.replace(RECORD, access_token="x" * LARGEST))


# -------------------------------------------------------------------------------------------------------- the lives


def seconds(least: int, most: int) -> st.SearchStrategy[float]:
    """Sixteenths of seconds: their sums and halves are exact, so that a bound is the bound."""
    return st.integers(16 * least, 16 * most).map(lambda sixteenths: sixteenths / 16)


SPANS = seconds(1, 1_000_000)


def grant(**more: Any) -> Grant:
    return Grant("token", "Bearer", **more)


@given(SPANS, SPANS, SPANS, st.none() | seconds(0, 10_000_000))
def test_no_session_lives_longer_than_it_may(idle: float, absolute: float, age: float, left: float | None) -> None:
    """Z-idle-abs: whatever the issuer says, and however much it is used."""
    limits = Limits(idle, absolute, 60)
    now = 1000 + age

    deadline = limits.deadline(1000, now, grant(refresh_expires_in=left))

    assert deadline <= 1000 + absolute
    assert deadline <= now + (left or math.inf)
    assert limits.ends_at(deadline, now) <= min(now + idle, deadline)


@given(SPANS, SPANS, st.lists(seconds(0, 100_000), max_size=20))
def test_uses_extend_the_idle_life_alone(idle: float, absolute: float, pauses: list[float]) -> None:
    """Z-idle-abs."""
    limits, now = Limits(idle, absolute, 60), 1000.0
    deadline = limits.deadline(now, now, grant())
    record = msgspec.structs.replace(RECORD, began=now, deadline=deadline, ends_at=limits.ends_at(deadline, now))

    for pause in pauses:
        now += pause
        if now >= record.ends_at:
            break
        touched = limits.touched(record, now)
        assert touched.deadline == deadline
        assert record.ends_at <= touched.ends_at <= min(now + idle, deadline) + 1e-6
        assert touched.ends_at >= min(now + idle * (1 - 1 / TOUCHES), deadline) - 1e-6
        assert (touched.version == record.version + 1) == (touched is not record)
        record = touched


@given(st.none() | seconds(0, 1_000_000), seconds(0, 3600))
def test_a_token_is_renewed_in_the_second_half_of_its_life(life: float | None, ahead: float) -> None:
    at = Limits(3600, 36000, ahead).renew_at(grant(expires_in=life), 1000)

    if life is None:
        assert at == math.inf
    else:
        assert 1000 + life / 2 <= at <= 1000 + life
        assert at >= 1000 + life - ahead


@given(seconds(1000, 2000))
def test_a_session_is_looked_at_within_seconds(now: float) -> None:
    limits = Limits(1000, 4000, 60)

    until = limits.looked_at_again(RECORD, now)

    assert until <= min(now + LOOK_SECONDS, RECORD.ends_at)


# ------------------------------------------------------------------------------------------------------- the list


def listed(name: str, deadline: float) -> Listed:
    return Listed(name, name.encode().ljust(32), 0.0, deadline, "browser")


@pytest.mark.anyio
async def test_a_list_is_bounded_and_holds_what_lasts(oidc_clock: ManualClock) -> None:
    index = Index(Caches(oidc_clock).session, oidc_clock)
    now = oidc_clock.now()
    for number in range(MOST_LISTED + 5):
        await index.add("https://a", "alice", listed(str(number), now + 100 + number))

    assert [each.name for each in await index.of("https://a", "alice")] == [str(n) for n in range(5, MOST_LISTED + 5)]
    oidc_clock.advance(100 + MOST_LISTED)
    assert [each.name for each in await index.of("https://a", "alice")] == [str(MOST_LISTED + n) for n in range(1, 5)]
    assert await index.of("https://a", "bob") == ()
    assert await index.of("https://aa", "lice") == ()  # no part runs into the next


@pytest.mark.anyio
async def test_those_who_write_at_once_lose_nothing(oidc_clock: ManualClock) -> None:
    index = Index(Caches(oidc_clock).session, oidc_clock)
    end = oidc_clock.now() + 100

    await asyncio.gather(*(index.add("https://a", "alice", listed(str(number), end)) for number in range(8)))
    assert {each.name for each in await index.of("https://a", "alice")} == {str(number) for number in range(8)}

    await asyncio.gather(*(index.remove("https://a", "alice", str(number)) for number in range(8)))
    assert await index.of("https://a", "alice") == ()


@pytest.mark.anyio
async def test_a_login_while_the_last_session_goes_is_listed(
    oidc_clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes the last one out wrote over a list that is not the newest; and an empty one goes by itself."""
    cache = Caches(oidc_clock).session
    index, other, end = Index(cache, oidc_clock), Index(cache, oidc_clock), oidc_clock.now() + 1000
    await index.add("https://a", "alice", listed("old", end))
    read = cache.get_newest

    async def read_before_a_login(key: bytes) -> bytes | None:
        found = await read(key)
        monkeypatch.setattr(cache, "get_newest", read)
        await other.add("https://a", "alice", listed("new", end))
        return found

    monkeypatch.setattr(cache, "get_newest", read_before_a_login)
    await index.remove("https://a", "alice", "old")
    assert [each.name for each in await index.of("https://a", "alice")] == ["new"]

    await index.remove("https://a", "alice", "new")
    assert cache.stats().entries == 1
    oidc_clock.advance(61)
    assert await index.of("https://a", "alice") == ()
    assert cache.stats().entries == 0
