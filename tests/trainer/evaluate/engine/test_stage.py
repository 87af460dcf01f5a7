"""The evaluate stage with an engine: it writes answers, ours is the rest, and neither is in memory with the other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from trimtab_trainer.contract import EvaluationConfig, Reason
from trimtab_trainer.errors import EngineFailed, SettingsInvalid
from trimtab_trainer.evaluate.engine.limits import check_adapters, rank_for, trouble
from trimtab_trainer.evaluate.results import EvaluationResults

from tests.trainer.evaluate.engine import fake_vllm
from tests.trainer.evaluate.engine.conftest import FakeVllm
from tests.trainer.evaluate.engine.test_process import options
from tests.trainer.evaluate.stage import EvaluationRun, Trained, document, evaluation, tasks, trained

Fake = Callable[..., FakeVllm]
WRITTEN = ("answers", "numbers")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("trained"))


def served(made: Trained, root: Path, **changes: Any) -> EvaluationRun:
    """Prepare an evaluation whose answers an engine writes."""
    return evaluation(made, root, **{"engine": "Vllm", "precision": "AsServed", "thresholds": [], **changes})


def order(run: EvaluationRun) -> list[str]:
    """Return what was told, by message, of what is loaded when."""
    told = [json.loads(line)["message"] for line in run.log.getvalue().splitlines()]
    return [each for each in told if each in ("engine ready", "engine ended", "model loaded", "published")]


def test_answers_are_the_engines_and_likelihoods_ours(fake: Fake, made: Trained, tmp_path: Path) -> None:
    stand_in, run = fake(), served(made, tmp_path)
    run.evaluate()
    assert order(run) == ["engine ready", "engine ended", "model loaded", "published"], "one memory is enough"
    results = EvaluationResults.model_validate_json((run.folder / "results.json").read_text())
    assert results.lineage["engine"] == {"name": "Vllm", "version": "0.0.0+fake"}
    assert "precision AsServed; answers by vLLM 0.0.0+fake" in (run.folder / "report.html").read_text()
    assert {task.name for task in results.tasks} == {task["name"] for task in tasks(made.root)}
    asked = stand_in.asked
    assert {body["model"] for body in asked} == {"target", "base"}
    assert len(asked) == 2 * (15 + 12)
    given = options(stand_in.started["arguments"])
    prompts = [len(body["prompt"]) + body["max_tokens"] for body in asked]
    assert given["--max-model-len"] == str(max(prompts))
    assert given["--max-num-seqs"] == "8", "the evaluation's batchSize"
    assert given["--dtype"] == "float32"
    (base,) = {body["stop"] == ["\n"] and body["max_tokens"] for body in asked if body["max_tokens"] == 12}
    assert base == 12
    progress = run.board.read()
    assert (progress.step, progress.total_steps) == (10, 10)


def test_its_answers_are_shared_with_no_evaluation_of_another_engine(fake: Fake, made: Trained, tmp_path: Path) -> None:
    fake()
    only = {"tasks": tasks(made.root)[1:3]}
    ours = evaluation(made, tmp_path, precision="AsServed", thresholds=[], **only)
    ours.evaluate()
    before = set(ours.scores())
    run = served(made, tmp_path, **only)
    assert run.prepared.evaluation_digest != ours.prepared.evaluation_digest
    assert run.prepared.data_digest == ours.prepared.data_digest
    run.evaluate(attempt=1)
    again = [(event["side"], event["task"]) for event in run.events("task was asked before")]
    assert again == [("target", "kinds"), ("baseline", "kinds")], "likelihoods are the same whatever writes answers"
    assert len(set(run.scores()) - before) == 2


def test_nor_with_one_that_another_version_wrote_the_answers_of(
    fake: Fake, made: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in, only = fake(), {"tasks": tasks(made.root)[4:]}
    served(made, tmp_path, **only).evaluate()
    monkeypatch.setenv(fake_vllm.VERSION, "0.0.1")
    bound = [{"metric": "numbers/meanAbsoluteError", "maximum": 1e9}]
    run = served(made, tmp_path, **only, thresholds=bound)
    run.evaluate(attempt=1)
    assert run.events("task was asked before") == []
    assert len(stand_in.asked) == 2 * 12
    results = EvaluationResults.model_validate_json((run.folder / "results.json").read_text())
    assert results.lineage["engine"]["version"] == "0.0.1"


def test_an_anchor_is_asked_of_the_same_engine(fake: Fake, made: Trained, tmp_path: Path) -> None:
    stand_in, only = fake(), {"tasks": tasks(made.root)[4:]}
    anchor = {"artifact": {"uri": made.artifacts[1].uri, "digest": made.artifacts[1].digest}}
    run = served(made, tmp_path, anchor=anchor, **only)
    run.evaluate()
    assert [body["model"] for body in stand_in.asked] == ["target"] * 12 + ["base"] * 12 + ["anchor"] * 12
    given = options(stand_in.started["arguments"])
    assert given["--max-loras"] == "2"
    arguments = stand_in.started["arguments"]
    modules = [json.loads(each)["name"] for each in arguments[arguments.index("--lora-modules") + 1 :]]
    assert modules == ["target", "anchor"]
    assert (run.board.read().step, run.board.read().total_steps) == (3, 3)
    results = EvaluationResults.model_validate_json((run.folder / "results.json").read_text())
    assert results.anchor is not None
    assert results.anchor.digest == made.artifacts[1].digest
    assert all(figure.anchor is not None for figure in results.tasks[0].results if figure.value is not None)


@pytest.mark.parametrize("engine", ["Vllm", "Transformers"])
def test_two_sides_that_are_the_same_are_asked_once(fake: Fake, made: Trained, tmp_path: Path, engine: str) -> None:
    """A rollout's first release is baseline and anchor."""
    stand_in = fake()
    other = {"artifact": {"uri": made.artifacts[1].uri, "digest": made.artifacts[1].digest}}
    run = served(made, tmp_path, baseline=other, anchor=other, engine=engine, tasks=tasks(made.root)[3:])
    run.evaluate()
    if engine == "Vllm":
        assert [body["model"] for body in stand_in.asked] == ["target"] * 12 + ["baseline"] * 12
    assert len(run.scores()) == 4
    told = [(event["side"], event["task"]) for event in run.events("task asked")]
    assert sorted(told) == [
        (side, task) for side in ("anchor", "baseline", "target") for task in ("choices", "numbers")
    ]
    results = EvaluationResults.model_validate_json((run.folder / "results.json").read_text())
    assert all(figure.anchor == figure.baseline for task in results.tasks for figure in task.results)


