"""Kueue manages every Job of the cluster, also those that name no queue: nobody writes against it."""

from __future__ import annotations

import asyncio

from trimtab_operator.runtime.kube import JOBS, MERGE_PATCH, Kube

from tests.component.api_server import ApiServer
from tests.component.operator.conftest import Start
from tests.component.operator.finetunejobs import finetunejob, until_state
from tests.component.operator.process import OperatorProcess
from tests.kueue.kubelet import Kubelet, on_a_node
from tests.kueue.queues import QUEUE, TEMPLATE, queue_of
from tests.kueue.scene import NOTHING, Scene, charged, message_of
from tests.resources import FINETUNEJOBS

KUEUE = {"manageJobsWithoutQueueName": True}
QUIET_SECONDS = 8


async def writes_of(operator: OperatorProcess) -> float:
    """Return how often the operator has written anything but its Lease."""
    return sum(
        value
        for key, value in (await operator.metrics()).items()
        if key.startswith("trimtab_api_requests_total")
        and any(f'verb="{verb}"' in key for verb in ("create", "patch", "delete"))
        and 'resource="leases"' not in key
    )


async def resource_version(kube: Kube, namespace: str, job: str) -> str:
    return str((await kube.get(JOBS, namespace, job))["metadata"]["resourceVersion"])


async def test_a_job_that_names_no_queue_waits_without_a_write_until_it_is_given_one(
    kube: Kube, namespace: str, server: ApiServer, start: Start
) -> None:
    kubelet = Kubelet(kube, namespace, server=server)
    with queue_of(server, namespace):
        async with on_a_node(kubelet):
            operator = await start()
            await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace, template=TEMPLATE))
            body = await until_state(kube, namespace, "demo", "Queued")
            assert "a queue that manages Jobs without its label" in message_of(body)
            await asyncio.sleep(1)
            before, version = await writes_of(operator), await resource_version(kube, namespace, "demo-prepare-0")
            await asyncio.sleep(QUIET_SECONDS)
            assert await writes_of(operator) == before
            assert await resource_version(kube, namespace, "demo-prepare-0") == version
            change = {"metadata": {"labels": {QUEUE: "gpus"}}}
            await kube.patch(FINETUNEJOBS, namespace, "demo", MERGE_PATCH, change)
            body = await until_state(kube, namespace, "demo", "Completed")
    assert charged(body) == NOTHING
    assert kubelet.pods == [("prepare", 1), ("train", 2)]


async def test_a_job_that_is_let_go_on_by_hand_and_suspended_again_is_left_to_kueue(
    kube: Kube, namespace: str, server: ApiServer, start: Start
) -> None:
    scene = Scene(kube, namespace)
    async with on_a_node(Kubelet(kube, namespace, server=server)), scene.watched():
        operator = await start()
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace, template=TEMPLATE))
        await until_state(kube, namespace, "demo", "Queued")
        await kube.patch(FINETUNEJOBS, namespace, "demo", MERGE_PATCH, {"spec": {"suspend": True}})
        await until_state(kube, namespace, "demo", "Suspended")
        await kube.patch(FINETUNEJOBS, namespace, "demo", MERGE_PATCH, {"spec": {"suspend": False}})
        await until_state(kube, namespace, "demo", "Queued")
        await asyncio.sleep(2)
        before = await writes_of(operator)
        await asyncio.sleep(QUIET_SECONDS)
        assert await writes_of(operator) == before
        body = await until_state(kube, namespace, "demo", "Queued")
    assert charged(body) == NOTHING
    assert max(map(len, scene.together)) == 1
