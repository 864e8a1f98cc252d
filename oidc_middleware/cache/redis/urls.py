"""What a Redis URL names, and the refusal of what it must not ask for: pure, and without redis-py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

_SCHEMES = (
    *("redis", "rediss", "unix"),
    *("redis+sentinel", "rediss+sentinel"),
    *("redis+cluster", "rediss+cluster"),
)
_TLS_OPTIONS = frozenset({"ssl_certfile", "ssl_keyfile", "ssl_ca_certs", "ssl_check_hostname"})
_SERVER_OPTIONS = _TLS_OPTIONS | {"db"}
_SENTINEL_OPTIONS = _TLS_OPTIONS | {"sentinel_username", "sentinel_password"}
_SENTINEL_PORT = 26379
_PORT = 6379


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL names: one server, the primary that sentinels know by the name `service`, or a cluster.

    `seeds` are the sentinels, or the nodes of the cluster that are asked first. The URLs hold passwords.
    """

    form: Literal["server", "sentinel", "cluster"]
    url: str = field(default="", repr=False)
    seeds: tuple[Address, ...] = ()
    service: str = ""
    _server: tuple[str, str] = field(default=("", ""), repr=False)
    _sentinel: tuple[str, str] = field(default=("", ""), repr=False)

    def server_url(self, address: Address) -> str:
        """Return the URL of a server with data that sentinels or a cluster named."""
        before, behind = self._server
        return f"{before}{address}{behind}"

    def sentinel_url(self, address: Address) -> str:
        """Return the URL of a sentinel."""
        before, behind = self._sentinel
        return f"{before}{address}{behind}"


class _Parts(NamedTuple):
    """A URL with several hosts, taken apart; `login` ends in `@` where there is one, and is still quoted."""

    scheme: str
    login: str
    seeds: tuple[Address, ...]
    path: tuple[str, ...]
    options: Mapping[str, str]


def target_of(url: str) -> Target:
    """Return what a URL names.

    Raises:
        ValueError: its scheme is unknown, or it asks for what redis-py would ignore in silence.
    """
    scheme = url.partition("://")[0] if "://" in url else urlsplit(url).scheme
    if scheme not in _SCHEMES:
        raise ValueError(f"the scheme {scheme!r} of a Redis URL is not one of {', '.join(_SCHEMES)}")
    if scheme.endswith("+sentinel"):
        return _behind_sentinels(_taken_apart(url, _SENTINEL_PORT, _SENTINEL_OPTIONS))
    if scheme.endswith("+cluster"):
        return _in_a_cluster(_taken_apart(url, _PORT, _TLS_OPTIONS))
    _check_server(url)
    return Target("server", url)


def _check_server(url: str) -> None:
    parts = urlsplit(url)
    _options(parts.query, _SERVER_OPTIONS)
    path = parts.path.strip("/")
    if parts.scheme == "unix" and not path:
        raise ValueError("a unix:// URL needs the path of a socket")
    if parts.scheme != "unix" and (not parts.hostname or parts.port == 0 or not (path.isdecimal() or not path)):
        raise ValueError("a Redis URL needs a host, and after it nothing but the number of a database")


def _behind_sentinels(parts: _Parts) -> Target:
    if not 1 <= len(parts.path) <= 2:  # noqa: PLR2004  a service and a database
        raise ValueError(
            "a Redis URL with sentinels names a service, and after it nothing but the number of a database"
        )
    service, database = parts.path[0], parts.path[1] if len(parts.path) > 1 else ""
    if database and not database.isdecimal():
        raise ValueError("a Redis URL with sentinels has nothing after its service but the number of a database")
    options = dict(parts.options)
    user, password = options.pop("sentinel_username", ""), options.pop("sentinel_password", "")
    if user and not password:
        raise ValueError("the option 'sentinel_username' of a Redis URL needs 'sentinel_password'")
    scheme, query = parts.scheme, _query(options)
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else ""
    return Target(
        "sentinel",
        seeds=parts.seeds,
        service=unquote(service),
        _server=(f"{scheme}://{parts.login}", f"/{database}{query}"),
        _sentinel=(f"{scheme}://{login}", query),
    )


def _in_a_cluster(parts: _Parts) -> Target:
    if parts.path:
        raise ValueError(
            "a Redis URL of a cluster has nothing after its hosts: there is one database, without a number"
        )
    before = f"{parts.scheme}://{parts.login}"
    return Target("cluster", seeds=parts.seeds, _server=(before, _query(parts.options)))


def _taken_apart(url: str, port: int, known: frozenset[str]) -> _Parts:
    """Take a URL apart whose hosts are separated by commas, which `urlsplit` does not know."""
    scheme, _, rest = url.partition("://")
    size = min((place for mark in "/?#" if (place := rest.find(mark)) >= 0), default=len(rest))
    login, at, hosts = rest[:size].rpartition("@")
    tail = urlsplit(f"//host{rest[size:]}")
    if tail.fragment:
        raise ValueError("a Redis URL has no fragment; '#' in a password is written as %23")
    return _Parts(
        scheme.partition("+")[0],
        login + at,
        tuple(dict.fromkeys(_address(host, port) for host in hosts.split(","))),
        tuple(part for part in tail.path.split("/") if part),
        _options(tail.query, known),
    )


def _address(text: str, default: int) -> Address:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:  # it would show what may be a part of a password
        host, port = None, None
    if not host or port == 0:
        raise ValueError("a Redis URL needs a host, or hosts separated by commas, each with nothing but a port")
    return Address(unquote(host), port or default)


def _options(query: str, known: frozenset[str]) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = options.keys() - known
    if unknown:
        raise ValueError(f"the option {min(unknown)!r} of a Redis URL is not one of {', '.join(sorted(known))}")
    return options


def _query(options: Mapping[str, str]) -> str:
    return f"?{urlencode(options)}" if options else ""
