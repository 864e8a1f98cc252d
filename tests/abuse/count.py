"""Print which cases of an abuse-case list the tests name, and which they do not: `python tests/abuse/count.py LIST`.

A case counts as covered when its id is part of the id of a collected test (`test_z_toss` is `Z-toss`), or stands in a
text of a test's source (a docstring, a table); comments do not count. `H-basic-lower` covers `H-basic`, unless the list
has it as a case of its own. The exit status is 1 where a case is missing.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent.parent


def cases(text: str) -> dict[str, list[str]]:
    """Return the ids of the cases by section."""
    sections: dict[str, list[str]] = {}
    ids: list[str] = []
    for line in text.splitlines():
        if line.startswith("## "):
            ids = sections.setdefault(line[3:].strip(), [])
        elif found := re.match(r"- `([A-Z]+-[^`\s]+)`", line):
            ids.append(found[1])
    return sections


def collected() -> Iterator[str]:
    """Yield the ids of the tests, those of the conformance suite too."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests", "tests/conformance"]
    found = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=True).stdout
    yield found
    for letter, rest in re.findall(r"::test_([a-z])_(\w+)", found):
        yield f"{letter.upper()}-{rest.replace('_', '-')}"


def texts() -> Iterator[str]:
    """Yield every text in the source of the tests."""
    for path in TESTS.rglob("*.py"):
        if path == Path(__file__) or "node_modules" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def named(ids: list[str], evidence: str) -> set[str]:
    """Return those of `ids` that the evidence names; of two that begin alike, the longer one."""
    longest_first = sorted(ids, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
    return set(pattern.findall(evidence))


def main(path: str) -> int:
    sections = cases(Path(path).read_text())
    covered = named([name for ids in sections.values() for name in ids], "\n".join((*collected(), *texts())))
    missing: list[str] = []
    total = 0
    for section, ids in sections.items():
        missing += [name for name in ids if name not in covered]
        tested = sum(name in covered for name in ids)
        total += tested
        sys.stdout.write(f"{section:24} {tested:3} of {len(ids):3}\n")
    sys.stdout.write(f"{total} cases are tests; missing: {' '.join(missing) or 'none'}\n")
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
