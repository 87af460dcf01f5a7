"""From a search to requests: the winner of a sweep's final is followed, and none of the others ever is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from trimtab_operator.domain.views import EVALUATION_LABEL, JOB_LABEL, STAGE_LABEL, SWEEP_LABEL
from trimtab_operator.runtime.kube import Body
from trimtab_trainer.contract import EvaluationOutcome, TerminationMessage
from trimtab_trainer.contract.outcome import PACKED_OUTCOME_BYTES

from tests.component.operator.executor import Executor
from tests.component.operator.finetunejobs import finetunejob, until_state, verdict_of
from tests.component.rollout.scene import NAME, Scene
from tests.resources import EVALUATIONS, FINETUNEJOBS, FINETUNESWEEPS
from tests.serving.adapters import Published
from tests.tasks import cancelled
from tests.unit.domain.makers import ARTIFACT, OUTCOME

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIMIT = 9.0
FOUND = {1e-4: (1.0, 9.5), 2e-4: (1.1, 8.0), 3e-4: (2.0, 7.0)}
"""By learning rate: the loss on the validation rows, and the perplexity on rows that no trial has seen."""
LABELS = {"follow": "me"}


@dataclass
class Players(Executor):
    """Plays trainers that publish adapters which can be served, and Evaluations that find what is in FOUND."""

    adapters: dict[float, Published] = field(default_factory=dict)

    async def rate_of(self, job: str) -> float:
        body = await self.kube.get(FINETUNEJOBS, self.namespace, job)
        return float(body["spec"]["training"]["learningRate"])

    async def validation_loss(self, pod: Body) -> float | None:
        job = pod["metadata"]["labels"].get(JOB_LABEL)
        return FOUND[await self.rate_of(job)][0] if job is not None else None

    async def write(self, pod: Body, status: Body) -> None:
        """Put what this trial publishes, or finds, into the last words."""
        ended: Body = status["containerStatuses"][0]["state"].get("terminated", {})
        words = TerminationMessage.decode(ended.get("message", ""))
        if words is not None and (told := await self.told(pod["metadata"]["labels"])):
            ended["message"] = words.model_copy(update=told).encode()
        await super().write(pod, status)

    async def told(self, labels: Body) -> dict[str, Any]:
        if labels[STAGE_LABEL] == "train":
            adapter = self.adapters[await self.rate_of(labels[JOB_LABEL])]
            return {"artifact": ARTIFACT.model_copy(update={"uri": adapter.uri, "digest": adapter.digest})}
        if labels[STAGE_LABEL] == "evaluate":
            asked = await self.kube.get(EVALUATIONS, self.namespace, labels[EVALUATION_LABEL])
            value = FOUND[await self.rate_of(asked["spec"]["target"]["fineTuneJobName"])][1]
            return {"packed_outcome": outcome(value).pack(PACKED_OUTCOME_BYTES)}
        return {}


def outcome(value: float) -> EvaluationOutcome:
    good, bad = (0.0001, 0.9999) if value < LIMIT else (0.9999, 0.0001)
    document = OUTCOME.to_json()
    figures = {"task": "heldout", "metric": "perplexity", "value": value, "low": value - 0.1, "high": value + 0.1}
    check = {"threshold": 0, "bound": "maximum", "estimate": value, "pPass": good, "pFail": bad}
    return EvaluationOutcome.model_validate({**document, "results": [{**figures, "count": 500}], "checks": [check]})


def sweep(namespace: str, **spec: Any) -> Body:
    trial = finetunejob("x", namespace)["spec"]
    trial["dataset"] |= {"validation": {"fraction": 0.1}, "test": {"fraction": 0.1}}
    final = {
        "topTrials": 2,
        "evaluation": {
            "tasks": [{"name": "heldout", "type": "Perplexity", "dataset": {"split": "Test"}}],
            "metric": "heldout/perplexity",
            "thresholds": [{"metric": "heldout/perplexity", "maximum": LIMIT, "confidence": 0.95}],
        },
        "metadata": {"labels": LABELS},
    }
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "FineTuneSweep",
        "metadata": {"name": "search", "namespace": namespace},
        "spec": {
            "template": {"spec": trial},
            "parameters": [{"name": "training.learningRate", "values": list(FOUND)}],
            "algorithm": {"type": "Grid"},
            "parallelTrials": 3,
            "final": final,
            **spec,
        },
    }


@asynccontextmanager
async def played(scene: Scene, players: Players) -> AsyncIterator[None]:
    task = asyncio.create_task(players.run())
    try:
        yield
    finally:
        await cancelled(task)


async def test_the_winner_of_a_final_is_followed_and_no_other(scene: Scene) -> None:
    await scene.pods(2)
    adapters = {rate: scene.fleet.publish() for rate in FOUND}
    winner = adapters[2e-4]
    await scene.apply({"follow": {"selector": {"matchLabels": LABELS}}})
    await scene.until_state("NothingPassed")
    async with played(scene, Players(scene.kube, scene.namespace, adapters=adapters)):
        await scene.kube.create(FINETUNESWEEPS, scene.namespace, sweep(scene.namespace))
        await until_state(scene.kube, scene.namespace, "search", "Judging", resource=FINETUNESWEEPS)
        await scene.operator.kill()
        await scene.operator.start()
        await scene.operator.ready()
        body = await until_state(scene.kube, scene.namespace, "search", "Completed", resource=FINETUNESWEEPS)
        await scene.served(winner)
    status = body["status"]
    assert status["best"]["artifact"] == {"uri": winner.uri, "digest": winner.digest}
    assert status["best"]["parameters"] == {"training.learningRate": 2e-4}
    first, second = status["final"]
    assert (first["state"], first["reason"], first["value"]) == ("NotPassed", "ThresholdMissed", 9.5)
    assert (second["state"], second["reason"], second["value"], second["low"]) == ("Passed", "Passed", 8.0, 7.9)
    labelled = {"labelSelector": f"{SWEEP_LABEL}=search"}
    evaluations = {
        each["metadata"]["name"]: each for each in await scene.kube.items(EVALUATIONS, scene.namespace, labelled)
    }
    names = [f"search-{each['id']}-end" for each in status["final"]]
    assert sorted(evaluations) == sorted(["search", *names])
    assert verdict_of(evaluations["search"]) == ("True", "Passed")
    assert [name for name, each in evaluations.items() if "follow" in each["metadata"]["labels"]] == ["search"]
    assert evaluations["search"]["spec"] == evaluations[names[1]]["spec"]
    assert evaluations["search"]["spec"]["thresholds"][0]["confidence"] == pytest.approx(0.975)
    assert {name for pod in scene.all_pods for name in pod.ever_meant(NAME)} == {winner.name(NAME)}


async def test_with_folds_and_a_metric_of_evaluations_an_adapter_of_all_rows_wins(scene: Scene) -> None:
    tasks = [{"name": "heldout", "type": "Perplexity", "dataset": {"uri": "s3://datasets/questions/"}}]
    spec: dict[str, Any] = sweep(scene.namespace)["spec"]
    del spec["template"]["spec"]["dataset"]["validation"], spec["final"]
    spec |= {"folds": 2, "objective": {"evaluation": {"tasks": tasks, "metric": "heldout/perplexity"}}}
    adapters = {rate: scene.fleet.publish() for rate in FOUND}
    async with played(scene, Players(scene.kube, scene.namespace, adapters=adapters)):
        made = sweep(scene.namespace)
        await scene.kube.create(FINETUNESWEEPS, scene.namespace, {**made, "spec": spec})
        body = await until_state(scene.kube, scene.namespace, "search", "Completed", resource=FINETUNESWEEPS)
    status = body["status"]
    jobs = await scene.kube.items(FINETUNEJOBS, scene.namespace, {"labelSelector": f"{SWEEP_LABEL}=search"})
    folds = [f"search-{each['id']}-f{fold}" for each in status["trials"] for fold in (0, 1)]
    refit = f"search-{status['best']['id']}"
    assert sorted(each["metadata"]["name"] for each in jobs) == sorted([*folds, refit])
    judged = await scene.kube.items(EVALUATIONS, scene.namespace, {"labelSelector": f"{SWEEP_LABEL}=search"})
    assert sorted(each["metadata"]["name"] for each in judged) == sorted(folds)
    assert [each["value"] for each in status["trials"]] == [9.5, 8.0, 7.0]
    assert status["best"]["fineTuneJobName"] == refit
    assert status["best"]["artifact"]["digest"] == adapters[3e-4].digest
    assert status["metric"] == "heldout/perplexity"
