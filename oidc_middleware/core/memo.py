"""Decisions remembered, so that a known path costs one look-up, and bounded, since clients choose the paths."""

from __future__ import annotations

from collections.abc import Callable

from oidc_middleware.core.policy import Access, Decision

_Key = tuple[str, str, bytes | None, str]


class DecisionMemo:
    """Remember what `decide` answered, in two generations of at most `size` entries each.

    When the young one is full it becomes the old one, and the old one goes. What is asked for meanwhile moves back into
    the young one, so that a flood of new paths drops only what nobody asks for. Refusals and long paths are not kept:
    together with `size` this bounds the memory, at about 2 * size * (longest + 500) bytes.
    """

    __slots__ = ("_decide", "_longest", "_old", "_size", "_young")

    def __init__(
        self, decide: Callable[[str, str, bytes | None, str], Decision], size: int = 4096, longest: int = 512
    ) -> None:
        self._decide = decide
        self._size = size
        self._longest = longest
        self._young: dict[_Key, Decision] = {}
        self._old: dict[_Key, Decision] = {}

    def get(self, method: str, path: str, raw_path: bytes | None, root_path: str) -> Decision:
        """Return the decision for a request; the arguments are those of `Policy.decide`."""
        key = (method, path, raw_path, root_path)
        return self._young.get(key) or self._older(key)

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def _older(self, key: _Key) -> Decision:
        decision = self._old.pop(key, None)
        if decision is None:
            decision = self._decide(*key)
            method, path, raw_path, root_path = key
            length = len(method) + len(path) + len(raw_path or b"") + len(root_path)
            if decision.access is Access.REFUSED or length > self._longest:
                return decision
        if len(self._young) >= self._size:
            self._old, self._young = self._young, {}
        self._young[key] = decision
        return decision
