"""The one door to the network: a guarded GET or POST. httpx2 is imported here and nowhere else, on first use."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import zlib
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from os import PathLike
from typing import TYPE_CHECKING, Self, cast
from urllib.parse import urlencode

from oidc_middleware.core.addresses import URL, Zone, check_scheme, parse_url, presumed_zone, zone_of, zone_of_literal
from oidc_middleware.errors import ProviderInvalid, ProviderUnavailable
from oidc_middleware.provider.freshness import max_age

if TYPE_CHECKING:
    import httpx2

DEADLINE = 5.0
MAX_BYTES = 512 * 1024
MAX_ANSWER_BYTES = 64 * 1024
"""Of the answer to a form, which is about one thing."""

_MAX_ADDRESSES = 4
_GZIP = 16  # tells zlib to expect gzip's header
# One dead address among several must leave time for the others.
_CONNECT_TIMEOUT = 1.5
_HEADERS = (
    ("Accept", "application/json, application/*+json"),
    ("Accept-Encoding", "identity"),
    ("User-Agent", "oidc-middleware"),
)

Headers = tuple[tuple[str, str], ...]
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""From host and port to IP addresses, the best one first."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer. `max_age` is as in `freshness.max_age`; `zone` is where the address that gave it lies."""

    body: bytes
    max_age: float | None
    zone: Zone
    status: int = 200


class ErrorStatus(ProviderUnavailable):
    """The issuer answered with an error; `answered` is its HTTP status."""

    def __init__(self, url: str, answered: int) -> None:
        super().__init__(f"{url}: answered with status {answered}")
        self.answered = answered


@dataclass(frozen=True, slots=True)
class _Call:
    """What is asked. `repr` shows neither headers nor body, which hold credentials.

    `takes_json` is whether the answer has to be JSON, `takes_refusals` whether one with a status from 400 to 499 is an
    answer too, if it is JSON.
    """

    url: str
    headers: Headers = field(default=(), repr=False)
    form: bytes | None = field(default=None, repr=False)
    takes_json: bool = True
    takes_refusals: bool = False

    @property
    def method(self) -> str:
        return "GET" if self.form is None else "POST"

    @property
    def max_bytes(self) -> int:
        return MAX_BYTES if self.form is None else MAX_ANSWER_BYTES


async def system_resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver, in a thread.

    Raises:
        OSError: it knows no such host, or cannot be asked.
        UnicodeError: `host` cannot be a DNS name.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


