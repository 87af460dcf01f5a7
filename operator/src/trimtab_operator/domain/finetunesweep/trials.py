"""What became of each trial: read off its FineTuneJobs, and kept in the status once it is over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from trimtab_trainer.contract import Reason, digest_of
from trimtab_trainer.contract.sweeps.record import numbers_of
from trimtab_trainer.contract.sweeps.settings import Dimension, Direction, KnownTrial, TrialState

from trimtab_operator.api import BestTrial, Evaluation, FineTuneJob, SweepArtifact, TrialStatus
from trimtab_operator.api.sweep_judging import Objective

from ..work.conditions import condition_of
from .judging import result_of
from .observed import Observed
from .searching import Trial

VALUE_MISSING = "ValueMissing"
ROWS_DIFFER = "ValidationRowsDiffer"
SETTINGS_REFUSED = Reason.SETTINGS_INVALID.value

OF_THE_POINT = frozenset(
    {
        SETTINGS_REFUSED,
        VALUE_MISSING,
        ROWS_DIFFER,
        Reason.TARGET_MODULES_NOT_FOUND.value,
        Reason.SEQUENCE_TOO_LONG.value,
        Reason.DATASET_EMPTY.value,
        Reason.OUT_OF_MEMORY.value,
    }
)
"""Ends that other settings may not meet; all others have nothing to do with one trial alone."""
ENOUGH_FAULTS = 3


def begun(trial: Trial) -> TrialStatus:
    """Return what is known of a trial that was just chosen: settings that are refused are a bad point at once."""
    known = TrialStatus(id=trial.id, point=list(trial.point))
    return known.model_copy(update={"state": TrialState.BAD, "reason": SETTINGS_REFUSED}) if trial.trouble else known


def judged(known: TrialStatus, trial: Trial, observed: Observed) -> TrialStatus:
    """Return what is known of a trial now; one that is over stays what it is.

    Args:
        known: what was known of it before.
        trial: it.
        observed: its FineTuneJobs and Evaluations among others.
    """
    if known.state.is_over:
        return known
    objective = observed.sweep.spec.objective
    jobs = [observed.jobs[name] for name in trial.jobs if name in observed.jobs]
    evaluations = [observed.evaluations[name] for name in trial.jobs if name in observed.evaluations]
    children: list[FineTuneJob | Evaluation] = [*jobs, *evaluations]
    seconds = sum(each.status.accelerator_seconds for each in children)
    known = known.model_copy(update={"accelerator_seconds": seconds})
    ends = [condition for each in children if (condition := condition_of(each)) is not None]
    if failed := next((each for each in ends if each.status == "False"), None):
        return known.model_copy(update={"state": TrialState.BAD, "reason": failed.reason})
    wanted = len(trial.jobs) * (2 if objective.evaluation is not None else 1)
    if len(ends) < wanted or any(each.status != "True" for each in ends):
        return known
    if objective.evaluation is None:
        values = [_held_out(objective, job) for job in jobs]
    else:
        figures = [result_of(each, objective.evaluation.metric) for each in evaluations]
        values = [figure.value if figure is not None else None for figure in figures]
    numbers = [each for each in values if each is not None and math.isfinite(each)]
    if len(numbers) < len(values):
        return known.model_copy(update={"state": TrialState.BAD, "reason": VALUE_MISSING})
    error = stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else None
    update = {
        "state": TrialState.COMPLETE,
        "value": short(fmean(numbers)),
        "standard_error": short(error, 3) if error is not None else None,
    }
    return known.model_copy(update=update)


def is_measured(known: TrialStatus) -> bool:
    """Tell whether a trial has figures that others are compared with: a value, or one at a rung."""
    return known.state is not TrialState.BAD and (known.value is not None or bool(known.rung_values))


def compared(known: TrialStatus, trial: Trial, observed: Observed, compared_by: str | None) -> TrialStatus:
    """Return a trial as bad whose figures are of other rows than those of the others.

    Args:
        known: what is known of it now.
        trial: it.
        observed: its FineTuneJobs among others.
        compared_by: digest of the rows that others were measured on; None: not known.
    """
    if compared_by is None or not is_measured(known) or rows_digest(trial, observed) in (None, compared_by):
        return known
    none = {"value": None, "standard_error": None}
    return known.model_copy(update={"state": TrialState.BAD, "reason": ROWS_DIFFER, **none})


def _held_out(objective: Objective, job: FineTuneJob) -> float | None:
    """Return the value of a FineTuneJob on the rows that it held out."""
    loss = job.status.progress.validation_loss if job.status.progress is not None else None
    if loss is None or objective.figure != "bitsPerByte":
        return loss
    rows = job.status.dataset
    if rows is None or not rows.validation_bytes or not rows.validation_supervised_tokens:
        return None
    return loss * rows.validation_supervised_tokens / (rows.validation_bytes * math.log(2))


def rows_digest(trial: Trial, observed: Observed) -> str | None:
    """Return the digest of the rows that a trial's values are of, all folds together; None where that is not known."""
    if observed.sweep.spec.objective.evaluation is not None:
        return None  # an Evaluation has rows of its own
    found = [observed.jobs[name].status.dataset for name in trial.jobs if name in observed.jobs]
    digests = [each.validation_digest for each in found if each is not None and each.validation_digest is not None]
    if len(digests) < len(trial.jobs):
        return None
    return digests[0] if len(digests) == 1 else digest_of(digests)


