"""Forward auth: a proxy asks about each request whether it may pass, and whose it is.

200 lets it pass, and tells who sends it; 401 and 403 are for the client. Whatever the request is judged by stands in
`core/forwarded.py`; nobody but a proxy of `trusted_proxies` is believed it.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from oidc_middleware.asgi.credentials import Credentials
from oidc_middleware.asgi.mount import AUDIENCES_KEY, check_audience
from oidc_middleware.asgi.refusal import Refusal, settings_of
from oidc_middleware.asgi.responses import deny_websocket
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

_NO_STORE: Final = {"Cache-Control": "no-store"}
_NOTHING_TOLD: Final = dict.fromkeys((family + what.encode() for family in FAMILIES for what in TOLD), b"")
_OF_NGINX: Final = frozenset({b"x-original-uri", b"x-original-url"})


async def forward_auth(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one question, whatever its method: a proxy asks in its own or in that of the client."""
    response = await _answer(scope)
    if scope["type"] == "websocket":  # Caddy passes the handshake of a WebSocket on
        await deny_websocket(response, scope, receive, send)
    else:
        await response(scope, receive, send)


async def _answer(scope: Scope) -> Response:
    oidc, settings = OIDC.from_scope(scope), settings_of(scope)
    asked: Scope = scope
    needed: tuple[str, ...] = ()
    try:
        forwarded = _forwarded(scope, settings)
        asked = _asked(scope, forwarded)
        decision = settings.policy.decide_forwarded(forwarded)
        needed = decision.scopes
        known = await _identify(asked, decision, oidc, settings)
        if known is not None:
            if AUDIENCES_KEY in scope:
                check_audience(known.principal, scope[AUDIENCES_KEY], oidc)
            permit(decision, known.principal)
        token = await known.access_token() if known is not None and settings.pass_access_token else None
    except OIDCError as error:
        response = Refusal(settings).response(asked, error, needed)
        if response.status_code == HTTPStatus.BAD_REQUEST and _is_nginx(scope):
            response.status_code = HTTPStatus.FORBIDDEN
        return response
    response = Response(headers=_NO_STORE)
    response.raw_headers += _identity(known, token)
    return response


def _forwarded(scope: Scope, settings: Settings) -> Forwarded | None:
    """Return the request that is asked about, None where nobody tells who is believed."""
    client = scope.get("client")
    if not comes_from(settings.trusted_proxies, client[0] if client else None):
        return None
    return read(scope["headers"], below=_below(scope, settings), method=scope.get("method", "GET"))


def _below(scope: Scope, settings: Settings) -> bytes | None:
    """Return what follows the endpoint in the path, as on the wire and with the query, None where nothing does.

    Raises:
        InvalidRequest: the way to the endpoint itself is written with escapes, which no proxy does.
    """
    path: str = scope["path"]
    ours = f"{settings.prefix}/{NAME}"
    route = route_path(path, scope.get("root_path", ""))
    if route == ours:
        return None
    ours = path.removesuffix(route) + ours  # below root_path, where the server has it in the path
    raw: bytes = scope.get("raw_path") or quote(path, safe="/%").encode()
    wire = ours.encode()
    if not raw.startswith(wire + b"/"):
        raise InvalidRequest("the path of the endpoint is not written as it is")
    query: bytes = scope.get("query_string", b"")
    return raw[len(wire) :].partition(b"?")[0] + (b"?" + query if query else b"")


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


async def _identify(asked: Scope, decision: Decision, oidc: OIDC, settings: Settings) -> Known | None:
    """Say who sends the request; None where it may pass without anybody.

    Raises:
        OIDCError: it may not pass, or nobody can say.
    """
    if decision.access is Access.REFUSED:
        raise InvalidRequest(decision.reason)
    if decision.access is Access.PUBLIC:
        return None
    is_optional = decision.access is Access.OPTIONAL
    try:
        known = await Credentials(oidc, settings).find(asked)
    except MissingToken:
        if is_optional:
            return None
        raise
    if known is None and not is_optional and not _is_preflight(asked, decision, settings):
        raise MissingToken("no credentials")
    return known


def _identity(known: Known | None, token: str | None) -> Headers:
    """Return every header that tells an identity, empty where there is nothing to tell.

    Envoy sets those that came and leaves the others as the client sent them.
    """
    headers = identity_headers(known.principal, token) if known is not None else []
    return list((_NOTHING_TOLD | dict(headers)).items())


def _is_preflight(asked: Scope, decision: Decision, settings: Settings) -> bool:
    if settings.preflight != "pass" or decision.ambiguous or asked["type"] != "http":
        return False
    return is_preflight(asked["method"] or "", asked["headers"])


def _is_nginx(scope: Scope) -> bool:
    """Tell whether nginx asks: it makes a 500 of every answer but 2xx, 401 and 403."""
    return any(name in _OF_NGINX for name, _ in scope["headers"])
