"""OpenID Connect Back-Channel Logout: an issuer tells us, without a browser, that a session is over."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from oidc_middleware.asgi.endpoints.bodies import BadRequest, read_form
from oidc_middleware.asgi.endpoints.endpoint import answer
from oidc_middleware.core import logout_token
from oidc_middleware.errors import TokenError
from oidc_middleware.wiring import OIDC

logger: logging.Logger = logging.getLogger("oidc_middleware.session")

BODY_SECONDS: Final = 10.0
"""How long the form may take to come."""


async def backchannel_logout(request: Request) -> Response:
    """End what the logout token in the form names, on every node. 200 means that it did.

    Raises:
        BadRequest: 400 for a request or a token that is refused, 408 for a form that does not come, 413 for one that is
            too large, 501 for an encrypted token.
        ProviderError, RevocationNotShared, BackendUnavailable: 503, the issuer is to send it again.

    Source: OpenID Connect Back-Channel Logout §2.5 to §2.8.
    """
    raw = (await _form(request)).get("logout_token")
    if raw is None:
        raise BadRequest("The parameter logout_token is missing.")
    token = raw.encode("utf-8", "surrogatepass")
    if logout_token.is_encrypted(token):
        raise BadRequest("Encrypted logout tokens are not supported.", status=HTTPStatus.NOT_IMPLEMENTED)
    try:
        taken = await OIDC.from_scope(request.scope).backchannel_logout.take(token)
    except TokenError as error:
        raise BadRequest(f"The logout token is refused ({error}).") from None
    logger.info("%.200r ended %s", taken.issuer, "a session" if taken.sid is not None else "all of a subject")
    return answer()


async def _form(request: Request) -> dict[str, str]:
    if b"logout_token" in request.scope.get("query_string", b""):
        raise BadRequest("The logout token belongs into the body.")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await read_form(request)
    except TimeoutError:
        raise BadRequest("The body did not come in time.", status=HTTPStatus.REQUEST_TIMEOUT) from None
