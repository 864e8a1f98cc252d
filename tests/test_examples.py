"""The examples do what they show."""

from __future__ import annotations

import os
import re
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse

from oidc_middleware.testing import FakeIssuer

from redis_kit import RedisServer, newest, programs

EXAMPLES = Path(__file__).parent.parent / "examples"
REVOCATION = EXAMPLES / "revocation.py"
LOGIN_APP = EXAMPLES / "login_app.py"
# The MCP server has tests of its own, with the SDK's client.
APIS = sorted(
    set(EXAMPLES.glob("*.py")) - {REVOCATION, LOGIN_APP, EXAMPLES / "two_nodes.py", EXAMPLES / "mcp_server.py"}
)
SECONDS = 100


@pytest.fixture
def app(request: pytest.FixtureRequest, served_issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("OIDC_ISSUER", served_issuer.url)
    monkeypatch.setenv("OIDC_AUDIENCE", served_issuer.audience)
    return runpy.run_path(str(request.param))["app"]


@pytest.mark.parametrize("app", APIS, ids=lambda path: path.stem, indirect=True)
def test_the_example_lets_in_whom_it_should(app: Any, served_issuer: FakeIssuer) -> None:
    def token(scope: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {served_issuer.token('alice', scope=scope)}"}

    with TestClient(app) as client:
        assert client.get("/version").json() == {"version": 1}
        assert client.get("/orders").status_code == 401
        assert client.post("/orders", headers=token("orders:read")).status_code == 403
        answer = client.post("/orders", headers=token("orders:write"))

    assert answer.json() == {"owner": f"{served_issuer.url}#alice", "scopes": ["orders:write"]}


@pytest.mark.parametrize("app", [EXAMPLES / "bare_asgi.py", EXAMPLES / "starlette_api.py"], indirect=True)
def test_a_websocket_without_a_token_is_refused(app: Any, served_issuer: FakeIssuer) -> None:
    headers = {"Authorization": f"Bearer {served_issuer.token('alice', scope='orders:read')}"}
    with TestClient(app) as client:
        with client.websocket_connect("/feed", headers=headers) as feed:
            assert feed.receive_json() == {"hello": "alice"}
        with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/feed"):
            pass
    assert refused.value.status_code == 401


@pytest.mark.parametrize("app", [EXAMPLES / "starlette_api.py"], indirect=True)
def test_the_area_for_administrators(app: Any, served_issuer: FakeIssuer) -> None:
    def ask(path: str, scope: str) -> httpx2.Response:
        return client.get(path, headers={"Authorization": f"Bearer {served_issuer.token('alice', scope=scope)}"})

    with TestClient(app) as client:
        assert client.get("/welcome").json() == {"hello": "stranger"}
        assert ask("/welcome", "").json() == {"hello": "alice"}
        refused = ask("/admin/revocations", "orders:write")
        assert (refused.status_code, refused.headers["www-authenticate"][:20]) == (403, 'Bearer realm="admin"')
        assert ask("/admin/revocations", "admin").json()["entries"] == 0
        assert client.get("/admin/version").status_code == 401


# Revocation, on nodes that are processes


class Show:
    """`revocation.py`, running in a session of its own that has nothing but a Redis server on its PATH."""

    def __init__(self, folder: Path, *words: str, redis: bool = True) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        (folder / "tmp").mkdir()
        if redis:
            (folder / "bin" / "redis-server").symlink_to(programs()[newest()])
        settings = {"PATH": str(folder / "bin"), "TMPDIR": str(folder / "tmp"), "OIDC_NO_SUCH_THING": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(REVOCATION), *words],
            env=os.environ | settings | {"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._alarm = threading.Timer(SECONDS, self.kill)
        self._alarm.start()

    def read_until(self, text: str) -> str:
        """Return what is printed up to the line with this text."""
        assert self.process.stdout
        read = ""
        for line in self.process.stdout:
            read += line
            if text in line:
                return read
        raise AssertionError(read + str(self.ending()))

    def ending(self) -> tuple[int, str, str]:
        """Return exit code, output and errors; nothing that it started is left then."""
        assert self.process.stdout
        assert self.process.stderr
        out, err = self.process.stdout.read(), self.process.stderr.read()
        self.process.wait()
        with pytest.raises(ProcessLookupError):
            os.killpg(self.process.pid, 0)
        assert list((self.folder / "tmp").iterdir()) == []
        return self.process.returncode, out, err

    def node(self) -> int:
        """Return the process id of a node."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return next(int(child) for child in children if b"uvicorn" in Path(f"/proc/{child}/cmdline").read_bytes())

    def kill(self) -> None:
        """End it and what it started."""
        self._alarm.cancel()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


@pytest.fixture
def show(tmp_path: Path) -> Iterator[Callable[..., Show]]:
    """Run `revocation.py` in a test."""
    with ExitStack() as stack:

        def run(*words: str, redis: bool = True) -> Show:
            show = Show(tmp_path, *words, redis=redis)
            stack.enter_context(show.process)
            stack.callback(show.kill)
            return show

        yield run


def test_what_one_node_revokes_the_other_refuses_whatever_happens_to_redis(show: Callable[..., Show]) -> None:
    code, out, err = show("--check").ending()
    assert (code, err) == (0, "")
    assert out.endswith("\nAll went as it must.\n")
    said = [line.strip() for line in out.splitlines()]
    for line in (
        "A revokes it, receipt: shared",
        "B answers alice with 401",
        "B answers bob with 200",
        "C answers alice with 401",
        "C answers bob with 401",
        "B answers carol with 401",
    ):
        assert line in said
    assert re.search(r"A revokes bob's token in [\d.]+ ms, receipt: journaled\n", out)
    for line in ("B refuses it", "B refuses bob's token", "B closes her WebSocket with 1008,"):
        assert re.search(rf"{line} [\d.]+ ms ", out)


@pytest.mark.parametrize("cache", ["redis", "sqlite"])
def test_a_cache_that_is_there_is_left_as_it_was(
    cache: str, show: Callable[..., Show], redis_server: RedisServer, tmp_path: Path
) -> None:
    url = redis_server.url if cache == "redis" else f"sqlite:///{tmp_path}/cache.sqlite"
    code, out, err = show("--check", "--cache", url, redis=False).ending()
    assert (code, err) == (0, "")
    assert "A revokes it, receipt: shared" in out
    assert "Redis is killed" not in out
    assert out.endswith("\nAll went as it must.\n")
    assert redis_server.admin.dbsize() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "tmp"]


def test_somebody_elses_file_is_not_touched(show: Callable[..., Show], tmp_path: Path) -> None:
    file = tmp_path / "cache.sqlite-ledger"
    file.write_bytes(b"theirs")
    code, out, err = show("--check", "--cache", f"sqlite:///{tmp_path}/cache.sqlite").ending()
    assert (code, out) == (2, "")
    assert "Name a new file" in err
    assert file.read_bytes() == b"theirs"


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        ([], "Install it (apt install redis-server"),
        (["--cache", "redis://127.0.0.1:1/0"], "--cache: no Redis answers there"),
        (["--cache", "memcached://hunter2"], "--cache: no Redis answers there"),
    ],
)
def test_without_a_redis_it_says_what_to_do(show: Callable[..., Show], words: list[str], cure: str) -> None:
    code, out, err = show("--check", *words, redis=False).ending()
    assert (code, out) == (2, "")
    assert cure in err
    assert "Traceback" not in err
    assert "hunter2" not in err


@pytest.mark.parametrize(
    ("moment", "number"),
    [("Nodes A and B", signal.SIGTERM), ("Redis is dead", signal.SIGINT), ("curl -X POST", signal.SIGINT)],
)
def test_nothing_is_left_behind_whenever_it_is_stopped(
    show: Callable[..., Show], moment: str, number: signal.Signals
) -> None:
    running = show()
    running.read_until(moment)
    for _ in range(3):  # impatience does not break off the end
        running.process.send_signal(number)
    code, _, err = running.ending()
    assert (code, err) == (130, "")


def test_a_node_that_dies_is_a_failure_and_nothing_is_left_behind(show: Callable[..., Show]) -> None:
    running = show("--check")
    running.read_until("Nodes A and B")
    os.kill(running.node(), signal.SIGKILL)
    code, out, err = running.ending()
    assert code == 1
    assert "All went" not in out
    assert "It did not go as it must" in err


# The app that people log in to


def test_the_login_app_shows_what_it_says() -> None:
    others = {name: value for name, value in os.environ.items() if not name.startswith("OIDC_")}
    result = subprocess.run(
        [sys.executable, str(LOGIN_APP), "--check"],
        env=others | {"HTTP_PROXY": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "200 a page, after the login\n" in result.stdout
    assert result.stdout.endswith("\nAll went as it must.\n")


# The reverse proxy


def test_the_reverse_proxy_shows_what_it_says() -> None:
    others = {name: value for name, value in os.environ.items() if not name.startswith("OIDC_")}
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / "reverse_proxy" / "app.py"), "--check"],
        env=others | {"HTTP_PROXY": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "200 /reports/1?all: hello, bob\n" in result.stdout
    assert result.stdout.endswith("\nAll went as it must.\n")
