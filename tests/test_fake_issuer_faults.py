"""How the fake issuer rotates and breaks its keys, fails, and counts: in process and over a socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest
from httpx2 import AsyncClient

from oidc_middleware.clock import Clock
from oidc_middleware.testing import FakeIssuer, ManualClock, faults, make_key
from oidc_middleware.testing.keys import Rotation

pytestmark = pytest.mark.anyio

Factory = Callable[..., FakeIssuer]


@pytest.fixture(params=["in process", "socket"])
async def client(request: pytest.FixtureRequest, fake_issuer: FakeIssuer) -> AsyncIterator[AsyncClient]:
    """Reach `fake_issuer` in both ways."""
    async with contextlib.AsyncExitStack() as stack:
        transport = None
        if request.param == "socket":
            await stack.enter_async_context(fake_issuer.serve())
        else:
            transport = fake_issuer.transport()
        yield await stack.enter_async_context(AsyncClient(transport=transport, trust_env=False, timeout=5))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a state that no event announces."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - counters and task lists have no event to wait for
            await asyncio.sleep(0.001)


def kids(issuer: FakeIssuer) -> list[str]:
    return [key["kid"] for key in issuer.keys.jwks()]


@pytest.mark.parametrize(
    ("how", "published", "signs"),
    [
        ("overlap", ["rs256-1", "rs256-2"], "rs256-2"),
        ("replace", ["rs256-2"], "rs256-2"),
        ("pre-publish", ["rs256-1", "rs256-2"], "rs256-1"),
    ],
)
def test_keys_rotate_in_three_ways(fake_issuer: FakeIssuer, how: Rotation, published: list[str], signs: str) -> None:
    new = fake_issuer.rotate(how)

    assert (kids(fake_issuer), fake_issuer.keys.current().kid) == (published, signs)
    fake_issuer.keys.activate(new)
    assert fake_issuer.keys.current().kid == "rs256-2"


def test_an_unknown_rotation_is_a_mistake_of_the_test(fake_issuer: FakeIssuer) -> None:
    with pytest.raises(ValueError, match="cannot rotate by 'twist'"):
        fake_issuer.rotate("twist")  # type: ignore[arg-type]
    assert kids(fake_issuer) == ["rs256-1"]


def test_other_algorithms_keep_their_key(fake_issuer_factory: Factory) -> None:
    issuer = fake_issuer_factory(algorithms=("RS256", "ES256"))
    issuer.rotate("replace", "ES256")

    assert kids(issuer) == ["rs256-1", "es256-2"]


def test_a_key_can_be_withdrawn_and_corrupted(fake_issuer: FakeIssuer) -> None:
    old, new = fake_issuer.keys.current(), fake_issuer.rotate()
    fake_issuer.keys.corrupt(new, n="AA", use=None)
    assert fake_issuer.keys.jwks()[1] == {"kty": "RSA", "n": "AA", "e": "AQAB", "kid": "rs256-2", "alg": "RS256"}

    fake_issuer.keys.withdraw(old)
    assert kids(fake_issuer) == ["rs256-2"]
    with pytest.raises(ValueError, match=r"not in list"):
        fake_issuer.keys.withdraw(old)


async def test_anything_can_stand_in_the_jwks(fake_issuer: FakeIssuer, client: AsyncClient) -> None:
    fake_issuer.extra_jwks += [{"kty": "AKP", "alg": "ML-DSA-65"}, "no key", None]
    fake_issuer.keys.publish(make_key("ES256", kid="rs256-1"))

    keys = (await client.get(fake_issuer.endpoint("jwks"))).json()["keys"]

    assert [key["kty"] for key in keys[:3]] == ["RSA", "EC", "AKP"]
    assert keys[3:] == ["no key", None]


async def test_the_metadata_can_lie(fake_issuer: FakeIssuer, client: AsyncClient) -> None:
    fake_issuer.metadata_overrides = {"issuer": "https://evil.example", "jwks_uri": None}

    document = (await client.get(fake_issuer.endpoint("discovery"))).json()

    assert document["issuer"] == "https://evil.example"
    assert "jwks_uri" not in document


async def test_cache_control_is_what_the_test_says(fake_issuer: FakeIssuer, client: AsyncClient) -> None:
    fake_issuer.cache_control["jwks"] = "public, max-age=600"

    assert (await client.get(fake_issuer.endpoint("jwks"))).headers["cache-control"] == "public, max-age=600"
    assert (await client.get(fake_issuer.endpoint("discovery"))).headers["cache-control"] == "no-store"


async def test_every_request_is_counted_failed_ones_too(fake_issuer: FakeIssuer, client: AsyncClient) -> None:
    fake_issuer.fault("jwks", faults.status(500), times=2)

    codes = [(await client.get(fake_issuer.endpoint("jwks"))).status_code for _ in range(3)]
    await client.get(fake_issuer.endpoint("discovery"))

    assert codes == [500, 500, 200]
    assert fake_issuer.requests == {"jwks": 3, "discovery": 1}


async def test_down_cuts_the_connection_and_healing_ends_it(fake_issuer: FakeIssuer, client: AsyncClient) -> None:
    fake_issuer.fault("*", faults.down())
    with pytest.raises(httpx2.TransportError):
        await client.get(fake_issuer.endpoint("discovery"))
    with pytest.raises(httpx2.TransportError):
        await client.post(fake_issuer.endpoint("token"), data={"grant_type": "x"})

    fake_issuer.heal("discovery")
    assert (await client.get(fake_issuer.endpoint("discovery"))).status_code == 200
    with pytest.raises(httpx2.TransportError):
        await client.get(fake_issuer.endpoint("jwks"))

    fake_issuer.heal()
    assert (await client.get(fake_issuer.endpoint("jwks"))).status_code == 200


async def test_an_oversize_answer_is_still_valid_json(fake_issuer: FakeIssuer, client: AsyncClient) -> None:
    fake_issuer.fault("jwks", faults.oversize(1_000_000))

    answer = await client.get(fake_issuer.endpoint("jwks"))

    assert len(answer.content) > 1_000_000
    assert "content-length" not in answer.headers
    assert answer.json() == {"keys": fake_issuer.keys.jwks()}


async def test_wrong_bodies(fake_issuer: FakeIssuer, client: AsyncClient) -> None:
    url = fake_issuer.endpoint("jwks")

    fake_issuer.fault("jwks", faults.content_type("text/html"))
    answer = await client.get(url)
    assert answer.headers.get_list("content-type") == ["text/html"]
    assert answer.json() == {"keys": fake_issuer.keys.jwks()}

    fake_issuer.fault("jwks", faults.garbage())
    answer = await client.get(url)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    with pytest.raises(json.JSONDecodeError):
        answer.json()

    fake_issuer.fault("jwks", faults.body(b"\xff", "text/plain"))
    assert (await client.get(url)).content == b"\xff"

    fake_issuer.fault("jwks", faults.redirect("https://evil.example/jwks"))
    answer = await client.get(url)
    assert (answer.status_code, answer.headers["location"]) == (302, "https://evil.example/jwks")


async def test_slow_answers_late(fake_issuer: FakeIssuer, client: AsyncClient) -> None:
    fake_issuer.fault("jwks", faults.slow(0.05))
    before = time.monotonic()

    assert (await client.get(fake_issuer.endpoint("jwks"))).status_code == 200
    assert time.monotonic() - before >= 0.05


async def test_a_slow_form_endpoint_has_read_its_form(fake_issuer: FakeIssuer, client: AsyncClient) -> None:
    fake_issuer.client("worker", secret="s3cret")
    fake_issuer.fault("token", faults.slow(0.01))

    answer = await client.post(
        fake_issuer.endpoint("token"), data={"grant_type": "client_credentials"}, auth=("worker", "s3cret")
    )

    assert answer.status_code == 200


async def test_held_answers_when_released(fake_issuer: FakeIssuer, client: AsyncClient) -> None:
    release = asyncio.Event()
    fake_issuer.fault("jwks", faults.held(release))
    requests = [asyncio.create_task(client.get(fake_issuer.endpoint("jwks"))) for _ in range(3)]
    await until(lambda: fake_issuer.requests["jwks"] == 3)
    assert not any(request.done() for request in requests)

    release.set()

    assert [answer.status_code for answer in await asyncio.gather(*requests)] == [200, 200, 200]


async def test_dripping_starts_at_once_and_arrives_byte_by_byte(fake_issuer: FakeIssuer, client: AsyncClient) -> None:
    fake_issuer.fault("jwks", faults.dripping(bytes_per_second=500))

    async with client.stream("GET", fake_issuer.endpoint("jwks")) as answer:
        chunks = answer.aiter_raw()
        assert [await anext(chunks) for _ in range(3)] == [b"{", b'"', b"k"]


async def test_a_dripped_answer_is_whole(fake_issuer: FakeIssuer, client: AsyncClient) -> None:
    fake_issuer.fault("jwks", faults.dripping(bytes_per_second=100_000))

    assert (await client.get(fake_issuer.endpoint("jwks"))).json() == {"keys": fake_issuer.keys.jwks()}


async def test_a_caller_that_gives_up_leaves_nothing_behind(fake_issuer: FakeIssuer, client: AsyncClient) -> None:
    before = len(asyncio.all_tasks())
    fake_issuer.fault("jwks", faults.slow(3600))
    fake_issuer.fault("discovery", faults.dripping(0.001))
    requests = [
        asyncio.create_task(client.get(fake_issuer.endpoint(name))) for name in ("jwks", "discovery") for _ in range(3)
    ]
    await until(lambda: fake_issuer.requests.total() == 6)

    for request in requests:
        request.cancel()

    assert all(
        isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*requests, return_exceptions=True)
    )
    await until(lambda: len(asyncio.all_tasks()) <= before)


async def test_a_server_stops_although_an_answer_is_held_back(fake_issuer: FakeIssuer) -> None:
    fake_issuer.fault("jwks", faults.slow(3600))
    async with AsyncClient(trust_env=False, timeout=5) as client:
        async with asyncio.timeout(5), fake_issuer.serve():
            request = asyncio.create_task(client.get(fake_issuer.endpoint("jwks")))
            await until(lambda: fake_issuer.requests["jwks"] == 1)
        with pytest.raises(httpx2.TransportError):
            await request


async def test_a_stopped_server_refuses_and_the_same_issuer_comes_back(fake_issuer: FakeIssuer) -> None:
    async with AsyncClient(trust_env=False, timeout=5) as client:
        async with fake_issuer.serve():
            keys = (await client.get(fake_issuer.endpoint("jwks"))).json()
        url = fake_issuer.url
        with pytest.raises(httpx2.ConnectError):
            await client.get(fake_issuer.endpoint("jwks"))
        async with fake_issuer.serve(port=int(url.rpartition(":")[2])):
            assert fake_issuer.url == url
            assert (await client.get(fake_issuer.endpoint("jwks"))).json() == keys


async def test_a_cancelled_server_gives_its_socket_back(fake_issuer: FakeIssuer) -> None:
    async def serve() -> None:
        async with fake_issuer.serve():
            await asyncio.Event().wait()

    serving = asyncio.create_task(serve())
    await until(lambda: fake_issuer.url.startswith("http://"))
    async with AsyncClient(trust_env=False, timeout=5) as client:
        assert (await client.get(fake_issuer.endpoint("jwks"))).status_code == 200
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        with pytest.raises(httpx2.ConnectError):
            await client.get(fake_issuer.endpoint("jwks"))


def test_a_thread_can_serve_where_no_loop_runs(fake_issuer: FakeIssuer) -> None:
    with httpx2.Client(trust_env=False, timeout=5) as client:
        with fake_issuer.serve_in_thread() as issuer:
            assert client.get(issuer.endpoint("jwks")).json() == {"keys": issuer.keys.jwks()}
            issuer.fault("jwks", faults.down())
            with pytest.raises(httpx2.RemoteProtocolError):
                client.get(issuer.endpoint("jwks"))
        with pytest.raises(httpx2.ConnectError):
            client.get(issuer.endpoint("discovery"))


async def test_serving_keeps_the_path_of_the_issuer(fake_issuer_factory: Factory) -> None:
    async with fake_issuer_factory("https://issuer.example/realms/a/").serve() as issuer:
        assert issuer.url.startswith("http://127.0.0.1:")
        assert issuer.url.endswith("/realms/a/")
        async with AsyncClient(trust_env=False, timeout=5) as client:
            document = (await client.get(issuer.endpoint("discovery"))).json()
    assert document["issuer"] == issuer.url


async def test_a_socket_can_be_had_before_any_loop(fake_issuer: FakeIssuer) -> None:
    with fake_issuer.bind() as listening:
        port = listening.getsockname()[1]
        assert fake_issuer.url == f"http://127.0.0.1:{port}"
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass


async def test_one_transport_reaches_several_issuers_and_nobody_else(fake_issuer_factory: Factory) -> None:
    one, two = fake_issuer_factory("https://one.example"), fake_issuer_factory("https://two.example:8443/b")
    async with AsyncClient(transport=one.transport(two)) as client:
        assert (await client.get(one.endpoint("discovery"))).json()["issuer"] == one.url
        assert (await client.get(two.endpoint("discovery"))).json()["issuer"] == two.url
        for url in ("https://two.example/b", "http://one.example/jwks", "https://evil.example/"):
            with pytest.raises(httpx2.ConnectError, match="no fake issuer at"):
                await client.get(url)


async def test_a_fault_is_any_wrapper_of_an_asgi_app(fake_issuer: FakeIssuer, client: AsyncClient) -> None:
    def broken(_: object) -> Callable[..., object]:
        async def app(scope: object, receive: object, send: Callable[..., object]) -> None:
            await send({"type": "http.response.start", "status": 204, "headers": []})  # type: ignore[misc]
            await send({"type": "http.response.body"})  # type: ignore[misc]

        return app

    fake_issuer.fault("jwks", broken)  # type: ignore[arg-type]

    assert (await client.get(fake_issuer.endpoint("jwks"))).status_code == 204


@pytest.mark.parametrize("call", ["fault", "heal", "endpoint"])
def test_an_unknown_endpoint_is_a_mistake_of_the_test(fake_issuer: FakeIssuer, call: str) -> None:
    arguments = ("jkws", faults.down()) if call == "fault" else ("jkws",)
    with pytest.raises(ValueError, match="there is no endpoint 'jkws': choose from discovery"):
        getattr(fake_issuer, call)(*arguments)


def test_a_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(100)
    assert (clock.now(), clock.monotonic()) == (100, 0)
    clock.advance(1.5)
    assert (clock.now(), clock.monotonic()) == (101.5, 1.5)
    clock.jump(-50)
    assert (clock.now(), clock.monotonic()) == (51.5, 1.5)
    with pytest.raises(ValueError, match="use jump"):
        clock.advance(-1)


def test_a_manual_clock_starts_at_the_present() -> None:
    clock: Clock = ManualClock()
    assert abs(clock.now() - time.time()) < 5
