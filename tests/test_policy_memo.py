"""Remembered decisions: one look-up for a known path, bounded for all."""

from __future__ import annotations

import sys

from oidc_middleware.core.memo import DecisionMemo
from oidc_middleware.core.policy import Access, Decision, Policy, Rule


class Counting:
    """A policy that counts how often it is asked."""

    def __init__(self) -> None:
        self.policy = Policy(public=["/health"], rules=[Rule("/admin/*", methods=("POST",), scopes=("admin",))])
        self.asked: list[str] = []

    def decide(self, method: str, path: str, raw_path: bytes | None, root_path: str) -> Decision:
        self.asked.append(path)
        return self.policy.decide(method, path, raw_path, root_path)


def test_a_known_request_is_not_decided_again() -> None:
    policy = Counting()
    memo = DecisionMemo(policy.decide)
    first = memo["GET", "/health", b"/health", ""]
    assert first.access is Access.PUBLIC
    assert memo["GET", "/health", b"/health", ""] is first
    assert policy.asked == ["/health"]


def test_everything_that_the_decision_depends_on_is_in_the_key() -> None:
    memo = DecisionMemo(Counting().decide)
    assert memo["GET", "/health", b"/health", ""].access is Access.PUBLIC
    assert memo["GET", "/health", b"/x/../health", ""].access is Access.REFUSED
    assert memo["GET", "/health", None, ""].access is Access.PUBLIC
    assert memo["GET", "/health", b"/health", "/health"].access is Access.IDENTITY
    assert memo["POST", "/admin/x", None, ""].scopes == ("admin",)
    assert memo["GET", "/admin/x", None, ""].scopes == ()


def test_a_flood_of_paths_neither_grows_it_nor_drops_what_is_asked_for() -> None:
    policy = Counting()
    memo = DecisionMemo(policy.decide, size=100)
    for number in range(5_000):
        memo["GET", f"/flood/{number}", None, ""]
        if number % 50 == 0:
            memo["GET", "/health", None, ""]
        assert len(memo) + len(memo.old) <= 200
    assert policy.asked.count("/health") == 1


def test_refusals_and_long_paths_are_not_kept() -> None:
    memo = DecisionMemo(Counting().decide, longest=100)
    memo["GET", "/a/../b", None, ""]
    memo["GET", "/" + "a" * 100, None, ""]
    memo["G" * 100, "/a", None, ""]
    memo["GET", "/a", b"/" + b"a" * 100, ""]
    memo["GET", "/a", None, "/" + "r" * 100]
    assert len(memo) == 0
    memo["GET", "/a", b"/a", ""]
    assert len(memo) == 1


def test_the_memory_of_a_full_memo_is_a_few_megabytes() -> None:
    memo = DecisionMemo(Counting().decide)
    keys = [("GET", f"/{number:0250}", f"/{number:0250}".encode(), "") for number in range(10_000)]
    for key in keys:
        memo[key]
    kept = sum(sys.getsizeof(key) + sys.getsizeof(key[1]) + sys.getsizeof(key[2]) for key in (*memo, *memo.old))
    assert len(memo) + len(memo.old) <= 2 * 4096
    assert kept < 8 * 2**20
