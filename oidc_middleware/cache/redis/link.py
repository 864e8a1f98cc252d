"""The door to redis-py: one connection, one batch of commands at a time, one deadline for all of it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from oidc_middleware.cache.redis.urls import Address, target_of
from oidc_middleware.cache.redis.wire import Elsewhere, command
from oidc_middleware.cache.waiters import closed
from oidc_middleware.errors import BackendUnavailable, FailureKind

Reply = Any
"""bytes, int, str, None or a list of these; an error answer is a `BackendUnavailable` in its place."""

Connect = Callable[[], Awaitable[Any]]
"""Returns a connection of redis-py that is open; raises `BackendUnavailable`, and then leaves nothing open."""

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

_IN_A_SCRIPT = re.compile(
    r"Error running script .*?(?:: -(?P<word>[A-Z]+) |can't (?P<may>run this command|access at least one of the keys))"
    r"|(?P<acl>ACL failure in script)"
)
"""What a command in a script was refused for, where the first word does not say it: before 7.0, and permissions."""


class Link:
    """A connection that is made when it is first needed, and anew after a fault.

    A fault is whatever leaves the connection with an answer that nobody reads: no caller ever gets the answer to
    somebody else's command. With `fenced`, a new connection first ends the one before it on the server: what was sent
    there and still lingers in the network then takes no effect any more, so that order holds across connections. That
    needs the permission for `CLIENT INFO` and `CLIENT KILL`; without it the link works, unfenced. A new connection to
    another server ends none: there, what the old server did not pass on is gone.

    `on_failure` is told of every round trip that failed, and of every error answer.
    """

    def __init__(
        self,
        connect: Connect,
        budget: float,
        *,
        fenced: bool = False,
        on_failure: Callable[[BackendUnavailable], None] | None = None,
    ) -> None:
        self._connect = connect
        self._budget = budget
        self._fenced = fenced
        self._connection: Any = None
        self._writer: asyncio.StreamWriter | None = None
        self._on_failure = on_failure
        self._identity: tuple[str, bytes, bytes] | None = None
        self._is_outdated = False
        self._is_abandoned = False
        self._lock = asyncio.Lock()
        self.connects: int = 0
        """How many connections were made."""
        self.failures: Counter[FailureKind] = Counter()
        """How many round trips failed as a whole, and how many error answers came, by kind."""

    @property
    def is_busy(self) -> bool:
        """Whether something is under way."""
        return self._lock.locked()

    def renew(self) -> None:
        """Make a new connection for the next batch."""
        self._is_outdated = True

    async def ask(self, *commands: bytes, needs: int | None = None, within: float | None = None) -> Sequence[Reply]:
        """Send commands in one go and return their answers, in order.

        `needs` is how many answers come; None: one for each command. `within` is how many seconds that may take; None:
        the budget.

        Raises:
            BackendUnavailable: no connection, no answer within the budget, or credentials that do not work.
        """
        budget = self._budget if within is None else within
        try:
            async with asyncio.timeout(budget), self._lock:
                try:
                    return await self._ask(commands, len(commands) if needs is None else needs)
                except BaseException:
                    self._drop()
                    raise
        except TimeoutError:
            error = BackendUnavailable(f"no answer within {budget:.3g} s", "timeout")
        except BackendUnavailable as failure:
            error = failure
        self._note(error)
        raise error

    async def aclose(self) -> None:
        """Let go of the connection."""
        writer = self._drop()
        if writer is not None:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(self._budget):
                    await writer.wait_closed()

    def abandon(self) -> None:
        """Let go of the connection for good, although its loop may be closed."""
        self._is_abandoned = True
        self._drop()

    async def _ask(self, commands: Sequence[bytes], needs: int) -> Sequence[Reply]:
        connection = await self._open()
        replies = await exchange(connection, commands, needs)
        for reply in replies:
            if isinstance(reply, BackendUnavailable):
                self._note(reply)
        return replies

    def _note(self, failure: BackendUnavailable) -> None:
        self.failures[failure.kind] += 1
        if failure.kind == "readonly":  # what was a primary is a replica now: whoever is found next may be the new one
            self.renew()
        if self._on_failure is not None:
            self._on_failure(failure)

    async def _open(self) -> Any:
        if self._is_abandoned:
            raise closed()
        connection = self._connection
        if connection is not None:
            if not self._is_outdated and connection.is_connected and not await connection.can_read():
                return connection
            self._drop()  # the server closed it, or says something that nobody asked for
        self._is_outdated = False
        self.connects += 1
        self._connection = connection = await self._connect()
        self._writer = connection._writer  # noqa: SLF001  redis-py forgets it when it disconnects
        if self._fenced:
            await self._fence(connection)
        return connection

    async def _fence(self, connection: Any) -> None:
        """End this link's connection before this one, and remember what the server calls this one."""
        server = _name_of(connection)
        commands = [command(b"CLIENT", b"INFO")]
        if self._identity is not None and self._identity[0] == server:
            _, number, address = self._identity
            commands.insert(0, command(b"CLIENT", b"KILL", b"ID", number, b"ADDR", address))
        reply = (await exchange(connection, commands, len(commands)))[-1]
        known = _identity_in(reply)
        self._identity = None if known is None else (server, *known)

    def _drop(self) -> asyncio.StreamWriter | None:
        """End the connection now, with what it has not sent yet; return its stream, if there was one."""
        connection, self._connection = self._connection, None
        writer, self._writer = self._writer, None
        if connection is not None:
            abort(connection, writer)
        return writer


