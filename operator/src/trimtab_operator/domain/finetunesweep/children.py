"""What the FineTuneJobs of trials need, as actions: to be made, to stop after a checkpoint, to go on, to go."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from trimtab_operator.api import FineTuneJob

from ..plan import Action, Create, Delete, Suspend
from ..work.conditions import is_over
from .ledger import Ledger
from .observed import Observed
from .searching import Trial, job_of, rows_of


def missing(observed: Observed, ledger: Ledger) -> tuple[Action, ...]:
    """Return the creation of FineTuneJobs that are not there.

    One whose rows are the same as another's waits until that has prepared them: all others find them then.
    """
    preparing: set[bytes] = set()
    prepared: set[bytes] = set()
    for trial in ledger.trials:
        for name, spec in trial.jobs.items():
            job = observed.jobs.get(name)
            if job is not None and job.status.dataset is not None:
                prepared.add(rows_of(spec))
            elif job is not None and not is_over(job):
                preparing.add(rows_of(spec))
    actions: list[Action] = []
    for trial in ledger.running:
        for name, spec in trial.jobs.items():
            if name in observed.jobs:
                continue
            rows = rows_of(spec)
            if rows not in preparing or rows in prepared:
                actions.append(Create(job_of(observed.sweep, trial, name)))
                preparing.add(rows)
    return tuple(actions)


def leftovers(observed: Observed, ledger: Ledger) -> tuple[Action, ...]:
    """Return the deletion of FineTuneJobs that still run though their trial is over: another of its folds failed."""
    on_the_way = {name for trial in (*ledger.running, *ledger.paused) for name in trial.jobs}
    return deletions(observed, lambda name, job: name not in on_the_way and not is_over(job))


def deletions(observed: Observed, goes: Callable[[str, FineTuneJob], bool]) -> tuple[Action, ...]:
    return tuple(
        Delete("FineTuneJob", job.metadata.namespace, name, job.metadata.uid)
        for name, job in sorted(observed.jobs.items())
        if job.metadata.deletion_timestamp is None and goes(name, job)
    )


def suspensions(observed: Observed, trials: Iterable[Trial], *, suspend: bool) -> tuple[Action, ...]:
    """Return what makes the FineTuneJobs of trials stop after a checkpoint, or go on."""
    jobs = [observed.jobs[name] for trial in trials for name in trial.jobs if name in observed.jobs]
    return suspended(jobs, suspend=suspend)


def suspended(jobs: Iterable[FineTuneJob], *, suspend: bool = True) -> tuple[Action, ...]:
    """Return what suspends FineTuneJobs that are not over, or lets them go on."""
    return tuple(
        Suspend(job.metadata.namespace, job.metadata.name, job.metadata.uid, suspend, kind="FineTuneJob")
        for job in jobs
        if job.spec.suspend is not suspend and not is_over(job)
    )