def test_an_engine_that_dies_loses_no_finished_task_and_is_not_started_for_nothing(
    fake: Fake, made: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in, run = fake(), served(made, tmp_path)
    from trimtab_trainer.evaluate.engine import asking

    scores = asking.AskedEngine.scores

    def first_only(self: Any, role: str, task: Any, rows: Any) -> Any:
        if (role, task.name) != ("target", "answers"):
            raise EngineFailed("vLLM ended while it was asked with status 1")
        return scores(self, role, task, rows)

    with monkeypatch.context() as patch:
        patch.setattr(asking.AskedEngine, "scores", first_only)
        with pytest.raises(EngineFailed):
            run.evaluate()
    assert len(run.scores()) == 1
    run.evaluate(attempt=1)
    asked = len(stand_in.asked)
    assert asked == 15 + 2 * 12, "target/answers is stored"
    assert len(run.scores()) == 10
    monkeypatch.setenv(fake_vllm.FAULT, "broken")
    other = served(made, tmp_path, thresholds=[{"metric": "numbers/meanAbsoluteError", "maximum": 1e9}])
    other.evaluate(attempt=2)
    assert order(other) == ["published"]


def test_without_the_command_nothing_is_loaded(made: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_VLLM", str(tmp_path / "nothing"))
    run = served(made, tmp_path)
    with pytest.raises(SettingsInvalid) as caught:
        run.evaluate()
    assert caught.value.reason is Reason.ENGINE_MISSING
    assert order(run) == []


def test_where_nothing_is_written_no_engine_is_started(
    made: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_VLLM", str(tmp_path / "nothing"))
    run = served(made, tmp_path, tasks=tasks(made.root)[2:4])
    run.evaluate()
    assert order(run) == ["model loaded", "published"]


def test_seconds_are_those_of_answers_that_wait_for_no_other(fake: Fake, made: Trained, tmp_path: Path) -> None:
    stand_in = fake()
    timed = {**tasks(made.root)[4], "metrics": ["SecondsPerAnswer", "TokensPerAnswer"]}
    run = served(made, tmp_path, tasks=[timed], baseline=None)
    run.evaluate()
    assert len(stand_in.asked) == 13, "one that is not counted comes first"
    results = EvaluationResults.model_validate_json((run.folder / "results.json").read_text())
    seconds = next(each for each in results.tasks[0].results if each.metric == "secondsPerAnswer")
    assert seconds.value is not None
    assert 0 < seconds.value < 5


def test_more_than_it_writes_together_are_asked_of_it_in_turns(fake: Fake, made: Trained, tmp_path: Path) -> None:
    stand_in = fake()
    served(made, tmp_path, batchSize=4096, tasks=tasks(made.root)[4:], baseline=None).evaluate()
    assert options(stand_in.started["arguments"])["--max-num-seqs"] == "1024", "vLLM refuses more than tokens of a step"


def test_weights_that_it_does_not_hold_are_refused(made: Trained, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="engine: Vllm needs precision: AsServed"):
        EvaluationConfig.model_validate(document(made, tmp_path, engine="Vllm"))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a DoRA": ({"use_dora": True}, "DoRA"),
    "a rank above all": ({"r": 513}, "its rank is 513, and vLLM takes at most 512"),
    "a rank of one layer": ({"rank_pattern": {"q_proj": 1024}}, "1024"),
    "biases": ({"bias": "all"}, "biases"),
    "biases of the matrices": ({"lora_bias": True}, "biases"),
    "whole layers": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "layers that are repeated": ({"layer_replication": [[0, 4]]}, "layer_replication"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_adapters_that_it_does_not_take_are_refused_before_it_is_started(name: str) -> None:
    changes, words = REFUSED[name]
    config = {"r": 8, "use_dora": False, "bias": "none", "modules_to_save": None, **changes}

    class Found:
        uri = "s3://adapters/a"

        def config(self) -> dict[str, Any]:
            return config

    with pytest.raises(
        SettingsInvalid, match=rf"the baseline at s3://adapters/a .*{words}.*leave engine out"
    ) as caught:
        check_adapters({"target": None, "baseline": Found()})  # type: ignore[dict-item]
    with pytest.raises(SettingsInvalid, match=rf"the anchor at s3://adapters/a .*{words}"):
        check_adapters({"target": None, "anchor": Found()})  # type: ignore[dict-item]
    assert caught.value.reason is Reason.ENGINE_REFUSED


def test_prepare_refuses_them(made: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trimtab_trainer.evaluate.preparing.adapters import VerifiedAdapter

    monkeypatch.setattr(VerifiedAdapter, "config", lambda self: {"r": 4, "peft_type": "LORA", "use_dora": True})
    with pytest.raises(SettingsInvalid, match=r"the target at .* cannot be asked of vLLM: it is a DoRA"):
        served(made, tmp_path)
    evaluation(made, tmp_path, precision="AsServed")  # our own loop takes it


def test_what_it_takes_is_no_trouble() -> None:
    assert trouble({"r": 512, "bias": "none", "use_rslora": True, "rank_pattern": {"a": 3}, "use_dora": None}) is None
    assert [rank_for(rank) for rank in (1, 2, 8, 9, 100, 512)] == [1, 8, 8, 16, 128, 512]
