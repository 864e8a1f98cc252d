"""What it costs that a revocation can end what is open: a request, an open connection, a revocation, and the end."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Any

from services import Service
from table import Contestant, Row, Timing, added, at_most, interleaved, markdown
from traffic import Application, asking, bare, for_ever, header_value, issuer

from oidc_middleware.asgi.exchange import Exchange
from oidc_middleware.asgi.expiries import Expiries
from oidc_middleware.asgi.socket import Socket
from oidc_middleware.asgi.streams import LiveConnections
from oidc_middleware.core.known import Known
from oidc_middleware.core.ledger.records import Record
from oidc_middleware.testing import FakeIssuer

ASKED = 256
ENDING = 1000


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the table of live connections."""
    with asyncio.Runner() as runner:
        return {"Live connections": live_connections(runner, 10_000 if quick else 100_000)}


def live_connections(runner: asyncio.Runner, count: int) -> list[Row]:
    """Measure a request that nothing happens to, and a node on which `count` WebSockets are open."""
    provider = issuer()
    token = provider.token()
    service = Service(provider, bare())
    known = runner.run(service.oidc.authenticator.authenticate(header_value(token)))
    live = service.app.live
    app, tokens = bare(), for_ever([token])
    requests = interleaved(
        {
            "without": asking(runner, without(app), tokens),
            "with": asking(runner, guarded(live, known, app), tokens),
        },
        ASKED,
        rounds=301,
    )
    bytes_each, sockets = opened(runner, live, provider, service, count)
    busy = interleaved(
        {
            "socket": coming_and_going(runner, live, known),
            "expiry": remembering(live),
            "timer": timing(runner),
            "nobody": revoking(runner, live, [record(service, "nobody")]),
        },
        ASKED,
    )
    held, seconds = runner.run(ended(service, provider))
    request = added("a request that is answered in one piece", requests["with"], requests["without"])
    del sockets
    return [
        replace(request, goal=at_most(request.value, 0.1, "µs")),
        row(f"a WebSocket comes and goes, with {count:,} others open", busy["socket"]),
        row("… of it: its end is remembered and forgotten", busy["expiry"]),
        row("peer: a timer of the event loop for it", busy["timer"]),
        row("a revocation that means nobody of them", busy["nobody"]),
        Row("memory for each of them, beside what server and app need", bytes_each, unit="B"),
        Row(f"{ENDING:,} WebSockets end, without a network", seconds * 1e3, unit="ms", goal=at_most(seconds, 1, "s")),
        Row("… the longest turn of the loop", held * 1e3, unit="ms", goal=at_most(held * 1e3, 50, "ms")),
    ]


def row(what: str, timing: Timing) -> Row:
    """Return the row of a timing."""
    return Row(what, timing.median, least=timing.least)


