"""The proxy between processes: a lot of bytes in little memory, and an app that freezes, dies and comes back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from bulk_kit import MIB, Stand, read, read_head, standing, write

LOT = 256 * MIB
TIMEOUT = 1.0


@pytest.fixture
def stand() -> Iterator[Stand]:
    with standing(f"--read-timeout={TIMEOUT}") as stand:
        yield stand


def test_a_lot_of_bytes_each_way_and_both_at_once(stand: Stand) -> None:
    """X-upstream-big: what it takes of memory does not grow with what goes through."""
    assert stand.download(1) == 1
    before = stand.peak()
    assert stand.download(LOT) == LOT
    assert stand.upload(LOT) == LOT
    assert stand.echo(LOT) == LOT
    assert stand.peak() < min(before + 30, 150)


def test_a_client_that_does_not_read_costs_no_memory(stand: Stand) -> None:
    """Nor does it run into the time-out of the app, which is kept waiting."""
    before = stand.peak()
    clients = [stand.open(f"GET /bytes/{LOT}") for _ in range(10)]
    time.sleep(2 * TIMEOUT)  # doing nothing is what this is about
    assert stand.peak() < before + 30
    for client in clients:
        status, rest = read_head(client)
        assert (status, read(client, LOT // 16 - len(rest)) >= LOT // 16 - len(rest)) == (200, True)
        client.close()
    assert stand.download(MIB) == MIB


def test_an_app_that_is_frozen_is_504_and_goes_on_when_it_thaws(stand: Stand) -> None:
    assert stand.status("GET /bytes/1") == 200
    os.kill(stand.app.pid, signal.SIGSTOP)
    assert stand.status("GET /bytes/1") == 504
    with stand.open("POST /count", f"Content-Length: {LOT}") as connection, suppress(ConnectionError):
        write(connection, LOT)  # it ends: the answer comes, and nobody reads the rest
    os.kill(stand.app.pid, signal.SIGCONT)
    assert stand.status("GET /bytes/1") == 200


def test_an_app_that_freezes_in_the_middle_cuts_the_response(stand: Stand) -> None:
    with stand.open(f"GET /bytes/{LOT}") as connection:
        _, rest = read_head(connection)
        os.kill(stand.app.pid, signal.SIGSTOP)
        assert len(rest) + read(connection, LOT) < LOT
    os.kill(stand.app.pid, signal.SIGCONT)
    assert stand.download(MIB) == MIB


def test_an_app_that_is_killed_in_the_middle_cuts_the_response(stand: Stand) -> None:
    with stand.open(f"GET /bytes/{LOT}") as connection:
        _, rest = read_head(connection)
        os.kill(stand.app.pid, signal.SIGKILL)
        assert len(rest) + read(connection, LOT) < LOT
    assert stand.status("GET /bytes/1") == 502


def test_a_signal_ends_it_and_what_is_under_way_has_time(stand: Stand) -> None:
    with stand.open(f"GET /bytes/{16 * MIB}") as connection:
        status, rest = read_head(connection)
        stand.proxy.terminate()
        assert (status, len(rest) + read(connection, 16 * MIB - len(rest))) == (200, 16 * MIB)
    assert stand.proxy.wait(30) == -signal.SIGTERM
