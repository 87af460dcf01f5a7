"""Why no other trial is begun: each reason a function of what is known, "" where it is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from statistics import fmean

from trimtab_trainer.contract.sweeps.settings import TrialState, all_begun

from trimtab_operator.api import FineTuneJob, FineTuneSweep, TrialStatus

from ..views import parse_time
from .searching import Search, Trial
from .trials import without_improvement


@dataclass(frozen=True)
class Costs:
    """Accelerator seconds of a search.

    Attributes:
        spent: by trials that do not run.
        held: by those that run, each of them with what a trial takes at least.
        each: what another one takes, by the mean of those that were judged: to the end, or to a rung. What was there
            already says nothing of that.
        reserve: what is left to train one trial to its end, as long as none was, by its pace: of the nearest to it.
        whole: what a trial takes that is trained to its end, by the mean of those that were; before that, by `reserve`.
        kept: for what follows the search.
    """

    spent: int
    held: float
    each: float
    reserve: float
    whole: float = 0.0
    kept: float = 0.0

    def admits(self, budget: int) -> bool:
        """Tell whether another trial may be begun."""
        committed = self.spent + self.held
        return committed < budget and committed + self.each + self.reserve + self.kept <= budget

    def admitted(self, budget: int, most: int) -> int:
        """Return how many trials, at most so many, may be begun together: as many as one after the other."""
        number = 0
        while number < most and replace(self, held=self.held + number * self.each).admits(budget):
            number += 1
        return number

    def admits_going_on(self, budget: int, paused: TrialStatus, factor: int) -> bool:
        """Tell whether a paused trial may go on to its next rung, which has `factor` times the steps of its last."""
        more = (paused.accelerator_seconds or 0) * (factor - 1)
        return self.spent + self.held + self.kept + more <= budget


def why_no_more(sweep: FineTuneSweep, search: Search, known: Sequence[TrialStatus], costs: Costs) -> str:
    """Return why no other trial is begun, "" if one may be."""
    spec = sweep.spec
    if len(known) >= spec.max_trials:
        return all_begun(spec.max_trials, spec.algorithm.type, search.dimensions)
    if sweep.status.exhausted:
        return f"all {len(known)} points of the search space were tried"
    patience = spec.stop_after_trials_without_improvement
    if patience is not None and without_improvement(known, spec.objective.direction) >= patience:
        return f"{patience} trials in a row were no better"
    budget = budget_of(sweep)
    if budget is not None and not costs.admits(budget):
        last = f", and {costs.kept:.0f} are kept for adapters of all rows" if costs.kept else ""
        committed = costs.spent + costs.held
        return (
            f"another trial would exceed budget.acceleratorSeconds = {budget}: {committed:.0f} are spent or under way, "
            f"and one takes {costs.each:.0f}{last}"
        )
    return "the search has ended" if sweep.status.final else ""


def budget_of(sweep: FineTuneSweep) -> int | None:
    """Return the accelerator seconds that a search may take, None where there is no limit."""
    return sweep.spec.budget.accelerator_seconds if sweep.spec.budget is not None else None


def costs_of(known: Sequence[TrialStatus], trials: Sequence[Trial], jobs: Mapping[str, FineTuneJob]) -> Costs:
    """Return what a search has cost, and what more of it will."""
    trained = [each for each in known if each.accelerator_seconds]
    judged = [each for each in trained if each.value is not None or (each.rung_values and not _runs(each))]
    each_costs = fmean(each.accelerator_seconds or 0 for each in judged) if judged else 0.0
    held = sum(max(each.accelerator_seconds or 0, each_costs) for each in known if _runs(each))
    reserve = 0.0
    if judged and not any(each.value is not None for each in known):
        pairs = zip(known, trials, strict=True)
        reserve = min((_left(status, trial, jobs) for status, trial in pairs if status.rung_values), default=0.0)
    spent = sum(each.accelerator_seconds or 0 for each in known if not _runs(each))
    ended = [each.accelerator_seconds or 0 for each in trained if each.value is not None]
    whole = fmean(ended) if ended else each_costs + reserve
    return Costs(spent, held, each_costs, reserve, whole)


def seconds_left(sweep: FineTuneSweep, now: datetime) -> float | None:
    """Return how long the search may go on, None where there is no limit or nothing was begun."""
    start, deadline = parse_time(sweep.status.start_time), sweep.spec.active_deadline_seconds
    if start is None or deadline is None:
        return None
    return (start + timedelta(seconds=deadline) - now).total_seconds()


def _runs(status: TrialStatus) -> bool:
    return status.state is TrialState.RUNNING


def _left(status: TrialStatus, trial: Trial, jobs: Mapping[str, FineTuneJob]) -> float:
    """Return the accelerator seconds that a trial takes from here to its end, by its pace so far."""
    seconds = 0.0
    for name in trial.jobs:
        job = jobs.get(name)
        progress = job.status.progress if job is not None else None
        if job is not None and progress is not None and progress.step and progress.total_steps:
            ahead = max(0, progress.total_steps - progress.step)
            seconds += job.status.accelerator_seconds * ahead / progress.step
    return seconds
