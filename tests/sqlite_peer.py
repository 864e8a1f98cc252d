"""Another process that shares a file, driven line by line; and what the tests of the file need besides.

As a script it opens the file that its argument names and evaluates each line of its input, waits for what it gets, and
answers with one line: a literal, or `! ` and the error.
"""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from ast import literal_eval
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from inspect import isawaitable
from pathlib import Path
from typing import Any

from oidc_middleware.cache import TYPES, Entry
from oidc_middleware.cache.sqlite import SqliteBackend
from oidc_middleware.clock import Clock, SystemClock
from oidc_middleware.errors import OIDCError

DEADLINE = 20.0
PATIENCE = 10.0
"""A budget with time to spare: on a busy disk one write may take a second."""

TYPE_OF = {"G": TYPES["general"], "T": TYPES["token"], "S": TYPES["session"], "B": TYPES["blacklist"]}


def patient(path: str | Path, clock: Clock, **options: Any) -> SqliteBackend:
    """Return a backend for a test that is not about its budget."""
    return SqliteBackend(path, clock=clock, budget=PATIENCE, **options)


class Peer:
    """A process with a backend of its own. `end` is a time in an hour, `G`, `T`, `S` and `B` are types."""

    def __init__(self, path: Path, script: str = __file__) -> None:
        self.process = subprocess.Popen(
            [sys.executable, script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def tell(self, line: str) -> None:
        """Send a line and go on."""
        assert self.process.stdin
        self.process.stdin.write(line + "\n")

    def answer(self) -> Any:
        """Return the next answer."""
        assert self.process.stdout
        line = self.process.stdout.readline().strip()
        assert line, "the other process has died"
        return line if line.startswith("!") else literal_eval(line)

    def ask(self, line: str) -> Any:
        """Send a line and return the answer."""
        self.tell(line)
        return self.answer()

    def kill(self) -> list[str]:
        """Kill the process and return the lines that it has written and nobody read."""
        self.process.kill()
        assert self.process.stdout
        # A line that the process could not finish was not heard by anybody.
        return [line.strip() for line in self.process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]

    def end(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.wait(DEADLINE)
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()


@contextmanager
def peers(path: Path, count: int = 1, script: str = __file__) -> Iterator[list[Peer]]:
    """Start processes that share a file, and end them."""
    started: list[Peer] = []
    try:
        started.extend(Peer(path, script) for _ in range(count))
        yield started
    finally:
        for peer in started:
            peer.end()


def is_whole(path: Path) -> bool:
    """Tell whether the file, with its log, is a sound database."""
    db = sqlite3.connect(path)
    try:
        return bool(db.execute("PRAGMA integrity_check").fetchall() == [("ok",)])
    finally:
        db.close()


def main(path: str) -> None:
    """Answer the lines that come."""
    backend = patient(path, SystemClock())
    known: dict[str, Any] = {
        "backend": backend,
        "Entry": Entry,
        **TYPE_OF,
        "writing": writing,
        "one_after_another": one_after_another,
    }
    serve(known, backend.close)


def serve(known: dict[str, Any], close: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Evaluate the lines that come, with these names, and close at the end."""
    known |= {"hold": hold, "limit": limit}
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            answer = eval(line, {**known, "end": time.time() + 3600, "now": time.time()})
            try:
                value = runner.run(_awaited(answer)) if isawaitable(answer) else answer
            except (OIDCError, OSError) as error:
                say("! " + str(error).replace("\n", " "))
            else:
                say(repr(plain(value)))
        runner.run(close())


def plain(value: Any) -> Any:
    """Return a value whose `repr` is a literal."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return tuple(value) if isinstance(value, tuple) else value


def say(line: str) -> None:
    """Write a line of output at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def _awaited(answer: Any) -> Any:
    return await answer


async def one_after_another(call: Callable[..., Any], kind: Any, count: int, prefix: bytes = b"") -> None:
    """Call so many times with a key of its own, each time after the last one."""
    for number in range(count):
        await call(kind, b"%s%d" % (prefix, number))


def hold(path: str) -> None:
    """Keep everybody else from writing until the next line comes; say so before and after."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    say("'held'")
    sys.stdin.readline()
    db.close()


def limit(size: int | None) -> None:
    """Let no file grow beyond a size, as a full disk does."""
    import resource  # not everywhere

    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


async def writing(backend: SqliteBackend, name: bytes) -> None:
    """Write without end, from several tasks, and print the number of each write as soon as it is acknowledged."""

    async def write(first: int) -> None:
        for number in range(first, 10**9, 4):
            await backend.set(TYPES["general"], b"%s %d" % (name, number), b"%d" % number * 40, time.time() + 3600)
            say(str(number))

    await asyncio.gather(*(write(first) for first in range(4)))


if __name__ == "__main__":
    main(sys.argv[1])
