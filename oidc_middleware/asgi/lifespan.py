"""The ASGI lifespan: the service starts before the app and stops after it.

Source: the ASGI specification, Lifespan Protocol.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oidc_middleware.errors import ConfigError
from oidc_middleware.wiring import OIDC


async def refuse_lifespan(error: ConfigError, receive: Receive, send: Send) -> None:
    """Let the server's start-up fail with the text of a configuration error."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": str(error)})


async def pass_lifespan(oidc: OIDC, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Hand the lifespan to the app, with the service running around it.

    An app without lifespan raises, which tells the server so; the service then starts with the first request.
    """
    started = False

    async def receive_started() -> Message:
        nonlocal started
        message = await receive()
        if message["type"] == "lifespan.startup" and not started:
            started = True
            await oidc.start()
        return message

    async def send_stopped(message: Message) -> None:
        nonlocal started
        if message["type"] != "lifespan.startup.complete" and started:
            started = False
            await oidc.stop()
        await send(message)

    try:
        await app(scope, receive_started, send_stopped)
    finally:
        if started:
            await oidc.stop()