class HTTPDoor:
    """Get JSON documents from issuers, under rules that no answer can bend.

    https only (http to loopback, or with `allow_http`), certificates always verified, no redirects, no cookies, no
    proxy and no credentials from the environment, a total deadline, a size limit, the right content type. A name is
    resolved once and every address it has is checked; the connection then goes to a checked address, so that a name
    that resolves differently a moment later gains nothing.

    `ca_file` holds the certificates (PEM) of the only authorities that are trusted; None: the system's. `transport`
    replaces the network: then there are no addresses to check, all other rules hold. `deadline` is in seconds.

    Nothing outlives a request, so a door may be used from one event loop after another, and need not be closed.
    """

    def __init__(
        self,
        *,
        ca_file: str | PathLike[str] | None = None,
        allow_http: bool = False,
        transport: httpx2.AsyncBaseTransport | None = None,
        resolve: Resolve = system_resolve,
        deadline: float = DEADLINE,
    ) -> None:
        self.allow_http = allow_http
        self._ca_file = ca_file
        self._transport = transport
        self._resolve = resolve
        self._deadline = deadline
        self._tls: ssl.SSLContext | None = None

    async def get(self, url: str, reach: Zone, headers: Headers = ()) -> Answer:
        """Fetch a JSON document from a host that lies no further inside than `reach`, with `headers` besides.

        Raises:
            ErrorStatus: the status is neither 200 nor a redirect.
            ProviderUnavailable: no whole answer came in time.
            ProviderInvalid: the URL may not be fetched, or the answer is no JSON document of a decent size.
        """
        return await self._ask(_Call(url, headers), reach)

    async def post(self, url: str, reach: Zone, form: Iterable[tuple[str, str]], headers: Headers = ()) -> Answer:
        """Send a form, with `headers` besides, and return the JSON document that is the answer.

        Raises:
            ErrorStatus, ProviderUnavailable, ProviderInvalid: as `get` does.
        """
        return await self._ask(_Call(url, headers, urlencode(tuple(form)).encode("ascii")), reach)

    def transport(self, reach: Zone, *, takes_json: bool = True) -> FormTransport:
        """Return what stands for the network to a client of httpx2 that sends forms, such as Authlib's.

        All rules of this door hold for what goes through it. An answer with a status from 400 to 499 is handed on, if
        it is JSON; without `takes_json` the body of any other may be anything.
        """
        return FormTransport(self._ask, reach, takes_json=takes_json)

    async def _ask(self, call: _Call, reach: Zone) -> Answer:
        url = call.url
        if "httpx2" not in sys.modules:
            await asyncio.to_thread(import_module, "httpx2")  # 0.1 s, which the loop must not stand still for
        import httpx2

        try:
            async with asyncio.timeout(self._deadline):
                return await self._exchange(call, reach)
        except TimeoutError:
            raise ProviderUnavailable(f"{url}: no whole answer within {self._deadline:g} s") from None
        except (httpx2.HTTPError, OSError) as error:
            raise ProviderUnavailable(f"{url}: {type(error).__name__}: {error}") from error
        except (httpx2.InvalidURL, ValueError) as error:
            raise ProviderInvalid(f"{str(url)[:200]!r}: {error}") from error

    async def _exchange(self, call: _Call, reach: Zone) -> Answer:
        parts = parse_url(call.url)
        check_scheme(parts, allow_http=self.allow_http)
        if self._transport is not None:
            zone = presumed_zone(parts.host)
            _check_reach(zone, reach)
            return await _exchange(self._transport, call, zone)
        addresses = (await self._addresses(parts))[:_MAX_ADDRESSES]
        for address in addresses:
            zone = zone_of(address)
            _check_reach(zone, reach)
            if parts.scheme == "http" and not self.allow_http and zone is not Zone.LOOPBACK:
                raise ValueError("http is for loopback only, and this host lies elsewhere")
        return await self._connect_to_first(addresses, call)

    async def _addresses(self, url: URL) -> Sequence[str]:
        if zone_of_literal(url.host) is not None:
            return (url.host,)
        addresses = await self._resolve(url.host, url.port)
        if not addresses:
            raise OSError("the host has no address")
        return addresses

    async def _connect_to_first(self, addresses: Sequence[str], call: _Call) -> Answer:
        """Ask the first of the addresses that can be connected to.

        Raises:
            httpx2.ConnectError, httpx2.ConnectTimeout: none can.
        """
        import httpx2

        # A connection is never kept: one to an address would be offered to every name that has it, unverified.
        # To make the context reads all the system's certificates: 20 ms. A thread costs a tenth of one, each time.
        tls = self._tls if self._tls is not None else await asyncio.to_thread(self._tls_context)
        async with httpx2.AsyncHTTPTransport(
            verify=tls, trust_env=False, limits=httpx2.Limits(max_keepalive_connections=0)
        ) as transport:
            for address in addresses[:-1]:
                try:
                    return await _exchange(transport, call, zone_of(address), address, _CONNECT_TIMEOUT)
                except (httpx2.ConnectError, httpx2.ConnectTimeout):
                    continue
            return await _exchange(transport, call, zone_of(addresses[-1]), addresses[-1])

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            import httpx2

            self._tls = (
                httpx2.create_ssl_context(trust_env=False)
                if self._ca_file is None
                else ssl.create_default_context(cafile=self._ca_file)
            )
        return self._tls


