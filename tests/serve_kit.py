"""`oidc-middleware serve`: a process of its own, configured by the environment."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx2

from servers_kit import ANSWER_SECONDS, START_SECONDS, end


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of this process with these settings, and no others, as `OIDC_*` variables."""
    others = {name: value for name, value in os.environ.items() if not name.upper().startswith("OIDC_")}
    return others | {f"OIDC_{name.upper()}": value for name, value in settings.items()}


@contextmanager
def serving(directory: Path, settings: Mapping[str, str]) -> Iterator[int]:
    """Run it with these `OIDC_*` settings until the block ends, and return its port when it is ready."""
    with serving_process(directory, settings) as (port, _):
        yield port


@contextmanager
def serving_process(directory: Path, settings: Mapping[str, str]) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run it as `serving` does, and return its process too."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = directory / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "oidc_middleware.cli", "serve", f"--port={port}"],
            env=environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            wait_until_healthy(process, port, log)
            yield port, process
        finally:
            process.send_signal(signal.SIGCONT)  # a test may have stopped it
            end(process)


def wait_until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when the service can judge requests."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            answer = httpx2.get(f"http://127.0.0.1:{port}/oauth2/health", trust_env=False, timeout=ANSWER_SECONDS)
        except httpx2.TransportError:
            answer = None
        if answer is not None and answer.status_code == 200:
            return
        time.sleep(0.05)
