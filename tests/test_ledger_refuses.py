"""What a ledger refuses: the token itself, its session, its subject, its client, and only what was issued by then."""

from __future__ import annotations

from typing import Any

import pytest

from oidc_middleware.core.ledger.digests import LedgerKeys, Marks
from oidc_middleware.core.ledger.ledger import Ledger
from oidc_middleware.core.ledger.records import Kind, Record

KEYS = LedgerKeys({b"\0\0\0A": b"a" * 32})
ISSUER = "https://login.example.com"
T = 1_800_000_000
HOUR = 3600
CLAIMS = {"iss": ISSUER, "sub": "alice", "sid": "s-1", "jti": "t-1", "azp": "web", "iat": T, "exp": T + HOUR}


def marks(**changes: Any) -> Marks:
    """Return the marks of a token; a claim that is None is left out."""
    claims = {name: value for name, value in (CLAIMS | changes).items() if value is not None}
    return KEYS.marks(claims, b"header.payload")


def ledger(*records: Record, leeway: float = 0) -> Ledger:
    made = Ledger(KEYS, leeway=leeway)
    made.merge(records)
    return made


CUT_OFFS = {
    Kind.SESSION: KEYS.session(ISSUER, "s-1", T, HOUR),
    Kind.SUBJECT: KEYS.subject(ISSUER, "alice", T, HOUR),
    Kind.CLIENT: KEYS.client(ISSUER, "web", T, HOUR),
}


def test_an_empty_ledger_refuses_nothing() -> None:
    assert ledger().refuses(marks()) is None


def test_a_token_is_refused_and_no_other_one() -> None:
    record = KEYS.token(ISSUER, "t-1", T + HOUR)
    assert record == Record(Kind.TOKEN, b"\0\0\0A", marks().digests[0], T + HOUR, T + HOUR)
    assert ledger(record).refuses(marks()) == record
    assert ledger(record).refuses(marks(jti="t-2")) is None


@pytest.mark.parametrize("kind", CUT_OFFS)
def test_a_cut_off_is_for_its_own(kind: Kind) -> None:
    record = CUT_OFFS[kind]
    others = {Kind.SESSION: {"sid": "s-2"}, Kind.SUBJECT: {"sub": "bob"}, Kind.CLIENT: {"azp": "shop"}}[kind]
    assert ledger(record).refuses(marks()) == record
    assert ledger(record).refuses(marks(**others)) is None
    assert ledger(record).refuses(marks(iss="https://other.example.com")) is None


@pytest.mark.parametrize("kind", CUT_OFFS)
@pytest.mark.parametrize(
    ("iat", "is_refused"),
    [
        pytest.param(T - 1, True, id="before"),
        pytest.param(T, True, id="iat-is-T"),
        pytest.param(T + 10, True, id="within-the-leeway"),
        pytest.param(T + 10.0, True, id="float-within-the-leeway"),
        pytest.param(T + 10.001, False, id="float-after-the-leeway"),
        pytest.param(T + 11, False, id="after-the-leeway"),
        pytest.param(None, True, id="no-iat"),
    ],
)
def test_c_bl_sub(kind: Kind, iat: float | None, is_refused: bool) -> None:
    """C-bl-sub: what was issued by T is refused, and so is what does not say when it was."""
    found = ledger(CUT_OFFS[kind], leeway=10).refuses(marks(iat=iat))
    assert found == (CUT_OFFS[kind] if is_refused else None)
