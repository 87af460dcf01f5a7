"""The operator as the service account of a release that has no right above its namespace: it does all of its work."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml
from trimtab_operator.runtime.kube import PODS, Body, Kube
from trimtab_trainer.contract import Stage

from tests.component.api_server import ApiServer
from tests.component.operator.conftest import Start, playing
from tests.component.operator.executor import Act
from tests.component.operator.finetunejobs import finetunejob, until_state
from tests.component.test_chart import url
from tests.resources import FINETUNEJOBS
from tests.unit.chart.chart import Rendered
from tests.unit.chart.test_objects import OF_A_TENANT

ACCOUNT = "trimtab"


@pytest.fixture
def tenant(server: ApiServer, namespace: str, tmp_path: Path) -> Path:
    """Kubeconfig of the operator's service account, with the chart's own Roles and nothing else."""
    rendered = Rendered({**OF_A_TENANT, "watchNamespaces": [namespace]}, namespace=namespace)
    wanted = ("ServiceAccount", "Role", "RoleBinding")
    for body in (body for body in rendered.release if body["kind"] in wanted):
        answer = server.apply(f"{url(body)}/{body['metadata']['name']}", body)
        assert answer.accepted, answer.message
    token = server.create(f"/api/v1/namespaces/{namespace}/serviceaccounts/{ACCOUNT}/token", {"spec": {}})
    assert token.accepted, token.message
    config: Body = yaml.safe_load(server.kubeconfig.read_text())
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token.body["status"]["token"]}}]
    file = tmp_path / "tenant.kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file


async def lose(server: ApiServer, kube: Kube, namespace: str, name: str) -> None:
    """Have the pod of a Job Terminating on a node that does not answer."""
    (pod,) = await kube.items(PODS, namespace, {"labelSelector": f"batch.kubernetes.io/job-name={name}"})
    path = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}"
    binding = {"metadata": {"name": pod["metadata"]["name"]}, "target": {"kind": "Node", "name": "far-away"}}
    assert server.create(f"{path}/binding", binding).accepted
    assert server.request("DELETE", path, {"gracePeriodSeconds": 1}).accepted
    assert server.get(path).body["metadata"]["deletionTimestamp"]


async def test_a_job_goes_on_after_a_lost_node_where_nodes_may_not_be_read(
    server: ApiServer, kube: Kube, namespace: str, start: Start, tenant: Path
) -> None:
    def script(stage: Stage, attempt: int) -> Act | None:
        return None if (stage, attempt) == (Stage.TRAIN, 1) else Act()

    operator = await start(kubeconfig=tenant, TRIMTAB_LEASE_NAME="trimtab", TRIMTAB_NODE_LOSS_SECONDS="1")
    async with playing(kube, namespace, script) as executor:
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        while ("train", 1) not in executor.pods:
            await asyncio.sleep(0.05)
        await until_state(kube, namespace, "demo", "Training")
        await lose(server, kube, namespace, "demo-train-1")
        job = await until_state(kube, namespace, "demo", "Completed")
    attempts = {attempt["number"]: attempt for attempt in job["status"]["attempts"]}
    assert attempts[1]["reason"] == "NodeLost", operator.tail()
    assert "nodes may not be read" in attempts[1]["message"]
    assert not [line for line in operator.log_lines() if "Traceback" in str(line)]
