"""Ten gigabytes each way through the proxy, and a thousand WebSockets: `python tests/soak/bulk.py [--gib 10]`.

It fails when the proxy, which is a process of its own, ever has 100 MiB or more of memory while the bytes go through.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from websockets.asyncio.client import connect

sys.path.insert(0, str(Path(__file__).parent.parent))

from bulk_kit import MIB, Stand, standing, standing_before

MOST = 100.0
"""MiB."""

SOCKETS = 1000
MESSAGES = 20
FILES = 8192


def moved(stand: Stand, what: str, move: Callable[[int], int], gib: int) -> None:
    """Move so many bytes, and say how it went.

    Raises:
        AssertionError: some are missing, or the proxy took too much memory.
    """
    length = gib * 1024 * MIB
    start = time.perf_counter()
    assert move(length) == length
    seconds = time.perf_counter() - start
    print(f"{what}: {gib} GiB in {seconds:.0f} s, {gib * 1024 / seconds:.0f} MiB/s; at most {stand.peak():.0f} MiB")
    assert stand.peak() < MOST


async def echoed(stand: Stand) -> None:
    """Open a thousand WebSockets, and have messages echoed on all of them at once."""
    headers = {"Authorization": f"Bearer {stand.token}"}
    url = f"ws://127.0.0.1:{stand.port}/echo"
    sockets = []
    start = time.perf_counter()
    for number in range(0, SOCKETS, 50):
        opening = (connect(url, additional_headers=headers, proxy=None, open_timeout=60) for _ in range(50))
        sockets += await asyncio.gather(*opening)
        assert len(sockets) == number + 50
    opened = time.perf_counter()

    async def talk(number: int) -> None:
        for turn in range(MESSAGES):
            await sockets[number].send(f"{number} {turn}")
            assert await sockets[number].recv() == f"{number} {turn}"

    await asyncio.gather(*map(talk, range(SOCKETS)))
    talked = time.perf_counter()
    memory = stand.resident()
    await asyncio.gather(*(socket.close() for socket in sockets))
    rate = SOCKETS * MESSAGES / (talked - opened)
    print(
        f"{SOCKETS} WebSockets: opened in {opened - start:.1f} s, {SOCKETS * MESSAGES} messages echoed, {rate:.0f}/s; "
        f"{memory:.0f} MiB"
    )
    assert stand.status("GET /bytes/1") == 200


def main() -> None:
    """Do all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=int, default=10, help="how much each way (10)")
    arguments = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, FILES)), hard))
    with standing() as stand:
        moved(stand, "to the client", stand.download, arguments.gib)
        moved(stand, "to the app", stand.upload, arguments.gib)
        moved(stand, "there and back at once", stand.echo, arguments.gib)
    with standing_before("websockets") as stand:
        asyncio.run(echoed(stand))
    print("All is well")


if __name__ == "__main__":
    main()
