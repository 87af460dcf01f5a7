"""Where a pod's agent is asked: the pod says so, and no other tenant's rollout."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from trimtab_operator.domain.views import ServingPodView, agent_port
from trimtab_operator.runtime.cluster.cache import Cache
from trimtab_operator.runtime.kube import Body
from trimtab_operator.runtime.pods.agentpoller import AgentPoller, Known

from tests.unit.runtime.serving import rollout, serving_pod

ROOT = Path(__file__).parents[3]
AGENT = {"name": "trimtab-agent", "ports": [{"name": "agent", "containerPort": 9000}]}


@dataclass(frozen=True)
class Pod:
    spec: dict[str, Any]
    port: int | None


PODS = {
    "the agent as a native sidecar": Pod({"initContainers": [{"name": "base-model"}, AGENT], "containers": []}, 9000),
    "the agent as a container": Pod({"containers": [{"name": "vllm", "ports": None}, AGENT]}, 9000),
    "a container of another name, with a port of ours": Pod(
        {"containers": [{"name": "all-in-one", "ports": [{"name": "trimtab-agent", "containerPort": 7000}]}]}, 7000
    ),
    "a port of this name that belongs to something else": Pod(
        {"containers": [{"name": "datadog", "ports": [{"name": "agent", "containerPort": 8126}]}]}, None
    ),
    "no ports": Pod({"containers": [{"name": "trimtab-agent"}]}, None),
    "no containers": Pod({}, None),
}


@pytest.mark.parametrize("case", PODS)
def test_a_pod_names_the_port_of_its_agent(case: str) -> None:
    given = PODS[case]
    view = ServingPodView.of({**serving_pod(), "spec": given.spec})
    assert view is not None
    assert view.port == given.port


def test_the_pods_that_we_ship_name_theirs() -> None:
    documents = yaml.safe_load_all((ROOT / "deploy/serving/vllm.yaml").read_text())
    (deployment,) = (each for each in documents if each["kind"] == "Deployment")
    assert agent_port(deployment["spec"]["template"]["spec"]) == 8081


def named(name: str, port: int, created: str) -> Body:
    body = rollout(port=port)
    body["metadata"] |= {"name": name, "uid": name, "resourceVersion": "5", "creationTimestamp": created}
    body["spec"]["adapterName"] = name
    return body


@dataclass(frozen=True)
class Asked:
    pod: dict[str, Any] = field(default_factory=dict)
    rollouts: tuple[Body, ...] = ()
    before: int = 8081
    want: int = 8081


OLD, NEW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
CASES = {
    "the pod's own word is above every rollout's": Asked(
        {"initContainers": [AGENT]}, (named("guide", 8081, OLD), named("aaa", 9, NEW)), want=9000
    ),
    "a newcomer of the same labels moves nobody": Asked({}, (named("guide", 8081, OLD), named("aaa", 9, NEW))),
    "nor after a restart of the operator": Asked({}, (named("guide", 8500, OLD), named("aaa", 9, NEW)), want=8500),
    "one rollout moves its own pods": Asked({}, (named("guide", 8500, OLD),), want=8500),
    "what was asked before stays while a rollout says so": Asked(
        {}, (named("guide", 8500, OLD), named("aaa", 9, NEW)), before=9, want=9
    ),
    "nobody says anything": Asked({}, (), before=8400, want=8400),
}


@pytest.mark.parametrize("case", CASES)
async def test_the_agent_is_asked_where_it_listens(case: str) -> None:
    given, cache = CASES[case], Cache()
    poller = AgentPoller(None, cache, asyncio.Event(), lambda key: None, None)  # type: ignore[arg-type]
    for body in given.rollouts:
        cache.owners["AdapterRollout"].put(body)
    cache.serving.put({**serving_pod(), "spec": given.pod})
    (view,) = cache.serving.of_parent(serving_pod()["metadata"]["namespace"])
    known = Known(view, port=given.before)
    assert poller._port(known) == given.want
