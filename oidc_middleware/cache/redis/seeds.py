"""Asking several servers that should all know the same."""

from __future__ import annotations

import asyncio
from asyncio import Task
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


async def first_answer(asks: Sequence[Callable[[], Awaitable[T]]], head_start: float) -> T:
    """Return the answer that comes first, and leave the others alone.

    One is asked at a time; the next when the one before failed, or has not answered for `head_start` seconds.

    Raises:
        Exception: what the last of them raised, when all fail.
    """
    running: set[Task[T]] = set()
    left = list(reversed(asks))
    error: BaseException = ValueError("nobody to ask")
    try:
        while running or left:
            if left:
                running.add(asyncio.ensure_future(left.pop()()))
            await asyncio.wait(running, timeout=head_start if left else None, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in running if task.done()]:
                failure = task.exception()
                if failure is None:
                    return task.result()
                running.discard(task)
                error = failure
        raise error
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
