"""FineTuneSweeps in rounds: how often their points are asked for, and who hears of a trial."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from trimtab_operator.domain.cluster import Key
from trimtab_operator.domain.views import SWEEP_LABEL
from trimtab_operator.runtime.kube import Body, Invalid, Resource
from trimtab_operator.runtime.rounds.suggesting import Suggesting
from trimtab_trainer.contract.sweeps.settings import Point, SuggestionRequest

from tests.component.operator.finetunejobs import finetunejob
from tests.component.operator.test_sweep import sweep
from tests.resources import FINETUNEJOBS, FINETUNESWEEPS
from tests.unit.domain.makers import sha
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


@pytest.mark.parametrize("how", ["writes over it", "refuses it"])
def test_a_trial_that_a_policy_keeps_suspended_keeps_no_other_from_being_made(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    now, tried = NOW, 0

    async def points(request: SuggestionRequest) -> tuple[Point, ...]:
        return tuple((1e-4 * (number + 1), 0.0) for number in range(request.count))

    monkeypatch.setattr(Suggesting, "points", staticmethod(points))
    operator = Rounds(lambda: now)
    store(operator, FINETUNESWEEPS, sweep(NAMESPACE))
    patch = operator.api.patch

    async def keeps(resource: Resource, namespace: str, name: str, content_type: str, wanted: Any, **more: Any) -> Body:
        nonlocal tried
        tried += resource is FINETUNEJOBS
        if resource is FINETUNEJOBS and how == "refuses it":
            raise Invalid(422, "Invalid", "a trial stays suspended")
        body = await patch(resource, namespace, name, content_type, wanted, **more)
        if resource is FINETUNEJOBS:
            body = operator.api.put(resource, {**body, "spec": {**body["spec"], "suspend": True}})
        return body

    def changed(resource: Resource, name: str, **parts: Body) -> None:
        body = operator.api.objects[resource.plural, NAMESPACE, name]
        body = {**body, **{part: {**body.get(part, {}), **values} for part, values in parts.items()}}
        operator.cache.owners[resource.kind].put(operator.api.put(resource, body))

    def settle() -> None:
        for _ in range(6):
            run(operator.round(KEY))

    def trials() -> list[str]:
        return [place[2] for place in operator.api.objects if place[0] == FINETUNEJOBS.plural]

    settle()
    (first,) = trials()
    changed(FINETUNESWEEPS, "guide", spec={"suspend": True})
    settle()
    dataset = {"digest": sha("a"), "rowsDigest": sha("b"), "rows": 9, "tokens": 99}
    changed(FINETUNEJOBS, first, status={"dataset": dataset})
    monkeypatch.setattr(operator.api, "patch", keeps)
    changed(FINETUNESWEEPS, "guide", spec={"suspend": False})
    settle()
    assert len(trials()) == 2, "the other one finds what the first has prepared"
    said = operator.api.objects["finetunesweeps", NAMESPACE, "guide"]["status"]["conditions"][0]
    assert said["reason"] == "TrialRefused"
    assert tried == 1
    for _ in range(900):
        now += timedelta(seconds=1)
        run(operator.round(KEY))
    assert 10 < tried < 30, "ever more seldom"


def test_a_trial_that_changes_is_news_for_its_sweep_and_not_for_the_other_trials() -> None:
    operator = Rounds(lambda: NOW)
    store(operator, FINETUNESWEEPS, sweep(NAMESPACE))
    for name in ("guide-1", "guide-2"):
        trial = finetunejob(name, NAMESPACE)
        trial["metadata"]["labels"] = {SWEEP_LABEL: "guide"}
        store(operator, FINETUNEJOBS, trial)
    assert operator.told == [KEY, KEY]
