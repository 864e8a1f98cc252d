"""Live connections, seen from a server's side of ASGI: which ones end, what their apps see, and what is left."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oidc_middleware import OIDC, OIDCMiddleware
from oidc_middleware.asgi import streams
from oidc_middleware.asgi.expiries import Expiries
from oidc_middleware.asgi.index import Index
from oidc_middleware.asgi.waits import Disconnected, Waits
from oidc_middleware.core.ledger.digests import Marks
from oidc_middleware.core.ledger.records import Record
from oidc_middleware.testing import FakeIssuer, ManualClock

pytestmark = pytest.mark.anyio
SECONDS = 20


class Client:
    """One connection to an app, as a server holds it."""

    def __init__(self, app: ASGIApp, token: str, kind: str = "http", path: str = "/") -> None:
        self.sent: list[Message] = []
        self.changed = asyncio.Event()
        self.coming: asyncio.Queue[Message] = asyncio.Queue()
        self.coming.put_nowait({"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request"})
        self.scope = {
            "type": kind,
            "method": "GET",
            "path": path,
            "query_string": b"",
            "headers": [(b"authorization", b"Bearer " + token.encode())],
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "extensions": {"websocket.http.response": {}},
        }
        self.task = asyncio.ensure_future(self._run(app))

    async def _run(self, app: ASGIApp) -> None:
        try:
            await app(self.scope, self.coming.get, self._send)
        finally:
            self.changed.set()

    async def _send(self, message: Message) -> None:
        self.sent.append(message)
        self.changed.set()

    async def until(self, count: int) -> None:
        """Wait until the app has sent so many messages."""
        async with asyncio.timeout(SECONDS):
            while len(self.sent) < count:
                assert not self.task.done() or self.task.result() is not None, self.sent
                self.changed.clear()
                await self.changed.wait()

    async def over(self) -> None:
        """Wait for the app to return; what it raises is raised here."""
        await asyncio.wait_for(asyncio.shield(self.task), SECONDS)


Stand = Callable[..., OIDCMiddleware]


@pytest.fixture
def stand(fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> Stand:
    """Put the door in front of an app."""

    def make(app: ASGIApp, **settings: Any) -> OIDCMiddleware:
        oidc = OIDC(
            issuer=fake_issuer.url,
            audience=fake_issuer.audience,
            transport=fake_issuer.transport(),
            clock=oidc_clock,
            **settings,
        )
        return OIDCMiddleware(app, oidc=oidc)

    return make


async def left(door: OIDCMiddleware) -> None:
    """Wait until nothing is left, and stop the service; no task of ours is there then."""
    async with asyncio.timeout(SECONDS):
        while any(door.live.stats().values()):  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0)
    await door.oidc.stop()
    await asyncio.sleep(0)
    names = {task.get_coro().__qualname__ for task in asyncio.all_tasks() - {asyncio.current_task()}}  # type: ignore[union-attr]
    assert not [name for name in names if "Live" in name or "Client" in name], names


async def listening(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a WebSocket or an event stream until the client is gone."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
    else:
        await receive()
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"Content-Type", b"Text/Event-Stream; a=b")]}
        )
        await send({"type": "http.response.body", "body": b"data: a\n\n", "more_body": True})
    while not (await receive())["type"].endswith(".disconnect"):
        pass


async def test_many_end_together_and_hold_nobody_up(stand: Stand, fake_issuer: FakeIssuer) -> None:
    """500 of each kind, of one subject: no turn of the loop says more than 16 last words."""
    door = stand(listening)
    token = fake_issuer.token("alice")
    clients = [Client(door, token, kind) for kind in ("websocket", "http") for _ in range(500)]
    for client in clients:
        await client.until(1 if client.scope["type"] == "websocket" else 2)
    assert door.live.stats()["expiring"] == 1000
    counts: list[int] = []
    loop = asyncio.get_running_loop()

    def count() -> None:
        counts.append(sum(len(client.sent) > begun[client] for client in clients))
        if counts[-1] < len(clients):
            loop.call_soon(count)

    begun = {client: len(client.sent) for client in clients}
    await door.oidc.revoke.subject("alice")
    count()
    await asyncio.gather(*(client.over() for client in clients))
    count()
    assert max(after - before for before, after in pairwise(counts)) <= streams.SLICE
    for client in clients:
        if client.scope["type"] == "websocket":
            assert client.sent[1:] == [{"type": "websocket.close", "code": 1008, "reason": "revoked"}]
        else:
            assert client.sent[2:] == [{"type": "http.response.body", "body": b"", "more_body": False}]
    await left(door)


async def test_only_who_is_meant_is_looked_at(
    stand: Stand, fake_issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revocation costs as much as it ends, and not as much as is open."""
    door = stand(listening)
    clients = [Client(door, fake_issuer.token(f"user-{number}"), "websocket") for number in range(200)]
    for client in clients:
        await client.until(1)
    asked: list[Marks] = []
    refuses = door.oidc.mirror.ledger.refuses

    def counted(marks: Marks) -> Record | None:
        asked.append(marks)
        return refuses(marks)

    monkeypatch.setattr(door.oidc.mirror.ledger, "refuses", counted)
    await door.oidc.revoke.subject("user-7")
    await clients[7].over()
    assert len(asked) == 1
    assert sum(client.task.done() for client in clients) == 1
    for client in clients:
        client.coming.put_nowait({"type": "websocket.disconnect"})
    await asyncio.gather(*(client.over() for client in clients))
    await left(door)


