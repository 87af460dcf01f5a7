"""The whole stage on local files: a tiny adapter that was really trained, and evaluations of it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab_trainer.contract import Artifact, EvaluationConfig, EvaluationOutcome, PreparedEvaluation, Stage
from trimtab_trainer.evaluate.judge import judge
from trimtab_trainer.evaluate.prepare import prepare_evaluation
from trimtab_trainer.evaluate.stage import evaluate
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.progress import ProgressBoard
from trimtab_trainer.report import Report
from trimtab_trainer.storage import Store, open_store

from tests.trainer.tiny import write_rows
from tests.trainer.train.stage import stage_run

LABELS = ["odd", "even"]


@dataclass(frozen=True)
class Trained:
    """A folder with the tiny base model, rows, and adapters that were trained on them."""

    root: Path
    artifacts: tuple[Artifact, ...]

    @property
    def base(self) -> str:
        return (self.root / "base").as_uri()


def trained(root: Path) -> Trained:
    """Train two adapters with different seeds, in NF4, and write rows to evaluate on."""
    artifacts = []
    for seed in (1, 2):
        run = stage_run(root, training={"seed": seed, "learningRate": 0.02, "maxSteps": 10})
        artifacts.append(run.train(attempt=seed)[0])
    kinds = [
        {
            "prompt": f"Is {number} odd?",
            "completion": LABELS[number % 2 == 0],
            "size": "small" if number < 20 else "large",
        }
        for number in range(40)
    ]
    write_rows(root / "kinds.jsonl", kinds)
    choices = [
        {"question": f"What is {n} plus 1?", "choices": [str(n + 1), str(n + 2), str(n)], "answer": 0}
        for n in range(12)
    ]
    write_rows(root / "choices.jsonl", choices)
    numbers = [{"prompt": f"What is {n} plus 1?", "completion": str(n + 1)} for n in range(12)]
    write_rows(root / "numbers.jsonl", numbers)
    return Trained(root, tuple(artifacts))


def tasks(root: Path) -> list[dict[str, Any]]:
    """Return one task of each type that needs no further library."""

    def file(name: str) -> dict[str, str]:
        return {"uri": (root / name).as_uri()}

    return [
        {"name": "heldout", "type": "Perplexity", "dataset": {"split": "Test"}},
        {"name": "answers", "type": "Generation", "dataset": {"split": "Test"}, "maxNewTokens": 12, "stop": ["\n"]},
        {
            "name": "kinds",
            "type": "Classification",
            "dataset": file("kinds.jsonl"),
            "labels": LABELS,
            "groupBy": "size",
        },
        {"name": "choices", "type": "MultipleChoice", "dataset": file("choices.jsonl")},
        {"name": "numbers", "type": "Regression", "dataset": file("numbers.jsonl"), "maxNewTokens": 4},
    ]


THRESHOLDS: list[dict[str, Any]] = [
    {"metric": "kinds/accuracy", "minimum": 0.1, "maximumRegression": 0.5, "confidence": 0.95},
    {"metric": "heldout/perplexity", "maximum": 400.0, "maximumRelativeRegression": 0.5},
    {"metric": "kinds/accuracy", "maximumGroupGap": 0.5, "minimumGroupRows": 5},
]


def document(made: Trained, output: Path, **changes: Any) -> dict[str, Any]:
    """Return the configuration of an evaluation of the first adapter against the base model."""
    return {
        "version": "trimtab.dev/evaluation/v1",
        "run": {"name": "guide", "namespace": "team", "uid": "1b4e28ba"},
        "baseModel": {"uri": made.base},
        "target": {"uri": made.artifacts[0].uri},
        "baseline": {},
        "tasks": tasks(made.root),
        "thresholds": THRESHOLDS,
        "output": {"uri": output.as_uri()},
        "quantization": {"computeType": "Float32"},
        "resamples": 1_000,
        "batchSize": 8,
        "maximumTrainedOnRatio": 1.0,
    } | changes


@dataclass
class EvaluationRun:
    """An evaluation below one folder."""

    root: Path
    config: EvaluationConfig
    prepared: PreparedEvaluation
    log: io.StringIO = field(default_factory=io.StringIO)
    board: ProgressBoard = field(default_factory=lambda: ProgressBoard("uid", 0, Stage.EVALUATE))

    @property
    def store(self) -> Store:
        return open_store(self.config.output.uri, None)

    @property
    def folder(self) -> Path:
        """Where results and report lie."""
        digest = self.prepared.evaluation_digest.removeprefix("sha256:")
        return Path(self.config.output.uri.removeprefix("file://")) / "evaluations" / digest

    def evaluate(self, attempt: int = 0, stop: Interruption | None = None) -> EvaluationOutcome:
        """Evaluate to the end, as where one process does all of it."""
        found = self.ask(attempt, stop)
        return found if isinstance(found, EvaluationOutcome) else self.judge(found, attempt, stop)

    def ask(self, attempt: int = 0, stop: Interruption | None = None) -> EvaluationOutcome | str:
        """Run the stage with the models."""
        scratch = self.root / f"scratch-{attempt}"
        return evaluate(self.config, self.prepared, attempt, scratch, Report(stream=self.log), self.board, stop)

    def judge(self, answers: str, attempt: int = 0, stop: Interruption | None = None) -> EvaluationOutcome:
        """Run the stage that asks a judge's endpoint, on what was answered, in a folder of its own."""
        scratch = self.root / f"scratch-judge-{attempt}"
        prepared = self.prepared.model_copy(update={"answers_digest": answers})
        return judge(self.config, prepared, scratch, Report(stream=self.log), self.board, stop or Interruption())

    def events(self, message: str) -> list[dict[str, Any]]:
        """Return what was told, by message."""
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in lines if line["message"] == message]

    def scores(self) -> list[str]:
        """Return the manifests of scores in storage, sorted."""
        found = [info.path for info in self.store.list("evaluations/scores/")]
        return sorted(path for path in found if path.endswith("/MANIFEST.json"))


def evaluation(made: Trained, root: Path, **changes: Any) -> EvaluationRun:
    """Prepare an evaluation with an output of its own."""
    config = EvaluationConfig.model_validate(document(made, root / "output", **changes))
    log = io.StringIO()
    found = prepare_evaluation(config, root / "scratch-prepare", Report(stream=log))
    assert found.outcome is None
    return EvaluationRun(root, config, found.prepared, log)