def best_of(trials: Sequence[TrialStatus], direction: Direction) -> TrialStatus | None:
    """Return the best trial that has a value; of equal ones that which was begun first."""
    done = [each for each in trials if each.value is not None]
    sign = 1 if direction is Direction.MINIMIZE else -1
    return min(done, key=lambda each: sign * (each.value or 0.0), default=None)


def told_as_best(
    known: TrialStatus, trial: Trial, name: str, job: FineTuneJob | None, before: SweepArtifact | None = None
) -> BestTrial:
    """Return what a status says of the best trial.

    Args:
        known: what is known of it.
        trial: it.
        name: of the FineTuneJob that stands for it.
        job: that FineTuneJob, where its adapter is the trial's and it is still there.
        before: the adapter as it was told before.
    """
    artifact = job.status.artifact if job is not None else None
    return BestTrial(
        id=known.id,
        fine_tune_job_name=name,
        parameters=dict(trial.parameters),
        value=known.value if known.value is not None else 0.0,
        standard_error=known.standard_error,
        artifact=SweepArtifact(uri=artifact.uri, digest=artifact.digest) if artifact is not None else before,
    )


def without_improvement(trials: Sequence[TrialStatus], direction: Direction) -> int:
    """Return how many trials were begun after the best one and judged, by their value or as worse at a rung."""
    done = [each for each in trials if each.value is not None or (_was_stopped(each) and each.rung_values)]
    best = best_of(done, direction)
    return len(done) - 1 - done.index(best) if best is not None else 0


def shared_fault(trials: Sequence[TrialStatus], space: Sequence[Dimension]) -> str | None:
    """Return the reason with which trials end that have nothing to do with their settings, if that is certain.

    It is not while those with another base model, other rows, or another word or section of the settings may end well:
    the fault may be of the ones that were tried.
    """
    if any(each.value is not None or each.rung_values for each in trials):
        return None
    chosen = [
        number for number, each in enumerate(space) if each.values is not None and numbers_of(each.values) is None
    ]
    faults: dict[str, list[TrialStatus]] = {}
    for each in trials:
        if each.reason is not None and each.reason not in OF_THE_POINT:
            faults.setdefault(each.reason, []).append(each)
    for reason, ended in faults.items():
        tried = [len({each.point[number] for each in ended}) for number in chosen]
        enough = [min(ENOUGH_FAULTS, space[number].size) for number in chosen]
        if len(ended) >= ENOUGH_FAULTS and all(one >= other for one, other in zip(tried, enough, strict=True)):
            return reason
    return None


def stopped(known: TrialStatus, reason: str | None, state: TrialState = TrialState.PRUNED) -> TrialStatus:
    """Return a trial as it is once the search has ended; the reason is that of one which was under way."""
    if known.state.is_over:
        return known
    why = reason if known.state is TrialState.RUNNING else known.reason
    return known.model_copy(update={"state": state, "reason": why})


def known_of(status: TrialStatus) -> KnownTrial:
    """Return a trial as the choice of the next ones depends on it."""
    if _was_stopped(status) and status.rung_values:
        return KnownTrial(tuple(status.point), status.state, status.rung_values[-1], len(status.rung_values))
    return KnownTrial(tuple(status.point), status.state, status.value)


def _was_stopped(status: TrialStatus) -> bool:
    return status.state in (TrialState.PAUSED, TrialState.PRUNED)


def short(value: float, digits: int = 6) -> float:
    """Return a value with as many digits as a status has of it."""
    return float(f"{value:.{digits}g}")
