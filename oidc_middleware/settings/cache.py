"""Settings of the cache: where it is, the secrets that seal what leaves the process, and its namespace."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from pydantic import SecretBytes, SecretStr

from oidc_middleware.clock import SystemClock
from oidc_middleware.core.addresses import is_loopback
from oidc_middleware.errors import ConfigError
from oidc_middleware.settings.checks import items, text
from oidc_middleware.settings.problem import Problem, shown

MEMORY = "memory://"
USUAL_NAMESPACE = "oidc"
_SQLITE = "sqlite:///"
_REDIS = re.compile(r"(?:rediss?|unix)(?:\+(?:sentinel|cluster))?://")
_CREDENTIALS = re.compile(r"(?<=://)[^/@]*(?=@)|(?<=sentinel_password=)[^&#]*")
_NAMESPACE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CURE = (
    "Write memory:// (each process keeps its own), sqlite:///path (workers of one host), or a URL of Redis such as "
    "redis://host:6379/0."
)
_NEW_ONE = "`oidc-middleware secret` prints a new one."

_log = logging.getLogger("oidc_middleware.settings")

Secret = SecretStr | SecretBytes


class CacheURL(str):
    """The URL of a cache, whose credentials `repr` does not show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(without_credentials(self))


def url(value: object) -> CacheURL:
    """Check for the URL of a cache that can be opened; no message shows what may be a password."""
    found = text(value)
    if found == MEMORY:
        return CacheURL(found)
    if found.startswith(_SQLITE):
        _check_folder(sqlite_path(found) or "")
    elif _REDIS.match(found):
        _check_redis(found)
    else:
        raise Problem("is not a cache", _CURE)
    return CacheURL(found)


def without_credentials(found: str) -> str:
    """Return the URL of a cache as it may be shown."""
    return _CREDENTIALS.sub("***", str(found))


def sqlite_path(found: str) -> str | None:
    """Return the path in `sqlite:///path`, None for other URLs; a fourth slash begins an absolute one."""
    return found.removeprefix(_SQLITE) if found.startswith(_SQLITE) else None


def secrets(value: object) -> tuple[Secret, ...]:
    """Check for one secret or several, each of 32 bytes at least; the first seals, all open."""
    one = isinstance(value, str | bytes | SecretStr | SecretBytes)
    found = [_hidden(secret) for secret in ((value,) if one else items(value, "secrets"))]
    if not found:
        raise Problem("is empty", _NEW_ONE)
    from oidc_middleware.cache.envelope import Sealer

    try:
        Sealer([secret.get_secret_value() for secret in found], "check")
    except ValueError as error:
        problem, _, cure = str(error).partition(": ")
        raise Problem(problem, cure.capitalize() + "." if cure else _NEW_ONE) from None
    return tuple(found)


def namespace(value: object) -> str:
    """Check for a word that can begin the names of entries in any store."""
    if not _NAMESPACE.fullmatch(name := text(value)):
        raise Problem(
            f"{shown(name)} is not a plain word", "Write up to 64 letters, digits, dots, dashes, underscores."
        )
    return name


def check_secret(cache: str, given: tuple[Secret, ...]) -> None:
    """Check that what leaves the process can be sealed, and warn of a Redis that is open to the network.

    Raises:
        ConfigError: the cache is shared and there is no secret.
    """
    if cache == MEMORY:
        return
    if not given:
        cure = f"Every node needs the same one in secret=... or OIDC_SECRET: {_NEW_ONE}"
        raise ConfigError("secret", "is missing, and what a shared cache holds is sealed with it", cure)
    for host, lacks in _open_hosts(cache):
        _log.warning(
            "cache: Redis at %s is reached without %s. Entries are sealed, but whoever is in that network can delete "
            "them, write in vain and see who comes when. Use rediss:// and a password.",
            host,
            lacks,
        )


def _hidden(secret: object) -> Secret:
    if isinstance(secret, SecretStr | SecretBytes):
        return secret
    if isinstance(secret, str):
        return SecretStr(secret)
    if isinstance(secret, bytes):
        return SecretBytes(secret)
    raise Problem(f"must be text or bytes, not {type(secret).__name__}", _NEW_ONE)


def _check_folder(path: str) -> None:
    if not path or path.endswith("/") or "?" in path or "\0" in path:
        raise Problem("names no file", "Write sqlite:///cache.sqlite, or sqlite:////var/cache/app.sqlite.")
    folder = os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120 (as the backend makes it absolute)
    if not os.path.isdir(folder):  # noqa: PTH112
        cure = "Make it. An absolute path begins with a fourth slash: sqlite:////var/cache/app.sqlite."
        raise Problem(f"lies in {shown(folder)}, which is no directory", cure)


def _check_redis(found: str) -> None:
    """Let the backend look: it knows what it can open. It does not connect before it is used."""
    from oidc_middleware.cache import RedisBackend

    try:
        RedisBackend(found, clock=SystemClock())
    except ModuleNotFoundError:
        raise Problem("needs redis-py, which is not installed", "pip install 'oidc-middleware[redis]'") from None
    except ValueError as error:
        said = str(error)
        # What urlsplit says of a port that is none may hold a part of the password.
        raise Problem(said if "Redis URL" in said or "unix" in said else "is not a URL", _CURE) from None


def _open_hosts(cache: str) -> Iterator[tuple[str, str]]:
    """Yield each host beyond this machine that a Redis URL reaches without encryption or password, and what lacks."""
    if not _REDIS.match(cache) or cache.startswith("unix"):
        return
    parts = urlsplit(cache)
    credentials, _, hosts = parts.netloc.rpartition("@")
    lacks = [] if parts.scheme.startswith("rediss") else ["TLS"]
    if not credentials.partition(":")[2] and "ssl_certfile" not in parts.query:
        lacks.append("a password")
    for place in hosts.split(","):
        host = urlsplit(f"//{place}").hostname or ""
        if lacks and not is_loopback(host):
            yield host, " and ".join(lacks)
