"""Scopes that imply others: who was granted `admin` may do what `read` permits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

Expand = Callable[[frozenset[str]], Iterable[str]]
"""From the granted scopes to the scopes that they imply."""


class ScopeHierarchy:
    """A table of scopes, each with those that it implies; what these imply is implied too. Circles are fine.

    Called with granted scopes it returns these and all that they imply.
    """

    def __init__(self, implied: Mapping[str, Iterable[str]]) -> None:
        direct = {scope: tuple(others) for scope, others in implied.items()}
        self._all = {scope: _reached(direct, scope) for scope in direct}

    def __call__(self, granted: frozenset[str]) -> frozenset[str]:
        """Return `granted` and what is implied."""
        return granted.union(*(self._all[scope] for scope in granted if scope in self._all))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScopeHierarchy) and self._all == other._all

    def __hash__(self) -> int:
        return hash(frozenset(self._all))

    def __repr__(self) -> str:
        return f"ScopeHierarchy({ {scope: sorted(others) for scope, others in sorted(self._all.items())} })"


def expanded(granted: frozenset[str], expand: Expand) -> frozenset[str]:
    """Return `granted` and what `expand` makes of them: it adds scopes, and takes none away.

    Raises:
        TypeError: it returned something else than several texts. One text is a mistake: its letters are no scopes.
    """
    implied = expand(granted)
    scopes = granted if isinstance(implied, str) else granted.union(implied)
    if isinstance(implied, str) or not all(isinstance(scope, str) for scope in scopes):
        raise TypeError(f"expand_scopes returned {type(implied).__name__}, not several texts")
    return scopes


def _reached(direct: Mapping[str, tuple[str, ...]], start: str) -> frozenset[str]:
    reached = {start}
    ahead = [start]
    while ahead:
        for scope in direct.get(ahead.pop(), ()):
            if scope not in reached:
                reached.add(scope)
                ahead.append(scope)
    return frozenset(reached)
