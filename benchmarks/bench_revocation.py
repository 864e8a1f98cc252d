"""What revocation costs: until another process enforces it, for each request, and to load a million."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import perf_counter, perf_counter_ns, time
from typing import Any

from redis_stand import redis_kit
from revocation_node import fresh, node
from table import Row, at_least, at_most, interleaved
from traffic import AUDIENCE, Application, asking, bare, for_ever, issuer, no_body, only_200, scope_of, signed

from oidc_middleware import OIDC, OIDCMiddleware
from oidc_middleware.cache import new_secret
from oidc_middleware.cache.redis.ledger import RedisLedger
from oidc_middleware.core.ledger.digests import LedgerKeys
from oidc_middleware.core.ledger.records import Record

MILLION = 1_000_000
SLICE = 1_000
LIFE = 86_400
RATE = 1_000
MIB = 1024 * 1024


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the tables of revocation."""
    kit, secret = redis_kit(), new_secret()
    count = MILLION // 10 if quick else MILLION
    with kit.RedisServer() as server, TemporaryDirectory() as folder, asyncio.Runner() as runner:
        in_file = f"sqlite:///{folder}/cache.sqlite"
        reached = [
            *beside("Redis", runner.run(reaching(server.url, secret, 200 if quick else 1_000)), 1.0, 5.0),
            *beside("SQLite", runner.run(reaching(in_file, secret, 100 if quick else 300)), None, 60.0),
        ]
        sustained = runner.run(together(server.url, secret, 2 if quick else 10))
        flowing = runner.run(while_it_flows(server.url, secret, 2 if quick else 8))
        server.restart()
        loading = runner.run(load(server.url, secret, count))
    with asyncio.Runner() as runner:
        checked = known(runner, count, quick=quick)
    return {
        "Until another process enforces a revocation": [*reached, *sustained],
        "What a request pays for revocation": [*checked, *flowing],
        f"{count:,} revocations loaded from Redis": loading,
    }