def without(app: Application) -> Application:
    """Return an app behind a door that keeps nothing."""

    async def call(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    return call


def guarded(live: LiveConnections, known: Known, app: Application) -> Application:
    """Return an app behind what `OIDCMiddleware` does once it knows who asks, and that alone."""
    waiting, goes_on = live.waiting, live.goes_on

    async def call(scope: Any, receive: Any, send: Any) -> None:
        exchange = Exchange(known, scope, receive, send, goes_on)
        waiting.add(exchange)
        try:
            await app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            if exchange.track is None or not exchange.track.absorbs(error):
                raise
        finally:
            if exchange.track is None:
                waiting.discard(exchange)
            else:
                await live.left(exchange, exchange.track)

    return call


async def nothing() -> dict[str, Any]:
    """Receive nothing."""
    return {}


async def nowhere(_: Any) -> None:
    """Send nowhere."""


def opened(
    runner: asyncio.Runner, live: LiveConnections, provider: FakeIssuer, service: Service, count: int
) -> tuple[float, list[Socket]]:
    """Open WebSockets of as many subjects; return what is kept of each, in bytes, and all of them."""
    tokens = [provider.token(f"subject-{number}") for number in range(100)]
    knowns = [runner.run(service.oidc.authenticator.authenticate(header_value(token))) for token in tokens]
    keys = service.oidc.mirror.ledger.keys

    def known(number: int) -> Known:
        one = knowns[number % len(knowns)]
        marks = keys.marks({"iss": provider.url, "sub": str(number), "jti": str(number)}, b"").pack()
        return Known(one.value, one.until, 0, 0, one.principal, marks, one.deadline + number % 3600, is_cached=False)

    async def go() -> tuple[float, list[Socket]]:
        owners = [known(number) for number in range(count)]
        tracemalloc.start()
        sockets = [Socket(owner, {}, nothing, nowhere) for owner in owners]
        for socket in sockets:
            live.goes_on(socket, socket.track)
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return taken / count, sockets

    return runner.run(go())


def coming_and_going(runner: asyncio.Runner, live: LiveConnections, known: Known) -> Contestant:
    """Return the contestant that opens and closes a WebSocket."""

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        return

    async def go(count: int) -> float:
        start = perf_counter()
        for _ in range(count):
            await live.serve_websocket(app, known, {}, nothing, nowhere)
        return perf_counter() - start

    return lambda count: runner.run(go(count))


def remembering(live: LiveConnections) -> Contestant:
    """Return the contestant that remembers an end and forgets it, as many others are known."""
    expiries: Expiries[object] = Expiries()
    for number in range(live.stats()["expiring"]):
        expiries.add(number, 1000 + number % 3600)
    things = [object() for _ in range(ASKED)]

    def run(count: int) -> float:
        start = perf_counter()
        for number, thing in enumerate(things[:count]):
            expiries.add(thing, 2000.5 + number)
            expiries.discard(thing, 2000.5 + number)
        return perf_counter() - start

    return run


def timing(runner: asyncio.Runner) -> Contestant:
    """Return the contestant that sets a timer of the loop, and cancels it."""

    async def go(count: int) -> float:
        loop = asyncio.get_running_loop()
        start = perf_counter()
        for number in range(count):
            loop.call_later(2000.5 + number, print).cancel()
        return perf_counter() - start

    return lambda count: runner.run(go(count))


def record(service: Service, subject: str) -> Record:
    """Return the record that revokes a subject."""
    keys, settings = service.oidc.mirror.ledger.keys, service.oidc.settings
    return keys.subject(str(settings.issuer), subject, service.oidc.clock.now(), 3600)


def revoking(runner: asyncio.Runner, live: LiveConnections, records: list[Record]) -> Contestant:
    """Return the contestant that is told of a revocation."""

    async def go(count: int) -> float:
        start = perf_counter()
        for _ in range(count):
            live.on_revoked(records)
        return perf_counter() - start

    return lambda count: runner.run(go(count))


async def ended(service: Service, provider: FakeIssuer) -> tuple[float, float]:
    """End many WebSockets of one subject; return the longest turn of the loop and how long it took, in seconds."""
    known = await service.oidc.authenticator.authenticate(header_value(provider.token("ended")))

    async def app(_: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    def server() -> Callable[[], Any]:
        coming: asyncio.Queue[Any] = asyncio.Queue()
        coming.put_nowait({"type": "websocket.connect"})
        return coming.get

    live = service.app.live
    tasks = [asyncio.create_task(live.serve_websocket(app, known, {}, server(), nowhere)) for _ in range(ENDING)]
    await asyncio.sleep(0.1)
    longest, last, loop = 0.0, perf_counter(), asyncio.get_running_loop()

    def look() -> None:
        nonlocal longest, last
        longest, last = max(longest, perf_counter() - last), perf_counter()
        if not all(task.done() for task in tasks[-10:]):
            loop.call_soon(look)

    start = perf_counter()
    service.oidc.mirror.merge([record(service, "ended")])
    look()
    await asyncio.gather(*tasks)
    return longest, perf_counter() - start


if __name__ == "__main__":
    for title, table in rows(quick=True).items():
        print(markdown(title, table), end="\n\n")
