"""What is kept of a connection that takes a while."""

from __future__ import annotations

import asyncio
from typing import Any

from oidc_middleware.asgi.ending import Ending


class Track:
    """By what a connection is found and how it is ended.

    `digests` are those by which the ledger's records may mean its identity, None while it cannot be found; `goes_on`
    tells whether it is more than a request that waits, `expires` whether it ends with its token. `ending` is there once
    it is to end. `task` is the one in which its app serves it, as far as is known.
    """

    __slots__ = ("digests", "ending", "expires", "goes_on", "task")

    def __init__(self) -> None:
        self.digests: tuple[int, ...] | None = None
        self.ending: Ending | None = None
        self.goes_on: bool = False
        self.expires: bool = False
        self.task: asyncio.Task[Any] | None = None

    def absorbs(self, error: BaseException) -> bool:
        """Tell whether what came out of the app came because its connection ended, and is to go no further."""
        return self.ending is not None and self.ending.absorbs(error)
