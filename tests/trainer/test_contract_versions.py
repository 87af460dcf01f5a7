"""Operator and images of different versions: what is said may grow, what is asked for is understood or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, ValidationError
from trimtab_trainer.__main__ import USAGE, main
from trimtab_trainer.config import read_found
from trimtab_trainer.contract import (
    CONTRACT_VERSION,
    PACKED_OUTCOME_BYTES,
    Artifact,
    Check,
    EvaluationOutcome,
    ExitCode,
    Prepared,
    PreparedEvaluation,
    Progress,
    Reason,
    Result,
    RunConfig,
    Stage,
    Summary,
    TerminationMessage,
    TrainingSettings,
    run_digest,
)
from trimtab_trainer.contract.evaluation import outcome as outcome_contract

from tests.trainer.tiny import tiny_rows, write_rows

DIGEST = "sha256:" + "1" * 64
PREPARED = Prepared(
    base_model_digest=DIGEST, rows_digest=DIGEST, view_digest=DIGEST, run_digest=DIGEST, rows=7, tokens=9
)
OUTCOME = EvaluationOutcome(
    report_uri="s3://b/report.html",
    results_digest=DIGEST,
    results=[Result(task="a", metric="perplexity", value=2.0)],
    checks=[Check(threshold=0, bound="maximum", estimate=2.0)],
)
WORDS = TerminationMessage(
    stage=Stage.TRAIN,
    run_uid="1b4e28ba",
    attempt=2,
    reason=Reason.COMPLETED,
    prepared=PREPARED,
    artifact=Artifact(uri="s3://b/a", digest=DIGEST, rank=8, target_modules=["q_proj"], base_model_digest=DIGEST),
    summary=Summary(step=5),
    prepared_evaluation=PreparedEvaluation(
        evaluation_digest=DIGEST, data_digest=DIGEST, base_model_digest=DIGEST, tasks=1, rows=2
    ),
    packed_outcome=OUTCOME.pack(PACKED_OUTCOME_BYTES),
)


def grown(value: Any) -> Any:
    """Return a JSON value in which every object says something more."""
    if isinstance(value, dict):
        return {**{key: grown(each) for key, each in value.items()}, "saidLater": {"much": [1, 2]}}
    return [grown(each) for each in value] if isinstance(value, list) else value


# What the trainer says


def test_success_is_success_however_much_more_a_later_trainer_says() -> None:
    later = {**grown(WORDS.to_json()), "version": f"{CONTRACT_VERSION}.1"}
    read = TerminationMessage.decode(json.dumps(later))
    assert read is not None
    assert read.model_copy(update={"version": CONTRACT_VERSION}) == WORDS
    assert read.outcome == OUTCOME


BESIDE: dict[str, dict[str, Any]] = {
    "a warning with more to it": {"warnings": [{"code": "w1", "text": "slow"}, "a plain one"]},
    "warnings that are no list": {"warnings": "slow"},
    "a message in several languages": {"message": {"en": "done"}},
    "no message": {"message": None},
    "a pause that is no whole number": {"retryAfterSeconds": 1.5},
    "a pause of the past": {"retryAfterSeconds": -1},
    "no summary": {"summary": None},
    "another summary": {"summary": [5]},
    "a name of a device that is long": {"summary": {"ranks": [{"device": "H" * 500}]}},
    "ranks of another form": {"summary": {"ranks": {"0": "H200"}}},
    "ranks of a larger world": {"summary": {"ranks": [{}] * 1025}},
    "modules with more to them": {"artifact": {**WORDS.to_json()["artifact"], "targetModules": [{"name": "q"}, "v"]}},
}


@pytest.mark.parametrize("said", BESIDE.values(), ids=BESIDE)
def test_success_is_success_whatever_is_said_beside_it(said: dict[str, Any]) -> None:
    read = TerminationMessage.decode(json.dumps({**WORDS.to_json(), **said}))
    assert read is not None
    assert read.artifact is not None
    assert (read.reason, read.artifact.digest, read.outcome) == (Reason.COMPLETED, DIGEST, OUTCOME)
    assert TerminationMessage.decode(read.encode()) == read


def test_a_rank_that_cannot_be_read_makes_no_whole_model_of_an_adapter() -> None:
    said = {**WORDS.to_json(), "artifact": {**WORDS.to_json()["artifact"], "rank": "8"}}
    read = TerminationMessage.decode(json.dumps({**said, "artifact": {**said["artifact"], "rank": {"all": 8}}}))
    assert read is None


def test_a_reason_of_a_later_trainer_is_kept_as_its_word() -> None:
    read = TerminationMessage.decode(json.dumps({**WORDS.to_json(), "reason": "NodeTooHot"}))
    assert read is not None
    assert (read.reason, read.reason.value) == ("NodeTooHot", "NodeTooHot")
    assert read.reason not in list(Reason)
    assert TerminationMessage.decode(read.encode()) == read


@pytest.mark.parametrize("reason", ["", "lower", "two words", "X" * 65, 'Quote"', "Line\nBreak", None, 3])
def test_what_is_no_word_is_no_reason(reason: Any) -> None:
    assert TerminationMessage.decode(json.dumps({**WORDS.to_json(), "reason": reason})) is None


@pytest.mark.parametrize("version", ["trimtab.dev/run/v2", "trimtab.dev/run/v12", "", "v1", None, 1])
def test_words_of_another_contract_are_none(version: Any) -> None:
    assert TerminationMessage.decode(json.dumps({**WORDS.to_json(), "version": version})) is None


def test_an_outcome_of_a_later_trainer_has_more_columns_and_more_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        for name in ("_RESULT_COLUMNS", "_CHECK_COLUMNS"):
            columns = getattr(outcome_contract, name)
            later.setattr(outcome_contract, name, (*columns, columns[0]))
        unknown = OUTCOME.checks[0].model_copy(update={"bound": "minimumSpread"})
        packed = OUTCOME.model_copy(update={"checks": [*OUTCOME.checks, unknown]}).pack(PACKED_OUTCOME_BYTES)
    assert EvaluationOutcome.unpack(packed) == OUTCOME


def test_progress_of_a_later_trainer_is_read() -> None:
    said = {"runUid": "u", "attempt": 0, "stage": "train", "activity": "Merging", "step": 3, "queue": {"length": 2}}
    assert Progress.model_validate_json(json.dumps(said)).activity == "Merging"


def test_what_a_later_prepare_found_is_taken(tmp_path: Path) -> None:
    assert read_found(json.dumps(grown(PREPARED.to_json())), Prepared) == PREPARED


# What the operator asks for


class LaterSettings(TrainingSettings):
    """The settings of a version that has one more, at whose default everything is as it was."""

    noise: float = Field(default=0.0, exclude_if=lambda value: value == 0.0)


class LaterConfig(RunConfig):
    training: LaterSettings = LaterSettings()


@pytest.fixture
def document(tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    write_rows(tmp_path / "data/a.jsonl", tiny_rows(20))
    return {
        "baseModel": {"uri": tiny_model.as_uri()},
        "dataset": {"training": {"uri": (tmp_path / "data/a.jsonl").as_uri()}},
        "output": {"uri": (tmp_path / "out").as_uri()},
        "training": {"maxSequenceLength": 128},
    }


def run(folder: Path, document: dict[str, Any], *more: str) -> tuple[int, TerminationMessage]:
    (folder / "run.json").write_text(json.dumps(document))
    log = folder / "last.json"
    code = main(["prepare", "--config", str(folder / "run.json"), "--termination-log", str(log), *more])
    words = TerminationMessage.decode(log.read_text())
    assert words is not None
    return code, words


def test_a_later_setting_at_its_default_is_not_written_and_changes_no_digest(document: dict[str, Any]) -> None:
    now, later = RunConfig.model_validate(document), LaterConfig.model_validate(document)
    assert later.to_json() == now.to_json()
    assert run_digest(later, DIGEST, DIGEST) == run_digest(now, DIGEST, DIGEST), "nothing is trained again"


def test_a_later_setting_that_matters_is_refused_by_name(document: dict[str, Any], tmp_path: Path) -> None:
    document["training"]["noise"] = 0.1
    code, words = run(tmp_path, LaterConfig.model_validate(document).to_json())
    assert (code, words.reason) == (ExitCode.SETTINGS_INVALID, Reason.SETTINGS_INVALID)
    assert "training.noise: " in words.message
    assert "take the trainer image of the operator's version" in words.message


def test_a_later_value_is_refused_by_name(document: dict[str, Any], tmp_path: Path) -> None:
    document["training"]["optimizer"] = "Muon"
    code, words = run(tmp_path, document)
    assert code == ExitCode.SETTINGS_INVALID
    assert "training.optimizer: " in words.message
    assert "take the trainer image of the operator's version" in words.message


def test_a_later_contract_is_refused_and_a_minor_version_of_this_one_is_not(
    document: dict[str, Any], tmp_path: Path
) -> None:
    code, words = run(tmp_path, {**document, "version": "trimtab.dev/run/v2"})
    assert code == ExitCode.SETTINGS_INVALID
    assert "version 'trimtab.dev/run/v2', and this trainer reads trimtab.dev/run/v1" in words.message
    assert run(tmp_path, {**document, "version": "trimtab.dev/run/v1.7"})[0] == ExitCode.DONE
    with pytest.raises(ValidationError, match="this trainer reads"):
        RunConfig.model_validate({**document, "version": "trimtab.dev/run/v2"})


ARGUMENTS = {
    "an option": ["--ranks", "4"],
    "an option without a value": ["--resume-exactly"],
    "a value": ["--progress-port", "unix:/run/progress"],
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_of_a_later_operator_are_refused_by_name(
    document: dict[str, Any], tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ARGUMENTS[name]
    code, words = run(tmp_path, document, "--attempt", "3", *more)
    assert (code, words.reason) == (ExitCode.SETTINGS_INVALID, Reason.SETTINGS_INVALID)
    assert (words.stage, words.attempt) == (Stage.PREPARE, 3)
    assert more[0] in words.message
    assert json.loads(capsys.readouterr().out)["reason"] == "SettingsInvalid"


def test_a_stage_of_a_later_operator_is_refused_by_name(tmp_path: Path) -> None:
    log = tmp_path / "last.json"
    assert main(["distill", "--termination-log", str(log), "--attempt", "1"]) == ExitCode.SETTINGS_INVALID
    words = TerminationMessage.decode(log.read_text())
    assert words is not None
    assert "'distill'" in words.message


def test_a_person_is_shown_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", "run.yaml", "--retries", "3"]) == USAGE
    told = capsys.readouterr()
    assert "usage: trimtab-trainer" in told.err
    assert "--retries" in told.err
    assert not told.out
