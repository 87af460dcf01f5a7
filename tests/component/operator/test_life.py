"""A FineTuneJob's life, with the operator as a process, a real API server and the real Job controller."""

from __future__ import annotations

import asyncio

import pytest
from trimtab_operator.runtime.kube import CONFIGMAPS, JOBS, MERGE_PATCH, Body, Kube, NotFound
from trimtab_trainer.base.decoders import shapes_of_config
from trimtab_trainer.contract import PROCESSES, LoraSettings, Reason, RunConfig, Stage, TrainLimits
from trimtab_trainer.estimating.dimensions import dimensions
from trimtab_trainer.estimating.fitting import warnings_of_limits

from tests.component.api_server import ApiServer
from tests.component.operator.conftest import Start, playing
from tests.component.operator.executor import Act, Executor
from tests.component.operator.finetunejobs import events_of, finetunejob, jobs_of, over, until, until_jobs, until_state
from tests.component.patience import Patience
from tests.resources import FINETUNEJOBS
from tests.trainer.test_estimate import LLAMA_70B, document
from tests.unit.domain.makers import ARTIFACT


async def test_it_prepares_trains_and_completes(kube: Kube, namespace: str, start: Start) -> None:
    operator = await start()
    async with playing(kube, namespace) as executor:
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        body = await until_state(kube, namespace, "demo", "Completed")
    status = body["status"]
    assert status["artifact"]["digest"] == ARTIFACT.digest
    assert [(a["stage"], a["reason"]) for a in status["attempts"]] == [("prepare", "Completed"), ("train", "Completed")]
    assert executor.pods == [("prepare", 0), ("train", 1)]
    assert set(await jobs_of(kube, namespace)) == {"demo-prepare-0", "demo-train-1"}
    maps = await kube.items(CONFIGMAPS, namespace, {})
    assert [each["data"].keys() for each in maps if each["metadata"]["name"].startswith("demo-run-")] == [{"run.json"}]
    await events_of(kube, namespace, body, {"Training", "Completed"})

    metrics = await operator.metrics()
    writes = {
        key: value
        for key, value in metrics.items()
        if key.startswith("trimtab_api_requests_total") and 'verb="get"' not in key and 'verb="list"' not in key
    }
    events_written = sum(value for key, value in writes.items() if 'resource="events"' in key)
    others = sum(v for k, v in writes.items() if 'resource="events"' not in k and 'resource="leases"' not in k)
    assert others <= 10
    assert events_written <= 6
    assert metrics['trimtab_finetunejobs{state="Completed"}'] == 1
    assert metrics['trimtab_attempts_total{reason="Completed",stage="train"}'] == 1
    assert not [line for line in operator.log_lines() if line["level"] in ("warning", "error")]


class Preparing(Executor):
    """Warns as `prepare` does of a pod that is to train a model of 70 billion weights."""

    def act_of(self, pod: Body, stage: Stage, attempt: int) -> Act | None:
        told = {each["name"]: each.get("value", "") for each in pod["spec"]["containers"][0]["env"]}
        limits = TrainLimits.told(told)
        assert (limits is None) == (stage is not Stage.PREPARE)
        if limits is None:
            return Act()
        dims = dimensions(shapes_of_config(LLAMA_70B), LLAMA_70B, LoraSettings())
        config = RunConfig.model_validate(document(maxSequenceLength=2048))
        return Act(warnings=tuple(warnings_of_limits(limits, dims, config, tokens=1000, longest=2048)))


async def test_a_pod_that_will_not_hold_the_run_is_a_condition_and_an_event(
    kube: Kube, namespace: str, start: Start
) -> None:
    await start()
    template = {
        "resources": {"limits": {"nvidia.com/gpu": 1, "memory": "64Gi"}},
        "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"},
    }
    async with playing(kube, namespace, kind=Preparing):
        await kube.create(FINETUNEJOBS, namespace, finetunejob("small", namespace, template=template))
        body = await until_state(kube, namespace, "small", "Completed")
    (warned,) = (each for each in body["status"]["conditions"] if each["type"] == "Warned")
    assert (warned["status"], warned["reason"]) == ("True", "PreparedWithWarnings")
    assert warned["message"].startswith("training takes about 4")
    assert "and NVIDIA-L4 has 21.9 GiB for it: take A100-80GB or a larger one" in warned["message"]
    await events_of(kube, namespace, body, {"PreparedWithWarnings"})


async def test_two_gpus_are_one_pod_of_two_processes_and_both_are_paid_for(
    kube: Kube, namespace: str, start: Start
) -> None:
    await start()
    template = {"resources": {"limits": {"nvidia.com/gpu": 2}}}
    async with playing(kube, namespace, lambda stage, attempt: Act(seconds=2.0)):
        await kube.create(FINETUNEJOBS, namespace, finetunejob("two", namespace, template=template))
        body = await until_state(kube, namespace, "two", "Completed")
    job = await kube.get(JOBS, namespace, "two-train-1")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert {"name": PROCESSES, "value": "2"} in container["env"]
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (1, 1)
    status = body["status"]
    assert status["acceleratorSeconds"] == 2 * status["attempts"][-1]["activeSeconds"] > 0


async def test_a_failed_attempt_is_followed_by_another_and_bad_data_is_not(
    kube: Kube, namespace: str, start: Start
) -> None:
    def script(stage: Stage, attempt: int) -> Act | None:
        if stage is Stage.PREPARE:
            return Act()
        return Act(1, Reason.BUG) if attempt == 1 else Act(11, Reason.DATASET_EMPTY, message="no rows")

    await start()
    async with playing(kube, namespace, script):
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        body = await until_state(kube, namespace, "demo", "DatasetEmpty")
    status = body["status"]
    assert status["failures"] >= 1
    assert [a["number"] for a in status["attempts"]] == [0, 1, 2]
    assert len(await jobs_of(kube, namespace)) == 3


