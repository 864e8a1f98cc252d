"""What a Redis backend does when sentinels give its primary's place to a replica, or are late, or away."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from oidc_middleware.cache import TYPES
from oidc_middleware.cache.redis.wire import seal_end

from changes_kit import listening
from load_kit import Load
from redis_kit import LOOPBACK, TOLERANCE, OpenRedis, RedisServer, end, fails, free_port, until
from topology_kit import BUDGET, FAIL_OVER, SERVICE, SentinelGroup

pytestmark = pytest.mark.anyio

TOKEN, GENERAL, BLACKLIST = TYPES["token"], TYPES["general"], TYPES["blacklist"]
CALLERS = [b"caller %d" % number for number in range(20)]


@pytest.fixture
def open_redis(open_redis: OpenRedis) -> OpenRedis:
    """Open backends that tell a server which hangs from one that is late."""
    return partial(open_redis, budget=BUDGET)


@pytest.fixture(scope="module")
def group() -> Iterator[SentinelGroup]:
    """Servers for tests that leave them as they were."""
    with SentinelGroup() as group:
        yield group


@pytest.fixture
def doomed() -> Iterator[SentinelGroup]:
    """Servers for a test that may do to them what it likes."""
    with SentinelGroup() as group:
        yield group


class TestFailOver:
    async def test_the_primary_is_killed_under_load(self, doomed: SentinelGroup, open_redis: OpenRedis) -> None:
        """Y-failover-lost, as far as a cache goes: writes and reads go on at the new primary, without a restart."""
        old = doomed.primary
        for server in doomed.data:
            server.admin.execute_command(
                "ACL", "SETUSER", "node", "on", ">pass", "~oidc:*", "+@all", "-client", "+client|info"
            )
        backend = open_redis(doomed.url(login="node:pass@"))
        async with listening(open_redis(doomed.url()).changes()) as ear, Load(backend, CALLERS) as load:
            old.kill()
            await load.all_well(FAIL_OVER)
            await ear.loses_track()
            await until(lambda: any(CALLERS[0] in (change.keys or ()) for change in ear.named))
            assert load.longest < BUDGET + TOLERANCE
            assert load.kinds <= {"link", "timeout", "readonly", "busy"}
        await until(lambda: doomed.primary is not old, FAIL_OVER)
        assert await backend.get(BLACKLIST, b"caller 0") is not None
        assert (await backend.ping()).healthy
        refused = [entry["object"] for entry in doomed.primary.admin.acl_log()]
        assert not any("client" in what for what in refused), (
            "the fence of the old server is no business of the new one"
        )

    async def test_the_primary_hangs(self, doomed: SentinelGroup, open_redis: OpenRedis) -> None:
        """Y-stop: every call answers within the budget, and the one that hung is no primary when it thaws."""
        old = doomed.primary
        backend = open_redis(doomed.url())
        async with Load(backend, CALLERS) as load:
            old.stop()
            await load.all_well(FAIL_OVER)
            assert load.longest < BUDGET + TOLERANCE
            assert "timeout" in load.kinds
            old.cont()
            await load.all_well(FAIL_OVER)
        await until(lambda: doomed.primary is not old, FAIL_OVER)
        assert doomed.primary.admin.exists("oidc:blacklist:caller 0")

    async def test_a_primary_that_becomes_a_replica(self, doomed: SentinelGroup, open_redis: OpenRedis) -> None:
        """Y-readonly: a write is reported, or the next look finds out, and then reads go to the new primary too."""
        old = doomed.primary
        by_a_write, by_a_look = open_redis(doomed.url()), open_redis(doomed.url())
        for backend in (by_a_write, by_a_look):
            await backend.set(TOKEN, b"k", b"v", end())
            assert await backend.get(TOKEN, b"k") is not None
            assert (await backend.ping()).healthy
        doomed.sentinels[0].admin.execute_command("SENTINEL", "FAILOVER", SERVICE)
        await until(lambda: doomed.primary is not old, FAIL_OVER)
        old.admin.replicaof(LOOPBACK, doomed.primary.port)
        await fails(by_a_write.set(TOKEN, b"k", b"w", end()), "readonly")
        assert "replica" in (await by_a_look.ping()).detail
        doomed.primary.admin.set("oidc:token:k", seal_end(b"x", end()))
        old.kill()
        for backend in (by_a_write, by_a_look):
            found = await backend.get(TOKEN, b"k")
            assert found is not None
            assert found.value == b"x"
            await backend.set(TOKEN, b"l", b"v", end())


class TestSentinelsThatAreOfNoUse:
    @pytest.fixture
    def stale(self, group: SentinelGroup) -> Iterator[RedisServer]:
        """A sentinel that takes a replica for the primary."""
        sentinel = group.new_sentinel(group.replicas[0], quorum=9, down_after=60_000)
        yield sentinel
        sentinel.kill()

    async def test_one_that_is_late(self, group: SentinelGroup, stale: RedisServer, open_redis: OpenRedis) -> None:
        """Whom it names is asked for its role, and is not used; the next sentinel is asked at once."""
        error = await fails(open_redis(group.url(stale)).get(TOKEN, b"k"), "readonly")
        assert "is a replica" in error.detail
        for _ in range(5):
            backend = open_redis(group.url(stale, group.sentinels[0]))
            await backend.set(TOKEN, b"k", b"v", end())
            assert await backend.get(TOKEN, b"k") is not None

    async def test_one_that_hangs(self, group: SentinelGroup, open_redis: OpenRedis) -> None:
        group.sentinels[1].stop()
        try:
            for _ in range(5):
                backend = open_redis(group.url())
                await backend.set(TOKEN, b"k", b"v", end())
        finally:
            group.sentinels[1].cont()

    async def test_one_that_is_gone(self, group: SentinelGroup, open_redis: OpenRedis) -> None:
        url = group.url().replace("//", f"//{LOOPBACK}:{free_port()},")
        for _ in range(5):
            await open_redis(url).set(TOKEN, b"k", b"v", end())

    async def test_all_are_away(self, group: SentinelGroup, open_redis: OpenRedis) -> None:
        """Connections that there are go on; a new one cannot be made, and that is said in time."""
        backend = open_redis(group.url())
        await backend.set(TOKEN, b"k", b"v", end())
        await backend.get(TOKEN, b"k")
        for sentinel in group.sentinels:
            sentinel.stop()
        try:
            await backend.set(TOKEN, b"k", b"w", end())
            assert await backend.get(TOKEN, b"k") is not None
            await fails(open_redis(group.url()).get(TOKEN, b"k"), "timeout", budget=BUDGET)
        finally:
            for sentinel in group.sentinels:
                sentinel.cont()
        nobody = open_redis(f"redis+sentinel://{LOOPBACK}:{free_port()}/{SERVICE}")
        await fails(nobody.get(TOKEN, b"k"), "link")

    async def test_a_name_that_they_do_not_know(self, group: SentinelGroup, open_redis: OpenRedis) -> None:
        backend = open_redis(group.url().replace(SERVICE, "other"))
        error = await fails(backend.get(TOKEN, b"k"), "link")
        assert "knows no 'other'" in error.detail
        assert not (await backend.ping()).healthy

    async def test_credentials_that_are_wrong(self, group: SentinelGroup, open_redis: OpenRedis) -> None:
        """Y-auth: at a sentinel, and at the primary."""
        options = "?sentinel_username=me&sentinel_password=wr0ng"
        error = await fails(open_redis(group.url(options=options)).get(TOKEN, b"k"), "auth")
        assert "wr0ng" not in str(error)
        await fails(open_redis(group.url(login="me:wr0ng@")).get(TOKEN, b"k"), "auth")
