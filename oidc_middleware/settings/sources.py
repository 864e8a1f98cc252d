"""Where settings come from besides keywords: variables, files that variables name, a secrets directory, a `.env` file.

Names are exact: `OIDC_ISSUER`. A name of ours that is no setting is refused wherever it stands, `oidc_issuer` too,
for a misspelt name that nobody reads is a surprise later on. Names of others are ignored.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource

from oidc_middleware.errors import ConfigError
from oidc_middleware.settings.problem import Problem, combined, shown
from oidc_middleware.settings.unknown import unknown_name
from oidc_middleware.settings.words import Read

PREFIX = "OIDC_"
_FILE = "_FILE"
_MAX_FILE = 65536


class Texts(PydanticBaseSettingsSource):
    """Settings that came as text, by the name of their field.

    Raises:
        ConfigError: on call: a text that cannot be read as its field wants it.
    """

    def __init__(self, settings: type[BaseSettings], texts: Mapping[str, str]) -> None:
        super().__init__(settings)
        self._texts = texts

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Read the text of one field, if it came."""
        text = self._texts.get(field_name)
        reader = next((note for note in field.metadata if isinstance(note, Read)), None)
        return (reader.decode(text) if reader and text is not None else text), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Read all texts that came."""
        values: dict[str, Any] = {}
        errors: list[ConfigError] = []
        for name in self._texts:
            try:
                values[name], _, _ = self.get_field_value(self.settings_cls.model_fields[name], name)
            except Problem as problem:
                errors.append(problem.of(name))
        if errors:
            raise combined(errors)
        return values


def in_order(
    settings: type[BaseSettings], environment: Mapping[str, str], secrets_dir: object, env_file: object
) -> tuple[Texts, ...]:
    """Return all sources, the strongest first; `secrets_dir` and `env_file` are paths, or `None`.

    Raises:
        ConfigError: an unknown name of ours, or something that cannot be read.
    """
    names = tuple(settings.model_fields)
    texts, files = _named(environment, names)
    found = [texts, _contents(files)]
    if secrets_dir is not None:
        found.append(_contents(_secrets(_path("secrets_dir", secrets_dir), names)))
    if env_file is not None:
        texts, files = _named(_dot_env(settings, _path("env_file", env_file)), names)
        found += [texts, _contents(files)]
    return tuple(Texts(settings, texts) for texts in found if texts)


def variable(field: str) -> str:
    """Return the name of the variable for a field."""
    return PREFIX + field.upper()


def _named(variables: Mapping[str, str | None], names: Iterable[str]) -> tuple[dict[str, str], dict[str, Path]]:
    """Return the texts that stand in variables of ours, and the files that other variables of ours name."""
    fields = {variable(name): name for name in names}
    texts: dict[str, str] = {}
    files: dict[str, Path] = {}
    errors: list[ConfigError] = []
    for key in sorted(key for key in variables if key.startswith(PREFIX) or key.upper() in fields):
        text = variables[key]
        if text is None:
            errors.append(ConfigError(key, "has no value", f"Write {key}=value, or remove the line."))
        elif key in fields:
            texts[fields[key]] = text
        elif key.endswith(_FILE) and (field := fields.get(key.removesuffix(_FILE))):
            files[field] = Path(text)
        else:
            errors.append(unknown_name(key, tuple(fields)))
    if errors:
        raise combined(errors)
    return texts, files


def _secrets(directory: Path, names: Iterable[str]) -> dict[str, Path]:
    """Return the files of ours in a directory such as /run/secrets: `oidc_issuer` or `OIDC_ISSUER`."""
    fields = {variable(name): name for name in names}
    files: dict[str, Path] = {}
    try:
        entries = sorted(directory.iterdir())
    except (OSError, ValueError) as error:
        raise _unreadable("secrets_dir", directory, error) from None
    for entry in entries:
        key = entry.name.upper()
        if not key.startswith(PREFIX):
            continue
        if key not in fields:
            raise unknown_name(key, tuple(fields))
        if fields[key] in files:
            raise ConfigError(fields[key], "lies in the secrets directory twice", "Remove one of the two files.")
        files[fields[key]] = entry
    return files


def _contents(files: Mapping[str, Path]) -> dict[str, str]:
    return {field: _content(field, path) for field, path in files.items()}


def _content(field: str, path: Path) -> str:
    """Read a file of one value; the line end that editors add is not part of it."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
        text = data.decode()
    except (OSError, ValueError) as error:
        raise _unreadable(field, path, error) from None
    if len(data) > _MAX_FILE:
        raise ConfigError(field, f"{shown(str(path))} is larger than {_MAX_FILE} bytes", "Name the right file.")
    return text.removesuffix("\n").removesuffix("\r")


def _dot_env(settings: type[BaseSettings], path: Path) -> Mapping[str, str | None]:
    try:
        path.open("rb").close()  # the source would take a missing file for an empty one
        return DotEnvSettingsSource(settings, env_file=path, env_file_encoding="utf-8", case_sensitive=True).env_vars
    except (OSError, ValueError) as error:
        raise _unreadable("env_file", path, error) from None


def _path(field: str, value: object) -> Path:
    if isinstance(value, str | os.PathLike) and isinstance(path := os.fspath(value), str) and path:
        return Path(path)
    raise ConfigError(field, f"must be a path, not {type(value).__name__}", "Name one file or directory.")


def _unreadable(field: str, path: Path, error: Exception) -> ConfigError:
    reason = getattr(error, "strerror", None) or ("not UTF-8" if isinstance(error, UnicodeError) else "not a path")
    return ConfigError(field, f"{shown(str(path))} cannot be read ({reason})", "Check the path and its permissions.")