async def test_suspend_stops_the_pod_and_resume_goes_on(kube: Kube, namespace: str, start: Start) -> None:
    held = asyncio.Event()

    def script(stage: Stage, attempt: int) -> Act | None:
        return Act() if stage is Stage.PREPARE or held.is_set() else None

    await start()
    async with playing(kube, namespace, script):
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        await until_state(kube, namespace, "demo", "Training")
        await kube.patch(FINETUNEJOBS, namespace, "demo", MERGE_PATCH, {"spec": {"suspend": True}})
        await until_state(kube, namespace, "demo", "Suspended")
        while not (await kube.get(JOBS, namespace, "demo-train-1"))["spec"].get("suspend"):
            await asyncio.sleep(0.1)  # the status says so first
        held.set()
        await kube.patch(FINETUNEJOBS, namespace, "demo", MERGE_PATCH, {"spec": {"suspend": False}})
        body = await until_state(kube, namespace, "demo", "Completed")
    assert body["status"].get("failures", 0) == 0
    assert body["status"].get("disruptions", 0) == 0


async def test_deleting_it_deletes_its_children(kube: Kube, namespace: str, start: Start) -> None:
    operator = await start()
    await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
    body = await until(
        kube, namespace, "demo", lambda body: bool(body.get("status", {}).get("attempts")), what="an attempt"
    )
    await kube.delete(FINETUNEJOBS, namespace, "demo", body["metadata"]["uid"])
    await until_jobs(kube, namespace, set())
    await asyncio.sleep(1)
    assert await jobs_of(kube, namespace) == {}
    assert not [line for line in operator.log_lines() if line["level"] == "error"]


async def test_what_runs_for_an_object_that_another_finalizer_holds_ends(
    kube: Kube, namespace: str, start: Start
) -> None:
    await start()
    body = finetunejob("demo", namespace)
    body["metadata"]["finalizers"] = ["backup.example.com/hold"]
    made = await kube.create(FINETUNEJOBS, namespace, body)
    async with playing(kube, namespace, lambda stage, attempt: None):
        await until_jobs(kube, namespace, {"demo-prepare-0"})
        await kube.delete(FINETUNEJOBS, namespace, "demo", made["metadata"]["uid"])
        await until_jobs(kube, namespace, set())
    assert (await kube.get(FINETUNEJOBS, namespace, "demo"))["metadata"]["deletionTimestamp"]
    free: Body = {"metadata": {"finalizers": None}}
    await kube.patch(FINETUNEJOBS, namespace, "demo", MERGE_PATCH, free)


async def test_what_was_deleted_after_its_time_is_not_missed(kube: Kube, namespace: str, start: Start) -> None:
    await start()
    async with playing(kube, namespace):
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace, ttlSecondsAfterFinished=1))
        with pytest.raises(NotFound):
            await until(kube, namespace, "demo", lambda body: False, what="its deletion")


async def test_a_name_that_is_taken_is_said_and_the_job_goes_on_when_it_is_free(
    kube: Kube, namespace: str, start: Start
) -> None:
    foreign = {
        "metadata": {"name": "demo-prepare-0", "namespace": namespace},
        "spec": {
            "suspend": True,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}},
        },
    }
    job = await kube.create(JOBS, namespace, {"apiVersion": "batch/v1", "kind": "Job", **foreign})
    await start()
    async with playing(kube, namespace):
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        await until_state(kube, namespace, "demo", "NameTaken")
        assert (await kube.get(JOBS, namespace, "demo-prepare-0"))["metadata"]["uid"] == job["metadata"]["uid"]
        await kube.delete(JOBS, namespace, "demo-prepare-0", job["metadata"]["uid"])
        await until_state(kube, namespace, "demo", "Completed")


async def test_what_a_tool_puts_back_again_and_again_is_run_once(
    server: ApiServer, kube: Kube, namespace: str, start: Start
) -> None:
    """What `selfHeal` of Argo CD does, to a job that fails and has a TTL."""
    failing = finetunejob("failing", namespace, retries={"onFailure": 0}, ttlSecondsAfterFinished=1)
    failing["metadata"]["annotations"] = {"argocd.argoproj.io/tracking-id": "tuning:trimtab.dev/FineTuneJob:x/failing"}
    path = f"/apis/trimtab.dev/v1alpha1/namespaces/{namespace}/finetunejobs/failing"

    def script(stage: Stage, attempt: int) -> Act:
        return Act(1, Reason.BUG) if stage is Stage.TRAIN else Act()

    await start()
    async with playing(kube, namespace, script) as executor:
        body = server.apply(path, failing).body
        uids, patience = {body["metadata"]["uid"]}, Patience("the end")
        while not over(body):
            patience.spend(body)
            await asyncio.sleep(0.5)
            body = server.apply(path, failing).body
            uids.add(body["metadata"]["uid"])
        for _ in range(6):
            await asyncio.sleep(1)
            uids.add(server.apply(path, failing).body["metadata"]["uid"])
    assert executor.pods == [("prepare", 0), ("train", 1)]
    assert len(uids) == 1
    message = body["status"]["conditions"][0]["message"]
    assert "not deleted after its ttlSecondsAfterFinished, as GitOps would bring it back" in message
