"""`oidc-middleware secret` prints a secret that a shared cache accepts, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from oidc_middleware.cache.envelope import Sealer
from oidc_middleware.cli import main


def test_each_secret_is_new_and_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert [main(["secret"]) for _ in range(2)] == [0, 0]
    said = capsys.readouterr()
    secrets = said.out.splitlines()
    assert said.err == ""
    assert len({*secrets}) == 2
    assert len(Sealer(secrets, "oidc").check_values) == 2


def test_what_is_printed_is_one_line() -> None:
    command = [sys.executable, "-m", "oidc_middleware.cli", "secret"]
    result = subprocess.run(command, capture_output=True, timeout=100, check=True)
    assert re.fullmatch(rb"[0-9a-f]{64}\r?\n", result.stdout)
    assert result.stderr == b""


def test_it_takes_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["secret", "32"]) == 2
    assert capsys.readouterr().out == ""
