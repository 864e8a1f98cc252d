"""Another process of a service, with a host of its own, that revokes as fast as it can until it is killed."""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio.subprocess import PIPE
from itertools import count

from oidc_middleware import OIDC

SECRET = "s" * 32
TASKS = 8


class RevokingPeer:
    """The process. `acknowledged` are the names of the tokens that it was told are revoked, with the receipts."""

    def __init__(self, issuer: str, cache: str, journal: str, first: int) -> None:
        self.acknowledged: dict[str, str] = {}
        self._arguments = issuer, cache, journal, str(first)

    async def run_until(self, enough: int) -> None:
        """Let it revoke so many and some more, and kill it in the midst of that."""
        process = await asyncio.create_subprocess_exec(sys.executable, __file__, *self._arguments, stdout=PIPE)
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                self._note(line)
                if len(self.acknowledged) >= enough:
                    break
            assert len(self.acknowledged) >= enough, "it ended by itself"
        finally:
            process.kill()
            for line in (await process.stdout.read()).splitlines(keepends=True):
                self._note(line)
            await process.wait()

    def _note(self, line: bytes) -> None:
        if line.endswith(b"\n"):  # what it could not finish was not heard by anybody
            jti, receipt = line.decode().split()
            self.acknowledged[jti] = receipt


async def main(issuer: str, cache: str, journal: str, first: str) -> None:
    """Revoke without end, from several tasks, and print each name as soon as it is acknowledged."""
    numbers = count(int(first))

    async def revoke(oidc: OIDC) -> None:
        for number in numbers:
            receipt = await oidc.revoke.token(issuer=issuer, jti=f"{number}", expires_at=time.time() + 3600)
            sys.stdout.write(f"{number} {receipt}\n")
            sys.stdout.flush()

    async with OIDC(issuer=issuer, audience="api", cache=cache, secret=SECRET, journal=journal) as oidc:
        await asyncio.gather(*(revoke(oidc) for _ in range(TASKS)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
