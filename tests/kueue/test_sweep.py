"""A FineTuneSweep in a queue of a real Kueue: its trials stand in line, and what is more urgent takes their place."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from trimtab_operator.runtime.kube import JOBS, MERGE_PATCH, Body, Kube
from trimtab_trainer.contract import Stage

from tests.component.api_server import ApiServer
from tests.component.operator.conftest import Start
from tests.component.operator.executor import Act
from tests.component.operator.finetunejobs import jobs_of, state_of, until_state
from tests.component.operator.test_sweep import Judged, sweep, trials_of
from tests.component.patience import Patience
from tests.kueue.kubelet import Kubelet, on_a_node
from tests.kueue.queues import GPU, HIGH, LOW, PREPARE, PRIORITY, QUEUE, TRAINER, queue_of, somebodys_job
from tests.kueue.scene import NOTHING, Scene, charged, message_of, seconds_of
from tests.resources import FINETUNESWEEPS

BUDGET, TRAINS_SECONDS = 11, 2


@dataclass
class Trials(Judged, Kubelet):
    """Plays trainers on a node, each with a loss of its settings."""


def queued(namespace: str, **spec: Any) -> Body:
    """Return a sweep whose trials stand in line, behind what is urgent; one of them fills the queue."""
    body = sweep(namespace, **spec)
    body["spec"]["template"]["metadata"] = {"labels": {QUEUE: "gpus", PRIORITY: LOW}}
    train = {**TRAINER, "limits": {**TRAINER["limits"], GPU: 1}}
    body["spec"]["template"]["spec"]["template"] = {"resources": train, "prepareResources": PREPARE}
    return body


async def until_one_trains(kube: Kube, namespace: str) -> tuple[Body, Body]:
    """Return the trial that trains and the other one, once both are there."""
    patience = Patience("two trials, one of which trains")
    while True:
        jobs = sorted(await trials_of(kube, namespace), key=lambda job: state_of(job) == "Training")
        if len(jobs) == 2 and state_of(jobs[1]) == "Training" and "startTime" in jobs[1]["status"]["attempts"][-1]:
            return jobs[1], jobs[0]
        patience.spend([state_of(job) for job in jobs])
        await asyncio.sleep(0.1)


async def sweep_of(kube: Kube, namespace: str) -> Body:
    return await kube.get(FINETUNESWEEPS, namespace, "guide")


async def test_trials_wait_for_quota_and_a_preempted_one_goes_on_without_charge_within_the_budget(
    kube: Kube, namespace: str, server: ApiServer, start: Start
) -> None:
    done = asyncio.Event()

    def script(stage: Stage, attempt: int) -> Act:
        return Act(seconds=TRAINS_SECONDS, until=done) if stage is Stage.TRAIN else Act()

    scene, kubelet = Scene(kube, namespace), Trials(kube, namespace, script, server=server)
    with queue_of(server, namespace):
        async with on_a_node(kubelet), scene.watched():
            operator = await start()
            budget = {"acceleratorSeconds": BUDGET}
            await kube.create(
                FINETUNESWEEPS, namespace, queued(namespace, maxTrials=20, parallelTrials=2, budget=budget)
            )
            preempted, second = await until_one_trains(kube, namespace)
            name, other = preempted["metadata"]["name"], second["metadata"]["name"]
            await scene.until_waiting(f"{other}-", other)
            await kube.create(JOBS, namespace, somebodys_job("urgent", priority=HIGH))
            await scene.until_admitted("urgent")
            assert charged(await scene.until_waiting(f"{name}-train", name)) == NOTHING
            assert state_of(await sweep_of(kube, namespace)) == "Searching"
            await scene.delete_job("urgent")
            done.set()
            body = await until_state(kube, namespace, "guide", "Completed", resource=FINETUNESWEEPS)
            trials = {job["metadata"]["name"]: job for job in await trials_of(kube, namespace)}
            jobs = await jobs_of(kube, namespace)
    status = body["status"]
    assert trials[name]["metadata"]["uid"] == preempted["metadata"]["uid"]
    assert {state_of(job) for job in trials.values()} == {"Completed"}
    assert {trial["state"] for trial in status["trials"]} == {"Complete"}
    assert all(charged(job) == NOTHING for job in trials.values())
    assert max(map(len, scene.together)) == 1, "two Jobs would write to one run"
    labels = [job["metadata"]["labels"] for job in jobs.values()]
    assert {(each[QUEUE], each[PRIORITY]) for each in labels} == {("gpus", LOW)}
    # Waiting in line costs nothing, and no trial was begun that would have exceeded the budget.
    costs = [each["acceleratorSeconds"] for each in status["trials"]]
    assert status["acceleratorSeconds"] == sum(costs) == sum(seconds_of(job, "train") for job in trials.values())
    assert "another trial would exceed budget.acceleratorSeconds" in message_of(body)
    assert 2 <= len(costs) < 20
    assert sum(sorted(costs)[:-2]) <= BUDGET < sum(costs) + sum(costs) / len(costs)
    reported = next(each for each in status["conditions"] if each["type"] == "Reported")
    assert reported["reason"] == "Written"
    assert not [line for line in operator.log_lines() if line["level"] == "error"]


async def test_a_suspended_sweep_gives_its_quota_to_the_next_in_line_and_stands_in_line_again(
    kube: Kube, namespace: str, server: ApiServer, start: Start
) -> None:
    done = asyncio.Event()

    def script(stage: Stage, attempt: int) -> Act:
        return Act(until=done) if stage is Stage.TRAIN else Act()

    scene, kubelet = Scene(kube, namespace), Trials(kube, namespace, script, server=server)
    with queue_of(server, namespace):
        async with on_a_node(kubelet), scene.watched():
            await start()
            await kube.create(FINETUNESWEEPS, namespace, queued(namespace, maxTrials=2, parallelTrials=2))
            training, _ = await until_one_trains(kube, namespace)
            name = training["metadata"]["name"]
            await kube.create(JOBS, namespace, somebodys_job("next", priority=LOW))
            await kube.patch(FINETUNESWEEPS, namespace, "guide", MERGE_PATCH, {"spec": {"suspend": True}})
            await scene.until_admitted("next")
            assert charged(await until_state(kube, namespace, name, "Suspended")) == NOTHING
            await kube.patch(FINETUNESWEEPS, namespace, "guide", MERGE_PATCH, {"spec": {"suspend": False}})
            await scene.until_waiting(f"{name}-train", name)
            done.set()
            await scene.delete_job("next")
            body = await until_state(kube, namespace, "guide", "Completed", resource=FINETUNESWEEPS)
            trials = await trials_of(kube, namespace)
    assert [each["state"] for each in body["status"]["trials"]] == ["Complete"] * 2
    assert [charged(job) for job in trials] == [NOTHING] * 2
    assert max(map(len, scene.together)) == 1
