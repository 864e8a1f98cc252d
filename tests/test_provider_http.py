"""The door to the network holds its rules against real servers, over real sockets and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gzip
import socket
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import trustme
import uvicorn

from oidc_middleware.core.addresses import Zone
from oidc_middleware.errors import ProviderError, ProviderInvalid, ProviderUnavailable
from oidc_middleware.provider.http import MAX_BYTES, Answer, ErrorStatus, HTTPDoor
from oidc_middleware.testing import FakeIssuer, faults

pytestmark = pytest.mark.anyio

Respond = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def answering(respond: Respond, port: int = 0) -> AsyncIterator[int]:
    """Serve raw bytes on loopback, on any port unless one is named, and yield it; leave nothing behind."""
    under_way: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(respond(reader, writer))
        under_way.add(task)
        await asyncio.wait((task,))
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        under_way.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(under_way):
            task.cancel()
        while under_way:  # noqa: ASYNC110  the serving tasks belong to asyncio
            await asyncio.sleep(0)


def raw(head: str, body: bytes = b"{}") -> Respond:
    """Answer every request with these header lines and this body."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            lines = f"HTTP/1.1 200 OK\r\nConnection: close\r\n{head}\r\n\r\n"
            writer.write(lines.encode() + body)
            await writer.drain()
        writer.close()

    return respond


class Resolver:
    """Answers with the addresses of a table, and counts."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextlib.asynccontextmanager
async def tls_issuer(certificate: trustme.LeafCert) -> AsyncIterator[int]:
    """Serve a fake issuer's keys over TLS with uvicorn, and yield the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    config = uvicorn.Config(FakeIssuer(algorithms=("ES256",)).app, lifespan="off", log_config=None, port=0)
    config.load()
    config.ssl = context
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.ensure_future(server._serve([listening]))
    try:
        async with asyncio.timeout(5):
            while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
                await asyncio.sleep(0.005)
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


async def refused(door: HTTPDoor, url: str, reach: Zone = Zone.LOOPBACK) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await door.get(url, reach)
    return caught.value


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


# What a good answer is


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/jwk-set+json",
        "Application/JSON; charset=utf-8",
        "application/jwk-set+json ;a=b",
    ],
)
async def test_json_is_read_with_its_freshness(content_type: str) -> None:
    async with answering(raw(f"Content-Type: {content_type}\r\nCache-Control: max-age=60\r\nAge: 10")) as port:
        answer = await HTTPDoor().get(f"http://127.0.0.1:{port}/keys?a=b", Zone.LOOPBACK)
    assert answer == Answer(b"{}", 50, Zone.LOOPBACK)


async def test_the_request_asks_for_json_unpacked_and_carries_nothing_else() -> None:
    heads: list[bytes] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\n{}"
        )
        await reader.read()  # whoever closes first, it is not this server
        writer.close()

    async with answering(respond) as port:
        door = HTTPDoor()
        await door.get(f"http://localhost:{port}/keys?a=b", Zone.LOOPBACK)
        await door.get(f"http://localhost:{port}/keys?a=b", Zone.LOOPBACK)

    lines = [head.decode().lower().split("\r\n") for head in heads]
    assert lines[0] == lines[1]
    assert sorted(filter(None, lines[0])) == [
        "accept-encoding: identity",
        "accept: application/json, application/*+json",
        "get /keys?a=b http/1.1",
        f"host: localhost:{port}",
        "user-agent: oidc-middleware",
    ]


async def test_a_static_host_may_pack_although_asked_not_to() -> None:
    head = "Content-Type: application/json\r\nContent-Encoding: gzip"
    async with answering(raw(head, gzip.compress(b'{"keys": []}'))) as port:
        answer = await HTTPDoor().get(f"http://127.0.0.1:{port}", Zone.LOOPBACK)
    assert answer.body == b'{"keys": []}'


