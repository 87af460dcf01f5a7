"""What follows a search: adapters of all rows where trials were folds, and the final of the best.

1. The best trials are written down; from then on the search is closed.
2. Where trials are folds, one FineTuneJob each is trained on all rows with their settings: none of the folds' adapters
   has seen them all.
3. Each gets an Evaluation; the best of those that passed is the winner.
4. The winner gets an Evaluation with the sweep's name, by which it may be followed.

All of it follows from the status and from objects whose names follow from the trials, as in the search itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimtab_trainer.contract.sweeps.settings import Direction

from trimtab_operator.api import BestTrial, FineTuneJob, FineTuneSweepStatus, SweepState, TrialStatus
from trimtab_operator.api.sweep_judging import FinalState, FinalTrial

from ..plan import Action, Create, Suspend
from ..work.conditions import condition_of, is_over
from .judging import FINAL_SUFFIX, final_evaluation, has_adapter, result_of, winners_evaluation
from .observed import Observed
from .searching import Search, job_of, refit_of
from .trials import told_as_best


@dataclass(frozen=True)
class Closing:
    """What is left to do after the search.

    Attributes:
        status: with what is known of it.
        actions: to carry out now.
        state: of the sweep while something is waited for, or that it ends with.
        message: what is waited for, or how it ended.
        over: nothing is left to do; then `state` is Completed, or why it is not.
    """

    status: FineTuneSweepStatus
    state: SweepState
    message: str = ""
    actions: tuple[Action, ...] = ()
    over: bool = False


def finalists(observed: Observed, trials: Sequence[TrialStatus]) -> list[FinalTrial]:
    """Return the trials that take part in what follows the search, the best first; none where nothing does."""
    spec, name = observed.sweep.spec, observed.sweep.metadata.name
    if spec.final is None and spec.folds is None:
        return []
    sign = 1 if spec.objective.direction is Direction.MINIMIZE else -1
    ranked = sorted((each for each in trials if each.value is not None), key=lambda each: sign * (each.value or 0.0))
    return [
        FinalTrial(
            id=each.id,
            fine_tune_job_name=f"{name}-{each.id}",
            evaluation_name=f"{name}-{each.id}{FINAL_SUFFIX}" if spec.final is not None else None,
        )
        for each in ranked[: finalist_count(observed)]
    ]


def finalist_count(observed: Observed) -> int:
    """Return how many trials take part in what follows the search at most."""
    final = observed.sweep.spec.final
    return final.top_trials if final is not None else 1


def reserved(observed: Observed, whole: float) -> float:
    """Return the accelerator seconds that are kept for the adapters of all rows, by what a whole trial takes."""
    folds = observed.sweep.spec.folds
    return finalist_count(observed) * whole / folds if folds is not None else 0.0


def closing(observed: Observed, search: Search, status: FineTuneSweepStatus) -> Closing:
    """Return what is to be done after the last trial has ended."""
    if not status.final:
        chosen = finalists(observed, status.trials)
        if not chosen:
            return Closing(status, SweepState.COMPLETED, over=True)
        state = SweepState.REFITTING if search.folds is not None else SweepState.JUDGING
        return Closing(status.model_copy(update={"final": chosen}), state, "the search has ended")
    entries, actions = [], list[Action]()
    for entry in status.final:
        now, wanted = _judged(observed, search, entry)
        entries.append(now)
        actions += wanted
    beside = sum(each.accelerator_seconds for each in entries)
    searched = sum(each.accelerator_seconds or 0 for each in status.trials)
    status = status.model_copy(update={"final": entries, "accelerator_seconds": searched + beside})
    waiting = [each for each in entries if each.state is FinalState.RUNNING]
    if waiting:
        training = [each for each in waiting if not has_adapter(observed, each.fine_tune_job_name)]
        if training:
            words = f"adapters of all rows are trained, {len(training)} of {len(entries)} are not there yet"
            return Closing(status, SweepState.REFITTING, words, tuple(actions))
        words = f"{len(waiting)} of the {len(entries)} best trials are judged on rows that none has seen"
        return Closing(status, SweepState.JUDGING, words, tuple(actions))
    return _decided(observed, search, status)


def _judged(observed: Observed, search: Search, entry: FinalTrial) -> tuple[FinalTrial, list[Action]]:
    """Return what is known of one of the best now, and what is to be made for it. What is over stays as it is."""
    if entry.state is not FinalState.RUNNING:
        return entry, []
    sweep, job = observed.sweep, observed.jobs.get(entry.fine_tune_job_name)
    evaluation = observed.evaluations.get(entry.evaluation_name or "")
    seconds = evaluation.status.accelerator_seconds if evaluation is not None else 0
    if search.folds is not None:  # else it is the trial's, which has paid for it
        seconds += job.status.accelerator_seconds if job is not None else 0
    entry = entry.model_copy(update={"accelerator_seconds": max(seconds, entry.accelerator_seconds)})
    if evaluation is None:  # which needs the FineTuneJob no more, once it has begun
        if job is None:
            return entry, [Create(_refit(observed, search, entry))]
        ended = condition_of(job)
        if ended is None or ended.status == "Unknown":
            return entry, _resumed(job, "FineTuneJob")
        if ended.status == "False":
            return entry.model_copy(update={"state": FinalState.FAILED, "reason": ended.reason}), []
        if sweep.spec.final is None:
            return entry.model_copy(update={"state": FinalState.TRAINED}), []
        return entry, [Create(final_evaluation(sweep, entry.id, entry.fine_tune_job_name))]
    if not is_over(evaluation):
        return entry, _resumed(evaluation, "Evaluation")
    return _verdict(observed, entry, evaluation), []


def _verdict(observed: Observed, entry: FinalTrial, evaluation: Any) -> FinalTrial:
    final = observed.sweep.spec.final
    assert final is not None
    ended, passed = condition_of(evaluation), condition_of(evaluation, "Passed")
    figure = result_of(evaluation, final.evaluation.metric)
    if ended is None or ended.status == "False" or passed is None:
        update: dict[str, object] = {"state": FinalState.FAILED, "reason": ended.reason if ended else None}
    elif figure is None or figure.value is None or not math.isfinite(figure.value):
        update = {"state": FinalState.FAILED, "reason": "ValueMissing"}
    else:
        state = FinalState.PASSED if passed.status == "True" else FinalState.NOT_PASSED
        update = {"state": state, "reason": passed.reason}
    if figure is not None:
        update |= {"value": figure.value, "low": figure.low, "high": figure.high}
    return entry.model_copy(update=update)


def _decided(observed: Observed, search: Search, status: FineTuneSweepStatus) -> Closing:
    """Return the end, once all of the best are judged; the winner's own Evaluation comes before it."""
    final, told = observed.sweep.spec.final, "; ".join(_told(each) for each in status.final)
    won = winner(status.final, _direction(observed))
    if won is None:
        state = SweepState.NONE_PASSED if final is not None else SweepState.REFIT_FAILED
        return Closing(status, state, told, over=True)
    status = status.model_copy(update={"best": _best(observed, search, status, won)})
    if final is None:
        return Closing(status, SweepState.COMPLETED, over=True)
    name = observed.sweep.metadata.name
    evaluation = observed.evaluations.get(name)
    if evaluation is None:
        made = Create(winners_evaluation(observed.sweep, won.id, won.fine_tune_job_name))
        return Closing(status, SweepState.JUDGING, f"{told}; the winner gets its Evaluation {name}", (made,))
    seconds = status.accelerator_seconds + evaluation.status.accelerator_seconds
    status = status.model_copy(update={"accelerator_seconds": seconds})
    if not is_over(evaluation):
        words = f"{told}; the winner's Evaluation {name} is under way"
        return Closing(status, SweepState.JUDGING, words, tuple(_resumed(evaluation, "Evaluation")))
    passed = condition_of(evaluation, "Passed")
    if passed is None or passed.status != "True":
        reason = passed.reason if passed is not None else "it has no verdict"
        words = f"{told}; the winner's own Evaluation {name} did not pass: {reason}"
        return Closing(status, SweepState.NONE_PASSED, words, over=True)
    return Closing(status, SweepState.COMPLETED, f"{told}; Evaluation {name} is the winner's", over=True)


