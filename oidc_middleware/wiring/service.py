"""From settings to a running service: the one place where the object graph is built."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, Unpack

from oidc_middleware.auth.authenticator import Authenticator
from oidc_middleware.auth.generation import Generation
from oidc_middleware.auth.issuers import Issuers
from oidc_middleware.auth.known import KnownTokens
from oidc_middleware.auth.revocation.mirror import Mirror
from oidc_middleware.auth.revocation.revocations import Revocations
from oidc_middleware.auth.revocation.revoke import Revoke
from oidc_middleware.auth.shared import SharedTokens, codec
from oidc_middleware.cache import Caches
from oidc_middleware.clock import Clock, SystemClock
from oidc_middleware.errors import ConfigError
from oidc_middleware.provider import Provider
from oidc_middleware.session.backchannel import BackchannelLogout
from oidc_middleware.session.login import LoginFlows, LoginIssuer
from oidc_middleware.session.logout import Logout
from oidc_middleware.session.sessions import Sessions
from oidc_middleware.session.sids import Sids
from oidc_middleware.settings import Settings
from oidc_middleware.settings.keywords import SettingsKeywords
from oidc_middleware.wiring.introspecting import CODEC
from oidc_middleware.wiring.issuers import ServiceIssuers
from oidc_middleware.wiring.logging_out import open_backchannel, open_logout
from oidc_middleware.wiring.logins import open_login_issuers, open_logins
from oidc_middleware.wiring.revoking import Revoking, warn_of_several_workers
from oidc_middleware.wiring.sessions import open_sessions
from oidc_middleware.wiring.store import open_backend

SCOPE_KEY = "oidc_middleware"


class OIDC:
    """The running service: issuers, caches and the authenticator of one configuration.

    Give it `Settings`, or the same keywords. `transport` is an `httpx2.AsyncBaseTransport` that replaces the network
    (an issuer in this process), `clock` replaces the machine's clock; both are for tests.

    `async with OIDC(...)`, or `start` and `stop`, which are counted, so that several middlewares may share one. It may
    be used without either: then it starts with the first request.

    Raises:
        ConfigError: at once, when a setting cannot work.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        transport: Any = None,
        clock: Clock | None = None,
        **keywords: Unpack[SettingsKeywords],
    ) -> None:
        if settings is not None and keywords:
            raise ConfigError(next(iter(keywords)), "given beside settings=", "Put it into Settings(...)")
        self.settings: Settings = Settings(**keywords) if settings is None else _checked(settings)
        self.clock: Clock = clock if clock is not None else SystemClock()
        self._random = random.Random()  # noqa: S311  spreads refreshes over time, guards nothing
        self._generation = Generation()
        backend = open_backend(self.settings, self.clock)
        self.caches: Caches = Caches(self.clock, backend, {"token": codec(self._generation), "introspection": CODEC})
        self._issuers = ServiceIssuers(
            self.settings,
            self.caches,
            self.clock,
            self._random,
            on_keys_removed=self._generation.withdraw_keys,
            transport=transport,
        )
        self.providers: Mapping[str, Provider] = self._issuers.providers
        """The metadata and keys of each issuer that the settings name."""
        self.issuers: Issuers = self._issuers.trusted
        """What the tokens of each issuer that the settings name must show, and where its keys come from."""
        revoking = Revoking(
            self.settings,
            self.clock,
            self._generation,
            self._random.random,
            self._start_if_needed,
            issuers=self.issuers,
        )
        self._keeper = revoking.keeper
        self.mirror: Mirror = revoking.keeper.mirror
        """The ledger of revocations, and who is told of its changes."""
        self.authenticator: Authenticator = Authenticator(
            self.issuers,
            KnownTokens(self.caches.token, self._generation, revoking.standing, self.clock),
            SharedTokens(self.caches.token, self.settings.share_tokens),
            revoking.standing,
            self.clock,
        )
        self.revoke: Revoke = Revoke(revoking.keeper, revoking.names, self.authenticator)
        """Revokes tokens, sessions, subjects and clients."""
        self.revocations: Revocations = Revocations(revoking.keeper, revoking.names, self.authenticator, self.clock)
        """Tells what is revoked."""
        self.sids: Sids = Sids(self.caches.general)
        """Whose the sessions at issuers are that users have logged in with."""
        self.backchannel_logout: BackchannelLogout = open_backchannel(
            self.settings, self.issuers, revoking, caches=self.caches, sids=self.sids, clock=self.clock
        )
        """Takes the logout tokens of issuers."""
        self.login_issuers: Mapping[str, LoginIssuer] = open_login_issuers(self.settings, self.providers, self.clock)
        """The issuers where browsers log in, with our client there; none without `login`."""
        self.login: LoginFlows | None = open_logins(self.settings, self.login_issuers, self.caches, self.clock)
        """Logs browsers in; None without `login`."""
        self.sessions: Sessions | None = open_sessions(
            self.settings,
            self.login_issuers,
            self.issuers,
            self.caches,
            standing=revoking.standing,
            generation=self._generation,
            revoke=self.revoke,
            sids=self.sids,
            clock=self.clock,
        )
        """The sessions of browsers; None without `login`."""
        self.logout: Logout | None = open_logout(self.settings, self.sessions, self.login_issuers, self.clock)
        """Signs users out; None without `login`."""
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def from_scope(cls, scope: Mapping[str, Any]) -> OIDC:
        """Return the service that let this ASGI scope in.

        Raises:
            LookupError: no `OIDCMiddleware` stands in front of the app.
        """
        try:
            oidc = scope[SCOPE_KEY]
        except KeyError:
            raise LookupError("no OIDCMiddleware stands in front of this app") from None
        assert isinstance(oidc, cls)  # noqa: S101  whoever else writes under our name is wrong
        return oidc

    @classmethod
    def from_request(cls, conn: Any) -> OIDC:
        """Return the service that let this Starlette request or WebSocket in.

        Raises:
            LookupError: no `OIDCMiddleware` stands in front of the app.
        """
        return cls.from_scope(conn.scope)

    @property
    def started(self) -> bool:
        """Whether it runs on the event loop of the caller."""
        return self._users > 0 and self._loop is asyncio.get_running_loop()

    @property
    def ready(self) -> bool:
        """Whether every issuer's keys are in memory, and the ledger of revocations was loaded once."""
        return self._keeper.is_loaded and self._issuers.ready

    async def start(self) -> None:
        """Begin to load and to refresh metadata and keys in the background. Needs no issuer to be reachable.

        Raises:
            RuntimeError: it runs on another event loop that is running now.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._rebind(loop)
        self._users += 1
        if self._users == 1:
            warn_of_several_workers(self.settings)
            self._random.seed()  # processes forked from the one that built this must not refresh in step
            self._begin()

    def _begin(self) -> None:
        self.caches.start()
        self._keeper.start()
        self._issuers.start()

    async def _start_if_needed(self) -> None:
        if not self.started:
            await self.start()

    def _rebind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Leave the loop that is over. What is in memory stays; tasks died with their loop."""
        if self._loop is not None and self._loop.is_running():
            raise RuntimeError("this OIDC runs on another event loop; build one OIDC for each loop")
        self._loop = loop
        self._users = 0

    async def stop(self) -> None:
        """Give back one `start`; the last one ends the background tasks, also if it is cancelled meanwhile.

        One too many does nothing.
        """
        if self._users == 0 or self._loop is not asyncio.get_running_loop():
            return
        self._users -= 1
        if self._users == 0:
            await asyncio.shield(self._end())

    async def _end(self) -> None:
        if self.sessions is not None:
            await self.sessions.stop()
        await self._issuers.stop()
        await self._keeper.stop()
        await self.caches.suspend()
        if self._users > 0:  # started again meanwhile; what that start began may have been ended with the rest
            self._begin()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def stats(self) -> dict[str, Any]:
        """Return counters of the caches and the issuers, as plain JSON types."""
        return {
            "ready": self.ready,
            "revocations": self._keeper.stats(),
            "caches": self.caches.stats(),
            "shared_cache": self.caches.shared_stats(),
            **({"sessions": self.sessions.stats()} if self.sessions is not None else {}),
            **self._issuers.stats(),
        }


def _checked(settings: object) -> Settings:
    if not isinstance(settings, Settings):
        cure = "Pass Settings(...), or its fields as keywords"
        raise ConfigError("settings", f"is of type {type(settings).__name__}", cure)
    return settings
