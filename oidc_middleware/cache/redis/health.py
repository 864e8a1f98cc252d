"""How servers fare, and what is dangerous about them."""

from __future__ import annotations

from collections.abc import Sequence

from oidc_middleware.cache.redis.link import Link
from oidc_middleware.cache.redis.wire import command, eviction_policy
from oidc_middleware.errors import BackendUnavailable

_EVICTS = "maxmemory-policy is {}, so that it may drop sessions and revocations for want of room: set it to noeviction"


async def danger_of(link: Link) -> str:
    """Return when a server answers: what is dangerous about it, empty if nothing is, or nobody may look.

    Raises:
        BackendUnavailable: it does not answer.
    """
    reply, memory = await link.ask(command(b"PING"), command(b"INFO", b"memory"))
    if isinstance(reply, BackendUnavailable):
        raise reply
    policy = eviction_policy(memory) if isinstance(memory, bytes) else None
    return "" if policy in {None, "noeviction"} else _EVICTS.format(policy)


def summary(names: Sequence[str], details: Sequence[str | BaseException]) -> str:
    """Return what is said of several servers, each with its name if it has one.

    Raises:
        BackendUnavailable: some of them failed; it names them.
    """
    failures: list[tuple[str, BackendUnavailable]] = []
    dangers: list[str] = []
    for name, detail in zip(names, details, strict=True):
        before = f"{name}: " if name else ""
        if isinstance(detail, BackendUnavailable):
            failures.append((before + detail.detail, detail))
        elif isinstance(detail, BaseException):
            raise detail
        elif detail:
            dangers.append(before + detail)
    if failures:
        raise BackendUnavailable("; ".join(text for text, _ in failures), failures[0][1].kind)
    return "; ".join(dangers)
