"""Manifests for a beginning: the models take them, and answers that are none are refused with what would be one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from trimtab.errors import Invalid
from trimtab.manifests import Answers, manifests
from trimtab_operator.api import AdapterRollout, Evaluation, FineTuneJob

from tests.unit.cli.conftest import Run

NO_ADDRESS = "no address that a FineTuneJob takes: write it as"
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
        (("demo", *FLAGS, "--gpus", "-1"), "the number of GPUs is below 0: give 1, or 0"),
        (("demo", *FLAGS, "--serve", "vllm"), "the label of the serving pods 'vllm' is none: write it as app=vllm"),
        (("demo", *FLAGS, "--secret", "A b"), "the Secret's name 'A b' is none for Kubernetes"),
    ],
)
def test_an_answer_that_is_none(arguments: tuple[str, ...], sentence: str, run: Run) -> None:
    ran = run("new", *arguments)
    assert (ran.code, ran.out) == (1, "")
    assert sentence in ran.err


def test_a_name_may_have_45_characters() -> None:
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
