"""The page about this suite, and the one in a browser, names every test of both."""

from __future__ import annotations

import re

from .node import HERE

PAGE = HERE.parent.parent / "docs" / "conformance.md"


def test_page_names_every_test() -> None:
    """Each test of the suites stands in the page's tables, and nothing stands there that does not exist."""
    modules = [path for path in HERE.parent.glob("*/test_*.py") if path.parent.name in {"conformance", "browser"}]
    modules.remove(HERE / "test_page.py")
    tests = {
        name
        for path in modules
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text("utf-8")))
    assert named == tests
