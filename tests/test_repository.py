"""What a stranger finds here: nothing of the author's machine, everything pinned, a wheel that is whole."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import oidc_middleware

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Written so that this file does not contain what it looks for.
UNWANTED = {
    "a path of one machine": r"(?<![\w.~-])/(?:work|tmp|root|home|Users|opt)/(?!\.\.\.)\w",
    "the address of a package index": r"py" r"pi\.org|pythonhosted\." r"org|registry\.npm" r"js|registry\.yarn" r"pkg",
    "an option that names an index": r"--(?:extra-)?index-" r"url|--find-" r"links",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY" r"-----\n[A-Za-z0-9+/=\n]{64}",
}


def committed() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=30).stdout
    return [path for name in listing.decode().split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("what", UNWANTED)
def test_nothing_committed_holds(what: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in committed()
        for match in re.finditer(UNWANTED[what], path.read_text(errors="replace"))
    ]
    assert found == []


@pytest.mark.parametrize("name", ["dev", "bench", "browser", "proxies", "node"])
def test_every_requirement_is_pinned_by_hash(name: str) -> None:
    entries = re.sub(r"\\\n|#.*", "", (ROOT / "requirements" / f"{name}.txt").read_text()).splitlines()
    loose = [
        entry for entry in entries if entry.strip() and not re.match(r"[\w.-]+==\S+ .*--hash=sha256:\w{64}", entry)
    ]
    assert loose == []


def test_no_test_can_be_skipped_or_repeated() -> None:
    markers = re.compile(r"pytest\.skip\(|mark\.skip|importorskip|mark\.flaky|mark\.xfail\((?!.*raises)")
    tests = {path for path in committed() if path.is_relative_to(ROOT / "tests") and path.suffix == ".py"}
    assert [path.name for path in tests - {Path(__file__)} if markers.search(path.read_text())] == []


def test_the_changelog_knows_the_version() -> None:
    assert f"\n## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_wheel_holds_the_package_its_types_and_its_licence(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=300,
    )
    (wheel,) = tmp_path.glob("oidc_middleware-*-py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {str(path.relative_to(ROOT)) for path in committed() if path.is_relative_to(ROOT / "oidc_middleware")}

    assert sources <= names
    assert "oidc_middleware/py.typed" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {
        "oidc_middleware",
        f"oidc_middleware-{PROJECT['version']}.dist-info",
    }


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    return set(result.stdout.split())


def test_importing_the_package_loads_neither_client_nor_server() -> None:
    assert loaded_by("import oidc_middleware") & {"authlib", "fastapi", "httpx2", "pytest", "redis", "uvicorn"} == set()


def test_the_pytest_plugin_loads_nothing_heavy() -> None:
    heavy = {"cryptography", "httpx2", "jwt", "pydantic", "starlette", "uvicorn"}
    assert loaded_by("import oidc_middleware.testing.plugin") & heavy == set()


def test_every_public_name_loads() -> None:
    assert {name: getattr(oidc_middleware, name).__name__ for name in oidc_middleware.__all__} == {
        name: name for name in oidc_middleware.__all__
    }
    assert set(oidc_middleware.__all__) <= set(dir(oidc_middleware))