async def test_a_document_of_exactly_the_largest_size_is_read() -> None:
    async with answering(raw("Content-Type: application/json", b" " * MAX_BYTES)) as port:
        answer = await HTTPDoor().get(f"http://127.0.0.1:{port}", Zone.LOOPBACK)
    assert len(answer.body) == MAX_BYTES


# What a bad answer is


@pytest.mark.parametrize(
    ("head", "body", "problem"),
    [
        pytest.param("Content-Type: text/html", b"<html>", "not of a JSON content type", id="RP-x-jwks-html"),
        pytest.param("Content-Type: text/plain", b"{}", "not of a JSON content type", id="text"),
        pytest.param("Content-Type: application/jsonp", b"{}", "not of a JSON content type", id="almost-json"),
        pytest.param("X-Nothing: 1", b"{}", "not of a JSON content type", id="no-content-type"),
        pytest.param("Content-Type: application/json", b" " * (MAX_BYTES + 1), "larger than", id="RP-x-jwks-huge"),
        pytest.param(
            "Content-Type: application/json\r\nContent-Encoding: gzip",
            gzip.compress(b" " * 64 * MAX_BYTES),
            "larger than",
            id="RP-x-jwks-huge-packed",
        ),
        pytest.param(
            "Content-Type: application/json\r\nContent-Encoding: gzip", b"{}", "cannot be unpacked", id="not-gzip"
        ),
        pytest.param(
            "Content-Type: application/json\r\nContent-Encoding: br", b"{}", "not asked for", id="another-packing"
        ),
        pytest.param(
            "Content-Type: application/json\r\nContent-Encoding: gzip, gzip", b"{}", "not asked for", id="twice-packed"
        ),
    ],
)
async def test_a_bad_answer_is_invalid(head: str, body: bytes, problem: str) -> None:
    async with answering(raw(head, body)) as port:
        error = await refused(HTTPDoor(), f"http://127.0.0.1:{port}")
    assert type(error) is ProviderInvalid
    assert problem in error.detail


async def test_an_endless_answer_takes_no_memory() -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b" " * 65_536)
                await writer.drain()
        writer.close()

    async with answering(respond) as port:
        door = HTTPDoor()
        await refused(door, f"http://127.0.0.1:{port}")  # what is loaded once is loaded now
        tracemalloc.start()
        try:
            error = await refused(door, f"http://127.0.0.1:{port}")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert "larger than" in error.detail
    assert peak < 6 * MAX_BYTES


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308, 304])
async def test_no_redirect_is_followed(code: int, served_issuer: FakeIssuer) -> None:
    """RP-x-jwks-redirect, RP-x-discovery-redirect: the target gets no request."""
    served_issuer.fault("jwks", faults.redirect(served_issuer.endpoint("discovery"), code), 1)
    error = await refused(HTTPDoor(), served_issuer.endpoint("jwks"))
    assert type(error) is ProviderInvalid
    assert "redirect" in error.detail
    assert served_issuer.requests["discovery"] == 0


@pytest.mark.parametrize("code", [201, 204, 400, 404, 429, 500, 503])
async def test_an_error_answer_is_told_with_its_status(code: int, served_issuer: FakeIssuer) -> None:
    served_issuer.fault("jwks", faults.status(code), 1)
    error = await refused(HTTPDoor(), served_issuer.endpoint("jwks"))
    assert isinstance(error, ErrorStatus)
    assert error.answered == code
    assert served_issuer.endpoint("jwks") in error.detail


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faults.dripping(20), id="J-slow-dripping-body"),
        pytest.param(faults.slow(60), id="RP-x-jwks-slow"),
    ],
)
async def test_a_slow_answer_meets_one_total_deadline(fault: faults.Fault) -> None:
    issuer = FakeIssuer(algorithms=("ES256",))
    async with issuer.serve():
        issuer.fault("jwks", fault)
        begin = asyncio.get_running_loop().time()
        error = await refused(HTTPDoor(deadline=0.3), issuer.endpoint("jwks"))
    assert type(error) is ProviderUnavailable
    assert "no whole answer within 0.3 s" in error.detail
    assert 0.25 < asyncio.get_running_loop().time() - begin < 3


