"""A FineTuneSweep's life, with the operator as a process, a real API server and the real Job controller."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Any

from trimtab_operator.domain.views import JOB_LABEL, STAGE_LABEL, SWEEP_LABEL
from trimtab_operator.runtime.kube import JOBS, MERGE_PATCH, Body, Kube, NotFound
from trimtab_trainer.contract import Stage

from tests.component.operator.conftest import Start
from tests.component.operator.executor import Executor
from tests.component.operator.finetunejobs import finetunejob, until, until_state
from tests.resources import FINETUNEJOBS, FINETUNESWEEPS
from tests.tasks import cancelled

BEST = 3e-4


@dataclass
class Judged(Executor):
    """Plays trainers whose loss is the lower the nearer the learning rate is to the best one."""

    async def validation_loss(self, pod: Body) -> float | None:
        if pod["metadata"]["labels"][STAGE_LABEL] != Stage.TRAIN:
            return None
        job = await self.kube.get(FINETUNEJOBS, self.namespace, pod["metadata"]["labels"][JOB_LABEL])
        return 1 + abs(math.log(job["spec"]["training"]["learningRate"] / BEST))


def sweep(namespace: str, **spec: Any) -> Body:
    trial = finetunejob("x", namespace)["spec"]
    trial["dataset"]["validation"] = {"fraction": 0.1}
    trial["template"] = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
    span = {"minimum": 1e-5, "maximum": 1e-2, "scale": "Log"}
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "FineTuneSweep",
        "metadata": {"name": "guide", "namespace": namespace},
        "spec": {
            "template": {"metadata": {"labels": {"app": "guide"}}, "spec": trial},
            "parameters": [{"name": "training.learningRate", "range": span}, {"name": "lora.rank", "values": [8, 16]}],
            "maxTrials": 5,
            "parallelTrials": 2,
            **spec,
        },
    }


async def trials_of(kube: Kube, namespace: str) -> list[Body]:
    return await kube.items(FINETUNEJOBS, namespace, {"labelSelector": f"{SWEEP_LABEL}=guide"})


async def test_it_searches_and_names_the_best_though_its_operator_is_killed(
    kube: Kube, namespace: str, start: Start
) -> None:
    operator = await start()
    executor = Judged(kube, namespace)
    playing = asyncio.create_task(executor.run())
    try:
        await kube.create(FINETUNESWEEPS, namespace, sweep(namespace))
        for begun in (1, 3):

            def has(body: Body, begun: int = begun) -> bool:
                return len(body.get("status", {}).get("trials", ())) >= begun

            await until(kube, namespace, "guide", has, what=f"{begun} trials", resource=FINETUNESWEEPS)
            await operator.kill()
            await operator.start()
            await operator.ready()
        body = await until_state(kube, namespace, "guide", "Completed", resource=FINETUNESWEEPS)
        jobs = await trials_of(kube, namespace)
    finally:
        await cancelled(playing)
    status = body["status"]
    assert {job["metadata"]["name"] for job in jobs} == {f"guide-{trial['id']}" for trial in status["trials"]}
    assert len(jobs) == len(status["trials"]) == 5
    assert {trial["state"] for trial in status["trials"]} == {"Complete"}
    best = min(status["trials"], key=lambda trial: trial["value"])
    assert status["best"]["id"] == best["id"]
    assert status["best"]["artifact"]["digest"].startswith("sha256:")
    assert all(job["metadata"]["labels"]["app"] == "guide" for job in jobs)
    assert status["acceleratorSeconds"] == sum(job["status"]["acceleratorSeconds"] for job in jobs)
    assert status["summary"]["trials"] == "5/0/5"
    reported = next(each for each in status["conditions"] if each["type"] == "Reported")
    assert (reported["status"], reported["reason"]) == ("True", "Written")
    assert status["reportURI"].endswith("/sweep.html")
    pages = [job["metadata"] for job in await kube.items(JOBS, namespace, {"labelSelector": f"{SWEEP_LABEL}=guide"})]
    assert [page["ownerReferences"][0]["kind"] for page in pages] == ["FineTuneSweep"], "one, whoever was killed"
    metrics = await operator.metrics()
    assert metrics['trimtab_finetunesweeps{state="Completed"}'] == 1
    assert not [line for line in operator.log_lines() if line["level"] == "error"]


async def test_it_is_suspended_and_goes_on_and_takes_its_trials_along_when_it_goes(
    kube: Kube, namespace: str, start: Start
) -> None:
    await start()
    await kube.create(FINETUNESWEEPS, namespace, sweep(namespace))

    def begun(body: Body) -> bool:
        return bool(body.get("status", {}).get("trials"))

    await until(kube, namespace, "guide", begun, what="a trial", resource=FINETUNESWEEPS)
    while not await trials_of(kube, namespace):  # which is made in the round after the one that chose it
        await asyncio.sleep(0.05)
    await kube.patch(FINETUNESWEEPS, namespace, "guide", MERGE_PATCH, {"spec": {"suspend": True}})
    await until_state(kube, namespace, "guide", "Suspended", resource=FINETUNESWEEPS)
    (job,) = await trials_of(kube, namespace)
    name = job["metadata"]["name"]
    await until_state(kube, namespace, name, "Suspended")
    await kube.patch(FINETUNESWEEPS, namespace, "guide", MERGE_PATCH, {"spec": {"suspend": False}})
    await until_state(kube, namespace, name, "Preparing")
    uid = (await kube.get(FINETUNESWEEPS, namespace, "guide"))["metadata"]["uid"]
    await kube.delete(FINETUNESWEEPS, namespace, "guide", uid)
    while True:  # the garbage collector
        try:
            await kube.get(FINETUNEJOBS, namespace, name)
        except NotFound:
            return
        await asyncio.sleep(0.2)
