"""`oidc-middleware demo`: it does what its lines say, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx2
import pytest

from oidc_middleware import OIDC
from oidc_middleware.cli import main
from oidc_middleware.cli.demo.check import check
from oidc_middleware.cli.demo.lines import LINES
from oidc_middleware.cli.demo.servers import _listen, running
from oidc_middleware.testing import FakeIssuer
from oidc_middleware.testing.server import bind

from redis_kit import RedisServer, until

# Whoever runs the tests in the background may have told them, and what they start, to ignore Ctrl-C.
CODE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from oidc_middleware.cli import main
sys.exit(main())
"""
COMMAND = [sys.executable, "-c", CODE, "demo"]
SECONDS = 100


def settings_of_somebody() -> dict[str, str]:
    """Return an environment that would break the demo if it obeyed it."""
    return os.environ | {
        "OIDC_ISSUER": "https://login.example.com",
        "OIDC_ISSUERS": "[]",
        "OIDC_NO_SUCH_THING": "1",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "ALL_PROXY": "http://127.0.0.1:9",
    }


# As a command


def test_check_tries_every_line() -> None:
    result = subprocess.run(
        [*COMMAND, "--check"], env=settings_of_somebody(), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    tried = [line for line in result.stdout.splitlines() if line.startswith(("ok", "FAILED"))]
    assert [line.split(None, 2)[:2] for line in tried] == [["ok", str(line.status)] for line in LINES] + [["ok", "200"]]
    assert result.stdout.endswith(f"\n{len(LINES) + 1} of {len(LINES) + 1} went as they must\n")


@pytest.mark.parametrize("cache", ["redis", "sqlite"])
def test_check_over_a_shared_cache(cache: str, redis_server: RedisServer, tmp_path: Path) -> None:
    url = redis_server.url if cache == "redis" else f"sqlite:///{tmp_path}/cache.sqlite"
    command = [*COMMAND, "--check", "--cache", url]
    result = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith(f"\n{len(LINES) + 1} of {len(LINES) + 1} went as they must\n")
    assert '{"receipt":"shared"}' in result.stdout
    assert redis_server.admin.dbsize() == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["cache.sqlite", "cache.sqlite-ledger"])
def test_a_file_that_is_there_is_left_to_whom_it_belongs(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"theirs")
    command = [*COMMAND, "--check", "--cache", f"sqlite:///{tmp_path}/cache.sqlite"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert "Name a new one" in result.stderr
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(name, b"theirs")]


@pytest.mark.anyio
async def test_services_on_the_same_redis_stay_fresh(
    redis_server: RedisServer, fake_issuer: FakeIssuer, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the demo revokes is under a secret that they do not know."""
    service = OIDC(
        issuer=fake_issuer.url,
        audience=fake_issuer.audience,
        transport=fake_issuer.transport(),
        cache=redis_server.url,
        secret="s" * 32,
        journal=None,
    )
    async with service:
        await until(lambda: not service.stats()["revocations"]["stale"])
        async with running(0, 0, redis_server.url) as demo:
            assert await check(demo)
            assert redis_server.admin.keys("oidc-*:{log}:ledger")
        facts = service.stats()["revocations"]
        assert (facts["entries"], facts["unknown_secrets"], facts["stale"]) == (0, [], False)
    assert redis_server.admin.keys("oidc-*") == []
    assert "went as they must" in capsys.readouterr().out


@pytest.mark.anyio
async def test_a_redis_that_dies_meanwhile_does_not_keep_it(
    redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(0, 0, redis_server.url) as demo:
        redis_server.kill()
        assert await check(demo)
    assert '{"receipt":"journaled"}' in capsys.readouterr().out


def test_a_cache_that_is_none() -> None:
    command = [*COMMAND, "--check", "--cache", "memcached://hunter2"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("oidc-middleware: cache: is not a cache. Write memory://")
    assert "hunter2" not in result.stderr


@contextmanager
def started(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the demo, and yield it with its guide once it is ready; kill it if it takes too long."""
    command = [*COMMAND, *words]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=settings_of_somebody()) as process:
        alarm = threading.Timer(SECONDS, process.kill)
        alarm.start()
        try:
            assert process.stdout
            guide = ""
            while "What happens meanwhile" not in guide:
                line = process.stdout.readline()
                assert line, ending(process)
                guide += line
            yield process, guide
        finally:
            alarm.cancel()
            process.kill()


