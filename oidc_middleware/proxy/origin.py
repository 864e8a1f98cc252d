"""Where a request came from, as the app is told: `X-Forwarded-*`, `Forwarded` and `X-Real-IP`.

What the client says of itself is worth nothing. Only a peer in `trusted_proxies` is believed: what it says of the host
and the scheme goes on, and its address is appended to its list of addresses. Everybody else's is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final
from urllib.parse import urlsplit

from oidc_middleware.core.forwarded import comes_from
from oidc_middleware.core.identity_headers import Headers, folded
from oidc_middleware.errors import InvalidRequest
from oidc_middleware.proxy.fields import is_forwarded

Networks = Collection[IPv4Network | IPv6Network]

_HOST = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")
_SCHEMES: Final = {"http": b"http", "https": b"https", "ws": b"http", "wss": b"https"}
_USUAL_PORTS: Final = {b"http": b"80", b"https": b"443"}
_FOR, _HOST_NAME, _PROTO, _PORT, _REAL = (
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-forwarded-port",
    b"x-real-ip",
)


@dataclass(frozen=True, slots=True)
class Origin:
    """What we know of where a request came from: `peer` is None of a Unix socket, `asked` the client's `Host`."""

    peer: str | None
    asked: bytes
    host: bytes
    scheme: bytes
    port: bytes


def origin(scope: Any, base_url: str | None) -> Origin:
    """Return where the request of an ASGI scope came from.

    Where `base_url` says where browsers find this app, that is host, scheme and port, whatever the client wrote into
    its `Host` header; the app may put them into links that it sends to others.

    Raises:
        InvalidRequest: there is no `Host` header, or two, or one that names no host.

    Source: RFC 9110 §7.2, RFC 9112 §3.2.
    """
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    if match is None:
        raise InvalidRequest(f"{len(hosts)} Host headers, of which one must name a host")
    peer = scope["client"][0] if scope.get("client") else None
    if base_url is not None:
        url = urlsplit(base_url)
        scheme, host = url.scheme.encode(), url.netloc.encode()
        return Origin(peer, hosts[0], host, scheme, str(url.port).encode() if url.port else _USUAL_PORTS[scheme])
    scheme = _SCHEMES.get(scope.get("scheme", "http"), b"http")
    return Origin(peer, hosts[0], hosts[0], scheme, match["port"] or _USUAL_PORTS[scheme])


def told(headers: Headers, found: Origin, trusted: Networks) -> Headers:
    """Return the headers with what the app is told of the origin.

    Source: RFC 7239 §4 (`Forwarded`); the others are what everybody does.
    """
    others = [(name, value) for name, value in headers if not is_forwarded(name)]
    believed: dict[bytes, list[bytes]] = {}
    if comes_from(trusted, found.peer):
        for name, value in headers:
            if is_forwarded(name) and name == folded(name):
                believed.setdefault(name, []).append(value)
    peer = (found.peer or "").partition("%")[0].encode("latin-1", "replace")
    chain = [*believed.pop(_FOR, ()), *((peer,) if peer else ())]
    element = b"for=" + _node(peer) + b';host="' + found.host + b'";proto=' + found.scheme
    forwarded = [*believed.pop(b"forwarded", ()), element]
    usual = {_HOST_NAME: found.host, _PROTO: found.scheme, _PORT: found.port, _REAL: _client(chain, trusted)}
    ours = {name: believed.pop(name, [value])[-1] for name, value in usual.items()}
    ours |= {_FOR: b", ".join(chain), b"forwarded": b", ".join(forwarded)}
    rest = [(name, values[-1]) for name, values in believed.items()]  # such as X-Forwarded-Prefix
    return [*others, *rest, *((name, value) for name, value in ours.items() if value)]


def _client(chain: list[bytes], trusted: Networks) -> bytes:
    """Return the last address in the list that is of no trusted proxy: that of the client, as far as one can know."""
    addresses = [address.strip() for address in b",".join(chain).split(b",")]
    strangers = (one for one in reversed(addresses) if not comes_from(trusted, one.decode("latin-1")))
    return next(strangers, addresses[0])


def _node(peer: bytes) -> bytes:
    """Return an address as RFC 7239 §6 has it."""
    if not peer:
        return b"unknown"
    return b'"[' + peer + b']"' if b":" in peer else peer
