"""The console of the chart: restricted, without an account, and only where it is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from helm_python import HelmError

from tests.unit.chart.chart import Rendered

ENABLED = {"console": {"enabled": True, "hosts": ["trimtab.example.com"]}}
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

    def serve(address: str, authority: str, namespace: str, hosts: list[str], port: int, *, secure: bool) -> None:
        served.update(address=address, namespace=namespace, hosts=hosts, port=port, secure=secure)

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
    }
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert program.AUTHORITY.startswith(f"{mounts['cluster']}/")
