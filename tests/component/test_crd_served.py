"""What people and programs see of a FineTuneJob on a real API server: defaults, columns, explanations."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from trimtab_operator.api import parse
from trimtab_operator.api.finetunejob import FineTuneJobSpec
from trimtab_operator.api.reference import fields

from tests.component.api_server import ApiServer
from tests.component.crd_samples import FULL, MINIMAL, STATUS, VARIANTS, Body, change
from tests.component.test_crd_rules import ROOT

pytestmark = pytest.mark.cluster


@pytest.fixture
def url(namespace: str) -> str:
    return f"/apis/trimtab.dev/v1alpha1/namespaces/{namespace}/finetunejobs"


def kubectl(kubeconfig: Path, *arguments: str) -> str:
    program = kubeconfig.parent / "bin" / "kubectl"
    command = [program if program.exists() else shutil.which("kubectl") or "kubectl", "--kubeconfig", kubeconfig]
    return subprocess.run([*command, *arguments], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("sample", [MINIMAL, *VARIANTS], ids=["minimal", "fractions", "uris", "folds"])
def test_the_server_fills_in_what_the_models_do(server: ApiServer, url: str, sample: Body) -> None:
    """The trainer's defaults, the models' and the schema's are one: a run on a laptop is the run in a cluster."""
    answer = server.create(url, sample)
    assert answer.accepted, answer.message
    assert parse(answer.body).spec == FineTuneJobSpec.model_validate(sample["spec"])


def test_the_server_fills_in_nothing_else_for_the_smallest_object(server: ApiServer, url: str) -> None:
    spec = server.create(url, MINIMAL).body["spec"]
    assert spec["lora"] == {"rank": 16, "alpha": 32, "dropout": 0.05, "targetModules": ["all-linear"]}
    assert spec["template"] == {"terminationGracePeriodSeconds": 120}
    assert "earlyStopping" not in spec["training"]


def test_a_status_is_kept_apart_from_the_spec(server: ApiServer, url: str) -> None:
    created = server.create(url, {**MINIMAL, "status": STATUS}).body
    assert "status" not in created
    written = server.replace(f"{url}/sample/status", {**created, "spec": FULL["spec"], "status": STATUS}).body
    assert written["status"] == STATUS
    assert written["spec"] == created["spec"]
    assert written["metadata"]["generation"] == 1


def test_an_object_survives_apply_and_re_apply(server: ApiServer, url: str) -> None:
    first = server.apply(f"{url}/sample", FULL)
    again = server.apply(f"{url}/sample", FULL)
    assert first.accepted, first.message
    assert again.body["metadata"]["resourceVersion"] == first.body["metadata"]["resourceVersion"]


def test_get_tells_the_story_in_one_line(server: ApiServer, kubeconfig: Path, namespace: str, url: str) -> None:
    created = server.create(url, MINIMAL).body
    server.replace(f"{url}/sample/status", change({**created, "status": STATUS}, {}))
    head, line = kubectl(kubeconfig, "-n", namespace, "get", "ftj").splitlines()
    assert head.split() == ["NAME", "STATE", "PROGRESS", "LOSS", "STEP", "ADAPTER", "AGE"]
    assert line.split()[:-1] == ["sample", "Training", "50%", "2.500", "1/2", "000000000000"]
    head, line = kubectl(kubeconfig, "-n", namespace, "get", "trimtab", "-o", "wide").splitlines()
    assert head.split()[-3:] == ["MESSAGE", "ATTEMPT", "RANK"]
    assert line.split()[-3:] == ["a", "0", "16"]


def test_explain_is_complete(kubeconfig: Path) -> None:
    listed = kubectl(kubeconfig, "explain", "finetunejob", "--recursive")
    sections = {path for path, node, _ in fields(ROOT) if "properties" in node and path.count(".") < 2}
    for section in sorted(sections - {"metadata"}):
        text = kubectl(kubeconfig, "explain", f"finetunejob.{section}")
        assert "<no description>" not in text, section
        assert "<empty>" not in text, section
    for path, _, _ in fields(ROOT):
        assert path.rpartition(".")[2] in listed
