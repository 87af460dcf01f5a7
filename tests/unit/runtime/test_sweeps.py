"""FineTuneSweeps in rounds: how often their points are asked for, and who hears of a trial."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from trimtab_operator.domain.cluster import Key
from trimtab_operator.domain.views import SWEEP_LABEL
from trimtab_operator.runtime.kube import Body, Resource
from trimtab_operator.runtime.rounds.suggesting import Suggesting
from trimtab_trainer.contract.sweeps.settings import Point, SuggestionRequest

from tests.component.operator.finetunejobs import finetunejob
from tests.component.operator.test_sweep import sweep
from tests.resources import FINETUNEJOBS, FINETUNESWEEPS
from tests.unit.runtime.objects import NAMESPACE
from tests.unit.runtime.rounds import Rounds
from tests.unit.runtime.virtual_time import run

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
CREATED = "2026-01-05T11:00:00Z"
KEY = Key("FineTuneSweep", NAMESPACE, "guide")


def store(operator: Rounds, resource: Resource, body: Body) -> None:
    body["metadata"] |= {"uid": f"uid-{body['metadata']['name']}", "generation": 1, "creationTimestamp": CREATED}
    operator.cache.owners[resource.kind].put(operator.api.put(resource, body))


def test_all_free_places_are_asked_for_at_once_and_once_though_what_decides_is_read_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[SuggestionRequest] = []

    async def points(request: SuggestionRequest) -> tuple[Point, ...]:
        asked.append(request)
        return tuple((1e-4 * (number + 1), 0.0) for number in range(request.count))

    monkeypatch.setattr(Suggesting, "points", staticmethod(points))
    operator = Rounds(lambda: NOW)
    store(operator, FINETUNESWEEPS, sweep(NAMESPACE, parallelTrials=4))
    run(operator.round(KEY))
    trials = operator.api.objects["finetunesweeps", NAMESPACE, "guide"]["status"]["trials"]
    assert len(trials) == 4
    assert [each.count for each in asked] == [4]


def test_a_trial_that_changes_is_news_for_its_sweep_and_not_for_the_other_trials() -> None:
    operator = Rounds(lambda: NOW)
    store(operator, FINETUNESWEEPS, sweep(NAMESPACE))
    for name in ("guide-1", "guide-2"):
        trial = finetunejob(name, NAMESPACE)
        trial["metadata"]["labels"] = {SWEEP_LABEL: "guide"}
        store(operator, FINETUNEJOBS, trial)
    assert operator.told == [KEY, KEY]
