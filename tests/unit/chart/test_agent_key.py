"""The signing key: who makes it, with which rights, and how the operator gets it."""

from __future__ import annotations

import pytest
from trimtab_operator import agentkey
from trimtab_operator.runtime.settings import Settings

from tests.unit.chart.chart import HOOK, NAMESPACE, Body, Rendered
from tests.unit.chart.test_objects import grants, grants_by_name

POLICY = "helm.sh/hook-delete-policy"
WEIGHT = "helm.sh/hook-weight"
SECRET = "trimtab-agent-key"


def job_pod(rendered: Rendered) -> Body:
    pod: Body = rendered.one("Job")["spec"]["template"]
    return pod


def test_everything_for_it_is_there_only_while_helm_installs_or_upgrades() -> None:
    rendered = Rendered()
    assert {body["kind"] for body in rendered.hooks} == {
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "NetworkPolicy",
        "Job",
    }
    for body in rendered.hooks:
        annotations = body["metadata"]["annotations"]
        assert annotations[HOOK] == "pre-install,pre-upgrade"
        assert annotations[POLICY] == "before-hook-creation,hook-succeeded"
    assert not [body for body in rendered.objects if body["kind"] == "Secret"], "helm would overwrite or delete it"


def test_the_job_comes_after_what_it_needs() -> None:
    weights = {body["kind"]: int(body["metadata"]["annotations"][WEIGHT]) for body in Rendered().hooks}
    assert all(weights[kind] < weights["Job"] for kind in weights.keys() - {"Job"})


def test_the_job_may_look_for_one_secret_and_create_it() -> None:
    role = Rendered().one("Role", SECRET)
    assert role["metadata"]["namespace"] == NAMESPACE
    assert grants(role) == {("", "secrets", "create")}
    assert grants_by_name(role) == {("", "secrets", "get"): {SECRET}}
    assert Rendered().one("RoleBinding", SECRET)["subjects"] == [
        {"kind": "ServiceAccount", "name": SECRET, "namespace": NAMESPACE}
    ]
    assert job_pod(Rendered())["spec"]["serviceAccountName"] == SECRET


def test_the_job_makes_the_secret_that_the_operator_mounts() -> None:
    rendered = Rendered(name="blue")
    (container,) = job_pod(rendered)["spec"]["containers"]
    assert container["command"] == ["python", "-m", agentkey.__name__]
    assert container["args"] == ["--namespace", NAMESPACE, "--secret", "blue-trimtab-agent-key"]
    (volume,) = [volume for volume in rendered.pod["spec"]["volumes"] if "secret" in volume]
    assert volume["secret"] == {"secretName": "blue-trimtab-agent-key", "defaultMode": 0o440, "optional": True}
    (mount,) = [mount for mount in rendered.container["volumeMounts"] if mount["name"] == volume["name"]]
    assert mount["readOnly"] is True
    assert mount["mountPath"] == rendered.environment["TRIMTAB_AGENT_KEYS"]
    assert "agent_keys" in Settings.model_fields
    assert rendered.pod["spec"]["securityContext"]["fsGroup"] == rendered.pod["spec"]["securityContext"]["runAsUser"]


def test_the_job_reaches_the_api_server_and_nothing_else() -> None:
    rendered = Rendered({"networkPolicy": {"apiServerPorts": [16443]}})
    policy = rendered.one("NetworkPolicy", SECRET)["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= job_pod(rendered)["metadata"]["labels"].items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == [{"ports": [{"protocol": "TCP", "port": 16443}]}]


def test_no_selector_of_the_operator_takes_the_job_for_it() -> None:
    rendered = Rendered()
    selector = rendered.one("Deployment")["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= job_pod(rendered)["metadata"]["labels"].items()


@pytest.mark.parametrize("values", [{"agentKey": {"existingSecret": "mine"}}, {"rbac": {"create": False}}])
def test_nothing_is_made_where_the_key_is_a_persons_business(values: Body) -> None:
    assert Rendered(values).hooks == []


def test_the_job_runs_where_the_operator_runs() -> None:
    chosen: Body = {
        "nodeSelector": {"zone": "a"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"podAffinity": {}},
        "imagePullSecrets": [{"name": "registry"}],
        "priorityClassName": "high",
    }
    rendered = Rendered({**chosen, "operator": {"image": "r.example/b:1"}})
    pod = job_pod(rendered)["spec"]
    assert {key: pod[key] for key in chosen} == chosen
    assert pod["containers"][0]["image"] == rendered.container["image"] == "r.example/b:1"


def test_the_jobs_pod_is_in_no_mesh_or_a_proxy_would_outlive_it() -> None:
    metadata = job_pod(Rendered())["metadata"]
    assert (
        metadata["labels"]["sidecar.istio.io/inject"] == metadata["annotations"]["sidecar.istio.io/inject"] == "false"
    )
    assert metadata["annotations"]["linkerd.io/inject"] == "disabled"
    assert Rendered().one("Job")["spec"]["activeDeadlineSeconds"] < 300, "Helm waits for five minutes"


def test_the_notes_say_where_the_key_is_and_that_it_stays() -> None:
    assert f"kubectl --namespace {NAMESPACE} delete secret {SECRET}" in Rendered().notes
    assert SECRET not in Rendered({"agentKey": {"existingSecret": "mine"}}).notes
