"""The manifests beside an engine, as kustomize builds them, against a real API server."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from trimtab_local import binaries

from tests.component.api_server import ApiServer
from tests.unit.samples.test_serving import SERVING

pytestmark = pytest.mark.cluster

Body = dict[str, Any]

URLS = {
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "Service": "/api/v1/namespaces/{}/services",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
}
OVERLAYS = ("gpu", "cpu")


def built(overlay: str) -> list[Body]:
    kubectl = binaries.ensure(["kubectl"]) / "kubectl"
    line = [str(kubectl), "kustomize", str(SERVING / "kustomize/overlays" / overlay)]
    return list(yaml.safe_load_all(subprocess.run(line, capture_output=True, text=True, check=True).stdout))


@pytest.fixture
def restricted(server: ApiServer) -> Iterator[str]:
    """A namespace that enforces restricted Pod Security, with the account that its pods run as."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    answer = server.create("/api/v1/namespaces", {"metadata": {"generateName": "test-", "labels": labels}})
    name: str = answer.body["metadata"]["name"]
    server.create(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})
    yield name
    server.delete(f"/api/v1/namespaces/{name}")


def test_the_plain_manifest_is_what_kustomize_builds() -> None:
    assert list(yaml.safe_load_all((SERVING / "vllm.yaml").read_text())) == built("gpu")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_accepted(server: ApiServer, namespace: str, overlay: str) -> None:
    for body in built(overlay):
        path = f"{URLS[body['kind']].format(namespace)}/{body['metadata']['name']}"
        answer = server.apply(path, body, dryRun="All", fieldValidation="Strict")
        assert answer.accepted, f"{body['kind']}: {answer.message}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pods_are_admitted_where_pod_security_is_restricted(
    server: ApiServer, restricted: str, overlay: str
) -> None:
    (template,) = [body["spec"]["template"] for body in built(overlay) if body["kind"] == "Deployment"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {**template["metadata"], "name": "vllm"}}
    answer = server.create(f"/api/v1/namespaces/{restricted}/pods", pod, dryRun="All", fieldValidation="Strict")
    assert answer.accepted, answer.message


def ingress(policies: list[Body], labels: dict[str, str], port: int) -> list[Body] | None:
    """Return who may reach a port of a pod: peers, of which an empty one is everybody; None where nothing is closed."""
    chosen = [
        body["spec"]
        for body in policies
        if body["spec"]["podSelector"].get("matchLabels", {}).items() <= labels.items()
        and "Ingress" in body["spec"]["policyTypes"]
    ]
    if not chosen:
        return None
    rules = [rule for spec in chosen for rule in spec.get("ingress", ())]
    return [
        peer for rule in rules if port in {each["port"] for each in rule["ports"]} for peer in rule.get("from", [{}])
    ]


def kustomized(folder: Path) -> tuple[Body, list[Body]]:
    """Return the pod template and the NetworkPolicies that kustomize builds of a folder."""
    kubectl = binaries.ensure(["kubectl"]) / "kubectl"
    text = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=True).stdout
    objects = list(yaml.safe_load_all(text))
    (template,) = [body["spec"]["template"] for body in objects if body["kind"] == "Deployment"]
    return template, [body for body in objects if body["kind"] == "NetworkPolicy"]


def engine_of_somebody(folder: Path, *components: str) -> Path:
    """Write a kustomization of a Deployment that was there before Trimtab, with components of ours."""
    deployment = SERVING / "kustomize/base/deployment.yaml"
    (folder / "engine.yaml").write_text(deployment.read_text())
    taken = [os.path.relpath(SERVING / "kustomize" / name, folder) for name in components]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["engine.yaml"], "components": taken}))
    return folder


def test_the_component_alone_closes_no_port_of_the_engine(tmp_path: Path) -> None:
    template, policies = kustomized(engine_of_somebody(tmp_path, "agent"))
    assert "trimtab-agent" in {each["name"] for each in template["spec"]["initContainers"]}
    assert ingress(policies, template["metadata"]["labels"], 8000) is None


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_clients_reach_the_engine_and_only_the_operator_and_prometheus_the_agent(overlay: str) -> None:
    template, policies = kustomized(SERVING / "kustomize/overlays" / overlay)
    labels = template["metadata"]["labels"]
    assert {"podSelector": {}} in (ingress(policies, labels, 8000) or [])
    peers = ingress(policies, labels, 8081) or []
    operator = {"app.kubernetes.io/name": "trimtab", "app.kubernetes.io/component": "operator"}
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    selected = [peer["podSelector"]["matchLabels"] for peer in peers if peer != monitoring]
    assert selected == [operator, operator], "in trimtab-system, and in the namespace of the engine"


def test_ids_of_engine_and_agent_are_left_to_a_cluster_that_gives_them_out(
    tmp_path: Path, server: ApiServer, restricted: str
) -> None:
    template, _ = kustomized(engine_of_somebody(tmp_path, "agent", "openshift"))
    context = template["spec"]["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {**template["metadata"], "name": "vllm"}}
    answer = server.create(f"/api/v1/namespaces/{restricted}/pods", pod, dryRun="All", fieldValidation="Strict")
    assert answer.accepted, answer.message


def test_the_engine_without_a_compiler_compiles_nothing() -> None:
    """vLLM compiles some functions even when it is told to be eager: those for logprobs, which the probe asks for."""
    (template,) = [body["spec"]["template"] for body in built("cpu") if body["kind"] == "Deployment"]
    (engine,) = template["spec"]["containers"]
    assert "--enforce-eager" in engine["args"]
    assert {"name": "TORCHDYNAMO_DISABLE", "value": "1"} in engine["env"]
