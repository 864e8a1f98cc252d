"""The door to redis-py: one connection, one batch of commands at a time, one deadline for all of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from oidc_middleware.cache.redis.wire import command
from oidc_middleware.errors import BackendUnavailable, FailureKind

Reply = Any
"""bytes, int, str, None or a list of these; an error answer is a `BackendUnavailable` in its place."""

_KINDS: Mapping[str, FailureKind] = {
    "READONLY": "readonly",
    "OOM": "full",
    "MISCONF": "full",
    "NOREPLICAS": "full",
    "NOAUTH": "auth",
    "WRONGPASS": "auth",
    "NOPERM": "auth",
    "LOADING": "busy",
    "BUSY": "busy",
    "UNBLOCKED": "busy",
    "MASTERDOWN": "busy",
    "CLUSTERDOWN": "busy",
    "MOVED": "busy",
    "ASK": "busy",
    "TRYAGAIN": "busy",
}
"""What the first word of an error answer means."""

_SCHEMES = ("redis", "rediss", "unix")
_OPTIONS = frozenset({"db", "ssl_certfile", "ssl_keyfile", "ssl_ca_certs", "ssl_check_hostname"})


class Link:
    """A connection that is made when it is first needed, and anew after a fault.

    A fault is whatever leaves the connection with an answer that nobody reads: no caller ever gets the answer to
    somebody else's command. With `fenced`, a new connection first ends the one before it on the server: what was sent
    there and still lingers in the network then takes no effect any more, so that order holds across connections. That
    needs the permission for `CLIENT INFO` and `CLIENT KILL`; without it the link works, unfenced.
    """

    def __init__(self, connect: Callable[[], Any], budget: float, *, fenced: bool = False) -> None:
        self._make = connect
        self._budget = budget
        self._fenced = fenced
        self._connection: Any = None
        self._writer: asyncio.StreamWriter | None = None
        self._identity: tuple[bytes, bytes] | None = None
        self._lock = asyncio.Lock()
        self.connects: int = 0
        """How many connections were made."""
        self.failures: Counter[FailureKind] = Counter()
        """How many round trips failed as a whole, and how many error answers came, by kind."""

    async def ask(self, *commands: bytes, needs: int | None = None) -> Sequence[Reply]:
        """Send commands in one go and return their answers, in order.

        `needs` is how many answers come; None: one for each command.

        Raises:
            BackendUnavailable: no connection, no answer within the budget, or credentials that do not work.
        """
        try:
            async with asyncio.timeout(self._budget), self._lock:
                try:
                    return await self._ask(commands, len(commands) if needs is None else needs)
                except BaseException:
                    self._drop()
                    raise
        except TimeoutError:
            error = BackendUnavailable(f"no answer within {self._budget:g} s", "timeout")
        except BackendUnavailable as failure:
            error = failure
        self.failures[error.kind] += 1
        raise error

    async def aclose(self) -> None:
        """Let go of the connection."""
        writer = self._drop()
        if writer is not None:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(self._budget):
                    await writer.wait_closed()

    def abandon(self) -> None:
        """Let go of the connection although its loop is closed."""
        self._drop()

    async def _ask(self, commands: Sequence[bytes], needs: int) -> Sequence[Reply]:
        from redis.exceptions import RedisError, ResponseError

        try:
            connection = await self._open()
            await connection.send_packed_command(b"".join(commands), check_health=False)
            replies: list[Reply] = []
            for _ in range(needs):
                try:
                    replies.append(await connection.read_response(disable_decoding=True))
                except ResponseError as refusal:
                    replies.append(self._refused(refusal))
            if any(isinstance(reply, BackendUnavailable) and reply.kind == "readonly" for reply in replies):
                self._drop()  # what was a primary is a replica now: whoever is found next may be the new one
            return replies
        except (RedisError, OSError) as error:
            raise _unavailable(error) from error

    async def _open(self) -> Any:
        connection = self._connection
        if connection is not None:
            if connection.is_connected and not await connection.can_read():
                return connection
            self._drop()  # the server closed it, or says something that nobody asked for
        self._connection = connection = self._make()
        self.connects += 1
        await connection.connect()
        self._writer = connection._writer  # noqa: SLF001  redis-py forgets it when it disconnects
        if self._fenced:
            await self._fence(connection)
        return connection

    async def _fence(self, connection: Any) -> None:
        """End this link's connection before this one, and remember what the server calls this one."""
        from redis.exceptions import ResponseError

        commands = [command(b"CLIENT", b"INFO")]
        if self._identity is not None:
            number, address = self._identity
            commands.insert(0, command(b"CLIENT", b"KILL", b"ID", number, b"ADDR", address))
        await connection.send_packed_command(b"".join(commands), check_health=False)
        reply: Any = None
        for _ in commands:
            try:
                reply = await connection.read_response(disable_decoding=True)
            except ResponseError:
                reply = None
        self._identity = _identity_in(reply)

    def _refused(self, refusal: Exception) -> BackendUnavailable:
        error = _unavailable(refusal)
        self.failures[error.kind] += 1
        return error

    def _drop(self) -> asyncio.StreamWriter | None:
        """End the connection now, with what it has not sent yet; return its stream, if there was one.

        redis-py closes a connection by sending what is left first, which a frozen server never takes.
        """
        connection, self._connection = self._connection, None
        writer, self._writer = self._writer, None
        if connection is None:
            return None
        writer = writer or connection._writer  # noqa: SLF001  a handshake that failed
        connection._reader = connection._writer = None  # noqa: SLF001  or it warns that nobody closed it
        if writer is not None:
            _abort(writer)
        return writer


