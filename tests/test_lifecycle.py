"""The life cycle: with a lifespan, without one, shared, nested, mounted; and what an app that fails leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from lifecycle_kit import Lifespan, ask, http_scope, no_task_left, started, until, who
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from oidc_middleware import OIDC, OIDCMiddleware
from oidc_middleware.testing import FakeIssuer, ManualClock, faults

pytestmark = pytest.mark.anyio

MakeOIDC = Callable[..., OIDC]


@pytest.fixture
def issuer(fake_issuer_factory: Callable[..., FakeIssuer]) -> FakeIssuer:
    return fake_issuer_factory(algorithms=("ES256",))


def others_of(issuers: Iterable[FakeIssuer]) -> list[dict[str, Any]]:
    return [{"issuer": one.url, "audience": one.audience} for one in issuers]


@pytest.fixture
def make_oidc(issuer: FakeIssuer, oidc_clock: ManualClock) -> MakeOIDC:
    def make(*others: FakeIssuer, **settings: Any) -> OIDC:
        one: dict[str, Any] = {"issuer": issuer.url, "audience": issuer.audience}
        defaults = {"issuers": [one, *others_of(others)]} if settings.pop("all_issuers", False) else one
        return OIDC(clock=oidc_clock, transport=issuer.transport(*others), **(defaults | settings))

    return make


@pytest.fixture
def oidc(make_oidc: MakeOIDC) -> OIDC:
    return make_oidc(public=["/health"])


async def greet(request: Request) -> Response:
    return PlainTextResponse(request.user.subject)


def starlette_app(oidc: OIDC, lifespan: Any = None) -> Starlette:
    return Starlette(routes=[Route("/", greet)], middleware=[Middleware(OIDCMiddleware, oidc=oidc)], lifespan=lifespan)


# With a lifespan


async def test_the_service_runs_from_before_the_apps_start_to_after_its_end(oidc: OIDC, issuer: FakeIssuer) -> None:
    seen = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, str]]:
        seen.append(oidc.started)
        yield {"mine": "kept"}
        seen.append(oidc.started)

    async with no_task_left():
        server = Lifespan(starlette_app(oidc, lifespan))
        assert await server.startup() == "startup.complete"
        await until(lambda: oidc.ready)  # without any request
        assert await server.shutdown() == "shutdown.complete"
        assert (seen, oidc.started) == ([True, True], False)
    assert issuer.requests == {"discovery": 1, "jwks": 1}


@pytest.mark.parametrize("when", ["start", "end"])
async def test_an_app_that_fails_leaves_nothing_running(oidc: OIDC, issuer: FakeIssuer, when: str) -> None:
    """The app's own error reaches the server, the service is stopped, and so is the fetch that was under way."""
    issuer.fault("*", faults.held(asyncio.Event()))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await until(lambda: bool(issuer.requests))
        if when == "start":
            raise RuntimeError("the app is broken")
        yield
        raise RuntimeError("the app is broken")

    async with no_task_left():
        server = Lifespan(starlette_app(oidc, lifespan))
        if when == "start":
            assert await server.startup() == "startup.failed"
            await asyncio.wait((server.task,))
        else:
            assert await server.startup() == "startup.complete"
            assert await server.shutdown() == "shutdown.failed"
        assert "the app is broken" in server.answers[-1]["message"]
        assert isinstance(server.error, RuntimeError)
        assert not started(oidc)


