"""One ordered writer, without a server."""

from __future__ import annotations

import asyncio
from asyncio import Task
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oidc_middleware.cache.writer import GroupCommitWriter, Write
from oidc_middleware.errors import BackendUnavailable

from redis_kit import until
from time_kit import within
from wire_kit import REQUEST, Wire, fails_with, start, turns

pytestmark = pytest.mark.anyio

Results = Sequence[bool | BackendUnavailable]


def writes_on(wire: Wire, budget: float = 5, **limits: Any) -> GroupCommitWriter:
    wire.answer = lambda write: write.asks
    return GroupCommitWriter(wire, budget, **limits)


def put(key: bytes, value: bytes = b"v") -> Write:
    return Write(key, value, 1.0)


def gone(key: bytes) -> Write:
    return Write(key, None, asks=True)


class TestWrites:
    async def test_what_waits_leaves_together(self) -> None:
        wire = Wire()
        writer = writes_on(wire)
        await asyncio.gather(*(writer.write(put(b"%d" % n), wait=True) for n in range(100)))
        assert [len(batch) for batch in wire.batches] == [100]
        assert (writer.counts.batches, writer.counts.sent, len(writer)) == (1, 100, 0)

    async def test_one_batch_is_on_the_wire_at_a_time(self) -> None:
        wire = Wire(held=True)
        writer = writes_on(wire)
        await writer.write(put(b"a"), wait=False)
        await until(lambda: wire.batches)
        await writer.write(put(b"b"), wait=False)
        await turns()
        assert wire.sent_keys() == [[b"a"]]
        wire.gate.set()
        await writer.flush()
        assert wire.sent_keys() == [[b"a"], [b"b"]]

    async def test_the_last_of_a_key_wins_and_answers_everybody(self) -> None:
        wire = Wire(held=True)
        writer = writes_on(wire)
        await writer.write(put(b"first"), wait=False)
        await until(lambda: wire.batches)
        tasks = [start(writer.write(put(b"k", value), wait=True)) for value in (b"1", b"2")]
        await turns()
        await writer.write(put(b"k", b"3"), wait=False)
        wire.gate.set()
        await asyncio.gather(*tasks)
        assert wire.values() == [[b"v"], [b"3"]]
        assert writer.counts.coalesced == 2

    async def test_what_is_on_the_wire_is_never_replaced(self) -> None:
        wire = Wire(held=True)
        writer = writes_on(wire)
        await writer.write(put(b"k", b"1"), wait=False)
        await until(lambda: wire.batches)
        await writer.write(put(b"k", b"2"), wait=False)
        assert writer.peek(b"k") == put(b"k", b"2")
        wire.gate.set()
        await writer.flush()
        assert wire.values() == [[b"1"], [b"2"]]
        assert writer.peek(b"k") is None

    async def test_a_delete_never_loses_to_an_older_set(self) -> None:
        """Seed 8, Y-order."""
        wire = Wire(held=True)
        writer = writes_on(wire)
        await writer.write(put(b"first"), wait=False)
        await until(lambda: wire.batches)
        await writer.write(put(b"k"), wait=False)
        deleting = start(writer.write(gone(b"k"), wait=True))
        await turns()
        assert writer.peek(b"k") == gone(b"k")._replace(asks=False)
        wire.gate.set()
        assert await deleting is True, "there was one, although it never left"
        assert wire.values() == [[b"v"], [None]]

    async def test_each_delete_learns_what_was_there_when_its_turn_came(self) -> None:
        wire = Wire(held=True)
        writer = writes_on(wire)
        wire.answer = lambda write: "from the server" if write.asks else "unasked"
        await writer.write(put(b"first"), wait=False)
        await until(lambda: wire.batches)
        steps = [gone(b"k"), gone(b"k"), put(b"k"), gone(b"k"), put(b"k", b"last")]
        tasks = []
        for step in steps:
            tasks.append(start(writer.write(step, wait=True)))
            await turns(1)
        wire.gate.set()
        answers = await asyncio.gather(*tasks)
        assert [answers[0], answers[1], answers[3]] == ["from the server", False, True]
        assert wire.batches[1] == [Write(b"k", b"last", 1.0, asks=True)]

    async def test_one_failing_write_harms_no_other(self) -> None:
        """Y-pipeline: each answer is looked at."""
        wire = Wire()
        lost: list[tuple[list[bytes], str]] = []
        writer = writes_on(
            wire, on_lost=lambda writes, error: lost.append(([write.key for write in writes], error.kind))
        )
        full = BackendUnavailable("OOM", "full")
        wire.answer = lambda write: full if write.key == b"1" else False
        results = await asyncio.gather(
            *(writer.write(put(b"%d" % n), wait=True) for n in range(3)), return_exceptions=True
        )
        assert [getattr(result, "kind", result) for result in results] == [False, "full", False]
        assert lost == [([b"1"], "full")]
        assert writer.counts.lost == 1

    async def test_a_failing_batch_is_lost_and_told_and_the_next_one_goes_on(self) -> None:
        wire = Wire()
        lost: list[bytes] = []
        writer = writes_on(wire, on_lost=lambda writes, _: lost.extend(write.key for write in writes))
        wire.answer = fails_with(BackendUnavailable("down", "link"))
        await writer.write(put(b"queued"), wait=False)
        with pytest.raises(BackendUnavailable, match="down") as caught:
            await writer.write(put(b"awaited"), wait=True)
        assert caught.value.kind == "link"
        assert lost == [b"queued", b"awaited"]
        wire.answer = lambda _: False
        await writer.write(put(b"next"), wait=True)
        assert writer.counts.lost == 2

    async def test_a_mistake_of_ours_does_not_end_the_writer(self, caplog: pytest.LogCaptureFixture) -> None:
        wire = Wire()
        writer = writes_on(wire, on_lost=lambda *_: 1 / 0)
        wire.answer = fails_with(KeyError("oops"))
        with pytest.raises(BackendUnavailable, match="KeyError") as caught:
            await writer.write(put(b"k"), wait=True)
        assert caught.value.kind == "refused"
        wire.answer = lambda _: False
        await writer.write(put(b"k"), wait=True)
        assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]

    async def test_a_cancelled_writer_takes_nobody_along(self) -> None:
        """Seed 1, 2: a cancelled request neither stops its write nor harms another."""
        wire = Wire(held=True)
        writer = writes_on(wire)
        tasks = [start(writer.write(put(b"%d" % n), wait=True)) for n in range(3)]
        await until(lambda: wire.batches)
        tasks[1].cancel()
        await turns()
        wire.gate.set()
        assert [await tasks[0], await tasks[2]] == [False, False]
        assert wire.sent_keys() == [[b"0", b"1", b"2"]]
        assert writer.counts.lost == 0

    async def test_nothing_of_a_request_is_kept(self) -> None:
        """Seed 2: queued writes keep the context of a request that has ended."""
        wire = Wire()
        writer = writes_on(wire)
        REQUEST.set("somebody")
        await writer.write(put(b"k"), wait=True)
        assert wire.seen == ["nobody"]

    async def test_nobody_waits_longer_than_the_budget(self) -> None:
        wire = Wire(held=True)
        writer = writes_on(wire, 0.05)
        await writer.write(put(b"first"), wait=False)
        await until(lambda: wire.batches)
        with within(0.15), pytest.raises(BackendUnavailable, match=r"within 0\.05 s") as caught:
            await writer.write(put(b"k"), wait=True)
        assert caught.value.kind == "timeout"
        wire.gate.set()
        await writer.flush()
        assert wire.sent_keys() == [[b"first"], [b"k"]], "what was taken is written, late or not"

    async def test_a_batch_is_bounded_by_count_and_bytes(self) -> None:
        wire = Wire()
        writer = writes_on(wire, batch_items=10, batch_bytes=5000)
        await writer.write_many([put(b"%d" % n) for n in range(25)], wait=True)
        assert [len(batch) for batch in wire.batches] == [10, 10, 5]
        wire.batches.clear()
        await writer.write_many([put(b"%d" % n, bytes(3000)) for n in range(4)], wait=True)
        assert [len(batch) for batch in wire.batches] == [2, 2]


