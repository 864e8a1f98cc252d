"""The ledger of revocations of one service, with all that keeps it current."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Awaitable, Callable

from oidc_middleware.auth.generation import Generation
from oidc_middleware.auth.issuers import Issuers
from oidc_middleware.auth.revocation.keeper import Keeper
from oidc_middleware.auth.revocation.names import Names
from oidc_middleware.auth.revocation.standing import Standing
from oidc_middleware.clock import Clock
from oidc_middleware.core.ledger.ledger import Ledger
from oidc_middleware.settings import Settings
from oidc_middleware.settings.cache import MEMORY
from oidc_middleware.wiring.store import ledger_keys, open_journal, open_ledger

_log = logging.getLogger("oidc_middleware.revocation")


class Revoking:
    """What revokes and what refuses, over one ledger; `begin` starts the service where nobody has."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        generation: Generation,
        random: Callable[[], float],
        begin: Callable[[], Awaitable[None]],
        *,
        issuers: Issuers,
    ) -> None:
        keys = ledger_keys(settings)
        ledger = Ledger(keys, leeway=settings.leeway)
        self.standing: Standing = Standing(ledger, settings.on_stale)
        self.keeper: Keeper = Keeper(
            ledger,
            generation,
            self.standing,
            open_ledger(settings, clock),
            open_journal(settings, clock),
            clock=clock,
            random=random,
            max_staleness=settings.max_staleness,
            begin=begin,
        )
        self.names: Names = Names(
            keys,
            issuers.fixed,
            leeway=settings.leeway,
            longest_life=max(settings.max_token_life, settings.session_absolute if settings.login else 0.0),
            clock=clock,
            may_know=None if issuers.are_fixed else issuers.may_know,
        )


def warn_of_several_workers(settings: Settings) -> None:
    """Warn where revocations stay in one process and others seem to serve the same app."""
    if settings.cache != MEMORY:
        return
    workers = os.environ.get("WEB_CONCURRENCY", "")
    if (workers.isdigit() and int(workers) > 1) or multiprocessing.parent_process() is not None:
        _log.warning(
            "cache: memory:// belongs to one process, and there seem to be several workers: what is revoked in one is "
            "accepted by the others. Use sqlite:///path (workers of one host) or Redis."
        )
