"""The page about this suite names every test of it."""

from __future__ import annotations

import re

from .node import HERE

PAGE = HERE.parent.parent / "docs" / "conformance.md"


def test_page_names_every_test() -> None:
    """Each test of the suite stands in the page's table, and nothing stands there that does not exist."""
    modules = [path for path in HERE.glob("test_*.py") if path.name != "test_page.py"]
    tests = {
        name
        for path in modules
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text("utf-8")))
    assert named == tests
