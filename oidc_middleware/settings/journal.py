"""The setting of the journal: where revocations made on this host are kept, and where that is if nobody says."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path

from oidc_middleware.errors import ConfigError
from oidc_middleware.settings.cache import MEMORY, sqlite_path, without_credentials
from oidc_middleware.settings.problem import Problem

STATE_DIRECTORY = "state directory"
"""The default: a file in the directory that this system has for the state of programs."""
NONE = "none"

_CURE = "Name a file such as /var/lib/app/revocations.journal, or write none."


def journal(value: object) -> str:
    """Check for the path of a file, or the word `none`; whether it can be written is seen when it is opened."""
    if value is None:
        return NONE
    if not isinstance(value, str | os.PathLike):
        raise Problem(f"must be a path, not {type(value).__name__}", _CURE)
    path = os.fspath(value)
    if not isinstance(path, str) or not path.strip() or "\0" in path or path.endswith("/"):
        raise Problem("names no file", _CURE)
    if path.startswith("~"):
        raise Problem("begins with ~, which only a shell expands", _CURE)
    return NONE if path.lower() == NONE else path


def journal_path(setting: str, cache: str, namespace: str) -> str | None:
    """Return the file that a `journal` setting means, None for none.

    There is none where nothing is shared, and none beside a shared file, which keeps what it acknowledged itself. The
    default's name tells services apart that share a host, by their cache and namespace.

    Raises:
        ConfigError: it is the default, and the user of this process has no home.
    """
    if setting == NONE or cache == MEMORY or sqlite_path(cache) is not None:
        return None
    if setting != STATE_DIRECTORY:
        return setting
    service = blake2b(f"{without_credentials(cache)} {namespace}".encode(), digest_size=4).hexdigest()
    return str(_state_directory() / f"{namespace}-{service}.journal")


def _state_directory() -> Path:
    """Return where programs keep their state: as systemd says it, else as the XDG Base Directory Specification does."""
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    home = Path(os.environ.get("XDG_STATE_HOME", ""))
    if home.is_absolute():
        return home / "oidc-middleware"
    try:
        return Path.home() / ".local/state/oidc-middleware"
    except RuntimeError:
        problem = "has no default here, for the user of this process has no home directory"
        raise ConfigError("journal", problem, f"{_CURE} Or set XDG_STATE_HOME.") from None
