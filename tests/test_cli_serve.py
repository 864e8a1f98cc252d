"""`oidc-middleware serve`: what it says when it starts, when it cannot, and how it ends."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path

import httpx2
import pytest

from oidc_middleware.testing import FakeIssuer

from serve_kit import Command
from servers_kit import ANSWER_SECONDS

COMMAND = Command("serve")
SETTINGS = {"issuer": "https://login.example.com", "audience": "https://api.example.com"}


def test_it_says_where_it_listens_and_whom_it_believes() -> None:
    with COMMAND.started(SETTINGS | {"trusted_proxies": "10.0.0.0/8,::1"}) as (_, said):
        assert re.fullmatch(
            r"oidc-middleware serves forward auth at http://127\.0\.0\.1:\d+/oauth2/auth\n"
            r"  issuer: https://login\.example\.com; no login: bearer tokens only; "
            r"proxies that are believed: 10\.0\.0\.0/8, ::1/128\n",
            said,
        )


def test_it_says_where_browsers_log_in() -> None:
    login = {"login": "true", "base_url": "https://app.example.com", "client_id": "app", "client_secret": "x" * 20}
    with COMMAND.started(SETTINGS | login) as (_, said):
        assert "; login at https://app.example.com; " in said


def test_it_warns_that_nobody_is_believed() -> None:
    with COMMAND.started(SETTINGS) as (process, said):
        assert "proxies that are believed: none" in said
        process.terminate()
        _, log = process.communicate(timeout=ANSWER_SECONDS)
    assert "Set OIDC_TRUSTED_PROXIES" in log


def test_it_warns_that_everybody_is_believed() -> None:
    with COMMAND.started(SETTINGS | {"trusted_proxies": "0.0.0.0/0"}) as (process, _):
        process.terminate()
        _, log = process.communicate(timeout=ANSWER_SECONDS)
    assert "everybody is believed" in log


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({}, "OIDC_ISSUER"),
        ({"issuer": "https://login.example.com"}, "OIDC_AUDIENCE"),
        (SETTINGS | {"trusted_proxies": "10.0.0.1/8"}, "trusted_proxies: '10.0.0.1/8' is no network"),
        (SETTINGS | {"trusted_proxy": "10.0.0.1"}, "Did you mean OIDC_TRUSTED_PROXIES"),
        (SETTINGS | {"public": "/oauth2/*"}, "public: '/oauth2/*' and '/oauth2/health' of prefix match the same paths"),
        (SETTINGS | {"public": "/oauth2/auth/x"}, "'/oauth2/auth/*' of prefix match the same paths"),
        (SETTINGS | {"login": "true"}, "base_url: is missing, and login is on"),
        (SETTINGS | {"cache": "redis://127.0.0.1"}, "secret"),
    ],
)
def test_a_setting_that_cannot_work_is_named_with_its_cure(settings: dict[str, str], field: str) -> None:
    said = COMMAND.refused(settings)
    assert said.startswith("oidc-middleware: ")
    assert field in said
    assert "Traceback" not in said


def test_an_address_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = COMMAND.refused(SETTINGS, f"--port={port}")
    assert f"127.0.0.1:{port} cannot be had (Address already in use)" in said
    assert "cannot be had" in COMMAND.refused(SETTINGS, "--host=192.0.2.1")


def test_variables_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "variables").write_text("OIDC_ISSUER=https://login.example.com\nOIDC_AUDIENCE=a\nOIDC_PREFIX=/sso\n")
    with COMMAND.started({}, f"--env-file={tmp_path}/variables") as (_, said):
        assert "/sso/auth\n" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_and_quietly(number: signal.Signals) -> None:
    with FakeIssuer().serve_in_thread() as issuer:
        settings = {"issuer": issuer.url, "audience": issuer.audience, "trusted_proxies": "127.0.0.1"}
        with COMMAND.started(settings) as (process, said):
            found = re.search(r"http://\S+", said)
            assert found is not None
            assert httpx2.get(found[0], trust_env=False, timeout=ANSWER_SECONDS).status_code == 401
            process.send_signal(number)
            _, log = process.communicate(timeout=ANSWER_SECONDS)
    assert process.returncode in {-signal.SIGTERM, 130}
    assert "Traceback" not in log
    assert "refused '/oauth2/auth' with 401: missing_token: no credentials" in log


def test_the_log_level_is_obeyed() -> None:
    settings = SETTINGS | {"trusted_proxies": "127.0.0.1", "jwks_uri": "https://login.example.com/keys"}
    with COMMAND.started(settings, "--log-level=error") as (process, said):
        found = re.search(r"http://\S+", said)
        assert found is not None
        assert httpx2.get(found[0], trust_env=False, timeout=ANSWER_SECONDS).status_code == 401
        process.terminate()
        _, log = process.communicate(timeout=ANSWER_SECONDS)
    assert log == ""


def test_it_listens_on_ipv6_too() -> None:
    with COMMAND.started(SETTINGS | {"trusted_proxies": "::1"}, "--host=::1") as (_, said):
        found = re.search(r"http://\[::1\]:\d+/oauth2/auth", said)
        assert found is not None
        answer = httpx2.get(found[0], headers={"X-Forwarded-Uri": "*"}, trust_env=False, timeout=ANSWER_SECONDS)
        assert answer.status_code == 400  # so it was read
