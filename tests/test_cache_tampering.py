"""What whoever can write a node's Redis can do to it: make it forget, and nothing else."""

from __future__ import annotations

import json
import logging
import pickle
import socket
import struct
import time
from typing import Any

import msgspec
import pytest

from oidc_middleware.cache import TYPES, Entry, Sealer
from oidc_middleware.cache.redis.wire import HEADER_SIZE, seal_end
from oidc_middleware.testing import ManualClock

from hybrid_kit import OpenNode, stored
from redis_kit import PATIENCE, RedisServer, end

pytestmark = pytest.mark.anyio

GENERAL, TOKEN, BLACKLIST, JWK = TYPES["general"], TYPES["token"], TYPES["blacklist"], TYPES["jwk"]
TYPES_THAT_ANYBODY_ATTACKS = (TOKEN, JWK, BLACKLIST, TYPES["session"])


class Exploit:
    """Does harm when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a value from Redis was executed",)


FOREIGN = {
    "pickle": pickle.dumps(Exploit()),
    "pickle-text": b"cos\nsystem\n(S'exit 1'\ntR.",
    "truncated-json": b'{"sub":"admin","exp":99999999',
    "msgpack-ext": msgspec.msgpack.encode(msgspec.msgpack.Ext(1, b"payload")),
    "nan": b"NaN",
    "nan-end": struct.pack(">BdQ", 2, float("nan"), 0) + b'{"sub":"admin"}',
    "infinite-end": struct.pack(">BdQ", 2, float("inf"), 0) + b'{"sub":"admin"}',
    "other-version": struct.pack(">BdQ", 3, 5e9, 0) + b'{"sub":"admin"}',
    "deep": b"[" * 100_000,
    "deep-msgpack": b"\x91" * 100_000,
    "empty": b"",
    "zeros": bytes(1000),
    "our-header": seal_end(b'{"sub":"admin"}', 5e9),
    "our-header-and-version": seal_end(b"\x01" + bytes(100), 5e9),
}


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "in-our-header"])
@pytest.mark.parametrize("name", FOREIGN)
async def test_bytes_that_are_not_ours(
    redis_server: RedisServer, open_node: OpenNode, name: str, *, wrapped: bool
) -> None:
    """C-serial: a miss that is counted; never executed, never an error, and what is written next is read."""
    node = open_node(redis_server.url)
    value = seal_end(FOREIGN[name], 5e9) if wrapped else FOREIGN[name]
    for kind in TYPES_THAT_ANYBODY_ATTACKS:
        redis_server.admin.set(node.name(kind, b"k"), value)
        assert await node.hybrid.get(kind, b"k") is None
        assert await node.hybrid.get_many(kind, [b"k", b"l"]) == {}
        assert not await node.hybrid.exists(kind, b"k")
        assert node.hybrid.stats()[kind.name].misses == 3
    sealer, below = node.sealer.stats(), node.redis.stats()
    unreadable = sealer.malformed + sealer.unknown_key + sealer.altered
    assert unreadable + sum(counts.refused for counts in below.values()) == 3 * len(TYPES_THAT_ANYBODY_ATTACKS)
    assert node.hybrid.overview().errors == {}
    await node.hybrid.set(TOKEN, b"k", b"v", end())
    node.hybrid.invalidate(TOKEN, b"k")
    assert await node.hybrid.get(TOKEN, b"k") is not None


@pytest.mark.parametrize("command", ["rpush", "sadd", "hset", "zadd", "xadd"])
async def test_a_key_of_another_type(redis_server: RedisServer, open_node: OpenNode, command: str) -> None:
    """C-serial: other type."""
    node = open_node(redis_server.url)
    arguments = {"hset": ("field", "v"), "zadd": (1, "v"), "xadd": ("*", "field", "v")}.get(command, ("v",))
    redis_server.admin.execute_command(command, node.name(TOKEN, b"k"), *arguments)
    assert await node.hybrid.get(TOKEN, b"k") is None
    assert node.hybrid.stats()["token"].misses == 1
    await node.hybrid.delete(TOKEN, b"k")
    assert stored(redis_server) == []


async def test_64_megabytes(redis_server: RedisServer, open_node: OpenNode) -> None:
    """C-serial: it costs the time of a transfer at most, and nobody an error."""
    node = open_node(redis_server.url, budget=PATIENCE)
    redis_server.admin.set(node.name(TOKEN, b"k"), seal_end(bytes(64 * 1024 * 1024), 5e9))
    assert await node.hybrid.get(TOKEN, b"k") is None
    assert node.sealer.stats().malformed == 1
    assert node.hybrid.overview().l1["token"].bytes == 0


async def test_claims_of_his_own(redis_server: RedisServer, open_node: OpenNode) -> None:
    """C-tamper-claims: of every way to lay `admin` under his name none opens."""
    node, reader = open_node(redis_server.url), open_node(redis_server.url)
    admin = redis_server.admin
    await node.hybrid.set(TOKEN, b"mallory's", b'{"sub":"mallory"}', end())
    await node.hybrid.set(TOKEN, b"admin's", b'{"sub":"admin"}', end())
    await node.hybrid.set(GENERAL, b"mallory's", b'{"sub":"admin"}', end(), wait=True)
    his, other = node.name(TOKEN, b"mallory's"), node.name(TOKEN, b"admin's")
    honest = admin.get(his)
    stranger = Sealer(["another secret, of 32 bytes or so"], "oidc")
    forgeries = [
        admin.get(other),
        admin.get(node.name(GENERAL, b"mallory's")),
        seal_end(stranger.seal("token", b"mallory's", b'{"sub":"admin"}', end(), time.time()), end()),
        seal_end(b'{"sub":"admin"}', end()),
        *(
            honest[:place] + bytes([honest[place] ^ 1]) + honest[place + 1 :]
            for place in range(HEADER_SIZE, len(honest))
        ),
        honest[:-1],
        honest + b"\0",
    ]
    for forgery in forgeries:
        admin.set(his, forgery)
        assert await reader.hybrid.get(TOKEN, b"mallory's") is None
    counts = reader.sealer.stats()
    assert counts.altered + counts.unknown_key + counts.malformed == len(forgeries)
    admin.set(his, honest)
    entry = await reader.hybrid.get(TOKEN, b"mallory's")
    assert entry is not None
    assert json.loads(entry.value) == {"sub": "mallory"}


async def test_an_end_of_his_own(redis_server: RedisServer, open_node: OpenNode) -> None:
    """C-tamper-old: an entry is put back after its end, with a later one before it; the end inside counts."""
    clock = ManualClock()
    node = open_node(redis_server.url, clock=clock, budget=PATIENCE)
    await node.hybrid.set(TOKEN, b"k", b"v", clock.now() + 10)
    stored = redis_server.admin.get(node.name(TOKEN, b"k"))
    clock.advance(10)
    redis_server.admin.set(node.name(TOKEN, b"k"), seal_end(stored[HEADER_SIZE:], clock.now() + 1000))
    assert await node.hybrid.get(TOKEN, b"k") is None
    assert node.sealer.stats().expired == 1


async def test_an_entry_that_was_deleted_is_put_back(redis_server: RedisServer, open_node: OpenNode) -> None:
    """C-tamper-old: until its end it opens, for sealing knows no time but its end; a new secret ends all that is old.

    What ends a token or a session before is not in the cache: revocations are looked up beside it.
    """
    node = open_node(redis_server.url)
    await node.hybrid.set(TOKEN, b"k", b"v", end())
    stored = redis_server.admin.get(node.name(TOKEN, b"k"))
    await node.hybrid.delete(TOKEN, b"k")
    redis_server.admin.set(node.name(TOKEN, b"k"), stored)
    assert await node.hybrid.get(TOKEN, b"k") is not None
    renewed = Sealer(["another secret, of 32 bytes or so"], "oidc")
    assert renewed.open("token", b"k", stored[HEADER_SIZE:], time.time()) is None


async def test_keys_of_his_own(redis_server: RedisServer, open_node: OpenNode) -> None:
    """C-tamper-jwks: a key set that he wrote is not there, and the issuer's is fetched again."""
    node = open_node(redis_server.url)
    issuer = b"https://issuer.example"
    jwks = b'{"keys":[{"kty":"RSA","kid":"his","n":"AQAB","e":"AQAB"}]}'
    for value in (jwks, seal_end(jwks, end())):
        redis_server.admin.set(node.name(JWK, issuer), value)
        assert await node.hybrid.get(JWK, issuer) is None
    await node.hybrid.set(JWK, b"https://mallory.example", jwks, end(), wait=True)
    own = redis_server.admin.get(node.name(JWK, b"https://mallory.example"))
    redis_server.admin.set(node.name(JWK, issuer), own)
    assert await node.hybrid.get(JWK, issuer) is None, "a key set is bound to its issuer"


