"""How keys, values and commands look on the way to Redis: pure, and without redis-py."""

from __future__ import annotations

import math
import struct

from oidc_middleware.cache.backend import Entry

_HEADER = struct.Struct(">Bd")
HEADER_SIZE = _HEADER.size
"""The bytes before a value."""

_VERSION = 1
_NEVER = math.inf
_LONGEST_LIFE = 100 * 365 * 86_400.0
"""Redis computes ends in 64-bit milliseconds and refuses what overflows; nothing here lives for a century."""


def key_prefix(prefix: bytes, kind: str) -> bytes:
    """Return what all keys of a cache type begin with."""
    return b"%b:%b:" % (prefix, kind.encode())


def split_key(prefix: bytes, key: bytes) -> tuple[str, bytes]:
    """Return type name and key of what `key_prefix` and a key make together."""
    kind, _, rest = key[len(prefix) + 1 :].partition(b":")
    return kind.decode(), rest


def glob_of(literal: bytes) -> bytes:
    r"""Return the pattern of `SCAN` that matches whatever begins with `literal`; `*`, `?`, `[` and `\` are literal."""
    escaped = b"".join(b"\\" + bytes((byte,)) if byte in b"*?[]\\^-" else bytes((byte,)) for byte in literal)
    return escaped + b"*"


def seal_end(value: bytes, expires_at: float) -> bytes:
    """Return a value with its absolute end before it: what Redis knows about ends is relative to another clock."""
    return _HEADER.pack(_VERSION, expires_at) + value


def read_end(stored: bytes) -> Entry | None:
    """Return what `seal_end` made, None for anything else that lies in Redis."""
    if len(stored) < HEADER_SIZE:
        return None
    version, expires_at = _HEADER.unpack_from(stored)
    if version != _VERSION or not -_NEVER < expires_at < _NEVER:
        return None
    return Entry(stored[HEADER_SIZE:], expires_at)


def server_identity(*infos: bytes) -> tuple[bytes, ...]:
    """Return what sets a server apart from every other one, and its data from that of any other primary.

    `infos` are its sections `server` and `replication`.
    """
    lines = (line.rstrip() for info in infos for line in info.splitlines())
    return tuple(line for line in lines if line.startswith((b"run_id:", b"master_replid:")))


def milliseconds_left(expires_at: float, now: float) -> int:
    """Return the `PX` of an end, 0 when it has come; rounded up, for the end in the header is exact."""
    return math.ceil(min(expires_at - now, _LONGEST_LIFE) * 1000) if expires_at > now else 0


def eviction_policy(info: bytes) -> str | None:
    """Return the `maxmemory-policy` that `INFO memory` tells, None when it tells none."""
    fields = dict(line.partition(b":")[::2] for line in info.split(b"\r\n"))
    return fields.get(b"maxmemory_policy", b"").decode(errors="replace") or None


def command(*words: bytes) -> bytes:
    """Return a command as an array of bulk strings.

    Source: Redis serialization protocol specification, "Sending commands to a Redis server".
    """
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])
