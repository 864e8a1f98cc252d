"""One flight per key: cancellation, errors, loops and bounds."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from oidc_middleware.cache import Flights
from oidc_middleware.errors import BackendUnavailable, ProviderUnavailable

DEADLINE = 5.0


class Source:
    """Work that ends when the test says so, and counts how often it began."""

    def __init__(self, answer: object = "answer") -> None:
        self.answer = answer
        self.began = 0
        self.cancelled = 0
        self.release = asyncio.Event()

    async def __call__(self) -> object:
        self.began += 1
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def settle(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 (any state, also one that nobody announces)
            await asyncio.sleep(0)


async def answer_of_42() -> int:
    return 42


@pytest.mark.anyio
async def test_all_who_ask_wait_for_one() -> None:
    """J-singleflight, D-stampede, seed 15: 500 concurrent reads are one."""
    flights, source = Flights(), Source()
    callers = [asyncio.create_task(flights.run("k", source)) for _ in range(500)]
    await settle(lambda: source.began > 0)
    source.release.set()
    assert await asyncio.gather(*callers) == ["answer"] * 500
    assert source.began == 1
    await settle(lambda: len(flights) == 0)


@pytest.mark.anyio
async def test_keys_do_not_wait_for_each_other() -> None:
    flights, slow = Flights(), Source()
    waiting = asyncio.create_task(flights.run("slow", slow))
    await settle(lambda: slow.began == 1)
    assert await flights.run("quick", answer_of_42) == 42
    slow.release.set()
    assert await waiting == "answer"


@pytest.mark.anyio
async def test_an_answer_is_not_kept() -> None:
    flights, source = Flights(), Source()
    source.release.set()
    assert await flights.run("k", source) == "answer"
    assert await flights.run("k", source) == "answer"
    assert source.began == 2


@pytest.mark.anyio
@pytest.mark.parametrize("victim", [0, 1, 2], ids=["J-singleflight-leader", "second", "last"])
async def test_a_cancelled_caller_harms_nobody(victim: int) -> None:
    flights, source = Flights(), Source()
    callers = [asyncio.create_task(flights.run("k", source)) for _ in range(3)]
    await settle(lambda: source.began == 1)
    callers[victim].cancel()
    await settle(callers[victim].done)
    source.release.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(results.pop(victim), asyncio.CancelledError)
    assert results == ["answer", "answer"]
    assert (source.began, source.cancelled) == (1, 0)


@pytest.mark.anyio
async def test_a_caller_that_is_cancelled_before_the_flight_began_harms_nobody() -> None:
    flights, source = Flights(), Source()
    first = asyncio.create_task(flights.run("k", source))
    second = asyncio.create_task(flights.run("k", source))
    await asyncio.sleep(0)
    first.cancel()
    source.release.set()
    assert await second == "answer"
    assert first.cancelled()


@pytest.mark.anyio
async def test_the_work_goes_on_when_all_callers_have_gone() -> None:
    flights, source = Flights(), Source()
    callers = [asyncio.create_task(flights.run("k", source)) for _ in range(3)]
    await settle(lambda: source.began == 1)
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    late = asyncio.create_task(flights.run("k", source))
    await asyncio.sleep(0)
    source.release.set()
    assert await late == "answer"
    assert (source.began, source.cancelled) == (1, 0)


@pytest.mark.anyio
async def test_a_caller_with_a_deadline_gets_its_own_timeout() -> None:
    flights, source = Flights(), Source()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await flights.run("k", source)
    source.release.set()
    assert await flights.run("k", source) == "answer"
    assert source.began == 1


@pytest.mark.anyio
async def test_an_error_goes_to_those_who_waited_and_to_nobody_else() -> None:
    flights, source = Flights(), Source(ProviderUnavailable("down"))
    callers = [asyncio.create_task(flights.run("k", source)) for _ in range(50)]
    await settle(lambda: source.began == 1)
    source.release.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(result) for result in results] == [ProviderUnavailable] * 50
    source.answer = "up again"
    assert await flights.run("k", source) == "up again"


@pytest.mark.anyio
async def test_who_comes_after_an_error_is_not_told_of_it() -> None:
    """Not even in the turn of the loop in which the work has ended and its end has not been noticed yet."""
    flights, source = Flights(), Source(ProviderUnavailable("down"))
    source.release.set()
    late: list[asyncio.Task[object]] = []

    async def fails() -> object:
        late.append(asyncio.create_task(flights.run("k", answer_of_42)))
        return await source()

    with pytest.raises(ProviderUnavailable):
        await flights.run("k", fails)
    assert await late[0] == 42


@pytest.mark.anyio
async def test_tasks_that_begin_at_once() -> None:
    """Python 3.12 can run a new task before `create_task` returns; where it cannot, this is one more plain flight."""
    asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory", None))
    flights, source = Flights(), Source()
    assert await flights.run("k", answer_of_42) == 42
    callers = [asyncio.create_task(flights.run("k", source)) for _ in range(5)]
    await settle(lambda: source.began == 1)
    source.release.set()
    assert await asyncio.gather(*callers) == ["answer"] * 5
    assert source.began == 1


@pytest.mark.anyio
async def test_an_error_that_nobody_waits_for_is_not_reported_as_forgotten() -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    flights = Flights()

    async def abandon() -> None:  # a frame of its own: locals here would keep the work's task, and its error, alive
        source = Source(ProviderUnavailable("down"))
        caller = asyncio.create_task(flights.run("k", source))
        await settle(lambda: source.began == 1)
        caller.cancel()
        await settle(caller.done)
        source.release.set()
        await settle(lambda: len(flights) == 0)

    await abandon()
    gc.collect()
    assert reported == []


@pytest.mark.anyio
async def test_an_error_of_the_factory_itself_is_an_error_of_the_flight() -> None:
    def broken() -> Awaitable[None]:
        raise ZeroDivisionError

    flights = Flights()
    with pytest.raises(ZeroDivisionError):
        await flights.run("k", broken)
    await settle(lambda: len(flights) == 0)


@pytest.mark.anyio
async def test_work_that_cancels_itself_does_not_look_like_a_cancelled_caller() -> None:
    async def gives_up() -> None:
        raise asyncio.CancelledError

    with pytest.raises(BackendUnavailable, match="given up"):
        await Flights().run("k", gives_up)


@pytest.mark.anyio
async def test_the_work_sees_nothing_of_the_request() -> None:
    """Seed 2: queued work keeps the request's context."""
    request: ContextVar[str] = ContextVar("request", default="none")
    request.set("of a user")
    seen: list[str] = []

    def factory() -> Awaitable[None]:
        seen.append(request.get())
        return work()

    async def work() -> None:
        seen.append(request.get())

    await Flights().run("k", factory)
    assert seen == ["none", "none"]


