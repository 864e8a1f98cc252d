"""Where the journal is: what `journal` may say, and where it lies if it says nothing."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import Any

import pytest

from oidc_middleware import OIDC, Settings
from oidc_middleware.errors import ConfigError
from oidc_middleware.settings.journal import journal_path

REDIS = "redis://localhost/0"
BASE: dict[str, Any] = {"issuer": "https://login.example.com", "audience": "a", "secret": "s" * 32}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OIDC_JOURNAL", "STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)


def path_of(**keywords: Any) -> str | None:
    settings = Settings(**{**BASE, "cache": REDIS, **keywords})
    return journal_path(settings.journal, settings.cache, settings.namespace)


def test_a_file_is_named_by_keyword_or_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert path_of(journal=Path("/var/lib/app/journal")) == "/var/lib/app/journal"
    monkeypatch.setenv("OIDC_JOURNAL", "journal.of.mine")
    assert path_of() == "journal.of.mine"


def test_there_is_none_where_nobody_wants_or_needs_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert path_of(journal=None) is None
    assert path_of(cache="memory://") is None
    assert path_of(cache=f"sqlite:///{tmp_path}/cache.sqlite", journal="/var/lib/app/journal") is None
    monkeypatch.setenv("OIDC_JOURNAL", "None")
    assert path_of() is None


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"STATE_DIRECTORY": "/var/lib/app:/var/lib/more", "XDG_STATE_HOME": "/state"}, "/var/lib/app"),
        ({"XDG_STATE_HOME": "/state"}, "/state/oidc-middleware"),
        ({"XDG_STATE_HOME": "relative"}, "/srv/x/.local/state/oidc-middleware"),
        ({}, "/srv/x/.local/state/oidc-middleware"),
    ],
)
def test_without_a_word_it_is_where_programs_keep_their_state(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str
) -> None:
    for name, value in {"HOME": "/srv/x", **variables}.items():
        monkeypatch.setenv(name, value)
    path = path_of()
    assert path is not None
    assert str(Path(path).parent) == folder


def test_services_of_one_host_have_each_their_own() -> None:
    paths = [
        path_of(),
        path_of(namespace="other"),
        path_of(cache="redis://localhost/1"),
        path_of(cache="redis://elsewhere/0"),
    ]
    assert len(set(paths)) == len(paths)
    old, new = (path_of(cache=f"redis://:{password}@localhost/0") for password in ("hunter2", "hunter3"))
    assert old == new, "a new password is no other service"


@pytest.mark.parametrize(
    ("journal", "problem"),
    [
        ("", "names no file"),
        (" ", "names no file"),
        ("/var/lib/app/", "names no file"),
        ("a\0b", "names no file"),
        (b"/var/lib/app/journal", "must be a path, not bytes"),
        (7, "must be a path, not int"),
        ("~/journal", "begins with ~, which only a shell expands"),
    ],
)
def test_what_names_no_file_is_refused(journal: object, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        path_of(journal=journal)
    assert caught.value.field == "journal"
    assert caught.value.problem == problem
    assert "Name a file" in caught.value.cure


def test_a_user_without_a_home_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A container with a user that it does not know, and without HOME: it was a RuntimeError of `pathlib`."""

    def nobody(_: int) -> pwd.struct_passwd:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME")
    with pytest.raises(ConfigError) as caught:
        OIDC(Settings(**BASE, cache=REDIS))
    assert caught.value.field == "journal"
    assert "no home directory" in caught.value.problem
    assert "XDG_STATE_HOME" in caught.value.cure
    OIDC(Settings(**BASE, cache=REDIS, journal=tmp_path / "journal"))
    OIDC(Settings(**BASE, cache="memory://"))
