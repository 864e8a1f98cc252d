"""A node in a process of its own: it tells when it enforces what others revoke, or revokes at a steady rate itself.

`python revocation_node.py CACHE SECRET listen` prints a digest and the monotonic time for each revocation as it begins
to hold; `… flow RATE SECONDS` prints how many were revoked and how many of them are shared. Ends with its input.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from time import perf_counter

from oidc_middleware import OIDC
from oidc_middleware.core.ledger.records import Record
from oidc_middleware.testing import FakeIssuer

_TOGETHER = 20


def node(cache: str, secret: str) -> OIDC:
    """Return a node; all of them have the same issuer."""
    issuer = FakeIssuer()
    return OIDC(
        issuer=issuer.url,
        audience=issuer.audience,
        cache=cache,
        secret=secret,
        transport=issuer.transport(),
        journal=None,
    )


async def fresh(oidc: OIDC) -> None:
    """Return when it knows all that is revoked."""
    while not (facts := oidc.stats()["revocations"])["loaded"] or facts["stale"]:  # noqa: ASYNC110  nobody tells
        await asyncio.sleep(0.001)


async def listen(oidc: OIDC) -> None:
    """Tell of each revocation when it holds."""

    def tell(records: Sequence[Record]) -> None:
        now = perf_counter()
        for record in records:
            print(record.digest, now)
        sys.stdout.flush()

    oidc._keeper.mirror.listeners.append(tell)  # noqa: SLF001  nobody else has to know
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def flow(oidc: OIDC, rate: float, seconds: float) -> None:
    """Revoke so many tokens a second, some at once, and tell what became of them."""
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    begin = perf_counter()
    receipts: Counter[str] = Counter()
    while (late := perf_counter() - begin) < seconds:
        due = int(late * rate) - receipts.total()
        if due < _TOGETHER:
            await asyncio.sleep(_TOGETHER / rate / 2)
            continue
        names = (f"{id(oidc)} {begin} {receipts.total()} {number}" for number in range(due))
        receipts.update(await asyncio.gather(*(oidc.revoke.token(jti=name) for name in names)))
    staleness = oidc.stats()["revocations"]["staleness"]
    print(receipts.total(), receipts["shared"], perf_counter() - begin, staleness, flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def main(cache: str, secret: str, role: str, *numbers: str) -> None:
    """Be the node that the command line asks for."""
    async with node(cache, secret) as oidc:
        await fresh(oidc)
        if role == "listen":
            await listen(oidc)
        else:
            await flow(oidc, *map(float, numbers))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
