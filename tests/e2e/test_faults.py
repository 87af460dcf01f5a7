"""Faults under a training pod: the job ends Completed, resumed, nothing prepared twice, the right budget charged.

Every disturbed run must publish the very bytes of an undisturbed one: the digests are compared.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.demo.installation import Installation
from tests.e2e.tenants import Body, Tenant, checkpoint, new_tenant, reason_of

pytestmark = pytest.mark.e2e

STEPS = 300


@pytest.fixture(scope="module")
def reference(installation: Installation) -> Iterator[str]:
    """The digest of an undisturbed run."""
    tenant = new_tenant(installation)
    tenant.apply(tenant.job("undisturbed", steps=STEPS))
    body = tenant.wait_end("undisturbed")
    assert reason_of(body) == "Completed", tenant.story("undisturbed")
    yield body["status"]["artifact"]["digest"]
    tenant.remove()


def check(tenant: Tenant, name: str, reference: str, *, failures: int, disruptions: int, resumed: bool) -> Body:
    body = tenant.wait_end(name, 420)
    status = body["status"]
    assert reason_of(body) == "Completed", tenant.story(name)
    assert (status["failures"], status["disruptions"]) == (failures, disruptions), tenant.story(name)
    assert status["artifact"]["digest"] == reference, "the adapter differs from that of an undisturbed run"
    assert [job for job in tenant.jobs(name) if "-prepare-" in job] == [f"{name}-prepare-0"]
    if resumed:
        assert status["attempts"][-1]["startStep"] > 0, tenant.story(name)
    return body


def test_killed_before_the_first_checkpoint(tenant: Tenant, reference: str) -> None:
    tenant.apply(tenant.job("early", steps=STEPS))
    tenant.kill(tenant.running_pod("early"))
    check(tenant, "early", reference, failures=1, disruptions=0, resumed=False)


def test_killed_while_training(tenant: Tenant, reference: str) -> None:
    tenant.apply(tenant.job("middle", steps=STEPS))
    tenant.wait_step("middle", 50)
    tenant.kill(tenant.running_pod("middle"))
    check(tenant, "middle", reference, failures=1, disruptions=0, resumed=True)


def test_killed_near_the_end(tenant: Tenant, reference: str) -> None:
    tenant.apply(tenant.job("late", steps=STEPS))
    tenant.wait_step("late", STEPS - 50)
    tenant.kill(tenant.running_pod("late"))
    check(tenant, "late", reference, failures=1, disruptions=0, resumed=True)


def test_evicted_through_the_api(tenant: Tenant, reference: str) -> None:
    tenant.apply(tenant.job("evicted", steps=STEPS))
    tenant.wait_step("evicted", 50)
    tenant.evict(tenant.running_pod("evicted"))
    body = check(tenant, "evicted", reference, failures=0, disruptions=1, resumed=True)
    assert body["status"]["lostAcceleratorSeconds"] <= 5


def local(installation: Installation) -> Any:
    if installation.cluster is None:
        pytest.skip("needs the local cluster: another one's kubelet and nodes are not ours to stop")
    return installation.cluster


PATIENT = [
    {"key": f"node.kubernetes.io/{trouble}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    for trouble in ("not-ready", "unreachable")
]


def test_a_kubelet_that_stops_for_a_minute_costs_nothing(
    installation: Installation, tenant: Tenant, reference: str
) -> None:
    cluster = local(installation)
    tenant.apply(tenant.job("frozen", steps=STEPS, template={"tolerations": PATIENT}))
    tenant.wait_step("frozen", 20)
    cluster.kubelet("stop")
    try:
        time.sleep(60)
        assert reason_of(tenant.get("frozen")) != "Retrying"
    finally:
        cluster.kubelet("continue")
    check(tenant, "frozen", reference, failures=0, disruptions=0, resumed=False)
    assert tenant.jobs("frozen") == ["frozen-prepare-0", "frozen-train-1"]


GHOST = "ghost"
PREFERS_GHOST = {
    "nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {
                "weight": 100,
                "preference": {"matchExpressions": [{"key": "ghost", "operator": "Exists"}]},
            }
        ]
    }
}
IMPATIENT = [{**toleration, "tolerationSeconds": 1} for toleration in PATIENT]


class Ghost:
    """A Node object without a kubelet: what is bound to it stays there, as on a node that lost its power."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        resources = {"cpu": "16", "memory": "64Gi", "pods": "10", "nvidia.com/gpu": "8"}
        self.installation.apply(
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": GHOST, "labels": {"ghost": "true"}}}
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
            self._patch("node", GHOST, patch)
            time.sleep(2)

    def _patch(self, kind: str, name: str, patch: dict[str, Any], *namespace: str) -> None:
        line = ["patch", kind, name, "--subresource=status", "--type=strategic", "-p", json.dumps(patch)]
        self.installation.kubectl(*namespace, *line)

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
        self._patch("pod", pod["metadata"]["name"], patch, "-n", tenant.namespace)

    def loses_power(self) -> None:
        self.beating = False
        self.thread.join()

    def remove(self) -> None:
        self.loses_power()
        self.installation.kubectl("delete", "node", GHOST, "--ignore-not-found", "--wait=false")


@pytest.mark.parametrize("node_deleted", [False, True], ids=["node-object-stays", "node-object-deleted"])
def test_a_node_lost_for_good(installation: Installation, tenant: Tenant, reference: str, node_deleted: bool) -> None:
    local(installation)
    template = {"affinity": PREFERS_GHOST, "tolerations": IMPATIENT, "terminationGracePeriodSeconds": 5}
    name = "deleted" if node_deleted else "lost"
    tenant.apply(tenant.job(name, steps=STEPS, template=template))
    tenant.wait_step(name, 50)
    ghost = Ghost(installation)
    try:
        tenant.evict(tenant.running_pod(name))
        pod = wait_for_pod_on(tenant, name, GHOST)
        ghost.runs(tenant, pod)
        tenant.wait(name, "the second attempt", lambda b: len(b["status"]["attempts"]) == 3)
        ghost.loses_power()
        deadline = time.monotonic() + 120
        while "deletionTimestamp" not in (tenant_pod(tenant, name, pod) or pod)["metadata"]:
            assert time.monotonic() < deadline, tenant.story(name)
            time.sleep(0.5)
        if node_deleted:
            ghost.remove()
        body = check(tenant, name, reference, failures=0, disruptions=2, resumed=True)
        assert body["status"]["attempts"][-1]["startStep"] >= 50
    finally:
        ghost.remove()
        tenant.kubectl("delete", "pods", "--field-selector", f"spec.nodeName={GHOST}", "--force", "--grace-period=0")


def tenant_pod(tenant: Tenant, name: str, pod: Body) -> Body | None:
    return next((p for p in tenant.pods(name) if p["metadata"]["uid"] == pod["metadata"]["uid"]), None)


def wait_for_pod_on(tenant: Tenant, name: str, node: str) -> Body:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        for pod in tenant.pods(name):
            if pod["spec"].get("nodeName") == node:
                return pod
        time.sleep(0.3)
    pytest.fail(f"no pod came to {node}\n{tenant.story(name)}\ncheckpoint {checkpoint(tenant.get(name))}")