WAYS: dict[str, Callable[[OIDC], Awaitable[object]]] = {
    "token": lambda oidc: oidc.revoke.token(jti="jti-1"),
    "session": lambda oidc: oidc.revoke.session("sid-1"),
    "subject": lambda oidc: oidc.revoke.subject("sub-1"),
    "client": lambda oidc: oidc.revoke.client("client-1"),
}


@pytest.mark.parametrize("way", WAYS)
async def test_each_way_to_revoke_ends_what_it_means(stand: Stand, fake_issuer: FakeIssuer, way: str) -> None:
    door = stand(listening)

    def token(number: int) -> str:
        claims = {"jti": f"jti-{number}", "sid": f"sid-{number}"}
        return fake_issuer.token(f"sub-{number}", client_id=f"client-{number}", claims=claims)

    meant, other = Client(door, token(1), "websocket"), Client(door, token(2), "websocket")
    await meant.until(1)
    await other.until(1)
    await WAYS[way](door.oidc)
    await meant.over()
    assert meant.sent[-1] == {"type": "websocket.close", "code": 1008, "reason": "revoked"}
    assert not other.task.done()
    other.coming.put_nowait({"type": "websocket.disconnect"})
    await other.over()
    await left(door)


async def test_what_was_issued_later_stays_open(stand: Stand, fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    """A cut-off means what was issued until then: whoever logged in again since is found by it, and goes on."""
    door = stand(listening, leeway=0)
    before = oidc_clock.now() - 60
    old = Client(door, fake_issuer.token(claims={"iat": before - 1}), "websocket")
    new = Client(door, fake_issuer.token(claims={"iat": before + 30}), "websocket")
    await old.until(1)
    await new.until(1)
    await door.oidc.revoke.subject("alice", issued_before=before)
    await old.over()
    assert (len(new.sent), new.task.done()) == (1, False)
    await door.oidc.revoke.subject("alice")
    await new.over()
    assert new.sent[-1]["code"] == 1008
    await left(door)


async def test_a_request_that_was_answered_is_left_alone(stand: Stand, fake_issuer: FakeIssuer) -> None:
    """Its background task goes on, whatever becomes of the identity."""
    go_on = asyncio.Event()

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})
        await go_on.wait()
        assert (await receive())["type"] == "http.request"

    door = stand(app)
    client = Client(door, fake_issuer.token())
    await client.until(2)
    await door.oidc.revoke.subject("alice")
    await asyncio.sleep(0.05)
    go_on.set()
    await client.over()
    assert [message["type"] for message in client.sent] == ["http.response.start", "http.response.body"]
    await left(door)


@pytest.mark.parametrize("slow", [False, True])
async def test_a_handler_that_revokes_its_own_token_answers(
    stand: Stand, fake_issuer: FakeIssuer, *, slow: bool
) -> None:
    """It has half a second for its answer; after that the request is refused as any other."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await OIDC.from_scope(scope).revoke.token(scope["user"])
        if slow:
            assert (await receive())["type"] == "http.request"
            assert (await receive())["type"] == "http.disconnect"
        await PlainTextResponse("logged out")(scope, receive, send)

    door = stand(app)
    client = Client(door, fake_issuer.token())
    await client.over()
    assert [message.get("status") for message in client.sent] == [401 if slow else 200, None]
    await left(door)


async def test_a_body_that_begins_after_the_revocation_is_cut(stand: Stand, fake_issuer: FakeIssuer) -> None:
    """The half second is for an answer, and not for the beginning of a long one."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await door.oidc.revoke.token(scope["user"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(0.01)

    door = stand(app)
    client = Client(door, fake_issuer.token())
    await client.over()
    assert client.sent[-1]["more_body"]
    await left(door)


