"""How well a sweep searches: published test functions in the place of training; the last line is JSON.

And what pruning saves (pruning.py), and many sweeps at once on a cluster (sweeps.py).

Every trial is chosen as the operator lets it be chosen, from what is known then. Regret is the distance of the
best value from the function's known minimum: a median over seeds, and its ratio the geometric mean over functions.

    make bench-sweep
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from statistics import geometric_mean, median

from trimtab_trainer.contract.sweeps.settings import (
    AlgorithmType,
    Dimension,
    Direction,
    KnownTrial,
    Point,
    SuggestionRequest,
    TrialState,
)
from trimtab_trainer.sweep.suggest import suggest

from tests.bench.sweep import pruning, sweeps

TRIALS = 40


@dataclass(frozen=True)
class Function:
    """A function to minimise over a box; `minimum` is its least value."""

    name: str
    space: tuple[Dimension, ...]
    value: Callable[[Point], float]
    minimum: float


def branin(point: Point) -> float:
    x, y = point
    bowl = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return bowl**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


def rosenbrock(point: Point) -> float:
    x, y = point
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


_A = ((3.0, 10.0, 30.0), (0.1, 10.0, 35.0), (3.0, 10.0, 30.0), (0.1, 10.0, 35.0))
_P = ((0.3689, 0.1170, 0.2673), (0.4699, 0.4387, 0.7470), (0.1091, 0.8732, 0.5547), (0.0381, 0.5743, 0.8828))
_C = (1.0, 1.2, 3.0, 3.2)


def hartmann(point: Point) -> float:
    return -sum(
        c * math.exp(-sum(a * (x - p) ** 2 for a, x, p in zip(row, point, where, strict=True)))
        for c, row, where in zip(_C, _A, _P, strict=True)
    )


FUNCTIONS = (
    Function("branin", (Dimension("x", low=-5, high=10), Dimension("y", low=0, high=15)), branin, 0.397887),
    Function("rosenbrock", (Dimension("x", low=-2, high=2), Dimension("y", low=-1, high=3)), rosenbrock, 0.0),
    Function("hartmann3", tuple(Dimension(name, low=0, high=1) for name in "xyz"), hartmann, -3.86278),
)
"""Surjanovic and Bingham, Virtual Library of Simulation Experiments, Simon Fraser University."""


@dataclass(frozen=True)
class Search:
    regret: float
    equal_points_running: int


def searched(function: Function, algorithm: AlgorithmType, seed: int, parallel: int) -> Search:
    """Search once; with several at a time all begin together and end in the order in which they were begun."""
    known: list[KnownTrial] = []
    running: list[Point] = []
    equal = 0
    while len(known) < TRIALS:
        under_way = tuple(KnownTrial(point, TrialState.RUNNING) for point in running)
        count = min(parallel - len(running), TRIALS - len(known) - len(running))
        request = SuggestionRequest(
            function.space, algorithm, seed, Direction.MINIMIZE, (*known, *under_way), max(0, count)
        )
        running += suggest(request) if count > 0 else []
        equal += len(running) - len(set(running))
        point = running.pop(0)
        known.append(KnownTrial(point, TrialState.COMPLETE, function.value(point)))
    best = min(each.value for each in known if each.value is not None)
    return Search(best - function.minimum, equal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--sweeps", type=int, default=5, help="sweeps at once on a cluster; 0: leave that out")
    parser.add_argument("--trials", type=int, default=100, help="of each of them")
    parser.add_argument("--instance", type=int, default=int(os.environ.get("TRIMTAB_BENCH_INSTANCE", "9")))
    arguments = parser.parse_args()
    found = {**regrets(arguments.seeds), **pruning.figures(arguments.seeds)}
    if arguments.sweeps:
        found |= sweeps.figures(arguments.instance, arguments.sweeps, arguments.trials)
    print(json.dumps(found))


def regrets(seeds: int) -> dict[str, float]:
    """Return how much worse the best value is than the function's minimum, as ratios."""
    against_random, against_serial, equal = [], [], 0
    print(f"{'function':12} {'TPE':>10} {'TPE, 4 at once':>15} {'Random':>10}   median regret of {seeds} seeds")
    for function in FUNCTIONS:
        serial, together, chance = (
            [searched(function, algorithm, seed, parallel) for seed in range(seeds)]
            for algorithm, parallel in ((AlgorithmType.TPE, 1), (AlgorithmType.TPE, 4), (AlgorithmType.RANDOM, 1))
        )
        regrets = [[each.regret for each in searches] for searches in (serial, together, chance)]
        print(
            f"{function.name:12} "
            + " ".join(f"{median(each):{w}.4f}" for each, w in zip(regrets, (10, 15, 10), strict=True))
        )
        against_random.append(median(regrets[0]) / median(regrets[2]))
        against_serial.append(median(regrets[1]) / median(regrets[0]))
        equal += sum(each.equal_points_running for each in together)
    return {
        "regret_ratio_tpe_random": round(geometric_mean(against_random), 3),
        "regret_ratio_parallel_serial": round(geometric_mean(against_serial), 3),
        "equal_points_running": equal,
    }


if __name__ == "__main__":
    main()
