"""From answers to published results: judged if need be, compared, told. No torch.

The evaluate stage ends with it, and where an endpoint judges the judge stage does: `judge.py`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..contract import Check, EvaluationConfig, EvaluationOutcome, EvaluationTask, PreparedEvaluation, Threshold
from ..interruption import Interruption
from ..progress import ProgressBoard
from ..report import Report
from ..storage import Store
from .asking.answers import Answers
from .asking.score_store import TaskScores
from .comparison import compare, with_anchor
from .judging.judge import Judge, judge_task
from .preparing.task_store import PreparedTask, PreparedTasks
from .reporting.outcome_store import publish
from .reporting.page import render
from .results import BASE_MODEL, EvaluatedModel, EvaluationResults, JudgeResults, TaskResults
from .rows import EvaluationRow

BESIDE_ANCHOR = "target beside the anchor"
"""The target's scores as a judge gave them who saw the anchor's answers."""


class Conclusion:
    """What follows from an evaluation's answers."""

    def __init__(
        self,
        config: EvaluationConfig,
        prepared: PreparedEvaluation,
        answers: Answers,
        tasks: PreparedTasks,
        looks: dict[str, int],
        *,
        stop: Interruption,
        report: Report,
        board: ProgressBoard,
    ) -> None:
        """Take what was answered.

        Args:
            config, prepared: the evaluation.
            answers: of every side to every task.
            tasks: as they were prepared.
            looks: how many evaluations have seen the rows of each task.
            stop: ends it between two tasks.
            report: where events go.
            board: where progress goes.
        """
        self.config, self.prepared, self.answers, self.tasks, self.looks = config, prepared, answers, tasks, looks
        self.stop, self.report, self.board = stop, report, board
        self.scores = dict(answers.scores)
        self.judges: dict[tuple[str, str], JudgeResults] = {}

    def judge(self, judge: Judge, store: Store, folder: Path) -> None:
        """Have the answers of Judge tasks judged; what was said of the same before is taken from storage.

        Raises:
            TrainerError: the judge does not answer, or storage failed; what it has said by then is kept.
        """
        self.board.update(activity="Judging")
        scores = self.scores
        for task in self.config.tasks:
            if task.judging is None:
                continue
            target = self.answers.scores["target", task.name]
            for role in ("baseline", "anchor") if self.config.anchor is not None else ("baseline",):
                other = self.answers.scores.get((role, task.name))
                judged, self.judges[role, task.name] = judge_task(
                    judge,
                    store,
                    task,
                    self._rows(task, target),
                    target.scores,
                    other.scores if other is not None else None,
                    folder=folder,
                    stop=self.stop,
                    report=self.report,
                )
                scores["target" if role == "baseline" else BESIDE_ANCHOR, task.name] = TaskScores(judged.target)
                if judged.baseline is not None:
                    scores[role, task.name] = TaskScores(judged.baseline)

    def publish(self, store: Store) -> EvaluationOutcome:
        """Store results and report; return what is stored."""
        results = self._results()
        self.board.update(activity="Publishing")
        return publish(store, results, partial(render, results))

    def _results(self) -> EvaluationResults:
        """Return everything that the scores tell."""
        config, prepared, models = self.config, self.prepared, self.answers.models
        tasks, checks = [], []
        for task, about in zip(config.tasks, self.tasks.tasks, strict=True):
            self.stop.check()
            results, more = self._compare(task, about)
            tasks.append(results.model_copy(update={"looks": self.looks[task.name]}))
            checks += more
            self.report("task compared", task=task.name, results=len(results.results))
        checks.sort(key=lambda check: check.threshold)
        return EvaluationResults(
            digest=prepared.evaluation_digest,
            name=config.run.name,
            namespace=config.run.namespace,
            base_model=EvaluatedModel(uri=config.base_model.uri, digest=prepared.base_model_digest, label=BASE_MODEL),
            target=models["target"],
            baseline=models.get("baseline"),
            anchor=models.get("anchor"),
            precision=config.precision,
            seed=config.seed,
            resamples=config.resamples,
            tasks=tasks,
            thresholds=config.thresholds,
            checks=checks,
            lineage=self.answers.lineage,
        )

    def _compare(self, task: EvaluationTask, about: PreparedTask) -> tuple[TaskResults, list[Check]]:
        found = self.scores
        target, baseline = found["target", task.name], found.get(("baseline", task.name))
        thresholds: list[tuple[int, Threshold]] = [
            (index, each) for index, each in enumerate(self.config.thresholds) if each.task == task.name
        ]
        seed, resamples, rows = self.config.seed, self.config.resamples, self._rows(task, target)
        results, checks = compare(
            task,
            about,
            rows,
            target.scores,
            baseline.scores if baseline is not None else None,
            thresholds,
            seed=seed,
            resamples=resamples,
            lower_is_better=target.lower_is_better,
            judge=self.judges.get(("baseline", task.name)),
        )
        anchor = found.get(("anchor", task.name))
        if anchor is None:
            return results, checks
        results, more = with_anchor(
            results,
            task,
            rows,
            found.get((BESIDE_ANCHOR, task.name), target).scores,
            anchor.scores,
            thresholds,
            seed=seed,
            resamples=resamples,
            lower_is_better=target.lower_is_better,
            judge=self.judges.get(("anchor", task.name)),
        )
        return results, [*checks, *more]

    def _rows(self, task: EvaluationTask, scores: TaskScores) -> list[EvaluationRow]:
        return self.tasks.rows(task.name) if scores.rows is None else scores.rows
