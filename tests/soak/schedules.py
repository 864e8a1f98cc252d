"""The ledger's protocol under many thousand schedules of faults, on virtual time, and no promise is broken.

`python tests/soak/schedules.py --schedules 100000 --seed 0 --processes 2`, or `--minutes 5` for as many as that allows.
A violation is printed with its whole schedule, which `--replay SEED` shows again. Exit code: 0 none, 1 some.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import count
from pathlib import Path
from time import monotonic

sys.path.insert(0, str(Path(__file__).parent.parent))

from simulation.fleet import replay, run
from simulation.judge import Violation

SLICE = 250
PROGRESS_EVERY = 10.0
MOST_SHOWN = 3


def run_slice(seeds: range) -> tuple[Counter[str], dict[int, str]]:
    """Carry out some schedules; return what happened in them, and what was violated."""
    counts: Counter[str] = Counter()
    violations: dict[int, str] = {}
    for seed in seeds:
        try:
            fleet = run(seed)
        except Violation as violation:
            violations[seed] = str(violation)
        else:
            counts += fleet.counts + fleet.network.counts
            counts["events"] += fleet.judge.checks
        counts["schedules"] += 1
    return counts, violations


class Run:
    """Slices of schedules on several processes, and what came of them."""

    def __init__(self, first: int, schedules: int | None, seconds: float | None) -> None:
        self.counts: Counter[str] = Counter()
        self.violations: dict[int, str] = {}
        self._begun = monotonic()
        self._told_at = self._begun
        self._seconds = seconds
        self._slices = self._cut(first, schedules)

    def _cut(self, first: int, schedules: int | None) -> Iterator[range]:
        for start in count(first, SLICE):
            left = SLICE if schedules is None else min(SLICE, first + schedules - start)
            if left <= 0 or (self._seconds is not None and monotonic() - self._begun > self._seconds):
                return
            yield range(start, start + left)

    def carry_out(self, processes: int) -> None:
        """Do all of it; each process has one slice in reserve."""
        with ProcessPoolExecutor(processes) as pool:
            waiting: list[Future[tuple[Counter[str], dict[int, str]]]] = []
            for seeds in self._slices:
                waiting.append(pool.submit(run_slice, seeds))
                if len(waiting) >= 2 * processes:
                    self._take(waiting.pop(0))
            for future in waiting:
                self._take(future)

    def _take(self, future: Future[tuple[Counter[str], dict[int, str]]]) -> None:
        counts, violations = future.result()
        for seed, violation in violations.items():
            print(f"seed {seed}: {violation}", flush=True)
        self.counts += counts
        self.violations |= violations
        if monotonic() > self._told_at + PROGRESS_EVERY:
            self._told_at = monotonic()
            print(self.summary(), flush=True)

    def summary(self) -> str:
        """Return how far it is."""
        seconds = monotonic() - self._begun
        return (
            f"{seconds:5.0f} s  {self.counts['schedules']:,} schedules, {self.counts['revocation']:,} revocations, "
            f"{self.counts['events']:,} events, {len(self.violations)} violations"
        )


def main() -> int:
    """Carry out schedules, or show one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, help="how many (100,000 unless a time is given)")
    parser.add_argument("--minutes", type=float, help="for how long")
    parser.add_argument("--seconds", type=float, help="the same in seconds")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--replay", type=int, metavar="SEED", help="show what happens in one schedule")
    arguments = parser.parse_args()
    if arguments.replay is not None:
        print(replay(arguments.replay))
        return 0
    seconds = arguments.seconds or (arguments.minutes and arguments.minutes * 60)
    carried_out = Run(arguments.seed, arguments.schedules or (None if seconds else 100_000), seconds)
    carried_out.carry_out(arguments.processes)
    done = carried_out.counts["schedules"]
    print(carried_out.summary())
    print(f"seeds {arguments.seed} to {arguments.seed + done - 1}; faults:")
    for name, number in sorted(carried_out.counts.items()):
        if name not in {"schedules", "events", "revocation", "write"}:
            print(f"  {number:9,}  {name}")
    for seed in sorted(carried_out.violations)[:MOST_SHOWN]:
        print(f"\nseed {seed}: {carried_out.violations[seed]}\n{replay(seed)}")
    return bool(carried_out.violations)


if __name__ == "__main__":
    sys.exit(main())
