"""What a million revocations cost: a check against them, their memory, and how long one step holds the loop.

Steps are measured in the processor's time: one bad moment of a busy machine among a million would be the longest.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from resource import getpagesize
from time import perf_counter, thread_time
from typing import Any

from table import Goal, Row, Timing, at_most, interleaved, markdown, over

from oidc_middleware.core.ledger.digests import LedgerKeys
from oidc_middleware.core.ledger.ledger import Ledger
from oidc_middleware.core.ledger.records import GRACE, Kind, Record

MILLION = 1_000_000
SLICE = 1_000
"""So many records are merged, swept or paged at a time."""
TOKENS = 1_000
NOW, HOUR, LEEWAY = 1_800_000_000, 3_600, 60
MIB = 1024**2
KEYS = LedgerKeys({b"\0\0\0A": b"a" * 32})
ROTATED = LedgerKeys({b"\0\0\0B": b"b" * 32, b"\0\0\0A": b"a" * 32})
SIGNING_INPUT = b"x" * 700

Slices = Iterable[Sequence[Record]]


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the tables of the ledger."""
    count = MILLION // 10 if quick else MILLION
    held, full = loaded(count)
    checks = checking(full, count, rounds=5 if quick else 31)
    return {f"Ledger: {count:,} revocations": [*held, *ending(full)], "Ledger: a check": checks}


def loaded(count: int) -> tuple[list[Row], Ledger]:
    """Load tokens in slices, and again one by one; return what that took with the ledger that has them."""
    gc.collect()
    ledger, collection, before = Ledger(KEYS, leeway=LEEWAY), timed(gc.collect), resident()
    took = steps(ledger.merge, revoked(count))
    grown = (resident() - before) / MIB
    if len(ledger) != count:
        raise AssertionError("two digests are one")
    more = (timed(gc.collect) - collection) * 1e3
    one_by_one = steps(Ledger(KEYS, leeway=LEEWAY).merge, ([record] for part in revoked(count) for record in part))
    return [
        Row("memory, as the ledger counts it", ledger.memory_bytes / MIB, "MiB", goal=goal(ledger, count)),
        Row("what the process grew by", grown, "MiB", goal=at_most(grown, 32, "MiB")),
        Row("what a full garbage collection takes more", more, "ms"),
        Row(f"merged, {SLICE:,} at a time, in all", sum(took), "s"),
        longest(f"the longest merge of {SLICE:,}", took, 50),
        longest("the longest merge of one, growth included", one_by_one, 5),
    ], ledger


def goal(ledger: Ledger, count: int) -> Goal:
    """Return the goal for the memory of so many records."""
    return at_most(ledger.memory_bytes / MIB, 24 * count / MILLION, "MiB")


