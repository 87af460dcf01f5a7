"""The chart by Helm's own command against a real API server: where definitions are kept, and more than one release."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from trimtab_local import binaries

from tests.component.api_server import ApiServer
from tests.component.conftest import ROOT
from tests.component.reviews import policies
from tests.unit.chart.chart import DIRECTORY, Body

pytestmark = pytest.mark.cluster

ALONE = {"imageRegistry": "registry.example", "agentKey": {"existingSecret": "mine"}}
"""Without the Job that makes a key: no pod runs here, and Helm would wait for it."""
IMPORTED = "cannot be imported"

Helm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def helm(server: ApiServer, tmp_path: Path) -> Helm:
    """Run Helm with a chart's values; it fails the test only where it is asked to."""
    programs = binaries.ensure(["helm", "kubectl"])
    environment = {**os.environ, "KUBECONFIG": str(server.kubeconfig), "HOME": str(tmp_path)}

    def run(*arguments: str, program: str = "helm", check: bool = True, **values: Any) -> Any:
        line = [str(programs / program), *arguments]
        if values:
            (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
            line += ["--values", str(tmp_path / "values.yaml")]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture
def two_namespaces(server: ApiServer) -> Iterator[tuple[str, str]]:
    names = []
    for _ in range(2):
        answer = server.create("/api/v1/namespaces", {"metadata": {"generateName": "team-"}})
        names.append(answer.body["metadata"]["name"])
    yield names[0], names[1]
    for name in names:
        server.delete(f"/api/v1/namespaces/{name}")


@contextmanager
def uninstalled(helm: Helm, server: ApiServer, *releases: tuple[str, str]) -> Iterator[None]:
    """Leave no release behind, whatever happens: the definitions are those of all tests, and policies bind them."""
    try:
        yield
    finally:
        for name, namespace in releases:
            helm("uninstall", name, "-n", namespace, "--ignore-not-found")
        policies.lose_effect(server)


def owner_of_definitions(server: ApiServer) -> set[tuple[str, str]]:
    answer = server.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
    return {
        (annotations["meta.helm.sh/release-name"], annotations["meta.helm.sh/release-namespace"])
        for crd in answer.body["items"]
        if (annotations := crd["metadata"].get("annotations", {})).get("meta.helm.sh/release-name")
    }


def test_definitions_that_are_there_are_taken_over(
    helm: Helm, server: ApiServer, two_namespaces: tuple[str, str]
) -> None:
    """Applied by hand, left by a release of another name, and applied by hand again: the README's commands."""
    first, second = two_namespaces
    with uninstalled(helm, server, ("trimtab", first), ("tuning", second)):
        refused = helm("install", "trimtab", str(DIRECTORY), "-n", first, check=False, **ALONE)
        assert IMPORTED in refused.stderr
        helm("install", "trimtab", str(DIRECTORY), "-n", first, "--take-ownership", **ALONE)
        assert owner_of_definitions(server) == {("trimtab", first)}
        helm("uninstall", "trimtab", "-n", first)
        assert owner_of_definitions(server) == {("trimtab", first)}, "kept, as crds.keep says"
        refused = helm("install", "tuning", str(DIRECTORY), "-n", second, check=False, **ALONE)
        assert IMPORTED in refused.stderr
        helm("install", "tuning", str(DIRECTORY), "-n", second, "--take-ownership", **ALONE)
        assert owner_of_definitions(server) == {("tuning", second)}
        apart = ["apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds")]
        helm(*apart, program="kubectl")
        helm("upgrade", "tuning", str(DIRECTORY), "-n", second, **ALONE)


def test_two_tenants_without_any_right_of_the_cluster(
    helm: Helm, server: ApiServer, two_namespaces: tuple[str, str]
) -> None:
    one, other = two_namespaces
    apart: Body = {**ALONE, "crds": {"enabled": False}}
    own: Body = {**apart, "rbac": {"nodes": False, "aggregate": False}, "admissionPolicies": {"enabled": False}}
    with uninstalled(helm, server, ("trimtab", one), ("trimtab", other)):
        helm("install", "trimtab", str(DIRECTORY), "-n", one, **own, watchNamespaces=[one])
        helm("install", "trimtab", str(DIRECTORY), "-n", other, **apart, watchNamespaces=[other])
        roles = server.get("/apis/rbac.authorization.k8s.io/v1/clusterroles").body["items"]
        names = {role["metadata"]["name"] for role in roles if role["metadata"]["name"].startswith("trimtab:")}
        assert names == {
            f"trimtab:{other}",
            *(
                f"trimtab:{other}:{kind}-{role}"
                for kind in ("finetunejob", "finetunesweep", "evaluation", "adapterrollout", "review", "adapterexport")
                for role in ("viewer", "editor")
            ),
        }


def test_an_upgrade_that_reuses_values_leaves_ids_to_the_cluster(helm: Helm, server: ApiServer, namespace: str) -> None:
    ids: Body = {"runAsUser": None, "runAsGroup": None, "fsGroup": None}
    with uninstalled(helm, server, ("trimtab", namespace)):
        chart = ("trimtab", str(DIRECTORY), "-n", namespace)
        helm("install", *chart, **ALONE, crds={"enabled": False})
        helm("upgrade", *chart, "--reuse-values", podSecurityContext=ids, work={"podSecurityContext": ids})
        deployment = server.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/trimtab").body
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        told = {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}
        assert json.loads(str(told["TRIMTAB_WORK_PODS"]))["securityContext"] == {}


def test_the_job_of_the_key_is_left_out_where_the_secret_is_there(
    helm: Helm, server: ApiServer, namespace: str
) -> None:
    """A proxy that stays in its pod holds up one installation at most, and no upgrade."""
    hooks = ["template", "trimtab", str(DIRECTORY), "-n", namespace, "--dry-run=server"]
    values = {"imageRegistry": "registry.example", "crds": {"enabled": False}}
    assert 'name: "trimtab-agent-key"\n' in helm(*hooks, **values).stdout
    secret = {"metadata": {"name": "trimtab-agent-key"}, "stringData": {"key-1.pem": "a"}}
    assert server.create(f"/api/v1/namespaces/{namespace}/secrets", secret).accepted
    assert "helm.sh/hook" not in helm(*hooks, **values).stdout
