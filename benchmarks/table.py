"""How a figure is taken, and the rows that the benchmarks print."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter
from typing import Any

ROUNDS = 31

Contestant = Callable[[int], float]
"""Takes a count, does something so many times, and returns the seconds that it took."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What one call took in each round, in µs."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)

    @property
    def least(self) -> float:
        """The least of them."""
        return min(self.rounds)

    def over(self, base: Timing) -> float:
        """Return the median of the ratios to `base`, round by round: what slows down one round slows down both."""
        return median(mine / other for mine, other in zip(self.rounds, base.rounds, strict=True))

    def less(self, other: Timing) -> Timing:
        """Return what it took more than `other`, round by round."""
        return Timing(tuple(mine - its for mine, its in zip(self.rounds, other.rounds, strict=True)))


@dataclass(frozen=True, slots=True)
class Goal:
    """What was to be reached, and whether it was."""

    text: str
    reached: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: `value` in `unit`, the least that was seen, and its ratio to the row `base`."""

    what: str
    value: float
    unit: str = "µs"
    least: float | None = None
    ratio: float | None = None
    base: str = ""
    goal: Goal | None = None

    def markdown(self) -> str:
        """Return the row of a Markdown table."""
        least = "" if self.least is None else f"{self.least:,.2f}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f} × {self.base}"
        goal = "" if self.goal is None else self.goal.text
        reached = "" if self.goal is None else "reached" if self.goal.reached else "**missed**"
        return f"| {self.what} | {self.value:,.2f} {self.unit} | {least} | {ratio} | {goal} | {reached} |"


def markdown(title: str, rows: Sequence[Row]) -> str:
    """Return a Markdown table under a heading."""
    head = [f"## {title}", "", "| what | median | min | ratio | goal | |", "|---|---:|---:|---:|---|---|"]
    return "\n".join([*head, *(row.markdown() for row in rows)])


def at_most(value: float, limit: float, unit: str = "×") -> Goal:
    """Return the goal that `value` is not above `limit`."""
    return Goal(f"≤ {limit:,.4g} {unit}", value <= limit)


def at_least(value: float, limit: float, unit: str = "×") -> Goal:
    """Return the goal that `value` is not below `limit`."""
    return Goal(f"≥ {limit:,.4g} {unit}", value >= limit)


def interleaved(contestants: Mapping[str, Contestant], count: int, rounds: int = ROUNDS) -> dict[str, Timing]:
    """Run each contestant `rounds` times, `count` calls a time, and return what one call of each took.

    They take turns, so that a machine that slows down slows down all of them. The collector rests while the clock runs
    and does not walk what was there before: what the heap costs it is a figure of its own (`bench_memory`).
    """
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    for run in contestants.values():
        run(max(1, count // 10))
    gc.collect()
    gc.freeze()
    try:
        for _ in range(rounds):
            for name, run in contestants.items():
                figures[name].append(_undisturbed(run, count) / count * 1e6)
    finally:
        gc.unfreeze()
    return {name: Timing(tuple(taken)) for name, taken in figures.items()}


def _undisturbed(run: Contestant, count: int) -> float:
    gc.collect()
    gc.disable()
    try:
        return run(count)
    finally:
        gc.enable()


def repeated(call: Callable[[], object]) -> Contestant:
    """Turn a call without arguments into a contestant."""

    def run(count: int) -> float:
        turns = range(count)
        start = perf_counter()
        for _ in turns:
            call()
        return perf_counter() - start

    return run


def over(call: Callable[..., object], values: Sequence[tuple[Any, ...]]) -> Contestant:
    """Return the contestant that calls with each tuple of arguments in turn."""

    def run(count: int) -> float:
        start = perf_counter()
        for value in values[:count]:
            call(*value)
        return perf_counter() - start

    return run


def compared(
    timings: Mapping[str, Timing],
    base: str,
    limits: Mapping[str, float] | None = None,
    label: str = "{}",
) -> list[Row]:
    """Return a row for each timing with its ratio to that of `base`; `limits` are the goals for ratios, by name."""
    ratios = {name: timing.over(timings[base]) for name, timing in timings.items()}
    return [
        Row(
            label.format(name),
            timing.median,
            least=timing.least,
            ratio=ratios[name],
            base=base,
            goal=at_most(ratios[name], limits[name]) if limits and name in limits else None,
        )
        for name, timing in timings.items()
    ]


def in_milliseconds(row: Row) -> Row:
    """Return a row of µs as one of ms."""
    return replace(row, value=row.value / 1e3, least=None if row.least is None else row.least / 1e3, unit="ms")


def added(name: str, timing: Timing, base: Timing, limit: float | None = None) -> Row:
    """Return the row of what `timing` takes over `base`, a bare request, with the goal for its ratio to that."""
    more = timing.less(base)
    ratio = more.over(base)
    return Row(
        f"{name}, added",
        more.median,
        least=timing.least - base.least,
        ratio=ratio,
        base="bare",
        goal=None if limit is None else at_most(ratio, limit),
    )
