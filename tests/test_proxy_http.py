"""HTTP through the proxy: targets, bodies both ways, connections, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from oidc_middleware.proxy import ReverseProxy

from proxy_kit import COMPLETE, CUT, OK, PARSERS, App, Front, Message, Reader, Writer, before, behind, saying, until

pytestmark = pytest.mark.anyio

FAST: dict[str, Any] = {"connect_timeout": 5, "read_timeout": 0.3}


@pytest.fixture
async def app() -> AsyncIterator[App]:
    async with behind() as app:
        yield app


@pytest.fixture(params=PARSERS)
async def front(app: App, request: pytest.FixtureRequest) -> AsyncIterator[Front]:
    async with before(app, parser=PARSERS[request.param], ambiguous_paths="protect") as front:
        yield front


# Where requests go


@pytest.mark.parametrize(
    "target",
    [
        "/", "/?", "/a/b?q=1&q=2&&x", "/%61dmin?next=%2f%2F", "/@evil.example/", "//evil.example/x", "/a;b=1/c,d",
        "/a%2Fb", "/%C3%A9?%E9", "/:80/x", "/a?url=http://evil.example/#x".partition("#")[0], "/x?a=[1]|{2}\\^`'\"<>",
        "/a+b%20c~!$&'()*,=:", "/.well-known/x", "/a..b/...",
    ],
)  # fmt: skip
async def test_path_and_query_go_on_byte_by_byte(front: Front, app: App, target: str) -> None:
    """X-ssrf-at: and to the one address there is."""
    answer = await front.ask(f"GET {target}")
    assert (answer.status, app.last.start) == (200, f"GET {target.removesuffix('?')} HTTP/1.1".encode())
    assert app.last.one("host") == f"127.0.0.1:{app.port}"


@pytest.mark.parametrize(
    "request_line",
    [
        *("GET http://169.254.169.254/latest/", "GET https://evil.example/", "GET HTTP://evil.example"),
        *("GET @evil.example/", "GET evil.example:80", "OPTIONS *", "GET x/../y", "GET *", "CONNECT evil.example:443"),
        *("GET /a/../b", "GET /a/%2e%2e/b", "GET /a\\b", "GET /a%00b", "GET /a#b"),
    ],
)
async def test_other_targets_are_refused(front: Front, app: App, request_line: str) -> None:
    """X-ssrf-absolute: 400, and nobody is asked."""
    answer = await front.ask(request_line)
    assert answer.status in ({400, 401, 200} if request_line == "GET /a#b" else {400})
    if request_line == "GET /a#b" and answer.status == 200:  # httptools cuts fragments off
        assert app.last.start == b"GET /a HTTP/1.1"
    else:
        assert app.requests == []


@pytest.mark.parametrize(
    ("start", "endless"),
    [
        (b"GET /open/x HTTP/1.1\r\nHost: a\r\nX-A: ", b"a"),
        (b"GET /open/x HTTP/1.1\r\nHost: a\r\n", b"A:\r\n"),
        (b"GET /open/x", b"x"),
        (b"POST /open/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-A: ", b"a"),
    ],
    ids=["line", "lines", "target", "trailer"],
)
async def test_a_head_without_an_end_is_refused(front: Front, start: bytes, endless: bytes) -> None:
    """It would fill the memory; and it is refused before it is whole."""
    reader, writer = await front.open()
    writer.write(start + endless * (1 << 18))
    assert (await front.response(reader)).status == 400
    writer.close()


async def test_a_long_head_that_is_whole_is_passed_on(front: Front, app: App) -> None:
    """Also behind a body that came in the same moment."""
    value = "a" * 40_000
    reader, writer = await front.open()
    body = b"b" * 100_000
    writer.write(front.head("POST /orders", f"Content-Length: {len(body)}", f"X-A: {value}") + body)
    writer.write(front.head("GET /orders", f"X-A: {value}"))
    for request_line in (b"POST /orders HTTP/1.1", b"GET /orders HTTP/1.1"):
        assert (await front.response(reader)).status == 200
        assert (app.last.start, app.last.one("x-a")) == (request_line, value)
    writer.close()


async def test_trace_is_not_passed_on(front: Front, app: App) -> None:
    """It would show the client what we send besides."""
    answer = await front.ask("TRACE /orders")
    assert (answer.status, app.requests) == (405, [])


async def test_an_upstream_with_a_path(app: App) -> None:
    async with before(f"http://127.0.0.1:{app.port}/base/") as front:
        await front.ask("GET /orders?x")
        assert app.last.start == b"GET /base/orders?x HTTP/1.1"


@pytest.mark.parametrize(
    "hosts", [(), ("a.example", "b.example"), ("a.example", "a.example"), ("",), ("a b",), ("u@a",), ("a/b",)]
)
async def test_one_host(front: Front, app: App, hosts: tuple[str, ...]) -> None:
    """X-dup-host, and its kin."""
    answer = await front.ask("GET /orders", *(f"Host: {host}" for host in hosts), host=None)
    assert (answer.status, app.requests) == (400, [])
    assert (await front.ask("GET /open/x", *(f"Host: {host}" for host in hosts), host=None)).status == 400


# What ends at each connection


async def test_hop_by_hop_headers_end_here(front: Front, app: App) -> None:
    app.answer = saying(
        b"HTTP/1.1 200 OK\r\nConnection: X-Hop, close\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: x\r\n"
        b"Upgrade: h2c\r\nX-Stays: 1\r\nContent-Length: 2\r\n\r\nok"
    )
    sent = ("Connection: X-Gone, Upgrade, TE", "X-Gone: 1", "Keep-Alive: 5", "Proxy-Connection: keep-alive")
    also = ("TE: trailers", "Upgrade: h2c", "HTTP2-Settings: x", "Proxy-Authorization: Basic x", "X-Stays: 1")
    answer = await front.ask("GET /orders", *sent, *also)
    gone = ("x-gone", "keep-alive", "proxy-connection", "te", "upgrade", "http2-settings", "proxy-authorization")
    assert [app.last.all(name) for name in gone] == [[]] * len(gone)
    assert (app.last.one("x-stays"), app.last.all("connection")) == ("1", [])
    assert [answer.all(name) for name in ("x-hop", "keep-alive", "proxy-authenticate", "upgrade")] == [[]] * 4
    assert (answer.status, answer.one("x-stays"), answer.body) == (200, "1", b"ok")


async def test_header_values_go_on_as_they_came(front: Front, app: App) -> None:
    app.answer = saying(
        "HTTP/1.1 299 Odd\r\nX-A: é\r\nX-A: \t\r\nX-B: a  b\r\nContent-Length: 0\r\n\r\n".encode("latin-1")
    )
    answer = await front.ask("GET /orders", "X-Latin: é", "X-Twice: 1", "X-Twice: 2", "X-Empty:")
    assert (app.last.one("x-latin"), app.last.all("x-twice"), app.last.all("x-empty")) == ("é", ["1", "2"], [""])
    assert (answer.status, answer.all("x-a"), answer.one("x-b")) == (299, ["é", ""], "a  b")


# Bodies


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
async def test_a_body_with_a_length_keeps_it(front: Front, app: App, size: int) -> None:
    answer = await front.ask("POST /orders", f"Content-Length: {size}", body=b"x" * size)
    assert (answer.status, app.last.body) == (200, b"x" * size)
    assert (app.last.all("content-length"), app.last.all("transfer-encoding")) == ([str(size)], [])


async def test_a_chunked_body_stays_chunked(front: Front, app: App) -> None:
    app.answer = saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    answer = await front.ask("POST /orders", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n")
    assert (app.last.body, app.last.all("transfer-encoding"), app.last.all("content-length")) == (
        b"abcde",
        ["chunked"],
        [],
    )
    assert (answer.body, answer.all("transfer-encoding"), answer.all("content-length")) == (b"ok", ["chunked"], [])


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_a_request_has_a_body_only_if_it_says_so(front: Front, app: App, method: str) -> None:
    await front.ask(f"{method} /orders")
    assert (app.last.all("content-length"), app.last.all("transfer-encoding")) == ([], [])
    await front.ask(f"{method} /orders", "Content-Length: 2", body=b"hi")
    assert app.last.body == b"hi"


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Length: 4", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 4"),
        ("Content-Length: 4", "Content-Length: 5"),
        ("Content-Length: +4",),
        ("Content-Length: 0x4",),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: xchunked",),
    ],
)
async def test_a_body_that_can_be_read_in_two_ways_is_refused(front: Front, app: App, headers: tuple[str, ...]) -> None:
    """X-te-cl."""
    answer = await front.ask("POST /orders", *headers, body=b"0\r\n\r\n")
    assert (answer.status in {400, 501}, app.requests) == (True, [])


async def test_of_a_length_and_chunks_the_chunks_count(front: Front, app: App) -> None:
    """X-te-cl, the other way round: the two never go on together."""
    app.answer = saying(
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    )
    answer = await front.ask("GET /orders")
    assert answer.status in {200, 502}
    if answer.status == 200:
        assert (answer.body, answer.all("content-length")) == (b"ok", [])


async def test_a_compressed_body_is_not_touched(front: Front, app: App) -> None:
    """X-decode: nor asked for."""
    body = gzip.compress(b"x" * 10_000_000)
    for coding in ("gzip", "br", "nonsense"):
        app.answer = saying(
            f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        answer = await front.ask("GET /orders")
        assert (answer.one("content-encoding"), answer.body) == (coding, body)
    assert app.last.all("accept-encoding") == []


@pytest.mark.parametrize(
    ("method", "head", "expected"),
    [
        ("HEAD", b"200 OK\r\nContent-Length: 1000", (200, ["1000"])),
        ("HEAD", b"404 Not Found\r\nContent-Length: 3", (404, ["3"])),
        ("GET", b"204 No Content", (204, [])),
        ("GET", b"304 Not Modified\r\nETag: x\r\nContent-Length: 1000", (304, [])),
        ("GET", b"200 OK\r\nContent-Length: 0", (200, ["0"])),
    ],
)
async def test_a_response_without_a_body(front: Front, app: App, method: str, head: bytes, expected: Any) -> None:
    """And the connections, both of them, go on after it."""
    app.answer = saying(b"HTTP/1.1 " + head + b"\r\n\r\n")
    reader, writer = await front.open()
    for _ in range(3):
        writer.write(front.head(f"{method} /orders"))
        answer = await front.response(reader, of_head=method == "HEAD")
        assert (answer.status, answer.all("content-length"), answer.body) == (*expected, b"")
    writer.close()
    assert (len(app.requests), app.connections) == (3, 1)


async def test_a_body_that_ends_with_the_connection(front: Front, app: App) -> None:
    """HTTP/1.0."""
    app.answer = saying(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", then=lambda writer: writer.close())
    answer = await front.ask("GET /orders")
    assert (answer.body, answer.end) == (b"until the end", COMPLETE)


async def test_the_app_answers_while_it_reads(front: Front, app: App) -> None:
    """Both directions at once: each part comes back before the next one is sent."""

    async def echo(request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert request.all("transfer-encoding")
        while size := int(await reader.readuntil(b"\r\n"), 16):
            part = await reader.readexactly(size + 2)
            writer.write(b"%x\r\n" % size + part)
        await reader.readuntil(b"\r\n")
        writer.write(b"0\r\n\r\n")

    app.answer = echo
    reader, writer = await front.open()
    writer.write(front.head("POST /echo", "Transfer-Encoding: chunked"))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    for part in (b"5\r\nhello\r\n", b"3\r\nyou\r\n"):
        writer.write(part)
        assert await reader.readexactly(len(part)) == part
    writer.write(b"0\r\n\r\n")
    assert await reader.readexactly(5) == b"0\r\n\r\n"
    writer.close()


async def test_the_app_answers_before_it_has_read(front: Front, app: App) -> None:
    """413 in the middle of an upload that it will not read."""
    app.answer = saying(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig", reads=False)
    reader, writer = await front.open()
    writer.write(front.head("POST /orders", "Content-Length: 100000000") + b"x" * 1000)
    answer = await front.response(reader)
    assert (answer.status, answer.body) == (413, b"big")
    writer.close()
    await until(lambda: app.open == 0)


async def test_server_sent_events_come_at_once(app: App) -> None:
    """And the stream may be silent for longer than anything else."""
    more = asyncio.Event()

    async def events(_: Message, __: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\ndata: 1\n\n")
        await more.wait()
        writer.write(b"data: 2\n\n")
        writer.close()

    app.answer = events
    async with before(app, proxy=FAST) as front:
        reader, writer = await front.open()
        writer.write(front.head("GET /events"))
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readuntil(b"\n\n\r\n") == b"9\r\ndata: 1\n\n\r\n"
        await asyncio.sleep(2 * FAST["read_timeout"])  # silence is what this is about
        more.set()
        assert await reader.readuntil(b"0\r\n\r\n") == b"9\r\ndata: 2\n\n\r\n0\r\n\r\n"
        writer.close()


# Expect: 100-continue


async def test_the_body_of_a_refused_request_is_never_asked_for(front: Front, app: App) -> None:
    """X-1xx."""
    for authorization in ((), ("Authorization: Bearer evil",)):
        reader, writer = await front.open()
        expecting = ("Expect: 100-continue", "Content-Length: 1000000", *authorization)
        writer.write(front.head("POST /orders", *expecting, authorized=False))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401")
        writer.close()
    assert app.connections == 0


async def test_the_body_is_asked_for_when_the_app_wants_it(front: Front, app: App) -> None:
    async def wanting(request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await request.read_body(reader)
        writer.write(OK)

    app.answer = wanting
    reader, writer = await front.open()
    writer.write(front.head("POST /orders", "Expect: 100-continue", "Content-Length: 2"))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    writer.write(b"hi")
    assert (await front.response(reader)).status == 200
    assert (app.last.body, app.last.one("expect")) == (b"hi", "100-continue")
    writer.close()


async def test_the_body_is_not_asked_for_when_the_app_refuses(front: Front, app: App) -> None:
    app.answer = saying(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n", reads=False)
    reader, writer = await front.open()
    writer.write(front.head("POST /orders", "Expect: 100-continue", "Content-Length: 2"))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 417")
    writer.close()


async def test_an_app_that_knows_nothing_of_it_gets_the_body_in_the_end(front: Front, app: App) -> None:
    answer = await front.ask("POST /orders", "Expect: 100-continue", "Content-Length: 2", body=b"hi")
    assert answer.status in {100, 200}
    await until(lambda: app.requests and app.last.body == b"hi")


# Connections to the app


async def test_connections_are_kept(front: Front, app: App) -> None:
    for _ in range(5):
        assert (await front.ask("GET /orders")).status == 200
        assert (await front.ask("POST /orders", "Content-Length: 2", body=b"hi")).status == 200
    assert (app.connections, len(app.requests)) == (1, 10)
    many = await asyncio.gather(*(front.ask("GET /orders") for _ in range(10)))
    assert {answer.status for answer in many} == {200}
    assert 1 < app.connections <= 11


async def test_one_that_the_app_closes_is_not_used_again(front: Front, app: App) -> None:
    app.answer = saying(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    for number in range(1, 4):
        assert (await front.ask("POST /orders", "Content-Length: 2", body=b"hi")).status == 200
        assert app.connections == number


async def test_what_comes_unasked_is_nobodys_answer(front: Front, app: App) -> None:
    """A response too many, with the one that was asked for or later, would be that of the next request."""
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    for parts in ((OK + evil,), (OK, evil)):
        app.answer = saying(*parts)
        for _ in range(5):
            assert (await front.ask("GET /orders")).body == b"ok"
    assert app.connections > 2


@pytest.mark.parametrize(
    ("request_line", "headers", "body", "status"),
    [
        *((f"{method} /orders", (), b"", 200) for method in ("GET", "HEAD", "OPTIONS", "DELETE", "PUT")),
        ("POST /orders", (), b"", 502),
        ("PATCH /orders", (), b"", 502),
        ("PUT /orders", ("Content-Length: 2",), b"hi", 502),
    ],
)
async def test_a_kept_connection_that_turns_out_to_be_closed(
    app: App, request_line: str, headers: tuple[str, ...], body: bytes, status: int
) -> None:
    """It is tried again, once, where that does no harm."""
    used: set[Writer] = set()

    async def answer(request: Message, reader: Reader, writer: Writer) -> None:
        await request.read_body(reader)
        if writer in used:
            writer.transport.abort()
        else:
            writer.write(OK.removesuffix(b"ok") if request_line.startswith("HEAD") else OK)
        used.add(writer)

    app.answer = answer
    async with before(app) as front:
        assert (await front.ask("OPTIONS /orders" if status == 502 else request_line)).status == 200
        assert (await front.ask(request_line, *headers, body=body)).status == status
    assert (len(app.requests), app.connections) == ((2, 1) if status == 502 else (3, 2))


async def test_an_app_that_is_silent_on_a_kept_connection_is_not_asked_twice(app: App) -> None:
    """It may be at it; and what was given up is cut."""
    async with before(app, proxy=FAST) as front:
        assert (await front.ask("GET /orders")).status == 200
        app.answer = silence
        assert (await front.ask("GET /orders")).status == 504
        assert (app.connections, len(app.requests)) == (1, 2)
        await until(lambda: app.open == 0)


async def test_a_new_connection_that_is_closed_is_not_tried_again(front: Front, app: App) -> None:
    app.answer = saying(then=lambda writer: writer.transport.abort())
    assert (await front.ask("GET /orders")).status == 502
    assert (app.connections, len(app.requests)) == (1, 1)


async def test_a_client_that_goes_away_with_two_requests_under_way(front: Front, app: App) -> None:
    """Both end, not only the one that came last."""

    async def stream(_: Message, reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hi\n\n")
        await reader.read()

    app.answer = stream
    reader, writer = await front.open()
    writer.write(front.head("GET /events") + front.head("GET /orders"))
    await reader.readuntil(b": hi")
    writer.transport.abort()
    await until(lambda: app.open == 0)


async def test_idle_connections_end(app: App) -> None:
    async with before(app, proxy={"keep_seconds": 0.05}) as front:
        await front.ask("GET /orders")
        await until(lambda: app.open == 0)
        assert (await front.ask("GET /orders")).status == 200
    async with before(app, proxy={"keep": 0}) as front:
        await front.ask("GET /orders")
        await until(lambda: app.open == 0)


async def test_they_end_with_the_service(app: App) -> None:
    async with before(app) as front:
        await front.ask("GET /orders")
        assert app.open == 1
    await until(lambda: app.open == 0)


# What goes wrong


async def test_nobody_listens() -> None:
    """502, as JSON or as a page; it says nothing of where the app is."""
    async with behind() as app:
        port = app.port
    async with before(f"http://127.0.0.1:{port}") as front:
        answer = await front.ask("GET /orders")
        public = "The service behind this proxy cannot be reached. Try again later."
        says = json.dumps({"error": "upstream_error", "error_description": public}, separators=(",", ":")).encode()
        assert (answer.status, answer.body) == (502, says)
        assert answer.one("cache-control") == "no-store"
        page = await front.ask("GET /orders", "Accept: text/html")
        assert (page.status, page.body[:15], str(port).encode() in page.body) == (502, b"<!doctype html>", False)
        assert (await front.ask("POST /orders", "Content-Length: 2", body=b"hi")).status == 502


async def test_a_name_that_nobody_knows() -> None:
    async with before("http://no-such-name.invalid") as front:
        assert (await front.ask("GET /orders")).status == 502


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX A: b\r\n\r\n",
        b"HTTP/1.1 999 Request denied\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 2",
        b"",
    ],
    ids=["not HTTP", "length", "lengths", "long", "name", "status", "101", "half", "nothing"],
)
async def test_what_is_no_response_is_502(front: Front, app: App, said: bytes) -> None:
    app.answer = saying(said, then=lambda writer: writer.close())
    answer = await front.ask("GET /orders")
    assert (answer.status, b"upstream_error" in answer.body) == (502, True)


async def test_early_responses_are_left_out(front: Front, app: App) -> None:
    app.answer = saying(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n", OK)
    answer = await front.ask("GET /orders")
    assert (answer.status, answer.body, answer.all("link")) == (200, b"ok", [])


async def silence(_: Message, reader: Reader, __: Writer) -> None:
    await reader.read()


async def test_an_app_that_is_silent_is_504(app: App) -> None:
    app.answer = silence
    async with before(app, proxy=FAST) as front:
        answer = await front.ask("GET /orders")
        assert (answer.status, b"upstream_timeout" in answer.body) == (504, True)
        assert (await front.ask("POST /orders", "Content-Length: 2", body=b"hi")).status == 504
    await until(lambda: app.open == 0)


async def test_an_app_that_reads_nothing_is_504(app: App) -> None:
    over = asyncio.Event()

    async def deaf(_: Message, __: Reader, writer: Writer) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await over.wait()

    app.answer = deaf
    async with before(app, proxy=FAST) as front:
        size = 50_000_000
        answer = asyncio.create_task(front.ask("POST /orders", f"Content-Length: {size}", body=b"x" * size))
        assert (await answer).status == 504
        over.set()


async def test_a_slow_upload_is_no_silence(app: App) -> None:
    """The app is waited for when it has all of the request."""
    async with before(app, proxy=FAST) as front:
        reader, writer = await front.open()
        writer.write(front.head("POST /orders", "Content-Length: 4"))
        for part in (b"a", b"b", b"cd"):
            await asyncio.sleep(FAST["read_timeout"] * 0.8)  # being slow is what this is about
            writer.write(part)
        answer = await front.response(reader)
        assert (answer.status, app.last.body) == (200, b"abcd")
        writer.close()


async def test_a_connection_that_nobody_accepts_is_504() -> None:
    """192.0.2.1 is nobody's (RFC 5737); some networks say so at once."""
    async with before("http://192.0.2.1:9", proxy={"connect_timeout": 0.2}) as front:
        assert (await front.ask("GET /orders")).status in {502, 504}


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("how", ["close", "abort", "silence", "garbage"])
async def test_a_response_that_ends_in_the_middle_is_cut(
    app: App, framing: bytes, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What came goes on first, and nobody takes it for the whole."""
    over = asyncio.Event()

    async def half(_: Message, __: Reader, writer: Writer) -> None:
        chunked = b"chunked" in framing
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n" + (b"4\r\nhalf\r\n" if chunked else b"half"))
        await writer.drain()
        await asyncio.sleep(0.05)  # so that an abort does not overtake it
        if how == "garbage":
            writer.write(b"\xff\r\n" if chunked else b"x" * 200)
        if how == "silence":
            await over.wait()
        elif how == "abort":
            writer.transport.abort()
        else:
            writer.close()

    app.answer = half
    async with before(app, proxy=FAST) as front:
        answer = await front.ask("GET /orders?secret")
        over.set()
        if how == "garbage" and b"Content" in framing:  # more than was promised: the promise counts
            assert (answer.body, answer.end) == (b"half" + b"x" * 96, COMPLETE)
        else:
            assert (answer.status, answer.body, answer.end) == (200, b"half", CUT)
            assert [text for text in caplog.messages if "/orders" in text and "was cut" in text]
        assert "secret" not in caplog.text
        assert (await front.ask("GET /open/x")).status == 200


async def test_a_body_shorter_than_promised_reaches_the_app_as_such(front: Front, app: App) -> None:
    """The client goes away in the middle of it."""
    _, writer = await front.open()
    writer.write(front.head("POST /orders", "Content-Length: 10") + b"half")
    await until(lambda: app.requests)
    writer.close()
    await until(lambda: app.open == 0)
    assert (app.last.body, app.last.end) == (b"half", CUT)


@pytest.mark.parametrize("moment", ["before the head", "in the body"])
async def test_a_client_that_goes_away_takes_the_request_to_the_app_with_it(
    front: Front, app: App, moment: str
) -> None:
    async def slow(_: Message, reader: Reader, writer: Writer) -> None:
        if moment == "in the body":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await reader.read()

    app.answer = slow
    reader, writer = await front.open()
    writer.write(front.head("GET /orders"))
    await until(lambda: app.requests)
    if moment == "in the body":
        await reader.readuntil(b"half")
    assert app.open == 1
    writer.close()
    await until(lambda: app.open == 0)


async def test_revocation_ends_what_is_on_its_way(app: App) -> None:
    """The client's body is cut and the connection to the app too."""

    async def endless(_: Message, reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await reader.read()

    app.answer = endless
    async with before(app) as front:
        reader, writer = await front.open()
        writer.write(front.head("GET /orders"))
        await reader.readuntil(b"half")
        await front.oidc.revoke.subject("alice")
        assert await reader.read() == b""
        await until(lambda: app.open == 0)
        writer.close()


# Without a server: what HTTP/2 brings, and TLS to the app


async def asked(proxy: ReverseProxy, *parts: bytes, method: str = "POST") -> tuple[int, bytes]:
    """Ask as a server of HTTP/2 does, which has no header for how a body ends."""
    scope = {
        "type": "http", "http_version": "2", "method": method, "path": "/orders", "raw_path": b"/orders",
        "query_string": b"", "root_path": "", "headers": [(b"host", b"app.example")], "client": None, "scheme": "https",
    }  # fmt: skip
    messages: list[Any] = [
        {"type": "http.request", "body": part, "more_body": number < len(parts) - 1}
        for number, part in enumerate(parts)
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if messages else await asyncio.Future()

    async def send(message: Any) -> None:
        sent.append(message)

    async with asyncio.timeout(20):
        await proxy(scope, receive, send)
    return sent[0]["status"], b"".join(message["body"] for message in sent[1:])


async def test_http_2_tells_of_a_body_by_sending_it(app: App) -> None:
    proxy = ReverseProxy(app.url)
    assert await asked(proxy, b"a", b"", b"bc") == (200, b"ok")
    assert (app.last.body, app.last.all("transfer-encoding")) == (b"abc", ["chunked"])
    assert await asked(proxy, b"", method="GET") == (200, b"ok")
    assert (app.last.all("transfer-encoding"), app.last.all("content-length")) == ([], [])
    await proxy.aclose()


@pytest.mark.parametrize("trusts", [True, False])
async def test_an_app_with_tls(tmp_path: Path, trusts: bool) -> None:
    """Only the authorities that are named are trusted; WebSockets go the same way."""
    authority, stranger = trustme.CA(), trustme.CA()
    file = tmp_path / "ca.pem"
    (authority if trusts else stranger).cert_pem.write_to_path(str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with (
        behind(tls=context) as app,
        before(f"https://127.0.0.1:{app.port}", proxy={"ca_file": str(file)}) as front,
    ):
        assert (await front.ask("GET /orders")).status == (200 if trusts else 502)
        size = 3_000_000
        answer = await front.ask("POST /orders", f"Content-Length: {size}", body=b"x" * size)
        assert answer.status == (200 if trusts else 502)
        if trusts:
            assert (app.last.body, app.connections) == (b"x" * size, 1)
        else:
            assert app.requests == []


async def test_websockets_over_tls(tmp_path: Path) -> None:
    async def echo(connection: ServerConnection) -> None:
        await connection.send(await connection.recv())

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with serve(echo, "127.0.0.1", 0, ssl=context) as server:
        upstream = f"https://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        async with before(upstream, proxy={"ca_file": str(tmp_path / "ca.pem")}) as front:
            name, _, value = front.authorization.partition(": ")
            url = f"ws://127.0.0.1:{front.port}/ws"
            async with connect(url, additional_headers={name: value}, proxy=None) as client:
                await client.send("x" * 100_000)
                assert await client.recv() == "x" * 100_000
