"""What has a higher priority takes the quota of a FineTuneJob that trains: that costs it time and nothing else."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest
from trimtab_operator.runtime.kube import JOBS, Kube
from trimtab_trainer.contract import Stage

from tests.component.api_server import ApiServer
from tests.component.operator.conftest import Start
from tests.component.operator.executor import Act
from tests.component.operator.finetunejobs import state_of, until_state
from tests.kueue.kubelet import CHECKPOINT, KILLED, Kubelet, on_a_node
from tests.kueue.queues import HIGH, LOW, queue_of, somebodys_job
from tests.kueue.scene import NOTHING, Scene, charged, seconds_between, seconds_of
from tests.resources import FINETUNEJOBS

PREEMPTIONS, TRAINS_SECONDS = 3, 2


@dataclass(frozen=True)
class Pace:
    """How a trainer that is told to ends, how long that takes, and whether it is admitted again before."""

    last_act: Act = CHECKPOINT
    checkpoint_seconds: float = 0.2
    gone_seconds: float = 0.0
    soon: bool = False


PACES = {
    "its pod is gone at once": Pace(),
    "its pod is seen to have failed while the Job is suspended": Pace(gone_seconds=3),
    "it takes too long and is killed": Pace(KILLED, gone_seconds=3),
    "it is admitted again while it writes its checkpoint": Pace(checkpoint_seconds=6, gone_seconds=1, soon=True),
}


@pytest.mark.parametrize("pace", PACES.values(), ids=PACES)
async def test_preemptions_cost_no_budget_and_no_time_that_did_not_pass(
    kube: Kube, namespace: str, server: ApiServer, start: Start, pace: Pace
) -> None:
    done = asyncio.Event()

    def script(stage: Stage, attempt: int) -> Act:
        return Act() if stage is Stage.PREPARE else Act(until=done)

    scene = Scene(kube, namespace)
    kubelet = Kubelet(
        kube,
        namespace,
        script,
        server=server,
        last_act=pace.last_act,
        checkpoint_seconds=pace.checkpoint_seconds,
        gone_seconds=pace.gone_seconds,
    )
    with queue_of(server, namespace):
        async with on_a_node(kubelet), scene.watched():
            operator = await start()
            await scene.queued(priority=LOW)
            await scene.until_trains()
            began = time.monotonic()
            for number in range(PREEMPTIONS):
                await asyncio.sleep(TRAINS_SECONDS)
                await kube.create(JOBS, namespace, somebodys_job(f"urgent-{number}", priority=HIGH))
                await scene.until_admitted(f"urgent-{number}")
                if not pace.soon:
                    assert charged(await scene.until_waiting("demo-train-")) == NOTHING
                await scene.delete_job(f"urgent-{number}")
                await kubelet.until_pods(number + 3)
                body = await scene.until_trains()
                assert charged(body) == NOTHING
            done.set()
            body = await until_state(kube, namespace, "demo", "Completed")
            passed = time.monotonic() - began
    assert charged(body) == NOTHING
    assert max(map(len, scene.together)) == 1, "two Jobs would write to one run"
    assert [stage for stage, _ in kubelet.pods] == ["prepare", *["train"] * (PREEMPTIONS + 1)]
    assert PREEMPTIONS * (TRAINS_SECONDS - 1) <= seconds_of(body, "train") <= passed + PREEMPTIONS + 1
    assert body["status"]["activeSeconds"] == seconds_of(body, "train") + seconds_of(body, "prepare")
    for attempt in body["status"]["attempts"]:
        assert attempt["activeSeconds"] <= seconds_between(attempt["startTime"], attempt["endTime"]) + 1
    assert not [line for line in operator.log_lines() if line["level"] == "error"]


async def test_a_more_urgent_finetunejob_goes_first_and_both_complete(
    kube: Kube, namespace: str, server: ApiServer, start: Start
) -> None:
    def script(stage: Stage, attempt: int) -> Act:
        return Act(seconds=3 if stage is Stage.TRAIN else 0)

    scene = Scene(kube, namespace)
    with queue_of(server, namespace):
        async with on_a_node(Kubelet(kube, namespace, script, server=server)), scene.watched():
            await start()
            await scene.queued("patient", priority=LOW)
            await scene.until_trains("patient")
            await scene.queued("urgent", priority=HIGH)
            urgent = await until_state(kube, namespace, "urgent", "Completed")
            assert state_of(await kube.get(FINETUNEJOBS, namespace, "patient")) != "Completed"
            patient = await until_state(kube, namespace, "patient", "Completed")
    assert charged(urgent) == charged(patient) == NOTHING
    assert max(map(len, scene.together)) == 1
