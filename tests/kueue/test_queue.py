"""A FineTuneJob in a queue of a real Kueue: it waits, is admitted, and gives its quota back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import yaml
from trimtab_operator.runtime.kube import JOBS, MERGE_PATCH, Kube
from trimtab_trainer.contract import Stage

from tests.component.api_server import ApiServer
from tests.component.operator.conftest import Start
from tests.component.operator.executor import Act
from tests.component.operator.finetunejobs import finetunejob, jobs_of, until_state
from tests.kueue.installation import API
from tests.kueue.kubelet import Kubelet, on_a_node
from tests.kueue.queues import LOW, QUEUE, QUOTA, TEMPLATE, give, queue_of, somebodys_job
from tests.kueue.scene import NOTHING, Scene, charged
from tests.resources import FINETUNEJOBS

ROOT = Path(__file__).parents[2]


async def test_each_stage_waits_until_there_is_quota_for_it(
    kube: Kube, namespace: str, server: ApiServer, start: Start
) -> None:
    scene, kubelet = Scene(kube, namespace), Kubelet(kube, namespace, server=server)
    with queue_of(server, namespace, cpu=0) as queue:
        async with on_a_node(kubelet):
            operator = await start()
            await scene.queued()
            await scene.until_waiting("demo-prepare-0")
            give(server, queue, 1)
            await scene.until_waiting("demo-train-1")
            assert kubelet.pods == [("prepare", 0)]
            give(server, queue, QUOTA)
            body = await until_state(kube, namespace, "demo", "Completed")
    attempts = [(a["stage"], a["number"], a["reason"]) for a in body["status"]["attempts"]]
    assert attempts == [("prepare", 0, "Completed"), ("train", 1, "Completed")]
    assert charged(body) == NOTHING
    jobs = await jobs_of(kube, namespace)
    assert {name: job["metadata"]["labels"][QUEUE] for name, job in jobs.items()} == {
        "demo-prepare-0": "gpus",
        "demo-train-1": "gpus",
    }
    assert not [line for line in operator.log_lines() if line["level"] in ("warning", "error")]


async def test_a_default_queue_that_only_the_job_is_told_of_admits_it(
    kube: Kube, namespace: str, server: ApiServer, start: Start
) -> None:
    """A LocalQueue called default: Kueue's webhook writes its name on the Job, and suspends it."""
    scene, kubelet = Scene(kube, namespace), Kubelet(kube, namespace, server=server)
    with queue_of(server, namespace, name="default", cpu=0) as queue:
        async with on_a_node(kubelet):
            await start()
            await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace, template=TEMPLATE))
            body = await scene.until_waiting("waiting for queue default to admit Job demo-prepare-0")
            assert QUEUE not in body["metadata"].get("labels", {})
            give(server, queue, QUOTA)
            body = await until_state(kube, namespace, "demo", "Completed")
    assert kubelet.pods == [("prepare", 0), ("train", 1)]
    assert charged(body) == NOTHING


async def test_the_sample_s_queue_admits_the_sample_s_job_as_the_chart_installs_it(
    kube: Kube, namespace: str, server: ApiServer, start: Start
) -> None:
    values = yaml.safe_load((ROOT / "charts/trimtab/values.yaml").read_text())
    resources = {
        f"TRIMTAB_{stage}_RESOURCES": json.dumps(values[section]["resources"])
        for stage, section in (("PREPARE", "prepare"), ("TRAIN", "trainer"))
    }
    sample = {body["kind"]: body for body in yaml.safe_load_all((ROOT / "deploy/samples/kueue.yaml").read_text())}
    job, local = sample["FineTuneJob"], sample["LocalQueue"]
    job["metadata"]["namespace"] = local["metadata"]["namespace"] = namespace
    paths = {
        f"/apis/{API}/resourceflavors": sample["ResourceFlavor"],
        f"/apis/{API}/clusterqueues": sample["ClusterQueue"],
        f"/apis/{API}/namespaces/{namespace}/localqueues": local,
    }
    for path, body in paths.items():
        answer = server.apply(f"{path}/{body['metadata']['name']}", body)
        assert answer.accepted, answer.message
    async with on_a_node(Kubelet(kube, namespace, server=server)):
        await start(**resources)
        await kube.create(FINETUNEJOBS, namespace, job)
        await until_state(kube, namespace, job["metadata"]["name"], "Completed")
    workloads = server.get(f"/apis/{API}/namespaces/{namespace}/workloads").body["items"]
    admitted = [each["status"]["admission"]["clusterQueue"] for each in workloads]
    assert admitted == [sample["ClusterQueue"]["metadata"]["name"]] * 2


async def test_suspending_gives_the_quota_to_the_next_in_line_and_resuming_stands_in_line_again(
    kube: Kube, namespace: str, server: ApiServer, start: Start
) -> None:
    done = asyncio.Event()

    def script(stage: Stage, attempt: int) -> Act:
        return Act() if stage is Stage.PREPARE else Act(until=done)

    scene = Scene(kube, namespace)
    with queue_of(server, namespace):
        async with on_a_node(Kubelet(kube, namespace, script, server=server)), scene.watched():
            await start()
            await scene.queued()
            await scene.until_trains()
            await kube.create(JOBS, namespace, somebodys_job("next", priority=LOW))
            await kube.patch(FINETUNEJOBS, namespace, "demo", MERGE_PATCH, {"spec": {"suspend": True}})
            await scene.until_admitted("next")
            body = await until_state(kube, namespace, "demo", "Suspended")
            assert "demo-train-1" not in await jobs_of(kube, namespace)
            assert (body["status"]["attempts"][-1]["reason"], charged(body)) == ("Suspended", NOTHING)
            await kube.patch(FINETUNEJOBS, namespace, "demo", MERGE_PATCH, {"spec": {"suspend": False}})
            await scene.until_waiting("demo-train-2")
            await scene.delete_job("next")
            await scene.until_trains()
            done.set()
            body = await until_state(kube, namespace, "demo", "Completed")
    assert charged(body) == NOTHING
    assert max(map(len, scene.together)) == 1


async def test_the_pods_of_two_nodes_are_admitted_together_or_not_at_all(
    kube: Kube, namespace: str, server: ApiServer, start: Start
) -> None:
    """Though a policy of the platform's says that Jobs may begin with some of their pods."""
    kubelet = Kubelet(kube, namespace, server=server)
    with queue_of(server, namespace, cpu=QUOTA) as queue:  # room for one trainer
        async with on_a_node(kubelet):
            await start(
                TRIMTAB_WORK_PODS=json.dumps({"annotations": {"kueue.x-k8s.io/job-min-parallelism": "1"}}),
            )
            body = finetunejob("demo", namespace, {QUEUE: "gpus"}, template=TEMPLATE, nodes=2)
            await kube.create(FINETUNEJOBS, namespace, body)
            await Scene(kube, namespace).until_waiting("demo-train-1")
            assert kubelet.pods == [("prepare", 0)]
            give(server, queue, 2 * QUOTA)
            body = await until_state(kube, namespace, "demo", "Completed")
    assert kubelet.pods == [("prepare", 0), ("train", 1), ("train", 1)]
    assert charged(body) == NOTHING
    assert (await jobs_of(kube, namespace))["demo-train-1"]["spec"]["parallelism"] == 2
