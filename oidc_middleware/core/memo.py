"""Decisions remembered, so that a known path costs one look-up, and bounded, since clients choose the paths."""

from __future__ import annotations

from collections.abc import Callable

from oidc_middleware.core.policy import Access, Decision

Asked = tuple[str, str, bytes | None, str]
"""Method, path, raw path and root path: the arguments of `Policy.decide`."""


class DecisionMemo(dict[Asked, Decision]):
    """What `decide` answered, by its arguments: `memo[method, path, raw_path, root_path]`, which never fails.

    It is a dict, so that a hit runs no Python. What is not in it is asked for, and remembered in two generations of at
    most `size` entries each: when the young one (the dict itself) is full it becomes the old one, and the old one goes.
    What is asked for meanwhile moves back into the young one, so that a flood of new paths drops only what nobody asks
    for. Refusals and long paths are not kept: together with `size` this bounds the memory, at about
    2 * size * (longest + 500) bytes.
    """

    __slots__ = ("_decide", "_longest", "_size", "old")

    def __init__(
        self, decide: Callable[[str, str, bytes | None, str], Decision], size: int = 4096, longest: int = 512
    ) -> None:
        super().__init__()
        self._decide = decide
        self._size = size
        self._longest = longest
        self.old: dict[Asked, Decision] = {}

    def __missing__(self, asked: Asked) -> Decision:
        decision = self.old.pop(asked, None)
        if decision is None:
            decision = self._decide(*asked)
            if decision.access is Access.REFUSED or self._is_long(*asked):
                return decision
        if len(self) >= self._size:
            self.old = dict(self)
            self.clear()
        self[asked] = decision
        return decision

    def _is_long(self, method: str, path: str, raw_path: bytes | None, root_path: str) -> bool:
        return len(method) + len(path) + len(raw_path or b"") + len(root_path) > self._longest
