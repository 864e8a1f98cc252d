"""The issuer and the API, listening."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from oidc_middleware.cache.envelope import new_secret
from oidc_middleware.cli.demo.app import ADMIN_SCOPE, build
from oidc_middleware.cli.demo.login import Login
from oidc_middleware.cli.demo.place import place_in
from oidc_middleware.errors import ConfigError
from oidc_middleware.settings import Settings
from oidc_middleware.testing import FakeIssuer
from oidc_middleware.testing.server import bind, serving

# uvicorn's complaint of a refused WebSocket, which it has answered well (its pull request 3138 ends that).
_SPURIOUS = "ASGI callable returned without completing handshake."
_HOST = "127.0.0.1"
_TOKEN_LIFE = 3600


@dataclass(frozen=True, slots=True)
class Demo:
    """Where both listen, where to sign in, and tokens: what alice may read with, one to revoke, an administrator's."""

    api: str
    issuer: str
    login: str
    token: str = field(repr=False)
    spare: str = field(repr=False)
    admin: str = field(repr=False)


@asynccontextmanager
async def running(port: int | None, issuer_port: int | None, cache: str = "memory://") -> AsyncIterator[Demo]:
    """Run both until the block ends. A port of 0 is any free one, None the usual one or, where that is taken, any.

    What a shared cache has of it is sealed with a secret that ends with it, and removed.

    Raises:
        ConfigError: a port cannot be had, or `cache` cannot be opened, or is a file that others may use.
    """
    Settings(issuer="https://login.example.com", audience="demo", cache=cache, secret=new_secret())
    logging.getLogger("uvicorn.error").addFilter(_is_no_noise)
    issuer = FakeIssuer(expires_in=_TOKEN_LIFE)
    async with AsyncExitStack() as stack:
        api_socket = stack.enter_context(_listen("--port", lambda port: bind(_HOST, port), port, usual=8000))
        issuer_socket = stack.enter_context(
            _listen("--issuer-port", lambda port: issuer.bind(_HOST, port), issuer_port, usual=9000)
        )
        api = issuer.audience = f"http://{_HOST}:{api_socket.getsockname()[1]}"
        login = Login(issuer, api)
        place = await stack.enter_async_context(place_in(cache))
        await stack.enter_async_context(serving(issuer.app, issuer_socket))
        app = build(issuer.url, api, login, place)
        await stack.enter_async_context(serving(app, api_socket, ws="auto", lifespan="on"))
        yield Demo(
            api,
            issuer.url,
            login.url,
            token=issuer.token("alice", scope="orders:read", client_id="demo"),
            spare=issuer.token("alice", scope="orders:read", client_id="demo"),
            admin=issuer.token("root", scope=ADMIN_SCOPE, client_id="demo"),
        )


def _listen(option: str, listen: Callable[[int], socket.socket], port: int | None, *, usual: int) -> socket.socket:
    try:
        return listen(usual if port is None else port)
    except OSError as error:
        if port is not None:
            problem = f"{port} cannot be had ({os.strerror(error.errno or 0)})"
            raise ConfigError(option, problem, "Choose another, or 0 for any.") from None
    listening = listen(0)
    print(f"Port {usual} is taken, so {option} is {listening.getsockname()[1]}.")
    return listening


def _is_no_noise(record: logging.LogRecord) -> bool:
    return record.getMessage() != _SPURIOUS