class TestAFullQueue:
    """Seed 13: a full buffer drops the write and returns success."""

    async def held(self, **limits: Any) -> tuple[Wire, GroupCommitWriter]:
        """A writer whose first batch stays on the wire."""
        wire = Wire(held=True)
        writer = writes_on(wire, **limits)
        await writer.write(put(b"first"), wait=False)
        await until(lambda: wire.batches)
        return wire, writer

    async def test_the_oldest_droppable_set_becomes_a_delete(self) -> None:
        """Y-queue-overflow: the documented rule."""
        wire, writer = await self.held(max_items=2)
        for key in (b"a", b"b", b"c"):
            await writer.write(put(key), wait=False)
        assert writer.counts.dropped == 1
        wire.gate.set()
        await writer.flush()
        assert wire.batches[1] == [Write(b"a", None), put(b"b"), put(b"c")]

    async def test_a_set_that_somebody_waits_for_is_not_dropped(self) -> None:
        wire, writer = await self.held(max_items=2)
        waiting = start(writer.write(put(b"awaited"), wait=True))
        await turns()
        await writer.write(put(b"b"), wait=False)
        await writer.write(put(b"c"), wait=False)
        wire.gate.set()
        assert await waiting is False
        assert wire.batches[1] == [put(b"awaited"), Write(b"b", None), put(b"c")]

    async def test_a_set_that_has_no_other_source_is_not_dropped(self) -> None:
        wire, writer = await self.held(max_items=2)
        precious = put(b"precious")._replace(droppable=False)
        for write in (precious, put(b"b"), put(b"c")):
            await writer.write(write, wait=False)
        wire.gate.set()
        await writer.flush()
        assert wire.batches[1] == [precious, Write(b"b", None), put(b"c")]

    async def test_what_waits_for_room_is_the_newest_of_its_key(self) -> None:
        """Or a reader would believe what the tier still has, and memory would keep it."""
        wire, writer = await self.held(max_bytes=3000)
        large = [start(writer.write(put(key, bytes(1000)), wait=True)) for key in (b"k", b"l")]
        await turns()
        waiting = [start(writer.write(write, wait=True)) for write in (put(b"m", bytes(1400)), gone(b"n"))]
        await turns()
        assert writer.peek(b"n") == gone(b"n")
        again = start(writer.write(put(b"n"), wait=True))
        await turns()
        assert writer.peek(b"n") == put(b"n")
        wire.gate.set()
        await asyncio.gather(*large, *waiting, again)
        assert writer.peek(b"n") is None
        assert [write.key for write in wire.batches[-1]] == [b"m", b"n"]

    async def test_a_set_that_is_awaited_later_is_not_dropped(self) -> None:
        _, writer = await self.held(max_items=1)
        await writer.write(put(b"k"), wait=False)
        waiting = start(writer.write(put(b"k"), wait=True))
        await turns()
        with pytest.raises(BackendUnavailable, match="too many") as caught:
            await writer.write(put(b"other"), wait=False)
        assert (caught.value.kind, writer.counts.refused, writer.counts.dropped) == ("local", 1, 0)
        waiting.cancel()

    async def test_deletes_are_never_dropped(self) -> None:
        wire, writer = await self.held(max_items=2)
        deleting = [start(writer.write(gone(b"%d" % n), wait=True)) for n in range(100)]
        await turns()
        await writer.write(put(b"k"), wait=False)
        wire.gate.set()
        await asyncio.gather(*deleting)
        await writer.flush()
        assert len(wire.batches[1]) == 101

    async def test_who_waits_does_so_for_room_in_order(self) -> None:
        wire, writer = await self.held(max_items=1)
        tasks = [start(writer.write(put(b"%d" % n), wait=True)) for n in range(4)]
        await turns()
        tasks[2].cancel()
        await turns()
        wire.gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert wire.sent_keys() == [[b"first"], [b"0"], [b"1"], [b"3"]], "the cancelled one was never taken"
        assert len(writer) == 0

    async def test_who_waits_for_room_in_vain_is_told(self) -> None:
        lost: list[bytes] = []
        wire, writer = await self.held(
            max_items=1, budget=0.05, on_lost=lambda writes, _: lost.extend(write.key for write in writes)
        )
        tasks = [start(writer.write(put(b"%d" % n), wait=True)) for n in range(3)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [BackendUnavailable] * 3
        wire.gate.set()
        await writer.flush()
        assert wire.sent_keys() == [[b"first"], [b"0"]], "what never found room is not written later"
        assert lost == [b"1", b"2"]

    async def test_a_later_write_of_a_key_does_not_overtake_one_that_waits_for_room(self) -> None:
        wire, writer = await self.held(max_items=1)
        tasks = [start(writer.write(put(key, value), wait=True)) for key, value in ((b"a", b"1"), (b"k", b"1"))]
        await turns()
        tasks.append(start(writer.write(gone(b"k"), wait=True)))
        await turns()
        wire.gate.set()
        await asyncio.gather(*tasks)
        assert [(write.key, write.value) for batch in wire.batches[1:] for write in batch][-1] == (b"k", None)

    async def test_memory_is_bounded_by_bytes(self) -> None:
        wire, writer = await self.held(max_items=10**9, max_bytes=1_000_000)
        refused = 0
        for n in range(10_000):
            try:
                await writer.write(put(b"%d" % n, bytes(1000)), wait=False)
            except BackendUnavailable:
                refused += 1
            assert writer.queued_bytes <= 1_000_000
        assert writer.counts.dropped > 1000
        assert refused == writer.counts.refused > 0
        wire.gate.set()
        await writer.flush()
        assert writer.queued_bytes == 0
        assert writer._sets == 0

    async def test_what_can_never_fit_is_refused_at_once(self) -> None:
        lost: list[Write] = []
        writer = writes_on(Wire(), max_bytes=1000, on_lost=lambda writes, _: lost.extend(writes))
        with pytest.raises(BackendUnavailable, match="too many") as caught:
            await writer.write(put(b"k", bytes(2000)), wait=True)
        assert caught.value.kind == "local"
        assert lost == [put(b"k", bytes(2000))], "what is there under its key is outdated"


class TestTheEnd:
    async def test_what_is_queued_is_written_first(self) -> None:
        wire = Wire()
        writer = writes_on(wire, batch_items=10)
        await writer.write_many([put(b"%d" % n) for n in range(35)], wait=False)
        await writer.aclose()
        assert sum(map(len, wire.batches)) == 35

    async def test_a_write_after_it_raises_and_a_second_end_does_nothing(self) -> None:
        """Seed 14: both panic."""
        wire = Wire()
        writer = writes_on(wire)
        await asyncio.gather(writer.aclose(), writer.aclose())
        await writer.aclose()
        for wait in (False, True):
            with pytest.raises(BackendUnavailable, match="closed"):
                await writer.write(put(b"k"), wait=wait)
            with pytest.raises(BackendUnavailable, match="closed"):
                await writer.write_many([put(b"k")], wait=wait)
        assert wire.batches == []

    async def test_patience_ends(self) -> None:
        wire = Wire(held=True)
        lost: list[bytes] = []
        writer = writes_on(wire, on_lost=lambda writes, _: lost.extend(write.key for write in writes), max_items=1)
        tasks = [start(writer.write(put(b"on wire"), wait=True))]
        await until(lambda: wire.batches)
        await writer.write(put(b"queued"), wait=False)
        tasks += [start(writer.write(put(key), wait=True)) for key in (b"waits", b"outside")]
        await turns()
        await asyncio.gather(writer.aclose(0.05), writer.aclose(0.05))
        for task in tasks:
            with pytest.raises(BackendUnavailable, match="closed"):
                await task
        assert lost == [b"on wire", b"queued", b"waits", b"outside"]
        assert len(writer) == 0

    async def test_who_waits_for_room_is_written_too(self) -> None:
        wire = Wire(held=True)
        writer = writes_on(wire, max_items=1)
        tasks = [start(writer.write(put(b"%d" % n), wait=True)) for n in range(3)]
        await until(lambda: wire.batches)
        closing = start(writer.aclose())
        await turns()
        wire.gate.set()
        await asyncio.gather(closing, *tasks)
        assert sorted(key for keys in wire.sent_keys() for key in keys) == [b"0", b"1", b"2"]

    async def test_a_cancelled_end_still_comes(self) -> None:
        wire = Wire(held=True)
        writer = writes_on(wire)
        await writer.write(put(b"k"), wait=False)
        closing = start(writer.aclose())
        await until(lambda: wire.batches)
        closing.cancel()
        await turns()
        wire.gate.set()
        await writer.aclose()
        assert wire.sent_keys() == [[b"k"]]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from([b"a", b"b", b"c"]), st.integers(0, 9), st.booleans()),
        st.tuples(st.just("delete"), st.sampled_from([b"a", b"b", b"c"])),
        st.tuples(st.just("turn")),
        st.tuples(st.just("answer")),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=200)
