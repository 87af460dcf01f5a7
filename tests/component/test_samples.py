"""The sample manifests against a real API server, in a namespace with restricted Pod Security."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.samples.field_guide import overlap, rows_of
from tests.component.api_server import ApiServer

pytestmark = pytest.mark.cluster

SAMPLES = Path(__file__).parents[2] / "deploy/samples"
URLS = {
    "FineTuneJob": "/apis/trimtab.dev/v1alpha1/namespaces/{}/finetunejobs",
    "Evaluation": "/apis/trimtab.dev/v1alpha1/namespaces/{}/evaluations",
    "AdapterRollout": "/apis/trimtab.dev/v1alpha1/namespaces/{}/adapterrollouts",
    "Review": "/apis/trimtab.dev/v1alpha1/namespaces/{}/reviews",
    "AdapterExport": "/apis/trimtab.dev/v1alpha1/namespaces/{}/adapterexports",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
}
OBJECTS: list[tuple[str, dict[str, Any]]] = [
    (path.name, body)
    for path in sorted(SAMPLES.glob("*.yaml"))
    for body in yaml.safe_load_all(path.read_text())
    if body and body["kind"] in URLS
]


@pytest.mark.parametrize(("file", "body"), OBJECTS, ids=[f"{file}: {body['kind']}" for file, body in OBJECTS])
def test_the_api_server_accepts(server: ApiServer, namespace: str, file: str, body: dict[str, Any]) -> None:
    body["metadata"]["namespace"] = namespace
    answer = server.create(URLS[body["kind"]].format(namespace), body, dryRun="All", fieldValidation="Strict")
    assert answer.accepted, answer.message


def test_restricted_pod_security_admits_the_asking_pod(server: ApiServer, namespace: str) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    server.request("PATCH", f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": labels}}, "merge")
    job = next(body for file, body in OBJECTS if file == "ask.yaml")
    pod = {"metadata": {"name": "ask"}, "spec": job["spec"]["template"]["spec"]}
    answer = server.create(f"/api/v1/namespaces/{namespace}/pods", pod, dryRun="All")
    assert answer.accepted, answer.message


def test_the_cluster_documents_itself(server: ApiServer) -> None:
    rows = rows_of(server.get("/openapi/v2").body)
    questions = {row["messages"][0]["content"] for row in rows}
    assert len(rows) == len(questions) > 1500
    assert "What is spec.backoffLimit of a Job for?" in questions
    assert "What is spec.training.learningRate of a FineTuneJob for?" in questions
    assert overlap(rows, by_group=True)[1] == 0
    assert overlap(rows, by_group=False)[1] > 0
