"""The chart against a real API server: every object is accepted, and the rights are what they look like."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.component.api_server import ApiServer
from tests.unit.chart.chart import NAMESPACE, Body, Rendered
from tests.unit.chart.test_objects import IN_NAMESPACES, LEASES, NODES, Grant

pytestmark = pytest.mark.cluster

URLS = {
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
}
EVERYTHING: Body = {
    "replicas": 2,
    "watchNamespaces": ["default"],
    "metrics": {"annotations": True},
    "networkPolicy": {"metricsFrom": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]},
    "imagePullSecrets": [{"name": "registry"}],
    "priorityClassName": "system-cluster-critical",
    "podLabels": {"a": "b"},
    "podAnnotations": {"a": "b"},
    "nodeSelector": {"a": "b"},
    "tolerations": [{"operator": "Exists"}],
}


def url(body: Body) -> str:
    return URLS[body["kind"]].format(body["metadata"].get("namespace", ""))


@pytest.fixture(scope="module", autouse=True)
def system_namespace(server: ApiServer) -> None:
    server.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_every_object_is_accepted(server: ApiServer, values: Body) -> None:
    for body in Rendered(values).objects:
        path = f"{url(body)}/{body['metadata']['name']}"
        answer = server.apply(path, body, dryRun="All", fieldValidation="Strict")
        assert answer.accepted, f"{body['kind']}: {answer.message}"


def may(server: ApiServer, user: str, namespace: str, grant: Grant, name: str = "") -> bool:
    group, resource, verb = grant
    plural, _, subresource = resource.partition("/")
    attributes = {"group": group, "resource": plural, "subresource": subresource, "verb": verb, "name": name}
    review = {"spec": {"user": user, "resourceAttributes": {**attributes, "namespace": namespace}}}
    answer = server.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer.body["status"]["allowed"])


@pytest.fixture(scope="module")
def installed(server: ApiServer) -> Iterator[str]:
    """The roles of a release; its user."""
    roles = [body for body in Rendered(name="trimtab").objects if "Role" in body["kind"]]
    for body in roles:
        answer = server.apply(f"{url(body)}/{body['metadata']['name']}", body)
        assert answer.accepted, answer.message
    yield f"system:serviceaccount:{NAMESPACE}:trimtab"
    for body in roles:
        server.delete(f"{url(body)}/{body['metadata']['name']}")


def test_the_operator_may_do_what_it_does(server: ApiServer, installed: str) -> None:
    for grant in IN_NAMESPACES:
        assert may(server, installed, "default", grant), grant
    for grant in NODES:
        assert may(server, installed, "", grant), grant
    for grant in LEASES:
        assert may(server, installed, NAMESPACE, grant, name="trimtab"), grant


def test_the_operator_may_do_nothing_more(server: ApiServer, installed: str) -> None:
    for grant in [
        ("", "secrets", "get"),
        ("", "pods", "create"),
        ("", "pods", "delete"),
        ("", "pods/exec", "create"),
        ("", "configmaps", "list"),
        ("", "nodes", "list"),
        ("trimtab.dev", "finetunejobs", "update"),
        ("trimtab.dev", "finetunejobs", "patch"),
        ("trimtab.dev", "evaluations", "create"),
        ("trimtab.dev", "evaluations", "patch"),
        ("trimtab.dev", "evaluations/status", "update"),
        ("coordination.k8s.io", "leases", "patch"),
    ]:
        assert not may(server, installed, "default", grant), grant
    assert not may(server, installed, NAMESPACE, ("coordination.k8s.io", "leases", "patch"), name="another")


@pytest.mark.parametrize("plural", ["finetunejobs", "evaluations"])
def test_who_may_edit_a_namespace_may_create_work_there(server: ApiServer, installed: str, plural: str) -> None:
    for role, verbs in {"edit": {"get", "create", "delete"}, "view": {"get"}, "admin": {"get", "create"}}.items():
        binding = {
            "metadata": {"name": f"test-{role}"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": f"{role}or"}],
        }
        path = URLS["RoleBinding"].format("default")
        server.create(path, binding)
        try:
            for verb in ("get", "create", "delete"):
                wanted = verb in verbs or role == "admin"
                deadline = time.monotonic() + 10  # the controller aggregates
                while may(server, f"{role}or", "default", ("trimtab.dev", plural, verb)) != wanted:
                    assert time.monotonic() < deadline, f"{role}: {verb}"
                    time.sleep(0.2)
        finally:
            server.delete(f"{path}/test-{role}")