@pytest.mark.anyio
async def test_a_flight_that_waits_for_itself_is_an_error_not_a_hang() -> None:
    flights = Flights()

    async def again() -> None:
        await flights.run("k", again)

    with pytest.raises(RuntimeError, match="wait for itself"):
        async with asyncio.timeout(DEADLINE):
            await flights.run("k", again)


@pytest.mark.anyio
async def test_flights_are_bounded() -> None:
    """I-neg-dos: more distinct keys than flights are told to come back, and those under way are not disturbed."""
    flights, source = Flights(limit=3), Source()
    callers = [asyncio.create_task(flights.run(n, source)) for n in range(3)]
    await settle(lambda: source.began == 3)
    with pytest.raises(BackendUnavailable, match="too much work"):
        await flights.run("one more", source)
    joined = asyncio.create_task(flights.run(0, source))
    await asyncio.sleep(0)
    source.release.set()
    assert await asyncio.gather(*callers, joined) == ["answer"] * 4
    assert await flights.run("one more", source) == "answer"


@pytest.mark.anyio
async def test_aclose_ends_flights_and_those_who_wait_get_an_error() -> None:
    flights, source = Flights(), Source()
    callers = [asyncio.create_task(flights.run("k", source)) for _ in range(3)]
    await settle(lambda: source.began == 1)
    await flights.aclose()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(result) for result in results] == [BackendUnavailable] * 3
    assert source.cancelled == 1
    await flights.aclose()
    with pytest.raises(BackendUnavailable, match="no more work"):
        await flights.run("k", source)