def ending(ledger: Ledger) -> list[Row]:
    """Page through all, and sweep: where nothing ended, and a ledger of which all did."""
    ended = Ledger(KEYS, leeway=LEEWAY)
    for part in revoked(MILLION // 10):
        ended.merge(part)
    return [
        longest(f"the longest page of {SLICE:,}", turns(pages(ledger)), 5),
        longest(f"the longest sweep of {SLICE:,}, nothing ended", turns(sweeps(ledger, NOW)), 5),
        longest(f"the longest sweep of {SLICE:,}, all ended", turns(sweeps(ended, NOW + 2 * HOUR + GRACE)), 5),
    ]


def checking(full: Ledger, count: int, rounds: int) -> list[Row]:
    """Return what checks cost against no revocations and against many."""
    empty, all_kinds = Ledger(KEYS, leeway=LEEWAY), Ledger(KEYS, leeway=LEEWAY)
    for part in pages(full):
        all_kinds.merge(part)
    for kind in (Kind.SESSION, Kind.SUBJECT, Kind.CLIENT):
        all_kinds.merge(Record(kind, KEYS.key_id, digest, NOW, NOW + HOUR) for digest in digests(SLICE, kind))
    tokens = [claims(number) for number in range(TOKENS)]
    marks = [(KEYS.marks(token, SIGNING_INPUT),) for token in tokens]
    packed = [(one.pack(),) for (one,) in marks]

    def first_sight(token: dict[str, Any]) -> Record | None:
        return all_kinds.refuses(KEYS.marks(token, SIGNING_INPUT))

    def from_cache(data: bytes) -> Record | None:
        return all_kinds.refuses(KEYS.unpack(data))

    arguments = [(token,) for token in tokens]
    names = {
        "known token, no revocations": over(empty.refuses, marks),
        f"known token, {count:,} tokens": over(full.refuses, marks),
        f"known token, {count:,} tokens and {SLICE:,} of each other kind": over(all_kinds.refuses, marks),
        "the same, its marks unpacked before": over(from_cache, packed),
        "first sight: digests made and looked up": over(first_sight, arguments),
        "of it: the digests": over(lambda token: KEYS.marks(token, SIGNING_INPUT), arguments),
        "the digests under two keys": over(lambda token: ROTATED.marks(token, SIGNING_INPUT), arguments),
    }
    limits = dict(zip(names, (None, None, 1, None, 6), strict=False))
    timings = interleaved(names, TOKENS, rounds)
    return [checked(name, timing, limits.get(name)) for name, timing in timings.items()]


def checked(name: str, timing: Timing, limit: float | None) -> Row:
    """Return the row of a check with its goal."""
    reached = None if limit is None else at_most(timing.median, limit, "µs")
    return Row(name, timing.median, least=timing.least, goal=reached)


def longest(name: str, took: Sequence[float], limit: float) -> Row:
    """Return the row of the longest of steps."""
    worst = max(took) * 1e3
    return Row(name, worst, "ms", goal=at_most(worst, limit, "ms"))


def claims(number: int) -> dict[str, Any]:
    """Return the claims of one of many tokens, each of its own subject and session."""
    return {
        "iss": "https://login.example.com",
        "sub": f"subject-{number}",
        "sid": f"8f14e45f-ceea-467f-a0e6-{number:012}",
        "jti": f"c9f0f895-fb98-4b91-b2ed-{number:012}",
        "client_id": "web",
        "iat": NOW,
        "exp": NOW + HOUR,
    }


def digests(count: int, seed: int = 0) -> Iterable[int]:
    """Return digests that look like real ones, the same each time."""
    chance = Random(seed)
    return (chance.getrandbits(64) for _ in range(count))


def revoked(count: int) -> Slices:
    """Return tokens that end within an hour, in slices."""
    slice_: list[Record] = []
    for number, digest in enumerate(digests(count)):
        end = NOW + HOUR + number % HOUR
        slice_.append(Record(Kind.TOKEN, KEYS.key_id, digest, end, end))
        if len(slice_) == SLICE:
            yield slice_
            slice_ = []


def pages(ledger: Ledger) -> Slices:
    """Return everything in a ledger, page by page."""
    page = ledger.records(at_most=SLICE)
    while page:
        yield page
        page = ledger.records(page[-1], SLICE)


def sweeps(ledger: Ledger, now: float) -> Iterable[int]:
    """Sweep a whole round, and tell after each step how many records are left."""
    is_over = False
    while not is_over:
        is_over = ledger.sweep(now, SLICE)
        yield len(ledger)


def steps(merge: Callable[[Sequence[Record]], object], slices: Slices) -> list[float]:
    """Merge slices and return how long each took."""
    took = []
    for part in slices:
        start = thread_time()
        merge(part)
        took.append(thread_time() - start)
    return took


def turns(work: Iterable[object]) -> list[float]:
    """Return how long each turn took. The collector rests: so many tuples are made that a full collection falls in."""
    took, start = [], thread_time()
    gc.disable()
    try:
        for _ in work:
            took.append(thread_time() - start)
            start = thread_time()
    finally:
        gc.enable()
    return took


def timed(call: Callable[[], object]) -> float:
    """Return how long a call takes, the least of five."""
    took = []
    for _ in range(5):
        start = perf_counter()
        call()
        took.append(perf_counter() - start)
    return min(took)


def resident() -> int:
    """Return the memory that this process takes, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()


if __name__ == "__main__":
    for title, table in rows().items():
        print(markdown(title, table), end="\n\n")
