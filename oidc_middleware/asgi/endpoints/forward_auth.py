"""Forward auth: a proxy asks about each request whether it may pass, and whose it is.

200 lets it pass, and tells who sends it; 401 and 403 are for the client. Whatever the request is judged by stands in
`core/forwarded.py`; nobody but a proxy of `trusted_proxies` is believed it.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlsplit

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from oidc_middleware.asgi.credentials import Credentials
from oidc_middleware.asgi.mount import AUDIENCES_KEY, check_audience
from oidc_middleware.asgi.refusal import Refusal, settings_of
from oidc_middleware.asgi.responses import deny_websocket
from oidc_middleware.asgi.sign_in import SignIn
from oidc_middleware.core.forwarded import Forwarded, comes_from, read
from oidc_middleware.core.identity_headers import TOLD, Headers
from oidc_middleware.core.identity_values import FAMILIES, identity_headers
from oidc_middleware.core.known import Known
from oidc_middleware.core.paths import route_path
from oidc_middleware.core.policy import Access, Decision, is_preflight, permit
from oidc_middleware.errors import InvalidRequest, MissingToken, OIDCError
from oidc_middleware.settings import Settings
from oidc_middleware.wiring import OIDC

NAME: Final = "auth"
"""The endpoint's place below `prefix`."""

_NOT_DECIDED: Final = Decision(Access.REFUSED, (), None, "")
_NO_STORE: Final = {"Cache-Control": "no-store"}
_NOTHING_TOLD: Final = dict.fromkeys((family + what.encode() for family in FAMILIES for what in TOLD), b"")
_OF_NGINX: Final = frozenset({b"x-original-uri", b"x-original-url"})


