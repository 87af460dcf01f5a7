"""Asking base and adapter the same question."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from trimtab_trainer.command import ask
from trimtab_trainer.contract import StoredBaseModel
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.storage import ObjectDamaged

from .stage import StageRun, stage_run


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[StageRun, str]:
    run = stage_run(tmp_path_factory.mktemp("asked"), training={"maxSteps": 8, "learningRate": 0.01})
    return run, run.train()[0].uri


def test_both_answer_and_differ(done: tuple[StageRun, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, uri = done
    parser = argparse.ArgumentParser()
    ask.add_arguments(parser)
    question = "What is field 3 for?"
    options = ["--base-model", run.config.base_model.uri, "--adapter", uri, "--question", question]
    ask.run(parser.parse_args([*options, "--max-new-tokens", "12"]))
    text = capsys.readouterr().out
    assert text.startswith(question)
    assert "base model" in text
    (answers,) = ask.ask(run.config.base_model, uri, None, [question], 12, tmp_path)
    assert answers.base != answers.adapter


def test_a_damaged_adapter_does_not_answer(done: tuple[StageRun, str], tmp_path: Path) -> None:
    import shutil

    run, uri = done
    copy = tmp_path / "copy"
    shutil.copytree(uri.removeprefix("file://"), copy)
    weights = copy / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ObjectDamaged):
        ask.ask(run.config.base_model, f"file://{copy}", None, ["?"], 4, tmp_path / "scratch")


def test_what_does_not_belong_together_is_refused(done: tuple[StageRun, str], tmp_path: Path) -> None:
    run, uri = done
    other = StoredBaseModel(uri=run.config.base_model.uri, digest="sha256:" + "1" * 64)
    with pytest.raises(SettingsInvalid, match="belongs to the base model"):
        ask.ask(other, uri, None, ["?"], 4, tmp_path / "a")
    with pytest.raises(SettingsInvalid, match="there is no adapter at"):
        ask.ask(run.config.base_model, f"{uri}0", None, ["?"], 4, tmp_path / "b")


def test_side_by_side_is_two_columns_of_plain_text() -> None:
    answers = ask.Answers("Why?", "Because of many things that make a long line.", "It\nis so.")
    assert ask.side_by_side(answers, 43).splitlines() == [
        "Why?",
        "",
        "base model           | with adapter",
        "---------------------+---------------------",
        "Because of many      | It",
        "things that make a   | is so.",
        "long line.           |",
    ]