def _abort(writer: asyncio.StreamWriter) -> None:
    try:
        writer.transport.abort()
    except RuntimeError:  # its loop is closed and will not do the rest
        with contextlib.suppress(AttributeError, RuntimeError):
            writer.transport._call_connection_lost(None)  # type: ignore[attr-defined]  # noqa: SLF001


def connector(url: str, ca_file: str | None = None, **options: Any) -> Callable[[], Any]:
    """Return a function that makes a connection of redis-py, not yet open, from a URL.

    Raises:
        ValueError: the URL is neither `redis://`, `rediss://` nor `unix://`, or asks for what is not supported.
        ModuleNotFoundError: redis-py is not installed.
    """
    _check(url)
    if find_spec("redis") is None:
        raise ModuleNotFoundError("Redis needs redis-py: pip install 'oidc-middleware[redis]'", name="redis")

    def connect() -> Any:
        from redis.asyncio.connection import Connection, parse_url
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        given: dict[str, Any] = dict(parse_url(url))
        kind = given.pop("connection_class", Connection)
        if ca_file is not None:
            given["ssl_ca_certs"] = ca_file
        # The one deadline is ours: a timeout for each read would let a slow server take any number of them.
        fixed = {"socket_timeout": None, "socket_connect_timeout": None, "retry": Retry(NoBackoff(), 0)}
        return kind(**{**given, **options, **fixed, "driver_info": None, "decode_responses": False})

    return connect


def _check(url: str) -> None:
    """Refuse what redis-py would ignore in silence.

    Raises:
        ValueError: see `connector`.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"the scheme {parts.scheme!r} of a Redis URL is not one of {', '.join(_SCHEMES)}")
    unknown = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)} - _OPTIONS
    if unknown:
        raise ValueError(f"the option {min(unknown)!r} of a Redis URL is not one of {', '.join(sorted(_OPTIONS))}")
    path = parts.path.strip("/")
    if parts.scheme == "unix" and not path:
        raise ValueError("a unix:// URL needs the path of a socket")
    if parts.scheme != "unix" and (not parts.hostname or parts.port == 0 or not (path.isdecimal() or not path)):
        raise ValueError("a Redis URL needs a host, and after it nothing but the number of a database")


def _identity_in(info: Any) -> tuple[bytes, bytes] | None:
    """Return the number and the address by which the server knows a connection, from `CLIENT INFO`."""
    if not isinstance(info, bytes):
        return None
    fields = dict(word.partition(b"=")[::2] for word in info.split())
    number, address = fields.get(b"id"), fields.get(b"addr")
    return (number, address) if number and address else None


def _unavailable(error: BaseException) -> BackendUnavailable:
    """Return what an error of redis-py means."""
    from redis.exceptions import AuthenticationError, RedisError
    from redis.exceptions import ConnectionError as LinkError
    from redis.exceptions import TimeoutError as Late

    if isinstance(error.__cause__, RedisError):
        error = error.__cause__  # the error of a handshake, within that of the connection
    word = getattr(error, "status_code", None) or str(error).partition(" ")[0]
    kind = _KINDS.get(word, "refused")
    if kind == "refused" and isinstance(error, AuthenticationError):
        kind = "auth"
    elif kind == "refused" and isinstance(error, Late):
        kind = "timeout"
    elif kind == "refused" and isinstance(error, LinkError | OSError):
        kind = "link"
    return BackendUnavailable(f"{type(error).__name__}: {error}", kind)
