"""What known tokens take in memory, and what they cost the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from time import perf_counter

from services import Service, introduce
from table import Row, markdown
from traffic import bare, issuer, unsigned

from oidc_middleware.auth.known import HOT_TOKENS
from oidc_middleware.testing import FakeIssuer

KIB = 1024


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the table of what tokens take."""
    count = 20_000 if quick else 100_000
    with asyncio.Runner() as runner:
        return {"Memory of known tokens": tokens_in_memory(runner, issuer(), count)}


def tokens_in_memory(runner: asyncio.Runner, provider: FakeIssuer, count: int) -> list[Row]:
    """Measure what a service holds that got to know `count` tokens."""
    length = len(next(unsigned(provider, 1)))
    before = collection()
    few, _ = held(runner, provider, HOT_TOKENS)
    many, service = held(runner, provider, count)
    believed = service.oidc.caches.token.stats().bytes
    after = collection()
    per_token = (many - few) / (count - HOT_TOKENS)
    return [
        Row("a token, as it is sent", length, unit="B"),
        Row("a known token in memory", per_token, unit="B", ratio=per_token / length, base="its length"),
        Row("more for one in the hot set", few / HOT_TOKENS - per_token, unit="B"),
        Row(f"{count:,} known tokens", many / KIB**2, unit="MiB", ratio=many / believed, base="what the cache counts"),
        Row("a full garbage collection without them", before, unit="ms"),
        Row("… with them", after, unit="ms", ratio=after / before, base="without"),
    ]


def held(runner: asyncio.Runner, provider: FakeIssuer, count: int) -> tuple[int, Service]:
    """Return how many bytes a service holds more when it knows so many tokens."""
    service = Service(provider, bare())
    runner.run(introduce(service, [provider.token()]))
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        runner.run(introduce(service, unsigned(provider, count)))
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before, service


def collection() -> float:
    """Return how long a full collection takes, in ms."""
    gc.collect()
    took = []
    for _ in range(5):
        start = perf_counter()
        gc.collect()
        took.append(perf_counter() - start)
    return min(took) * 1e3


if __name__ == "__main__":
    for title, table in rows().items():
        print(markdown(title, table), end="\n\n")
