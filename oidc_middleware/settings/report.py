"""pydantic's errors as ours: the field, the problem, the cure, and nothing of the value."""

from __future__ import annotations

from typing import NoReturn

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from oidc_middleware.errors import ConfigError
from oidc_middleware.settings.problem import Problem, combined


def config_error(error: ValidationError) -> ConfigError:
    """Return the error that tells everything that pydantic found."""
    return combined(map(_finding, error.errors(include_url=False, include_input=False)))


def refuse_change(field: str) -> NoReturn:
    """Refuse to change a setting of an object that others may have read already.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(field, "settings cannot be changed", "Build new ones with the other value.")


def _finding(detail: ErrorDetails) -> ConfigError:
    field = str(detail["loc"][0]) if detail["loc"] else "settings"
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, Problem):
        return cause.of(field)
    if detail["type"] == "missing":
        return ConfigError(field, "is missing", f"Pass {field}=....")
    return ConfigError(field, detail["msg"], "See docs/configuration.md.")
