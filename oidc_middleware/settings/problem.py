"""What a check says when a value cannot work."""

from __future__ import annotations

from collections.abc import Iterable

from oidc_middleware.errors import ConfigError

_SHOWN = 60


class Problem(ValueError):
    """A value cannot work: `problem` says why, `cure` what to write instead. Which field it is, the caller knows."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.cure = cure

    def of(self, field: str) -> ConfigError:
        """Return the error that names the field too."""
        return ConfigError(field, self.problem, self.cure)


def combined(errors: Iterable[ConfigError]) -> ConfigError:
    """Return one error that is the first and tells the others too, a line for each; there must be at least one."""
    first, *others = errors
    if not others:
        return first
    lines = [first.cure, *(f"{other.field}: {other.problem}. {other.cure}" for other in others)]
    return ConfigError(first.field, first.problem, "\n".join(lines))


def shown(value: object) -> str:
    """Return `value` for a message: escaped, and cut where it is long."""
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
