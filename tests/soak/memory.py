"""A node under a million distinct keys and an outage of a minute: its memory stays flat.

`python tests/soak/memory.py --keys 1000000 --seconds 60`. Exit code: 0 when it grew by 5 % at most once it was full.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from time import monotonic

sys.path[:0] = [str(Path(__file__).parent.parent)]

from oidc_middleware.cache import TYPES, Entry  # noqa: E402  the folder of the kits is named above

from hybrid_kit import Node, new_node  # noqa: E402
from redis_kit import PATIENCE, RedisServer, end  # noqa: E402

KINDS = [TYPES[name] for name in ("general", "token", "session", "introspection")]
TOGETHER = 50
MOST = 1.05


def resident() -> float:
    """Return the memory of this process, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


async def visit(node: Node, number: int) -> None:
    """Use keys that nobody used before."""
    kind = KINDS[number % len(KINDS)]
    keys = [b"%032d" % (number * TOGETHER + n) for n in range(TOGETHER)]
    calls = (
        node.hybrid.get_many(kind, keys),
        node.hybrid.set_many(kind, {key: Entry(bytes(200), end(600)) for key in keys}),
        node.hybrid.delete(kind, keys[0]),
    )
    await asyncio.gather(*calls, return_exceptions=True)


async def fill(node: Node, first: int, count: int) -> float:
    """Use so many keys; return the most memory that was taken."""
    most = 0.0
    for number in range(first // TOGETHER, (first + count) // TOGETHER):
        await visit(node, number)
        if number % 200 == 0:
            most = max(most, resident())
    return most


async def main(keys: int, seconds: float) -> int:
    """Fill the node, then go on for as many keys again, a part of them while Redis is away."""
    with RedisServer(options={"maxmemory": "256mb", "maxmemory-policy": "allkeys-lru"}) as server:
        node = new_node(server.url)
        full = await fill(node, 0, keys)
        print(f"{keys:,} keys: {full:.0f} MiB", flush=True)
        server.stop()
        begun, away, number = monotonic(), 0.0, keys
        while monotonic() - begun < seconds:
            away = max(away, await fill(node, number, 10_000))
            number += 10_000
        print(
            f"{number - keys:,} more while Redis hangs: {away:.0f} MiB, {node.hybrid.overview().unsettled}", flush=True
        )
        server.cont()
        await asyncio.wait_for(node.recovered(), 6 * PATIENCE)
        back = await fill(node, number, keys)
        print(f"{keys:,} more afterwards: {back:.0f} MiB", flush=True)
        await node.hybrid.close()
    worst = max(away, back) / full
    print(f"at most {worst:.3f} of what it took when it was full")
    return int(worst > MOST)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1_000_000, help="how many keys fill it (1,000,000)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long Redis hangs (60)")
    arguments = parser.parse_args()
    sys.exit(asyncio.run(main(arguments.keys, arguments.seconds)))