@pytest.mark.anyio
async def test_aclose_does_not_wait_for_ever() -> None:
    stubborn_ended = asyncio.Event()
    began = asyncio.Event()

    async def stubborn() -> str:
        while not stubborn_ended.is_set():
            began.set()
            try:
                await stubborn_ended.wait()
            except asyncio.CancelledError:
                continue
        return "at last"

    flights = Flights()
    caller = asyncio.create_task(flights.run("k", stubborn))
    await began.wait()
    async with asyncio.timeout(DEADLINE):
        await flights.aclose(patience=0.01)
    stubborn_ended.set()
    assert await caller == "at last"


def test_a_flight_of_a_closed_loop_is_dropped() -> None:
    """D-loop: after its loop was closed it works on the next one."""
    flights = Flights(limit=2)
    began: list[int] = []

    async def never() -> None:
        began.append(1)
        await asyncio.Event().wait()

    async def start() -> list[asyncio.Task[None]]:
        callers = [asyncio.create_task(flights.run(n, never)) for n in range(2)]
        await settle(lambda: len(began) == 2)
        return callers

    first = asyncio.new_event_loop()
    callers = first.run_until_complete(start())
    assert len(flights) == 2
    orphans = [*callers, *flights._flights.values()]
    first.close()
    assert asyncio.run(flights.run(0, answer_of_42)) == 42
    assert asyncio.run(flights.run("new", answer_of_42)) == 42, "the dead do not count against the limit"
    for task in orphans:  # the loop was closed under them: nobody can end them any more
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_two_loops_that_run_at_once_are_an_error() -> None:
    """D-loop: a clear error, never a hang."""
    flights = Flights()
    began, release = threading.Event(), threading.Event()

    async def slow() -> str:
        began.set()
        while not release.is_set():  # noqa: ASYNC110 (set by another thread)
            await asyncio.sleep(0.001)
        return "first"

    results: list[str] = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(flights.run("k", slow))))
    thread.start()
    try:
        assert began.wait(DEADLINE)
        with pytest.raises(RuntimeError, match="two event loops"):
            asyncio.run(flights.run("k", answer_of_42))
    finally:
        release.set()
        thread.join(DEADLINE)
    assert results == ["first"]


# ------------------------------------------------------------------------------------------------------------ forgotten


@pytest.mark.anyio
async def test_whoever_asks_after_a_flight_was_forgotten_begins_a_new_one() -> None:
    flights, old, new = Flights(), Source("old"), Source("new")
    before = asyncio.create_task(flights.run("k", old))
    await settle(lambda: old.began > 0)
    flights.forget("k")
    flights.forget("unknown")
    after = asyncio.create_task(flights.run("k", new))
    await settle(lambda: new.began > 0)
    assert len(flights) == 2
    for source in (new, old):
        source.release.set()
    assert [await before, await after] == ["old", "new"]
    await settle(lambda: len(flights) == 0)


@pytest.mark.anyio
async def test_forgotten_flights_count_and_end_with_the_others() -> None:
    flights, source = Flights(limit=2), Source()
    waiting = [asyncio.create_task(flights.run(key, source)) for key in "ab"]
    await settle(lambda: source.began == 2)
    flights.forget_all()
    with pytest.raises(BackendUnavailable, match="too much"):
        await flights.run("c", source)
    await flights.aclose()
    assert source.cancelled == 2
    for task in waiting:
        with pytest.raises(BackendUnavailable):
            await task


def test_forgotten_flights_of_a_loop_that_is_over_take_no_room() -> None:
    """D-loop."""
    flights = Flights(limit=1)

    async def begin() -> None:
        source = Source()
        flights.begin("k", source)
        await settle(lambda: source.began > 0)
        flights.forget("k")

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    orphans = [*flights._forgotten]
    loop.close()
    assert asyncio.run(flights.run("k", answer_of_42)) == 42
    for task in orphans:  # the loop was closed under them: nobody can end them any more
        task._log_destroy_pending = False  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_a_flight_that_is_begun_is_joined_by_who_asks() -> None:
    flights, source = Flights(), Source()
    flights.begin("k", source)
    flights.begin("k", source)
    asking = asyncio.create_task(flights.run("k", source))
    await settle(lambda: source.began > 0)
    source.release.set()
    assert await asking == "answer"
    assert source.began == 1


@pytest.mark.anyio
async def test_an_error_of_a_flight_that_nobody_waits_for_is_reported_nowhere() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    flights, source = Flights(), Source(ProviderUnavailable("down"))
    source.release.set()
    flights.begin("k", source)
    await settle(lambda: len(flights) == 0)
    gc.collect()
    assert reported == []
