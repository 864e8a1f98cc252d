"""The door: every request goes through here, and those of known tokens without an await that suspends."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, Unpack

from starlette.authentication import AuthCredentials, UnauthenticatedUser
from starlette.types import ASGIApp, Receive, Scope, Send

from oidc_middleware.asgi.credentials import Credentials
from oidc_middleware.asgi.endpoints import ENDPOINTS
from oidc_middleware.asgi.endpoints.administrators import check_administrator
from oidc_middleware.asgi.exchange import PATHSEND, Exchange, PrivateExchange, without_pathsend
from oidc_middleware.asgi.lifespan import pass_lifespan, refuse_lifespan
from oidc_middleware.asgi.mount import AUDIENCES_KEY, audience_of_mount, check_audience, settings_of_mount
from oidc_middleware.asgi.refusal import SCOPES_KEY, SETTINGS_KEY, SIGN_IN_KEY, Refusal, ask_for
from oidc_middleware.asgi.sign_in import SignIn
from oidc_middleware.asgi.staleness import telling
from oidc_middleware.asgi.streams import LiveConnections
from oidc_middleware.core import bearer
from oidc_middleware.core.cross_origin import SAFE
from oidc_middleware.core.identity_headers import IDENTITY_HEADERS, removed
from oidc_middleware.core.known import Known
from oidc_middleware.core.memo import DecisionMemo
from oidc_middleware.core.policy import Access, Decision, is_preflight, permit
from oidc_middleware.errors import (
    BackendUnavailable,
    ConfigError,
    InvalidRequest,
    MissingToken,
    OIDCError,
    ProviderError,
    Revoked,
    SessionEnded,
)
from oidc_middleware.session.known import KnownSession
from oidc_middleware.settings import Settings
from oidc_middleware.settings.keywords import SettingsKeywords
from oidc_middleware.wiring import OIDC, SCOPE_KEY

_IDENTITY = Access.IDENTITY
_NOT_DECIDED = Decision(Access.REFUSED, (), None, "")
# A request sent in chunks may have trailers, and uvicorn with httptools adds them to the list of headers: while the app
# reads the body, after we have looked. So such a request gets a list of its own.
_WATCHED = IDENTITY_HEADERS | {b"authorization", b"transfer-encoding"}
_WATCHED_WITH_COOKIES = _WATCHED | {b"cookie"}


class OIDCMiddleware:
    """Let in only requests with a valid identity; the identity is `request.user` then.

    Give it the keywords of `Settings`, or `settings=`, or a running service as `oidc=`. Beside `oidc=` it may have a
    policy of its own, for a mounted app: `public`, `optional`, `rules`, `ambiguous_paths`, `preflight`,
    `websocket_token`, `realm`, `on_error`, `resource` and what describes it replace the service's, and `audience` lets
    in tokens for these only. Paths are those that the mounted app sees; with any of its own, no path is open that is
    not in its own lists.

    It never raises here, for Starlette builds middleware where servers swallow the cause: a `ConfigError` fails the
    lifespan's start-up with its text, and without lifespan answers every request with 500.
    """

    def __init__(
        self,
        app: ASGIApp,
        /,
        settings: Settings | None = None,
        *,
        oidc: OIDC | None = None,
        **keywords: Unpack[SettingsKeywords],
    ) -> None:
        self.app = app
        self._config_error: ConfigError | None = None
        self._find_session: Callable[[bytes], KnownSession | None] | None = None
        try:
            self.oidc: OIDC = _service(settings, oidc, keywords)
            settings = self.oidc.settings if oidc is None else settings_of_mount(oidc, keywords)
            self._audiences = None if oidc is None else audience_of_mount(oidc, keywords)
        except ConfigError as error:
            self._config_error = error
            self._decisions = DecisionMemo(self._refuse_everything)
            self._refusal = Refusal()
            return
        self._settings = settings
        self._differs = settings is not self.oidc.settings
        self._decisions = DecisionMemo(settings.policy.decide)
        ledger, clock = self.oidc.mirror.ledger, self.oidc.clock
        self.live: LiveConnections = LiveConnections(
            ledger, self._refuse_revoked, clock, close_on_expiry=settings.close_on_expiry
        )
        """What is open for identities now."""
        self._waiting, self._goes_on = self.live.waiting, self.live.goes_on
        self.oidc.mirror.listeners.append(self.live.on_revoked)
        self._lookup = self.oidc.authenticator.lookup
        self._refusal = Refusal(settings)
        self._passes_preflight = settings.preflight == "pass"
        self._tells_staleness = settings.staleness_header
        self._credentials = Credentials(self.oidc, settings)
        self._sign_in = SignIn(self.oidc, settings)
        self._watched = _WATCHED
        if self.oidc.sessions is not None:
            self._find_session = self.oidc.sessions.lookup
            self._watched = _WATCHED_WITH_COOKIES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: C901, PLR0912, PLR0915  the hot path, in a row
        """Serve one ASGI scope."""
        kind = scope["type"]
        if kind == "http":
            method = scope["method"]
        elif kind == "websocket":
            method = "GET"
        else:
            await self._serve_other(scope, receive, send)
            return
        decision, outer = _NOT_DECIDED, None
        try:
            if SCOPE_KEY in scope:
                outer = self._let_in_before(scope)
            try:
                asked = (method, scope["path"], scope["raw_path"], scope["root_path"])
            except KeyError:  # ASGI lets servers leave out two of them
                asked = (method, scope["path"], scope.get("raw_path"), scope.get("root_path", ""))
            decision = self._decisions[asked]
            if decision.access is _IDENTITY:
                watched, value, cookie = self._watched, None, None
                for name, content in scope["headers"]:
                    if name in watched:
                        if name == b"authorization" and value is None:
                            value = content
                        elif name == b"cookie" and cookie is None:
                            cookie = content
                        else:
                            value, cookie = _authorization(scope), None
                            break
                known = None
                if value is not None:
                    if query := scope.get("query_string"):
                        bearer.check_query(query)
                    if kind == "http":
                        known = self._lookup(value)
                elif cookie is not None and kind == "http" and method in SAFE and self._find_session is not None:
                    known = self._find_session(cookie)
                if known is None:
                    known = await self._identify(scope, decision, value, outer)
            else:
                try:
                    known = await self._identify_where_not_needed(scope, decision, outer)
                except SessionEnded:
                    known, send = None, self._sign_in.forgetting(scope, send)
            if known is not None:
                if self._audiences is not None:
                    check_audience(known.principal, self._audiences, self.oidc)
                if decision.rules:
                    permit(decision, known.principal)
                    if decision.endpoint is not None:
                        check_administrator(known.principal, self.oidc, decision.scopes)
        except OIDCError as error:
            await self._refuse(scope, receive, send, error, decision)
            return
        scope[SCOPE_KEY] = self.oidc
        if self._differs:
            scope[SETTINGS_KEY] = self._settings
        if self._audiences is not None and decision.endpoint is not None:
            scope[AUDIENCES_KEY] = self._audiences
        if decision.scopes:
            ask_for(scope, decision.scopes)
        if known is not None:
            scope["user"] = known.principal
            scope["auth"] = known
            if self._tells_staleness and outer is None:
                send = telling(self.oidc.revocations, send)
        else:
            scope["user"] = UnauthenticatedUser()
            scope["auth"] = AuthCredentials()
            if decision.access is Access.OPTIONAL and self._find_session is not None:
                scope[SIGN_IN_KEY] = self._sign_in
        app = self.app if decision.endpoint is None else ENDPOINTS[decision.endpoint]
        if known is None or (outer is not None and known.value == outer.value):  # the outer door ends it if need be
            await app(scope, receive, send)
        elif kind == "websocket":
            await self.live.serve_websocket(app, known, scope, receive, send)
        else:
            if "extensions" in scope and PATHSEND in (scope["extensions"] or ()):
                scope["extensions"] = without_pathsend(scope["extensions"])
            make = Exchange if type(known) is Known else PrivateExchange
            exchange = make(known, scope, receive, send, self._goes_on)
            self._waiting.add(exchange)
            try:
                await app(scope, exchange.receive, exchange.send)
            except BaseException as error:
                if exchange.track is not None and exchange.track.absorbs(error):
                    pass
                elif not await self._answers(exchange, error, decision):
                    raise
            finally:
                if exchange.track is None:
                    self._waiting.discard(exchange)
                else:
                    await self.live.left(exchange, exchange.track)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, error: OIDCError, decision: Decision) -> None:
        """Answer who does not get in: with the way to the login where somebody goes to a page, else with the error."""
        if self._find_session is not None and decision.endpoint is None:
            try:
                response = await self._sign_in.redirect(scope, error)
            except OIDCError as failure:
                response, error = None, failure
            if response is not None:
                await response(scope, receive, send)
                return
        if isinstance(error, SessionEnded):
            send = self._sign_in.forgetting(scope, send)
        await self._refusal.answer(scope, receive, send, error, decision.scopes)

    async def _answers(self, exchange: Exchange, error: BaseException, decision: Decision) -> bool:
        """Answer what `access_token()` of a session raised in an app that let it pass; tell whether it was that."""
        if exchange.has_begun or not isinstance(error, SessionEnded | ProviderError | BackendUnavailable):
            return False
        if isinstance(error, SessionEnded):
            error = MissingToken(error.detail)  # perhaps only its token is over: a new login takes the session's place
        await self._refuse(exchange.scope, exchange.receive, exchange.send, error, decision)
        return True

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
        elif self._config_error is not None:
            await refuse_lifespan(self._config_error, receive, send)
        else:
            await pass_lifespan(self.oidc, self.app, scope, receive, send)

    def _refuse_everything(self, *_: object) -> NoReturn:
        assert self._config_error is not None  # noqa: S101  it stands in for the policy only then
        raise self._config_error.with_traceback(None)  # one object for all requests: it must not collect their frames

    def _let_in_before(self, scope: Scope) -> Known | None:
        """Return what another door of this service found out about a connection; what others left is not for ours."""
        scope.pop(SETTINGS_KEY, None)
        scope.pop(SIGN_IN_KEY, None)
        if scope[SCOPE_KEY] is not self.oidc:
            scope.pop(SCOPES_KEY, None)
            return None
        auth = scope.get("auth")
        return auth if isinstance(auth, Known) else None

    async def _identify(
        self, scope: Scope, decision: Decision, value: bytes | None, outer: Known | None
    ) -> Known | None:
        """Say who sends a request whose token was not found, or not looked up; None for a CORS preflight without one.

        Source: RFC 6750 §2 and §3.1.
        """
        # What came by HTTP to a path that needs an identity was looked up.
        is_looked_up = scope["type"] == "http" and decision.access is Access.IDENTITY
        known = await self._credentials.identify(scope, value, is_looked_up=is_looked_up, outer=outer)
        if known is None and not (self._passes_preflight and _is_preflight_to_app(scope, decision)):
            raise MissingToken("no credentials")
        return known

    async def _identify_where_not_needed(self, scope: Scope, decision: Decision, outer: Known | None) -> Known | None:
        """Say who sends a request that needs no identity: nobody, unless the path is optional and credentials came.

        Raises:
            SessionEnded: nobody, and there is a cookie of a session that is over.
        """
        await self._credentials.start()
        if decision.access is Access.REFUSED:
            raise InvalidRequest(decision.reason)
        if decision.access is Access.PUBLIC:
            scope["headers"] = removed(scope["headers"])
            return None
        value = _authorization(scope)
        if value is not None:
            bearer.check_query(scope.get("query_string", b""))
        try:
            return await self._identify(scope, decision, value, outer)
        except SessionEnded:
            raise
        except MissingToken:
            return None

    async def _refuse_revoked(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._refusal.answer(scope, receive, send, Revoked("while it was served"))


def _service(settings: Settings | None, oidc: OIDC | None, keywords: SettingsKeywords) -> OIDC:
    given: object = oidc
    if given is None:
        return OIDC(settings, **keywords)
    if settings is not None:
        raise ConfigError("oidc", "given beside settings=", "Put them into OIDC(...), or leave oidc= out")
    if not isinstance(given, OIDC):
        raise ConfigError("oidc", f"is of type {type(given).__name__}", "Pass OIDC(...)")
    return given


def _authorization(scope: Scope) -> bytes | None:
    """Return the `Authorization` header's value, having removed from the scope what only pretends an identity.

    Raises:
        InvalidRequest: there are two.
    """
    headers = scope["headers"] = removed(scope["headers"])
    return bearer.authorization(headers)


def _is_preflight_to_app(scope: Scope, decision: Decision) -> bool:
    """Tell whether this is a CORS preflight for the app: not for an endpoint of ours, not on an ambiguous path."""
    if scope["type"] != "http" or decision.endpoint is not None or decision.ambiguous:
        return False
    return is_preflight(scope["method"], scope["headers"])
