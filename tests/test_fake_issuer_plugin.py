"""The pytest plugin: its fixtures, and that it costs nothing where nobody uses it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import oidc_middleware.testing
from oidc_middleware.testing import FakeIssuer, KeyPool, ManualClock

HEAVY = {"authlib", "cryptography", "httpx2", "jwt", "msgspec", "pydantic", "pydantic_settings", "starlette", "uvicorn"}

Factory = Callable[..., FakeIssuer]


def output_of(*arguments: str, cwd: Path) -> str:
    command = [sys.executable, "-W", "error", *arguments]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_plugin_is_registered() -> None:
    (found,) = entry_points(group="pytest11", name="oidc_middleware")
    assert found.value == "oidc_middleware.testing.plugin"


def test_the_plugin_imports_nothing_heavy(tmp_path: Path) -> None:
    show = "import sys, oidc_middleware.testing.plugin; print(*{name.partition('.')[0] for name in sys.modules})"

    assert HEAVY & set(output_of("-c", show, cwd=tmp_path).split()) == set()


def test_a_test_run_that_does_not_use_it_loads_only_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import sys\n"
        "def test_other():\n"
        "    ours = {name for name in sys.modules if name.startswith('oidc_middleware')}\n"
        "    assert ours == {'oidc_middleware', 'oidc_middleware.testing', 'oidc_middleware.testing.plugin'}\n"
    )

    assert "1 passed" in output_of("-m", "pytest", "-p", "no:cacheprovider", cwd=tmp_path)


@pytest.mark.parametrize("name", oidc_middleware.testing.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(oidc_middleware.testing, name).__name__.rpartition(".")[2] == name
    assert name in dir(oidc_middleware.testing)


def test_a_name_that_is_not_there_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'FakeIssue'"):
        _ = oidc_middleware.testing.FakeIssue


def test_fixtures_fit_together(
    fake_issuer: FakeIssuer, fake_issuer_factory: Factory, oidc_clock: ManualClock, oidc_token: Callable[..., str]
) -> None:
    other = fake_issuer_factory("https://other.example", audience="https://b.example")
    token = oidc_token("bob", scope="read")

    claims = fake_issuer.read(token)
    assert claims is not None
    assert (claims["sub"], claims["aud"], claims["iat"]) == ("bob", "https://api.example", int(oidc_clock.now()))
    assert other.keys.current().kid == fake_issuer.keys.current().kid
    assert other.keys.jwks() != fake_issuer.keys.jwks()
    assert other.read(token) is None


def test_two_issuers_of_one_test_share_no_key(fake_issuer_factory: Factory) -> None:
    moduli = [fake_issuer_factory().keys.jwks()[0]["n"] for _ in range(3)]

    assert len(set(moduli)) == 3


def test_the_pool_gives_its_keys_to_test_after_test(oidc_key_pool: KeyPool) -> None:
    with oidc_key_pool.borrow() as make:
        first = make("P-384")
    with oidc_key_pool.borrow() as make:
        assert any(make("P-384") is first for _ in range(50))