class FormTransport:
    """A transport of httpx2 (by its methods, for httpx2 is imported on first use) that is made of a door.

    It raises ProviderError as the door does, which httpx2 lets pass.
    """

    def __init__(self, ask: Callable[[_Call, Zone], Awaitable[Answer]], reach: Zone, *, takes_json: bool) -> None:
        self._ask = ask
        self._reach = reach
        self._takes_json = takes_json

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the form of a request, and of its headers the credentials; everything else is as the door has it."""
        import httpx2

        form = await request.aread()
        credentials = tuple((name, value) for name, value in request.headers.items() if name == "authorization")
        call = _Call(str(request.url), credentials, form, self._takes_json, takes_refusals=True)
        answer = await self._ask(call, self._reach)
        return httpx2.Response(answer.status, content=answer.body, request=request)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def aclose(self) -> None:
        """Do nothing: no connection outlives its request."""


def _check_reach(zone: Zone, reach: Zone) -> None:
    if zone > reach or zone is Zone.FORBIDDEN:
        raise ValueError(f"its address is {zone.name.lower()}, which whoever named it may not reach")


def _request(call: _Call, address: str | None, connect_timeout: float | None) -> httpx2.Request:
    """Build a request; with `address` it goes there, while Host and certificate are still those of the URL.

    `connect_timeout` is in seconds; None leaves it to the total deadline.
    """
    import httpx2

    target = httpx2.URL(call.url)
    headers = httpx2.Headers((*_HEADERS, *call.headers))
    if call.form is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    extensions: dict[str, object] = {"timeout": httpx2.Timeout(None, connect=connect_timeout).as_dict()}
    if address is not None:
        headers["Host"] = target.netloc.decode("ascii")
        extensions["sni_hostname"] = target.host
        target = target.copy_with(host=address)
    return httpx2.Request(call.method, target, headers=headers, content=call.form, extensions=extensions)


async def _exchange(
    transport: httpx2.AsyncBaseTransport,
    call: _Call,
    zone: Zone,
    address: str | None = None,
    connect_timeout: float | None = None,
) -> Answer:
    response = await transport.handle_async_request(_request(call, address, connect_timeout))
    try:
        _check_head(response, call)
        # The stream itself, as it came: a transport for tests may have read the response already.
        chunks = cast("AsyncIterable[bytes]", response.stream)
        body = await _read(chunks, response.headers.get("content-encoding"), call.max_bytes)
        life = max_age(response.headers.get("cache-control"), response.headers.get("age"))
        return Answer(body, life, zone, response.status_code)
    finally:
        await response.aclose()


def _check_head(response: httpx2.Response, call: _Call) -> None:
    """Source: OpenID Connect Discovery §4.2 (200, `application/json`); RFC 7517 §8.5.1 (`application/jwk-set+json`)."""
    status = response.status_code
    if 300 <= status < 400:  # noqa: PLR2004  a redirect (RFC 9110 §15.4)
        raise ValueError("a redirect, and none is followed")
    is_refusal = 400 <= status < 500  # noqa: PLR2004  the client's fault (RFC 9110 §15.5)
    if status != 200 and not (is_refusal and call.takes_refusals and _is_json(response)):  # noqa: PLR2004  OK
        raise ErrorStatus(call.url, status)
    if call.takes_json and not _is_json(response):
        raise ValueError("the answer is not of a JSON content type")


def _is_json(response: httpx2.Response) -> bool:
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return content_type == "application/json" or (
        content_type.startswith("application/") and content_type.endswith("+json")
    )


async def _read(chunks: AsyncIterable[bytes], encoding: str | None, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a body, unpacked, and stop as soon as it is too large: a small packed body may be a huge one."""
    unpack = _unpacker(encoding)
    body = bytearray()
    async for chunk in chunks:
        try:
            body += unpack(chunk, max_bytes + 1 - len(body))
        except zlib.error:
            raise ValueError("the answer cannot be unpacked") from None
        if len(body) > max_bytes:
            raise ValueError(f"the answer is larger than {max_bytes} bytes")
    return bytes(body)


def _unpacker(encoding: str | None) -> Callable[[bytes, int], bytes]:
    """Return what unpacks a chunk to so many bytes at most. Some static hosts pack although asked not to."""
    name = (encoding or "identity").strip().lower()
    if name == "identity":
        return lambda chunk, _: chunk
    if name in {"gzip", "x-gzip"}:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | _GZIP).decompress
    raise ValueError("the answer is packed in a way that was not asked for")
