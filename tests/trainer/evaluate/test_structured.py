"""Tool calls, JSON and patterns from rows to a report, on a model that is asked; tokens and seconds of answers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.contract import EvaluationConfig
from trimtab_trainer.evaluate.prepare import prepare_evaluation
from trimtab_trainer.report import Report

from tests.trainer.evaluate.bench import chat
from tests.trainer.evaluate.preparing.test_structured_rows import SCHEMA, conversation
from tests.trainer.evaluate.stage import EvaluationRun
from tests.trainer.real_templates import make_model
from tests.trainer.tiny import write_rows

FIRST = {
    "ToolCalls": ["exactMatch", "validRatio", "nameAccuracy", "argumentsAccuracy", "truncatedRatio", "tokensPerAnswer"],
    "JsonSchema": ["validRatio", "exactMatch", "truncatedRatio", "tokensPerAnswer"],
    "Regex": ["matchRatio", "secondsPerAnswer", "tokensPerAnswer"],
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tooled") / "base", "qwen3")


def evaluation(base: Path, root: Path, output: Path, tasks: list[dict[str, Any]], **more: Any) -> EvaluationRun:
    document = {
        "version": "trimtab.dev/evaluation/v1",
        "baseModel": {"uri": base.as_uri()},
        "tasks": tasks,
        "output": {"uri": output.as_uri()},
        "resamples": 1_000,
    }
    config = EvaluationConfig.model_validate(document | more)
    log = io.StringIO()
    return EvaluationRun(root, config, prepare_evaluation(config, root / "scratch", Report(stream=log)).prepared, log)


def tasks(root: Path) -> list[dict[str, Any]]:
    write_rows(root / "calls.jsonl", [conversation(number) for number in range(4)])
    write_rows(root / "years.jsonl", [chat(f"When was {n}?", json.dumps({"year": 1800 + n})) for n in range(4)])
    dataset = {name: {"uri": (root / f"{name}.jsonl").as_uri()} for name in ("calls", "years")}
    return [
        {"name": "calls", "type": "ToolCalls", "dataset": dataset["calls"], "turns": "Each", "maxNewTokens": 6},
        {
            "name": "json",
            "type": "JsonSchema",
            "dataset": dataset["years"],
            "jsonSchema": json.dumps(SCHEMA),
            "maxNewTokens": 6,
        },
        {
            "name": "digits",
            "type": "Regex",
            "dataset": dataset["years"],
            "pattern": "[0-9]{4}",
            "maxNewTokens": 6,
            "metrics": ["MatchRatio", "SecondsPerAnswer", "TokensPerAnswer"],
        },
    ]  # fmt: skip


def results(run: EvaluationRun) -> dict[str, dict[str, Any]]:
    document = json.loads((run.folder / "results.json").read_text())
    return {task["name"]: {each["metric"]: each for each in task["results"]} for task in document["tasks"]}


def test_an_evaluation_of_answers_with_a_form(base: Path, tmp_path: Path) -> None:
    thresholds = [
        {"metric": "calls/validRatio", "minimum": 0.1},
        {"metric": "digits/secondsPerAnswer", "maximum": 60.0},
        {"metric": "json/tokensPerAnswer", "maximum": 6, "confidence": 0.95},
    ]
    run = evaluation(base, tmp_path, tmp_path / "output", tasks(tmp_path), thresholds=thresholds)
    outcome = run.evaluate()
    found = results(run)
    assert {task["type"]: [*found[task["name"]]] for task in tasks(tmp_path)} == FIRST
    assert found["json"]["validRatio"]["value"] == 0.0, "a model that never learned anything writes no JSON"
    assert found["calls"]["exactMatch"]["value"] == 0.5, (
        "every other turn is to be answered in words, as it always does"
    )
    assert found["calls"]["exactMatch"]["count"] == 8
    assert 1 <= found["json"]["tokensPerAnswer"]["value"] <= 6
    assert 0 < found["digits"]["secondsPerAnswer"]["value"] < 60
    assert {check.bound: check.p_pass is None for check in outcome.checks} == {"minimum": True, "maximum": False}
    page = (run.folder / "report.html").read_text()
    assert "calls/argumentsAccuracy" in page
    assert "tokensPerAnswer" in page


def test_answers_are_shared_but_for_their_seconds(base: Path, tmp_path: Path) -> None:
    asked = tasks(tmp_path)[1:]
    first = evaluation(base, tmp_path / "a", tmp_path / "output", asked)
    first.evaluate()
    assert len(first.scores()) == 2
    again = evaluation(base, tmp_path / "b", tmp_path / "output", asked, seed=18)
    again.evaluate()
    assert [event["task"] for event in again.events("task was asked before")] == ["json"]
    assert len(again.scores()) == 3, "whose seconds were measured elsewhere says nothing of this machine"
    lines = [
        json.loads(line)
        for path in (tmp_path / "output/evaluations/scores").glob("*/scores-*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert sum("seconds" in line for line in lines) == 8
    assert all(line["tokens"] >= 1 for line in lines)
