"""What users learn of themselves: who they are, and where else they are logged in, which they may end."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from oidc_middleware.asgi.endpoints.bodies import BadRequest, read_form, read_query
from oidc_middleware.asgi.endpoints.endpoint import answer
from oidc_middleware.asgi.refusal import settings_of
from oidc_middleware.core.identity_values import verified_email
from oidc_middleware.core.paths import route_path
from oidc_middleware.session.index import Listed
from oidc_middleware.session.known import KnownSession
from oidc_middleware.session.sessions import Sessions
from oidc_middleware.settings.logins import SESSIONS
from oidc_middleware.wiring import OIDC

logger: logging.Logger = logging.getLogger("oidc_middleware.session")


async def userinfo(request: Request) -> Response:
    """Tell who sends the request, in the form of oauth2-proxy: an address only if the issuer has verified it."""
    user = request.user
    said: dict[str, Any] = {
        "user": user.subject or user.client_id,
        "email": verified_email(user.claims) or "",
        "groups": sorted(user.groups),
        "preferredUsername": user.claims.get("preferred_username"),
    }
    return answer({name: value for name, value in said.items() if value or name in {"user", "email"}})


async def list_own(request: Request) -> Response:
    """List the sessions of the user of this one, the newest first; times are Unix seconds.

    Raises:
        BadRequest: 403, it is no session that asks.
        BackendUnavailable: nobody can say.
    """
    known, sessions = _session(request)
    return answer({"sessions": [_told(each, known) for each in reversed(await sessions.list(known))]})


async def end_own(request: Request) -> Response:
    """End one session of the user of this one, on every node: 204, also for this one.

    Its name is the last part of the path, `name` in the query, or `name` in a form. 404: the user has no such session,
    whoever else may have it.

    Raises:
        BadRequest: 403, it is no session that asks; 400, no name, or one that cannot be read.
        BackendUnavailable: nobody can say.
    """
    known, sessions = _session(request)
    name = await _name(request)
    if not await sessions.end_named(known, name):
        raise BadRequest("There is no such session of yours.", status=HTTPStatus.NOT_FOUND, code="not_found")
    logger.info("a user ended session %s", name)
    response = answer(status=HTTPStatus.NO_CONTENT)
    if name == known.name:
        response.headers.append("Set-Cookie", sessions.cookies.clear())
    return response


def _session(request: Request) -> tuple[KnownSession, Sessions]:
    """Return the session that asks: a token, however it came by, does not reach the browsers of its subject."""
    known, sessions = request.scope["auth"], OIDC.from_scope(request.scope).sessions
    if not isinstance(known, KnownSession) or sessions is None:
        raise BadRequest("Only a session may ask for sessions.", status=HTTPStatus.FORBIDDEN, code="access_denied")
    return known, sessions


async def _name(request: Request) -> str:
    route = route_path(request.scope["path"], request.scope.get("root_path", ""))
    name = route.removeprefix(f"{settings_of(request.scope).prefix}/{SESSIONS}").strip("/")
    if not name:
        name = read_query(request).get("name", "")
    if not name and request.method == "POST":
        name = (await read_form(request)).get("name", "")
    if not name:
        raise BadRequest("The name of the session is missing.")
    return name


def _told(listed: Listed, known: KnownSession) -> dict[str, Any]:
    return {
        "name": listed.name,
        "current": listed.name == known.name,
        "began": int(listed.began),
        "ends": int(listed.deadline),
        "user_agent": listed.user_agent,
    }
