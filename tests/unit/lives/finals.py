"""Evaluations of a sweep's final, played: suspended, under way, or over with a verdict."""

from __future__ import annotations

from typing import Any

from trimtab_operator.runtime.kube import OWN, Body
from trimtab_trainer.contract.sweeps.settings import trial_id

from tests.unit.lives.faults import FaultyApi
from tests.unit.lives.trials import RATES, condition, is_over, trial_of

FINAL = {
    "evaluation": {
        "tasks": [{"name": "heldout", "type": "Perplexity", "dataset": {"split": "Test"}}],
        "metric": "heldout/perplexity",
        "thresholds": [{"metric": "heldout/perplexity", "maximum": 9, "confidence": 0.9}],
    }
}
PERPLEXITIES = (6.0, 5.0, 7.0, 8.0, 9.0, 10.0)
"""By rate. The best by the search would be the best here too, but it does not pass."""
NOT_PASSED = 1
RESOURCE = OWN["Evaluation"]
ORDER = (2, 0, 1, 3, 5, 4)
"""Of the rates by the search, the best is 0: perplexities that have it as well."""


class Finals:
    """Plays the Evaluations of an API server. `monotone`: they say what the search says, and all of them pass."""

    def __init__(self, api: FaultyApi, *, monotone: bool) -> None:
        self._api = api
        self._numbers = {trial_id({"training.learningRate": rate}): number for number, rate in enumerate(RATES)}
        self._monotone = monotone

    @property
    def all(self) -> list[Body]:
        return [body for place, body in self._api.objects.items() if place[0] == RESOURCE.plural]

    @property
    def live(self) -> list[Body]:
        return [each for each in self.all if not is_over(each)]

    def drop(self, evaluation: Body) -> None:
        self._api.drop(RESOURCE, evaluation["metadata"]["namespace"], evaluation["metadata"]["name"])

    def gets_on(self, evaluation: Body) -> None:
        """Say the next word of an Evaluation."""
        if evaluation["spec"].get("suspend"):
            self._tell(evaluation, conditions=[condition("Suspended")])
        elif not evaluation.get("status"):
            self._tell(evaluation, conditions=[condition("Evaluating")])
        else:
            number = self._numbers[trial_of(evaluation)]
            value = float(ORDER[number]) if self._monotone else PERPLEXITIES[number]
            passed = self._monotone or number != NOT_PASSED
            verdict = {**condition("Passed" if passed else "ThresholdNotMet", str(passed)), "type": "Passed"}
            figure = {"task": "heldout", "metric": "perplexity", "value": value, "count": 50}
            self._tell(evaluation, conditions=[condition("Completed", "True"), verdict], results=[figure])

    def _tell(self, evaluation: Body, **status: Any) -> None:
        self._api.put(RESOURCE, {**evaluation, "status": {**evaluation.get("status", {}), **status}})