@pytest.mark.parametrize("how", ["expired", "revoked"])
async def test_an_error_of_the_app_is_not_hidden(stand: Stand, fake_issuer: FakeIssuer, how: str) -> None:
    """What is not about the disconnect goes on to the server, as without us."""

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        raise ZeroDivisionError(how)

    door = stand(app)
    client = Client(door, fake_issuer.token(), "websocket")
    await client.until(1)
    if how == "revoked":
        await door.oidc.revoke.subject("alice")
    else:
        client.coming.put_nowait({"type": "websocket.disconnect"})
    with pytest.raises(ZeroDivisionError):
        await client.over()
    await left(door)


async def test_the_cancellation_of_a_server_goes_through(stand: Stand, fake_issuer: FakeIssuer) -> None:
    door = stand(listening)
    client = Client(door, fake_issuer.token(), "websocket")
    await client.until(1)
    client.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client.task
    await left(door)


async def test_a_server_that_is_slow_to_take_the_last_word(stand: Stand, fake_issuer: FakeIssuer) -> None:
    """It is left alone with it after a second."""

    async def stuck(message: Message) -> None:
        if message["type"] == "websocket.close":
            await asyncio.sleep(3600)

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_slowly(message: Message) -> None:
            await send(message)
            await stuck(message)

        await door(scope, receive, send_slowly)

    door = stand(listening)
    client = Client(behind, fake_issuer.token(), "websocket")
    await client.until(1)
    await door.oidc.revoke.subject("alice")
    await client.over()
    await left(door)


async def test_two_doors_one_behind_the_other(stand: Stand, fake_issuer: FakeIssuer) -> None:
    """As where an app is mounted in another one: the outer door says the last word."""
    inner = stand(listening)
    door = OIDCMiddleware(inner, oidc=inner.oidc)
    socket, events = Client(door, fake_issuer.token(), "websocket"), Client(door, fake_issuer.token())
    await socket.until(1)
    await events.until(2)
    await door.oidc.revoke.subject("alice")
    await socket.over()
    await events.over()
    assert [message.get("code") for message in socket.sent[1:]] == [1008]
    assert [message["more_body"] for message in events.sent[1:]] == [True, False]
    assert not any(inner.live.stats().values())
    await left(door)


