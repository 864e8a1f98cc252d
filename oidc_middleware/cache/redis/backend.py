"""The cache tier in Redis: bytes under a prefix, read and written in batches."""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from oidc_middleware.cache.backend import Counts, Entry, Health, checked_entry
from oidc_middleware.cache.changes import Change
from oidc_middleware.cache.redis.lanes import Limits
from oidc_middleware.cache.redis.route import Stored
from oidc_middleware.cache.redis.router import router
from oidc_middleware.cache.redis.session import Session, Traffic
from oidc_middleware.cache.redis.wire import key_prefix, read_end, split_key
from oidc_middleware.cache.types import TYPES, CacheType
from oidc_middleware.cache.waiters import closed
from oidc_middleware.cache.writer import Write
from oidc_middleware.clock import Clock
from oidc_middleware.errors import BackendUnavailable

_MIB = 1024 * 1024
_DRAIN = 5.0

_GONE = Entry(b"", 0.0)
"""What a queued delete makes of a key."""

OnLost = Callable[[Sequence[tuple[str, bytes]], BackendUnavailable], None]


@dataclass(slots=True)
class _Room:
    """What belongs to one type: the beginning of its keys, and what happened to it so far."""

    prefix: bytes
    hits: int = 0
    misses: int = 0
    sets: int = 0
    expired: int = 0
    refused: int = 0


class _Rooms(dict[str, _Room]):
    """The rooms by type name; one that is not there yet is made."""

    def __init__(self, prefix: bytes) -> None:
        super().__init__((name, _Room(key_prefix(prefix, name))) for name in TYPES)
        self._prefix = prefix

    def __missing__(self, name: str) -> _Room:
        room = self[name] = _Room(key_prefix(self._prefix, name))
        return room