async def ask_once(connect: Connect, *commands: bytes) -> Sequence[Reply]:
    """Send commands over a connection of their own and return their answers, in order.

    Raises:
        BackendUnavailable: no connection, or it broke.
    """
    connection = await connect()
    try:
        return await exchange(connection, commands, len(commands))
    finally:
        abort(connection)


async def exchange(connection: Any, commands: Sequence[bytes], needs: int) -> list[Reply]:
    """Send commands over an open connection and return so many answers.

    Raises:
        BackendUnavailable: the connection broke.
    """
    from redis.exceptions import RedisError, ResponseError

    try:
        await connection.send_packed_command(b"".join(commands), check_health=False)
        replies: list[Reply] = []
        for _ in range(needs):
            try:
                replies.append(await connection.read_response(disable_decoding=True))
            except ResponseError as refusal:
                replies.append(_unavailable(refusal))
        return replies
    except (RedisError, OSError) as error:
        raise _unavailable(error) from error


def abort(connection: Any, writer: asyncio.StreamWriter | None = None) -> None:
    """End a connection now, with what it has not sent yet.

    redis-py closes a connection by sending what is left first, which a frozen server never takes. `writer` is its
    stream, for redis-py may have forgotten that.
    """
    writer = writer or connection._writer  # noqa: SLF001
    connection._reader = connection._writer = None  # noqa: SLF001  or it warns that nobody closed it
    if writer is not None:
        _abort(writer)


def _abort(writer: asyncio.StreamWriter) -> None:
    try:
        writer.transport.abort()
    except RuntimeError:  # its loop is closed and will not do the rest
        with contextlib.suppress(AttributeError, RuntimeError):
            writer.transport._call_connection_lost(None)  # type: ignore[attr-defined]  # noqa: SLF001


def connector(url: str, ca_file: str | None = None, **options: Any) -> Connect:
    """Return a function that opens a connection of redis-py to the server of a URL.

    Raises:
        ValueError: the URL is not that of one server, or asks for what is not supported; `ca_file` without TLS.
        ModuleNotFoundError: redis-py is not installed.
    """
    if target_of(url).form != "server":
        raise ValueError("a connection leads to one server")
    if ca_file is not None and not url.startswith("rediss:"):
        raise ValueError("an authority (ca_file) is for TLS, and needs a URL that begins with rediss")
    _load()

    async def connect() -> Any:
        from redis.exceptions import RedisError

        connection = _made(url, ca_file, options)
        try:
            await connection.connect()
        except (RedisError, OSError) as error:
            abort(connection)
            raise _unavailable(error) from error
        except BaseException:
            abort(connection)
            raise
        return connection

    return connect


def _load() -> None:
    """Load redis-py, which takes a tenth of a second, before anybody has a deadline."""
    try:
        import_module("redis.asyncio.connection")
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        raise ModuleNotFoundError("Redis needs redis-py: pip install 'oidc-middleware[redis]'", name="redis") from None


def _made(url: str, ca_file: str | None, options: Mapping[str, Any]) -> Any:
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


def _name_of(connection: Any) -> str:
    """Return which server a connection leads to."""
    return "{host}:{port}".format(**vars(connection)) if hasattr(connection, "port") else str(connection.path)


def _identity_in(info: Any) -> tuple[bytes, bytes] | None:
    """Return the number and the address by which the server knows a connection, from `CLIENT INFO`."""
    if not isinstance(info, bytes):
        return None
    fields = dict(word.partition(b"=")[::2] for word in info.split())
    number, address = fields.get(b"id"), fields.get(b"addr")
    return (number, address) if number and address else None


def _word_of(error: BaseException) -> str:
    """Return the word for what an error answer is about."""
    found = _IN_A_SCRIPT.match(str(error))
    if found is not None:
        return found["word"] or "NOPERM"
    return getattr(error, "status_code", None) or str(error).partition(" ")[0]


def _unavailable(error: BaseException) -> BackendUnavailable:
    """Return what an error of redis-py means."""
    from redis.exceptions import AskError, AuthenticationError, RedisError
    from redis.exceptions import ConnectionError as LinkError
    from redis.exceptions import TimeoutError as Late

    if isinstance(error.__cause__, RedisError):
        error = error.__cause__  # the error of a handshake, within that of the connection
    word = _word_of(error)
    kind = _KINDS.get(word, "refused")
    if kind == "refused" and isinstance(error, AuthenticationError):
        kind = "auth"
    elif kind == "refused" and isinstance(error, Late):
        kind = "timeout"
    elif kind == "refused" and isinstance(error, LinkError | OSError):
        kind = "link"
    detail = f"{type(error).__name__}: {error}"
    if isinstance(error, AskError):
        address = Address(error.host, error.port)
        return Elsewhere(detail, error.slot_id, address, is_lasting=word == "MOVED")
    return BackendUnavailable(detail, kind)
