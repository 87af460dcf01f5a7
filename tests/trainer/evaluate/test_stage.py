"""The evaluate stage: complete, the same after every interruption, and nothing asked twice to the end."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trimtab_trainer.contract import EvaluationOutcome, ExitCode, Reason
from trimtab_trainer.errors import Interrupted, OutOfMemory, SettingsInvalid
from trimtab_trainer.evaluate import conclusion as conclusion_module
from trimtab_trainer.evaluate import stage as stage_module
from trimtab_trainer.evaluate.asking import models as models_module
from trimtab_trainer.evaluate.asking.score_store import write_scores
from trimtab_trainer.evaluate.reporting.outcome_store import read_outcome
from trimtab_trainer.evaluate.results import EvaluationResults
from trimtab_trainer.evaluate.rows import RowScore, read_lines
from trimtab_trainer.storage import FileEntry
from trimtab_trainer.training.network.adapter import Adapted
from trimtab_trainer.training.network.model import LanguageModel

from tests.long import long_unless
from tests.trainer.evaluate.stage import EvaluationRun, Trained, evaluation, tasks, trained

NAMES = ["heldout", "answers", "kinds", "choices", "numbers"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def undisturbed(made: Trained, tmp_path_factory: pytest.TempPathFactory) -> EvaluationRun:
    """An evaluation that nobody interrupts."""
    run = evaluation(made, tmp_path_factory.mktemp("undisturbed"))
    run.evaluate()
    return run


def content(run: EvaluationRun) -> dict[str, bytes]:
    """Return the published files."""
    return {name: (run.folder / name).read_bytes() for name in ("results.json", "report.html")}


def stored_scores(run: EvaluationRun) -> dict[str, list[RowScore]]:
    """Return all scores in storage by digest."""
    folder = run.folder.parent / "scores"
    return {each.name: read_lines(next(each.glob("scores-*.jsonl")), RowScore) for each in sorted(folder.iterdir())}


def score_of(results: EvaluationResults, task: str, metric: str) -> tuple[float | None, float | None]:
    found = next(each for part in results.tasks if part.name == task for each in part.results if each.metric == metric)
    return found.value, found.baseline


def test_an_adapter_is_evaluated_from_rows_to_the_report(undisturbed: EvaluationRun, made: Trained) -> None:
    run = undisturbed
    results = EvaluationResults.model_validate_json((run.folder / "results.json").read_text())
    assert [task.name for task in results.tasks] == NAMES
    assert [task.rows for task in results.tasks] == [15, 15, 40, 12, 12]
    adapter, base = score_of(results, "heldout", "perplexity")
    assert adapter is not None
    assert base is not None
    assert 1 < adapter < base / 4  # it was trained on such rows
    assert results.target.digest == made.artifacts[0].digest
    assert results.baseline is not None
    assert results.baseline.label == "base model"
    assert results.lineage["target"]["data"].startswith("sha256:")
    assert results.lineage["quantization"]["type"] == "NF4"
    assert "<html" in (run.folder / "report.html").read_text()
    asked = [(event["side"], event["task"]) for event in run.events("task asked")]
    assert asked == [(side, name) for side in ("target", "baseline") for name in NAMES]
    assert len(run.events("model loaded")) == 1
    progress = run.board.read()
    assert (progress.activity, progress.step, progress.total_steps) == ("Publishing", 10, 10)


def test_the_outcome_names_what_checks_are_about_first_and_is_read_back(undisturbed: EvaluationRun) -> None:
    outcome = read_outcome(undisturbed.store, undisturbed.prepared.evaluation_digest)
    assert outcome is not None
    assert outcome.rows == 94
    paths = [f"{result.task}/{result.metric}" for result in outcome.results]
    assert sorted(paths[:2]) == ["heldout/perplexity", "kinds/accuracy"]
    assert paths[2:5] == ["answers/rougeL", "choices/accuracy", "numbers/meanAbsoluteError"]
    assert len(paths) == len(set(paths)) == 27
    assert [(check.threshold, check.bound) for check in outcome.checks] == [
        (0, "minimum"),
        (0, "maximumRegression"),
        (1, "maximum"),
        (1, "maximumRelativeRegression"),
        (2, "maximumGroupGap"),
    ]
    packed = EvaluationOutcome.unpack(outcome.pack(10_000))
    assert [result.value for result in packed.results] == [
        pytest.approx(result.value, rel=1e-3) if result.value is not None else None for result in outcome.results
    ]


def test_what_has_its_outcome_is_not_asked_again(undisturbed: EvaluationRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "Evaluation", None)
    assert undisturbed.evaluate(attempt=5) == read_outcome(undisturbed.store, undisturbed.prepared.evaluation_digest)


def test_an_anchor_is_asked_compared_and_told_beside_the_baseline(
    undisturbed: EvaluationRun, made: Trained, tmp_path: Path
) -> None:
    anchor = {"artifact": {"uri": made.artifacts[1].uri, "digest": made.artifacts[1].digest}}
    thresholds = [{"metric": "heldout/perplexity", "maximumRelativeRegression": 0.5, "confidence": 0.95}]
    run = evaluation(made, tmp_path, anchor=anchor, thresholds=thresholds, tasks=tasks(made.root)[:1])
    assert run.prepared.anchor_digest == made.artifacts[1].digest
    outcome = run.evaluate()
    assert [(each.bound, each.against.value) for each in outcome.checks] == [
        ("maximumRelativeRegression", "Baseline"),
        ("maximumRelativeRegression", "Anchor"),
    ]
    told = EvaluationOutcome.unpack(outcome.pack(3_000))
    assert told.checks[1].against.value == "Anchor"
    figure = told.results[0]
    results = EvaluationResults.model_validate_json((run.folder / "results.json").read_text())
    assert results.anchor is not None
    assert results.anchor.digest == made.artifacts[1].digest
    assert results.lineage["anchor"]["digest"] == made.artifacts[1].digest
    other = evaluation(made, tmp_path / "other", target=anchor["artifact"], thresholds=[], tasks=tasks(made.root)[:1])
    alone = other.evaluate().results[0]
    assert figure.anchor == pytest.approx(alone.value, rel=1e-5)
    assert figure.anchor_change == pytest.approx((figure.value or 0.0) - (figure.anchor or 0.0), rel=1e-3)
    page = (run.folder / "report.html").read_text()
    assert "at most 50 % worse than the anchor" in page
    assert "against baseline and anchor" in page or "Not passed" in page
    asked = [event["side"] for event in run.events("task asked")]
    assert asked == ["target", "baseline", "anchor"]
    assert run.prepared.evaluation_digest != undisturbed.prepared.evaluation_digest


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a file is changed": lambda folder: (folder / "report.html").write_text("other"),
    "a file is gone": lambda folder: (folder / "results.json").unlink(),
    "the manifest is cut off": lambda folder: (folder / "MANIFEST.json").write_text("{"),
    "the manifest is gone": lambda folder: (folder / "MANIFEST.json").unlink(),
    "the manifest says something else": lambda folder: (folder / "MANIFEST.json").write_text('{"outcome": {"x": 1}}'),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_an_outcome_that_does_not_verify_is_none_and_is_made_again_of_the_scores(
    undisturbed: EvaluationRun, tmp_path: Path, made: Trained, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = evaluation(made, tmp_path)
    shutil.rmtree(tmp_path / "output" / "evaluations")
    shutil.copytree(undisturbed.folder.parent, tmp_path / "output" / "evaluations")
    DAMAGE[name](run.folder)
    assert read_outcome(run.store, run.prepared.evaluation_digest) is None
    monkeypatch.setattr(models_module, "load_base", None)
    run.evaluate()
    assert content(run) == content(undisturbed)


# -- interruptions -----------------------------------------------------------------------------------------------------


def on_call(owner: Any, name: str, count: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Send SIGTERM to this process inside the count-th call of a function."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        whole, calls = getattr(owner, name), 0

        def wrapper(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == count:
                os.kill(os.getpid(), signal.SIGTERM)
            return whole(*arguments, **options)

        patch.setattr(owner, name, wrapper)

    return apply


POINTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], int]] = {
    "while the base model is loaded": (on_call(models_module, "load_base", 1), 0),
    "in the first task": (on_call(LanguageModel, "hidden", 2), 0),
    "while an answer is written": (on_call(stage_module, "generate_rows", 1), 1),
    "between scoring and storing": (on_call(stage_module, "write_scores", 3), 2),
    "after a task is stored": (on_call(stage_module.Evaluation, "_note", 3), 3),
    "while the adapter is taken off": (on_call(Adapted, "remove", 1), 5),
    "in a task of the baseline": (on_call(stage_module, "score_rows", 5), 7),
    "while the answers are compared": (on_call(conclusion_module, "compare", 3), 10),
    "while the report is written": (on_call(conclusion_module, "render", 1), 10),
    "while the report is uploaded": (on_call(conclusion_module, "publish", 1), 10),
}


BETWEEN = ("in the first task", "while the report is written")
"""Points between others of the same part of the stage, which `make test` has."""


@pytest.mark.parametrize("point", long_unless(lambda point: point not in BETWEEN, POINTS))
def test_a_signal_loses_no_finished_task_and_changes_nothing(
    made: Trained, undisturbed: EvaluationRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    interrupt, finished = POINTS[point]
    run = evaluation(made, tmp_path)
    with monkeypatch.context() as patch:
        interrupt(patch)
        with pytest.raises(Interrupted) as caught:
            run.evaluate(attempt=0)
    assert caught.value.exit_code is ExitCode.INTERRUPTED
    assert len(run.scores()) == finished
    run.evaluate(attempt=1)
    assert len(run.events("task was asked before")) == finished
    assert content(run) == content(undisturbed)
    assert run.scores() == undisturbed.scores()


def test_no_task_is_asked_twice_however_often_it_is_interrupted(
    made: Trained, undisturbed: EvaluationRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, written = evaluation(made, tmp_path), []

    def write(store: Any, asked: Any, *rest: Any) -> Any:
        written.append(asked.digest)
        found = write_scores(store, asked, *rest)
        os.kill(os.getpid(), signal.SIGTERM)
        return found

    monkeypatch.setattr(stage_module, "write_scores", write)
    for attempt in range(10):
        with pytest.raises(Interrupted):
            run.evaluate(attempt)
    run.evaluate(attempt=10)
    assert len(written) == len(set(written)) == 10
    assert content(run) == content(undisturbed)


@pytest.mark.parametrize("size", long_unless(lambda size: size in (1, None), [1, 4, 16, None]))
def test_every_batch_size_finds_the_same(
    made: Trained, undisturbed: EvaluationRun, tmp_path: Path, size: int | None
) -> None:
    run = evaluation(made, tmp_path, batchSize=size)
    run.evaluate()
    assert stored_scores(run) == stored_scores(undisturbed)
    assert content(run) == content(undisturbed)


# -- scores in storage -------------------------------------------------------------------------------------------------


def test_evaluations_share_what_a_baseline_answered(made: Trained, tmp_path: Path) -> None:
    only = {"tasks": tasks(made.root)[2:], "thresholds": []}
    evaluation(made, tmp_path, **only).evaluate()
    second = evaluation(made, tmp_path, **only, target={"uri": made.artifacts[1].uri})
    second.evaluate(attempt=1)
    before = [(event["side"], event["task"]) for event in second.events("task was asked before")]
    assert before == [("baseline", name) for name in NAMES[2:]]
    third = evaluation(made, tmp_path, **only, baseline={"artifact": {"uri": made.artifacts[1].uri}})
    third.evaluate(attempt=2)
    assert len(third.events("task was asked before")) == 6
    assert third.events("model loaded") == []


def test_scores_that_do_not_verify_are_made_again(made: Trained, undisturbed: EvaluationRun, tmp_path: Path) -> None:
    run = evaluation(made, tmp_path)
    shutil.rmtree(tmp_path / "output" / "evaluations")
    shutil.copytree(undisturbed.folder.parent, tmp_path / "output" / "evaluations")
    shutil.rmtree(run.folder)
    one, two, *_ = sorted((tmp_path / "output" / "evaluations" / "scores").iterdir())
    (one / "MANIFEST.json").write_text('{"files": 1}')
    next(two.glob("scores-*")).write_text("")
    run.evaluate()
    told = run.events("stored scores do not verify, they are made again")
    assert {event["scores"] for event in told} == {f"sha256:{each.name}" for each in (one, two)}
    assert len(run.events("task was asked before")) == 8
    assert content(run) == content(undisturbed)


def test_what_decides_the_answers_decides_where_they_lie(made: Trained, tmp_path: Path) -> None:
    sampled = {**tasks(made.root)[1], "temperature": 1.0}
    found: list[set[str]] = []
    for changes in (
        {"tasks": [sampled]},
        {"tasks": [sampled], "seed": 99},
        {"tasks": [{**sampled, "topP": 0.5}]},
        {"tasks": [tasks(made.root)[1]]},
        {"tasks": [tasks(made.root)[1]], "seed": 99},
        {"tasks": [tasks(made.root)[1]], "precision": "AsServed"},
    ):
        run = evaluation(made, tmp_path, thresholds=[], baseline=None, **changes)
        before = set(run.scores())
        run.evaluate()
        found.append(set(run.scores()) - before)
    assert [len(each) for each in found] == [1, 1, 1, 1, 0, 1]


# -- models ------------------------------------------------------------------------------------------------------------


def alone(made: Trained, root: Path, **changes: Any) -> dict[str, list[RowScore]]:
    run = evaluation(made, root, tasks=tasks(made.root)[:3], thresholds=[], **changes)
    run.evaluate()
    return stored_scores(run)


def test_one_adapter_leaves_no_trace_in_the_other_or_in_the_base_model(made: Trained, tmp_path: Path) -> None:
    first, second = ({"uri": artifact.uri} for artifact in made.artifacts)
    only_first = alone(made, tmp_path / "1", target=first, baseline=None)
    only_second = alone(made, tmp_path / "2", target=second, baseline=None)
    assert list(only_first.values()) != list(only_second.values())
    both = alone(made, tmp_path / "both", target=first, baseline={"artifact": second})
    assert both == only_first | only_second
    # The base model alone, after an adapter and without one: the held out rows are those of the target.
    kinds = {"tasks": tasks(made.root)[2:], "thresholds": []}
    after = evaluation(made, tmp_path / "after", **kinds, target=first, baseline={})
    after.evaluate()
    scheme = {"type": "NF4", "computeType": "Float32"}
    never = evaluation(made, tmp_path / "never", **kinds, target=None, baseline=None, quantization=scheme)
    never.evaluate()
    base = stored_scores(never)
    assert base.items() <= stored_scores(after).items()
    assert len(base) == 3


def test_a_base_model_that_changed_is_noticed(made: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, remove = evaluation(made, tmp_path), Adapted.remove

    def merged(self: Adapted) -> Any:
        base = remove(self)
        with torch.no_grad():
            base.get_input_embeddings().weight[0, 0] += 1
        return base

    monkeypatch.setattr(Adapted, "remove", merged)
    with pytest.raises(RuntimeError, match="the frozen base model changed"):
        run.evaluate()
    assert not run.folder.exists()


def test_the_precision_of_serving_is_no_quantization(made: Trained, tmp_path: Path, undisturbed: EvaluationRun) -> None:
    run = evaluation(made, tmp_path, precision="AsServed")
    run.evaluate()
    results, quantized = (
        EvaluationResults.model_validate_json((each.folder / "results.json").read_text()) for each in (run, undisturbed)
    )
    assert results.lineage["quantization"]["type"] == "None"
    served, trained_as = (score_of(each, "heldout", "perplexity")[0] for each in (results, quantized))
    assert served != trained_as
    assert served == pytest.approx(trained_as, rel=0.2)


def test_a_base_model_alone_is_not_quantized_unless_told(made: Trained, tmp_path: Path) -> None:
    run = evaluation(
        made, tmp_path, target=None, baseline=None, quantization=None, tasks=tasks(made.root)[3:4], thresholds=[]
    )
    run.evaluate()
    results = EvaluationResults.model_validate_json((run.folder / "results.json").read_text())
    assert results.lineage["quantization"]["type"] == "None"
    assert results.target.label == "base model"
    assert results.baseline is None


def copied(made: Trained, root: Path) -> dict[str, str]:
    """Return a copy of the first adapter that can be spoiled."""
    folder = Path(made.artifacts[0].uri.removeprefix("file://"))
    shutil.copytree(folder, root / "adapters" / folder.name)
    return {"uri": (root / "adapters" / folder.name).as_uri()}


def spoil(run: EvaluationRun, change: Callable[[Path], object]) -> SettingsInvalid:
    assert run.config.target is not None
    change(Path(run.config.target.uri.removeprefix("file://")))
    with pytest.raises(SettingsInvalid) as caught:
        run.evaluate()
    return caught.value


def resigned(folder: Path, name: str, data: bytes) -> None:
    """Replace a file, and its entry in the manifest."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    entry = FileEntry(name, len(data), hashlib.sha256(data).hexdigest()).to_json()
    for part in manifest.values():
        part["files"] = [entry if each["path"] == name else each for each in part["files"]]
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))