class RedisBackend:
    """A `Backend` in Redis (6.2 or newer) or Valkey, by URL.

    The URL names a server (`redis://`, `rediss://`, `unix://`), the primary that sentinels know by a name
    (`redis+sentinel://`) or a cluster (`redis+cluster://`), both also with `rediss` for TLS.

    No caller waits longer than `budget` seconds for a read or a write, nothing is tried twice, and a caller that is
    cancelled costs nothing. Values carry their absolute end with them; the server's clock does not matter. A key with a
    write that is still queued here is read from the queue. What the server holds it does not tell: `entries` and
    `bytes` of `stats` are 0. In a cluster, a node that fails fails its own keys alone, and each node has a queue.

    `ca_file` adds a private authority for `rediss://`. A value of more than `max_value_bytes` with its key is not sent:
    its key is deleted, and the refusal counted. `on_lost` is told (type, key) of writes that failed, whose outcome is
    unknown, or that found no room; they may still take effect until the next connection for writes is made, or, for
    users without the permission for `CLIENT INFO` and `CLIENT KILL`, later.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        prefix: bytes = b"oidc",
        budget: float = 0.25,
        queue_size: int = 1000,
        queue_bytes: int = 16 * _MIB,
        max_value_bytes: int = 8 * _MIB,
        ca_file: str | None = None,
        on_lost: OnLost | None = None,
    ) -> None:
        self._route = router(url, budget, ca_file)
        self._clock = clock
        self._now = clock.now
        self._prefix = prefix
        self._limits = Limits(budget, queue_size, queue_bytes)
        self._max_value_bytes = min(max_value_bytes, queue_bytes // 2)
        self._on_lost = on_lost
        self._rooms = _Rooms(prefix)
        self._session: Session | None = None
        self._closed = False

    async def get(self, kind: CacheType, key: bytes) -> Entry | None:
        """Return the entry, None when there is none."""
        session, room = self._session, self._rooms[kind.name]
        if session is None or session.loop is not get_running_loop():
            session = self._open()
        full = room.prefix + key
        lane = session.lanes.only or session.lanes.of(full)
        queued = lane.writer.peek(full)
        return self._counted(room, await lane.reader.read(full) if queued is None else _entry_of(queued))

    async def set(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, wait: bool | None = None) -> None:  # noqa: FBT001
        """Store a copy of `value` until `expires_at` (Unix time in seconds); an end in the past deletes the key.

        `wait` tells whether to return only after the server has it; None: as the type's row says.

        Raises:
            ValueError: `expires_at` is not a finite number.
            TypeError: `value` is not bytes-like.
            BackendUnavailable: it failed, or was not done in time and may still be; there is no room; after `close`.
        """
        write = self._write(kind, key, checked_entry(value, expires_at))
        await self._open().lanes.of(write.key).writer.write(write, wait=_must_wait(kind, wait))

    async def add(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, version: int = 0) -> bool:
        """Store as `set` does unless there is an entry, and wait for it; tell whether it was stored.

        Raises:
            ValueError: `expires_at` is not a finite number, or there is no such `version`.
            TypeError: `value` is not bytes-like, or `version` no integer.
            BackendUnavailable: nobody knows whether it was stored; after `close`.
        """
        return await self._store_if(Session.add, kind, key, checked_entry(value, expires_at, version))

    async def update(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, version: int) -> bool:
        """Replace an entry of a lower version, and wait for it; tell whether that was done.

        That is a script, which the user of the URL must be permitted to run: `EVALSHA` and `EVAL`.

        Raises:
            ValueError: `expires_at` is not a finite number, or there is no such `version`.
            TypeError: `value` is not bytes-like, or `version` no integer.
            BackendUnavailable: nobody knows whether it was done; after `close`.
        """
        return await self._store_if(Session.update, kind, key, checked_entry(value, expires_at, version))

    async def _store_if(
        self, way: Callable[[Session, Write], Awaitable[bool]], kind: CacheType, key: bytes, entry: Entry
    ) -> bool:
        """Store an entry after everything that waits of its key, if what is there then allows it."""
        session, room = self._open(), self._rooms[kind.name]
        full = room.prefix + key
        if len(full) + len(entry.value) > self._max_value_bytes:
            room.refused += 1
            return False
        writer = session.lanes.of(full).writer
        if writer.peek(full) is not None:
            await writer.flush()
        stored = await way(session, Write(full, entry.value, entry.expires_at, version=entry.version))
        room.sets += stored
        return stored

    async def delete(self, kind: CacheType, key: bytes) -> bool:
        """Delete the entry; tell whether there was one."""
        write = Write(self._rooms[kind.name].prefix + key, None, asks=True)
        return await self._open().lanes.of(write.key).writer.write(write, wait=True)

    async def exists(self, kind: CacheType, key: bytes) -> bool:
        """Tell whether there is an entry."""
        full = self._rooms[kind.name].prefix + key
        lane = self._open().lanes.of(full)
        queued = lane.writer.peek(full)
        entry = _entry_in(await lane.reader.read(full) if queued is None else _entry_of(queued))
        return entry is not None and self._now() < entry.expires_at

    async def clear(self, kind: CacheType) -> None:
        """Delete every entry of the type that was there or queued when this began; one set meanwhile may go too."""
        await self._open().clear(kind.name, self._rooms[kind.name].prefix)

    async def get_many(self, kind: CacheType, keys: Iterable[bytes]) -> dict[bytes, Entry]:
        """Return the entries that there are, by key."""
        session, room = self._open(), self._rooms[kind.name]
        full = {key: room.prefix + key for key in keys}
        queued = session.queued(full.values())
        far = [key for key, name in full.items() if name not in queued] if queued else list(full)
        stored = await session.read_many([full[key] for key in far])
        found: dict[bytes, Stored | Entry] = dict(zip(far, stored, strict=True))
        found |= {key: _entry_of(queued[name]) for key, name in full.items() if name in queued} if queued else {}
        entries = ((key, self._counted(room, stored)) for key, stored in found.items())
        return {key: entry for key, entry in entries if entry is not None}

    async def set_many(self, kind: CacheType, entries: Mapping[bytes, Entry], wait: bool | None = None) -> None:  # noqa: FBT001
        """Do what `set` does, for many, each with its version; when one of them is wrong, none is stored."""
        checked = {key: checked_entry(*entry) for key, entry in entries.items()}
        session = self._open()
        writes = [self._write(kind, key, entry) for key, entry in checked.items()]
        await session.write_many(writes, wait=_must_wait(kind, wait))

    async def changes(self) -> AsyncGenerator[Change]:
        """Yield what others change: other processes and other backends, not this one. Ends with `close`.

        The first change says that everything may have changed, and so does every one after which some may have been
        missed: because they were too many, or because the server lost them. A server that cannot be reached does not
        end it.
        """
        if not self._closed:
            async with aclosing(self._open().changes()) as changes:
                async for change in changes:
                    yield change

    def staleness(self) -> float | None:
        """Return how many seconds ago all changes had been yielded for certain; None: never yet, or nobody follows."""
        return self._session.staleness() if self._session is not None else None

    async def ping(self) -> Health:
        """Tell whether the server answers, and in the detail what is dangerous about it."""
        try:
            return Health(healthy=True, detail=await self._open().ping())
        except BackendUnavailable as error:
            return Health(healthy=False, detail=error.detail)

    def stats(self) -> dict[str, Counts]:
        """Return the counts by type name."""
        return {
            name: Counts(room.hits, room.misses, room.sets, expired=room.expired, refused=room.refused)
            for name, room in self._rooms.items()
        }

    def traffic(self) -> Traffic:
        """Return what travelled so far over the present event loop."""
        session = self._session
        return Traffic() if session is None else session.traffic()

    async def suspend(self) -> None:
        """Write what is queued, for 5 s at most, and let go of the connections; the next call makes new ones."""
        session = self._session
        if session is not None and session.loop is get_running_loop():
            await session.lanes.drain(_DRAIN)
            self._session = None
            await session.aclose(_DRAIN)

    async def close(self) -> None:
        """Write what is queued, for 5 s at most, and let go of the connections; a second time does nothing."""
        self._closed = True
        session = self._session
        if session is not None and session.loop is get_running_loop():
            await session.aclose(_DRAIN)
        elif session is not None:
            self._leave(session)

    def _open(self) -> Session:
        """Return the session of the running loop.

        Raises:
            RuntimeError: the backend is in use by another event loop that runs at this moment.
        """
        if self._closed:
            raise closed()
        session, loop = self._session, get_running_loop()
        if session is not None and session.loop is loop:
            return session
        if session is not None:
            self._leave(session)
        self._session = session = Session(self._route(), self._clock, self._limits, self._prefix, self._tell_lost)
        return session

    def _leave(self, session: Session) -> None:
        if session.loop.is_running():
            raise RuntimeError("two event loops use one instance at the same time")
        self._session = None
        session.abandon()

    def _counted(self, room: _Room, stored: Stored | Entry) -> Entry | None:
        """Return the entry if its end has not come, and count it."""
        entry = read_end(stored) if isinstance(stored, bytes) else _entry_in(stored)
        if entry is not None and self._now() < entry.expires_at:
            room.hits += 1
            return entry
        room.misses += 1
        if entry is not None:
            room.expired += entry is not _GONE
        elif stored is not None:
            room.refused += 1
        return None

    def _write(self, kind: CacheType, key: bytes, entry: Entry) -> Write:
        room = self._rooms[kind.name]
        full = room.prefix + key
        if len(full) + len(entry.value) > self._max_value_bytes:
            room.refused += 1
            return Write(full, None)
        room.sets += 1
        if not self._now() < entry.expires_at:
            return Write(full, None)
        return Write(full, entry.value, entry.expires_at, version=entry.version)

    def _tell_lost(self, writes: Sequence[Write], error: BackendUnavailable) -> None:
        if self._on_lost is not None:
            self._on_lost([split_key(self._prefix, write.key) for write in writes], error)


def _entry_of(write: Write) -> Entry:
    """Return what a queued write makes of its key."""
    return _GONE if write.value is None else Entry(write.value, write.expires_at, write.version)


def _entry_in(stored: Stored | Entry) -> Entry | None:
    """Return the entry in what was found, None when there is none.

    Raises:
        BackendUnavailable: nobody knows what there is.
    """
    if isinstance(stored, bytes):
        return read_end(stored)
    if isinstance(stored, BackendUnavailable):
        raise BackendUnavailable(stored.detail, stored.kind)
    return stored


def _must_wait(kind: CacheType, wait: bool | None) -> bool:  # noqa: FBT001
    return kind.write == "synchronous" if wait is None else wait
