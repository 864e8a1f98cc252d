"""Where a login begins, and where the issuer sends the browser back to."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from oidc_middleware.asgi.endpoints.bodies import BadRequest, read_query
from oidc_middleware.asgi.pages import Action, page
from oidc_middleware.asgi.refusal import refusal_of, settings_of
from oidc_middleware.core.cookies import cookie_header
from oidc_middleware.core.grant import Login
from oidc_middleware.core.navigation import may_navigate
from oidc_middleware.core.return_path import path_on
from oidc_middleware.errors import (
    InvalidRequest,
    LoginError,
    MissingToken,
    OIDCError,
    ProviderError,
    RevocationStale,
    Revoked,
    TokenError,
)
from oidc_middleware.session.login import LoginFlows
from oidc_middleware.settings import Settings
from oidc_middleware.settings.logins import START
from oidc_middleware.wiring import OIDC

logger: logging.Logger = logging.getLogger("oidc_middleware.session")

RETURN: Final = "rd"
"""The parameter of `start` that names the return path, as oauth2-proxy calls it."""
ISSUER: Final = "issuer"
"""The parameter of `start` that chooses among several issuers."""
_REDIRECT: Final = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


async def start(request: Request) -> Response:
    """Send a browser to the issuer, to come back to the path `rd`; where there are several, let it choose.

    Only somebody who goes there begins a login: what a page fetches gets 401, and no cookie.
    """
    scope = request.scope
    if not may_navigate(scope["headers"]):
        return refusal_of(scope).response(scope, MissingToken("a login begins with a navigation"))
    oidc, back_to, issuer = OIDC.from_scope(scope), None, None
    try:
        query = _read_query(request)
        back_to, issuer = _on_this_origin(query.get(RETURN), oidc.settings), query.get(ISSUER)
        login = _login(oidc)
        if issuer is None and len(login.issuers) > 1:
            return _choice(request, login.issuers, back_to)
        open_params = oidc.settings.authorization_params_from_query
        params = {name: query[name] for name in open_params if name in query}
        begun = await login.begin(issuer, back_to, params, cookie_header(scope["headers"]))
    except OIDCError as error:
        return _failure(request, error, back_to)
    return _redirect(begun.url, begun.set_cookies)


async def callback(request: Request) -> Response:
    """Take the issuer's answer, give the browser a session, and send it to where it wanted to go.

    Source: OpenID Connect Core §3.1.2.5, §3.1.2.6; RFC 9700 §4.2.4 (the answer's URL is told to nobody).
    """
    if request.method != "GET":
        return Response(
            status_code=HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET", "Cache-Control": "no-store"}
        )
    scope = request.scope
    oidc, query, cookies = OIDC.from_scope(scope), scope.get("query_string", b""), cookie_header(scope["headers"])
    login = _login(oidc)
    try:
        finished = await login.finish(query, cookies)
        set_cookie = await _new_session(oidc, finished.login, cookies, request.headers.get("user-agent", ""))
    except OIDCError as error:
        response = _failure(request, error, _return_path(login, query, cookies))
        _add_cookies(response, [clear] if (clear := login.clear_cookie(query)) is not None else [])
        return response
    logger.info("a login at %s succeeded", finished.login.issuer)
    return _redirect(finished.return_path, [finished.clear_cookie, set_cookie])


def _login(oidc: OIDC) -> LoginFlows:
    assert oidc.login is not None  # noqa: S101  the policy knows these endpoints only then
    return oidc.login


async def _new_session(oidc: OIDC, login: Login, cookies: bytes, user_agent: str) -> str:
    """Begin a session, in the place of the one that the browser has, and return the `Set-Cookie` header for it.

    Raises:
        Revoked: everything of the user was ended a moment ago.
        LoginError: the tokens are too large.
        BackendUnavailable: the store does not take it.
    """
    sessions = oidc.sessions
    assert sessions is not None  # noqa: S101  there are some where there are logins
    try:
        replaced = await sessions.look(cookies)
    except (InvalidRequest, MissingToken, TokenError, ProviderError, RevocationStale):
        replaced = None  # what nobody can read now is not what the new session is about
    created = await sessions.create(login, replaces=replaced, user_agent=user_agent)
    return created.set_cookie


# What a request says


def _read_query(request: Request) -> dict[str, str]:
    try:
        return read_query(request)
    except BadRequest as error:
        raise LoginError(error.problem) from None


def _on_this_origin(wanted: str | None, settings: Settings) -> str:
    """Return the path of where somebody wants to go; absent: the front page of the app."""
    base_url = settings.base_url or ""
    return path_on(base_url, f"{urlsplit(base_url).path}/" if wanted is None else wanted)


def _return_path(login: LoginFlows, query: bytes, cookies: bytes) -> str | None:
    """Return where the browser of an answer wanted to go; None: it is no answer to a login of this browser."""
    try:
        return login.find(query, cookies).return_path
    except LoginError:
        return None


# What a browser gets


def _redirect(url: str, set_cookies: Iterable[str]) -> Response:
    """Source: RFC 9700 §4.12: a status by which no form is sent on (302 to a GET, which this always is)."""
    response = Response(status_code=HTTPStatus.FOUND, headers={**_REDIRECT, "Location": url})
    _add_cookies(response, set_cookies)
    return response


def _add_cookies(response: Response, set_cookies: Iterable[str]) -> None:
    response.raw_headers += [(b"set-cookie", value.encode("latin-1")) for value in set_cookies]


def _choice(request: Request, issuers: Collection[str], back_to: str) -> Response:
    hosts = [urlsplit(name).netloc for name in issuers]
    labels = hosts if len(set(hosts)) == len(hosts) else [name.partition("://")[2] for name in issuers]
    actions = [
        Action(f"Sign in at {label}", _start(request, back_to, name))
        for label, name in zip(labels, issuers, strict=True)
    ]
    return page("Sign in", ["Choose where you want to sign in."], actions)


def _failure(request: Request, error: OIDCError, back_to: str | None) -> Response:
    """Return the page that says that a login did not succeed, and offers another one; `on_error` may make its own."""
    scope = request.scope
    if settings_of(scope).on_error is not None:
        return refusal_of(scope).response(scope, error)
    status = HTTPStatus.BAD_REQUEST if isinstance(error, LoginError | Revoked) else HTTPStatus(error.status)
    level = logging.WARNING if status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO
    logger.log(level, "a login is answered with %d: %s", status, error)
    title, paragraphs = _words(error, settings_of(scope))
    actions = [Action("Try again", _start(request, back_to))]
    response = page(title, paragraphs, actions, said=error.said if isinstance(error, LoginError) else "", status=status)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(max(1, int(getattr(error, "retry_after", 5))))
    return response


def _words(error: OIDCError, settings: Settings) -> tuple[str, list[str]]:
    if isinstance(error, Revoked):
        return "You signed out everywhere", [
            "That ended every sign-in up to that moment, and this one came too soon after it.",
            f"Wait {max(1, math.ceil(settings.leeway))} seconds, then sign in again.",
        ]
    if isinstance(error, ProviderError):
        return "Signing in is not possible right now", [
            "The service where you sign in cannot be reached, or does not answer as it should.",
            "Nothing is wrong with your account. Try again in a moment.",
        ]
    if not isinstance(error, LoginError):
        return "Signing in is not possible right now", ["This service is short of something. Try again in a moment."]
    if error.said:
        return "You are not signed in", ["The service where you sign in did not let you in. It says:"]
    return "You are not signed in", [
        "The sign-in took too long, was finished before, was begun in another browser, or this one keeps no cookies.",
        "Nothing has happened. Start again from here.",
    ]


def _start(request: Request, back_to: str | None, issuer: str | None = None) -> str:
    """Return the path that begins a login, as browsers see it: below that of `base_url`."""
    query = {name: value for name, value in ((RETURN, back_to), (ISSUER, issuer)) if value is not None}
    settings = settings_of(request.scope)
    path = f"{urlsplit(settings.base_url or '').path}{quote(settings.prefix)}/{START[0]}"
    return path + (f"?{urlencode(query)}" if query else "")
