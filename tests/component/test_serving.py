"""The manifests beside an engine, as kustomize builds them, against a real API server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
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


def test_the_engine_without_a_compiler_compiles_nothing() -> None:
    """vLLM compiles some functions even when it is told to be eager: those for logprobs, which the probe asks for."""
    (template,) = [body["spec"]["template"] for body in built("cpu") if body["kind"] == "Deployment"]
    (engine,) = template["spec"]["containers"]
    assert "--enforce-eager" in engine["args"]
    assert {"name": "TORCHDYNAMO_DISABLE", "value": "1"} in engine["env"]
