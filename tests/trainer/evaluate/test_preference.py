"""Preference tasks: pairs in, accuracies and margins out, against the base alone and against a baseline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trimtab_trainer.contract import EvaluationTask, Metric, Reason
from trimtab_trainer.errors import DataInvalid, SettingsInvalid
from trimtab_trainer.evaluate.rows import EvaluationRow, RowScore, Sequence
from trimtab_trainer.evaluate.scoring.metrics import measures
from trimtab_trainer.evaluate.scoring.row_by_row import row_by_row

from tests.trainer.evaluate.stage import Trained, evaluation
from tests.trainer.tiny import write_rows
from tests.trainer.train.methods.stage import pairs, preference_run

TASK: dict[str, Any] = {"name": "pairs", "type": "Preference", "dataset": {"split": "Test"}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """An adapter that was taught by DPO what the base does not prefer: the longer of two answers."""
    root = tmp_path_factory.mktemp("preferring")
    training = {"maxSteps": 24, "learningRate": 0.01, "evaluateEverySteps": 24}
    run = preference_run(root, "DPO", 60, turned=True, training=training, lora={"dropout": 0.0})
    return Trained(root, (run.train()[0],))


def figures(folder: Path) -> dict[str, dict[str, Any]]:
    (task,) = json.loads((folder / "results.json").read_text())["tasks"]
    return {each["metric"]: each for each in task["results"]}


def test_an_adapter_is_measured_on_held_out_pairs_against_the_base(made: Trained, tmp_path: Path) -> None:
    thresholds = [{"metric": "pairs/rewardAccuracy", "minimum": 0.9}, {"metric": "pairs/pairAccuracy", "minimum": 0.5}]
    run = evaluation(made, tmp_path, tasks=[TASK], thresholds=thresholds)
    outcome = run.evaluate()
    found = figures(run.folder)
    assert [*found] == ["pairAccuracy", "pairAccuracyNormalized", "pairMargin", "rewardAccuracy", "rewardMargin"]
    assert found["rewardAccuracy"]["value"] == 1.0
    assert found["rewardAccuracy"]["baseline"] == 0.5, "the base gains nothing over itself: all are ties"
    assert found["rewardMargin"]["value"] > 0
    assert found["rewardMargin"]["baseline"] == 0.0
    assert found["pairMargin"]["change"] == pytest.approx(found["rewardMargin"]["value"])
    assert found["pairAccuracy"]["baseline"] < 0.5 < found["pairAccuracy"]["value"]
    assert found["pairAccuracy"]["changeLow"] > 0, "by more than chance, on pairs that were held out"
    assert [check.bound for check in outcome.checks] == ["minimum", "minimum"]
    page = (run.folder / "report.html").read_text()
    assert "gained over the base" in page


def test_a_row_that_is_no_pair_is_refused_by_name(made: Trained, tmp_path: Path) -> None:
    write_rows(tmp_path / "plain.jsonl", [{"prompt": "a?", "completion": "b"}])
    task = TASK | {"dataset": {"uri": (tmp_path / "plain.jsonl").as_uri()}}
    with pytest.raises(SettingsInvalid, match="has no chosen and rejected") as caught:
        evaluation(made, tmp_path, tasks=[task], thresholds=[])
    assert caught.value.reason is Reason.METRIC_NOT_APPLICABLE
    same = pairs(3)
    *before, said = same[1]["chosen"]
    same[1]["rejected"] = [*before, {**said, "content": said["content"] + " "}]
    write_rows(tmp_path / "same.jsonl", same)
    task = TASK | {"dataset": {"uri": (tmp_path / "same.jsonl").as_uri()}}
    with pytest.raises(DataInvalid, match=r"same\.jsonl line 2 has the same answer as chosen and as rejected"):
        evaluation(made, tmp_path, tasks=[task], thresholds=[])


def test_pairs_that_were_trained_on_are_known_by_what_they_ask(made: Trained, tmp_path: Path) -> None:
    rows = pairs(40)
    for row in rows:
        row["chosen"] = [{"role": "assistant", "content": "Something else altogether, in other words."}]
    write_rows(tmp_path / "again.jsonl", rows)
    task = TASK | {"dataset": {"uri": (tmp_path / "again.jsonl").as_uri()}}
    with pytest.raises(DataInvalid, match="was trained on") as caught:
        evaluation(made, tmp_path, tasks=[task], thresholds=[], maximumTrainedOnRatio=0.0)
    assert caught.value.reason is Reason.TRAINED_ON


@pytest.mark.parametrize(
    ("kind", "row_format"),
    [("Preference", "Messages"), ("Perplexity", "Preference"), ("Generation", "UnpairedPreference")],
)
def test_formats_of_other_tasks_are_refused(kind: str, row_format: str) -> None:
    dataset = {"uri": "file:///rows.jsonl", "format": row_format}
    with pytest.raises(ValueError, match="takes rows of the format Preference"):
        EvaluationTask.model_validate({"name": "a", "type": kind, "dataset": dataset})


def pair(number: int, tokens: tuple[int, int]) -> EvaluationRow:
    sequences = tuple(Sequence(tuple(range(n + 1)), ((1, n + 1),), n, n) for n in tokens)
    return EvaluationRow(
        number, f"a.jsonl line {number}", number, None, False, "?", "yes", sequences, (), ("yes", "no"), 0
    )


def test_figures_of_pairs_are_these() -> None:
    """Right by sum and wrong by mean; a tie; wrong, but more right than the base; and one that is no number."""
    rows = [pair(0, (2, 8)), pair(1, (3, 3)), pair(2, (4, 4)), pair(3, (4, 4))]
    scores = [
        RowScore(0, (-4.0, -8.0, -5.0, -8.0)),
        RowScore(1, (-2.0, -2.0, -3.0, -2.0)),
        RowScore(2, (-9.0, -7.0, -12.0, -7.0)),
        RowScore(3, (float("nan"), -1.0, -1.0, -1.0)),
    ]
    task = EvaluationTask.model_validate(TASK)
    by_name = {measure.results[0]: measure.row_values for measure in measures(task, rows, scores)}
    for name, expected in {
        "pairAccuracy": [1, 0.5, 0],
        "pairAccuracyNormalized": [0, 0.5, 0],
        "pairMargin": [4, 0, -2],
        "rewardAccuracy": [1, 1, 1],
        "rewardMargin": [1, 1, 3],
    }.items():
        assert by_name[name][:3].tolist() == expected, name
        assert np.isnan(by_name[name][3])
    assert {metric.value for metric in task.chosen_metrics} >= {Metric.PAIR_ACCURACY.value}
    found = row_by_row(task, rows, (measures(task, rows, scores)[0], scores), None)
    assert "the rejected (log-likelihoods" in "".join(each.target for each in found.worst)
    with pytest.raises(ValueError, match="no pair"):
        measures(task, rows, [RowScore(number, (-1.0, -2.0)) for number in range(4)])
