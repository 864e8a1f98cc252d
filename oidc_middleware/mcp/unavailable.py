"""503 where the SDK would answer 500: its protocol has no word for a token that nobody can judge now."""

from __future__ import annotations

import logging
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oidc_middleware.asgi.responses import error_response
from oidc_middleware.errors import OIDCError

logger: logging.Logger = logging.getLogger("oidc_middleware")


class AnswerUnavailable:
    """ASGI middleware for an MCP server without a door: `app.add_middleware(AnswerUnavailable)`.

    What `OIDCTokenVerifier` raises becomes 503 with Retry-After, and no traceback. Behind `OIDCMiddleware` it has
    nothing to do: the door answers so by itself.

    Source: RFC 9110 §10.2.3, §15.6.4.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        is_answered = scope["type"] != "http"

        async def watched(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except OIDCError as error:
            if is_answered or error.status != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            logger.warning("refused %.200r with %d: %s", scope["path"], error.status, error)
            await error_response(error, headers=scope["headers"])(scope, receive, send)
