"""A node, and pods that end as they do on one: told to end, the trainer writes a checkpoint and exits, then it is gone.

Without a node the API server would forget a pod as soon as it is deleted, and nobody would see how it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from trimtab_operator.domain.views import ATTEMPT_LABEL, STAGE_LABEL
from trimtab_operator.runtime.kube import LEASES, NODES, ApiError, Body, Conflict, Kube, NotFound, Resource
from trimtab_trainer.contract import ExitCode, Reason, Stage

from tests.component.api_server import ApiServer
from tests.component.operator.executor import Act, Executor, ended, last_words, now, running
from tests.component.patience import Patience

BINDINGS = Resource("", "v1", "bindings", "Binding")
HEARTBEAT_SECONDS = 4
CHECKPOINT = Act(ExitCode.INTERRUPTED, Reason.INTERRUPTED, message="told to end, with a checkpoint")
KILLED = Act(137, Reason.BUG)
"""Its grace period was over before it had ended."""


@dataclass
class Kubelet(Executor):
    """Plays the pods of a namespace on a node that has the namespace's name.

    Attributes:
        server: for what the operator's client has no verb for.
        last_act: how a trainer ends that is told to.
        checkpoint_seconds: between SIGTERM and the end.
        gone_seconds: between the end and when the pod is gone; a kubelet takes this time to clean up.
        told: by a pod's uid, whether it was told to end.
    """

    server: ApiServer = field(kw_only=True)
    last_act: Act = CHECKPOINT
    checkpoint_seconds: float = 0.5
    gone_seconds: float = 0.0
    told: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))

    def notice(self, pod: Body) -> None:
        if "deletionTimestamp" in pod["metadata"]:
            self.told[pod["metadata"]["uid"]].set()

    async def play(self, pod: Body) -> None:
        labels, metadata = pod["metadata"]["labels"], pod["metadata"]
        stage, attempt = Stage(labels[STAGE_LABEL]), int(labels[ATTEMPT_LABEL])
        with contextlib.suppress(NotFound, Conflict):  # deleted before it was bound
            await self.bind(pod)
            self.pods.append((stage.value, attempt))
            started, address = now(), self.address_of(pod)
            await self.write(pod, running(pod, started, address))
            act = await self.end_of(self.act_of(pod, stage, attempt), self.told[metadata["uid"]])
            loss = await self.validation_loss(pod)
            words = last_words(stage, attempt, await self.run_uid(pod), act, validation_loss=loss)
            await self.write(pod, ended(pod, started, address, act.exit_code, self.says(words)))
            if self.told[metadata["uid"]].is_set():
                await asyncio.sleep(self.gone_seconds)
                path = f"/api/v1/namespaces/{self.namespace}/pods/{metadata['name']}"
                self.server.request("DELETE", path, {"gracePeriodSeconds": 0})

    async def until_pods(self, number: int) -> None:
        """Wait until so many pods have been started."""
        patience = Patience(f"{number} pods")
        while len(self.pods) < number:
            patience.spend(list(self.pods))
            await asyncio.sleep(self.every)

    async def bind(self, pod: Body) -> None:
        """Give the pod the node, once nothing gates it any more: Kueue does, until it has a place in the topology."""
        metadata = {"name": pod["metadata"]["name"], "namespace": self.namespace}
        target = {"apiVersion": "v1", "kind": "Node", "name": self.namespace}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
        while not self.told[pod["metadata"]["uid"]].is_set():
            try:
                await self.kube.create(BINDINGS, self.namespace, body)
                return
            except ApiError as error:
                if "schedulingGates" not in str(error):
                    raise
            await asyncio.sleep(self.every)

    async def end_of(self, act: Act | None, told: asyncio.Event) -> Act:
        """Return what the trainer ends with: what it does, or a checkpoint if it is told to end before."""
        to_end = asyncio.create_task(told.wait())
        by_itself = asyncio.create_task(_work(act))
        try:
            await asyncio.wait({to_end, by_itself}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            to_end.cancel()
            by_itself.cancel()
        if act is not None and not told.is_set():
            return act
        await asyncio.sleep(self.checkpoint_seconds)
        return self.last_act


async def _work(act: Act | None) -> None:
    if act is None:
        await asyncio.Event().wait()
        return
    await asyncio.sleep(act.seconds)
    if act.until is not None:
        await act.until.wait()


@asynccontextmanager
async def on_a_node(kubelet: Kubelet, labels: dict[str, str] | None = None) -> AsyncIterator[Kubelet]:
    """Play the pods of a namespace meanwhile, on a node with these labels."""
    name = kubelet.namespace
    node = await kubelet.kube.create(NODES, "", _node(name, labels or {}))
    beats, plays = asyncio.create_task(_beat(kubelet.kube, name)), asyncio.create_task(kubelet.run())
    try:
        yield kubelet
    finally:
        beats.cancel()
        plays.cancel()
        results = await asyncio.gather(beats, plays, return_exceptions=True)
        await kubelet.kube.delete(NODES, "", name, node["metadata"]["uid"])
        if failed := [result for result in results if not isinstance(result, asyncio.CancelledError)]:
            raise RuntimeError("the node was not played to the end") from failed[0]


def _node(name: str, labels: dict[str, str]) -> Body:
    room = {"cpu": "16", "memory": "64Gi", "pods": "110"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now()}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
        "status": {"capacity": room, "allocatable": room, "conditions": [ready]},
    }


async def _beat(kube: Kube, name: str) -> None:
    """Say now and then that the node is there: else its pods are evicted."""
    lease: Body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
    lease["spec"] = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": _micro_time()}
    await kube.create(LEASES, "kube-node-lease", lease)
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        change = {"spec": {"renewTime": _micro_time()}}
        await kube.patch(LEASES, "kube-node-lease", name, "application/merge-patch+json", change)


def _micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
