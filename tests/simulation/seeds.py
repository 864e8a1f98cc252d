"""Look for the seeds that notice each broken rule: `python -m simulation.seeds`, in `tests`, prints `noticed.py`.

Seeds show something else as soon as the replica or the simulation draws another random number.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor

from simulation.fleet import run
from simulation.judge import Violation
from simulation.mutants import MUTANTS, PROVOKED_BY, broken

ENOUGH = 3
MOST = 6000


def find(name: str) -> list[int]:
    """Return the first seeds that notice it."""
    found: list[int] = []
    with broken(name):
        for seed in range(MOST):
            try:
                run(seed, PROVOKED_BY.get(name, ()))
            except Violation:
                found.append(seed)
                if len(found) == ENOUGH:
                    break
    return found


def main() -> None:
    """Print a module that holds them."""
    names = sorted(MUTANTS)
    print('"""Seeds whose schedules notice a broken rule; written by `simulation.seeds`."""\n')  # noqa: T201
    print("from __future__ import annotations\n\nNOTICED_BY: dict[str, tuple[int, ...]] = {")  # noqa: T201
    with ProcessPoolExecutor(2) as pool:
        for name, found in zip(names, pool.map(find, names), strict=True):
            print(f'    "{name}": {tuple(found)},', flush=True)  # noqa: T201
            print(name, found, file=sys.stderr)  # noqa: T201
    print("}")  # noqa: T201


if __name__ == "__main__":
    main()