async def test_revocations_are_deleted(redis_server: RedisServer, open_node: OpenNode) -> None:
    """C-tamper-delete: that cannot be prevented; a node keeps those it knows until their end."""
    node, other = open_node(redis_server.url), open_node(redis_server.url)
    await node.hybrid.set_many(BLACKLIST, {b"%d" % number: Entry(b"1", end()) for number in range(100)})
    assert await other.hybrid.exists(BLACKLIST, b"7")
    redis_server.admin.delete(*stored(redis_server))
    assert len(await node.hybrid.get_many(BLACKLIST, [b"%d" % number for number in range(100)])) == 100
    redis_server.admin.flushall()
    assert await other.hybrid.exists(BLACKLIST, b"7"), "it had asked for it"


async def test_two_applications_and_two_versions(redis_server: RedisServer, open_node: OpenNode) -> None:
    """C-keyspace: under one secret, in one database; neither sees, lists or clears what the other has."""
    one, two = open_node(redis_server.url, namespace="one"), open_node(redis_server.url, namespace="two")
    for node, value in ((one, b"1"), (two, b"2")):
        await node.hybrid.set(TOKEN, b"k", value, end())
    for node, value in ((one, b"1"), (two, b"2")):
        node.hybrid.invalidate(TOKEN, b"k")
        entry = await node.hybrid.get(TOKEN, b"k")
        assert entry is not None
        assert entry.value == value
    admin = redis_server.admin
    stored = admin.get(one.name(TOKEN, b"k"))
    admin.set(two.name(TOKEN, b"k"), stored)
    two.hybrid.invalidate(TOKEN, b"k")
    assert await two.hybrid.get(TOKEN, b"k") is None, "another application's entry does not open"
    admin.set(one.name(TOKEN, b"k"), bytes([stored[0] + 1]) + stored[1:])
    one.hybrid.invalidate(TOKEN, b"k")
    assert await one.hybrid.get(TOKEN, b"k") is None, "another version's bytes are a miss"
    assert one.redis.stats()["token"].refused == 1
    await two.hybrid.clear(TOKEN)
    assert admin.exists(one.name(TOKEN, b"k"))


