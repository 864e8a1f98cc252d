"""Where a request to an issuer may go: which URLs can be read in one way only, and which networks they may reach.

A discovery document is written by whoever runs the issuer, or stands in its place. What it names must not become a way
into the network behind this service. The rules know addresses, not names: names are resolved first, and what is
checked is the address that is then connected to.
"""

from __future__ import annotations

import ipaddress
import re
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

MAX_URL_LENGTH = 2048

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_CHARACTER = r"[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2}"
_URL = re.compile(
    rf"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f]*:[0-9A-Fa-f:.]+\]|{_LABEL}(?:\.{_LABEL})*)(?::(?P<port>[0-9]{{1,5}}))?"
    rf"(?P<path>(?:/(?:{_CHARACTER})*)*)(?P<query>\?(?:[/?]|{_CHARACTER})*)?"
)
_DEFAULT_PORTS = {"https": 443, "http": 80}
_LAST_PORT = 65535
# Resolvers read all of these as IPv4 addresses: 127.1, 2130706433, 0x7f.1, 0177.0.0.1.
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


class Zone(IntEnum):
    """How far inside an address lies. An issuer may name addresses as far inside as its own, and none further."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    FORBIDDEN = 3
    """Nobody may name it: it is no host, or it is a cloud's metadata service, which hands out credentials."""


class URL(NamedTuple):
    """The parts of a checked URL. `host` is in lower case and without brackets; `path` and `query` are as written."""

    scheme: str
    host: str
    port: int
    path: str
    query: str


def parse_url(url: object) -> URL:
    """Take a URL apart that every reader takes apart alike.

    Raises:
        ValueError: not an http or https URL in ASCII, or with a user, a fragment, a host that is a number in disguise,
            an empty label, or a port that does not exist. The message does not quote it.

    Source: RFC 3986 §3; RFC 6943 §3.1.1 (forms of IPv4 addresses).
    """
    if type(url) is not str:
        raise ValueError("not a string")
    match = _URL.fullmatch(url) if len(url) <= MAX_URL_LENGTH else None
    if match is None:
        raise ValueError("not an http or https URL in plain form")
    host = match["host"].strip("[]").lower()
    _check_host(host)
    port = int(match["port"] or _DEFAULT_PORTS[match["scheme"]])
    if not 0 < port <= _LAST_PORT:
        raise ValueError("a port that does not exist")
    return URL(match["scheme"], host, port, match["path"], match["query"] or "")


def check_scheme(url: URL, *, allow_http: bool) -> None:
    """Refuse plain http, except to this very machine or where the operator allowed it.

    Raises:
        ValueError: it is refused.

    Source: OpenID Connect Discovery §7.1 (TLS); RFC 8252 §8.3 (loopback).
    """
    if url.scheme != "https" and not allow_http and not is_loopback(url.host):
        raise ValueError("http is for loopback only: it must be https")


def is_loopback(host: str) -> bool:
    """Tell whether `host` names this very machine, whoever resolves it."""
    return presumed_zone(host) is Zone.LOOPBACK


def presumed_zone(host: str) -> Zone:
    """Return the zone of a host as far as it shows without a resolver: other names than `localhost` are public."""
    if host == "localhost":
        return Zone.LOOPBACK
    zone = zone_of_literal(host)
    return Zone.PUBLIC if zone is None else zone


def zone_of_literal(host: str) -> Zone | None:
    """Return the zone of a host that is an address; None when it is a name."""
    try:
        return zone_of(host)
    except ValueError:
        return None


def zone_of(address: str) -> Zone:
    """Return the zone of an IPv4 or IPv6 address, which may carry an interface (`fe80::1%eth0`).

    Raises:
        ValueError: it is no address.

    Source: the IANA special-purpose address registries (RFC 6890); RFC 4291 §2.5.5.2 and RFC 6052 §2.1 (IPv4 in IPv6).
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv4Address):
        return _zone_of_v4(parsed)
    return max((_zone_of_v4(inner) for inner in _embedded(parsed)), default=_zone_of_v6(parsed))


def _check_host(host: str) -> None:
    try:
        if ":" in host:
            IPv6Address(host)
        elif _NUMBER.fullmatch(host.rpartition(".")[2]):
            IPv4Address(host)  # strict: four decimal numbers without leading zeros
    except ipaddress.AddressValueError:
        raise ValueError("a host that looks like an address and is none") from None


def _zone_of_v4(address: IPv4Address) -> Zone:
    if any(address in network for network in _FORBIDDEN_V4):
        return Zone.FORBIDDEN
    if address in _LOOPBACK_V4:
        return Zone.LOOPBACK
    return Zone.PRIVATE if any(address in network for network in _PRIVATE_V4) else Zone.PUBLIC


def _zone_of_v6(address: IPv6Address) -> Zone:
    if address == _LOOPBACK_V6:
        return Zone.LOOPBACK
    if any(address in network for network in _FORBIDDEN_V6):
        return Zone.FORBIDDEN
    if any(address in network for network in _PRIVATE_V6):
        return Zone.PRIVATE
    return Zone.PUBLIC if address in _GLOBAL_V6 else Zone.FORBIDDEN


def _embedded(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """Return the IPv4 addresses that a packet to this IPv6 address may end up at."""
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    if address in _NAT64 or (address in _V4_COMPATIBLE and address != _LOOPBACK_V6):
        return (IPv4Address(int(address) & 0xFFFF_FFFF),)
    return ()


# Python's `is_private` and `is_global` changed between patch releases, so the networks are listed here.
_LOOPBACK_V4 = IPv4Network("127.0.0.0/8")
_FORBIDDEN_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network: 0.0.0.0 reaches loopback
            "169.254.0.0/16",  # link-local: metadata of most clouds
            "100.100.100.200/32",  # metadata of Alibaba Cloud
            "168.63.129.16/32",  # the host agent of Azure
            "192.0.0.192/32",  # metadata of Oracle Cloud
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
_PRIVATE_V4 = tuple(
    map(
        IPv4Network,
        (
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",  # carrier-grade NAT, and the addresses of pods and VPNs
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
        ),
    )
)
_LOOPBACK_V6 = IPv6Address("::1")
_GLOBAL_V6 = IPv6Network("2000::/3")
_V4_COMPATIBLE = IPv6Network("::/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_FORBIDDEN_V6 = tuple(
    map(
        IPv6Network,
        (
            "fd00:ec2::/32",  # metadata of AWS
            "fd20:ce::/32",  # metadata of Google Cloud
            "fd00:c1::a9fe:a9fe/128",  # metadata of Oracle Cloud
        ),
    )
)
_PRIVATE_V6 = tuple(
    map(
        IPv6Network,
        (
            "fc00::/7",
            "64:ff9b:1::/48",  # NAT64 of the local network
            "2001:db8::/32",
            "3fff::/20",
        ),
    )
)