async def test_headers_that_drip_meet_the_deadline_too() -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            writer.write(b"HTTP/1.1 200 OK\r\n")
            for number in range(10_000):
                writer.write(f"X-{number}: 1\r\n".encode())
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()

    async with answering(respond) as port:
        error = await refused(HTTPDoor(deadline=0.3), f"http://127.0.0.1:{port}")
    assert "no whole answer" in error.detail


async def test_a_resolver_that_hangs_meets_the_deadline() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        raise AssertionError

    error = await refused(HTTPDoor(deadline=0.1, resolve=resolve), "https://issuer.example")
    assert type(error) is ProviderUnavailable


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="another-protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{}", id="cut"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: a\r\n\r\n", id="bad-length"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"a" * 1_000_000, id="a-header-of-a-megabyte"),
        pytest.param(bytes(range(256)) * 4, id="noise"),
    ],
)
async def test_what_is_no_http_is_no_answer(answer: bytes) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    async with answering(respond) as port:
        error = await refused(HTTPDoor(), f"http://127.0.0.1:{port}")
    assert type(error) is ProviderUnavailable


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    error = await refused(HTTPDoor(), f"http://127.0.0.1:{port}")
    assert type(error) is ProviderUnavailable


async def test_a_cancelled_caller_leaves_no_connection() -> None:
    connected, gone = asyncio.Event(), asyncio.Event()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        connected.set()
        await reader.read()
        gone.set()
        writer.close()

    async with answering(respond) as port:
        asking = asyncio.ensure_future(HTTPDoor().get(f"http://127.0.0.1:{port}", Zone.LOOPBACK))
        await asyncio.wait_for(connected.wait(), 5)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(gone.wait(), 5)


# Where it goes


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://issuer.example/jwks", id="J-scheme-http"),
        pytest.param("file:///etc/passwd", id="J-scheme-file"),
        pytest.param("https://2130706433/", id="J-ssrf-ip-decimal"),
        pytest.param("https://0x7f.1/", id="J-ssrf-ip-hex"),
        pytest.param("https://127.1/", id="J-ssrf-ip-short"),
        pytest.param("https://localhost./", id="J-ssrf-ip-localhost-dot"),
        pytest.param("", id="empty"),
    ],
)
async def test_such_a_url_is_never_resolved(url: str) -> None:
    resolver = Resolver(["127.0.0.1"])
    error = await refused(HTTPDoor(resolve=resolver), url)
    assert type(error) is ProviderInvalid
    assert resolver.asked == []


@pytest.mark.parametrize(
    ("addresses", "reach"),
    [
        pytest.param(["169.254.169.254"], Zone.LOOPBACK, id="J-ssrf-ip-metadata.google.internal"),
        pytest.param(["::ffff:169.254.169.254"], Zone.LOOPBACK, id="J-ssrf-ip-mapped"),
        pytest.param(["fd00:ec2::254"], Zone.LOOPBACK, id="J-ssrf-ip-aws-metadata-v6"),
        pytest.param(["fe80::1%lo"], Zone.LOOPBACK, id="link-local"),
        pytest.param(["0.0.0.0"], Zone.LOOPBACK, id="unspecified"),
        pytest.param(["fd00::1"], Zone.PUBLIC, id="J-ssrf-ip-unique-local"),
        pytest.param(["100.64.0.1"], Zone.PUBLIC, id="J-ssrf-ip-carrier-grade-nat"),
        pytest.param(["10.0.0.1"], Zone.PUBLIC, id="private"),
        pytest.param(["127.0.0.1"], Zone.PUBLIC, id="loopback-from-outside"),
        pytest.param(["127.0.0.1"], Zone.PRIVATE, id="loopback-from-the-private-network"),
        pytest.param(["8.8.8.8", "10.0.0.1"], Zone.PUBLIC, id="one-of-two"),
        pytest.param(["8.8.8.8", "169.254.169.254"], Zone.LOOPBACK, id="one-of-two-is-metadata"),
    ],
)
async def test_an_address_further_inside_than_allowed_is_not_connected_to(addresses: list[str], reach: Zone) -> None:
    error = await refused(HTTPDoor(resolve=Resolver(addresses)), "https://metadata.google.internal/", reach)
    assert type(error) is ProviderInvalid
    assert "may not reach" in error.detail


