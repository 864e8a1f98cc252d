"""Two nodes over one Redis: what is revoked on one is refused by the other, also when Redis dies and forgets it.

    python examples/revocation.py           # shows it, then leaves both nodes to you until Ctrl-C
    python examples/revocation.py --check   # shows it and ends: 0 all went as it must, 1 something did not

It starts a Redis of its own: `redis-server` or `valkey-server` has to be on PATH. With `--cache redis://host:6379/0` it
uses yours, with `--cache sqlite:///path` a new file, and kills neither. It leaves nothing behind.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from contextlib import suppress

import httpx2
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from oidc_middleware import OIDC, OIDCMiddleware

from two_nodes import CannotRun, Fleet, Node, Unexpected, running_fleet

# The service. A node is a uvicorn that loads `app` from this file; its settings are OIDC_* variables.


async def hello(request: Request) -> JSONResponse:
    return JSONResponse({"hello": request.user.subject})


async def log_out(request: Request) -> JSONResponse:
    return JSONResponse({"receipt": await OIDC.from_request(request).revoke.token(request.user)})


async def feed(websocket: WebSocket) -> None:
    await websocket.accept()
    with suppress(WebSocketDisconnect):
        await websocket.receive_text()


app = Starlette(
    routes=[
        Route("/hello", hello),
        Route("/log-out", log_out, methods=["POST"]),
        WebSocketRoute("/feed", feed),
    ],
    middleware=[Middleware(OIDCMiddleware, admin_scope="admin")],
)


# What is shown. Times are those of a client here: it asks a node again and again, or is hung up on.


async def others_hear_of_it(fleet: Fleet, a: Node, b: Node, alice: str) -> None:
    print("\nA token is revoked on node A")
    await expect(200, "alice", alice, a, b)
    receipt, took = await revoked_and_refused(a, b, alice)
    tell(f"A revokes it, receipt: {receipt}", receipt == "shared")
    tell(f"B refuses it {took:.1f} ms after A was asked to")
    await expect(401, "alice", alice, a, b)
    others = [await revoked_and_refused(a, b, fleet.issuer.token(f"user-{number}")) for number in range(25)]
    times = sorted(took for _, took in others)
    tell(f"25 more tokens: half of them within {times[12]:.1f} ms, the slowest after {times[-1]:.1f} ms")


async def revoked_and_refused(a: Node, b: Node, token: str) -> tuple[str, float]:
    """Revoke a token on one node while the other is asked again and again; return the receipt and milliseconds."""
    start = time.perf_counter()
    receipt, refused = await asyncio.gather(revoke(a, token), b.refusal(token))
    return receipt, (refused - start) * 1000


async def redis_dies(fleet: Fleet, a: Node, b: Node, alice: str) -> None:
    print("\nRedis is killed, and returns with nothing")
    bob = fleet.issuer.token("bob")
    await expect(200, "bob", bob, a, b)
    fleet.kill_redis()
    tell("Redis is dead")
    start = time.perf_counter()
    receipt = await revoke(a, bob)
    tell(f"A revokes bob's token in {milliseconds(start)}, receipt: {receipt}", receipt == "journaled")
    await expect(401, "bob", bob, a)
    await expect(200, "bob", bob, b)
    tell("...for B cannot know yet; with on_stale=deny it would soon answer 503")
    await fleet.start_redis()
    start = time.perf_counter()
    tell("Redis is back, and empty")
    tell(f"B refuses bob's token {milliseconds(start, await b.refusal(bob))} later")
    await expect(401, "alice", alice, a, b)
    c = await fleet.start_node("C")
    tell("C starts, and has only what Redis has again")
    await asyncio.gather(c.refusal(alice), c.refusal(bob))
    await expect(401, "alice", alice, c)
    await expect(401, "bob", bob, c)


async def connections_end(fleet: Fleet, a: Node, b: Node) -> None:
    print("\nEverything of a subject is revoked while she has a WebSocket open")
    carol, admin = fleet.issuer.token("carol"), fleet.issuer.token("root", scope="admin")
    async with b.feed(carol) as end:
        tell("carol is connected to B")
        start = time.perf_counter()
        answer = await a.ask("POST", "/oauth2/revocations", admin, json={"sub": "carol"})
        tell(f"A is told by an administrator to revoke carol: {answer.text}", answer.status_code == 200)
        code, closed = await end
    tell(f"B closes her WebSocket with {code}, {milliseconds(start, closed)} after A was told", code == 1008)
    await expect(401, "carol", carol, a, b)


async def expect(status: int, whose: str, token: str, *nodes: Node) -> None:
    for node in nodes:
        answer = await node.status(token)
        tell(f"{node.name} answers {whose} with {answer}", answer == status)


async def revoke(node: Node, token: str) -> str:
    receipt: str = (await node.ask("POST", "/log-out", token)).json()["receipt"]
    return receipt


def tell(what: str, good: bool = True) -> None:  # noqa: FBT001, FBT002  it reads well in a line
    print(f"  {what}" if good else f"  FAILED: {what}", flush=True)
    if not good:
        raise Unexpected(what)


def milliseconds(start: float, end: float | None = None) -> str:
    return f"{((end or time.perf_counter()) - start) * 1000:.1f} ms"


async def show(cache: str | None, *, leave: bool) -> None:
    async with running_fleet(cache) as fleet:
        a, b = await asyncio.gather(fleet.start_node("A"), fleet.start_node("B"))
        print(f"Nodes A and B serve {a.url} and {b.url} over {'a Redis' if fleet.has_own_redis else 'your cache'}.")
        alice = fleet.issuer.token("alice")
        await others_hear_of_it(fleet, a, b, alice)
        if fleet.has_own_redis:
            await redis_dies(fleet, a, b, alice)
        await connections_end(fleet, a, b)
        print("\nAll went as it must.", flush=True)
        if leave:
            header = f'-H "Authorization: Bearer {fleet.issuer.token("dave")}"'
            print("Try it, until Ctrl-C:\n")
            print(f"curl -i {header} {b.url}/hello\ncurl -X POST {header} {a.url}/log-out\n", flush=True)
            await asyncio.Event().wait()


async def main() -> int:
    parser = argparse.ArgumentParser(description="Show how a token revoked on one node is refused by another.")
    parser.add_argument("--cache", metavar="URL", help="redis://host:6379/0 or sqlite:///path (a Redis of its own)")
    parser.add_argument("--check", action="store_true", help="end when all is shown, with 0 or 1")
    arguments = parser.parse_args()
    task = asyncio.ensure_future(show(arguments.cache, leave=not arguments.check))
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # on Windows
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return 130
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 2
    except (Unexpected, TimeoutError, httpx2.HTTPError) as error:
        print(f"It did not go as it must: {error!r}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
