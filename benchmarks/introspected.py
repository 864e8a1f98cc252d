"""The issuer that `bench_introspection` asks, on uvicorn: `python introspected.py AUDIENCE` prints its port.

Its answers are made beforehand: as little of the time as possible is its own.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from typing import Any

import uvicorn
from traffic import CLAIMS

from oidc_middleware.testing import FakeIssuer


def answer_of(audience: str) -> bytes:
    """Return what it says of any token: active, with as many claims as a JWT of the other benchmarks has."""
    now = int(time.time())
    said = {"active": True, "aud": audience, "sub": "jane", "client_id": "shop-web", "iat": now, "exp": now + 86_400}
    return json.dumps({name: value for name, value in CLAIMS.items() if name != "typ"} | said).encode()


def main() -> None:
    """Serve until told to stop."""
    answer = answer_of(sys.argv[1])
    jwks = json.dumps({"keys": FakeIssuer().keys.jwks()}).encode()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        """Read the form and say what is said of any token, or give the keys."""
        while (await receive()).get("more_body"):
            pass
        body = jwks if scope["path"] == "/jwks" else answer
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})

    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(app, log_level="warning", access_log=False, ws="none", lifespan="off")
    uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    main()
