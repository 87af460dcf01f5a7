"""Jobs that lose their owner, or seem to be ours: what the real API server and garbage collector make of them."""

from __future__ import annotations

import asyncio

import pytest
from trimtab_operator.runtime.kube import JOBS, MERGE_PATCH, PODS, Body, Kube
from trimtab_trainer.contract import Stage

from tests.component.api_server import ApiServer
from tests.component.operator.conftest import Start, playing
from tests.component.operator.executor import Act
from tests.component.operator.finetunejobs import finetunejob, jobs_of, until, until_state
from tests.component.patience import Patience
from tests.resources import FINETUNEJOBS


@pytest.mark.parametrize("lost", ["owner", "labels", "owner and labels"])
async def test_a_job_that_lost_what_says_whose_it_is_is_not_run_beside_and_is_ours_again(
    kube: Kube, namespace: str, start: Start, lost: str
) -> None:
    ends = asyncio.Event()
    operator = await start()
    async with playing(
        kube, namespace, lambda stage, attempt: Act(until=ends if stage is Stage.TRAIN else None)
    ) as pods:
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        await until_state(kube, namespace, "demo", "Training")
        await operator.kill()
        before = await kube.get(JOBS, namespace, "demo-train-1")
        metadata: Body = {"ownerReferences": None} if "owner" in lost else {}
        if "labels" in lost:
            metadata["labels"] = dict.fromkeys(before["metadata"]["labels"])
        await kube.patch(JOBS, namespace, "demo-train-1", MERGE_PATCH, {"metadata": metadata})
        await start("two")
        after = await until(kube, namespace, "demo-train-1", is_ours, what="its owner and labels", resource=JOBS)
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert after["metadata"]["ownerReferences"] == before["metadata"]["ownerReferences"]
        ends.set()
        body = await until_state(kube, namespace, "demo", "Completed")
    assert [each["reason"] for each in body["status"]["attempts"]] == ["Completed", "Completed"]
    assert pods.pods == [("prepare", 0), ("train", 1)]
    assert set(await jobs_of(kube, namespace)) == {"demo-prepare-0", "demo-train-1"}


def is_ours(job: Body) -> bool:
    metadata = job["metadata"]
    labels = metadata.get("labels", {})
    return bool(metadata.get("ownerReferences")) and labels.get("app.kubernetes.io/managed-by") == "trimtab"


async def test_a_copy_of_a_job_is_neither_taken_for_ours_nor_touched_and_nothing_runs_beside_it(
    kube: Kube, namespace: str, start: Start
) -> None:
    """As a backup brings it back, or as a tenant makes it who hopes for a Job that the operator believes."""
    labels = {
        "app.kubernetes.io/managed-by": "trimtab",
        "trimtab.dev/finetunejob": "demo",
        "trimtab.dev/stage": "train",
        "trimtab.dev/attempt": "1",
    }
    container = {"name": "trainer", "image": "i"}
    template = {"metadata": {"labels": labels}, "spec": {"restartPolicy": "Never", "containers": [container]}}
    copy = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "demo-restored", "namespace": namespace, "labels": labels},
        "spec": {"suspend": True, "template": template},
    }
    made = await kube.create(JOBS, namespace, copy)
    await start()
    async with playing(kube, namespace):
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        body = await until_state(kube, namespace, "demo", "NameTaken")
        said = next(each["message"] for each in body["status"]["conditions"] if each["type"] == "Succeeded")
        assert said.startswith("Job demo-restored says by its labels that it works for this job")
        assert set(await jobs_of(kube, namespace)) == {"demo-restored"}
        there = await kube.get(JOBS, namespace, "demo-restored")
        assert (there["metadata"]["uid"], there["metadata"].get("ownerReferences")) == (made["metadata"]["uid"], None)
        await kube.delete(JOBS, namespace, "demo-restored", made["metadata"]["uid"])
        await until_state(kube, namespace, "demo", "Completed")


async def test_what_runs_on_after_its_object_was_deleted_without_it_is_waited_for_by_the_next_of_the_name(
    kube: Kube, namespace: str, start: Start, server: ApiServer
) -> None:
    ends = asyncio.Event()
    await start()

    def script(stage: Stage, attempt: int) -> Act:
        return Act(until=ends) if (stage, attempt) == (Stage.TRAIN, 1) else Act()

    async with playing(kube, namespace, script) as pods:
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        await until(kube, namespace, "demo", trains, what="a pod that trains")
        left = await kube.get(JOBS, namespace, "demo-train-1")
        path = f"/apis/trimtab.dev/v1alpha1/namespaces/{namespace}/finetunejobs/demo"
        assert server.request("DELETE", path, propagationPolicy="Orphan").accepted
        patience = Patience("the object is gone")
        while server.get(path).accepted:
            patience.spend(lambda: server.get(path).message)
            await asyncio.sleep(0.05)
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        body = await until_state(kube, namespace, "demo", "NameTaken")
        said = next(each["message"] for each in body["status"]["conditions"] if each["type"] == "Succeeded")
        assert said.startswith("Job demo-train-1 says by its labels that it works for this job")
        assert set(await jobs_of(kube, namespace)) == {"demo-prepare-0", "demo-train-1"}
        ends.set()
        body = await until_state(kube, namespace, "demo", "Completed")
    there = await kube.get(JOBS, namespace, "demo-train-1")
    assert (there["metadata"]["uid"], there["metadata"].get("ownerReferences")) == (left["metadata"]["uid"], None)
    assert pods.pods[2:] == [("prepare", 1), ("train", 2)]


def trains(body: Body) -> bool:
    attempts = body.get("status", {}).get("attempts", ())
    return bool(attempts) and attempts[-1]["stage"] == "train" and "startTime" in attempts[-1]


def has_begun(body: Body) -> bool:
    attempts = body.get("status", {}).get("attempts", ())
    return bool(attempts) and any("startTime" in each for each in attempts)


async def test_pods_that_were_left_behind_by_their_job_are_waited_for(
    kube: Kube, namespace: str, start: Start, server: ApiServer
) -> None:
    await start()
    async with playing(kube, namespace, lambda stage, attempt: None if attempt == 0 else Act()):
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        await until(kube, namespace, "demo", has_begun, what="a pod that runs")
        (pod,) = await kube.items(PODS, namespace, {})
        path = f"/apis/batch/v1/namespaces/{namespace}/jobs/demo-prepare-0"
        assert server.request("DELETE", path, propagationPolicy="Orphan").accepted
        body = await until_state(kube, namespace, "demo", "NameTaken")
        said = next(each["message"] for each in body["status"]["conditions"] if each["type"] == "Succeeded")
        assert said.startswith(f"pod {pod['metadata']['name']} runs on, though its Job demo-prepare-0 was deleted")
        assert await jobs_of(kube, namespace) == {}
        await kube.delete(PODS, namespace, pod["metadata"]["name"], pod["metadata"]["uid"])
        body = await until_state(kube, namespace, "demo", "Completed")
    assert [each["reason"] for each in body["status"]["attempts"]] == ["JobDeleted", "Completed", "Completed"]
