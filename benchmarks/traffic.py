"""What the benchmarks ask for: an app, requests as a server makes them, and tokens of the usual size."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from time import perf_counter
from typing import Any

from jwt.utils import base64url_decode, base64url_encode
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from table import Contestant

from oidc_middleware.testing import FakeIssuer

Application = Callable[[Any, Any, Any], Awaitable[None]]
MakeScope = Callable[[str], dict[str, Any]]

AUDIENCE = "https://api.example"
# The shape of a Keycloak token, so that reading it costs what it costs in practice.
CLAIMS: dict[str, Any] = {
    "typ": "Bearer",
    "azp": "shop-web",
    "acr": "1",
    "scope": "openid profile email orders",
    "realm_access": {"roles": ["orders", "offline_access"]},
    "sid": "0b1c6a2e-8f3d-4f6e-9d11-1f0f6c2a7e55",
    "email": "jane@shop.example",
    "preferred_username": "jane",
    "name": "Jane Doe",
}
# So many scopes are made before the clock runs: few enough to be in the processor's first cache when they are used, as
# the one that a server just made is. A batch of 5,000 doubles every figure, that of the bare app too.
BATCH = 8

_HEADERS = """\
host: api.shop.example
user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36
accept: application/json
accept-encoding: gzip, deflate, br
accept-language: en-GB,en;q=0.8
origin: https://shop.example
referer: https://shop.example/orders
x-forwarded-for: 192.0.2.7
x-forwarded-proto: https
x-request-id: 5f0c2a1e
traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
authorization: Bearer {token}"""


async def hello(request: Request) -> Response:
    """Answer as the smallest handler does."""
    del request
    return PlainTextResponse("hello")


def bare() -> Starlette:
    """Return the app without any authentication."""
    return Starlette(routes=[Route("/orders", hello)])


def issuer() -> FakeIssuer:
    """Return an issuer whose tokens outlive the benchmark."""
    return FakeIssuer(audience=AUDIENCE, expires_in=86_400)


# ------------------------------------------------------------------------------------------------------------- requests


def header_lines(token: str) -> list[str]:
    """Return the twelve headers of a request that came through a proxy."""
    return _HEADERS.format(token=token).splitlines()


def scope_of(token: str) -> dict[str, Any]:
    """Return a scope as uvicorn makes it: all that came over the wire is in new objects, whose hash nobody knows."""
    return _scope(header_lines(token))


def scope_with_cookie(cookie: str) -> dict[str, Any]:
    """Return the scope of a request with as many headers that has a cookie in the place of the token."""
    return _scope([*header_lines("")[:-1], f"cookie: {cookie}"])


def _scope(lines: list[str]) -> dict[str, Any]:
    fields = [line.encode().partition(b": ") for line in lines]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": b"GET".decode(),
        "scheme": "http",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "root_path": "",
        "path": b"/orders".decode(),
        "raw_path": bytes(bytearray(b"/orders")),
        "query_string": b"",
        "headers": [(name, value) for name, _, value in fields],
        "state": {},
    }


async def no_body() -> dict[str, Any]:
    """Receive an empty body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def only_200(message: Any) -> None:
    """Send nowhere; another answer than 200 is a mistake of the benchmark."""
    if message["type"] == "http.response.start" and message["status"] != 200:
        raise AssertionError(message)


async def ask(app: Application, tokens: Iterator[str], count: int, scope_of: MakeScope = scope_of) -> float:
    """Ask `app` one request after the other, and return the seconds that it took in all."""
    took = 0.0
    for start in range(0, count, BATCH):
        scopes = [scope_of(next(tokens)) for _ in range(min(BATCH, count - start))]
        begin = perf_counter()
        for scope in scopes:
            await app(scope, no_body, only_200)
        took += perf_counter() - begin
    return took


def asking(
    runner: asyncio.Runner, app: Application, tokens: Iterator[str], scope_of: MakeScope = scope_of
) -> Contestant:
    """Return the contestant that asks `app`, directly and on a loop, each time with the next of `tokens`."""
    return lambda count: runner.run(ask(app, tokens, count, scope_of))


# --------------------------------------------------------------------------------------------------------------- tokens


def for_ever(tokens: Iterable[str]) -> Iterator[str]:
    """Go round and round."""
    while True:
        yield from tokens


def signed(issuer: FakeIssuer, count: int) -> list[str]:
    """Return tokens of the issuer that differ in `jti`. Each takes it half a millisecond."""
    return [issuer.token(claims=CLAIMS | {"jti": _jti(number)}) for number in range(count)]


def unsigned(issuer: FakeIssuer, count: int) -> Iterator[str]:
    """Yield tokens that differ in `jti` and have noise in place of a signature, for those who are known already."""
    header, payload, signature = issuer.token(claims=CLAIMS).split(".")
    claims = json.loads(base64url_decode(payload))
    noise = random.Random(1)
    size = len(base64url_decode(signature))
    for number in range(count):
        written = json.dumps(claims | {"jti": _jti(number)}, separators=(",", ":")).encode()
        yield ".".join([header, _encoded(written), _encoded(noise.randbytes(size))])


def header_value(token: str) -> bytes:
    """Return the value of the `Authorization` header."""
    return b"Bearer " + token.encode()


def taken_apart(token: str) -> tuple[bytes, bytes]:
    """Return the signature and what it signs."""
    signing_input, _, signature = token.rpartition(".")
    return base64url_decode(signature), signing_input.encode()


def _jti(number: int) -> str:
    return f"7f2d9b10-55aa-4c1e-9c0d-{number:012}"


def _encoded(data: bytes) -> str:
    return base64url_encode(data).decode()
