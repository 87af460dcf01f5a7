"""An Evaluation's life beside its FineTuneJob's, with the operator as a process and a real API server."""

from __future__ import annotations

import asyncio

import pytest
from trimtab_operator.runtime.kube import CONFIGMAPS, MERGE_PATCH, Body, Kube, NotFound
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


async def test_a_finetunejob_without_any_time_after_its_end_is_deleted_when_it_is_read(
    kube: Kube, namespace: str, start: Start
) -> None:
    await start()
    async with playing(kube, namespace):
        await kube.create(EVALUATIONS, namespace, evaluation("demo", namespace, suspend=True))
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace, ttlSecondsAfterFinished=0))
        await until_state(kube, namespace, "demo", "Completed", resource=FINETUNEJOBS)
        await until_state(kube, namespace, "demo", "Suspended", resource=EVALUATIONS)
        held = await kube.get(FINETUNEJOBS, namespace, "demo")
        await kube.patch(EVALUATIONS, namespace, "demo", MERGE_PATCH, {"spec": {"suspend": False}})
        body = await until_state(kube, namespace, "demo", "Completed", resource=EVALUATIONS)
        with pytest.raises(NotFound):
            await until(kube, namespace, "demo", lambda body: False, what="its deletion")
    assert "deletionTimestamp" not in held["metadata"]
    assert verdict_of(body) == ("True", "Passed")


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


async def test_answers_are_judged_by_a_pod_without_accelerator_that_outlives_the_operator(
    kube: Kube, namespace: str, start: Start
) -> None:
    looking, judging = asyncio.Event(), asyncio.Event()

    def script(stage: Stage, attempt: int) -> Act | None:
        if stage is Stage.EVALUATE:
            return Act(answers=sha("9"))
        if (stage, attempt) == (Stage.JUDGE, 1):
            return Act(13, Reason.JUDGE_UNREACHABLE, until=looking)
        if (stage, attempt) == (Stage.JUDGE, 4):
            return Act(13, Reason.JUDGE_UNREACHABLE, until=judging)
        return Act()

    operator = await start()
    async with playing(kube, namespace, script) as executor:
        judge = {"endpoint": {"url": "http://vllm.judges:8000/v1", "model": "judge", "secretName": "judge-key"}}
        judged = {"instructions": "Prefer what is right."}
        tasks = [{"name": "judged", "type": "Judge", "dataset": {"uri": "s3://rows/a/"}, "judging": judged}]
        resources = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
        spec = {
            "judge": judge,
            "tasks": tasks,
            "thresholds": [],
            "template": resources,
            "baseline": {"baseModel": True},
            "retries": {"onFailure": 2},
        }
        await kube.create(EVALUATIONS, namespace, evaluation("demo", namespace, **ALONE | spec))
        looked = {"demo-eval-prepare-0", "demo-eval-judge-1"}
        await until_jobs(kube, namespace, looked)
        second = await start("two")
        await operator.kill()
        looking.set()
        await until_jobs(kube, namespace, {*looked, "demo-eval-judge-2", "demo-eval-3", "demo-eval-judge-4"})
        await start("three")
        await second.kill()
        judging.set()
        body = await until(kube, namespace, "demo", over, what="the end", resource=EVALUATIONS)
    assert body["status"]["judgeReady"] is True
    assert body["status"]["answersDigest"] == sha("9")
    assert [each["jobName"] for each in body["status"]["attempts"]] == [
        "demo-eval-prepare-0",
        "demo-eval-judge-1",
        "demo-eval-judge-2",
        "demo-eval-3",
        "demo-eval-judge-4",
        "demo-eval-judge-5",
    ]
    assert [stage for stage, _ in executor.pods].count("evaluate") == 1, "nothing is answered twice"
    jobs = await jobs_of(kube, namespace)
    limits = {
        name: job["spec"]["template"]["spec"]["containers"][0]["resources"].get("limits", {})
        for name, job in jobs.items()
    }
    assert {name for name, each in limits.items() if "nvidia.com/gpu" in each} == {"demo-eval-3"}


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
