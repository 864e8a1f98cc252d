"""The stopwatch of the tests: waits show, and a machine that has no time does not."""

from __future__ import annotations

import asyncio
import time

import pytest

from time_kit import MOST, Stopwatch, Turns, within

pytestmark = pytest.mark.anyio


async def test_a_wait_that_is_too_long_shows() -> None:
    with pytest.raises(AssertionError, match="it took"), within(0.05):
        await asyncio.sleep(0.5)


async def test_a_loop_that_has_no_turn_does_not_show() -> None:
    with Stopwatch() as passed:
        for _ in range(3):
            time.sleep(0.1)  # noqa: ASYNC251  the machine has no time
            await asyncio.sleep(0)
        assert passed() <= 4 * MOST


async def test_nothing_of_it_is_left() -> None:
    before = asyncio.all_tasks()
    with Stopwatch() as passed:
        pass
    took = passed()
    await asyncio.sleep(0.05)
    assert passed() - took <= MOST
    assert asyncio.all_tasks() == before


async def test_a_turn_that_holds_up_the_loop_shows() -> None:
    with Turns() as turns:
        await asyncio.sleep(0)
        time.sleep(0.5)  # noqa: ASYNC251  code that blocks, to the end
    assert turns.longest > 0.1
