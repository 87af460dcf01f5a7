"""`python -m trimtab_trainer.sweep.suggest`: the next points of a search, a pure function of what is known.

Reads requests from standard input, a line of JSON each, and writes the points to standard output, a line for each. It
runs in a process of its own: Optuna takes 80 MB, and whoever asks goes on without them.

Trials are handed to Optuna in the order of their points, and what it draws is seeded by the search's own seed and the
number of trials that are known: the same history gives the same points, whoever asks, whenever, and in whatever order
its results came.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any, Literal, TextIO

from ..contract.sweeps.settings import (
    AlgorithmType,
    Dimension,
    Direction,
    KnownTrial,
    Point,
    SuggestionRequest,
    TrialState,
    size_of,
)

DRAWN_FIRST = 6
"""Trials that TPE begins with by chance. Of 5, 6 and 10 the best on the functions of `make bench-sweep`."""
DRAWN_AGAIN = 64
"""Times that a point is drawn again that is known already, before the first free one is taken or none."""


_DIRECTIONS: Mapping[Direction, Literal["minimize", "maximize"]] = {
    Direction.MINIMIZE: "minimize",
    Direction.MAXIMIZE: "maximize",
}


def suggest(request: SuggestionRequest) -> list[Point]:
    """Return the next points, each one that is not known: fewer than asked for once a finite space has no more."""
    known = {each.point for each in request.trials}
    size = size_of(request.space)
    made: list[Point] = []
    trials = list(request.trials)
    while len(made) < request.count and len(known) < size:
        if request.algorithm is AlgorithmType.GRID:
            point = next(_free(request.space, known), None)
        else:
            point = _drawn(request, trials, known, finite=math.isfinite(size))
        if point is None:
            break
        made.append(point)
        known.add(point)
        trials.append(KnownTrial(point, TrialState.RUNNING))
    return made


def _drawn(request: SuggestionRequest, trials: list[KnownTrial], known: set[Point], *, finite: bool) -> Point | None:
    study = study_of(request, trials)
    for _ in range(DRAWN_AGAIN):
        asked = study.ask(distributions_of(request.space))
        point = tuple(each.rounded(asked.params[f"p{number}"]) for number, each in enumerate(request.space))
        if point not in known:
            return point
    return next(_free(request.space, known), None) if finite else None


def study_of(request: SuggestionRequest, trials: list[KnownTrial]) -> Any:
    """Return Optuna's study with trials in the order of their points."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = (request.seed * 1_000_003 + len(trials)) % (1 << 32)
    sampler: Any
    if request.algorithm is AlgorithmType.RANDOM:
        sampler = optuna.samplers.RandomSampler(seed=seed)
    else:
        trials = _supposed(trials)
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=DRAWN_FIRST)
    study = optuna.create_study(sampler=sampler, direction=_DIRECTIONS[request.direction])
    states = {
        TrialState.COMPLETE: optuna.trial.TrialState.COMPLETE,
        TrialState.RUNNING: optuna.trial.TrialState.RUNNING,
        # Optuna ranks what was pruned behind all that have a value: by the step it reached, then by the value there.
        # One that is bad was at none, and comes last.
        TrialState.PAUSED: optuna.trial.TrialState.PRUNED,
        TrialState.PRUNED: optuna.trial.TrialState.PRUNED,
        TrialState.BAD: optuna.trial.TrialState.PRUNED,
    }
    distributions = distributions_of(request.space)
    for each in sorted(trials, key=lambda trial: (trial.point, trial.state)):
        study.add_trial(
            optuna.trial.create_trial(
                params={f"p{n}": d.value(c) for n, (d, c) in enumerate(zip(request.space, each.point, strict=True))},
                distributions=distributions,
                state=states[each.state],
                value=each.value if each.state is TrialState.COMPLETE else None,
                intermediate_values={each.rung: each.value} if each.rung and each.value is not None else {},
            )
        )
    return study


def _supposed(trials: list[KnownTrial]) -> list[KnownTrial]:
    """Return trials with the mean of all values in the place of those that run: so points asked for together differ.

    The constant liar (Ginsbourger, Le Riche and Carraro 2010, "Kriging is well-suited to parallelize optimization",
    section 4) by the mean. Optuna's own supposes that they are bad, and leaves them out where it counts how many are
    good: of four at once it finds worse points by a third (`make bench-sweep`). It is left to Optuna's own where trials
    are stopped at rungs: those that have a value are the best ones there, and their mean is no middle.
    """
    values = [each.value for each in trials if each.state is TrialState.COMPLETE and each.value is not None]
    stopped = any(each.state in (TrialState.PAUSED, TrialState.PRUNED) for each in trials)
    if stopped or len(values) < DRAWN_FIRST:
        return trials
    supposed = fmean(values)
    return [
        KnownTrial(each.point, TrialState.COMPLETE, supposed) if each.state is TrialState.RUNNING else each
        for each in trials
    ]


def distributions_of(space: tuple[Dimension, ...]) -> dict[str, Any]:
    """Return the dimensions as Optuna's distributions, `p0`, `p1`, ..."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for number, each in enumerate(space):
        if each.values is not None:
            found[f"p{number}"] = CategoricalDistribution(list(range(len(each.values))))
        elif each.integer:
            found[f"p{number}"] = IntDistribution(int(each.low), int(each.high), log=each.log)
        else:
            found[f"p{number}"] = FloatDistribution(each.low, each.high, log=each.log)
    return found


def _free(space: tuple[Dimension, ...], known: set[Point]) -> Iterator[Point]:
    """Yield the points of a finite space that are not known, in order."""
    return (point for point in _points(space) if point not in known)


def _points(space: tuple[Dimension, ...]) -> Iterator[Point]:
    """Yield every point, one by one: a space of whole numbers may have more than any memory holds."""
    if not space:
        yield ()
        return
    for coordinate in _coordinates(space[0]):
        for rest in _points(space[1:]):
            yield (coordinate, *rest)


def _coordinates(dimension: Dimension) -> range:
    if dimension.values is not None:
        return range(len(dimension.values))
    return range(int(dimension.low), int(dimension.high) + 1)


def main(source: TextIO = sys.stdin, target: TextIO = sys.stdout) -> int:
    """Answer requests, each as soon as it is there, until there are no more."""
    for line in source:
        print(json.dumps({"points": suggest(SuggestionRequest.of(json.loads(line)))}), file=target, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