@given(STEPS)
def test_a_store_behind_the_writer_ends_as_one_that_got_every_write(steps: list[tuple[Any, ...]]) -> None:
    """Whatever is coalesced: the last state of each key, and what each delete learns, are those of a plain dict."""

    async def run() -> None:
        store: dict[bytes, bytes] = {}
        model: dict[bytes, bytes] = {}
        gate = asyncio.Semaphore(0)

        async def send(batch: Sequence[Write]) -> Results:
            await gate.acquire()
            return [apply(store, write) for write in batch]

        writer = GroupCommitWriter(send, 60)
        deletes: list[tuple[Task[bool], bool]] = []
        for step in steps:
            match step:
                case ("set", key, number, wait):
                    model[key] = b"%d" % number
                    task = start(writer.write(Write(key, model[key], 1.0), wait=wait))
                    await turns(1)
                    assert wait or task.done()
                case ("delete", key):
                    task = start(writer.write(gone(key), wait=True))
                    deletes.append((task, model.pop(key, None) is not None))
                    await turns(1)
                case ("turn",):
                    await turns()
                case ("answer",):
                    gate.release()
                    await turns()
            for key in (b"a", b"b", b"c"):
                queued = writer.peek(key)
                assert (queued.value if queued else store.get(key)) == model.get(key)
        for _ in range(len(steps) + 1):
            gate.release()
        await writer.aclose()
        assert store == model
        assert [await task for task, _ in deletes] == [was_there for _, was_there in deletes]

    asyncio.run(run())


def apply(store: dict[bytes, bytes], write: Write) -> bool:
    """Do a write and tell whether there was something before."""
    before = store.pop(write.key, None)
    if write.value is not None:
        store[write.key] = write.value
    return before is not None
