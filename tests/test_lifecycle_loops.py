"""Event loops that come and go, threads and forks: the service goes along, or says why it cannot."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest
from lifecycle_kit import Lifespan, ask, http_scope, until, who
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from oidc_middleware import OIDC, OIDCMiddleware
from oidc_middleware.testing import FakeIssuer, ManualClock, faults

Run = Callable[[Awaitable[Any]], Any]


@pytest.fixture
def issuer(fake_issuer_factory: Callable[..., FakeIssuer]) -> FakeIssuer:
    return fake_issuer_factory(algorithms=("ES256",))


@pytest.fixture
def oidc(issuer: FakeIssuer, oidc_clock: ManualClock) -> OIDC:
    return OIDC(
        issuer=issuer.url,
        audience=issuer.audience,
        public=["/health"],
        transport=issuer.transport(),
        clock=oidc_clock,
    )


async def greet(request: Request) -> Response:
    return PlainTextResponse(request.user.subject)


async def greet_websocket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(websocket.user.subject)
    await websocket.close()


async def health(_: Request) -> Response:
    return PlainTextResponse("ok")


@pytest.fixture
def app(oidc: OIDC) -> Starlette:
    routes = [Route("/", greet), Route("/health", health), WebSocketRoute("/ws", greet_websocket)]
    return Starlette(routes=routes, middleware=[Middleware(OIDCMiddleware, oidc=oidc)])


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# TestClient without `with`: each request has a loop of its own, which is closed after it


def test_each_request_in_a_loop_of_its_own(app: Starlette, issuer: FakeIssuer) -> None:
    """What is in memory stays: the issuer is asked once."""
    client = TestClient(app)
    for n in range(20):
        assert client.get("/").status_code == 401
        assert client.get("/", headers=bearer(issuer.token(f"u{n}"))).text == f"u{n}"
    assert issuer.requests == {"discovery": 1, "jwks": 1}


def test_public_requests_first(app: Starlette, issuer: FakeIssuer) -> None:
    """Their loops are closed while the keys are on their way, which harms nobody."""
    client = TestClient(app)
    for _ in range(10):
        assert client.get("/health").text == "ok"
    assert client.get("/", headers=bearer(issuer.token("alice"))).text == "alice"


def test_a_websocket_in_a_loop_of_its_own(app: Starlette, issuer: FakeIssuer) -> None:
    client = TestClient(app, headers=bearer(issuer.token("alice")))
    for _ in range(3):
        with client.websocket_connect("/ws") as websocket:
            assert websocket.receive_text() == "alice"
        assert client.get("/").text == "alice"


def test_with_and_without_in_turn(app: Starlette, issuer: FakeIssuer) -> None:
    headers = bearer(issuer.token("alice"))
    for _ in range(3):
        with TestClient(app, headers=headers) as client:
            assert client.get("/").text == "alice"
        assert TestClient(app, headers=headers).get("/").text == "alice"
    assert issuer.requests["jwks"] == 1


def test_a_mounted_app_behind_a_client_without_lifespan(app: Starlette, issuer: FakeIssuer) -> None:
    client = TestClient(Starlette(routes=[Mount("/api", app)]))
    for _ in range(3):
        assert client.get("/api/", headers=bearer(issuer.token("alice"))).text == "alice"


def test_an_outage_ends_between_two_loops(app: Starlette, issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    client = TestClient(app)
    issuer.fault("*", faults.down())
    assert client.get("/", headers=bearer(issuer.token("alice"))).status_code == 503
    issuer.heal()
    oidc_clock.advance(61)
    assert client.get("/", headers=bearer(issuer.token("alice"))).text == "alice"


# asyncio.run twice


def uvloop_run(main: Any) -> Any:
    """Run in the loop that `uvicorn[standard]` installs."""
    import uvloop

    return uvloop.run(main)


RUNNERS: dict[str, Run] = {"asyncio": asyncio.run}  # type: ignore[dict-item]
if find_spec("uvloop"):
    RUNNERS["uvloop"] = uvloop_run


@pytest.mark.parametrize("stops", [True, False], ids=["stopped", "left running"])
@pytest.mark.parametrize("run", RUNNERS.values(), ids=RUNNERS)
def test_one_loop_after_another(oidc: OIDC, issuer: FakeIssuer, run: Run, *, stops: bool) -> None:
    """D-loop: after its loop was closed it works in the next one, also where nobody stopped it."""
    door = OIDCMiddleware(who, oidc=oidc)

    async def one_life(subject: str) -> None:
        await oidc.start()
        assert (await ask(door, http_scope("/", issuer.token(subject)))).body == subject.encode()
        if stops:
            await oidc.stop()

    for subject in ("alice", "bob", "carol"):
        run(one_life(subject))
    assert issuer.requests == {"discovery": 1, "jwks": 1}


@pytest.mark.parametrize("run", RUNNERS.values(), ids=RUNNERS)
def test_a_loop_that_ends_during_a_fetch(oidc: OIDC, issuer: FakeIssuer, run: Run) -> None:
    """D-loop, never a hang: what was under way died with its loop, and the next one asks anew."""
    issuer.fault("discovery", faults.held(asyncio.Event()), times=1)
    door = OIDCMiddleware(who, oidc=oidc)

    async def cut_short() -> None:
        await oidc.start()
        await until(lambda: bool(issuer.requests))

    async def next_life() -> None:
        assert (await ask(door, http_scope("/", issuer.token("alice")))).body == b"alice"

    run(cut_short())
    run(next_life())


def test_refreshing_ahead_goes_on_in_the_next_loop(oidc: OIDC, issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    async def load() -> None:
        await oidc.start()
        await until(lambda: oidc.ready)

    async def refresh() -> None:
        async with oidc:
            await until(lambda: issuer.requests["jwks"] == 2)

    asyncio.run(load())
    oidc_clock.advance(14 * 60)
    asyncio.run(refresh())


def test_a_stop_in_another_loop_than_the_start_does_nothing(oidc: OIDC) -> None:
    asyncio.run(oidc.start())
    asyncio.run(oidc.stop())


# Two loops at once


@contextmanager
def running_elsewhere(oidc: OIDC) -> Iterator[None]:
    """Keep the service running in the loop of another thread."""
    is_running, leave = threading.Event(), threading.Event()

    async def run() -> None:
        async with oidc:
            is_running.set()
            await asyncio.to_thread(leave.wait)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert is_running.wait(10)
        yield
    finally:
        leave.set()
        thread.join()


def test_two_loops_at_once(oidc: OIDC, app: Starlette, issuer: FakeIssuer) -> None:
    """D-loop: whoever comes second is told, by an error in the log and 500 to the client, and never waits."""
    headers = bearer(issuer.token("alice"))
    with running_elsewhere(oidc):
        with pytest.raises(RuntimeError, match="build one OIDC for each loop"):
            TestClient(app).get("/", headers=headers)
        client = TestClient(app, raise_server_exceptions=False)
        assert client.get("/", headers=headers).status_code == 500
        assert client.get("/health").status_code == 500
        with pytest.raises(RuntimeError, match="build one OIDC for each loop"), client.websocket_connect("/ws"):
            pass
    assert TestClient(app).get("/", headers=headers).text == "alice"  # now it may move


def test_a_lifespan_in_a_second_loop_fails_to_start(oidc: OIDC, app: Starlette) -> None:
    """So that the server ends with the cause, where it would go on without lifespan if the app just raised."""

    async def start() -> None:
        server = Lifespan(app)
        assert await server.startup() == "startup.failed"
        await asyncio.wait((server.task,))
        assert server.answers == [
            {
                "type": "lifespan.startup.failed",
                "message": "this OIDC runs on another event loop; build one OIDC for each loop",
            }
        ]

    with running_elsewhere(oidc):
        asyncio.run(start())


def test_one_service_for_each_loop(issuer: FakeIssuer, oidc: OIDC) -> None:
    """Two services of the same settings may run at once."""
    other = OIDC(oidc.settings, transport=issuer.transport())
    door = OIDCMiddleware(who, oidc=other)
    with running_elsewhere(oidc):
        assert asyncio.run(ask(door, http_scope("/", issuer.token("alice")))).body == b"alice"


# Forks, as a preloading server makes them


def in_a_fork(work: Callable[[], str]) -> str:
    """Run `work` in a forked process and return its text."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, work().encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # pytest's own threads
@pytest.mark.parametrize("was_used", [False, True], ids=["fresh", "used before"])
def test_forked_processes_work_and_differ(oidc: OIDC, issuer: FakeIssuer, *, was_used: bool) -> None:
    """Each serves, and they refresh at different moments."""
    door = OIDCMiddleware(who, oidc=oidc)

    async def serve() -> str:
        answer = await ask(door, http_scope("/", issuer.token("alice")))
        return f"{answer.body.decode()} {oidc._random.random()}"

    if was_used:
        asyncio.run(serve())
    answers = [in_a_fork(lambda: asyncio.run(serve())) for _ in range(3)]
    assert {answer.split()[0] for answer in answers} == {"alice"}
    assert len({answer.split()[1] for answer in answers}) == 3
