"""Write what the pages take from the code, between its two marks; `--check` only says whether it is current."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from oidc_middleware import Issuer, Settings
from oidc_middleware.settings import words

PAGE = Path(__file__).parent / "configuration.md"
_KINDS = {
    words.listed: "list",
    words.spaced: "list",
    words.number: "number",
    words.flag: "true or false",
    words.json: "JSON",
}


def current(page: str) -> str:
    """Return a page with its generated parts as they should be."""
    for name, text in (("settings", _table()), ("issuer", _issuer())):
        before, begin, rest = page.partition(f"<!-- {name}: written by docs/generate.py -->\n")
        _, end, after = rest.partition("\n<!-- end -->\n")
        if not (begin and end):
            sys.exit(f"docs/{PAGE.name} has lost the marks around its part {name!r}.")
        page = before + begin + text + end + after
    return page


def _table() -> str:
    rows = ["| setting | variable | value | default | meaning |", "|---|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        keyword_only = _reader(field) is words.never
        variable, kind = ("–", "–") if keyword_only else (f"`OIDC_{name.upper()}`", _kind(field))
        rows.append(f"| `{name}` | {variable} | {kind} | {_default(name, field)} | {field.description} |")
    return "\n".join(rows)


def _issuer() -> str:
    return ", ".join(f"`{name}`" for name in Issuer.model_fields) + "."


def _reader(field: FieldInfo) -> object:
    return next((note.decode for note in field.metadata if isinstance(note, words.Read)), None)


def _kind(field: FieldInfo) -> str:
    reader = _reader(field)
    return next((kind for decode, kind in _KINDS.items() if decode is reader), "text")


def _default(name: str, field: FieldInfo) -> str:
    value: Any = field.default
    if name in {"issuer", "audience"}:
        return "required"
    if value is None or value == ():
        return "–"
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{value:.0f}`" if isinstance(value, float) else f"`{value}`"


def main(arguments: list[str]) -> int:
    """Write the generated parts, or with `--check` compare them; return the exit status."""
    page = PAGE.read_text(encoding="utf-8")
    wanted = current(page)
    if arguments != ["--check"]:
        PAGE.write_text(wanted, encoding="utf-8")
        return 0
    if page == wanted:
        return 0
    print(f"docs/{PAGE.name} does not say what the code says: run `make docs`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
