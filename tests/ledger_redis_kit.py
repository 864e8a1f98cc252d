"""Ledgers over Redis, and what their tests do to them."""

from __future__ import annotations

from collections.abc import Callable

from oidc_middleware.cache.redis.ledger import RedisLedger
from oidc_middleware.core.ledger.records import Position

from redis_kit import RedisServer

LEDGER = "oidc:{log}:ledger"
LOG = "oidc:{log}:revocations"
COMMANDS = (*("eval", "evalsha", "time"), *("zadd", "zmscore", "zrange", "zrem", "zscan"), *("unlink", "xadd", "xread"))
"""What docs/redis.md says that the user of a ledger needs."""

OpenLedger = Callable[..., RedisLedger]
"""Takes a URL and options, and returns a ledger that is closed when the test ends."""


def place_in(server: RedisServer) -> Position:
    """Return where the log is, as the sorted set has it."""
    (member,) = server.admin.zrange(LEDGER, "-inf", "(0", byscore=True)
    _, epoch, number, last_id = member.split(b":")
    return Position(epoch, int(number), last_id)


def add_user(server: RedisServer, *commands: str, keys: str = "oidc:*") -> str:
    """Let in a user who may do nothing but this; return the URL."""
    rules = "reset", "on", ">secret", f"~{keys}", *(f"+{name}" for name in commands)
    server.admin.execute_command("ACL", "SETUSER", "node", *rules)
    return server.url.replace("//", "//node:secret@")
