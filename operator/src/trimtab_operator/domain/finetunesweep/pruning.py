"""Asynchronous successive halving with pauses: trials that are worse than others at the same step wait.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", arXiv 1810.05934v5, algorithm 2. A rung is a number
of optimizer steps. A trial that reaches one goes on if it is among the best 1/reductionFactor of all that have reached
it, else it is suspended, with its exact checkpoint; it goes on from there once it is among them. So whether a trial
goes on is decided again while others arrive, and no step is trained twice.

The value at a rung is written down with the decision about it. So a running trial whose last rung is in the status was
let past it, and is not stopped by what comes later; and what a thinned curve no longer tells is known.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from trimtab_trainer.contract.sweeps.settings import TrialState

from trimtab_operator.api import FineTuneJob, FineTuneSweep, State, TrialStatus
from trimtab_operator.api.finetunesweep import MAXIMUM_RUNGS

from ..work.attempts.accounts import open_attempt
from ..work.conditions import condition_of, is_over
from .searching import Trial
from .trials import short

RUNG_DIGITS = 5
"""Of a value at a rung, of which there may be many in a status."""


@dataclass(frozen=True)
class Halving:
    """The rule of a sweep.

    Attributes:
        factor: how far the rungs are apart, and of how many trials one goes on.
        minimum_steps: optimizer steps of the first rung.
    """

    factor: int
    minimum_steps: int

    def seen(self, before: Sequence[TrialStatus], arrived: Sequence[TrialStatus]) -> tuple[TrialStatus, ...]:
        """Return what is known of trials: those that arrived at a rung wait or go on.

        Args:
            before: the same as they were written down, whose order `arrived` has.
        """
        best: dict[int, frozenset[str]] = {}
        waits = set()
        for was, status in zip(before, arrived, strict=True):
            rung = _rung(status)
            if status.state is TrialState.RUNNING and rung > _rung(was):
                best.setdefault(rung, self._best(arrived, rung, least=0))
                if status.id not in best[rung]:
                    waits.add(status.id)
        paused = {"state": TrialState.PAUSED}
        return tuple(each.model_copy(update=paused) if each.id in waits else each for each in arrived)

    def promoted(self, known: Sequence[TrialStatus], free: int, *, least: int = 0) -> tuple[str, ...]:
        """Return the paused trials that go on, by id, at most so many: of the highest rung first, of one the best.

        Args:
            least: so many go on at each rung, however few have reached it.
        """
        highest = max((len(each.rung_values or ()) for each in known), default=0)
        found: list[str] = []
        for rung in range(highest, 0, -1):
            best = self._best(known, rung, least)
            waiting = [each for each in known if each.state is TrialState.PAUSED and _rung(each) == rung]
            ranked = sorted((each for each in waiting if each.id in best), key=lambda each: self._rank(each, rung))
            found += [each.id for each in ranked]
        return tuple(found[: max(0, free)])

    def _best(self, known: Sequence[TrialStatus], rung: int, least: int) -> frozenset[str]:
        """Return those that go on of all that have reached a rung; one that turned out to be bad is none of them."""
        there = [each for each in known if each.state is not TrialState.BAD and _rung(each) >= rung]
        number = max(least, len(there) // self.factor)
        return frozenset(each.id for each in heapq.nsmallest(number, there, key=lambda each: self._rank(each, rung)))

    def _rank(self, status: TrialStatus, rung: int) -> float:
        return (status.rung_values or [])[rung - 1]

    def arrived(self, status: TrialStatus, trial: Trial, jobs: Mapping[str, FineTuneJob]) -> TrialStatus:
        """Return what is known of a trial that is not over, with the rungs that it has reached."""
        found = [jobs[name] for name in trial.jobs if name in jobs]
        values = list(status.rung_values or ())
        total = min((job.status.progress.total_steps or 0 if job.status.progress else 0 for job in found), default=0)
        while len(found) == len(trial.jobs) and len(values) < MAXIMUM_RUNGS:
            step = self.minimum_steps * self.factor ** len(values)
            if step >= total:
                break
            losses = [_value_at(job, step) for job in found]
            there = [loss for loss in losses if loss is not None]
            if len(there) < len(losses) or not any(_last_step(job) >= step for job in found):
                break
            values.append(short(fmean(there), RUNG_DIGITS))
        return status.model_copy(update={"rung_values": values or None})


def halving_of(sweep: FineTuneSweep) -> Halving | None:
    """Return the rule by which trials are stopped, None where each is trained to its end."""
    rule = sweep.spec.pruning
    if rule is None:
        return None
    return Halving(rule.reduction_factor, rule.minimum_steps)


def at_rest(trial: Trial, jobs: Mapping[str, FineTuneJob]) -> bool:
    """Tell whether nothing of a trial holds an accelerator: all of it is over, or suspended and its pod gone."""
    return all(_rests(jobs[name]) for name in trial.jobs if name in jobs)


def saved_seconds(known: Sequence[TrialStatus]) -> int:
    """Return the accelerator seconds that stopped trials did not take, by the mean of those that went to their end."""
    whole = trained_seconds(known)
    stopped = [
        each.accelerator_seconds or 0
        for each in known
        if each.state in (TrialState.PAUSED, TrialState.PRUNED) and each.rung_values
    ]
    return round(sum(max(0.0, fmean(whole) - each) for each in stopped)) if whole else 0


def trained_seconds(known: Sequence[TrialStatus]) -> list[int]:
    """Return the accelerator seconds of the trials that were trained to their end, and not found as trained before."""
    return [
        each.accelerator_seconds for each in known if each.state is TrialState.COMPLETE and each.accelerator_seconds
    ]


def shared_seconds(known: Sequence[TrialStatus]) -> int:
    """Return the accelerator seconds that trials did not take because their result was there already.

    By the mean of those that were trained; where nothing takes accelerators, or all results were there, that is 0.
    """
    whole = trained_seconds(known)
    found = sum(each.state is TrialState.COMPLETE and not each.accelerator_seconds for each in known)
    return round(found * fmean(whole)) if whole else 0


def _rung(status: TrialStatus) -> int:
    return len(status.rung_values or ())


def _value_at(job: FineTuneJob, step: int) -> float | None:
    """Return the validation loss of a run at a step, None while that is not known.

    Long curves are thinned: then it is that of the last validation before the step which is left, else of the first one
    after it. A run that has ended before has the value of its end.
    """
    curve = job.status.curve
    points = list(zip(curve.validation_steps, curve.validation_loss, strict=False)) if curve is not None else []
    if not points or (points[-1][0] < step and not is_over(job)):
        return None
    return next((loss for at, loss in reversed(points) if at <= step), points[0][1])


def _last_step(job: FineTuneJob) -> int:
    curve = job.status.curve
    return curve.validation_steps[-1] if curve is not None and curve.validation_steps else 0


def _rests(job: FineTuneJob) -> bool:
    if is_over(job):
        return True
    said, attempt = condition_of(job), open_attempt(job.status)
    told = job.spec.suspend and said is not None and said.reason == State.SUSPENDED
    return told and (attempt is None or attempt.start_time is None)
