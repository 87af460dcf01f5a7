"""What the chart installs: the operator's rights, its pod's restrictions, and settings that the operator takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
import yaml
from trimtab_operator.domain.views import INDEX_LABEL
from trimtab_operator.runtime import settings
from trimtab_operator.runtime.settings import Settings

from tests.unit.chart.chart import DIRECTORY, NAMESPACE, REGISTRY, Body, Rendered

CLUSTER_NAME = f"trimtab:{NAMESPACE}"
"""Of what belongs to no namespace."""

Grant = tuple[str, str, str]
"""Group, resource and verb."""

IN_NAMESPACES: set[Grant] = {
    *(
        ("trimtab.dev", plural, verb)
        for plural in ("finetunejobs", "finetunesweeps", "evaluations", "adapterexports")
        for verb in ("get", "list", "watch", "delete")
    ),
    *(
        ("trimtab.dev", plural, verb) for plural in ("finetunejobs", "evaluations") for verb in ("create", "patch")
    ),  # the trials of a sweep, and what they are judged by
    *(("trimtab.dev", plural, verb) for plural in ("adapterrollouts", "reviews") for verb in ("get", "list", "watch")),
    *(
        ("trimtab.dev", f"{plural}/status", "patch")
        for plural in ("finetunejobs", "finetunesweeps", "evaluations", "adapterrollouts", "reviews", "adapterexports")
    ),
    *(("batch", "jobs", verb) for verb in ("get", "list", "watch", "create", "patch", "delete")),
    *(("", "pods", verb) for verb in ("get", "list", "watch")),
    *(("", "configmaps", verb) for verb in ("get", "create")),
    *(("", "services", verb) for verb in ("get", "create")),
    *(("networking.k8s.io", "networkpolicies", verb) for verb in ("get", "create")),
    *(("events.k8s.io", "events", verb) for verb in ("get", "list", "create", "patch")),
}
BY_NAME: dict[Grant, set[str]] = {("", "configmaps", "patch"): {"trimtab-agent-keys", "trimtab-desired"}}
"""What it may do in a namespace to objects of these names alone."""
POLICIES: dict[Grant, set[str]] = {
    ("admissionregistration.k8s.io", resource, "get"): {
        f"trimtab.{NAMESPACE}.{policy}.trimtab.dev" for policy in ("reviews", "authors")
    }
    for resource in ("validatingadmissionpolicies", "validatingadmissionpolicybindings")
}
"""Whether these are in force decides whether a Review counts."""
NODES: set[Grant] = {("", "nodes", "get")}
LEASES: set[Grant] = {("coordination.k8s.io", "leases", verb) for verb in ("get", "create", "patch")}


def grants(role: Body) -> set[Grant]:
    """Return what a role grants whatever the name."""
    return {grant for rule in role["rules"] if "resourceNames" not in rule for grant in of_rule(rule)}


def grants_by_name(role: Body) -> dict[Grant, set[str]]:
    return {
        grant: set(rule["resourceNames"])
        for rule in role["rules"]
        if "resourceNames" in rule
        for grant in of_rule(rule)
    }


def of_rule(rule: Body) -> set[Grant]:
    return set(product(rule["apiGroups"], rule["resources"], rule["verbs"]))


def test_the_operator_may_do_this_and_nothing_else() -> None:
    rendered = Rendered()
    everywhere, leader = rendered.one("ClusterRole", CLUSTER_NAME), rendered.one("Role", "trimtab-leader")
    assert grants(everywhere) == IN_NAMESPACES | NODES
    assert grants_by_name(everywhere) == BY_NAME | POLICIES
    assert grants(leader) | grants_by_name(leader).keys() == LEASES
    assert leader["metadata"]["namespace"] == NAMESPACE


def test_in_named_namespaces_only_nodes_and_policies_are_read_beyond_them() -> None:
    rendered = Rendered({"watchNamespaces": ["a", "b"]})
    assert grants(rendered.one("ClusterRole", CLUSTER_NAME)) == NODES
    assert grants_by_name(rendered.one("ClusterRole", CLUSTER_NAME)) == POLICIES
    stay = [body for body in rendered.release if body["kind"] == "Role"]
    roles = {(role["metadata"]["namespace"], role["metadata"]["name"]): role for role in stay}
    assert roles.keys() == {("a", "trimtab"), ("b", "trimtab"), (NAMESPACE, "trimtab-leader")}
    for namespace in ("a", "b"):
        assert grants(roles[namespace, "trimtab"]) == IN_NAMESPACES
        assert grants_by_name(roles[namespace, "trimtab"]) == BY_NAME


@pytest.mark.parametrize("values", [{}, {"watchNamespaces": ["a"]}], ids=["all", "named"])
def test_no_right_is_a_wildcard_or_reads_secrets(values: Body) -> None:
    for role in (body for body in Rendered(values).release if body["kind"] in ("Role", "ClusterRole")):
        for group, resource, verb in grants(role) | grants_by_name(role).keys():
            assert "*" not in (group, resource, verb)
            assert resource != "secrets"


def test_every_role_is_bound_to_the_operator() -> None:
    rendered = Rendered({"watchNamespaces": ["a"], "serviceAccount": {"name": "mine"}})
    bindings = [body for body in rendered.release if body["kind"] in ("RoleBinding", "ClusterRoleBinding")]
    assert len(bindings) == 3
    for binding in bindings:
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "mine", "namespace": NAMESPACE}]


@pytest.mark.parametrize(
    ("singular", "plural"),
    [
        ("finetunejob", "finetunejobs"),
        ("finetunesweep", "finetunesweeps"),
        ("evaluation", "evaluations"),
        ("adapterrollout", "adapterrollouts"),
        ("review", "reviews"),
        ("adapterexport", "adapterexports"),
    ],
)
def test_users_get_their_rights_by_aggregation(singular: str, plural: str) -> None:
    rendered = Rendered()
    viewer = rendered.one("ClusterRole", f"{CLUSTER_NAME}:{singular}-viewer")
    editor = rendered.one("ClusterRole", f"{CLUSTER_NAME}:{singular}-editor")
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    assert {label for label in viewer["metadata"]["labels"] if label.startswith(prefix)} == {f"{prefix}view"}
    assert {label for label in editor["metadata"]["labels"] if label.startswith(prefix)} == {
        f"{prefix}edit",
        f"{prefix}admin",
    }
    assert grants(viewer) == {
        ("trimtab.dev", resource, verb)
        for resource in (plural, f"{plural}/status")
        for verb in ("get", "list", "watch")
    }
    written = ("create", "update", "patch", "delete", "deletecollection")
    assert grants(editor) == {
        *(("trimtab.dev", plural, verb) for verb in ("get", "list", "watch", *written)),
        ("trimtab.dev", f"{plural}/status", "get"),
    }


def test_users_get_no_rights_where_they_are_not_wanted() -> None:
    names = {role["metadata"]["name"] for role in Rendered({"rbac": {"aggregate": False}}).all("ClusterRole")}
    assert names == {CLUSTER_NAME}


def test_the_pod_is_admitted_where_pod_security_is_restricted() -> None:
    for kind in ("Deployment", "Job"):
        pod = Rendered().one(kind)["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 65532
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        for volume in pod.get("volumes", []):
            assert volume.keys() <= {"name", "emptyDir", "secret"}


def test_the_pod_is_watched_and_limited() -> None:
    container = Rendered().container
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    assert Rendered().pod["spec"]["enableServiceLinks"] is False, "a Service named trimtab would set TRIMTAB_PORT"


def read(rendered: Rendered) -> Settings:
    names = {variable["name"] for variable in rendered.container["env"]}
    unknown = {name for name in names if name.removeprefix(settings.PREFIX).lower() not in Settings.model_fields}
    assert not unknown, "the operator does not know these variables"
    return settings.read({**rendered.environment, "TRIMTAB_NAMESPACE": NAMESPACE, "TRIMTAB_IDENTITY": "pod"})


def test_the_operator_takes_the_settings_and_its_defaults_are_the_charts() -> None:
    found = read(Rendered()).model_dump()
    own = Settings(prepare_image="a", trainer_image="a").model_dump()
    chosen = {
        "prepare_image": f"{REGISTRY}/trimtab/prepare:0.1.0",
        "trainer_image": f"{REGISTRY}/trimtab/trainer:0.1.0",
        "namespace": NAMESPACE,
        "identity": "pod",
        "lease_name": "trimtab",
        "agent_keys": Path("/etc/trimtab/agent-keys"),
        "notification_secrets": Path("/etc/trimtab/notifications"),
        "admission_policies": f"trimtab.{NAMESPACE}",
    }
    resources = {name: found[name] for name in ("prepare_resources", "train_resources")}
    assert found == {**own, **chosen, **resources}
    for name, value in resources.items():
        assert value.keys() == {"limits", "requests"}, name
        assert value["limits"].keys() == value["requests"].keys() == {"cpu", "memory"}, name


WORK: Body = {
    "imagePullSecrets": [{"name": "registry"}],
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
    "nodeSelector": {"node.kubernetes.io/instance-type": "p5"},
    "podLabels": {"team": "a", "example.com/cost": ""},
    "podAnnotations": {"sidecar.istio.io/inject": "false", "note": "anything, even\n two lines"},
    "priorityClassName": "batch",
    "podSecurityContext": {"runAsUser": None, "fsGroup": 0, "supplementalGroups": [7]},
}


def test_the_operator_takes_what_the_schema_lets_through_for_work_pods() -> None:
    pods = read(Rendered({"work": WORK})).work_pods.to_json()
    assert pods == {
        "securityContext": {"runAsGroup": 65532, "fsGroup": 0, "supplementalGroups": [7]},
        "imagePullSecrets": WORK["imagePullSecrets"],
        "nodeSelector": WORK["nodeSelector"],
        "tolerations": WORK["tolerations"],
        "priorityClassName": "batch",
        "labels": WORK["podLabels"],
        "annotations": WORK["podAnnotations"],
    }


def test_every_setting_can_be_set() -> None:
    variables = {variable["name"] for variable in Rendered().container["env"]}
    assert variables == {f"{settings.PREFIX}{name.upper()}" for name in Settings.model_fields}


def test_the_lease_that_may_be_held_is_the_lease_that_is_held() -> None:
    rendered = Rendered(name="blue")
    rules = rendered.one("Role", "blue-trimtab-leader")["rules"]
    (rule,) = [rule for rule in rules if "resourceNames" in rule]
    assert rule["resourceNames"] == [rendered.environment["TRIMTAB_LEASE_NAME"]] == ["blue-trimtab"]


@pytest.mark.parametrize(
    ("watched", "selected"), [([], {"any": True}), (["a", "b"], {"matchNames": ["a", "b"]})], ids=["all", "named"]
)
def test_what_is_scraped_is_where_the_operator_works(watched: list[str], selected: Body) -> None:
    rendered = Rendered({"watchNamespaces": watched, "metrics": {"podMonitor": {"enabled": True}}})
    for name, port in {"trimtab-work": "progress", "trimtab-agents": "agent"}.items():
        spec = rendered.one("PodMonitor", name)["spec"]
        assert spec["namespaceSelector"] == selected
        assert [endpoint["port"] for endpoint in spec["podMetricsEndpoints"]] == [port]


def test_of_several_pods_that_train_together_the_first_alone_is_scraped() -> None:
    spec = Rendered({"metrics": {"podMonitor": {"enabled": True}}}).one("PodMonitor", "trimtab-work")["spec"]
    (relabeling,) = spec["podMetricsEndpoints"][0]["relabelings"]
    assert relabeling["action"] == "drop"
    (label,) = relabeling["sourceLabels"]
    assert label == "__meta_kubernetes_pod_label_" + re.sub(r"[^a-z]", "_", INDEX_LABEL)
    dropped = [value for value in ("", "0", "1", "10", "63") if re.fullmatch(relabeling["regex"], value)]
    assert dropped == ["1", "10", "63"]


def test_names_of_objects_are_not_replaced_by_those_of_the_pod() -> None:
    rendered = Rendered({"metrics": {"podMonitor": {"enabled": True}}})
    assert rendered.one("PodMonitor", "trimtab")["spec"]["podMetricsEndpoints"][0]["honorLabels"] is True


def test_a_budget_only_where_it_does_not_block_a_drain() -> None:
    assert not Rendered({"replicas": 1}).all("PodDisruptionBudget")
    assert Rendered({"replicas": 2}).one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_selectors_never_change_and_name_the_pods() -> None:
    rendered = Rendered({"commonLabels": {"team": "a"}, "replicas": 2, "metrics": {"podMonitor": {"enabled": True}}})
    selector = rendered.one("Deployment")["spec"]["selector"]["matchLabels"]
    assert selector == {
        "app.kubernetes.io/name": "trimtab",
        "app.kubernetes.io/instance": "trimtab",
        "app.kubernetes.io/component": "operator",
    }
    assert selector.items() <= rendered.pod["metadata"]["labels"].items()
    assert rendered.one("NetworkPolicy", "trimtab")["spec"]["podSelector"]["matchLabels"] == selector
    assert rendered.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == selector
    assert rendered.one("PodMonitor", "trimtab")["spec"]["selector"]["matchLabels"] == selector


def test_the_policy_lets_the_operator_reach_what_it_needs() -> None:
    dns, api, progress, agents = Rendered().one("NetworkPolicy", "trimtab")["spec"]["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert {port["port"] for port in api["ports"]} == {443, 6443}
    assert {port["port"] for port in progress["ports"]} == {9401}
    (to,) = progress["to"]
    assert to["podSelector"]["matchLabels"] == {"app.kubernetes.io/managed-by": "trimtab"}
    assert {port["port"] for port in agents["ports"]} == {8081}
    (to,) = agents["to"]
    assert to["podSelector"]["matchLabels"] == {"trimtab.dev/stage": "serve"}


def test_the_crd_is_the_generated_one_with_labels_and_a_policy() -> None:
    for crd in Rendered().all("CustomResourceDefinition"):
        name = f"{crd['spec']['group']}_{crd['spec']['names']['plural']}.yaml"
        generated = yaml.load((DIRECTORY.parents[1] / "crds" / name).read_text(), Loader=yaml.CSafeLoader)
        assert crd["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert crd["metadata"].pop("labels")
        assert crd == generated


def labelled(body: Body) -> Any:
    return body["metadata"]["labels"]["app.kubernetes.io/instance"]


def of_release(name: str, namespace: str, watched: Sequence[str] = ()) -> set[tuple[str, str, str]]:
    """Return kind, namespace and name of everything of a release, but for the definitions."""
    values = {"crds": {"enabled": False}, "replicas": 2, "watchNamespaces": list(watched)}
    rendered = Rendered(values, name=name, namespace=namespace)
    assert {labelled(body) for body in rendered.objects} == {name}
    return {
        (body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"]) for body in rendered.objects
    }


RELEASES = [("blue", "a"), ("green", "a"), ("trimtab", "a"), ("trimtab", "b"), ("trimtab-b", "c"), ("trimtab", "b-c")]


@pytest.mark.parametrize(("one", "other"), list(combinations(RELEASES, 2)))
def test_two_releases_share_no_object(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert not of_release(*one) & of_release(*other)
    assert not of_release(*one, watched=["one"]) & of_release(*other, watched=["other"])


OF_A_TENANT: Body = {
    "crds": {"enabled": False},
    "rbac": {"nodes": False, "aggregate": False},
    "admissionPolicies": {"enabled": False},
    "watchNamespaces": ["team-a"],
    "metrics": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}, "dashboards": {"enabled": True}},
}


def test_a_release_can_be_without_anything_above_its_namespace() -> None:
    rendered = Rendered(OF_A_TENANT, namespace="team-a")
    assert {body["metadata"].get("namespace") for body in rendered.objects} == {"team-a"}
    granted = grants(rendered.one("Role", "trimtab"))
    assert granted == IN_NAMESPACES


def test_who_watches_all_namespaces_may_do_without_nodes() -> None:
    assert grants(Rendered({"rbac": {"nodes": False}}).one("ClusterRole", CLUSTER_NAME)) == IN_NAMESPACES


USERS_LABELS: Body = {
    "app.kubernetes.io/part-of": "ml-platform",
    "app.kubernetes.io/managed-by": "flux",
    "app.kubernetes.io/version": "2026.11",
    "helm.sh/chart": "mine",
}


def test_a_users_label_takes_the_place_of_the_charts_everywhere() -> None:
    """`Rendered` refuses a key that is there twice, as Flux and kubeconform do."""
    everything = {"enabled": True, "labels": USERS_LABELS}
    rendered = Rendered(
        {
            "commonLabels": USERS_LABELS,
            "podLabels": USERS_LABELS,
            "podAnnotations": {"prometheus.io/port": "1"},
            "replicas": 2,
            "agentKey": {"podLabels": USERS_LABELS},
            "metrics": {
                "annotations": True,
                **dict.fromkeys(
                    ("service", "serviceMonitor", "podMonitor", "prometheusRule", "dashboards"), everything
                ),
            },
        }
    )
    for body in rendered.objects:
        assert USERS_LABELS.items() <= body["metadata"]["labels"].items(), body["kind"]
        if body["kind"] in ("Deployment", "Job"):
            assert USERS_LABELS.items() <= body["spec"]["template"]["metadata"]["labels"].items()
    assert rendered.pod["metadata"]["annotations"]["prometheus.io/port"] == "1"


def test_the_more_special_label_wins() -> None:
    rendered = Rendered({"commonLabels": {"team": "a", "tier": "x"}, "podLabels": {"team": "b"}})
    assert rendered.pod["metadata"]["labels"].items() >= {"team": "b", "tier": "x"}.items()
    assert rendered.one("Deployment")["metadata"]["labels"]["team"] == "a"


def test_the_operator_is_scraped_once_whichever_monitor_is_chosen() -> None:
    def monitors(*names: str) -> set[tuple[str, str]]:
        rendered = Rendered({"metrics": {name: {"enabled": True} for name in names}})
        found = (*rendered.all("PodMonitor"), *rendered.all("ServiceMonitor"))
        return {(body["kind"], body["metadata"]["name"]) for body in found}

    others = {("PodMonitor", "trimtab-work"), ("PodMonitor", "trimtab-agents")}
    assert monitors("podMonitor") == {("PodMonitor", "trimtab"), *others}
    assert monitors("podMonitor", "serviceMonitor") == {("ServiceMonitor", "trimtab"), *others}


def test_the_service_selects_the_operators_pods_and_sets_no_variable_in_others() -> None:
    rendered = Rendered({"metrics": {"serviceMonitor": {"enabled": True}}})
    service, monitor = rendered.one("Service"), rendered.one("ServiceMonitor")
    assert service["spec"]["clusterIP"] == "None", "a Service with an address becomes TRIMTAB_METRICS_PORT in pods"
    assert service["spec"]["selector"].items() <= rendered.pod["metadata"]["labels"].items()
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (port,) = service["spec"]["ports"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] == port["name"]
    assert port["targetPort"] in {each["name"] for each in rendered.container["ports"]}


def test_the_notes_name_the_next_command() -> None:
    assert f"kubectl --namespace {NAMESPACE} rollout status deployment/trimtab" in Rendered().notes
    assert "apply --server-side" in Rendered({"crds": {"enabled": False}}).notes
