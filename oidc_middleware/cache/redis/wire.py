"""How keys, values and commands look on the way to Redis: pure, and without redis-py."""

from __future__ import annotations

import hashlib
import math
import struct
from typing import Final

from oidc_middleware.cache.backend import VERSIONS, Entry
from oidc_middleware.cache.redis.urls import Address
from oidc_middleware.errors import BackendUnavailable

_HEADER = struct.Struct(">BdQ")
HEADER_SIZE = _HEADER.size
"""The bytes before a value."""

_FORMAT = 2
_TIME = struct.Struct(">d")
_NEVER = math.inf
_LONGEST_LIFE = 100 * 365 * 86_400.0
"""Redis computes ends in 64-bit milliseconds and refuses what overflows; nothing here lives for a century."""


class Elsewhere(BackendUnavailable):
    """A node of a cluster says that another one has the slot, for good (`MOVED`) or for this command (`ASK`).

    The host is empty where the node means its own.
    """

    def __init__(self, detail: str, slot: int, address: Address, *, is_lasting: bool) -> None:
        super().__init__(detail, "busy")
        self.slot = slot
        self.address = address
        self.is_lasting = is_lasting


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


def seal_end(value: bytes, expires_at: float, version: int = 0) -> bytes:
    """Return a value behind its absolute end, for those that Redis knows go by another clock, and its version."""
    return _HEADER.pack(_FORMAT, expires_at, version) + value


def read_end(stored: bytes) -> Entry | None:
    """Return what `seal_end` made, None for anything else that lies in Redis."""
    if len(stored) < HEADER_SIZE:
        return None
    written_as, expires_at, version = _HEADER.unpack_from(stored)
    if written_as != _FORMAT or not -_NEVER < expires_at < _NEVER or version >= VERSIONS:
        return None
    return Entry(stored[HEADER_SIZE:], expires_at, version)


UPDATE: Final = b"""
local format, ends, version = struct.unpack('>BdI8', ARGV[1])
local before = redis.pcall('GETRANGE', KEYS[1], 0, 16)
if type(before) == 'table' then return string.find(before.err, 'WRONGTYPE', 1, true) and 0 or before end
if #before < 17 then return 0 end
local its_format, its_end, its_version = struct.unpack('>BdI8', before)
if its_format ~= format or its_version >= version then return 0 end
if not (its_end > struct.unpack('>d', ARGV[3])) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
"""Replaces a value of a lower version that has not ended: what is stored, its life in ms, and the sender's time."""
UPDATE_NAME: Final[bytes] = hashlib.sha1(UPDATE, usedforsecurity=False).hexdigest().encode()
"""What `EVALSHA` calls it."""


def time_word(now: float) -> bytes:
    """Return a time as the script reads it: exact, which decimal digits on the way to Lua are not."""
    return _TIME.pack(now)


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
