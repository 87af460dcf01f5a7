"""What kustomize makes of the resources with deploy/kustomize/references.yaml: names that it changes are followed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from trimtab_local import binaries

from tests.component.conftest import ROOT

pytestmark = pytest.mark.cluster

Body = dict[str, Any]

STORAGE = {"secretName": "object-storage"}
WORK: list[Body] = [
    {
        "kind": "FineTuneJob",
        "metadata": {"name": "guide"},
        "spec": {
            "baseModel": {"uri": "s3://models/any", **STORAGE},
            "dataset": {"training": {"uri": "s3://datasets/any/"}, **STORAGE},
            "output": {"uri": "s3://adapters/any", **STORAGE},
            "template": {
                "image": "trainer:1",
                "serviceAccountName": "trainer",
                "imagePullSecrets": [{"name": "registry"}],
                "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "A"}}}],
                "volumes": [{"name": "s", "secret": STORAGE}],
            },
        },
    },
    {
        "kind": "Evaluation",
        "metadata": {"name": "guide"},
        "spec": {
            "target": {"fineTuneJobName": "guide"},
            "baseline": {"rolloutName": "guide"},
            "tasks": [{"name": "heldout", "type": "Perplexity", "dataset": {"split": "Test"}}],
            "datasetSecretName": "object-storage",
        },
    },
    {
        "kind": "AdapterRollout",
        "metadata": {"name": "guide"},
        "spec": {
            "adapterName": "guide",
            "source": {"evaluationName": "guide"},
            "serving": {"selector": {"matchLabels": {"app": "vllm"}}},
        },
    },
]
OTHERS: list[Body] = [
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "trainer"}},
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "registry"}},
]
KUSTOMIZATION: Body = {
    "namePrefix": "tuned-",
    "resources": ["work.yaml"],
    "configurations": ["references.yaml"],
    "secretGenerator": [{"name": "object-storage", "literals": ["AWS_ACCESS_KEY_ID=a"]}],
    "configMapGenerator": [{"name": "settings", "literals": ["A=b"]}],
    "images": [{"name": "trainer", "newName": "registry.example/trainer", "newTag": "2"}],
}


def built(folder: Path, kustomization: Body) -> dict[str, Body]:
    """Return what kustomize builds, by kind."""
    shutil.copy(ROOT / "deploy/kustomize/references.yaml", folder)
    objects = [*({"apiVersion": "trimtab.dev/v1alpha1", **body} for body in WORK), *OTHERS]
    (folder / "work.yaml").write_text(yaml.safe_dump_all(objects))
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    kubectl = binaries.ensure(["kubectl"]) / "kubectl"
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=True)
    found = list(yaml.safe_load_all(done.stdout))
    return {f"{body['kind']} {body['metadata']['name']}": body for body in found}


def test_names_that_kustomize_changes_are_followed(tmp_path: Path) -> None:
    objects = built(tmp_path, KUSTOMIZATION)
    (secret,) = [key.split()[1] for key in objects if key.startswith("Secret tuned-object-storage-")]
    (settings,) = [key.split()[1] for key in objects if key.startswith("ConfigMap tuned-settings-")]
    job = objects["FineTuneJob tuned-guide"]["spec"]
    assert {job[section]["secretName"] for section in ("baseModel", "dataset", "output")} == {secret}
    template = job["template"]
    assert template["image"] == "registry.example/trainer:2"
    assert template["serviceAccountName"] == "tuned-trainer"
    assert template["imagePullSecrets"] == [{"name": "tuned-registry"}]
    assert template["env"][0]["valueFrom"]["configMapKeyRef"]["name"] == settings
    assert template["volumes"] == [{"name": "s", "secret": {"secretName": secret}}]
    evaluation = objects["Evaluation tuned-guide"]["spec"]
    assert evaluation["target"] == {"fineTuneJobName": "tuned-guide"}
    assert evaluation["baseline"] == {"rolloutName": "tuned-guide"}
    assert evaluation["datasetSecretName"] == secret
    assert evaluation["tasks"][0]["name"] == "heldout"
    rollout = objects["AdapterRollout tuned-guide"]["spec"]
    assert rollout["source"] == {"evaluationName": "tuned-guide"}
    assert rollout["adapterName"] == "guide", "the name that clients ask for"
