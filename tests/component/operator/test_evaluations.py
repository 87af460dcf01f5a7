"""An Evaluation's life beside its FineTuneJob's, with the operator as a process and a real API server."""

from __future__ import annotations

import asyncio

import pytest
from trimtab_operator.runtime.kube import CONFIGMAPS, Body, Kube
from trimtab_trainer.contract import Reason, Stage

from tests.component.operator.conftest import Start, playing
from tests.component.operator.executor import Act
from tests.component.operator.finetunejobs import (
    evaluation,
    events_of,
    finetunejob,
    jobs_of,
    over,
    until,
    until_jobs,
    until_state,
    verdict_of,
)
from tests.resources import EVALUATIONS, FINETUNEJOBS
from tests.unit.domain.makers import ARTIFACT, OUTCOME, sha

NAMES = {"demo-prepare-0", "demo-train-1", "demo-eval-prepare-0", "demo-eval-1"}
ALONE: dict[str, object] = {
    "target": {"artifact": {"uri": ARTIFACT.uri, "digest": ARTIFACT.digest}},
    "baseModel": {"uri": "s3://models/base"},
    "output": {"uri": "s3://adapters/out"},
}


@pytest.mark.parametrize("order", [1, -1], ids=["FineTuneJob first", "Evaluation first"])
async def test_both_of_one_name_in_either_order(kube: Kube, namespace: str, start: Start, order: int) -> None:
    operator = await start()
    async with playing(kube, namespace) as executor:
        both = [(FINETUNEJOBS, finetunejob("demo", namespace)), (EVALUATIONS, evaluation("demo", namespace))]
        for resource, made in both[::order]:
            await kube.create(resource, namespace, made)
            await asyncio.sleep(0.5)
        body = await until_state(kube, namespace, "demo", "Completed", resource=EVALUATIONS)
    status = body["status"]
    assert verdict_of(body) == ("True", "Passed")
    assert status["reportURI"] == OUTCOME.report_uri
    assert status["summary"]["metric"] == "heldout/perplexity"
    assert status["resolved"]["output"] == {"uri": "s3://adapters/out", "secretName": "object-storage"}
    assert status["target"] == {"uri": ARTIFACT.uri, "digest": ARTIFACT.digest}
    assert set(await jobs_of(kube, namespace)) == NAMES
    assert sorted(executor.pods) == [("evaluate", 1), ("prepare", 0), ("prepare", 0), ("train", 1)]
    maps = await kube.items(CONFIGMAPS, namespace, {})
    assert [each["data"].keys() for each in maps if each["metadata"]["name"].startswith("demo-eval-run-")] == [
        {"run.json"}
    ]
    events = await events_of(kube, namespace, body, {"Preparing", "Evaluating", "Completed", "Passed"})
    assert {event["regarding"]["kind"] for event in events} == {"Evaluation"}
    metrics = await operator.metrics()
    assert metrics['trimtab_evaluations_total{verdict="Passed"}'] == 1
    assert metrics['trimtab_evaluation_states{state="Completed"}'] == 1
    assert metrics['trimtab_finetunejobs{state="Completed"}'] == 1
    assert metrics['trimtab_attempts_total{reason="Completed",stage="evaluate"}'] == 1
    assert not [line for line in operator.log_lines() if line["level"] in ("warning", "error")]


async def test_it_follows_the_failure_of_its_finetunejob(kube: Kube, namespace: str, start: Start) -> None:
    await start()
    async with playing(kube, namespace, lambda stage, attempt: Act(11, Reason.DATASET_EMPTY, message="no rows")):
        await kube.create(EVALUATIONS, namespace, evaluation("demo", namespace))
        waiting = await until_state(kube, namespace, "demo", "Pending", resource=EVALUATIONS)
        assert "FineTuneJobNotFound" in str(waiting["status"]["conditions"])
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        body = await until_state(kube, namespace, "demo", "FineTuneJobFailed", resource=EVALUATIONS)
    assert verdict_of(body) == ("False", "EvaluationFailed")
    assert set(await jobs_of(kube, namespace)) == {"demo-prepare-0"}


async def test_a_retry_works_when_the_finetunejob_is_gone(kube: Kube, namespace: str, start: Start) -> None:
    def script(stage: Stage, attempt: int) -> Act | None:
        return Act(13, Reason.STORAGE_FAILED, seconds=2) if (stage, attempt) == (Stage.EVALUATE, 1) else Act()

    await start()
    async with playing(kube, namespace, script):
        job = await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        await kube.create(EVALUATIONS, namespace, evaluation("demo", namespace))
        await until_state(kube, namespace, "demo", "Evaluating", resource=EVALUATIONS)
        await kube.delete(FINETUNEJOBS, namespace, "demo", job["metadata"]["uid"])
        body = await until(kube, namespace, "demo", over, what="the end", resource=EVALUATIONS)
    assert verdict_of(body) == ("True", "Passed")
    assert [attempt["jobName"] for attempt in body["status"]["attempts"]][-1] == "demo-eval-2"


async def test_without_a_finetunejob_and_with_a_missed_threshold(kube: Kube, namespace: str, start: Start) -> None:
    thresholds = [{"metric": "heldout/perplexity", "maximum": 9.0}]
    await start()
    async with playing(kube, namespace):
        body: Body = evaluation("demo", namespace, **ALONE, thresholds=thresholds)
        await kube.create(EVALUATIONS, namespace, body)
        found = await until_state(kube, namespace, "demo", "Completed", resource=EVALUATIONS)
    assert verdict_of(found) == ("False", "ThresholdMissed")
    (shown, *_) = found["status"]["results"]
    assert shown["failed"] == [{"bound": "maximum", "limit": 9, "estimate": 9.5, "reason": "ThresholdMissed"}]
    assert found["status"]["evaluationDigest"] == sha("f")


async def test_deleting_it_deletes_its_children_and_not_those_of_the_finetunejob(
    kube: Kube, namespace: str, start: Start
) -> None:
    await start()
    async with playing(kube, namespace):
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        await kube.create(EVALUATIONS, namespace, evaluation("demo", namespace))
        body = await until_state(kube, namespace, "demo", "Completed", resource=EVALUATIONS)
        await kube.delete(EVALUATIONS, namespace, "demo", body["metadata"]["uid"])
        await until_jobs(kube, namespace, {"demo-prepare-0", "demo-train-1"})
