"""Run the benchmarks, each in a process of its own, and print their tables.

`python run.py` runs all and writes RESULTS.md; `python run.py door memory` runs some; `--quick` takes less of
everything. Only a whole run is written down. A goal that is missed is a row that says so, not an error.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path
from time import perf_counter

from table import markdown

NAMES = (
    "door",
    "session",
    "fastapi",
    "first_sight",
    "steps",
    "server",
    "proxy",
    "gateways",
    "memory",
    "import",
    "cache",
    "redis",
    "hybrid",
    "outage",
    "sqlite",
    "envelope",
    "ledger",
    "revocation",
    "live",
    "introspection",
)
PEERS = (
    *(
        "starlette",
        "uvicorn",
        "httptools",
        "uvloop",
        "cryptography",
        "msgspec",
        "pyjwt",
        "joserfc",
        "fastapi",
        "fastapi-jwks",
        "fastapi-azure-auth",
        "axioms-fastapi",
        "mcp",
        "fastmcp",
    ),
    *("cachetools", "moka-py", "theine", "redis", "hiredis", "cashews", "aiocache"),
)
RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; none: all")
    parser.add_argument("--quick", action="store_true", help="less of everything, for a first look")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    if arguments.here:
        print(tables(arguments.names[0], quick=arguments.quick))
        return
    texts = [head()]
    print(texts[0], end="\n\n", flush=True)
    for name in arguments.names or NAMES:
        texts.append(measured(name, quick=arguments.quick))
        print(texts[-1], end="\n\n", flush=True)
    if not arguments.names and not arguments.quick:
        RESULTS.write_text("\n\n".join(texts) + "\n")
        print(f"Written to benchmarks/{RESULTS.name}")


def measured(name: str, *, quick: bool) -> str:
    """Run one benchmark in a process of its own, so that none measures what another left behind."""
    start = perf_counter()
    options = ["--quick"] if quick else []
    command = [sys.executable, __file__, "--here", name, *options]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    print(f"{name}: {perf_counter() - start:.0f} s", file=sys.stderr)
    return text


def tables(name: str, *, quick: bool) -> str:
    """Return the tables of one benchmark."""
    module = import_module(f"bench_{name}")
    return "\n\n".join(markdown(title, rows) for title, rows in module.rows(quick=quick).items())


def head() -> str:
    """Say where and with what this was measured."""
    versions = ", ".join(f"{name} {version}" for name in PEERS if (version := installed(name)))
    return f"""\
# Results

Written by `make bench`; [docs/benchmarks.md](../docs/benchmarks.md) says how each figure is taken.

- {datetime.now(UTC):%d %B %Y}, {processor()}, {os.cpu_count()} cores, {platform.system()}
- {platform.python_implementation()} {platform.python_version()}; {versions}"""


def installed(name: str) -> str | None:
    """Return the version of a package, None when it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """Name the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
