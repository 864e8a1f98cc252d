"""The command line as such, and `doctor`; `explain` and `demo` have files of their own."""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest

from oidc_middleware import OIDC
from oidc_middleware.cache.redis import ledger as redis_ledger
from oidc_middleware.cli import main
from oidc_middleware.cli.parser import build_parser
from oidc_middleware.testing import FakeIssuer, faults

from redis_kit import PATIENCE, RedisServer

PAGE = (Path(__file__).parent.parent / "docs" / "commands.md").read_text()


def commands() -> dict[str, argparse.ArgumentParser]:
    (found,) = [action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found.choices)


@pytest.fixture(autouse=True)
def no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OIDC_ISSUER", raising=False)
    monkeypatch.delenv("OIDC_AUDIENCE", raising=False)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"oidc-middleware {version('oidc-middleware')}\n"


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in commands())], ids=" ".join)
def test_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("usage: oidc-middleware")


@pytest.mark.parametrize(
    "words",
    [[], ["revoke"], ["demo", "--port", "65536"], ["demo", "--port", "-1"], ["demo", "--chec"], ["explain"]],
    ids=" ".join,
)
def test_usage_errors_exit_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("usage: oidc-middleware")


def test_help_needs_nothing_that_is_slow_to_load() -> None:
    code = (
        "import sys; from oidc_middleware.cli import main; main(['--help']);"
        "slow = {'asyncio', 'cryptography', 'httpx2', 'pydantic', 'starlette', 'uvicorn'}; print(slow & {*sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    assert result.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("command", commands())
def test_every_command_is_in_the_docs(command: str) -> None:
    assert f"\n## {command}\n" in PAGE
    assert f"\n| `{command}` |" in PAGE


@pytest.mark.parametrize(
    "option",
    sorted(
        {
            option
            for command in commands().values()
            for action in command._actions
            for option in action.option_strings or [str(action.metavar)]
            if option != "-h"
        }
    ),
)
def test_every_option_is_in_the_docs(option: str) -> None:
    assert re.search(rf"`{option}`", PAGE)


def test_a_closed_pipe_ends_it_quietly(served_issuer: FakeIssuer) -> None:
    command = [
        sys.executable,
        "-m",
        "oidc_middleware.cli",
        "explain",
        "--issuer",
        served_issuer.url,
        "--audience",
        "a",
        "-",
    ]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stdin.write("abc")
        process.stdin.close()
        assert process.wait(30) == 1
        assert process.stderr.read() == ""


# Doctor


@pytest.fixture
def issuer(served_issuer: FakeIssuer) -> Iterator[FakeIssuer]:
    yield served_issuer
    served_issuer.heal()
    served_issuer.metadata_overrides.clear()
    served_issuer.extra_jwks.clear()


def doctor(issuer: FakeIssuer, *words: str) -> int:
    return main(["doctor", "--issuer", issuer.url, "--audience", "orders", *words])


def test_doctor_finds_all_well(issuer: FakeIssuer, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(issuer) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok      settings   public none; optional none; rules for none; all else needs an identity",
        "        cache      memory:// (each process keeps its own)",
        "        ledger     a revocation reaches no other process",
        "",
        f'        issuer     "{issuer.url}"',
        '        audience   aud with "orders"',
        f'ok      discovery  keys are at "{issuer.url}/jwks"',
        'ok      key        "rs256-1" for RS256',
        "        introspect the issuer is not asked about tokens: opaque ones are refused",
    ]


def test_doctor_tells_where_the_api_describes_itself(
    issuer: FakeIssuer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OIDC_RESOURCE", "https://api.example.com/orders")
    assert doctor(issuer) == 0
    where = "https://api.example.com/.well-known/oauth-protected-resource/orders"
    told = capsys.readouterr().out
    assert f'ok      resource   "https://api.example.com/orders" is described at "{where}"\n' in told
    assert f'WARNING resource   "{issuer.url}": it is none of its audiences' in told

    assert doctor(issuer, "--audience", "https://api.example.com/orders") == 0
    assert "WARNING resource" not in capsys.readouterr().out


def test_doctor_tells_which_proxies_are_believed(
    issuer: FakeIssuer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OIDC_FORWARD_AUTH", "true")
    for networks, mark, said in (
        ("10.0.0.0/8", "ok", "proxies that are believed: 10.0.0.0/8"),
        ("::/0", "WARNING", "everybody is believed"),
        ("", "WARNING", "nobody is believed"),
    ):
        monkeypatch.setenv("OIDC_TRUSTED_PROXIES", networks)
        if not networks:
            monkeypatch.delenv("OIDC_TRUSTED_PROXIES")
        assert doctor(issuer) == 0
        assert re.search(rf"^{mark} +auth .*{said}", capsys.readouterr().out, re.MULTILINE)


def test_doctor_needs_no_discovery_where_the_keys_are_known(
    issuer: FakeIssuer, capsys: pytest.CaptureFixture[str]
) -> None:
    issuer.fault("discovery", faults.down())
    assert doctor(issuer, "--jwks-uri", issuer.endpoint("jwks")) == 0
    assert f'        discovery  not needed, keys are at "{issuer.url}/jwks"\n' in capsys.readouterr().out


def test_doctor_tells_of_keys_that_are_of_no_use(issuer: FakeIssuer, capsys: pytest.CaptureFixture[str]) -> None:
    issuer.extra_jwks = [{"kty": "oct", "k": "c2VjcmV0"}, {**issuer.keys.jwks()[0], "kid": "leaked", "d": "AQAB"}]
    assert doctor(issuer) == 0
    said = capsys.readouterr().out
    assert "note    left out   key 1: " in said
    assert "WARNING key        key 2 is published with its private part: the issuer must replace it\n" in said
    assert "c2VjcmV0" not in said


def test_doctor_tells_whose_document_it_is(issuer: FakeIssuer, capsys: pytest.CaptureFixture[str]) -> None:
    issuer.metadata_overrides["issuer"] = "https://evil.example"
    assert doctor(issuer) == 3
    assert re.search(r"^FAILED  discovery  .*issuer is not the configured one", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("endpoint", ["discovery", "jwks"])
def test_doctor_exits_3_when_the_issuer_is_out(
    endpoint: str, issuer: FakeIssuer, capsys: pytest.CaptureFixture[str]
) -> None:
    issuer.fault(endpoint, faults.status(500))
    assert doctor(issuer) == 3
    said = capsys.readouterr()
    assert re.search(rf"^FAILED  {'keys' if endpoint == 'jwks' else endpoint} .* status 500$", said.out, re.MULTILINE)
    assert said.err == ""


def test_doctor_exits_2_where_settings_cannot_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--issuer", "http://login.example.com", "--audience", "orders", "--leeway", "x"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "oidc-middleware: leeway: 'x' is not a number. Write it in digits, such as 30 or 0.5.\n"


def test_an_option_goes_before_the_variable_and_this_before_the_file(
    issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env_file = tmp_path / "service.env"
    env_file.write_text("OIDC_ISSUER=https://file.example\nOIDC_AUDIENCE=file\nOIDC_AUDIENCE_CLAIM=client_id\n")
    monkeypatch.setenv("OIDC_ISSUER", "https://variable.example")
    monkeypatch.setenv("OIDC_AUDIENCE", "variable")
    assert main(["doctor", "--issuer", issuer.url, "--env-file", str(env_file)]) == 0
    assert '        audience   client_id with "variable"\n' in capsys.readouterr().out


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OIDC_JOURNAL", str(tmp_path / "host.journal"))
    return tmp_path / "host.journal"


@pytest.fixture
def shared(redis_server: RedisServer, journal: Path, monkeypatch: pytest.MonkeyPatch) -> RedisServer:
    monkeypatch.setattr(redis_ledger, "RedisLedger", partial(redis_ledger.RedisLedger, budget=PATIENCE))
    monkeypatch.setenv("OIDC_CACHE", redis_server.url.replace("//", "//:hunter2@"))
    monkeypatch.setenv("OIDC_SECRET", "s" * 32)
    redis_server.admin.config_set("requirepass", "hunter2")
    redis_server.admin.execute_command("AUTH", "hunter2")
    return redis_server


def test_doctor_looks_at_a_shared_cache(
    issuer: FakeIssuer, shared: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(issuer) == 0
    assert f"ok      cache      redis://***@127.0.0.1:{shared.port}/0\n" in capsys.readouterr().out


def test_doctor_warns_of_a_server_that_drops_entries(
    issuer: FakeIssuer, shared: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """K-redis-evict, Y-evict."""
    shared.admin.config_set("maxmemory-policy", "volatile-lru")
    assert doctor(issuer) == 0
    assert "WARNING cache      maxmemory-policy is volatile-lru" in capsys.readouterr().out


def test_doctor_tells_of_a_cache_that_cannot_be_written(
    issuer: FakeIssuer, shared: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    shared.admin.config_set("maxmemory", "1")
    assert doctor(issuer) == 3
    told = capsys.readouterr().out
    assert "FAILED  cache" in told
    assert "cannot be written: " in told
    assert "OOM" in told or "used memory" in told


def test_doctor_tells_of_a_cache_that_is_away(
    issuer: FakeIssuer, shared: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    shared.kill()
    assert doctor(issuer) == 3
    told = capsys.readouterr().out
    assert "FAILED  cache" in told
    assert "FAILED  ledger     " in told
    assert "hunter2" not in told
    assert "ok      key" in told, "the rest is looked at all the same"


def revoke(issuer: FakeIssuer, *words: str) -> int:
    return main(["revoke", "--issuer", issuer.url, "--audience", "orders", *words])


def test_doctor_looks_at_the_ledger_and_the_journal(
    issuer: FakeIssuer, shared: RedisServer, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(issuer) == 0
    told = capsys.readouterr().out
    assert re.search(r"^ok      ledger     0 revocations, read in \d+\.\d\d s$", told, re.MULTILINE)
    assert f"        journal    {journal} is not there yet\n" in told
    assert not journal.exists(), "whoever runs the doctor may be another user than the service"
    assert revoke(issuer, "--sub", "alice") == 0
    shared.restart()
    shared.admin.config_set("requirepass", "hunter2")
    shared.admin.execute_command("AUTH", "hunter2")
    assert revoke(issuer, "--sub", "bob") == 0
    shared.kill()
    assert revoke(issuer, "--sub", "carol", "--require", "journaled") == 0
    capsys.readouterr()
    assert doctor(issuer) == 3
    told = capsys.readouterr().out
    assert "FAILED  ledger     " in told
    assert re.search(
        rf"^ok      journal    \d revocations? in {journal}, 1 not in the shared cache yet$", told, re.MULTILINE
    )


def test_doctor_reads_thousands_of_revocations(
    issuer: FakeIssuer, shared: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fill() -> None:
        async with OIDC(issuer=issuer.url, audience="orders") as oidc:
            await asyncio.gather(*(oidc.revoke.token(jti=f"{number}") for number in range(3_000)))

    asyncio.run(fill())
    assert doctor(issuer) == 0
    assert "ok      ledger     3000 revocations, read in " in capsys.readouterr().out


def test_doctor_tells_of_revocations_that_nobody_here_can_read(
    issuer: FakeIssuer, shared: RedisServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nodes with another secret: each would let in what the others refuse."""
    assert revoke(issuer, "--sub", "alice") == 0
    monkeypatch.setenv("OIDC_SECRET", "o" * 32)
    assert doctor(issuer) == 3
    told = capsys.readouterr().out
    assert "ok      ledger     1 revocation, read in " in told
    assert re.search(r"^FAILED  ledger     some were made under secrets .* \(ids [0-9a-f]{8}\)", told, re.MULTILINE)


def test_doctor_tells_of_a_journal_that_cannot_be_written(
    issuer: FakeIssuer, shared: RedisServer, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal.mkdir()
    assert doctor(issuer) == 3
    assert "FAILED  journal    " in capsys.readouterr().out
