"""The trials of a sweep as they are known now: what they are, and what became of them, in the order they were begun."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_trainer.contract.sweeps.settings import TrialState

from trimtab_operator.api import TrialStatus

from .observed import Observed
from .pruning import at_rest, halving_of
from .searching import Search, Trial
from .trials import compared, is_measured, judged, rows_digest


@dataclass(frozen=True)
class Ledger:
    """Trials and what is known of each.

    `compared_by`: the digest of the rows that the first trial with a value, or at a rung, was measured on, and so must
    all others be.
    """

    trials: tuple[Trial, ...]
    known: tuple[TrialStatus, ...]
    compared_by: str | None = None

    @property
    def pairs(self) -> tuple[tuple[Trial, TrialStatus], ...]:
        return tuple(zip(self.trials, self.known, strict=True))

    @property
    def running(self) -> tuple[Trial, ...]:
        return self._in(TrialState.RUNNING)

    @property
    def paused(self) -> tuple[Trial, ...]:
        return self._in(TrialState.PAUSED)

    def busy(self, observed: Observed) -> int:
        """Return how many trials hold accelerators: one that is told to wait does until its checkpoint is written."""
        return len(self.running) + sum(not at_rest(trial, observed.jobs) for trial in self.paused)

    def _in(self, state: TrialState) -> tuple[Trial, ...]:
        return tuple(trial for trial, known in self.pairs if known.state is state)


def ledger_of(observed: Observed, search: Search) -> Ledger:
    """Return what is known of the trials that are written down, by their FineTuneJobs and Evaluations."""
    listed = observed.sweep.status.trials
    trials = tuple(search.at(tuple(each.point)) for each in listed)
    known: list[TrialStatus] = []
    compared_by = observed.sweep.status.validation_digest
    rule = halving_of(observed.sweep)
    for each, trial in zip(listed, trials, strict=True):
        now = judged(each, trial, observed)
        if not each.state.is_over:
            now = rule.arrived(now, trial, observed.jobs) if rule is not None else now
            now = compared(now, trial, observed, compared_by)
        known.append(now)
        if compared_by is None and is_measured(now):
            compared_by = rows_digest(trial, observed)
    seen = rule.seen(listed, known) if rule is not None else tuple(known)
    return Ledger(trials, seen, compared_by)