async def pass_on(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    return await call_next(request)


async def tick(_: Request) -> Response:
    async def forever() -> Any:
        while True:
            yield b"data: tick\n\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(forever(), media_type="text/event-stream")


@pytest.mark.parametrize("place", ["inside", "outside"])
async def test_middleware_around_streams(stand: Stand, fake_issuer: FakeIssuer, place: str) -> None:
    """What runs the app in tasks of its own, or holds parts back, is told in all of them."""
    others = [Middleware(BaseHTTPMiddleware, dispatch=pass_on), Middleware(GZipMiddleware)]
    routes = [Route("/", tick)]
    door = stand(Starlette(routes=routes, middleware=others if place == "inside" else []))
    app: ASGIApp = door
    if place == "outside":
        app = BaseHTTPMiddleware(GZipMiddleware(door), dispatch=pass_on)
    client = Client(app, fake_issuer.token())
    await client.until(3)
    await door.oidc.revoke.subject("alice")
    await client.over()
    assert client.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    await left(door)


async def test_a_clock_that_is_set_forward(
    stand: Stand, fake_issuer: FakeIssuer, oidc_clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is a time of day: it is looked at now and then, and not only when a timer of hours has run out."""
    monkeypatch.setattr(streams, "CLOCK_SECONDS", 0.01)
    door = stand(listening)
    client = Client(door, fake_issuer.token(expires_in=3600), "websocket")
    await client.until(1)
    oidc_clock.jump(3629)
    await asyncio.sleep(0.1)
    assert not client.task.done()
    oidc_clock.jump(2)
    await client.over()
    assert client.sent[-1] == {"type": "websocket.close", "code": 1008, "reason": "expired"}
    await left(door)


async def test_the_next_to_expire_is_not_waited_for_behind_others(
    stand: Stand, fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    door = stand(listening, leeway=0)
    late = Client(door, fake_issuer.token(expires_in=3600), "websocket")
    await late.until(1)
    soon = Client(door, fake_issuer.token(expires_in=1), "websocket")
    await soon.until(1)
    oidc_clock.jump(1)
    async with asyncio.timeout(streams.CLOCK_SECONDS - 1):
        await soon.over()
    assert not late.task.done()
    late.coming.put_nowait({"type": "websocket.disconnect"})
    await late.over()
    await left(door)


@pytest.mark.parametrize("anyio_backend", [None])
def test_one_loop_after_the_other(stand: Stand, fake_issuer: FakeIssuer, anyio_backend: None) -> None:
    """A loop that was closed with connections on it leaves nothing that stands in the way of the next."""
    door = stand(listening)

    async def leave_open() -> None:
        client = Client(door, fake_issuer.token(), "websocket")
        await client.until(1)
        client.task.cancel()

    async def revoke() -> None:
        client = Client(door, fake_issuer.token(), "websocket")
        await client.until(1)
        await door.oidc.revoke.subject("alice")
        await client.over()
        assert client.sent[-1]["code"] == 1008
        await left(door)

    asyncio.run(leave_open())
    asyncio.run(revoke())


async def test_nothing_of_a_request_is_shown(stand: Stand, fake_issuer: FakeIssuer) -> None:
    """An app that prints what it got prints no token."""
    token = fake_issuer.token()
    shown: list[str] = []

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        shown.extend((repr(receive), repr(send)))

    door = stand(app)
    await Client(door, token).over()
    assert len(shown) == 2
    assert not any(part in text for text in shown for part in token.split("."))
    await left(door)


async def mixed(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve WebSockets and event streams until their clients go, and answer or send bodies of some length to others."""
    if scope["type"] == "websocket" or scope["path"] == "/events":
        await listening(scope, receive, send)
        return
    for _ in range(len(scope["path"])):
        await asyncio.sleep(0.001)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for more in (True, True, False):
        await send({"type": "http.response.body", "body": b"x", "more_body": more})
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("seed", range(3))
async def test_clients_come_and_go_while_others_are_revoked(stand: Stand, fake_issuer: FakeIssuer, seed: int) -> None:
    """Whatever the order: who is revoked has nothing open, the others have, and nothing else is left."""
    chance = random.Random(seed)
    door = stand(mixed)
    tokens = {f"user-{number}": fake_issuer.token(f"user-{number}") for number in range(20)}
    revoked: set[str] = set()
    clients: list[tuple[str, Client]] = []
    for _ in range(1500):
        subject = chance.choice(list(tokens))
        step = chance.random()
        if step < 0.6:
            kind, path = chance.choice(
                [("websocket", "/"), ("http", "/events"), ("http", "/short"), ("http", "/long/er")]
            )
            clients.append((subject, Client(door, tokens[subject], kind, path)))
        elif step < 0.9 and clients:
            gone = chance.choice(clients)[1]
            gone.coming.put_nowait({"type": f"{gone.scope['type']}.disconnect"})
        elif step < 0.91 and len(revoked) < 10:
            revoked.add(subject)
            await door.oidc.revoke.subject(subject)
        if chance.random() < 0.3:
            await asyncio.sleep(0)
    for subject, client in clients:
        if subject in revoked:
            await client.over()
    for _, client in clients:
        client.coming.put_nowait({"type": f"{client.scope['type']}.disconnect"})
    for _, client in clients:
        await client.over()
    await left(door)


# ---------------------------------------------------------------------------------------------------------------- waits


async def test_a_wait_ends_and_leaves_the_task_as_it_was() -> None:
    waits = Waits()
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(waits.end)
    with pytest.raises(Disconnected):
        await waits.call(asyncio.sleep, 3600)
    assert task.cancelling() == 0
    with pytest.raises(Disconnected):
        await waits.call(asyncio.sleep, 0)
    await asyncio.sleep(0)


async def test_a_wait_in_a_group_and_under_a_timeout() -> None:
    """Neither of them takes it for its own."""
    waits = Waits()
    ended: list[str] = []

    async def wait() -> None:
        try:
            async with asyncio.timeout(3600):
                await waits.call(asyncio.sleep, 3600)
        except Disconnected:
            ended.append("disconnected")
        await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(wait())
        group.create_task(wait())
        await asyncio.sleep(0)
        waits.end()
        waits.end()
    async with anyio.create_task_group() as others:
        others.start_soon(wait)
    assert ended == ["disconnected"] * 3


@pytest.mark.parametrize("first", ["we", "they"])
async def test_a_wait_that_is_ended_and_cancelled_at_once(first: str) -> None:
    """Whoever cancels the task has it cancelled."""
    waits = Waits()
    task = asyncio.ensure_future(waits.call(asyncio.sleep, 3600))
    await asyncio.sleep(0)
    steps: list[Callable[[], object]] = [waits.end, task.cancel]
    for step in steps if first == "we" else reversed(steps):
        step()
    with pytest.raises(asyncio.CancelledError):
        await task


class Foreign:
    """A future that is none of asyncio's, as granian's are: what cancels it leaves no word of its own."""

    def __init__(self) -> None:
        self._asyncio_future_blocking = False
        self._future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._future, name)

    def add_done_callback(self, call: Callable[..., object], *, context: Any = None) -> None:
        self._future.add_done_callback(lambda _: call(self), context=context)

    def cancel(self, msg: object = None) -> bool:
        self._future.cancel()
        return True

    def result(self) -> None:
        if self._future.cancelled():
            raise asyncio.CancelledError("Future cancelled.")

    def __await__(self) -> Any:
        self._asyncio_future_blocking = True
        yield self
        return self.result()


async def foreign() -> None:
    await Foreign()


@pytest.mark.parametrize("wait", [lambda: asyncio.sleep(3600), foreign], ids=["asyncio", "foreign"])
@pytest.mark.parametrize("first", ["we", "they"])
async def test_a_wait_that_is_ended_when_a_scope_is_cancelled(first: str, wait: Callable[[], Awaitable[None]]) -> None:
    """The scope takes back its own, as where Starlette asks whether the client is gone."""
    waits = Waits()
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    if first == "we":
        loop.call_soon(waits.end)
    with anyio.CancelScope() as scope, suppress(Disconnected):
        scope.cancel()
        if first == "they":
            loop.call_soon(waits.end)
        await waits.call(wait)
    assert waits.is_over
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_a_wait_whose_answer_comes_in_the_turn_in_which_it_is_ended() -> None:
    waits = Waits()
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait() -> int:
        return await answer

    task = asyncio.ensure_future(waits.call(wait))
    await asyncio.sleep(0)
    answer.set_result(1)
    waits.end()
    with pytest.raises(Disconnected):
        await task


async def test_a_wait_that_does_not_let_itself_be_cancelled() -> None:
    """What it returns counts, and the task is as it was."""
    waits = Waits()

    async def stubborn() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        return "done"

    async def outer() -> tuple[str, int]:
        found = await waits.call(stubborn)
        task = asyncio.current_task()
        assert task is not None
        return found, task.cancelling()

    task = asyncio.ensure_future(outer())
    await asyncio.sleep(0)
    waits.end()
    assert await task == ("done", 0)


# ------------------------------------------------------------------------------------------------- index, expiries


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 3))))
def test_an_index_is_what_a_set_of_pairs_would_be(steps: list[tuple[bool, int, int]]) -> None:
    index: Index[int] = Index()
    pairs: set[tuple[int, int]] = set()
    for adds, digest, thing in steps:
        if adds:
            index.add(digest, thing)
            pairs.add((digest, thing))
        else:
            index.discard(digest, thing)
            pairs.discard((digest, thing))
        assert {(digest, thing) for digest in range(4) for thing in index.find(digest)} == pairs
        assert (len(index), bool(index)) == (len(pairs), bool(pairs))


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 9), st.floats(0, 20)),
            st.tuples(st.just("discard"), st.integers(0, 9), st.just(0.0)),
            st.tuples(st.just("due"), st.just(0), st.floats(0, 20)),
        )
    )
)
def test_expiries_are_what_a_list_would_be(steps: list[tuple[str, int, float]]) -> None:
    expiries: Expiries[int] = Expiries()
    ends: dict[int, float] = {}
    for step, thing, time in steps:
        if step == "add" and thing not in ends:
            ends[thing] = time
            expiries.add(thing, time)
        elif step == "discard" and thing in ends:
            expiries.discard(thing, ends.pop(thing))
        elif step == "due":
            over = {thing for thing, end in ends.items() if -(-end // 1) <= time}
            assert set(expiries.due(time)) == over
            ends = {thing: end for thing, end in ends.items() if thing not in over}
        assert len(expiries) == len(ends)
        assert expiries.next == min((-(-end // 1) for end in ends.values()), default=None)


def test_those_who_come_and_go_leave_nothing_behind() -> None:
    """Many connections of one token: its second is remembered once, until it has passed."""
    expiries: Expiries[int] = Expiries()
    for thing in range(1000):
        expiries.add(thing, 10.5)
        expiries.discard(thing, 10.5)
    assert len(expiries._seconds) == 1
    assert expiries.due(11) == []
    assert (expiries._seconds, expiries._queued, expiries._by_second) == ([], set(), {})
