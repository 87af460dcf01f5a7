"""The console of the chart: restricted, without an account, and only where it is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from helm_python import HelmError

from tests.unit.chart.chart import Rendered

ENABLED: dict[str, Any] = {"console": {"enabled": True, "hosts": ["trimtab.example.com"]}}
OIDC = {"issuer": "https://login.example.com:8443/a", "clientId": "trimtab", "secretName": "client"}
SIGNS_IN: dict[str, Any] = {
    "console": {**ENABLED["console"], "oidc": {**OIDC, "certificateAuthorityName": "authority"}}
}
KINDS = ("Deployment", "Service", "NetworkPolicy")


def test_it_is_not_there_unless_it_is_asked_for() -> None:
    assert not [body for body in Rendered().objects if "console" in body["metadata"]["name"]]
    assert [Rendered(ENABLED).one(kind, "trimtab-console")["kind"] for kind in KINDS] == list(KINDS)


def test_it_brings_no_right_and_no_account() -> None:
    kinds = ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "ServiceAccount", "Secret")
    with_it, without = Rendered(ENABLED), Rendered()
    assert [with_it.all(kind) for kind in kinds] == [without.all(kind) for kind in kinds]
    pod = with_it.one("Deployment", "trimtab-console")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod
    assert [volume.keys() - {"name"} for volume in pod["volumes"]] == [{"configMap"}, {"emptyDir"}]
    assert "env" not in pod["containers"][0]


def test_it_is_admitted_where_pod_security_is_restricted() -> None:
    pod = Rendered(ENABLED).one("Deployment", "trimtab-console")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container["resources"]["limits"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()


def test_it_reaches_names_and_the_api_server_and_nothing_else() -> None:
    policy = Rendered(ENABLED).one("NetworkPolicy", "trimtab-console")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [[port["port"] for port in rule["ports"]] for rule in policy["egress"]] == [[53, 53], [443, 6443]]
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == ["http"]


def test_selectors_of_operator_and_console_are_apart() -> None:
    rendered = Rendered(ENABLED)
    selectors = [
        rendered.one("Deployment", name)["spec"]["selector"]["matchLabels"] for name in ("trimtab", "trimtab-console")
    ]
    assert [each["app.kubernetes.io/component"] for each in selectors] == ["operator", "console"]
    assert rendered.one("Service", "trimtab-console")["spec"]["selector"] == selectors[1]


def test_without_a_name_for_browsers_it_is_refused() -> None:
    with pytest.raises(HelmError, match=r"console\.hosts is empty"):
        Rendered({"console": {"enabled": True}})


def test_the_program_takes_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    from trimtab.console import __main__ as program
    from trimtab.console import serving

    (container,) = Rendered(ENABLED).one("Deployment", "trimtab-console")["spec"]["template"]["spec"]["containers"]
    served: dict[str, Any] = {}

    def serve(address: str, authority: str, namespace: str, hosts: list[str], port: int, **more: Any) -> None:
        served.update(address=address, namespace=namespace, hosts=hosts, port=port, **more)

    monkeypatch.setattr(serving, "serve_cluster", serve)
    monkeypatch.setattr("sys.argv", ["console", *container["args"]])
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    program.main()
    assert served == {
        "address": "https://10.0.0.1:443",
        "namespace": "default",
        "hosts": ["trimtab.example.com"],
        "port": 8090,
        "secure": True,
        "provider": None,
        "form_key": None,
    }
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert program.AUTHORITY.startswith(f"{mounts['cluster']}/")


def test_the_program_signs_people_in_where_the_chart_names_an_issuer(monkeypatch: pytest.MonkeyPatch) -> None:
    from trimtab.console import __main__ as program
    from trimtab.console import serving
    from trimtab.console.provider import SCOPES, Settings

    pod = Rendered(SIGNS_IN).one("Deployment", "trimtab-console")["spec"]["template"]["spec"]
    container, served = pod["containers"][0], []
    monkeypatch.setattr(serving, "serve_cluster", lambda *_, provider, **__: served.append(provider.settings))
    monkeypatch.setattr("sys.argv", ["console", *container["args"]])
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv(container["env"][0]["name"], "a-secret\n")
    program.main()
    authority = "/run/trimtab/provider/ca.crt"
    assert served == [Settings(OIDC["issuer"], OIDC["clientId"], "a-secret", SCOPES, authority)]
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert authority == f"{mounts['provider']}/ca.crt"


def test_values_that_know_no_ports_of_a_storage_open_no_others() -> None:
    """As with --reuse-values of an older release."""
    values = {"console": {**SIGNS_IN["console"], "storage": {"secretName": "reader", "ports": None}}}
    policy = Rendered(values).one("NetworkPolicy", "trimtab-console")["spec"]
    assert all(each["ports"] for each in policy["egress"])


def test_the_provider_and_the_storage_can_be_reached_where_they_are_named() -> None:
    values = {"console": {**SIGNS_IN["console"], "storage": {"secretName": "reader", "ports": [8333]}}}
    policy = Rendered(values).one("NetworkPolicy", "trimtab-console")["spec"]
    assert [[port["port"] for port in rule["ports"]] for rule in policy["egress"][2:]] == [[8443], [8333]]
    plain = {"console": {**ENABLED["console"], "oidc": {**OIDC, "issuer": "https://login.example.com"}}}
    assert Rendered(plain).one("NetworkPolicy", "trimtab-console")["spec"]["egress"][2]["ports"][0]["port"] == 443


def test_no_secret_is_in_the_deployment() -> None:
    values = {"console": {**SIGNS_IN["console"], "storage": {"secretName": "reader"}}}
    container = Rendered(values).one("Deployment", "trimtab-console")["spec"]["template"]["spec"]["containers"][0]
    assert [each.keys() for each in container["env"]] == [{"name", "valueFrom"}]
    assert "secret" not in str(container["args"])


def test_an_issuer_without_a_client_is_refused() -> None:
    with pytest.raises(HelmError, match=r"console\.oidc\.clientId is empty"):
        Rendered({"console": {**ENABLED["console"], "oidc": {"issuer": "https://login.example.com"}}})


FORMS: dict[str, Any] = {"replicas": 2, "formKeySecretName": "forms"}
GIVEN: dict[str, Any] = {"preferences": {"uri": "s3://feedback/rows", "secretName": "giver"}}


def test_two_of_it_share_the_key_of_their_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    from trimtab.console import __main__ as program
    from trimtab.console import serving

    rendered = Rendered({"console": {**ENABLED["console"], **FORMS}})
    deployment = rendered.one("Deployment", "trimtab-console")
    assert deployment["spec"]["replicas"] == 2
    budget = rendered.one("PodDisruptionBudget", "trimtab-console")["spec"]
    assert budget["selector"] == deployment["spec"]["selector"]
    (variable,) = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    served: list[Any] = []
    monkeypatch.setattr(serving, "serve_cluster", lambda *_, form_key, **__: served.append(form_key))
    monkeypatch.setattr("sys.argv", ["console", "--host=a", "--api-server=https://a"])
    monkeypatch.setenv(variable["name"], "0" * 32)
    program.main()
    assert served == [b"0" * 32]
    monkeypatch.setenv(variable["name"], "short")
    with pytest.raises(SystemExit, match="has 5 bytes: give 32 random ones or more"):
        program.main()
    assert not [each for each in Rendered(ENABLED).all("PodDisruptionBudget") if "console" in each["metadata"]["name"]]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"replicas": 2}, r"without console\.formKeySecretName"),
        ({**FORMS, "oidc": OIDC}, r"with console\.oidc\.issuer: who has signed in is in the memory of one pod"),
        ({"preferences": {"uri": "s3://feedback/rows"}}, r"console\.preferences needs both"),
        ({"preferences": {"secretName": "giver"}}, r"console\.preferences needs both"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_with_the_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(HelmError, match=reason):
        Rendered({"console": {**ENABLED["console"], **changes}})


def test_preferences_are_stored_with_keys_of_their_own_by_who_may_edit() -> None:
    from trimtab.console.preferences import PREFIX, Preferences

    rendered = Rendered({"console": {**ENABLED["console"], **GIVEN, "storage": {"secretName": "reader"}}})
    container = rendered.one("Deployment", "trimtab-console")["spec"]["template"]["spec"]["containers"][0]
    sources = {each["prefix"]: each["secretRef"]["name"] for each in container["envFrom"]}
    assert sources == {"TRIMTAB_CONSOLE_STORAGE_": "reader", PREFIX: "giver"}
    told = {each["name"]: each["value"] for each in container["env"]}
    found = Preferences.of(told | {f"{PREFIX}AWS_ACCESS_KEY_ID": "a", f"{PREFIX}AWS_SECRET_ACCESS_KEY": "b"})
    assert found is not None
    assert found.address("a", "b", "Preference") == "s3://feedback/rows/a/b/pairs/"
    role = rendered.one("ClusterRole", "trimtab:trimtab-system:preference-giver")
    assert role["rules"] == [
        {"apiGroups": ["trimtab.dev"], "resources": ["adapterrollouts/preferences"], "verbs": ["create"]}
    ]
    marks = {name for name in role["metadata"]["labels"] if "aggregate-to" in name}
    assert {name.rpartition("/")[2] for name in marks} == {"aggregate-to-edit", "aggregate-to-admin"}
    without = Rendered({"console": {**ENABLED["console"], **GIVEN}, "rbac": {"aggregate": False}})
    assert not [each for each in without.all("ClusterRole") if "preference-giver" in each["metadata"]["name"]]
