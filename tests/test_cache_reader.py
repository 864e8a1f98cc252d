"""Many small reads as few large ones, without a server."""

from __future__ import annotations

import asyncio
import gc
from asyncio import Future
from typing import Any

import pytest

from oidc_middleware.cache.reader import ReadBatcher
from oidc_middleware.cache.waiters import Patience
from oidc_middleware.errors import BackendUnavailable

from redis_kit import until
from time_kit import within
from wire_kit import REQUEST, Wire, fails_with, start, turns

pytestmark = pytest.mark.anyio


class TestReads:
    async def test_one_turn_of_the_loop_is_one_batch(self) -> None:
        wire = Wire()
        reader = ReadBatcher(wire, 5)
        assert await asyncio.gather(*(reader.read(b"%d" % n) for n in range(100))) == [b"%d" % n for n in range(100)]
        assert [len(batch) for batch in wire.batches] == [100]

    async def test_readers_in_tasks_of_their_own_travel_together(self) -> None:
        wire = Wire()
        reader = ReadBatcher(wire, 5)

        async def request(n: int) -> bytes:
            return await reader.read(b"%d" % n)  # type: ignore[no-any-return]

        await asyncio.gather(*(request(n) for n in range(50)))
        assert [len(batch) for batch in wire.batches] == [50]

    async def test_500_readers_of_one_key_share_one_read(self) -> None:
        """Seed 15: 500 concurrent reads of a cold key are 500 reads of L2."""
        wire = Wire()
        reader = ReadBatcher(wire, 5)
        assert await asyncio.gather(*(reader.read(b"cold") for _ in range(500))) == [b"cold"] * 500
        assert wire.batches == [[b"cold"]]

    async def test_what_comes_while_a_batch_is_on_the_wire_is_the_next_one(self) -> None:
        wire = Wire(held=True)
        reader = ReadBatcher(wire, 5)
        first = reader.read(b"a")
        await until(lambda: wire.batches)
        others = [reader.read(b"b"), reader.read(b"c")]
        await turns()
        assert wire.batches == [[b"a"]]
        wire.gate.set()
        assert await asyncio.gather(first, *others) == [b"a", b"b", b"c"]
        assert wire.batches == [[b"a"], [b"b", b"c"]]

    async def test_nobody_joins_a_read_that_is_on_the_wire(self) -> None:
        """Its answer may be older than a write that the reader knows to be done."""
        wire = Wire(held=True)
        reader = ReadBatcher(wire, 5)
        early = reader.read(b"k")
        await until(lambda: wire.batches)
        late = reader.read(b"k")
        wire.gate.set()
        await asyncio.gather(early, late)
        assert wire.batches == [[b"k"], [b"k"]]

    async def test_a_large_batch_is_cut(self) -> None:
        wire = Wire()
        reader = ReadBatcher(wire, 5, max_keys=10)
        keys = [b"%d" % n for n in range(25)]
        assert await reader.read_many(keys) == keys
        assert [len(batch) for batch in wire.batches] == [10, 10, 5]

    async def test_a_cancelled_reader_takes_nobody_along(self) -> None:
        wire = Wire(held=True)
        reader = ReadBatcher(wire, 5)
        waiters = [reader.read(b"k") for _ in range(3)]
        tasks = [start(asyncio.wait_for(waiter, 5)) for waiter in waiters]
        await until(lambda: wire.batches)
        tasks[0].cancel()
        await turns()
        wire.gate.set()
        assert await asyncio.gather(*tasks[1:]) == [b"k", b"k"]
        assert tasks[0].cancelled()
        assert await reader.read(b"k") == b"k"

    async def test_a_loop_that_ends_ends_it(self) -> None:
        """As `asyncio.run` ends every task: one that goes on with the next batch would hold it up."""
        wire = Wire(held=True)
        reader = ReadBatcher(wire, 5)
        waiters = [reader.read(b"on the wire")]
        await until(lambda: wire.batches)
        waiters += [reader.read(b"on the wire"), reader.read(b"next")]
        task = reader._task
        assert task is not None
        task.cancel()
        await asyncio.wait((task,), timeout=1)
        assert task.done()
        results = await asyncio.gather(*waiters, return_exceptions=True)
        assert [str(result) for result in results] == ["backend_unavailable: closed"] * 3
        wire.gate.set()
        assert await reader.read(b"afterwards") == b"afterwards"

    async def test_an_error_belongs_to_those_of_the_batch(self) -> None:
        wire = Wire()
        reader = ReadBatcher(wire, 5)
        error = BackendUnavailable("down", "link")
        wire.answer = fails_with(error)
        results = await asyncio.gather(*(reader.read(b"%d" % n) for n in range(3)), return_exceptions=True)
        assert [(type(result), str(result)) for result in results] == [(BackendUnavailable, str(error))] * 3
        assert len({id(result) for result in results}) == 3, "a raised error collects tracebacks"
        wire.answer = lambda key: key
        assert await reader.read(b"k") == b"k"

    async def test_of_many_a_failure_leaves_no_other_behind(self, caplog: pytest.LogCaptureFixture) -> None:
        wire = Wire()
        wire.answer = fails_with(BackendUnavailable("down", "link"))
        reader = ReadBatcher(wire, 5, max_keys=2)
        with pytest.raises(BackendUnavailable, match="down"):
            await reader.read_many([b"1", b"2", b"3", b"4"])
        await turns()
        gc.collect()
        assert caplog.text == ""

    async def test_nobody_waits_longer_than_the_budget(self) -> None:
        wire = Wire(held=True)
        reader = ReadBatcher(wire, 0.05)
        loop = asyncio.get_running_loop()

        async def request(pause: float) -> float:
            await asyncio.sleep(pause)
            start = loop.time()
            with within(0.15), pytest.raises(BackendUnavailable, match=r"within 0\.05 s") as caught:
                await reader.read(b"k")
            assert caught.value.kind == "timeout"
            return loop.time() - start

        with within(0.5):
            waited = await asyncio.gather(*(request(n / 100) for n in range(10)))
        assert min(waited) >= 0.049
        wire.gate.set()
        assert await reader.read(b"k") == b"k"
        await reader.aclose()

    async def test_nothing_of_a_request_is_kept(self) -> None:
        wire = Wire()
        reader = ReadBatcher(wire, 5)
        REQUEST.set("somebody")
        await reader.read(b"k")
        assert wire.seen == ["nobody"]

    async def test_the_end(self) -> None:
        wire = Wire(held=True)
        reader = ReadBatcher(wire, 5)
        on_wire = reader.read(b"a")
        await until(lambda: wire.batches)
        waiting = reader.read(b"b")
        await asyncio.gather(reader.aclose(), reader.aclose())
        await reader.aclose()
        for waiter in (on_wire, waiting):
            with pytest.raises(BackendUnavailable, match="closed"):
                await waiter
        with pytest.raises(BackendUnavailable, match="closed"):
            reader.read(b"c")

    async def test_answers_are_not_kept(self) -> None:
        """A flood of large values must not stay in memory until somebody's patience would have ended."""
        wire = Wire()
        reader = ReadBatcher(wire, 600)
        for _ in range(100):
            await reader.read_many([b"%d" % n for n in range(20)])
        await turns()
        assert len(reader._patience._waiters) == 0
        await reader.aclose()


async def test_one_timer_serves_all_waiters() -> None:
    loop = asyncio.get_running_loop()
    patience = Patience(loop, 0.05)
    waiters: list[Future[Any]] = []
    for _ in range(3):
        waiters += [patience.new_waiter() for _ in range(100)]
        if len(waiters) == 200:
            waiters[150].set_result(b"answer")
        await asyncio.sleep(0.01)
    await asyncio.wait(waiters, timeout=5)
    assert waiters[150].result() == b"answer"
    assert sum(waiter.exception() is not None for waiter in waiters) == 299
    assert patience._timer is None