# ---------------------------------------------------------------------------------------------------- between processes


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a node in a process of its own; it is ready."""
    command = [sys.executable, str(Path(__file__).with_name("revocation_node.py")), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n", "the node did not start"
        try:
            yield child
        finally:
            child.stdin.close()


async def reaching(cache: str, secret: str, count: int) -> list[float]:
    """Revoke one token after the other, and return how long it took until the other process enforced each, in ms."""
    async with node(cache, secret) as oidc:
        await fresh(oidc)
        begun: dict[int, float] = {}
        took: list[float] = []
        with process(cache, secret, "listen") as child:
            assert child.stdout is not None
            for number in range(count):
                record = oidc.revocations._names.keys.token(oidc.settings.issuer or "", f"{number}", 0)  # noqa: SLF001
                begun[record.digest] = perf_counter()
                receipt = await oidc.revoke.token(jti=f"{number}")
                assert receipt == "shared"
                digest, held = (await asyncio.to_thread(child.stdout.readline)).split()
                took.append((float(held) - begun[int(digest)]) * 1e3)
    return took


def beside(name: str, took: Sequence[float], p50: float | None, p99: float) -> list[Row]:
    """Return the rows of times in ms, beside their goals."""
    middle, worst = median(took), quantiles(took, n=100)[98]
    return [
        Row(f"{name}, two processes, p50", middle, unit="ms", goal=None if p50 is None else at_most(middle, p50, "ms")),
        Row(f"{name}, two processes, p99", worst, unit="ms", goal=at_most(worst, p99, "ms")),
    ]


async def together(cache: str, secret: str, seconds: float) -> list[Row]:
    """Let three processes revoke at once, and measure how many revocations each gets acknowledged."""
    arguments = (cache, secret, "flow", str(RATE), str(seconds))
    with process(*arguments) as first, process(*arguments) as second, process(*arguments) as third:
        children = (first, second, third)
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        lines = [(await asyncio.to_thread(child.stdout.readline)).split() for child in children if child.stdout]
    rates = [int(shared) / float(taken) for _, shared, taken, _ in lines]
    staleness = max(float(stale) for *_, stale in lines)
    return [
        Row(
            "three nodes revoke at once, the slowest",
            min(rates),
            unit="/s",
            goal=at_least(min(rates), 0.95 * RATE, "/s"),
        ),
        Row("… how old the knowledge of the last one is then", staleness, unit="s"),
    ]


# ------------------------------------------------------------------------------------------------------------- requests


def known(runner: asyncio.Runner, count: int, *, quick: bool) -> list[Row]:
    """Measure a request whose token is known, with an empty ledger and with a full one."""
    provider = issuer()
    token = signed(provider, 1)[0]
    empty, full = service(provider), service(provider)
    for part in slices(full.revocations._names.keys, count):  # noqa: SLF001
        full._keeper.mirror.merge(part)  # noqa: SLF001
    apps = {name: OIDCMiddleware(bare(), oidc=oidc) for name, oidc in {"empty": empty, "full": full}.items()}
    for app in apps.values():
        runner.run(app(scope_of(token), no_body, only_200))
    turns = {name: asking(runner, app, for_ever([token])) for name, app in apps.items()}
    floor = asking(runner, bare(), for_ever([token]))
    timings = interleaved({"bare": floor, **turns}, 256 if quick else 1024, rounds=61)
    more = timings["full"].less(timings["empty"]).median
    return [
        Row("bare Starlette", timings["bare"].median, least=timings["bare"].least),
        Row("a known token, nothing revoked", timings["empty"].less(timings["bare"]).median),
        Row(f"… {count:,} revoked, more", more, goal=at_most(more, 0.1, "µs")),
    ]


async def while_it_flows(cache: str, secret: str, seconds: float) -> list[Row]:
    """Measure requests while another process revokes a thousand tokens a second."""
    provider = issuer()
    token = signed(provider, 1)[0]
    plain: Application = bare()
    async with service(provider, cache=cache, secret=secret) as oidc:
        app: Application = OIDCMiddleware(bare(), oidc=oidc)
        await fresh(oidc)
        await app(scope_of(token), no_body, only_200)
        with process(cache, secret, "flow", str(RATE), str(seconds)) as child:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
            took: dict[str, list[int]] = {"bare": [], "ours": []}
            end, before = perf_counter() + seconds, oidc.stats()["revocations"]["entries"]
            while perf_counter() < end:
                for name, asked in (("bare", plain), ("ours", app)):
                    scope = scope_of(token)
                    start = perf_counter_ns()
                    await asked(scope, no_body, only_200)
                    took[name].append(perf_counter_ns() - start)
                await asyncio.sleep(0)
            came = (oidc.stats()["revocations"]["entries"] - before) / seconds
            assert child.stdout is not None
            await asyncio.to_thread(child.stdout.readline)
    more = (_middle(took["ours"]) - _middle(took["bare"])) / 1e3
    return [
        Row(
            f"a known token over bare while {came:,.0f} revocations a second come in", more, goal=at_most(more, 3, "µs")
        ),
    ]


def _middle(took: Sequence[int]) -> float:
    """Return the mean of all but the slowest in a hundred, in which the machine did something else."""
    kept = sorted(took)[: len(took) * 99 // 100]
    return sum(kept) / len(kept)


def service(provider: Any, **settings: Any) -> OIDC:
    """Return the service that the benchmark asks."""
    keywords: dict[str, Any] = {"issuer": provider.url, "audience": AUDIENCE, "journal": None}
    return OIDC(transport=provider.transport(), **(keywords | settings))


# -------------------------------------------------------------------------------------------------------------- loading


async def load(cache: str, secret: str, count: int) -> list[Row]:
    """Fill Redis, start a node, and measure until it knows everything, and how long its loop was held meanwhile."""
    oidc = node(cache, secret)
    store = RedisLedger(cache, budget=10.0)
    for part in slices(oidc.revocations._names.keys, count):  # noqa: SLF001
        await store.write(part)
    await store.aclose()
    gc.collect()
    before, begin = resident(), perf_counter()
    gaps: list[float] = []
    async with oidc:
        last = perf_counter()
        while not oidc._keeper.is_loaded:  # noqa: SLF001  to ask for all the counts would be what is measured
            await asyncio.sleep(0)
            now = perf_counter()
            gaps.append(now - last)
            last = now
        took = perf_counter() - begin
        assert oidc.stats()["revocations"]["entries"] == count
        grown = (resident() - before) / MIB
    held = max(gaps) * 1e3
    return [
        Row("until the node is ready", took, unit="s", goal=at_most(took, 4, "s")),
        Row("the loop was held at most", held, unit="ms", goal=at_most(held, 50, "ms")),
        Row("the process grew by", grown, unit="MiB", goal=at_most(grown, 32, "MiB")),
    ]


def slices(keys: LedgerKeys, count: int) -> Iterator[Sequence[Record]]:
    """Yield revoked tokens, some at a time."""
    end = int(time()) + LIFE
    for start in range(0, count, SLICE):
        yield [keys.token("https://issuer.example", f"{number}", end) for number in range(start, start + SLICE)]


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
