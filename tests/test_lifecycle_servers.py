"""Start, stop and uploads under real servers, each a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from oidc_middleware.testing import FakeIssuer, faults

SECONDS = 100
MEGABYTES_10 = 10 * 1024 * 1024

COMMANDS: dict[str, Callable[[int], list[str]]] = {
    "uvicorn": lambda port: ["uvicorn", "lifecycle_app:app", "--host=127.0.0.1", f"--port={port}"],
    # Zero workers: it serves in the process that we start, and that we can end.
    "hypercorn": lambda port: ["hypercorn", "lifecycle_app:app", f"--bind=127.0.0.1:{port}", "--workers=0"],
    "granian": lambda port: ["granian", "lifecycle_app:app", "--interface=asgi", "--host=127.0.0.1", f"--port={port}"],
}
every_server = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)


def environment(**variables: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).parent), "PYTHONWARNINGS": "default"} | variables


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], port: int, issuer: FakeIssuer, log: Path, **more: str) -> Iterator[str]:
    """Run a server until the block ends; it must end by itself then, with nothing but good news in its log."""
    variables = environment(OIDC_ISSUER=issuer.url, OIDC_AUDIENCE=issuer.audience, **more)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until_listening(process, port, log)
        yield f"http://127.0.0.1:{port}"
        process.terminate()
        process.wait(SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    for word in ("Traceback", "was destroyed", "never awaited"):
        assert word not in log.read_text(), log.read_text()


def wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return


def client(url: str, token: str | None = None) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx2.Client(base_url=url, headers=headers, trust_env=False, timeout=SECONDS)


@pytest.fixture(scope="module")
def issuer() -> Iterator[FakeIssuer]:
    with FakeIssuer(algorithms=("ES256",)).serve_in_thread() as fake:
        yield fake


@every_server
def test_a_wrong_configuration_ends_the_server_and_says_why(command: Callable[[int], list[str]]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", *command(free_port())],
        env=environment(OIDC_ISSUER="https://issuer.example"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode != 0
    assert "audience: is missing. Pass audience=... or set OIDC_AUDIENCE." in ended.stdout + ended.stderr


@every_server
def test_uploads_and_a_stop(command: Callable[[int], list[str]], issuer: FakeIssuer, tmp_path: Path) -> None:
    """X-1xx: 401 though the body was never sent. What gets in arrives whole."""
    port = free_port()
    with running(command(port), port, issuer, tmp_path / "log") as url:
        asked = f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {MEGABYTES_10}\r\nExpect: 100-continue\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
            connection.sendall(asked.encode())
            answered = b""
            while b"HTTP/1.1 401 " not in answered:  # hypercorn says 100 by itself, whatever the app does
                received = connection.recv(65536)
                assert received, answered
                answered += received
        with client(url) as nobody:
            assert nobody.get("/").status_code == 401
        with client(url, issuer.token("alice")) as alice:
            answer = alice.post("/", content=bytes(MEGABYTES_10)).json()
            assert (answer["subject"], answer["size"]) == ("alice", MEGABYTES_10)


@every_server
def test_a_stop_while_the_issuer_does_not_answer(
    command: Callable[[int], list[str]], issuer: FakeIssuer, tmp_path: Path
) -> None:
    """The fetch under way neither delays the end nor is told as a task that was destroyed."""
    issuer.fault("*", faults.slow(60))
    before = issuer.requests.total()
    port = free_port()
    try:
        with running(command(port), port, issuer, tmp_path / "log"):
            deadline = time.monotonic() + SECONDS
            while issuer.requests.total() == before:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            begin = time.monotonic()
        assert time.monotonic() - begin < SECONDS / 2
    finally:
        issuer.heal()


def test_several_workers(issuer: FakeIssuer, tmp_path: Path) -> None:
    """Each process verifies by itself."""
    port = free_port()
    command = [*COMMANDS["uvicorn"](port), "--workers=2"]
    with running(command, port, issuer, tmp_path / "log") as url:
        seen: set[int] = set()
        deadline = time.monotonic() + SECONDS
        while len(seen) < 2:
            assert time.monotonic() < deadline, "one of the workers never answered"
            with client(url, issuer.token("alice")) as alice:
                answer = alice.get("/")
            assert answer.status_code == 200
            seen.add(answer.json()["process"])


def test_four_workers_share_a_file(tmp_path: Path) -> None:
    """The example: what one of them made the others have, and a second start asks the issuer for nothing."""
    variables = {
        "OIDC_CACHE": f"sqlite:///{tmp_path}/cache.sqlite",
        "OIDC_SECRET": "s" * 64,
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    with FakeIssuer(algorithms=("ES256",)).serve_in_thread() as issuer:
        asked = []
        for _ in range(2):
            port = free_port()
            command = ["uvicorn", "examples.shared_cache:app", f"--port={port}", "--workers=4"]
            with running(command, port, issuer, tmp_path / "log", **variables) as url:
                assert reports_of(url, issuer.token("alice"), workers=4) == 1
            asked.append(issuer.requests.total())
    assert 2 <= asked[0] <= 8, "each of four workers asks for metadata and keys once at most"
    assert asked[1] == asked[0]
    assert (tmp_path / "cache.sqlite").stat().st_mode & 0o077 == 0


def reports_of(url: str, token: str, workers: int) -> int:
    """Ask until so many workers have answered, and return how many different reports they gave."""
    seen: set[int] = set()
    reports: set[str] = set()
    deadline = time.monotonic() + SECONDS
    while len(seen) < workers:
        assert time.monotonic() < deadline, "one of the workers never answered"
        with client(url, token) as alice:
            answer = alice.get("/report")
        assert answer.status_code == 200
        reports.add(answer.json()["report"])
        seen.add(answer.json()["answered by"])
    return len(reports)
