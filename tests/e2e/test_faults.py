"""Faults under a training pod: the job ends Completed, resumed, nothing prepared twice, the right budget charged.

Every disturbed run must publish the very bytes of an undisturbed one: the digests are compared. The scenes are played
beside each other and beside the other tests, for most of the time pods start or a lost node is waited for; only a
kubelet that stops needs the node for itself.
"""

from __future__ import annotations

import time
from concurrent.futures import wait
from datetime import datetime
from typing import Any

import pytest
from trimtab_local.cluster import until

from deploy.demo.api import Body
from deploy.demo.installation import Installation
from tests.e2e.scenes import LOCAL_ONLY, PATIENT, STEPS, Played
from tests.e2e.tenants import ON_A_NODE, Tenant, reason_of

pytestmark = ON_A_NODE


def check(played: Played, name: str, *, failures: int, disruptions: int, resumed: bool) -> Body:
    tenant, body = played[name].result()
    check_end(tenant, body, reference(played), failures=failures, disruptions=disruptions)
    if resumed:
        assert body["status"]["attempts"][-1]["startStep"] > 0, tenant.story(name)
    return body


def check_end(tenant: Tenant, body: Body, reference: str, *, failures: int, disruptions: int) -> None:
    name, status = body["metadata"]["name"], body["status"]
    assert reason_of(body) == "Completed", tenant.story(name)
    assert (status["failures"], status["disruptions"]) == (failures, disruptions), tenant.story(name)
    assert status["artifact"]["digest"] == reference, "the adapter differs from that of an undisturbed run"
    assert [job for job in tenant.jobs(name) if "-prepare-" in job] == [f"{name}-prepare-0"]


def reference(played: Played) -> str:
    """Return the digest of the undisturbed run."""
    tenant, body = played["undisturbed"].result()
    assert reason_of(body) == "Completed", tenant.story("undisturbed")
    digest: str = body["status"]["artifact"]["digest"]
    return digest


def test_killed_before_the_first_checkpoint(played: Played) -> None:
    check(played, "early", failures=1, disruptions=0, resumed=False)


def test_killed_while_training_near_the_end(played: Played) -> None:
    check(played, "late", failures=1, disruptions=0, resumed=True)


def test_evicted_through_the_api(played: Played) -> None:
    body = check(played, "evicted", failures=0, disruptions=1, resumed=True)
    # One accelerator, and a checkpoint after SIGTERM: the pod's end is lost, not its work. All of it would be `worked`.
    worked, lost = seconds_of(body["status"]["attempts"][1]), body["status"]["lostAcceleratorSeconds"]
    print(f"evicted after {worked:.0f} s, {lost} s of them lost")
    assert lost < worked / 2


def seconds_of(attempt: Body) -> float:
    """Return how long the pod of an attempt ran."""
    start, end = (datetime.fromisoformat(attempt[key].replace("Z", "+00:00")) for key in ("startTime", "endTime"))
    return (end - start).total_seconds()


@pytest.mark.parametrize("name", LOCAL_ONLY, ids=["node-object-stays", "node-object-deleted"])
def test_a_node_lost_for_good(installation: Installation, played: Played, name: str) -> None:
    local(installation)
    body = check(played, name, failures=0, disruptions=2, resumed=True)
    assert body["status"]["attempts"][-1]["startStep"] >= 30


def local(installation: Installation) -> Any:
    if installation.cluster is None:
        pytest.skip("needs the local cluster: another one's kubelet and nodes are not ours to stop")
    return installation.cluster


def test_a_kubelet_that_stops_until_its_node_is_given_up_and_goes_on_costs_nothing(
    installation: Installation, tenant: Tenant, played: Played
) -> None:
    cluster = local(installation)
    wait(played.values())
    tenant.apply(tenant.job("frozen", steps=STEPS, template={"tolerations": PATIENT}))
    tenant.wait_step("frozen", 20)
    node = cluster.instance.node

    def lost() -> bool:
        body = installation.api.get("Node", node)
        assert body is not None
        return all(each["status"] != "True" for each in body["status"]["conditions"] if each["type"] == "Ready")

    cluster.kubelet("stop")
    try:
        until(lost, f"node {node} not ready", 120)
        time.sleep(15)  # three times `settings.nodeLossSeconds`
        assert reason_of(tenant.get("frozen")) != "Retrying"
    finally:
        cluster.kubelet("continue")
    body = tenant.wait_end("frozen")
    check_end(tenant, body, reference(played), failures=0, disruptions=0)
    # A Job that outlives its trainer, as the node was slow to say so, is deleted; none is made again.
    assert set(tenant.jobs("frozen")) <= {"frozen-prepare-0", "frozen-train-1"}
