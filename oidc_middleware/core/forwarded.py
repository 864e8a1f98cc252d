"""What a proxy says of the request that it asks about, in the headers of the most common ones.

| proxy | method | path and query | host, scheme |
|---|---|---|---|
| Traefik, Caddy | `X-Forwarded-Method` | `X-Forwarded-Uri` | `X-Forwarded-Host`, `X-Forwarded-Proto` |
| nginx | `X-Original-Method` | `X-Original-URI`, or `X-Original-URL` with scheme and host | as above, or in the URL |
| nginx set up for oauth2-proxy | – | `X-Auth-Request-Redirect`, with scheme and host or without | as above |
| Envoy | that of its own request | below the path of the endpoint | as above |

Any of these may come from a client through a proxy that does not know it. So what is told twice must be told alike, and
whoever believes it must know that the proxy tells it (`comes_from`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import unquote

from oidc_middleware.errors import InvalidRequest

Headers = Iterable[tuple[bytes, bytes]]

_TARGETS = (b"x-forwarded-uri", b"x-original-uri", b"x-original-url", b"x-auth-request-redirect")
_METHODS = (b"x-forwarded-method", b"x-original-method")
_HOST = b"x-forwarded-host"
_SCHEME = b"x-forwarded-proto"
_NAMES = frozenset((*_TARGETS, *_METHODS, _HOST, _SCHEME))
# nginx-ingress has the URL in the one, oauth2-proxy takes it in the other; a path is all that the rest of them hold.
_MAY_BE_ABSOLUTE = (b"x-original-url", b"x-auth-request-redirect")

_ORIGIN_FORM = re.compile(rb"/[!\x22\x24-\x7e\x80-\xff]*")
_AUTHORITY = rb"(?P<host>(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?)"
_ABSOLUTE_FORM = re.compile(
    rb"(?P<scheme>https?)://" + _AUTHORITY + rb"(?P<target>(?:[/?][!\x22\x24-\x7e\x80-\xff]*)?)"
)
_HOST_AND_PORT = re.compile(_AUTHORITY)
_TOKEN = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
# Traefik calls the scheme of a WebSocket handshake ws or wss.
_SCHEMES = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}
_USUAL_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The request that a proxy asks about; `None` is what it did not tell.

    `path` is decoded once and `raw_path` as on the wire, as in an ASGI scope; `query` is what follows the `?`. `host`
    is in lower case, with a port where it is not that of the `scheme`.
    """

    method: str | None
    path: str
    raw_path: bytes
    query: bytes
    host: str | None
    scheme: str | None

    @property
    def target(self) -> str:
        """Path and query, as on the wire."""
        target = self.raw_path + b"?" + self.query if self.query else self.raw_path
        return target.decode("utf-8", "replace")


def read(headers: Headers, *, below: bytes | None = None, method: str = "") -> Forwarded | None:
    """Return the request that the headers speak of; None where they name no path.

    `below` is what follows the endpoint in the path of the proxy's own request, with its query, and `method` the method
    of that: where there is such a path they are the forwarded ones (Envoy).

    Raises:
        InvalidRequest: something is told twice and not alike, or is none of what it should be. An absolute URL stands
            only where its sender is known to write one.

    Source: RFC 9112 §3.2 (forms of a request target); RFC 9110 §9.1, §7.2.
    """
    told = _told(headers)
    absolute = [found for name in _MAY_BE_ABSOLUTE if (found := _ABSOLUTE_FORM.fullmatch(told.get(name, b"")))]
    targets = {_target(name, told[name]) for name in _TARGETS if name in told}
    methods = {_method(told[name]) for name in _METHODS if name in told}
    if below is not None:
        targets.add(_target(b"path", below))
        methods.add(_method(method.encode("latin-1", "replace")))
    if len(targets) > 1 or len(methods) > 1:
        raise InvalidRequest("two forwarded requests, which differ")
    if not targets:
        return None
    scheme = _scheme([*(found["scheme"] for found in absolute), *_of(told, _SCHEME)])
    host = _host([*(found["host"] for found in absolute), *_of(told, _HOST)], scheme)
    raw_path, _, query = targets.pop().partition(b"?")
    path = unquote(raw_path.decode("utf-8", "replace"))
    return Forwarded(methods.pop() if methods else None, path, raw_path, query, host, scheme)


def comes_from(networks: Collection[IPv4Network | IPv6Network], address: str | None) -> bool:
    """Tell whether an address is in one of the networks; no address (a Unix socket has none) is in none.

    Source: RFC 4291 §2.5.5.2 (an IPv4 address on a socket of IPv6).
    """
    if not networks or not address:
        return False
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in network for network in networks)


def _told(headers: Headers) -> dict[bytes, bytes]:
    told: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _NAMES:
            if name in told:
                raise InvalidRequest(f"two headers {name.decode()}")
            told[name] = value
    return told


def _of(told: dict[bytes, bytes], name: bytes) -> list[bytes]:
    return [told[name]] if name in told else []


def _target(name: bytes, value: bytes) -> bytes:
    if _ORIGIN_FORM.fullmatch(value):
        return value
    absolute = _ABSOLUTE_FORM.fullmatch(value) if name in _MAY_BE_ABSOLUTE else None
    if absolute is None:
        raise InvalidRequest(f"{name.decode()} holds no path")
    target = absolute["target"]
    return target if target[:1] == b"/" else b"/" + target


def _method(value: bytes) -> str:
    if not _TOKEN.fullmatch(value):
        raise InvalidRequest("the forwarded method is none")
    return value.decode("ascii")


def _scheme(values: list[bytes]) -> str | None:
    schemes = {_SCHEMES.get(value.lower()) for value in values}
    if None in schemes or len(schemes) > 1:
        raise InvalidRequest("the forwarded scheme is none, or is told twice")
    return schemes.pop() if schemes else None


def _host(values: list[bytes], scheme: str | None) -> str | None:
    if not all(map(_HOST_AND_PORT.fullmatch, values)):
        raise InvalidRequest("the forwarded host is none")
    hosts = {value.decode("ascii").lower().removesuffix(_USUAL_PORTS.get(scheme or "", " ")) for value in values}
    if len(hosts) > 1:
        raise InvalidRequest("two forwarded hosts, which differ")
    return hosts.pop() if hosts else None
