"""How many trials a search takes, by its algorithm: on the functions of `bench_sweep`, the last line is JSON.

For each number of trials the median regret over seeds, divided by that of ten random trials of the same function, and
of that the geometric mean over the functions. A grid has as many values of each parameter as the number allows, evenly
between the bounds: what a person would list.

    make bench-sweep-trials
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from statistics import geometric_mean, median

from trimtab_trainer.contract.sweeps.settings import AlgorithmType, Direction, KnownTrial, SuggestionRequest, TrialState
from trimtab_trainer.sweep.suggest import suggest

from tests.bench.sweep.bench_sweep import FUNCTIONS, Function

NUMBERS = (5, 10, 20, 40)


def regrets(function: Function, algorithm: AlgorithmType, seed: int) -> list[float]:
    """Return the distance of the best value from the minimum after each of `NUMBERS` trials, one after the other."""
    known: list[KnownTrial] = []
    while len(known) < max(NUMBERS):
        (point,) = suggest(SuggestionRequest(function.space, algorithm, seed, Direction.MINIMIZE, tuple(known)))
        known.append(KnownTrial(point, TrialState.COMPLETE, function.value(point)))
    values = [each.value for each in known if each.value is not None]
    return [min(values[:number]) - function.minimum for number in NUMBERS]


def of_grid(function: Function, number: int) -> float:
    """Return the regret of the largest grid of at most so many points."""
    places = int(number ** (1 / len(function.space)) + 1e-9)
    axes = [
        [each.low + (each.high - each.low) * (place + 0.5) / places for place in range(places)]
        for each in function.space
    ]
    return min(function.value(point) for point in itertools.product(*axes)) - function.minimum


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    seeds = range(parser.parse_args().seeds)
    found: dict[str, list[Sequence[float]]] = {"TPE": [], "Random": [], "Grid": []}
    for function in FUNCTIONS:
        for name in ("TPE", "Random"):
            every = [regrets(function, AlgorithmType(name), seed) for seed in seeds]
            found[name].append([median(each) for each in zip(*every, strict=True)])
        found["Grid"].append([of_grid(function, number) for number in NUMBERS])
    unit = [each[NUMBERS.index(10)] for each in found["Random"]]
    shown = {
        name: [
            round(geometric_mean(each[index] / one for each, one in zip(of, unit, strict=True)), 3)
            for index in range(len(NUMBERS))
        ]
        for name, of in found.items()
    }
    print(f"{'trials':8}" + "".join(f"{number:>8}" for number in NUMBERS) + f"   median of {len(seeds)} seeds")
    for name, row in shown.items():
        print(f"{name:8}" + "".join(f"{each:>8.3f}" for each in row))
    print(json.dumps({"trials": NUMBERS, "regret_to_ten_random_trials": shown}))


if __name__ == "__main__":
    main()
