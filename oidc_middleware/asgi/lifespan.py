"""The ASGI lifespan: the service starts before the app and stops after it.

Source: the ASGI specification, Lifespan Protocol.
"""

from __future__ import annotations

from typing import NoReturn

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oidc_middleware.errors import ConfigError
from oidc_middleware.wiring import OIDC


async def refuse_lifespan(error: ConfigError, receive: Receive, send: Send) -> NoReturn:
    """Let the server's start-up fail with the text of a configuration error.

    Raises:
        ConfigError: always, as Starlette does after a failed start: a `TestClient` would wait for ever if it did not.
    """
    await receive()
    await send({"type": "lifespan.startup.failed", "message": str(error)})
    raise error.with_traceback(None)


async def pass_lifespan(oidc: OIDC, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Hand the lifespan to the app, with the service running around it.

    An app without lifespan raises, which tells the server so; the service then starts with the first request.

    Raises:
        RuntimeError: the service runs on another event loop; start-up has failed then.
    """
    startup: Message | None = await receive()
    try:
        await oidc.start()
    except RuntimeError as error:
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        raise
    started = True

    async def receive_again() -> Message:
        nonlocal startup
        message, startup = startup, None
        return await receive() if message is None else message

    async def send_stopped(message: Message) -> None:
        nonlocal started
        if message["type"] != "lifespan.startup.complete" and started:
            started = False
            await oidc.stop()
        await send(message)

    try:
        await app(scope, receive_again, send_stopped)
    finally:
        if started:
            await oidc.stop()
