"""What befalls a job, each played as a scene: a tenant of its own, and its job until it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from deploy.demo.api import Body
from deploy.demo.installation import ROOT, Installation
from tests.e2e.tenants import Tenant, checkpoint

PATIENT = [
    {"key": f"node.kubernetes.io/{trouble}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    for trouble in ("not-ready", "unreachable")
]
IMPATIENT = [{**toleration, "tolerationSeconds": 1} for toleration in PATIENT]

STEPS = 120
SIDE_BY_SIDE = 3
SAMPLE = ROOT / "deploy/samples/networkpolicy.yaml"

Scene = Callable[[Tenant], Body]
Played = Mapping[str, "Future[tuple[Tenant, Body]]"]


def undisturbed(tenant: Tenant) -> Body:
    tenant.apply(tenant.job("undisturbed", steps=STEPS))
    return tenant.wait_end("undisturbed")


def struck(name: str, strike: Callable[[Tenant, Body], None], step: int = 0) -> Scene:
    """Return the scene of a pod that is struck as soon as it runs, or when it has told of a step."""

    def play(tenant: Tenant) -> Body:
        tenant.apply(tenant.job(name, steps=STEPS))
        if step:
            tenant.wait_step(name, step)
        strike(tenant, tenant.running_pod(name))
        return tenant.wait_end(name)

    return play


def node_lost(name: str, node_deleted: bool) -> Scene:
    """Return the scene of a pod on a node that loses its power, and whose Node object stays or is deleted."""

    def play(tenant: Tenant) -> Body:
        node = f"ghost-of-{name}"
        template = {
            "affinity": prefers(node),
            "tolerations": [{"key": node, "operator": "Exists", "effect": "NoSchedule"}, *IMPATIENT],
            "terminationGracePeriodSeconds": 5,
        }
        tenant.apply(tenant.job(name, steps=STEPS, template=template))
        tenant.wait_step(name, 30)
        ghost = Ghost(tenant.installation, node)
        try:
            tenant.evict(tenant.running_pod(name))
            pod = tenant.until(name, f"a pod on {node}", lambda: pod_on(tenant, name, node))
            ghost.runs(tenant, pod)
            tenant.wait(name, "the second attempt", lambda b: len(b["status"]["attempts"]) == 3)
            ghost.loses_power()
            tenant.until(name, "the eviction of what ran there", lambda: being_deleted(tenant, name, node))
            if node_deleted:
                ghost.remove()
            return tenant.wait_end(name)
        finally:
            ghost.remove()
            if stuck := pod_on(tenant, name, node):
                tenant.installation.api.delete("Pod", stuck["metadata"]["name"], tenant.namespace, grace_seconds=0)

    return play


def paused(tenant: Tenant) -> Body:
    """Play a job that is suspended while it trains, and resumed when its pod is gone."""
    tenant.apply(tenant.job("paused", steps=STEPS))
    tenant.wait_step("paused", 5)
    tenant.patch("paused", suspend=True)
    tenant.wait_reason("paused", "Suspended")
    tenant.wait_gone("paused", "Pod", **{"trimtab.dev/stage": "train"})
    stopped = checkpoint(tenant.get("paused"))
    tenant.patch("paused", suspend=False)
    body = tenant.wait_end("paused")
    assert body["status"]["attempts"][-1]["startStep"] >= stopped >= 5
    return body


def sealed(tenant: Tenant) -> Body:
    """Play a job in a namespace that denies everything but what the samples allow."""
    tenant.apply(*tenant.policies(SAMPLE.read_text()))
    tenant.apply(tenant.job("sealed", steps=60))
    tenant.wait("sealed", "progress", lambda body: 0 < body.get("status", {}).get("progress", {}).get("step", 0) < 60)
    return tenant.wait_end("sealed")


SCENES: dict[str, Scene] = {
    "undisturbed": undisturbed,
    "lost": node_lost("lost", node_deleted=False),
    "deleted": node_lost("deleted", node_deleted=True),
    "early": struck("early", Tenant.kill),
    "late": struck("late", Tenant.kill, STEPS - 40),
    "evicted": struck("evicted", Tenant.evict, 30),
    "paused": paused,
    "sealed": sealed,
}
LOCAL_ONLY = ("lost", "deleted")


def prefers(node: str) -> Body:
    """Return the affinity of a pod that goes to a node as soon as it is there."""
    preference = {"matchExpressions": [{"key": node, "operator": "Exists"}]}
    term = {"weight": 100, "preference": preference}
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}}


class Ghost:
    """A Node object without a kubelet: what is bound to it stays there, as on a node that lost its power."""

    def __init__(self, installation: Installation, name: str) -> None:
        self.installation = installation
        self.name = name
        resources = {"cpu": "16", "memory": "64Gi", "pods": "10", "nvidia.com/gpu": "8"}
        self.installation.api.apply(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": name, "labels": {name: "true"}},
                # the pods of other scenes must not come here
                "spec": {"taints": [{"key": name, "effect": "NoSchedule"}]},
            }
        )
        self.beating = True
        self.status = {"capacity": resources, "allocatable": resources}
        self.thread = threading.Thread(target=self._beat, daemon=True)
        self.thread.start()

    def _beat(self) -> None:
        while self.beating:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            ready = {
                "type": "Ready",
                "status": "True",
                "reason": "KubeletReady",
                "message": "ready",
                "lastHeartbeatTime": now,
                "lastTransitionTime": now,
            }
            patch = {"status": {**self.status, "conditions": [ready]}}
            self.installation.api.patch("Node", self.name, "", patch, how="strategic", sub="status")
            time.sleep(2)

    def runs(self, tenant: Tenant, pod: Body) -> None:
        """Say that a pod runs, as its kubelet would have."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        image = pod["spec"]["containers"][0]["image"]
        container = {
            "name": "trainer",
            "image": image,
            "imageID": image,
            "ready": True,
            "restartCount": 0,
            "started": True,
            "state": {"running": {"startedAt": now}},
        }
        patch = {"status": {"phase": "Running", "startTime": now, "containerStatuses": [container]}}
        api, name = self.installation.api, pod["metadata"]["name"]
        api.patch("Pod", name, tenant.namespace, patch, how="strategic", sub="status")

    def loses_power(self) -> None:
        self.beating = False
        self.thread.join()

    def remove(self) -> None:
        self.loses_power()
        self.installation.api.delete("Node", self.name)


def pod_on(tenant: Tenant, name: str, node: str) -> Body | None:
    """Return the pod of a job that is bound to a node, the last that was heard of."""
    pods = tenant.mirror.objects("Pod", tenant.labels(name))
    return next((pod for pod in pods if pod["spec"].get("nodeName") == node), None)


def being_deleted(tenant: Tenant, name: str, node: str) -> bool:
    return "deletionTimestamp" in (pod_on(tenant, name, node) or {"metadata": {}})["metadata"]
