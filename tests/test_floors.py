"""`lint-imports` notices each kind of import that the floors forbid: the contracts have teeth."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = "Imports only go down, siblings do not know each other"


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        pytest.param("core/strict_json.py", "import oidc_middleware.asgi", FLOORS, id="up"),
        pytest.param("settings/checks.py", "import oidc_middleware.provider", FLOORS, id="sibling"),
        pytest.param("errors.py", "import oidc_middleware.clock", FLOORS, id="sibling-at-the-bottom"),
        pytest.param("surplus.py", "", FLOORS, id="room-without-a-floor"),
        pytest.param("core/strict_json.py", "import time", "core is pure", id="core-reads-the-clock"),
        pytest.param("core/strict_json.py", "from os import environ", "core is pure", id="core-reads-the-environment"),
        pytest.param("core/strict_json.py", "import logging", "core is pure", id="core-logs"),
        pytest.param("provider/discovery.py", "import httpx2", "One door for httpx2", id="second-door-for-httpx2"),
        pytest.param("cache/memory.py", "import redis", "One door for redis-py", id="second-door-for-redis"),
        pytest.param("asgi/refusal.py", "import mcp", "One door for the MCP SDK", id="second-door-for-mcp"),
        pytest.param("mcp/scopes.py", "import oidc_middleware.testing", FLOORS, id="sibling-at-the-edge"),
        pytest.param("core/claims.py", "import jwt", "Keys and signatures", id="second-door-for-jwt"),
        pytest.param("cache/codec.py", "import cryptography", "Keys and signatures", id="third-door-for-cryptography"),
        pytest.param("cache/envelope.py", "import jwt", "Keys and signatures", id="third-door-for-jwt"),
        pytest.param("core/policy.py", "import pydantic", "Settings are the door", id="second-door-for-pydantic"),
        pytest.param("auth/authenticator.py", "import starlette", "The edges are the door", id="starlette-below"),
        pytest.param("wiring.py", "import uvicorn", "Development tools", id="server-in-the-service"),
    ],
)
def test_a_forbidden_import_is_noticed(tmp_path: Path, module: str, line: str, contract: str) -> None:
    shutil.copytree(ROOT / "oidc_middleware", tmp_path / "oidc_middleware")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "oidc_middleware" / module).open("a") as file:
        file.write(f"\n{line}\n")

    result = lint(tmp_path)

    assert result.returncode == 1
    broken = [verdict for verdict in result.stdout.splitlines() if " BROKEN" in verdict]
    assert len(broken) == 1
    assert contract in broken[0]


def test_the_floors_hold() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout
