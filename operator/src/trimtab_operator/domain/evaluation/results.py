"""What an Evaluation's status says of the evaluation itself: what was prepared, progress, results and the verdict."""

from __future__ import annotations

import json
from datetime import datetime

from trimtab_trainer.contract import EvaluationOutcome, PreparedEvaluation, Stage

from trimtab_operator.api import PASSED, Condition, Evaluation, EvaluationProgress, EvaluationStatus, ModelStatus

from ..work.attempts.attempt import Attempt
from ..work.conditions import make_condition
from .resolve import models_of, served_nothing, status_of
from .verdict import judge

STATUS_BYTES = 7_500
"""What the status may take but for its two conditions: with them it stays below 10 kB. Results get what is left."""


def sides(evaluation: Evaluation) -> int:
    """Return how many times tasks are asked: of the target, and of baseline and anchor where there is one."""
    compared = (each for each in (evaluation.spec.baseline, evaluation.spec.anchor) if each is not None)
    return len(evaluation.spec.tasks) * (1 + sum(1 for _ in compared))


def note_prepared(evaluation: Evaluation, status: EvaluationStatus, prepared: PreparedEvaluation) -> EvaluationStatus:
    """Return the status with what preparing found."""
    models = models_of(evaluation, status)
    target, baseline = status_of(models.target), status_of(models.baseline) if models.compared else None
    anchor = status_of(models.anchor) if evaluation.spec.anchor is not None else None
    return status.model_copy(
        update={
            "target": _pinned(target, prepared.target_digest),
            "baseline": _pinned(baseline, prepared.baseline_digest) if baseline is not None else None,
            "anchor": _pinned(anchor, prepared.anchor_digest) if anchor is not None else None,
            "base_model_digest": prepared.base_model_digest,
            "data_digest": prepared.data_digest,
            "evaluation_digest": prepared.evaluation_digest,
            "rows": prepared.rows,
            "progress": status.progress or EvaluationProgress(tasks_done=0, tasks=sides(evaluation), percent=0),
        }
    )


def _pinned(model: ModelStatus, digest: str | None) -> ModelStatus:
    return model.model_copy(update={"digest": model.digest or digest})


def prepared_of(evaluation: Evaluation, status: EvaluationStatus) -> PreparedEvaluation | None:
    """Return what preparing found, and the answers to be judged, for the arguments of Jobs; None before that."""
    if status.evaluation_digest is None or status.data_digest is None or status.base_model_digest is None:
        return None
    return PreparedEvaluation(
        evaluation_digest=status.evaluation_digest,
        data_digest=status.data_digest,
        base_model_digest=status.base_model_digest,
        target_digest=status.target.digest if status.target is not None else None,
        baseline_digest=status.baseline.digest if status.baseline is not None else None,
        anchor_digest=status.anchor.digest if status.anchor is not None else None,
        answers_digest=status.answers_digest,
        tasks=len(evaluation.spec.tasks),
        rows=status.rows or 0,
    )


def note_progress(status: EvaluationStatus, attempt: Attempt) -> EvaluationStatus:
    """Return the status with what the trainer last said of itself: tasks, of target and baseline apart."""
    progress = attempt.progress_in(Stage.EVALUATE)
    if progress is None:
        return status
    percent = min(100, 100 * progress.step // progress.total_steps)
    shown = EvaluationProgress(tasks_done=progress.step, tasks=progress.total_steps, percent=percent)
    return status.model_copy(update={"progress": shown})


def note_outcome(
    evaluation: Evaluation, status: EvaluationStatus, outcome: EvaluationOutcome, now: datetime
) -> EvaluationStatus:
    """Return the status with the results, and the verdict on them as the condition `Passed`."""
    size = len(json.dumps(status.model_copy(update={"results": [], "conditions": []}).to_json(), separators=(",", ":")))
    verdict = judge(
        evaluation.spec.thresholds, outcome, STATUS_BYTES - size, anchored=evaluation.spec.anchor is not None
    )
    looks = f"these rows were seen by {outcome.looks} Evaluations" if outcome.looks > 1 else None
    message = "; ".join(filter(None, (verdict.message, looks, served_nothing(evaluation, status))))
    condition = make_condition(
        evaluation, "True" if verdict.passed else "False", verdict.reason.value, message, now, kind=PASSED
    )
    tasks = status.progress.tasks if status.progress is not None else sides(evaluation)
    return status.model_copy(
        update={
            "results": list(verdict.results),
            "results_omitted": verdict.omitted,
            "report_uri": outcome.report_uri,
            "looks": outcome.looks or status.looks,
            "rows": outcome.rows or status.rows,
            "progress": EvaluationProgress(tasks_done=tasks, tasks=tasks, percent=100),
            "conditions": [*(c for c in status.conditions if c.type != PASSED), condition],
        }
    )


def verdict_of(status: EvaluationStatus) -> Condition | None:
    """Return the condition that says whether it passed."""
    return next((condition for condition in status.conditions if condition.type == PASSED), None)
