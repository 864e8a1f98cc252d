"""What is left of the reverse proxy's requests per second when every request is authenticated."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from bench_server import Burst, Load, implementation, served
from table import Row, at_least, markdown
from traffic import issuer

CONNECTIONS = 32
SHARE = 0.9
OPEN, CLOSED = "proxy without a door", "proxy behind the middleware"


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the table of proxied requests."""
    seconds, rounds = 0.2, 7 if quick else 25
    provider = issuer()
    with ExitStack() as stack:
        stack.enter_context(provider.serve_in_thread())
        tokens = [provider.token() for _ in range(CONNECTIONS)]
        upstream = f"http://127.0.0.1:{stack.enter_context(served('bare', provider.url))}"
        loads = {
            name: stack.enter_context(Load(stack.enter_context(proxied(kind, provider.url, upstream)), tokens))
            for name, kind in ((OPEN, "open"), (CLOSED, "closed"))
        }
        for load in loads.values():
            load.burst(seconds)
        bursts: dict[str, list[Burst]] = {name: [] for name in loads}
        for _ in range(rounds):
            for name, load in loads.items():
                bursts[name].append(load.burst(seconds))
    return {f"The reverse proxy under uvicorn ({implementation()}), {CONNECTIONS} connections": shares(bursts)}


def shares(bursts: dict[str, list[Burst]]) -> list[Row]:
    """Return requests per second and the proxy's processor time for each; ratios are taken round by round."""
    floor = bursts[OPEN]
    rates, times = [], []
    for name, taken in bursts.items():
        share = median(mine.per_second / its.per_second for mine, its in zip(taken, floor, strict=True))
        cost = median(mine.cpu / its.cpu for mine, its in zip(taken, floor, strict=True))
        goal = at_least(share, SHARE) if name == CLOSED else None
        rate = median(burst.per_second for burst in taken)
        rates.append(Row(f"{name}: requests", rate, unit="/s", ratio=share, base="without", goal=goal))
        cpu = [burst.cpu for burst in taken]
        times.append(Row(f"{name}: processor time", median(cpu), least=min(cpu), ratio=cost, base="without"))
    return [*rates, *times]


@contextmanager
def proxied(kind: str, issuer_url: str, upstream: str) -> Iterator[int]:
    """Serve a proxy in a process of its own until the block ends; yield its port."""
    script = str(Path(__file__).with_name("served_proxy.py"))
    command = [sys.executable, script, kind, issuer_url, upstream]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


if __name__ == "__main__":
    for title, table in rows().items():
        print(markdown(title, table), end="\n\n")
