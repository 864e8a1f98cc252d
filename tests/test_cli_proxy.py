"""`oidc-middleware proxy`: what it says when it starts and when it cannot, and that its options do what they say."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path

import httpx2
import pytest

from oidc_middleware.testing import FakeIssuer

from serve_kit import Command, environment
from servers_kit import AUDIENCE, START_SECONDS, end, running

COMMAND = Command("proxy")
SETTINGS = {"issuer": "https://login.example.com", "audience": "https://api.example.com"}
UPSTREAM = "--upstream=http://127.0.0.1:9"


def test_it_says_where_it_listens_and_what_is_behind_it() -> None:
    with COMMAND.started(SETTINGS | {"public": "/health,/open/*"}, UPSTREAM) as (_, said):
        assert re.fullmatch(
            r"oidc-middleware proxies http://127\.0\.0\.1:\d+ to http://127\.0\.0\.1:9\n"
            r"  issuer: https://login\.example\.com; no login: bearer tokens only; "
            r"open without identity: /health, /open/\*\n",
            said,
        )


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ([], "required: --upstream"),
        (["--upstream=127.0.0.1:9000"], "upstream: is no http or https URL. Write it as http://host:port"),
        (["--upstream=http://a.example/?x"], "upstream: has a query"),
        (["--upstream=http://u:p@a.example"], "upstream: has a user name or password in it"),
        ([UPSTREAM, "--read-timeout=0"], "choose a number of seconds above 0"),
        ([UPSTREAM, "--connect-timeout=nan"], "choose a number of seconds above 0"),
        ([UPSTREAM, "--claim-header=X-Name"], "write NAME=CLAIM"),
        ([UPSTREAM, "--claim-header=Host=name"], "'Host' is no header that can hold a claim"),
        ([UPSTREAM, f"--upstream-ca-file={__file__}"], "ca_file: is for an https upstream"),
        (["--upstream=https://a.example", "--upstream-ca-file=/none"], "ca_file: '/none' cannot be read"),
    ],
)
def test_an_option_that_cannot_work_is_named_with_its_cure(options: list[str], cure: str) -> None:
    assert cure in COMMAND.refused(SETTINGS, *options)


def test_settings_are_checked_too() -> None:
    assert "OIDC_ISSUER" in COMMAND.refused({}, UPSTREAM)
    assert "Did you mean OIDC_PUBLIC" in COMMAND.refused(SETTINGS | {"publics": "/x"}, UPSTREAM)


def test_an_address_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = COMMAND.refused(SETTINGS, UPSTREAM, f"--port={taken.getsockname()[1]}")
    assert "cannot be had (Address already in use)" in said


def test_what_is_cut_at_the_end_is_counted_and_not_shown() -> None:
    """An event stream never ends by itself."""
    with socket.create_server(("127.0.0.1", 0)) as silent, FakeIssuer(audience=AUDIENCE).serve_in_thread() as issuer:
        command = [*COMMAND.words, "--port=0", f"--upstream=http://127.0.0.1:{silent.getsockname()[1]}"]
        settings = environment({"issuer": issuer.url, "audience": AUDIENCE, "public": "/events"})
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, env=settings, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().split()[2].rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port), START_SECONDS) as client:
                client.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
                silent.settimeout(START_SECONDS)
                with silent.accept()[0]:
                    process.terminate()
                    _, log = process.communicate(timeout=START_SECONDS)
        finally:
            end(process)
    assert "Cancel 1 running task(s)" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("name", ["uvicorn-httptools", "hypercorn", "granian"])
def test_apps_under_every_server(name: str, tmp_path: Path) -> None:
    """What stands behind it may be anything; here it has a door of its own, which the passed token opens."""
    fake = FakeIssuer(audience=AUDIENCE, algorithms=("ES256",))
    with fake.serve_in_thread() as issuer, running(name, issuer.url, tmp_path / "log") as app:
        settings = {"issuer": issuer.url, "audience": AUDIENCE, "public": "/health"}
        options = (f"--upstream={app.url}", "--pass-authorization")
        with (
            COMMAND.started(settings, *options) as (_, said),
            httpx2.Client(trust_env=False, timeout=START_SECONDS) as client,
        ):
            url = said.split()[2]
            headers = {"Authorization": f"Bearer {issuer.token('alice')}"}
            for _ in range(3):
                answer = client.get(f"{url}/who", headers=headers)
                assert (answer.status_code, answer.json()) == (200, {"subject": "alice", "path": "/who"})
                assert answer.headers.get_list("server") in ([], [answer.headers.get("server")])
                assert len(answer.headers.get_list("date")) == 1
                assert client.get(f"{url}/health").text == "ok"
            assert client.get(f"{url}/who").status_code == 401
