"""The chart against a real API server: every object is accepted, and the rights are what they look like."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from trimtab_operator import agentkey

from tests.component.api_server import ApiServer
from tests.component.patience import Patience
from tests.component.users import becomes_allowed, may
from tests.unit.chart.chart import NAMESPACE, Body, Rendered
from tests.unit.chart.test_objects import BY_NAME, IN_NAMESPACES, LEASES, NODES, POLICIES

pytestmark = pytest.mark.cluster

URLS = {
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "Service": "/api/v1/namespaces/{}/services",
    "ValidatingAdmissionPolicy": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
}
EVERYTHING: Body = {
    "replicas": 2,
    "watchNamespaces": ["default"],
    "metrics": {"annotations": True, "perObject": True, "dashboards": {"enabled": True}, "service": {"enabled": True}},
    "agentKey": {"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}},
    "networkPolicy": {"metricsFrom": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]},
    "notifications": [{"name": "bus", "url": "https://bus.example", "secretName": "bus"}],
    "imagePullSecrets": [{"name": "registry"}],
    "priorityClassName": "system-cluster-critical",
    "podLabels": {"a": "b"},
    "podAnnotations": {"a": "b"},
    "nodeSelector": {"a": "b"},
    "tolerations": [{"operator": "Exists"}],
    "commonLabels": {"app.kubernetes.io/part-of": "ml-platform"},
    "extraEnv": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
    "extraArgs": ["--log-level=DEBUG"],
    "extraVolumes": [{"name": "a", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "a", "mountPath": "/a"}],
    "dnsPolicy": "None",
    "dnsConfig": {"nameservers": ["10.0.0.1"], "options": [{"name": "ndots", "value": "2"}]},
    "runtimeClassName": "gvisor",
}
OF_AN_OPENSHIFT: Body = {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}


def url(body: Body) -> str:
    return URLS[body["kind"]].format(body["metadata"].get("namespace", ""))


@pytest.fixture(scope="module", autouse=True)
def system_namespace(server: ApiServer) -> None:
    server.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})


@pytest.mark.parametrize(
    "values",
    [{}, EVERYTHING, {"agentKey": {"existingSecret": "mine"}}, OF_AN_OPENSHIFT],
    ids=["defaults", "everything", "a key of one's own", "ids that the cluster gives out"],
)
def test_every_object_is_accepted(server: ApiServer, values: Body) -> None:
    for body in Rendered(values).objects:
        path = f"{url(body)}/{body['metadata']['name']}"
        answer = server.apply(path, body, dryRun="All", fieldValidation="Strict")
        assert answer.accepted, f"{body['kind']}: {answer.message}"


@pytest.fixture(scope="module")
def installed(server: ApiServer) -> Iterator[str]:
    """The roles of a release; its user."""
    roles = [body for body in Rendered(name="trimtab").release if "Role" in body["kind"]]
    for body in roles:
        answer = server.apply(f"{url(body)}/{body['metadata']['name']}", body)
        assert answer.accepted, answer.message
    yield f"system:serviceaccount:{NAMESPACE}:trimtab"
    for body in roles:
        server.delete(f"{url(body)}/{body['metadata']['name']}")


def test_the_operator_may_do_what_it_does(server: ApiServer, installed: str) -> None:
    for grant in IN_NAMESPACES:
        becomes_allowed(server, installed, "default", grant)
    for where, by_name in (("default", BY_NAME), ("", POLICIES)):
        for grant, names in by_name.items():
            for name in names:
                becomes_allowed(server, installed, where, grant, name)
    for grant in NODES:
        becomes_allowed(server, installed, "", grant)
    for grant in LEASES:
        becomes_allowed(server, installed, NAMESPACE, grant, name="trimtab")


def test_the_operator_may_do_nothing_more(server: ApiServer, installed: str) -> None:
    for grant in [
        ("", "secrets", "get"),
        ("", "secrets", "create"),
        ("", "pods", "create"),
        ("", "pods", "delete"),
        ("", "pods/exec", "create"),
        ("", "configmaps", "list"),
        ("", "configmaps", "patch"),
        ("", "configmaps", "delete"),
        ("", "nodes", "list"),
        ("trimtab.dev", "finetunejobs", "update"),
        ("trimtab.dev", "finetunesweeps", "create"),
        ("trimtab.dev", "finetunesweeps", "patch"),
        ("trimtab.dev", "evaluations", "update"),
        ("trimtab.dev", "adapterexports", "create"),
        ("trimtab.dev", "evaluations/status", "update"),
        ("trimtab.dev", "adapterrollouts", "delete"),
        ("trimtab.dev", "adapterrollouts", "patch"),
        ("trimtab.dev", "reviews", "create"),
        ("trimtab.dev", "reviews", "delete"),
        ("admissionregistration.k8s.io", "validatingadmissionpolicies", "get"),
        ("coordination.k8s.io", "leases", "patch"),
    ]:
        assert not may(server, installed, "default", grant), grant
    assert not may(server, installed, "default", ("", "configmaps", "patch"), name="another")
    assert not may(server, installed, NAMESPACE, ("coordination.k8s.io", "leases", "patch"), name="another")


def test_with_notifications_it_may_write_their_record_and_no_other(server: ApiServer) -> None:
    values = {"notifications": [{"name": "bus", "url": "https://bus.example", "secretName": "bus"}]}
    roles = [body for body in Rendered(values, name="told").release if "Role" in body["kind"]]
    for body in roles:
        assert server.apply(f"{url(body)}/{body['metadata']['name']}", body).accepted
    user = f"system:serviceaccount:{NAMESPACE}:told-trimtab"
    for verb in ("get", "patch"):
        assert may(server, user, NAMESPACE, ("", "configmaps", verb), name="told-trimtab-notifications")
    assert may(server, user, NAMESPACE, ("", "configmaps", "create"))
    assert not may(server, user, NAMESPACE, ("", "configmaps", "patch"), name="another")
    assert not may(server, user, NAMESPACE, ("", "secrets", "get"), name="bus")
    for body in roles:
        server.delete(f"{url(body)}/{body['metadata']['name']}")


def test_the_job_that_makes_the_key_may_do_that_alone(server: ApiServer) -> None:
    name, roles = "trimtab-agent-key", [body for body in Rendered().hooks if "Role" in body["kind"]]
    for body in roles:
        assert server.apply(f"{url(body)}/{body['metadata']['name']}", body).accepted
    user = f"system:serviceaccount:{NAMESPACE}:{name}"
    becomes_allowed(server, user, NAMESPACE, ("", "secrets", "get"), name)
    becomes_allowed(server, user, NAMESPACE, ("", "secrets", "create"))
    assert not may(server, user, NAMESPACE, ("", "secrets", "get"), "another")
    for verb in ("list", "watch", "update", "patch", "delete"):
        assert not may(server, user, NAMESPACE, ("", "secrets", verb), name)
    assert not may(server, user, "default", ("", "secrets", "create"))
    for body in roles:
        server.delete(f"{url(body)}/{body['metadata']['name']}")


def test_the_key_is_made_once_on_a_real_api_server(server: ApiServer) -> None:
    command = [sys.executable, "-m", agentkey.__name__, "--namespace", NAMESPACE, "--secret", "made-key"]
    environment = {**os.environ, "KUBECONFIG": str(server.kubeconfig)}
    path = f"/api/v1/namespaces/{NAMESPACE}/secrets/made-key"
    said = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True)]
    made = server.get(path).body["data"]
    assert made.keys() == {agentkey.FILE}
    said.append(subprocess.run(command, env=environment, capture_output=True, text=True, check=True))
    assert server.get(path).body["data"] == made
    for done, words in zip(said, ("signing key made", "signing key is there already"), strict=True):
        assert words in done.stdout + done.stderr
        assert made[agentkey.FILE] not in done.stdout + done.stderr
    server.delete(path)


@pytest.mark.parametrize(
    "plural", ["finetunejobs", "finetunesweeps", "evaluations", "adapterrollouts", "reviews", "adapterexports"]
)
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
                patience = Patience(f"{role}: {verb}")  # the controller aggregates
                while may(server, f"{role}or", "default", ("trimtab.dev", plural, verb)) != wanted:
                    patience.spend(wanted)
                    time.sleep(0.2)
        finally:
            server.delete(f"{path}/test-{role}")
