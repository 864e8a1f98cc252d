"""Signing out in the browser: here, then at the issuer; and what an issuer says of it through the browser."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import wraps
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from oidc_middleware.asgi.endpoints.bodies import FORM, BadRequest, read_form, read_query
from oidc_middleware.asgi.pages import Action, Form, framed, page
from oidc_middleware.asgi.refusal import refusal_of
from oidc_middleware.core.cookies import CookieShape, cookie_header, grouped
from oidc_middleware.core.cross_origin import OurOrigins
from oidc_middleware.core.navigation import is_asked_for
from oidc_middleware.core.return_path import FRONT_PAGE, path_on
from oidc_middleware.errors import OIDCError, SessionEnded, TokenError
from oidc_middleware.session.known import KnownSession
from oidc_middleware.session.logout import Logout
from oidc_middleware.session.sessions import Sessions
from oidc_middleware.wiring import OIDC

logger: logging.Logger = logging.getLogger("oidc_middleware.session")

Handler = Callable[[Request], Awaitable[Response]]

RETURN: Final = "rd"
"""The parameter that says where to go afterwards, as oauth2-proxy calls it."""
_MOST_COOKIES: Final = 50


def _for_people(handler: Handler) -> Handler:
    """Answer errors as everywhere at the door, with a page for a browser."""

    @wraps(handler)
    async def answered(request: Request) -> Response:
        try:
            return await handler(request)
        except OIDCError as error:
            return refusal_of(request.scope).response(request.scope, error)

    return answered


@_for_people
async def sign_out(request: Request) -> Response:
    """Sign out whoever comes by a link of ours or the address bar; ask, where another page may have made them.

    Raises:
        BadRequest: the query cannot be read.

    Source: OpenID Connect RP-Initiated Logout §6; Fetch Metadata §2.
    """
    path = _wanted(request, read_query(request).get(RETURN))
    if is_asked_for(request.method, request.scope["headers"]):
        return await _signed_out(request, path)
    form = Form("Sign out", _own(request, "sign_out"), () if path is None else ((RETURN, path),))
    return page("Sign out?", ["You are about to sign out of this application."], form=form)


@_for_people
async def sign_out_by_form(request: Request) -> Response:
    """Sign out whoever pressed a button on a page of ours. A body that is no form, as scripts send, is not looked at.

    Raises:
        BadRequest: the form or the query cannot be read.
        CrossOriginRequest: the button was on somebody else's page.
    """
    settings = OIDC.from_scope(request.scope).settings
    OurOrigins(settings.base_url or "", settings.trusted_origins).check(request.method, request.scope["headers"])
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    form = await read_form(request) if kind == FORM else {}
    return await _signed_out(request, _wanted(request, form.get(RETURN) or read_query(request).get(RETURN)))


async def come_back(request: Request) -> Response:
    """Receive a browser that was at the issuer: send it to where it wanted to go, or say that it is signed out.

    Whatever state it brings, there is nothing to do any more: the session was over before it left.

    Source: OpenID Connect RP-Initiated Logout §3.
    """
    path = None
    try:
        path = _logout(request).states.path(read_query(request).get("state", ""))
    except BadRequest as error:
        logger.info("a browser came back from a sign-out: %s", error.problem)
    if path is not None and path != urlsplit(_own(request, "signed_out")).path:
        return _redirect(path)
    return page(
        "Signed out", ["You are signed out of this application."], [Action("Sign in again", _own(request, "start"))]
    )


async def frontchannel_logout(request: Request) -> Response:
    """End the session of this browser, if it is the one that the issuer means.

    Raises:
        BadRequest: `iss` or `sid` is missing, or is not that of the session.
        InvalidRequest, ProviderError, BackendUnavailable, RevocationStale: nobody can say which session it is.

    Source: OpenID Connect Front-Channel Logout §2, §3.
    """
    query = read_query(request)
    issuer, sid = query.get("iss"), query.get("sid")
    if not issuer or not sid:
        raise BadRequest("The parameters iss and sid are both needed.")
    known = await _find(request)
    if known is None or (known.principal.issuer, known.principal.sid) != (issuer, sid):
        raise BadRequest("It is not the session of this browser.")
    await _sessions(request).end(known)
    logger.info("%.200r ended a session through the browser", issuer)
    parts = urlsplit(issuer)
    return _cleared(request, framed(f"{parts.scheme}://{parts.netloc}"))


async def _signed_out(request: Request, path: str | None) -> Response:
    """End the session that the cookie is of, if it is of any, and send the browser on: to the issuer, then to `path`.

    Raises:
        InvalidRequest: there are two session cookies.
        ProviderError, BackendUnavailable, RevocationStale: nobody can say which session it is.
    """
    here = urlsplit(_own(request, "signed_out")).path if path is None else path
    known = await _find(request)
    there = None if known is None else await _logout(request).sign_out(known, here)
    return _cleared(request, _redirect(here if there is None else there))


async def _find(request: Request) -> KnownSession | None:
    """Return the session that the browser has; None where it has none, or one that is over."""
    try:
        return await _sessions(request).look(cookie_header(request.scope["headers"]))
    except (SessionEnded, TokenError):
        return None


def _cleared(request: Request, response: Response) -> Response:
    """Let the browser forget all cookies of ours, those of logins under way too, each with the attributes it has."""
    settings = OIDC.from_scope(request.scope).settings
    shape = CookieShape(is_secure=(settings.base_url or "").startswith("https://"))
    name = shape.name(settings.cookie_name)
    found = grouped(cookie_header(request.scope["headers"]), name, _MOST_COOKIES)
    ours = [each for each in found if each == name or each.startswith(f"{name}_")]
    for each in dict.fromkeys((name, *ours)):
        response.headers.append("Set-Cookie", shape.clear(each))
    return response


def _redirect(location: str) -> Response:
    """Source: RFC 9110 §15.4.4: 303, by which a form becomes a GET."""
    headers = {"Location": location, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return Response(status_code=HTTPStatus.SEE_OTHER, headers=headers)


def _wanted(request: Request, rd: str | None) -> str | None:
    """Return where to go afterwards, None where nothing on this origin is named."""
    if rd is None:
        return None
    base_url = OIDC.from_scope(request.scope).settings.base_url or ""
    path = path_on(base_url, rd)
    return None if path == FRONT_PAGE and rd not in {FRONT_PAGE, base_url + FRONT_PAGE} else path


def _own(request: Request, name: str) -> str:
    settings = OIDC.from_scope(request.scope).settings
    return f"{settings.base_url}{settings.prefix}/{name}"


def _sessions(request: Request) -> Sessions:
    sessions = OIDC.from_scope(request.scope).sessions
    assert sessions is not None  # noqa: S101  the policy knows these endpoints only then
    return sessions


def _logout(request: Request) -> Logout:
    logout = OIDC.from_scope(request.scope).logout
    assert logout is not None  # noqa: S101  as above
    return logout
