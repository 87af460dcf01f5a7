"""The files of a search: what the Job of a sweep writes, what a folder of runs says, and what is no trial."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.__main__ import main
from trimtab_trainer.contract import Credentials, ExitCode, Reason, Stage, StoredOutput, TerminationMessage
from trimtab_trainer.contract.curve import CURVE_BYTES, POINTS, Curve
from trimtab_trainer.contract.sweeps.record import RECORD_BYTES, RecordedObjective, SweepRecord
from trimtab_trainer.contract.sweeps.settings import Direction
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.storage import open_store
from trimtab_trainer.sweep.files import read_place
from trimtab_trainer.sweep.importance import LEAST_TRIALS, importance_of

from tests.trainer.markup import Page

from .records import record, trials

PREFIX = "sweeps/field-guide-01234567"


def told(file: Path) -> TerminationMessage:
    words = TerminationMessage.decode(file.read_text())
    assert words is not None
    return words


def stage(tmp_path: Path, document: Any) -> tuple[int, TerminationMessage]:
    """Run the `report` stage as a pod does; return its exit code and last words."""
    config, log = tmp_path / "run.json", tmp_path / "last"
    config.write_text(json.dumps(document))
    arguments = ["report", "--config", str(config), "--attempt", "1", "--termination-log", str(log)]
    code = main([*arguments, "--scratch", str(tmp_path / "scratch"), "--progress-port", "0"])
    return code, told(log)


def test_the_stage_writes_both_files_into_the_output(tmp_path: Path) -> None:
    made = record(output=StoredOutput(uri=f"file://{tmp_path}/output"))
    code, words = stage(tmp_path, made.to_json())
    page = tmp_path / "output" / PREFIX / "sweep.html"
    assert (code, words.reason, words.stage) == (ExitCode.DONE, Reason.COMPLETED, Stage.REPORT)
    assert (words.message, words.attempt, words.run_uid) == (f"file://{page}", 1, "01234567-89ab")
    assert "Sweep field-guide" in Page.of(page.read_text()).text
    lines = (page.parent / "trials.jsonl").read_text().splitlines()
    assert len(lines) == 40
    assert json.loads(lines[0]).keys() >= {"id", "parameters", "value", "standardError", "curve", "metric", "direction"}
    assert stage(tmp_path, made.to_json())[0] == ExitCode.DONE, "and over what was written before"


BAD: dict[str, tuple[dict[str, Any], Reason, str]] = {
    "of a later contract": ({"version": "trimtab.dev/sweep/v2"}, Reason.SETTINGS_INVALID, "trimtab.dev/sweep/v1"),
    "a field that is not known": ({"surprise": 1}, Reason.SETTINGS_INVALID, "surprise"),
    "without an output": ({"output": None}, Reason.SETTINGS_INVALID, "no output"),
    "keys that are missing": (
        {"output": {"uri": "s3://bucket/b", "credentials": {"directory": "/nowhere", "secretName": "storage"}}},
        Reason.CREDENTIALS_MISSING,
        "storage",
    ),
}


@pytest.mark.parametrize(("changes", "reason", "words"), BAD.values(), ids=BAD)
def test_what_it_cannot_do_is_named(tmp_path: Path, changes: dict[str, Any], reason: Reason, words: str) -> None:
    document = record(output=StoredOutput(uri="s3://bucket/b")).to_json() | changes
    code, last = stage(tmp_path, {key: value for key, value in document.items() if value is not None})
    assert (code, last.reason) == (ExitCode.SETTINGS_INVALID, reason)
    assert words in last.message


def test_no_secret_is_in_a_record() -> None:
    keys = Credentials(directory="/run/trimtab/secrets/output", secret_name="storage")
    made = record(output=StoredOutput(uri="s3://bucket/b", credentials=keys))
    assert SweepRecord.model_validate(json.loads(json.dumps(made.to_json()))) == made


def test_a_record_of_two_hundred_trials_fits_into_a_configmap() -> None:
    every = tuple(range(POINTS))
    long = Curve(steps=every, loss=(1.234,) * POINTS, validation_steps=every, validation_loss=(1.234,) * POINTS)
    assert long.size > CURVE_BYTES * 3 // 4
    full = [each.model_copy(update={"curve": long}) for each in trials(200)]
    made = SweepRecord(trials=[each.model_copy(update={"id": f"{n:08x}"}) for n, each in enumerate(full * 4)])
    assert len(json.dumps(made.to_json())) > RECORD_BYTES
    fitting = made.fitting()
    assert len(json.dumps(fitting.to_json())) <= RECORD_BYTES
    assert len(fitting.trials) == 800
    assert record(40).fitting() == record(40)


def test_a_folder_of_a_sweep_is_read_as_it_was_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = record(objective=RecordedObjective(metric="answers/rougeL", direction=Direction.MAXIMIZE))
    (tmp_path / "trials.jsonl").write_text(made.lines())
    found = read_place(open_store(tmp_path.as_uri(), None))
    assert (found.trials, found.objective) == (made.trials, made.objective)
    assert main(["sweep-report", str(tmp_path / "trials.jsonl")]) == 0
    said = capsys.readouterr().out
    best = next(each for each in made.ranked if not each.pruned)
    assert f"the best is {best.id} with answers/rougeL" in said
    page = Page.of((tmp_path / "sweep.html").read_text()).text
    assert "of which more is better" in page
    assert "Importance: training.learningRate" in page, "which Optuna tells here"
    assert (tmp_path / "trials.jsonl").read_text() == made.lines()


def test_what_matters_is_told_of_a_record_as_of_a_search() -> None:
    found = importance_of(record(40))
    assert next(iter(found)) == "training.learningRate"
    assert set(found) == {"training.learningRate", "lora.rank", "baseModel"}
    assert importance_of(record(LEAST_TRIALS - 1)) == {}
    assert importance_of(SweepRecord(trials=trials(40))).keys() == found.keys(), "though nobody declared them"
    assert importance_of(SweepRecord()) == {}


LINES: dict[str, tuple[str, str]] = {
    "no JSON": ("{", "line 2 is no trial: it is no JSON"),
    "no trial": ('{"id": "a"}', "line 2 is no trial: parameters: Field required"),
    "no number": ('{"id": "a", "parameters": {}, "state": "Complete", "value": NaN}', "NaN is no number of JSON"),
    "another metric": (
        '{"id": "a", "parameters": {}, "state": "Complete", "value": 1, "metric": "x"}',
        "has another objective than the first line",
    ),
}


@pytest.mark.parametrize(("line", "words"), LINES.values(), ids=LINES)
def test_a_line_that_is_no_trial_is_named(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "trials.jsonl").write_text(record(1).lines() + line + "\n")
    with pytest.raises(SettingsInvalid) as caught:
        read_place(open_store(tmp_path.as_uri(), None))
    assert words in caught.value.message
    assert str(tmp_path / "trials.jsonl") in caught.value.message


def test_a_place_that_has_neither_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep-report", str(tmp_path)]) == ExitCode.SETTINGS_INVALID
    assert "has no trials.jsonl, and no adapters/*/metrics.json" in capsys.readouterr().err
    assert main(["sweep-report", "s3://bucket/prefix"]) == ExitCode.SETTINGS_INVALID
    assert "--output" in capsys.readouterr().err


def metrics(rate: float, rank: int, loss: float | None, **more: Any) -> dict[str, Any]:
    return {
        "baseModelDigest": "sha256:" + "a" * 64,
        "dataDigest": "sha256:" + "b" * 64,
        "validationLoss": loss,
        "curve": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}],
        "evaluations": [{"step": 2, "loss": loss or 1.0}],
        "settings": {"lora": {"rank": rank}, "training": {"learningRate": rate, "epochs": 1}},
        "cost": {"acceleratorSeconds": 12.5},
        **more,
    }


def test_runs_are_compared_by_the_settings_in_which_they_differ(tmp_path: Path) -> None:
    runs = {"0" * 64: metrics(1e-4, 8, 1.5), "1" * 64: metrics(2e-4, 8, 1.2), "2" * 64: metrics(2e-4, 8, None)}
    runs["3" * 64] = metrics(2e-4, 8, 1.3, dataDigest="sha256:" + "c" * 64)
    for digest, figures in runs.items():
        folder = tmp_path / "adapters" / digest
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(figures))
    found = read_place(open_store(tmp_path.as_uri(), None))
    assert [each.parameters for each in found.trials] == [
        {"dataset": data, "training.learningRate": rate}
        for data, rate in (("b" * 12, 1e-4), ("b" * 12, 2e-4), ("b" * 12, 2e-4), ("c" * 12, 2e-4))
    ]
    assert [each.value for each in found.trials] == [1.5, 1.2, None, 1.3]
    assert found.trials[0].curve is not None
    assert found.trials[0].curve.validation_loss == (1.5,)
    assert found.trials[0].accelerator_seconds == 12.5
    (tmp_path / "adapters" / ("0" * 64) / "metrics.json").write_text("[]")
    with pytest.raises(SettingsInvalid, match="it is no JSON object"):
        read_place(open_store(tmp_path.as_uri(), None))