def ending(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for the end, and return what was still printed."""
    assert process.stdout
    assert process.stderr
    out, err = process.stdout.read(), process.stderr.read()
    process.wait()
    return out, err


def value(guide: str, name: str) -> str:
    """Return the word that follows `name`."""
    return guide.partition(name)[2].split(None, 1)[0].rstrip(",")


def test_ctrl_c_ends_it_cleanly() -> None:
    with started("--port", "0", "--issuer-port", "0") as (process, guide):
        api, issuer, token = value(guide, "The API:"), value(guide, "The issuer:"), value(guide, "TOKEN=")
        with httpx2.Client(trust_env=False) as client, socket.create_connection(address(api)) as idle:
            answer = client.get(f"{api}/orders", headers={"Authorization": f"Bearer {token}"})
            refused = client.get(f"{api}/orders")
            idle.send(b"GET /orders HTTP/1.1\r\n")  # a request that is never finished
            process.send_signal(signal.SIGINT)
            out, err = ending(process)
        assert (answer.status_code, answer.json()["user"]) == (200, f"{issuer}#alice")
        assert refused.status_code == 401

    assert (process.returncode, err) == (130, "")
    assert [line for line in out.splitlines() if line] == [
        f'  the API saw GET /orders by "{issuer}#alice", scopes: orders:read',
        "  refused '/orders' with 401: missing_token: no credentials",
        "Stopping.",
    ]
    for url in (api, issuer):
        socket.create_server(address(url)).close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_impatience_does_not_break_off_the_end(number: signal.Signals) -> None:
    with started("--port", "0", "--issuer-port", "0") as (process, _):
        for _ in range(3):
            process.send_signal(number)
        _, err = ending(process)
    assert (process.returncode, err) == (128 + number, "")


def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


def test_the_guide_shows_every_line() -> None:
    with started("--port", "0", "--issuer-port", "0") as (_, guide):
        api = value(guide, "The API:")
    for line in LINES:
        assert f"\n# {line.title}: {line.status}\n{line.curl(api)}\n" in guide


@pytest.mark.parametrize("option", ["--port", "--issuer-port"])
def test_a_port_that_was_asked_for_and_is_taken_is_a_usage_error(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", "--check", option, str(port)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"oidc-middleware: {option}: {port} cannot be had (Address already in use)")


def test_the_usual_port_is_given_up_where_it_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    listen = partial(bind, "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        usual = taken.getsockname()[1]
        with _listen("--port", listen, None, usual=usual) as other:
            port = other.getsockname()[1]
    assert capsys.readouterr().out == f"Port {usual} is taken, so --port is {port}.\n"


@pytest.mark.parametrize("missing", ["uvicorn", "websockets"])
def test_without_servers_it_names_the_extra(missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None; from oidc_middleware.cli import main; sys.exit(main(['demo']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert "pip install 'oidc-middleware[cli]'" in result.stderr


# Its check is one


@pytest.mark.anyio
async def test_a_line_that_goes_wrong_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    async with running(0, 0) as demo:
        assert await check(replace(demo, token="no token")) is False
    said = capsys.readouterr().out
    failed = [line.split(None, 2)[1] for line in said.splitlines() if line.startswith("FAILED")]
    assert failed == ["400"] * 4
    assert said.endswith("\n10 of 14 went as they must\n")


@pytest.mark.anyio
async def test_an_api_that_is_gone_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    async with running(0, 0) as demo:
        pass
    assert await check(demo) is False
    assert capsys.readouterr().out.endswith("\n0 of 14 went as they must\n")


# Signing in


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("code=x", "This login was not begun here."),
        ("code=x&state=guessed", "This login was not begun here."),
        ("code=x&state={state}", "This login was not begun here."),
        ("code=x&state={state}&iss=https://evil.example", "This login was not begun here."),
        ("error=access_denied&error_description=No.&state={state}&iss={iss}", "No."),
        ("state={state}&iss={iss}", "The issuer sent no code."),
        ("code=x&state={state}&iss={iss}", "invalid_grant"),
    ],
)
async def test_a_login_that_was_not_begun_here_gets_no_token(query: str, said: str) -> None:
    async with running(0, 0) as demo, httpx2.AsyncClient(trust_env=False) as client:
        state = httpx2.URL(demo.login).params["state"]
        answer = await client.get(f"{demo.api}/callback?{query.format(state=state, iss=demo.issuer)}")
    assert (answer.status_code, answer.json()["error"]) == (400, said)