def winner(entries: Sequence[FinalTrial], direction: Direction) -> FinalTrial | None:
    """Return the best of those that passed; without a final, the one that was trained. Of equal ones the first."""
    sign = 1 if direction is Direction.MINIMIZE else -1
    passed = [each for each in entries if each.state in (FinalState.PASSED, FinalState.TRAINED)]
    return min(passed, key=lambda each: sign * (each.value or 0.0), default=None)


def _direction(observed: Observed) -> Direction:
    final = observed.sweep.spec.final
    if final is None:
        return Direction.MINIMIZE
    return final.direction or final.evaluation.better or Direction.MINIMIZE


def _best(observed: Observed, search: Search, status: FineTuneSweepStatus, won: FinalTrial) -> BestTrial:
    known = next(each for each in status.trials if each.id == won.id)
    before = status.best.artifact if status.best is not None and status.best.id == won.id else None
    name = won.fine_tune_job_name
    return told_as_best(known, search.at(tuple(known.point)), name, observed.jobs.get(name), before)


def _refit(observed: Observed, search: Search, entry: FinalTrial) -> dict[str, Any]:
    """Return the FineTuneJob that trains on all rows with the settings of one of the best, to be created."""
    point = next(each.point for each in observed.sweep.status.trials if each.id == entry.id)
    trial = search.at(tuple(point))
    if search.folds is None:
        return job_of(observed.sweep, trial, entry.fine_tune_job_name)  # somebody deleted it; its result is found again
    steps = [_best_step(observed.jobs[name]) for name in trial.jobs if name in observed.jobs]
    known = [each for each in steps if each is not None]
    # As many passes over all rows as the folds' adapters had over their part of them.
    mean = sum(known) / len(known) * search.folds / (search.folds - 1) if known else None
    return job_of(observed.sweep, trial, entry.fine_tune_job_name, refit_of(search, trial, mean))


def _best_step(job: FineTuneJob) -> int | None:
    """Return the step after which a fold that stops early was best; None if it does not."""
    curve = job.status.curve
    if job.spec.training.early_stopping is None or curve is None or not curve.validation_loss:
        return None
    best = min(range(len(curve.validation_loss)), key=lambda index: curve.validation_loss[index])
    return curve.validation_steps[best]


def _resumed(child: Any, kind: str) -> list[Action]:
    if not child.spec.suspend:
        return []
    me = child.metadata
    return [Suspend(me.namespace, me.name, me.uid, suspend=False, kind=kind)]


def _told(entry: FinalTrial) -> str:
    words = f"{entry.fine_tune_job_name} {entry.state.value}"
    if entry.reason is not None and entry.reason != entry.state.value:
        words += f" ({entry.reason})"
    if entry.value is not None:
        words += f" {entry.value:.4g}"
    if entry.low is not None and entry.high is not None:
        words += f" [{entry.low:.4g}, {entry.high:.4g}]"
    return words
