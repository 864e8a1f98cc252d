"""What it costs to load the package, and what it costs somebody else's pytest that it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from table import Row, at_most, compared, in_milliseconds, interleaved, markdown

LIMIT = 150
LAZY = ("authlib", "httpx", "httpx2", "redis", "uvicorn")
DOOR = "from oidc_middleware import OIDCMiddleware"
PARTS = "import starlette.applications, pydantic_settings, jwt.algorithms, msgspec"
STATEMENTS = (
    "import oidc_middleware",
    DOOR,
    "import starlette.applications",
    "import fastapi",
    PARTS,
)


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the tables of start-up."""
    rounds = 3 if quick else 11
    check_lazy()
    return {"Import, in a fresh process": imports(rounds), "pytest, one empty test": pytest_starts(rounds)}


def imports(rounds: int) -> list[Row]:
    """Measure imports by the clock of the process that makes them, its own start left out."""
    timings = interleaved({statement: importing(statement) for statement in STATEMENTS}, 1, rounds)
    rows = [in_milliseconds(row) for row in compared(timings, PARTS, label="`{}`")]
    return [
        replace(row, base="its parts", goal=at_most(row.value, LIMIT, "ms") if "oidc_middleware" in row.what else None)
        for row in rows
    ]


def importing(statement: str) -> Callable[[int], float]:
    """Return the contestant that runs a statement in a fresh process."""
    program = f"from time import perf_counter\nstart = perf_counter()\n{statement}\nprint(perf_counter() - start)"
    return lambda _: float(python("-c", program))


def check_lazy() -> None:
    """Make sure that what is needed later is not loaded with the package.

    Raises:
        AssertionError: it is.
    """
    loaded = python("-c", f"import sys\n{DOOR}\nprint(*(name for name in {LAZY!r} if name in sys.modules))").strip()
    if loaded:
        raise AssertionError(f"loaded too early: {loaded}")


def pytest_starts(rounds: int) -> list[Row]:
    """Measure a whole run of pytest with one empty test, with and without our plugin."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
        timings = interleaved(
            {"without the plugin": testing(folder), "with it": testing(folder, "-p", "oidc_middleware.testing.plugin")},
            1,
            rounds,
        )
    return [in_milliseconds(row) for row in compared(timings, "without the plugin")]


def testing(folder: str, *options: str) -> Callable[[int], float]:
    """Return the contestant that runs pytest, with nobody else's plugins."""

    def run(_: int) -> float:
        start = perf_counter()
        python("-m", "pytest", "-q", "-p", "no:cacheprovider", *options, folder, folder=folder)
        return perf_counter() - start

    return run


def python(*arguments: str, folder: str | None = None) -> str:
    """Run this Python in a fresh process, and return what it printed."""
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, text=True, cwd=folder, env=environment
    ).stdout


if __name__ == "__main__":
    for title, table in rows().items():
        print(markdown(title, table), end="\n\n")