@pytest.mark.parametrize("receives_first", [False, True])
async def test_an_app_without_lifespan_says_so_and_the_first_request_starts(
    oidc: OIDC, issuer: FakeIssuer, *, receives_first: bool
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if receives_first and scope["type"] == "lifespan":
            await receive()
        await who(scope, receive, send)

    door = OIDCMiddleware(app, oidc=oidc)
    async with no_task_left():
        server = Lifespan(door)
        assert await server.startup() == "raised"
        assert isinstance(server.error, AssertionError)
        assert not started(oidc)
    assert (await ask(door, http_scope("/", issuer.token("alice")))).body == b"alice"
    assert started(oidc)
    await oidc.stop()


async def test_an_app_that_ignores_the_lifespan_keeps_the_service_stopped(oidc: OIDC) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await who(scope, receive, send)

    server = Lifespan(OIDCMiddleware(app, oidc=oidc))
    assert await server.startup() == "returned"
    assert not started(oidc)


async def test_a_lifespan_cancelled_while_the_app_starts(oidc: OIDC, issuer: FakeIssuer) -> None:
    issuer.fault("*", faults.held(asyncio.Event()))
    entered = asyncio.Event()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        entered.set()
        await asyncio.Event().wait()
        yield

    async with no_task_left():
        server = Lifespan(starlette_app(oidc, lifespan))
        starting = asyncio.ensure_future(server.startup())
        await entered.wait()
        server.task.cancel()
        await asyncio.wait((server.task,))
        assert server.task.cancelled()
        assert not started(oidc)
        starting.cancel()
        await asyncio.wait((starting,))


async def test_an_app_may_be_started_again_after_its_end(oidc: OIDC, issuer: FakeIssuer) -> None:
    app = starlette_app(oidc)
    for _ in range(3):
        server = Lifespan(app)
        await server.startup()
        assert (await ask(app, http_scope("/", issuer.token("alice")))).body == b"alice"
        await server.shutdown()
        assert not started(oidc)
    assert issuer.requests["jwks"] == 1


async def test_a_start_needs_no_issuer(oidc: OIDC, issuer: FakeIssuer) -> None:
    """Readiness is what `health` tells; a request meanwhile is answered with 503."""
    issuer.fault("*", faults.down())
    app = starlette_app(oidc)
    async with no_task_left():
        server = Lifespan(app)
        assert await server.startup() == "startup.complete"
        assert (await ask(app, http_scope("/oauth2/health"))).status == 503
        assert (await ask(app, http_scope("/", issuer.token()))).status == 503
        await server.shutdown()


# Start and stop


async def test_starts_and_stops_are_counted(oidc: OIDC) -> None:
    await oidc.start()
    await oidc.start()
    await oidc.stop()
    assert started(oidc)
    await oidc.stop()
    assert not started(oidc)
    await oidc.stop()  # one too many takes nothing from the next start
    await oidc.start()
    assert started(oidc)
    await oidc.stop()
    assert not started(oidc)


async def test_async_with_is_start_and_stop(oidc: OIDC) -> None:
    async with no_task_left():
        async with oidc as same:
            assert same is oidc
            async with oidc:
                pass
            assert started(oidc)
        assert not started(oidc)


async def test_several_at_once(oidc: OIDC, issuer: FakeIssuer) -> None:
    async with no_task_left():
        await asyncio.gather(*(oidc.start() for _ in range(20)))
        await until(lambda: oidc.ready)
        await asyncio.gather(*(oidc.stop() for _ in range(20)))
        assert not started(oidc)
    assert issuer.requests == {"discovery": 1, "jwks": 1}


async def test_a_stop_that_is_cancelled_leaves_nothing_running(
    make_oidc: MakeOIDC, fake_issuer_factory: Callable[..., FakeIssuer], issuer: FakeIssuer
) -> None:
    """Also of the second issuer, for which it did not come to wait."""
    second = fake_issuer_factory("https://second.example", algorithms=("ES256",))
    for one in (issuer, second):
        one.fault("*", faults.held(asyncio.Event()))
    oidc = make_oidc(second, all_issuers=True)
    before = asyncio.all_tasks()
    await oidc.start()
    await until(lambda: bool(issuer.requests and second.requests))
    stopping = asyncio.ensure_future(oidc.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.wait((stopping,))
    assert stopping.cancelled()
    async with asyncio.timeout(3):  # a fetch would give up by itself after 5
        await until(lambda: asyncio.all_tasks() <= before)


async def test_a_start_while_it_stops_wins(
    make_oidc: MakeOIDC, fake_issuer_factory: Callable[..., FakeIssuer], issuer: FakeIssuer
) -> None:
    """Both issuers are loaded, though the stop was still waiting for the first one."""
    second = fake_issuer_factory("https://second.example", algorithms=("ES256",))
    for one in (issuer, second):
        one.fault("discovery", faults.held(asyncio.Event()), times=1)
    oidc = make_oidc(second, all_issuers=True)
    async with no_task_left():
        await oidc.start()
        await until(lambda: bool(issuer.requests and second.requests))
        stopping = asyncio.ensure_future(oidc.stop())
        await asyncio.sleep(0)
        await oidc.start()
        await stopping
        await until(lambda: oidc.ready)
        await oidc.stop()


# Without a lifespan of its own


async def test_a_mounted_app_starts_with_its_first_request(oidc: OIDC, issuer: FakeIssuer) -> None:
    """Starlette sends no lifespan to what is mounted."""
    outer = Starlette(routes=[Mount("/api", starlette_app(oidc)), Route("/open", lambda _: PlainTextResponse("open"))])
    server = Lifespan(outer)
    await server.startup()
    assert (await ask(outer, http_scope("/open"))).body == b"open"
    assert not started(oidc)
    assert (await ask(outer, http_scope("/api/"))).status == 401
    assert started(oidc)
    assert (await ask(outer, http_scope("/api/", issuer.token("alice")))).body == b"alice"
    assert await server.shutdown() == "shutdown.complete"
    await oidc.stop()


async def test_a_public_path_starts_it_too(oidc: OIDC) -> None:
    door = OIDCMiddleware(who, oidc=oidc)
    assert (await ask(door, http_scope("/health"))).body == b"nobody"
    await until(lambda: oidc.ready)
    await oidc.stop()


async def test_the_first_requests_together_start_it_once(oidc: OIDC, issuer: FakeIssuer) -> None:
    door = OIDCMiddleware(who, oidc=oidc)
    async with no_task_left():
        answers = await asyncio.gather(*(ask(door, http_scope("/", issuer.token(f"u{n}"))) for n in range(50)))
        assert [answer.body for answer in answers] == [f"u{n}".encode() for n in range(50)]
        await oidc.stop()
        assert not started(oidc)


@pytest.mark.parametrize("first", ["stays", "is cancelled"])
async def test_500_first_requests_ask_the_issuer_once(oidc: OIDC, issuer: FakeIssuer, first: str) -> None:
    """J-singleflight, at the door."""
    release = asyncio.Event()
    issuer.fault("*", faults.held(release), times=1)
    door = OIDCMiddleware(who, oidc=oidc)
    async with no_task_left():
        requests = [asyncio.ensure_future(ask(door, http_scope("/", issuer.token(f"u{n}")))) for n in range(500)]
        await until(lambda: bool(issuer.requests))
        if first == "is cancelled":
            requests[0].cancel()
        release.set()
        answers = await asyncio.gather(*requests, return_exceptions=True)
        await oidc.stop()
    if first == "is cancelled":
        assert isinstance(answers.pop(0), asyncio.CancelledError)
    assert {answer.status for answer in answers if not isinstance(answer, BaseException)} == {200}
    assert len(answers) == (499 if first == "is cancelled" else 500)
    assert issuer.requests == {"discovery": 1, "jwks": 1}


# Several


async def test_two_middlewares_share_one_service(oidc: OIDC, issuer: FakeIssuer) -> None:
    one, other = (starlette_app(oidc) for _ in range(2))
    first, second = Lifespan(one), Lifespan(other)
    await first.startup()
    await second.startup()
    await first.shutdown()
    assert started(oidc)
    assert (await ask(one, http_scope("/", issuer.token("alice")))).status == 200
    assert (await ask(other, http_scope("/", issuer.token("alice")))).status == 200
    await second.shutdown()
    assert not started(oidc)
    assert issuer.requests == {"discovery": 1, "jwks": 1}


async def test_two_services_share_nothing(
    make_oidc: MakeOIDC, fake_issuer_factory: Callable[..., FakeIssuer], issuer: FakeIssuer
) -> None:
    """Same key ids, same paths, same subjects: what one knows, the other does not."""
    other = fake_issuer_factory("https://other.example", algorithms=("ES256",))
    ours = OIDCMiddleware(who, oidc=make_oidc(other, public=["/open"]))
    same = OIDCMiddleware(who, oidc=make_oidc(other))
    theirs = OIDCMiddleware(who, oidc=make_oidc(other, issuer=other.url, realm="theirs"))
    token, foreign = issuer.token("alice"), other.token("alice")
    assert [(await ask(door, http_scope("/", token))).status for door in (ours, same, theirs)] == [200, 200, 401]
    assert [(await ask(door, http_scope("/", foreign))).status for door in (ours, same, theirs)] == [401, 401, 200]
    assert [(await ask(door, http_scope("/open"))).status for door in (ours, same, theirs)] == [200, 401, 401]
    assert 'realm="theirs"' in (await ask(theirs, http_scope("/"))).headers["www-authenticate"]
    assert (issuer.requests["jwks"], other.requests["jwks"]) == (2, 1)
    for door in (ours, same, theirs):
        await door.oidc.stop()


async def test_a_door_behind_a_door(
    make_oidc: MakeOIDC, fake_issuer_factory: Callable[..., FakeIssuer], issuer: FakeIssuer
) -> None:
    """Both must let the request in, each by its own policy; the app sees what the inner one says."""
    inner = OIDCMiddleware(who, oidc=make_oidc(public=["/open"], rules=[{"path": "/admin", "scopes": ["admin"]}]))
    outer = OIDCMiddleware(inner, oidc=make_oidc(public=["/health"]))
    assert (await ask(outer, http_scope("/health"))).status == 401  # public outside only
    assert (await ask(outer, http_scope("/open"))).status == 401  # public inside only
    assert (await ask(outer, http_scope("/open", issuer.token("alice")))).body == b"nobody"
    assert (await ask(outer, http_scope("/", issuer.token("alice")))).body == b"alice"
    assert (await ask(outer, http_scope("/admin", issuer.token("alice")))).status == 403
    assert (await ask(outer, http_scope("/admin", issuer.token("root", scope="admin")))).body == b"root"
    await asyncio.gather(inner.oidc.stop(), outer.oidc.stop())


async def test_the_lifespan_reaches_both_of_two_doors(make_oidc: MakeOIDC) -> None:
    app = starlette_app(make_oidc())
    outer = OIDCMiddleware(app, oidc=make_oidc())
    async with no_task_left():
        server = Lifespan(outer)
        await server.startup()
        await until(lambda: outer.oidc.ready)
        await server.shutdown()
        assert not started(outer.oidc)


async def test_a_scope_of_another_kind_is_the_apps_business(oidc: OIDC) -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    scope = {"type": "tomorrow"}
    await ask(OIDCMiddleware(app, oidc=oidc), scope)
    assert seen == [scope]
    assert "user" not in scope
