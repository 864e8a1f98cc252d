"""What an opaque token costs: known, beside a known JWT, and the first time, beside what its issuer takes."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import httpx2
from services import Service, introduce
from table import Contestant, Row, added, at_most, in_milliseconds, interleaved, markdown
from traffic import AUDIENCE, Application, ask, asking, bare, for_ever, header_value, issuer, signed

from oidc_middleware import OIDC, OIDCMiddleware
from oidc_middleware.provider.credentials import Basic

KNOWN_LIMIT, COLD_LIMIT = 1.1, 1.0
ASKED, COLD = 1024, 32
CLIENT = ("orders-api", "the secret of the api")
NAME = "https://opaque.example"


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the table of opaque tokens."""
    with served() as port, asyncio.Runner() as runner:
        return {"Opaque tokens": [*known(runner, port), *cold(runner, port, rounds=11 if quick else 61)]}


def known(runner: asyncio.Runner, port: int) -> list[Row]:
    """Measure a request with a token that is known, opaque and a JWT."""
    provider = issuer()
    jwt, opaque = signed(provider, 1), [next(made_up())]
    service, oidc = Service(provider, bare()), introspecting(port)
    runner.run(introduce(service, jwt))
    app = OIDCMiddleware(bare(), oidc=oidc)
    runner.run(oidc.authenticator.authenticate(header_value(opaque[0])))
    timings = interleaved(
        {
            "bare": asking(runner, bare(), for_ever(jwt)),
            "JWT": asking(runner, service.app, for_ever(jwt)),
            "bare, opaque": asking(runner, bare(), for_ever(opaque)),
            "opaque": asking(runner, app, for_ever(opaque)),
        },
        ASKED,
        rounds=61,
    )
    runner.run(oidc.stop())
    of_jwt = timings["JWT"].less(timings["bare"])
    of_opaque = timings["opaque"].less(timings["bare, opaque"])
    ratio = timings["opaque"].over(timings["JWT"])
    more = Row("… the difference of what the two add", of_opaque.less(of_jwt).median, least=None)
    return [
        Row("bare Starlette, a request with 12 headers", timings["bare"].median, least=timings["bare"].least),
        added("a known JWT", timings["JWT"], timings["bare"]),
        added("a known opaque token", timings["opaque"], timings["bare, opaque"]),
        more,
        Row(
            "a request with a known opaque token",
            timings["opaque"].median,
            least=timings["opaque"].least,
            ratio=ratio,
            base="with a known JWT",
            goal=at_most(ratio, KNOWN_LIMIT),
        ),
    ]


def cold(runner: asyncio.Runner, port: int, *, rounds: int) -> list[Row]:
    """Measure the first request of a token, and what the same question takes that is asked by a client alone."""
    oidc = introspecting(port)
    app, tokens = OIDCMiddleware(bare(), oidc=oidc), made_up()
    with_client = runner.run(_opened())
    url = f"http://127.0.0.1:{port}/introspect"
    timings = interleaved(
        {
            "kept": _asking_kept(runner, with_client, url, tokens),
            "new": _asking_anew(runner, url, tokens),
            "ours": _asking(runner, app, tokens),
        },
        COLD,
        rounds=rounds,
    )
    runner.run(with_client.aclose())
    runner.run(oidc.stop())
    beyond = timings["ours"].less(timings["kept"])
    of_ours = in_milliseconds(Row("… of that beyond the provider, ours", beyond.median, least=beyond.least))
    return [
        in_milliseconds(Row("peer: the question alone, httpx2, connection kept", timings["kept"].median)),
        in_milliseconds(Row("peer: the question alone, httpx2, a new connection", timings["new"].median)),
        in_milliseconds(Row("a request with a cold opaque token", timings["ours"].median)),
        replace(of_ours, goal=at_most(of_ours.value, COLD_LIMIT, "ms")),
    ]


def introspecting(port: int) -> OIDC:
    """Return a service that asks over a real socket."""
    return OIDC(
        issuer=NAME,
        audience=AUDIENCE,
        jwks_uri=f"http://127.0.0.1:{port}/jwks",
        client_id=CLIENT[0],
        client_secret=CLIENT[1],
        introspection_endpoint=f"http://127.0.0.1:{port}/introspect",
    )


def made_up() -> Iterator[str]:
    """Yield tokens as many issuers make them: 43 characters by chance."""
    while True:
        yield secrets.token_urlsafe(32)


async def _opened() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(trust_env=False)


def _form(token: str) -> dict[str, str]:
    return {"token": token, "token_type_hint": "access_token"}


def _asking(runner: asyncio.Runner, app: Application, tokens: Iterator[str]) -> Contestant:
    return lambda times: runner.run(ask(app, tokens, times))


def _asking_kept(runner: asyncio.Runner, client: httpx2.AsyncClient, url: str, tokens: Iterator[str]) -> Contestant:
    headers = dict(Basic(*CLIENT).prove().headers)

    async def run(times: int) -> float:
        begin = perf_counter()
        for _ in range(times):
            answer = await client.post(url, data=_form(next(tokens)), headers=headers)
            assert answer.json()["active"] is True
        return perf_counter() - begin

    return lambda times: runner.run(run(times))


def _asking_anew(runner: asyncio.Runner, url: str, tokens: Iterator[str]) -> Contestant:
    headers = dict(Basic(*CLIENT).prove().headers)
    tls = httpx2.create_ssl_context()

    async def run(times: int) -> float:
        begin = perf_counter()
        for _ in range(times):
            async with httpx2.AsyncClient(trust_env=False, verify=tls) as client:
                answer = await client.post(url, data=_form(next(tokens)), headers=headers)
                assert answer.json()["active"] is True
        return perf_counter() - begin

    return lambda times: runner.run(run(times))


@contextmanager
def served() -> Iterator[int]:
    """Serve the issuer in a process of its own until the block ends; yield its port."""
    script = str(Path(__file__).with_name("introspected.py"))
    with subprocess.Popen([sys.executable, script, AUDIENCE], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


if __name__ == "__main__":
    for title, table in rows().items():
        print(markdown(title, table), end="\n\n")
