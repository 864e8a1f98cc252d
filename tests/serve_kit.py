"""The commands that serve: processes of their own, configured by the environment."""

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


class Command:
    """A command of the package that serves, as a process of its own."""

    def __init__(self, name: str) -> None:
        self.words = [sys.executable, "-m", "oidc_middleware.cli", name]

    @contextmanager
    def started(self, settings: Mapping[str, str], *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
        """Start it on a free port; return it and the two lines that it says on its standard output."""
        process = subprocess.Popen(
            [*self.words, "--port=0", *options],
            env=environment(settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline() + process.stdout.readline()
        finally:
            if process.poll() is None:
                end(process)
            process.communicate()

    def refused(self, settings: Mapping[str, str], *options: str) -> str:
        """Return what it says when it cannot start."""
        result = subprocess.run(
            [*self.words, *options],
            env=environment(settings),
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        assert (result.returncode, result.stdout) == (2, "")
        assert "Traceback" not in result.stderr
        return result.stderr


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
