"""What FineTuneJobs and Evaluations of trials need, as actions: to be made, to stop, to go on, to go."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from trimtab_trainer.contract.sweeps.settings import TrialState

from trimtab_operator.api import Evaluation, FineTuneJob

from ..plan import Action, Create, Delete, Suspend
from ..work.conditions import is_over
from .ledger import Ledger
from .observed import Observed
from .searching import Trial, job_of, rows_of

Child = FineTuneJob | Evaluation


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
    """Return the deletion of what still runs though its trial is over: another of its folds failed."""
    stays = {name for trial, known in ledger.pairs if known.state is not TrialState.BAD for name in trial.jobs}
    return deletions(observed, lambda name, child: name not in stays and not is_over(child))


def deletions(observed: Observed, goes: Callable[[str, Child], bool]) -> tuple[Action, ...]:
    return tuple(
        Delete(kind, child.metadata.namespace, child.metadata.name, child.metadata.uid)
        for kind, child in observed.children
        if child.metadata.deletion_timestamp is None and goes(child.metadata.name, child)
    )


def suspensions(observed: Observed, trials: Iterable[Trial], *, suspend: bool) -> tuple[Action, ...]:
    """Return what makes the work of trials stop after a checkpoint, or go on."""
    names = {name for trial in trials for name in trial.jobs}
    return suspended([pair for pair in observed.children if pair[1].metadata.name in names], suspend=suspend)


def all_held(observed: Observed) -> tuple[Action, ...]:
    """Return what makes everything of a sweep stop, what follows the search too."""
    return suspended(observed.children)


def suspended(children: Iterable[tuple[str, Child]], *, suspend: bool = True) -> tuple[Action, ...]:
    """Return what suspends children that are not over, each with its kind, or lets them go on."""
    return tuple(
        Suspend(child.metadata.namespace, child.metadata.name, child.metadata.uid, suspend, kind=kind)
        for kind, child in children
        if child.spec.suspend is not suspend and not is_over(child)
    )
