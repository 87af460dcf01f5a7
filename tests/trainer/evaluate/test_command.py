"""`trimtab-trainer prepare|evaluate`: local files in, a report, a table and last words out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from trimtab_trainer.__main__ import main
from trimtab_trainer.contract import Check, EvaluationOutcome, ExitCode, Reason, Result, Stage, TerminationMessage
from trimtab_trainer.contract.outcome import PACKED_OUTCOME_BYTES, TERMINATION_MESSAGE_BYTES
from trimtab_trainer.evaluate import stage as stage_module
from trimtab_trainer.evaluate.reporting.terminal import table

from tests.trainer.evaluate.stage import Trained, document, evaluation, trained
from tests.trainer.tiny import write_rows


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("trained"))


def write(folder: Path, value: Any) -> Path:
    file = folder / "evaluation.yaml"
    file.write_text(yaml.safe_dump(value))
    return file


def command(folder: Path, value: Any, *more: str, stage: str = "evaluate") -> list[str]:
    return [stage, "--config", str(write(folder, value)), "--scratch", str(folder / "scratch"), *more]


def last_words(file: Path) -> TerminationMessage:
    message = TerminationMessage.decode(file.read_text())
    assert message is not None
    assert len(file.read_bytes()) <= TERMINATION_MESSAGE_BYTES
    return message


def start(arguments: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "trimtab_trainer", *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )


def test_on_a_laptop_one_command_prepares_evaluates_and_prints_what_it_found(made: Trained, tmp_path: Path) -> None:
    value = document(made, tmp_path / "output")
    del value["version"]
    with start(command(tmp_path, value)) as process:
        output = process.communicate(timeout=300)[0]
    assert process.returncode == ExitCode.DONE, output
    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert [event["message"] for event in events][-1] == "published"
    assert all(event["run"] == "team/guide" and event["stage"] == "evaluate" for event in events)
    text = [line for line in output.splitlines() if not line.startswith("{")]
    figures, checks = text[: text.index("", 1)], text[text.index("", 1) :]
    shown = [line.split() for line in figures if line.startswith("heldout/perplexity")]
    assert [(line[3], line[5]) for line in shown] == [("..", "15")]
    assert float(shown[0][1]) < float(shown[0][6]) / 4
    bounds = [line.split()[1] for line in checks if line.startswith("kinds/accuracy")]
    assert bounds == ["minimum", "maximumRegression", "maximumGroupGap"]
    report = Path(text[-1].removeprefix("report: file://"))
    assert report.name == "report.html"
    assert "heldout" in report.read_text()


def test_in_a_pod_prepare_tells_of_files_that_are_not_read(made: Trained, tmp_path: Path) -> None:
    folder, log = tmp_path / "rows", tmp_path / "last"
    write_rows(folder / "a.jsonl", [{"prompt": f"Question {n}?", "completion": f"Answer {n}."} for n in range(20)])
    (folder / "b.arrow").write_bytes(b"rows")
    task = {"name": "own", "type": "Generation", "dataset": {"uri": f"{folder.as_uri()}/"}}
    value = document(made, tmp_path / "output", tasks=[task], thresholds=[])
    assert main(command(tmp_path, value, "--termination-log", str(log), stage="prepare")) == ExitCode.DONE
    (warning,) = last_words(log).warnings
    assert warning.startswith("1 of the files at file://")
    assert "are not read: b.arrow" in warning


def test_in_a_pod_prepare_and_evaluate_are_two_processes_with_last_words(
    made: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value, log = document(made, tmp_path / "output"), tmp_path / "last"
    assert main(command(tmp_path, value, "--termination-log", str(log), stage="prepare")) == ExitCode.DONE
    first = last_words(log)
    assert (first.stage, first.reason, first.packed_outcome) == (Stage.PREPARE, Reason.COMPLETED, None)
    assert first.prepared_evaluation is not None
    assert first.prepared_evaluation.rows == 94
    assert first.warnings == ()
    (tmp_path / "prepared.json").write_text(json.dumps(first.prepared_evaluation.to_json()))
    capsys.readouterr()
    more = ["--prepared", str(tmp_path / "prepared.json"), "--termination-log", str(log), "--attempt", "2"]
    assert main(command(tmp_path, value, *more)) == ExitCode.DONE
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("{") for line in lines)  # no table among the events that a cluster collects
    assert "base model checked" not in [json.loads(line)["message"] for line in lines]
    second = last_words(log)
    assert (second.stage, second.attempt, second.run_uid) == (Stage.EVALUATE, 2, "1b4e28ba")
    assert second.prepared_evaluation == first.prepared_evaluation
    assert second.outcome is not None
    assert len(second.outcome.results) == 27
    assert second.outcome.report_uri.startswith("file://")
    # What is done is told by prepare: no second Job is needed for it.
    assert main(command(tmp_path, value, "--termination-log", str(log), stage="prepare")) == ExitCode.DONE
    assert last_words(log).outcome == second.outcome


def test_a_process_that_is_terminated_exits_14_and_the_next_one_goes_on(made: Trained, tmp_path: Path) -> None:
    value = document(made, tmp_path / "output")
    arguments = command(tmp_path, value, "--termination-log", str(tmp_path / "last"))
    with start(arguments) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "task asked" in line:
                process.terminate()
                break
        rest = process.stdout.read()
        assert process.wait(timeout=60) == ExitCode.INTERRUPTED, rest
    assert last_words(tmp_path / "last").reason is Reason.INTERRUPTED
    asked = 1 + rest.count('"task asked"')
    assert asked < 10
    with start(arguments) as process:
        output = process.communicate(timeout=300)[0]
    assert process.returncode == ExitCode.DONE, output
    assert output.count("task was asked before") >= asked
    words = last_words(tmp_path / "last")
    straight = evaluation(made, tmp_path / "straight").evaluate()
    assert words.outcome is not None
    assert words.outcome.results_digest == straight.results_digest


def test_a_signal_while_torch_is_imported_or_rows_are_prepared_ends_it(
    made: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on")

    monkeypatch.setattr(stage_module, "evaluate", told)
    log = tmp_path / "last"
    arguments = command(tmp_path, document(made, tmp_path / "output"), "--termination-log", str(log))
    assert main(arguments) == ExitCode.INTERRUPTED
    assert last_words(log).stage is Stage.EVALUATE


KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "an evaluation is not trained": (
        "train",
        {},
        "is the configuration of an evaluation; run `trimtab-trainer evaluate`",
    ),
    "a run is not evaluated": (
        "evaluate",
        {"version": "trimtab.dev/run/v1"},
        "is the configuration of a training run; run `trimtab-trainer train`",
    ),
    "a version of tomorrow": (
        "evaluate",
        {"version": "trimtab.dev/evaluation/v9"},
        "this trainer reads trimtab.dev/run/v1 and trimtab.dev/evaluation/v1; take the trainer image",
    ),
    "a field that does not exist": ("evaluate", {"target": {"url": "x"}}, "target.url: Extra inputs"),
    "a threshold without a task": (
        "evaluate",
        {"thresholds": [{"metric": "other/accuracy", "minimum": 1}]},
        "there is no task 'other'",
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_wrong_configuration_is_refused_in_words(
    made: Trained, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stage, changes, words = KINDS[name]
    assert main(command(tmp_path, document(made, tmp_path / "output", **changes), stage=stage)) == 10
    event = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert words in event["error"]


def test_what_prepare_found_must_be_of_an_evaluation(
    made: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(tmp_path, document(made, tmp_path / "output"), "--prepared", '{"rows": 3}')
    assert main(arguments) == ExitCode.SETTINGS_INVALID
    assert "--prepared: evaluationDigest: Field required" in capsys.readouterr().out


def outcome(tasks: int, checks: int) -> EvaluationOutcome:
    return EvaluationOutcome(
        report_uri="s3://bucket/" + "x" * 400,
        results_digest="sha256:" + "0" * 64,
        rows=10,
        results=[
            Result(
                task=f"task-{number}-{'n' * 30}", metric="accuracy", value=number / 7, low=number / 11,
                high=number / 13, count=100 + number, baseline=number / 17, change=number / 19,
                change_low=number / 23, change_high=0.1,
            )
            for number in range(tasks)
        ],
        checks=[
            Check(
                threshold=number // 3, bound="maximumRegression", estimate=number / 7, p_pass=number / 1100,
                p_fail=number / 1300, rows_needed=number, low=number / 17, worst="g" * 40, best="h" * 40,
            )
            for number in range(checks)
        ],
    )  # fmt: skip


@pytest.mark.parametrize(("tasks", "checks"), [(1, 1), (50, 32), (50, 96)])
def test_last_words_fit_whatever_was_found(tasks: int, checks: int) -> None:
    found = outcome(tasks, checks)
    message = TerminationMessage(
        stage=Stage.EVALUATE, run_uid="u" * 36, attempt=0, reason=Reason.COMPLETED, message="m" * 5000,
        packed_outcome=found.pack(PACKED_OUTCOME_BYTES),
    )  # fmt: skip
    text = message.encode()
    assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    decoded = TerminationMessage.decode(text)
    assert decoded is not None
    assert decoded.outcome is not None
    assert len(decoded.outcome.checks) == checks
    assert decoded.outcome.omitted == tasks - len(decoded.outcome.results)


def test_the_table_shows_what_is_missing_as_missing(made: Trained, tmp_path: Path) -> None:
    run = evaluation(made, tmp_path)
    found = outcome(2, 3).model_copy(update={"omitted": 7})
    found = found.model_copy(update={"results": [*found.results, Result(task="none", metric="bleu")]})
    lines = table(run.config, found).splitlines()
    assert [line.split() for line in lines if line.startswith("none/")] == [["none/bleu", "-", "-", "0", "-", "-"]]
    assert "and 7 more in the report" in lines
    assert [line.split()[2:] for line in lines if "maximumRegression" in line] == [
        ["0.5", "0", "0"],
        ["0.5", "0.1429", "1"],
        ["0.5", "0.2857", "2"],
    ]
    assert lines[-1].startswith("report: s3://bucket/x")