def test_an_adapter_that_is_gone_or_another_one_is_refused(made: Trained, tmp_path: Path) -> None:
    only = {"tasks": tasks(made.root)[3:4], "thresholds": []}
    run = evaluation(made, tmp_path / "1", **only, target=copied(made, tmp_path / "1"))
    error = spoil(run, lambda folder: (folder / "MANIFEST.json").unlink())
    assert error.reason is Reason.ARTIFACT_NOT_FOUND
    run = evaluation(made, tmp_path / "2", **only, target=copied(made, tmp_path / "2"))
    error = spoil(run, lambda folder: resigned(folder, "adapter_config.json", b"{}"))
    assert error.reason is Reason.ARTIFACT_CHANGED
    assert "start a new evaluation" in error.message
    run = evaluation(made, tmp_path / "3", **only, target=copied(made, tmp_path / "3"))
    error = spoil(run, lambda folder: resigned(folder, "metrics.json", b"{}"))
    assert error.reason is Reason.ARTIFACT_INVALID
    assert "does not say how it was quantized" in error.message


def test_an_adapter_that_does_not_fit_is_refused(
    made: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("the adapter did not load onto its base model: a and 3 more")

    monkeypatch.setattr(models_module, "load_adapter", refuse)
    with pytest.raises(SettingsInvalid, match=r"the target at .* does not fit onto the base model") as caught:
        evaluation(made, tmp_path).evaluate()
    assert caught.value.reason is Reason.ARTIFACT_INVALID


def test_a_base_model_that_does_not_fit_into_memory_ends_it(
    made: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(models_module, "load_base", refuse)
    with pytest.raises(OutOfMemory, match="raise the memory limit"):
        evaluation(made, tmp_path).evaluate()


def test_without_thresholds_or_baseline_it_is_a_measurement(made: Trained, tmp_path: Path) -> None:
    run = evaluation(made, tmp_path, thresholds=[], baseline=None)
    outcome = run.evaluate()
    assert outcome.checks == []
    assert [result.baseline for result in outcome.results] == [None] * 27
    assert run.board.read().total_steps == 5


# -- harness tasks -----------------------------------------------------------------------------------------------------

HARNESS = """\
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: sums.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc}, {metric: acc_norm}]
"""


def sums(root: Path) -> dict[str, Any]:
    """Write a harness task of 20 documents of two sizes; return the task that asks it."""
    folder = root / "harness"
    folder.mkdir(parents=True)
    (folder / "sums.yaml").write_text(HARNESS)
    rows = [
        {
            "question": f"{n} plus 1 is",
            "choices": [str(n + 1), str(n)],
            "answer": 0,
            "size": "small" if n < 10 else "large",
        }
        for n in range(20)
    ]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"name": "sums", "type": "Harness", "dataset": {"uri": folder.as_uri()}, "harnessTask": "sums"}


def test_a_harness_task_is_asked_compared_and_shared_as_all_others(made: Trained, tmp_path: Path) -> None:
    task = sums(tmp_path)
    bound = {"metric": "sums/acc", "minimum": 0.0, "maximumRegression": 1.0}
    run = evaluation(made, tmp_path, tasks=[task, tasks(made.root)[3]], thresholds=[bound])
    outcome = run.evaluate()
    results = EvaluationResults.model_validate_json((run.folder / "results.json").read_text())
    assert [(part.name, part.rows, part.clusters) for part in results.tasks] == [("sums", 20, 20), ("choices", 12, 12)]
    assert [result.metric for result in results.tasks[0].results] == ["acc", "acc_norm"]
    assert outcome.rows == 32
    assert [f"{result.task}/{result.metric}" for result in outcome.results][:2] == ["sums/acc", "choices/accuracy"]
    assert [check.bound for check in outcome.checks] == ["minimum", "maximumRegression"]
    published = content(run)
    shutil.rmtree(run.folder)
    run.evaluate(attempt=1)
    assert len(run.events("task was asked before")) == 4
    assert content(run) == published


def test_a_harness_task_has_groups_and_a_gap_and_keeps_them_when_it_is_interrupted(
    made: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = [
        {"metric": f"sums/{each}", "maximumGroupGap": 0.05, "minimumGroupRows": 8} for each in ("acc", "acc_norm")
    ]
    runs = []
    for name in ("whole", "interrupted"):
        task = sums(tmp_path / name) | {"groupBy": "size"}
        runs.append(evaluation(made, tmp_path / name, tasks=[task], thresholds=bounds))
    whole, interrupted = runs
    outcome = whole.evaluate()
    results = EvaluationResults.model_validate_json((whole.folder / "results.json").read_text())
    assert [(each.metric, [(group.name, group.rows) for group in each.groups]) for each in results.tasks[0].groups] == [
        ("acc", [("large", 10), ("small", 10)]),
        ("acc_norm", [("large", 10), ("small", 10)]),
    ]
    accuracy = results.tasks[0].groups[0]
    check, _ = outcome.checks
    assert (check.bound, check.estimate, check.low) == ("maximumGroupGap", accuracy.gap, accuracy.gap_low)
    assert (check.worst, check.best) == (accuracy.worst, accuracy.best)
    assert all(group.baseline is not None and group.low is not None for group in accuracy.groups)
    page = (whole.folder / "report.html").read_text()
    assert "large" in page
    assert "small" in page
    with monkeypatch.context() as patch:
        on_call(stage_module.Evaluation, "_note", 1)(patch)
        with pytest.raises(Interrupted):
            interrupted.evaluate(attempt=0)
    interrupted.evaluate(attempt=1)
    assert len(interrupted.events("task was asked before")) == 1
    assert content(interrupted) == content(whole)