async def forward_auth(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one question, whatever its method: a proxy asks in its own or in that of the client."""
    response = await _Question(scope).answer()
    if scope["type"] == "websocket":  # Caddy passes the handshake of a WebSocket on
        await deny_websocket(response, scope, receive, send)
    else:
        await response(scope, receive, send)


class _Question:
    """Whether a request may pass: the one that `scope` asks about, which is `asked` once it is known."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.oidc = OIDC.from_scope(scope)
        self.settings = settings_of(scope)
        self.below: bytes | None = None
        self.forwarded: Forwarded | None = None
        self.asked: Scope = scope
        self.decision = _NOT_DECIDED

    async def answer(self) -> Response:
        """Return the answer to whoever asks: it passes, or what its client hears."""
        try:
            self.below = _below(self.scope, self.settings)
            self.forwarded = _forwarded(self.scope, self.settings, self.below)
            self.asked = _asked(self.scope, self.forwarded)
            self.decision = self.settings.policy.decide_forwarded(self.forwarded)
            known = await self._identify()
            passes_token = known is not None and self.settings.pass_access_token
            token = await known.access_token() if known is not None and passes_token else None
        except OIDCError as error:
            return await self._refuse(error)
        response = Response(headers=_NO_STORE)
        response.raw_headers += _identity(known, token)
        return response

    async def _identify(self) -> Known | None:
        """Say who sends the request; None where it may pass without anybody.

        Raises:
            OIDCError: it may not pass, or nobody can say.
        """
        decision = self.decision
        if decision.access is Access.REFUSED:
            raise InvalidRequest(decision.reason)
        if decision.access is Access.PUBLIC:
            return None
        is_optional = decision.access is Access.OPTIONAL
        try:
            known = await Credentials(self.oidc, self.settings).find(self.asked)
        except MissingToken:
            if is_optional:
                return None
            raise
        if known is None:
            if is_optional or self._is_preflight():
                return None
            raise MissingToken("no credentials")
        if AUDIENCES_KEY in self.scope:
            check_audience(known.principal, self.scope[AUDIENCES_KEY], self.oidc)
        permit(decision, known.principal)
        return known

    def _is_preflight(self) -> bool:
        if self.settings.preflight != "pass" or self.decision.ambiguous or self.asked["type"] != "http":
            return False
        return is_preflight(self.asked["method"] or "", self.asked["headers"])

    async def _refuse(self, error: OIDCError) -> Response:
        """Return the way to the login where that leads a person on, else the refusal."""
        is_final = _is_final(self.scope, self.below)
        forwarded = self.forwarded
        if is_final and forwarded is not None and _is_at(forwarded, self.settings.base_url):
            try:
                response = await SignIn(self.oidc, self.settings).redirect(self.asked, error, forwarded.target)
            except OIDCError as failure:
                response, error = None, failure
            if response is not None:
                return response
        response = Refusal(self.settings).response(self.asked, error, self.decision.scopes)
        if response.status_code == HTTPStatus.BAD_REQUEST and not is_final and _is_nginx(self.scope):
            response.status_code = HTTPStatus.FORBIDDEN
        return response


def _below(scope: Scope, settings: Settings) -> bytes | None:
    """Return what follows the endpoint in the path, as on the wire and with the query, None where nothing does.

    Raises:
        InvalidRequest: the way to the endpoint itself is written with escapes, which no proxy does: a client may, to
            get at it past a route that keeps it from clients.
    """
    path: str = scope["path"]
    root = path.removesuffix(route_path(path, scope.get("root_path", "")))  # empty where the server leaves it out
    ours = quote(f"{root}{settings.prefix}/{NAME}").encode()
    raw: bytes = (scope.get("raw_path") or quote(path, safe="/%").encode()).partition(b"?")[0]
    if not raw.startswith(ours):
        raise InvalidRequest("the path of the endpoint is not written as it is")
    rest = raw[len(ours) :]
    query: bytes = scope.get("query_string", b"")
    return rest + (b"?" + query if query else b"") if rest else None


def _forwarded(scope: Scope, settings: Settings, below: bytes | None) -> Forwarded | None:
    """Return the request that is asked about, None where nobody tells who is believed."""
    client = scope.get("client")
    if not comes_from(settings.trusted_proxies, client[0] if client else None):
        return None
    return read(scope["headers"], below=below, method=scope.get("method", "GET"))


def _asked(scope: Scope, forwarded: Forwarded | None) -> dict[str, Any]:
    """Return the request that is asked about as a scope: with the headers that the proxy passed on."""
    names = {name for name, _ in scope["headers"]}
    asked = {
        "type": "websocket" if scope["type"] == "websocket" or b"sec-websocket-key" in names else "http",
        "method": forwarded.method if forwarded is not None else None,
        "path": scope["path"],
        "query_string": b"",
        "root_path": "",
        "headers": scope["headers"],
        "client": scope.get("client"),
    }
    if forwarded is not None:
        asked |= {"path": forwarded.path, "raw_path": forwarded.raw_path, "query_string": forwarded.query}
    return asked


def _identity(known: Known | None, token: str | None) -> Headers:
    """Return every header that tells an identity, empty where there is nothing to tell.

    Envoy sets those that came and leaves the others as the client sent them.
    """
    headers = identity_headers(known.principal, token) if known is not None else []
    return list((_NOTHING_TOLD | dict(headers)).items())


def _is_final(scope: Scope, below: bytes | None) -> bool:
    """Tell whether the client gets the answer as it is: whoever asks says so, for nginx makes a 500 of a redirect.

    Envoy says it in a header: what it appends to the path has the client's query.
    """
    if below is not None:
        return (b"x-forward-auth-redirect", b"1") in map(tuple, scope["headers"])
    return b"redirect=1" in scope.get("query_string", b"").split(b"&")


def _is_at(forwarded: Forwarded, base_url: str | None) -> bool:
    """Tell whether a login helps: the cookie of a session goes to the host of `base_url`, and to no other."""
    base = urlsplit((base_url or "").lower())
    usual = ":443" if base.scheme == "https" else ":80"
    return forwarded.host is None or forwarded.host.removesuffix(usual) == base.netloc.removesuffix(usual)


def _is_nginx(scope: Scope) -> bool:
    """Tell whether nginx asks: it makes a 500 of every answer but 2xx, 401 and 403."""
    return any(name in _OF_NGINX for name, _ in scope["headers"])