@pytest.mark.parametrize("host", ["169.254.169.254", "[::ffff:169.254.169.254]", "[fe80::1]", "[::]", "0.0.0.0"])
@pytest.mark.parametrize("network", [True, False])
async def test_a_forbidden_address_is_refused_as_it_is_written(host: str, network: bool) -> None:
    """J-ssrf-ip, with and without a network."""
    issuer = FakeIssuer(f"https://{host}", algorithms=("ES256",))
    door = HTTPDoor(transport=None if network else issuer.transport())
    error = await refused(door, issuer.endpoint("jwks"))
    assert type(error) is ProviderInvalid
    assert issuer.requests == {}


async def test_plain_http_to_a_name_for_loopback_stays_on_loopback() -> None:
    error = await refused(HTTPDoor(resolve=Resolver(["10.0.0.1"])), "http://localhost:9/")
    assert type(error) is ProviderInvalid
    assert "http is for loopback only" in error.detail


async def test_the_connection_goes_to_the_address_that_was_checked(authority: trustme.CA, ca_file: Path) -> None:
    """J-ssrf-rebind: the second answer of the resolver is another one, and nobody asks for it."""
    resolver = Resolver(["127.0.0.1"], ["169.254.169.254"])
    async with tls_issuer(authority.issue_cert("issuer.test")) as port:
        door = HTTPDoor(ca_file=ca_file, resolve=resolver)
        answer = await door.get(f"https://issuer.test:{port}/jwks", Zone.LOOPBACK)
        assert answer.body.startswith(b'{"keys":')
        assert resolver.asked == ["issuer.test"]
        error = await refused(door, f"https://issuer.test:{port}/jwks")
    assert type(error) is ProviderInvalid


async def test_what_answered_counts_and_not_what_else_the_name_has() -> None:
    """A name with one address inside gives its documents no reach further inside than the address they came from."""
    async with answering(raw("Content-Type: application/json")) as port:
        door = HTTPDoor(allow_http=True, resolve=Resolver(["127.0.0.1", "10.0.0.1"]))
        assert (await door.get(f"http://issuer.test:{port}", Zone.LOOPBACK)).zone is Zone.LOOPBACK
        door = HTTPDoor(resolve=Resolver(["127.0.0.1", "10.0.0.1"]))
        error = await refused(door, f"http://localhost:{port}")
    assert "http is for loopback only" in error.detail


async def test_a_dead_address_is_passed_over() -> None:
    with socket.create_server(("127.0.0.2", 0)) as listening:
        dead = listening.getsockname()[1]
    async with answering(raw("Content-Type: application/json"), dead):
        door = HTTPDoor(allow_http=True, resolve=Resolver(["127.0.0.2", "127.0.0.1"]))
        assert (await door.get(f"http://issuer.test:{dead}", Zone.LOOPBACK)).body == b"{}"


@pytest.mark.parametrize("answer", [["not an address"], []])
async def test_a_resolver_that_talks_nonsense(answer: list[str]) -> None:
    await refused(HTTPDoor(resolve=Resolver(answer)), "https://issuer.example")


async def test_a_name_that_no_resolver_takes() -> None:
    error = await refused(HTTPDoor(), f"https://{'a' * 64}.invalid")
    assert isinstance(error, ProviderInvalid | ProviderUnavailable)


# TLS


