"""`python -m trimtab_trainer.sweep.importance`: which parameters set good trials apart, a pure function of the trials.

Reads requests as those for the next points from standard input and writes shares to standard output, line by line, in a
process of its own for the same reason. PED-ANOVA (Watanabe et al., arXiv 2304.10255): the Pearson divergence of where
the best quarter lies from where all trials lie, of each parameter alone. Optuna's other evaluators draw random forests,
which take scikit-learn and a seed.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import TextIO

from ..contract.sweeps.record import SweepRecord
from ..contract.sweeps.settings import AlgorithmType, KnownTrial, SuggestionRequest, TrialState
from .axes import axis_of
from .suggest import study_of

BEST_SHARE = 0.25
"""Of trials that count as good. With Optuna's own tenth, of twenty trials two are, and their order is chance."""
LEAST_TRIALS = 12
"""Trials with a value. With eight, noise came first in two of eight searches of a learning rate that mattered most."""
DIGITS = 3


def importance(request: SuggestionRequest) -> dict[int, float]:
    """Return the share of each parameter by its position; nothing of too few trials, or where none can be told."""
    known = [each for each in request.trials if each.state is TrialState.COMPLETE and each.value is not None]
    varied = [n for n in range(len(request.space)) if len({each.point[n] for each in known}) > 1]
    if len(known) < LEAST_TRIALS or len(varied) < 2 or len({each.value for each in known}) < 2:
        return {}
    import optuna

    study = study_of(request, known)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
    names = [f"p{n}" for n in varied]
    found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=names)
    if not all(math.isfinite(share) for share in found.values()) or not any(found.values()):
        return {}
    return {n: round(float(found[f"p{n}"]), DIGITS) for n in varied}


def importance_of(record: SweepRecord) -> dict[str, float]:
    """Return the share of each parameter of a record, the largest first.

    Raises:
        ModuleNotFoundError: Optuna is not installed.
    """
    declared, axes = {each.name: each for each in record.parameters}, []
    whole = [each for each in record.trials if set(record.names) == set(each.parameters) and not each.pruned]
    for name in record.names:
        axes.append(axis_of(name, declared.get(name), [each.parameters[name] for each in whole]))
    request = SuggestionRequest(
        tuple(each.dimension for each in axes),
        AlgorithmType.TPE,
        0,
        record.objective.direction,
        tuple(
            KnownTrial(
                tuple(axis.coordinate(each.parameters[axis.name]) for axis in axes), TrialState.COMPLETE, each.value
            )
            for each in whole
            if each.value is not None
        ),
    )
    return named(importance(request), record.names)


def named(shares: Mapping[int, float], names: list[str]) -> dict[str, float]:
    """Return shares by the names of parameters, the largest first."""
    ordered = sorted(shares.items(), key=lambda each: (-each[1], each[0]))
    return {names[position]: share for position, share in ordered}


def main(source: TextIO = sys.stdin, target: TextIO = sys.stdout) -> int:
    """Answer requests, each as soon as it is there, until there are no more."""
    for line in source:
        shares = importance(SuggestionRequest.of(json.loads(line)))
        answer = {"importance": {str(position): share for position, share in shares.items()}}
        print(json.dumps(answer), file=target, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
