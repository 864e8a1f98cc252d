"""The ledger of revocations, read as a node does that starts, by a command that does not become one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from oidc_middleware.cache.ledger import Noted
from oidc_middleware.errors import BackendUnavailable
from oidc_middleware.settings.journal import journal_path
from oidc_middleware.wiring import OIDC
from oidc_middleware.wiring.store import open_journal, open_ledger


class Journal(NamedTuple):
    """What a journal holds, and why it cannot be read or written; `is_there` is False where nobody made it yet."""

    path: str
    is_there: bool
    noted: Sequence[Noted] = ()
    problem: str | None = None


async def read_store(oidc: OIDC) -> bool:
    """Merge all that the shared store has into the ledger of `oidc`; False where nothing is shared.

    Raises:
        BackendUnavailable: it does not answer, or would take no write.
    """
    store = open_ledger(oidc.settings, oidc.clock)
    if store is None:
        return False
    cursor = None
    try:
        await store.look()
        while cursor != b"":
            page = await store.scan(cursor or b"")
            oidc.mirror.merge(page.records)
            cursor = page.cursor
    finally:
        await store.aclose()
    return True


async def read_journal(oidc: OIDC) -> Journal | None:
    """Merge all that the journal of this host has into the ledger of `oidc`; None where settings ask for none.

    It is not made where it is not there: it would belong to whoever runs the command.
    """
    path = _path(oidc)
    journal = open_journal(oidc.settings, oidc.clock)
    if path is None or journal is None:
        return None
    if not path.exists():
        return Journal(str(path), is_there=False)
    try:
        noted = await journal.load()
    except BackendUnavailable as error:
        return Journal(str(path), is_there=True, problem=journal.problem or error.detail)
    finally:
        await journal.aclose()
    oidc.mirror.merge([each.record for each in noted])
    return Journal(str(path), is_there=True, noted=noted, problem=journal.problem)


def _path(oidc: OIDC) -> Path | None:
    settings = oidc.settings
    path = journal_path(settings.journal, settings.cache, settings.namespace)
    return None if path is None else Path(path)
