"""The README and the docs tell the truth: their code runs, their links lead somewhere, nothing public is missing.

CONTRIBUTING.md says what a page may hold and how it is run.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import oidc_middleware
from oidc_middleware import OIDCError, Settings, errors
from oidc_middleware.core.challenge import challenge
from oidc_middleware.testing import FakeIssuer

from abuse.token_cases import CASES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(DOCS.rglob("*.md"))
ISSUER = "https://login.example.com"
AUDIENCE = "https://api.example.com"
NOT_CODE = {"text", "http"}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and where it stands."""

    language: str
    text: str
    place: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    fenced = re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(m[1], m[2], f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, m.start()) + 1}") for m in fenced]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def with_blocks(*languages: str) -> list[Path]:
    return [page for page in PAGES if any(block.language in languages for block in blocks(page))]


@pytest.fixture
def issuer(served_issuer: FakeIssuer) -> FakeIssuer:
    """Stand for `ISSUER` while a page runs."""
    served_issuer.audience = AUDIENCE
    return served_issuer


# Code


async def run(block: Block, namespace: dict[str, Any], issuer: FakeIssuer) -> None:
    """Execute a Python block as if typed into a console where `await` works."""
    text = block.text.replace(ISSUER, issuer.url)
    code = compile(text, block.place, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    result = eval(code, namespace)
    if inspect.iscoroutine(result):
        await result


def defines_tests(block: Block) -> bool:
    return re.search(r"^(async def test_|def test_|class Test)", block.text, re.MULTILINE) is not None


@pytest.mark.anyio
@pytest.mark.parametrize("page", with_blocks("python"), ids=name_of)
async def test_the_python_of_a_page_runs(page: Path, issuer: FakeIssuer) -> None:
    namespace: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page):
        if block.language == "python" and not defines_tests(block):
            await run(block, namespace, issuer)


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=block.place)
        for page in PAGES
        for block in blocks(page)
        if block.language == "python" and defines_tests(block)
    ],
)
def test_the_tests_of_a_page_pass(block: Block, issuer: FakeIssuer, tmp_path: Path) -> None:
    (tmp_path / "test_block.py").write_text(block.text.replace(ISSUER, issuer.url))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
    ]
    result = subprocess.run(
        [*command, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("page", with_blocks("sh"), ids=name_of)
def test_the_commands_of_a_page_run(page: Path, issuer: FakeIssuer, tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("MAKEFLAGS", None)
    for block in blocks(page):
        if block.language == "sh":
            script = block.text.replace(ISSUER, issuer.url)
            script = re.sub(r"\bmake (?=\w)", f"make --dry-run --directory {ROOT} ", script)
            script = re.sub(r"^(\w+=\S+ )?\.ci/run$", f"bash -n {ROOT}/.ci/run", script, flags=re.MULTILINE)
            result = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert result.returncode == 0, f"{block.place}\n{result.stdout}{result.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_what_it_is(page: Path) -> None:
    parsers: dict[str, Callable[[str], object]] = {"json": json.loads, "toml": tomllib.loads}
    for block in blocks(page):
        _, _, file = block.language.partition(" ")
        if file:  # it shows a file, whole
            assert block.text == (ROOT / file).read_text(), block.place
        elif parse := parsers.get(block.language):
            parse(block.text)
        else:
            assert block.language in {"python", "sh"} | NOT_CODE, block.place


# The README's promise


@pytest.mark.anyio
@pytest.mark.parametrize("framework", ["Starlette", "FastAPI"])
async def test_the_app_in_the_readme_lets_in_whom_it_should(framework: str, issuer: FakeIssuer) -> None:
    (block,) = [block for block in blocks(ROOT / "README.md") if f"app = {framework}(" in block.text]
    namespace: dict[str, Any] = {"__name__": "readme"}
    await run(block, namespace, issuer)

    def token(scope: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {issuer.token('alice', scope=scope)}"}

    def visit() -> None:
        with TestClient(namespace["app"]) as client:
            assert client.get("/health").status_code == 200
            assert client.get("/orders").status_code == 401
            answer = client.get("/orders", headers=token("orders:read"))
            assert (answer.status_code, answer.json()) == (200, {"owner": "alice"})
            assert client.post("/orders", headers=token("orders:read")).status_code == 403
            assert client.post("/orders", headers=token("orders:read orders:write")).status_code == 200

    await asyncio.to_thread(visit)


# Nothing is missing, nothing leads nowhere


def every_subclass(base: type[OIDCError]) -> Iterator[type[OIDCError]]:
    yield base
    for derived in base.__subclasses__():
        yield from every_subclass(derived)


@pytest.mark.parametrize("error", [error for error in every_subclass(OIDCError) if error.__module__ == errors.__name__])
def test_every_error_is_in_the_docs(error: type[OIDCError]) -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\d+) \| (\S+) \|", (DOCS / "errors.md").read_text(), re.MULTILINE)
    challenge = f"`{error.error}`" if error.error else "–"
    assert (error.__name__, error.code, str(error.status), challenge) in rows


def test_the_challenges_in_the_docs_are_those_that_are_sent() -> None:
    shown = re.findall(r"^WWW-Authenticate: (.*)$", (DOCS / "errors.md").read_text(), re.MULTILINE)
    sent: list[OIDCError] = [
        errors.MissingToken(),
        errors.Malformed(),
        errors.InsufficientScope(scopes=["orders:write"]),
    ]
    assert shown == [challenge(error, realm="orders") for error in sent]


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_is_in_the_docs(field: str) -> None:
    page = (DOCS / "configuration.md").read_text()
    assert f"`{field}`" in page


@pytest.mark.parametrize("name", [name for name in oidc_middleware.__all__ if not name.startswith("__")])
def test_every_public_name_is_in_the_docs(name: str) -> None:
    assert any(re.search(rf"\b{name}\b", page.read_text()) for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", prose)
    local = [target.partition("#")[0] for target in targets if not re.match(r"https?://|#", target)]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=name_of)
def test_every_page_can_be_reached_from_the_index(page: Path) -> None:
    index = page.parent / ("README.md" if page.parent.name == "decisions" else "index.md")
    assert page == index or f"({page.name}" in index.read_text()


# The standards table: section, requirement, function, test


STANDARDS = re.findall(
    r"^\| ([^|]+) \| [^|]+ \| `([\w/]+)\.py:([\w.]+)` \| `([\w/]+\.py)::([\w-]+)` \|$",
    (DOCS / "standards.md").read_text(),
    re.MULTILINE,
)
# Of RFC 8725 all threats and all practices; of the others at least what a resource server is told.
SECTIONS = {
    "6750": "2.1 2.2 2.3 3 3.1",
    "7009": "2.1 2.2 2.2.1",
    "7515": "4.1.1 4.1.4 4.1.9 4.1.11 5.2",
    "7517": "4.1 4.2 4.3 4.4 4.5 5",
    "7519": "4.1.1 4.1.2 4.1.3 4.1.4 4.1.5 4.1.6 4.1.7 7.2",
    "7662": "2.1 2.2 2.3 4",
    "8414": "2 3.1 3.2 3.3",
    "8725": " ".join([*(f"2.{number}" for number in range(1, 10)), *(f"3.{number}" for number in range(1, 13))]),
    "9068": "2.1 2.2 2.2.1 2.2.2 2.2.3 2.2.3.1 4 5",
    "9728": "2 3 3.1 3.2 3.3 5.1",
}


def sections_in(cell: str) -> set[tuple[str, str]]:
    """Return standard and section of all that stands in the first column of a row."""
    parts = (part.split(" §") for part in cell.replace(", §", " §").split(", "))
    return {(name.removeprefix("RFC "), found.split(" ")[0]) for name, *sections in parts for found in sections}


@pytest.mark.parametrize(("section", "module", "function", "file", "test"), STANDARDS)
def test_the_standards_table_names_what_exists(section: str, module: str, function: str, file: str, test: str) -> None:
    found: object = importlib.import_module("oidc_middleware." + module.replace("/", "."))
    for part in function.split("."):
        found = getattr(found, part)
    assert callable(found), section
    assert test in {case.id for case in CASES} or re.search(rf"def {test}\b", (ROOT / "tests" / file).read_text())


def test_every_row_of_the_standards_table_is_checked() -> None:
    rows = re.findall(r"^\| (?!section)\S", (DOCS / "standards.md").read_text(), re.MULTILINE)
    assert len(rows) == len(STANDARDS)


@pytest.mark.parametrize(("standard", "sections"), SECTIONS.items())
def test_the_standards_table_leaves_out_no_section(standard: str, sections: str) -> None:
    there = set().union(*(sections_in(row[0]) for row in STANDARDS))
    assert [section for section in sections.split() if (standard, section) not in there] == []
