"""Finding the primary that sentinels know by a name.

Source: Redis documentation, "Guidelines for Redis clients with support for Redis Sentinel".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import shuffle
from typing import Any

from oidc_middleware.cache.redis.link import Connect, Link, Reply, abort, ask_once, exchange
from oidc_middleware.cache.redis.seeds import first_answer
from oidc_middleware.cache.redis.urls import Address
from oidc_middleware.cache.redis.wire import command
from oidc_middleware.errors import BackendUnavailable

_ROLE = command(b"ROLE")


class Sentinels:
    """A `Connect` to the primary `service`, whichever server that is at the moment; it is never a replica.

    The sentinel that was right the last time is asked first, the others in any order. What one names and what is no
    primary, or does not answer, is not used: a sentinel may be late. `connect_to` makes the `Connect` of a server, and
    `connect_to_sentinel` that of a sentinel. After `head_start` seconds without an answer the next one is asked too.
    """

    def __init__(
        self,
        service: str,
        sentinels: Sequence[Address],
        connect_to: Callable[[Address], Connect],
        connect_to_sentinel: Callable[[Address], Connect],
        head_start: float,
    ) -> None:
        self._service = service
        self._question = command(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service.encode())
        self._sentinels = list(sentinels)
        self._connect_to = connect_to
        self._connect_to_sentinel = connect_to_sentinel
        self._head_start = head_start
        self._trusted: Address | None = None

    async def __call__(self) -> Any:
        """Return an open connection to the primary.

        Raises:
            BackendUnavailable: no sentinel names one that can be reached; it says why the first that was named cannot.
        """
        trusted, self._trusted = self._trusted, None
        shuffle(self._sentinels)
        order = sorted(self._sentinels, key=lambda sentinel: sentinel != trusted)
        failures: dict[Address, BackendUnavailable] = {}
        while order:
            sentinel, primary = await self._first_answer(order, failures)
            order.remove(sentinel)
            if primary in failures:
                continue
            try:
                connection = await self._connect_to_primary(primary)
            except BackendUnavailable as error:
                failures[primary] = error
            else:
                self._trusted = sentinel
                return connection
        raise next(iter(failures.values()))

    async def _first_answer(
        self, order: Sequence[Address], failures: Mapping[Address, BackendUnavailable]
    ) -> tuple[Address, Address]:
        """Return which sentinel answered, and the primary that it named; where none is left, what was wrong before."""
        try:
            return await first_answer([partial(self._ask, sentinel) for sentinel in order], self._head_start)
        except BackendUnavailable as error:
            raise next(iter(failures.values()), error) from None

    async def _ask(self, sentinel: Address) -> tuple[Address, Address]:
        (reply,) = await ask_once(self._connect_to_sentinel(sentinel), self._question)
        if isinstance(reply, BackendUnavailable):
            raise reply
        if reply is None:
            raise BackendUnavailable(f"the sentinel {sentinel} knows no {self._service!r}", "link")
        host, port = reply
        return sentinel, Address(host.decode(), int(port))

    async def _connect_to_primary(self, address: Address) -> Any:
        connection = await self._connect_to(address)()
        try:
            (role,) = await exchange(connection, (_ROLE,), 1)
            _check_role(role, str(address))
        except BaseException:
            abort(connection)
            raise
        return connection


async def check_primary(link: Link) -> None:
    """Check that a connection still leads to a primary.

    Raises:
        BackendUnavailable: it leads to a replica (`readonly`), or nobody answers.
    """
    (role,) = await link.ask(_ROLE)
    _check_role(role, "what was the primary")


def _check_role(role: Reply, what: str) -> None:
    if isinstance(role, BackendUnavailable):
        raise role
    if role[0] != b"master":
        raise BackendUnavailable(f"{what} is a replica", "readonly")