async def test_a_private_authority_is_trusted_when_named(authority: trustme.CA, ca_file: Path) -> None:
    async with tls_issuer(authority.issue_cert("127.0.0.1")) as port:
        answer = await HTTPDoor(ca_file=ca_file).get(f"https://127.0.0.1:{port}/jwks", Zone.LOOPBACK)
    assert answer.zone is Zone.LOOPBACK


@pytest.mark.parametrize("case", ["self-signed", "wrong-host", "expired", "other-authority", "no-authority-named"])
async def test_a_certificate_that_does_not_hold_is_refused(case: str, authority: trustme.CA, ca_file: Path) -> None:
    """J-tls."""
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    certificate = {
        "self-signed": lambda: trustme.CA().issue_cert("localhost"),
        "wrong-host": lambda: authority.issue_cert("other.example", "127.0.0.1"),
        "expired": lambda: authority.issue_cert("localhost", not_after=past, not_before=past - dt.timedelta(1)),
        "other-authority": lambda: trustme.CA().issue_cert("localhost"),
        "no-authority-named": lambda: authority.issue_cert("localhost"),
    }[case]()
    door = HTTPDoor(ca_file=None if case == "no-authority-named" else ca_file)
    async with tls_issuer(certificate) as port:
        error = await refused(door, f"https://localhost:{port}/jwks")
    assert type(error) is ProviderUnavailable
    assert "certificate" in error.detail.lower()


async def test_one_name_never_speaks_on_the_connection_of_another(authority: trustme.CA, ca_file: Path) -> None:
    """Two names of one address: what was verified for the first says nothing about the second."""
    async with tls_issuer(authority.issue_cert("one.test")) as port:
        door = HTTPDoor(ca_file=ca_file, resolve=Resolver(["127.0.0.1"]))
        await door.get(f"https://one.test:{port}/jwks", Zone.LOOPBACK)
        error = await refused(door, f"https://two.test:{port}/jwks")
    assert type(error) is ProviderUnavailable


async def test_a_missing_authority_file_is_told(tmp_path: Path) -> None:
    error = await refused(HTTPDoor(ca_file=tmp_path / "none.pem"), "https://127.0.0.1:9/")
    assert type(error) is ProviderUnavailable
    assert "FileNotFoundError" in error.detail


async def test_no_proxy_and_no_password_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """J-proxy-env."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:9")
    heads: list[bytes] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async with answering(respond) as port:
        await HTTPDoor().get(f"http://127.0.0.1:{port}", Zone.LOOPBACK)
    assert b"authorization" not in heads[0].lower()


def test_one_door_serves_one_event_loop_after_another() -> None:
    door = HTTPDoor()

    async def once() -> bytes:
        async with answering(raw("Content-Type: application/json")) as port:
            return (await door.get(f"http://127.0.0.1:{port}", Zone.LOOPBACK)).body

    assert asyncio.run(once()) == b"{}"
    assert asyncio.run(once()) == b"{}"


# Without a network


async def test_a_transport_replaces_the_network_and_nothing_else() -> None:
    issuer = FakeIssuer(algorithms=("ES256",))
    door = HTTPDoor(transport=issuer.transport())
    answer = await door.get(issuer.endpoint("jwks"), Zone.PUBLIC)
    assert answer.zone is Zone.PUBLIC
    for fault in (faults.redirect("https://evil.example"), faults.content_type("text/html"), faults.oversize()):
        issuer.fault("jwks", fault)
        assert type(await refused(door, issuer.endpoint("jwks"))) is ProviderInvalid
    issuer.fault("jwks", faults.down())
    assert type(await refused(door, issuer.endpoint("jwks"))) is ProviderUnavailable
    issuer.fault("jwks", faults.slow(60))
    door = HTTPDoor(transport=issuer.transport(), deadline=0.1)
    assert type(await refused(door, issuer.endpoint("jwks"))) is ProviderUnavailable
