"""Manifests for a beginning: the models take them, and answers that are none are refused with what would be one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from trimtab.errors import Invalid
from trimtab.manifests import METHODS, Answers, manifests
from trimtab_operator.api import AdapterExport, AdapterRollout, Evaluation, FineTuneJob, FineTuneSweep

from tests.unit.cli.conftest import Run

SEARCHED: dict[str, Any] = {"trials": 8, "serving": "app=vllm", "export": "s3://models/demo"}
FLAGS = ("--base-model", "s3://models/base", "--data", "s3://rows/", "--output", "s3://out")


def test_the_models_take_what_is_written() -> None:
    text = manifests(Answers("demo", "hf://org/model@main", "s3://rows/", "s3://out", "", gpus=0, serving="app=vllm"))
    job, gate, rollout = [
        {**body, "metadata": {**body["metadata"], "namespace": "x", "uid": "0"}} for body in yaml.safe_load_all(text)
    ]
    FineTuneJob.parse(job)
    Evaluation.parse(gate).spec.check()
    source = AdapterRollout.parse(rollout).spec.source
    assert source.follow is not None
    assert source.follow.selector.match_labels == gate["metadata"]["labels"]
    assert "template" not in job["spec"]
    assert "secretName" not in text


def parsed(answers: Answers) -> dict[str, Any]:
    """Return what the models make of the manifests, by kind."""
    kinds = (AdapterExport, AdapterRollout, Evaluation, FineTuneJob, FineTuneSweep)
    models = {kind.__name__: kind for kind in kinds}
    text = manifests(answers)
    assert "&" not in text
    assert "*" not in text, "an alias, which people do not read"
    bodies = list(yaml.safe_load_all(text))
    for body in bodies:
        body["metadata"] |= {"namespace": "x", "uid": "0"}
    return {body["kind"]: models[body["kind"]].parse(body) for body in bodies}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_run_of_several_pods_and_of_each_method(method: str) -> None:
    found = parsed(Answers("demo", "s3://models", "s3://rows/", "s3://out", nodes=4, method=method))
    assert sorted(found) == ["Evaluation", "FineTuneJob"]
    job, gate = found["FineTuneJob"], found["Evaluation"]
    assert (job.spec.nodes, job.spec.training.method.value) == (4, method)
    gate.spec.check()
    task = gate.spec.tasks[0]
    assert (task.type.value == "Preference") == (method != "SFT")


def test_the_gate_of_a_run_with_several_gpus_has_one() -> None:
    found = parsed(Answers("demo", "s3://models", "s3://rows/", "s3://out", gpus=4, nodes=2))
    gpus = {kind: each.spec.template.resources.limits["nvidia.com/gpu"] for kind, each in found.items()}
    assert gpus == {"FineTuneJob": 4, "Evaluation": 1}
    found["Evaluation"].spec.check()


def test_a_hub_is_asked_as_anybody_or_with_a_secret_of_its_own() -> None:
    hub = ("demo", "hf://org/model@main", "hf://datasets/org/rows@main", "s3://out", "storage")
    spec = parsed(Answers(*hub))["FineTuneJob"].spec
    assert (spec.base_model.secret_name, spec.dataset.secret_name, spec.output.secret_name) == (None, None, "storage")
    spec = parsed(Answers(*hub, hub_secret_name="hub"))["FineTuneJob"].spec
    assert (spec.base_model.secret_name, spec.dataset.secret_name, spec.output.secret_name) == ("hub", "hub", "storage")
    spec = parsed(Answers("demo", "s3://models", *hub[2:], hub_secret_name="hub"))["FineTuneJob"].spec
    assert (spec.base_model.secret_name, spec.dataset.secret_name) == ("storage", "hub")


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_search_is_judged_by_its_final_which_is_followed_and_exported(method: str) -> None:
    found = parsed(Answers("demo", "s3://models", "s3://rows/", "s3://out", method=method, **SEARCHED))
    assert sorted(found) == ["AdapterExport", "AdapterRollout", "FineTuneSweep"]
    sweep = found["FineTuneSweep"]
    sweep.spec.final.evaluation.check()
    assert sweep.spec.max_trials == 8
    follow = found["AdapterRollout"].spec.source.follow
    assert follow.selector.match_labels.items() <= sweep.spec.final.metadata.labels.items()
    export = found["AdapterExport"].spec
    assert (export.source.evaluation_name, export.destination.uri) == ("demo", "s3://models/demo")


def test_flags_give_the_same_as_answers(run: Run) -> None:
    ran = run("new", "demo", *FLAGS, "--gpus", "2", "--secret", "keys")
    assert ran.code == 0
    assert ran.out == manifests(Answers("demo", "s3://models/base", "s3://rows/", "s3://out", "keys", gpus=2))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("Demo", *FLAGS), "the name 'Demo' is none for Kubernetes: take at most 45 small letters"),
        (
            ("demo", *FLAGS, "--base-model", "base"),
            "the base model 'base' is no address that a FineTuneJob takes: write it as s3://",
        ),
        (
            ("demo", *FLAGS, "--output", "hf://a/b"),
            "the output 'hf://a/b' is no address that a FineTuneJob takes: write it as s3://bucket/path\n",
        ),
        (("demo", *FLAGS, "--gpus", "-1"), "the number of GPUs is not 0 to 16: give 1, or 0"),
        (("demo", *FLAGS, "--gpus", "17"), "the number of GPUs is not 0 to 16: give 1, or 0"),
        (("demo", *FLAGS, "--serve", "vllm"), "the label of the serving pods 'vllm' is none: write it as app=vllm"),
        (("demo", *FLAGS, "--nodes", "0"), "the number of nodes is not 1 to 64: give 1, or"),
        (("demo", *FLAGS, "--method", "KTO"), "no method 'KTO': no Evaluation reads the rows that KTO holds out"),
        (("demo", *FLAGS, "--method", "PPO"), "the form knows no method 'PPO': take one of SFT, DPO, ORPO"),
        (("demo", *FLAGS, "--trials", "1"), "the number of trials is not 2 to 200: give 0"),
        (("demo", *FLAGS, "--export", "oci://a/b"), "the export's address 'oci://a/b' is none: write it as s3://"),
        (("demo", *FLAGS, "--secret", "A b"), "the Secret's name 'A b' is none for Kubernetes"),
        (("demo", *FLAGS, "--hub-secret", "A b"), "the Secret's name 'A b' is none for Kubernetes"),
    ],
)
def test_an_answer_that_is_none(arguments: tuple[str, ...], sentence: str, run: Run) -> None:
    ran = run("new", *arguments)
    assert (ran.code, ran.out) == (1, "")
    assert sentence in ran.err


def test_a_name_may_have_45_characters_and_of_a_search_32() -> None:
    manifests(Answers("a" * 32, "s3://models", "s3://rows", "s3://out", trials=2))
    with pytest.raises(Invalid, match="the name of a search has 33 characters"):
        manifests(Answers("a" * 33, "s3://models", "s3://rows", "s3://out", trials=2))
    manifests(Answers("a" * 45, "s3://models", "s3://rows", "s3://out"))
    with pytest.raises(Invalid):
        manifests(Answers("a" * 46, "s3://models", "s3://rows", "s3://out"))


def test_a_script_is_not_asked_and_a_file_is_not_overwritten(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trimtab", "new", "demo"]
    missing = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert missing.returncode == 1
    assert missing.stderr == "error: --base-model is missing: give it, or run this in a terminal to be asked\n"
    file = tmp_path / "there.yaml"
    file.write_text("mine")
    there = subprocess.run([*command, *FLAGS, "-f", file], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert there.returncode == 1
    assert file.read_text() == "mine"


def test_a_person_is_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["demo", "s3://models/base", "s3://rows/", "s3://out", "keys"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", lambda *_, **__: next(answers))
    assert run("new").out == manifests(Answers("demo", "s3://models/base", "s3://rows/", "s3://out", "keys"))
