"""What the first request of a token costs: RS256, the key in memory, every token new."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Any

import jwt
import msgspec
from joserfc import jwk as jose_jwk
from joserfc import jwt as jose_jwt
from peers import JWTBackend, bare_check, fastapi_jwks
from services import Service
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from table import Contestant, Row, added, compared, interleaved, markdown, over
from traffic import (
    AUDIENCE,
    BATCH,
    Application,
    ask,
    asking,
    bare,
    for_ever,
    header_value,
    issuer,
    scope_of,
    signed,
    taken_apart,
)

from oidc_middleware.auth.known import HOT_TOKENS
from oidc_middleware.core import base64url
from oidc_middleware.testing import FakeIssuer

TOKENS = 512
OURS = "oidc-middleware"
QUIET = f"oidc-middleware, less than {HOT_TOKENS:,} tokens in use"
SIGNATURE = "signature"
LIMIT = 1.5


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the tables of first requests."""
    del quick  # it takes a few seconds
    provider = issuer()
    tokens, others = newcomers(provider)
    with asyncio.Runner() as runner:
        return {
            "First sight of an RS256 token, its key in memory": verifying(runner, provider, tokens, others),
            "First sight, over a bare request": requesting(runner, provider, tokens, others),
        }


def newcomers(provider: FakeIssuer) -> tuple[list[str], list[str]]:
    """Return the tokens that are seen for the first time, and as many others as the hot set holds.

    All are signed: to replace the check of signatures while others are made known would undo what the interpreter
    learned about the code that is measured.
    """
    tokens = signed(provider, TOKENS + HOT_TOKENS)
    return tokens[:TOKENS], tokens[TOKENS:]


def verifying(runner: asyncio.Runner, provider: FakeIssuer, tokens: Sequence[str], others: Sequence[str]) -> list[Row]:
    """Measure what turns a token into an identity."""
    key: Any = provider.keys.current("RS256").private.public_key()
    jose_key = jose_jwk.RSAKey.import_key(key)
    registry = jose_jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": provider.url},
        aud={"essential": True, "value": AUDIENCE},
        exp={"essential": True},
    )

    def joserfc(token: str) -> object:
        claims = jose_jwt.decode(token, jose_key, algorithms=["RS256"]).claims
        registry.validate(claims)
        return claims

    def pyjwt(token: str) -> object:
        return jwt.decode(token, key, ["RS256"], audience=AUDIENCE, issuer=provider.url)

    each = [(token,) for token in tokens]
    timings = interleaved(
        {
            SIGNATURE: over(bare_check(key), [taken_apart(token) for token in tokens]),
            "signature, base64url and JSON, nothing checked": over(least(key), [(token.encode(),) for token in tokens]),
            OURS: authenticating(runner, provider, tokens, others),
            QUIET: authenticating(runner, provider, tokens, others[:1]),
            "peer: joserfc": over(joserfc, each),
            "peer: PyJWT": over(pyjwt, each),
        },
        TOKENS,
    )
    return compared(timings, SIGNATURE, {OURS: LIMIT})


def authenticating(
    runner: asyncio.Runner, provider: FakeIssuer, tokens: Sequence[str], others: Sequence[str]
) -> Contestant:
    """Return the contestant that authenticates each token, with a service that knows others already."""

    async def run(count: int) -> float:
        async with (await knowing(provider, others)).oidc as oidc:
            authenticate, took = oidc.authenticator.authenticate, 0.0
            for start in range(0, count, BATCH):
                values = [header_value(token) for token in tokens[start : min(count, start + BATCH)]]
                begin = perf_counter()
                for value in values:
                    await authenticate(value)
                took += perf_counter() - begin
            return took

    return lambda count: runner.run(run(count))


async def knowing(provider: FakeIssuer, tokens: Sequence[str]) -> Service:
    """Return a service that has the keys and knows some tokens."""
    service = Service(provider, bare())
    for token in tokens:
        await service.oidc.authenticator.authenticate(header_value(token))
    return service


def least(key: Any) -> Callable[[bytes], object]:
    """Return the least that reading a token takes: whoever checks a claim pays more."""
    check, decode, read_json = bare_check(key), base64url.decode, msgspec.json.Decoder().decode

    def read(token: bytes) -> object:
        signing_input, _, signature = token.rpartition(b".")
        check(decode(signature), signing_input)
        return read_json(decode(signing_input.partition(b".")[2]))

    return read


# ------------------------------------------------------------------------------------------------------- whole requests


class OnlySignature:
    """The least that a first request can cost: middleware that checks the signature of tokens taken apart before.

    A signature check leaves the processor's caches to itself, so that what comes after it takes longer; here too.
    """

    def __init__(self, app: Application, key: Any, tokens: Sequence[str]) -> None:
        self.app = app
        self.check = bare_check(key)
        self.parts = {header_value(token): taken_apart(token) for token in tokens}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Check one signature and pass on."""
        value = next(value for name, value in scope["headers"] if name == b"authorization")
        self.check(*self.parts[value])
        await self.app(scope, receive, send)


def requesting(runner: asyncio.Runner, provider: FakeIssuer, tokens: Sequence[str], others: Sequence[str]) -> list[Row]:
    """Measure requests, each with another token, and take the bare request off."""
    key = provider.keys.current("RS256").private.public_key()
    pyjwt = AuthenticationMiddleware(bare(), backend=JWTBackend(provider.url, key))
    contestants = {
        "bare": asking(runner, bare(), for_ever(tokens)),
        SIGNATURE: asking(runner, OnlySignature(bare(), key, tokens), for_ever(tokens)),
        OURS: entering(runner, provider, tokens, others),
        "peer: AuthenticationMiddleware with PyJWT": asking(runner, pyjwt, for_ever(tokens)),
    }
    timings = interleaved(contestants, TOKENS)
    floor = timings.pop("bare")
    rows = [added(name, timing, floor) for name, timing in timings.items()]
    try:
        dependency = fastapi_jwks(provider.url, {"keys": provider.keys.jwks()})
    except ImportError:
        print("fastapi-jwks: not installed (it needs Python 3.12), left out", end="\n\n")
        return rows
    timing = interleaved({"": depending(runner, dependency, tokens)}, 128, 7)[""]
    ratio = timing.median / floor.median
    return [
        *rows,
        Row("peer: fastapi-jwks, its dependency alone", timing.median, least=timing.least, ratio=ratio, base="bare"),
    ]


def entering(runner: asyncio.Runner, provider: FakeIssuer, tokens: Sequence[str], others: Sequence[str]) -> Contestant:
    """Return the contestant that asks an app behind a service that knows others."""

    async def run(count: int) -> float:
        service = await knowing(provider, others)
        async with service.oidc:
            return await ask(service.app, iter(tokens), count)

    return lambda count: runner.run(run(count))


def depending(
    runner: asyncio.Runner, dependency: Callable[[Request], Awaitable[object]], tokens: Sequence[str]
) -> Contestant:
    """Return the contestant that calls a FastAPI dependency as FastAPI does."""

    async def run(count: int) -> float:
        scopes = [scope_of(token) for token in tokens[:count]]
        start = perf_counter()
        for scope in scopes:
            await dependency(Request(scope))
        return perf_counter() - start

    return lambda count: runner.run(run(count))


if __name__ == "__main__":
    for title, table in rows().items():
        print(markdown(title, table), end="\n\n")
