"""How uvicorn reads requests for us: with the faster parser where it is installed, and paths as targets only."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec


def http_protocol() -> type[asyncio.Protocol]:
    """Return the protocol that `uvicorn[standard]` takes, with what `httptools_protocol` mends of it, or h11's."""
    if find_spec("httptools"):
        from oidc_middleware.cli.httptools_protocol import OriginForm

        return OriginForm
    from uvicorn.protocols.http.h11_impl import H11Protocol

    return H11Protocol


def websocket_protocol() -> type[asyncio.Protocol]:
    """Return the protocol that every uvicorn takes where websockets is installed, with what we mend of it."""
    from oidc_middleware.cli.websockets_protocol import AnsweredHandshake

    return AnsweredHandshake
