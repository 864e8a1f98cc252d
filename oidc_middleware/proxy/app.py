"""The ASGI app in whose place another app stands, behind HTTP."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from functools import partial

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from oidc_middleware.asgi.refusal import Refusal, refusal_of, settings_of
from oidc_middleware.core.identity_headers import folded
from oidc_middleware.core.known import Known
from oidc_middleware.errors import ConfigError, OIDCError, TokenError
from oidc_middleware.proxy.cookies import OwnCookies
from oidc_middleware.proxy.fields import may_hold_a_claim
from oidc_middleware.proxy.outgoing import Rewriting, identity_of, outgoing
from oidc_middleware.proxy.pool import Pool
from oidc_middleware.proxy.relay import Relay
from oidc_middleware.proxy.socket import Socket
from oidc_middleware.proxy.upstream import Upstream
from oidc_middleware.settings import Settings, checks
from oidc_middleware.settings.problem import Problem
from oidc_middleware.wiring import SCOPE_KEY

_COOKIE_NAME: str = Settings.model_fields["cookie_name"].default
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_METHODS_REFUSED = frozenset({"TRACE", "CONNECT"})
"""TRACE would show a client what we send besides what it sent; CONNECT names another host."""


class ReverseProxy:
    """Pass every request on to the app at `upstream`, and say who sends it: put it behind `OIDCMiddleware`.

    `upstream` is its address, such as `http://127.0.0.1:9000` or `https://app.internal/base`; nothing in a request
    changes it. Times are in seconds: `connect_timeout` is for a new connection, `read_timeout` how long the app may be
    silent, before its answer or in the middle of it, or read nothing of a request (event streams and WebSockets may be
    silent for longer). After the first there is a 504, when the app cannot be reached or breaks the protocol a 502, and
    in the middle of a response the client's connection is cut. `keep` connections wait for the next request, for
    `keep_seconds` each. `ca_file` holds the certificates (PEM) of the only authorities that are trusted for an https
    upstream; None: the system's. `websocket_max_size` is the longest message of the app in bytes.

    What the app gets besides the request: the identity headers (see `core.identity_values`), and those of
    `claim_headers`, names of headers with the claim for each; they take the place of ours of the same name.
    `pass_access_token` adds the access token; None: as the settings of the middleware say. `pass_authorization` passes
    the client's `Authorization` on, `pass_host` its `Host`.

    Raises:
        ConfigError: one of these cannot work.
    """

    def __init__(
        self,
        upstream: str,
        *,
        connect_timeout: float = 5.0,
        read_timeout: float = 60.0,
        keep: int = 64,
        keep_seconds: float = 30.0,
        ca_file: str | None = None,
        websocket_max_size: int = 1 << 24,
        claim_headers: Mapping[str, str] | None = None,
        pass_access_token: bool | None = None,
        pass_authorization: bool = False,
        pass_host: bool = False,
    ) -> None:
        self.upstream: Upstream = Upstream.parse(upstream)
        for name, value in (("connect_timeout", connect_timeout), ("read_timeout", read_timeout)):
            if not value > 0:
                raise ConfigError(name, f"is {value!r}", "Choose a number of seconds above 0.")
        if ca_file is not None and not self.upstream.secure:
            raise ConfigError("ca_file", "is for an https upstream, and this one is http", "Leave it out.")
        self._read_timeout = read_timeout
        self._websocket_max_size = websocket_max_size
        self._pass_access_token = pass_access_token
        self._pass_host = pass_host
        self._claim_headers = _claim_headers(claim_headers or {})
        self._ends_here = frozenset(folded(name) for name, _ in self._claim_headers)
        if not pass_authorization:
            self._ends_here |= {b"authorization"}
        self._open_pool = partial(
            Pool,
            self.upstream,
            _tls(ca_file) if self.upstream.secure else None,
            connect_timeout=connect_timeout,
            most_kept=keep,
            kept_seconds=keep_seconds,
        )
        self._pool: Pool | None = None
        self._settings: Settings | None = None
        self._rewriting = self._rewriting_for(None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        try:
            if scope["type"] == "websocket":
                await self._serve_websocket(scope, receive, send)
            elif scope["method"] in _METHODS_REFUSED:
                await Response(status_code=405, headers={"Allow": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"})(
                    scope, receive, send
                )
            else:
                await self._serve_http(scope, receive, send)
        except OIDCError as error:
            refusal = refusal_of(scope) if SCOPE_KEY in scope else Refusal()
            await refusal.answer(scope, receive, send, error)

    async def aclose(self) -> None:
        """End the connections that wait. The end of the ASGI lifespan does it too."""
        pool, self._pool = self._pool, None
        if pool is not None and pool.loop is asyncio.get_running_loop():
            pool.close()

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        rewriting = self._rewriting_of(scope)
        headers = rewriting.headers(scope, await _access_token(scope, rewriting))
        request = outgoing(scope, self._target(scope), headers)
        rewrite = partial(rewriting.response_headers, is_known=isinstance(scope.get("auth"), Known))
        await Relay(self._open(), request, rewrite, receive, send, read_timeout=self._read_timeout).run()

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        rewriting = self._rewriting_of(scope)
        headers = rewriting.headers(scope, await _access_token(scope, rewriting))
        rewrite = partial(rewriting.response_headers, is_known=False)
        socket = Socket(
            scope, rewrite, receive, send, read_timeout=self._read_timeout, max_size=self._websocket_max_size
        )
        await socket.run(self._open(), self.upstream, self._target(scope), headers)

    def _target(self, scope: Scope) -> bytes:
        return self.upstream.target(
            scope["path"], scope.get("raw_path"), scope.get("root_path", ""), scope.get("query_string", b"")
        )

    def _open(self) -> Pool:
        """Return the connections of this event loop: those of another one cannot be used."""
        pool = self._pool
        if pool is None or pool.loop is not asyncio.get_running_loop():
            pool = self._pool = self._open_pool()
        return pool

    def _rewriting_of(self, scope: Scope) -> Rewriting:
        """Return what the settings of the door say, which are the same for all requests but with several doors."""
        settings = settings_of(scope) if SCOPE_KEY in scope else None
        if settings is not self._settings:
            self._settings, self._rewriting = settings, self._rewriting_for(settings)
        return self._rewriting

    def _rewriting_for(self, settings: Settings | None) -> Rewriting:
        return Rewriting(
            upstream=self.upstream,
            trusted=settings.trusted_proxies if settings is not None else (),
            cookies=OwnCookies(settings.cookie_name if settings is not None else _COOKIE_NAME),
            base_url=settings.base_url if settings is not None else None,
            pass_access_token=self._passes_access_token(settings),
            pass_host=self._pass_host,
            identity=identity_of(self._claim_headers),
            ends_here=self._ends_here,
        )

    def _passes_access_token(self, settings: Settings | None) -> bool:
        if self._pass_access_token is not None:
            return self._pass_access_token
        return settings is not None and settings.pass_access_token

    async def _live(self, receive: Receive, send: Send) -> None:
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await self.aclose()
        await send({"type": "lifespan.shutdown.complete"})


async def _access_token(scope: Scope, rewriting: Rewriting) -> str | None:
    """Return the access token for the app, None where it is not to get one.

    Raises:
        OIDCError: nobody can say which it is now.
    """
    known = scope.get("auth")
    if not rewriting.pass_access_token or not isinstance(known, Known):
        return None
    try:
        return await known.access_token()
    except TokenError:  # it is over, and the session is not
        return None


def _claim_headers(given: Mapping[str, str]) -> tuple[tuple[bytes, str], ...]:
    seen: set[bytes] = set()
    for name, claim in given.items():
        if not _HEADER.fullmatch(name) or not may_hold_a_claim(name.encode()) or not claim:
            problem = f"{name!r} is no header that can hold a claim"
            raise ConfigError("claim_headers", problem, 'Write {"X-Name": "name"}.')
        if folded(name.encode()) in seen:
            problem = f"{name!r} is another header in the list to some readers"
            raise ConfigError("claim_headers", problem, "Leave one of them out.")
        seen.add(folded(name.encode()))
    return tuple((name.lower().encode(), claim) for name, claim in given.items())


def _tls(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else checks.ca_file(ca_file))
    except Problem as problem:
        raise problem.of("ca_file") from None