async def test_what_is_left_of_a_life(redis_server: RedisServer, open_node: OpenNode) -> None:
    """C-ttl-backfill: an entry with 10 s left is in memory for 10 s, one with more for its type's life there."""
    clock = ManualClock()
    node = open_node(redis_server.url, clock=clock, budget=PATIENCE)
    reader = open_node(redis_server.url, clock=clock, budget=PATIENCE)
    await node.hybrid.set(TOKEN, b"short", b"v", clock.now() + 100)
    await node.hybrid.set(TOKEN, b"long", b"v", clock.now() + 1000)
    clock.advance(90)
    assert len(await reader.hybrid.get_many(TOKEN, [b"short", b"long"])) == 2
    redis_server.admin.flushall()
    clock.advance(9.99)
    assert await reader.hybrid.get(TOKEN, b"short") is not None
    clock.advance(0.01)
    assert await reader.hybrid.get(TOKEN, b"short") is None
    assert await reader.hybrid.get(TOKEN, b"long") is not None
    clock.advance(50)
    assert await reader.hybrid.get(TOKEN, b"long") is None, "60 s after it was read it is asked for again"


async def test_nothing_can_be_read(redis_server: RedisServer, open_node: OpenNode) -> None:
    """C-plaintext: neither on the wire (MONITOR) nor in a dump is there a token, a subject, a session or a claim."""
    secrets = [b"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2ln", b"alice@example.com", b"session-4711", b"department"]
    redis_server.admin.config_set("rdbcompression", "no")
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(redis_server.socket)
        monitor.sendall(b"MONITOR\r\n")
        assert monitor.recv(100) == b"+OK\r\n"
        node, other = open_node(redis_server.url), open_node(redis_server.url)
        for kind in TYPES.values():
            for secret in secrets:
                await node.hybrid.set(kind, secret, b"{%b}" % b",".join(secrets), end(), wait=True)
                assert await other.hybrid.get(kind, secret) is not None
                await node.hybrid.add(kind, secret + b"2", secret, end())
        redis_server.admin.save()
        redis_server.admin.echo("the end")
        monitor.settimeout(PATIENCE)
        seen = b""
        while b"the end" not in seen:
            seen += monitor.recv(65_536)
    assert seen.count(b'"SET"') >= 2 * len(secrets) * len(TYPES)
    seen += dump_of(redis_server)
    for secret in secrets:
        assert secret not in seen
        assert secret[:12] not in seen


def dump_of(server: RedisServer) -> bytes:
    """Return what a server saved."""
    return (server.directory / "dump.rdb").read_bytes()


async def test_each_reason_is_told_once(
    redis_server: RedisServer, open_node: OpenNode, caplog: pytest.LogCaptureFixture
) -> None:
    """C-serial: whoever fills Redis with garbage does not fill the log."""
    node = open_node(redis_server.url)
    for number in range(100):
        redis_server.admin.set(node.name(TOKEN, b"%d" % number), seal_end(b"\x01" + bytes(100), 5e9))
        assert await node.hybrid.get(TOKEN, b"%d" % number) is None
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
