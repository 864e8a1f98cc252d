"""Another process that loads a key of a shared cache, and may be frozen or killed meanwhile.

As a script it gets a URL, a lock's life and a value. It says `loading` when it is its turn, loads until it is sent a
line, and says what it got.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from typing import Self

from oidc_middleware.cache import (
    RAW,
    TYPES,
    HybridBackend,
    Loading,
    LoadingCache,
    MemoryBackend,
    RedisBackend,
    TypedCache,
    kept,
)
from oidc_middleware.clock import SystemClock

KEY = b"the key that all load"


class LoadPeer:
    """The process, from the moment when it loads."""

    def __init__(self, url: str, lock_life: float, value: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, url, str(lock_life), value],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Self:
        assert self.says() == "loading"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def says(self) -> str:
        """Wait for the next line."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def finish(self) -> str:
        """Let the load end; return what the process got."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        return self.says()

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main(url: str, lock_life: float, value: bytes) -> None:
    clock = SystemClock()
    backend = HybridBackend(MemoryBackend(clock), RedisBackend(url, clock=clock, budget=5), clock=clock, budget=5)
    cache = LoadingCache(
        TypedCache(TYPES["general"], backend, kept(RAW)), clock, Loading(lock=True, lock_life=lock_life)
    )

    async def load() -> bytes:
        say("loading")
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        return value

    got = await cache.get_or_load(KEY, load)
    say((got or b"").decode())
    await cache.aclose()
    await backend.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), sys.argv[3].encode()))
