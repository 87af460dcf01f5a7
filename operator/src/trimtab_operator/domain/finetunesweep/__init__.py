"""FineTuneSweeps: searches whose trials are FineTuneJobs, judged by Evaluations.

There is no other record than the objects and the bucket."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from trimtab_trainer.contract.sweeps.settings import TrialState

from trimtab_operator.api import Evaluation, FineTuneJob, FineTuneSweep, FineTuneSweepStatus
from trimtab_operator.api.finetunesweep import FINETUNESWEEP

from ..cluster import Cluster, Key
from ..ended import lived
from ..indexes import of_sweep, sweep_named
from ..kind import Kind, Needs
from ..measures import Measure
from ..plan import Body, Create, Delete, Plan
from ..readers import Readers, readers_of_evaluation, readers_of_job
from ..work.conditions import is_over
from .decide import plan
from .observed import Observed
from .reporting import CHILDREN

__all__ = ["FINE_TUNE_SWEEP"]


def _indexes(body: Body, ended: bool) -> tuple[str, ...]:
    metadata = body["metadata"]
    return (sweep_named(metadata["namespace"], metadata["name"]),)


def _concerns(key: Key, ended: bool, indexes: tuple[str, ...]) -> tuple[str, ...]:
    return ()


def _observe(cluster: Cluster, sweep: FineTuneSweep) -> Observed:
    me = sweep.metadata
    key = Key("FineTuneSweep", me.namespace, me.name)
    labelled: tuple[FineTuneJob, ...] = cluster.indexed("FineTuneJob", of_sweep(me.namespace, me.name))
    judging: tuple[Evaluation, ...] = cluster.indexed("Evaluation", of_sweep(me.namespace, me.name))
    gone, there = cluster.departed(key), cluster.jobs_of(key)
    reports = [view for view in (*gone, *there) if view.owner_uid == me.uid]
    pods = [pod for report in reports for pod in cluster.pods_of(report.uid)]
    jobs = {job.metadata.name: job for job in labelled if job.metadata.controller == me.uid}
    evaluations = {each.metadata.name: each for each in judging if each.metadata.controller == me.uid}
    return Observed(
        sweep=sweep,
        settings=cluster.settings,
        jobs=jobs,
        reports={report.name: report for report in reports},
        last_words={pod.job_name: pod.last_words for pod in pods if pod.last_words is not None},
        taken=cluster.taken(key),
        refused=cluster.refused(key),
        evaluations=evaluations,
        awaited=_awaited(cluster, sweep, jobs, evaluations) if is_over(sweep) else {},
    )


def _awaited(
    cluster: Cluster, sweep: FineTuneSweep, jobs: Mapping[str, FineTuneJob], evaluations: Mapping[str, Evaluation]
) -> dict[str, Readers]:
    """Return who has still to read what. What has not ended by now never does, so nobody can read it."""
    me = sweep.metadata
    trained = (name for name, job in jobs.items() if is_over(job))
    read = {name: readers_of_job(cluster, me.namespace, name, but_of=me.uid) for name in trained}
    judged = (each for each in evaluations.values() if is_over(each))
    for each in judged:
        name = each.metadata.name
        read[name] = (*read.get(name, ()), *readers_of_evaluation(cluster, each))
    return {name: readers for name, readers in read.items() if readers}


def _needs(observed: Observed, planned: Plan) -> Needs:
    """Return what the actions are about, and the sweep itself: whoever led before may have begun other trials.

    And what may run still though its trial waits or is over, where it was not heard of: it holds what others shall get.
    """
    namespace = observed.sweep.metadata.namespace
    created = [action.body for action in planned.actions if isinstance(action, Create)]
    jobs: dict[str, str | None] = {body["metadata"]["name"]: None for body in created if body["kind"] == "Job"}
    jobs |= {report.name: report.uid for report in observed.reports.values() if not report.finished}
    keys = {
        Key(action.body["kind"], namespace, action.body["metadata"]["name"])
        if isinstance(action, Create)
        else Key(action.kind, namespace, action.name)
        for action in planned.actions
        if not (isinstance(action, Delete) and action.kind == "FineTuneSweep")
        and not (isinstance(action, Create) and action.body["kind"] in CHILDREN)
    }
    unheard_of = {Key("FineTuneJob", namespace, name) for name in _unheard_of(observed)}
    return Needs(objects=tuple(sorted(keys | unheard_of)), jobs=jobs)


def _unheard_of(observed: Observed) -> set[str]:
    name, folds = observed.sweep.metadata.name, observed.sweep.spec.folds
    suffixes = [""] if folds is None else [f"-f{fold}" for fold in range(folds)]
    stopped = [
        each.id
        for each in observed.sweep.status.trials
        if each.state is TrialState.PAUSED
        or (each.state is TrialState.BAD and folds is not None and each.accelerator_seconds is not None)
    ]
    return {f"{name}-{trial}{suffix}" for trial in stopped for suffix in suffixes} - observed.jobs.keys()


def _measures(before: FineTuneSweepStatus, after: FineTuneSweepStatus, now: datetime) -> tuple[Measure, ...]:
    """Return trials that are over, and the end of the sweep."""
    known = {each.id for each in before.trials if each.state.is_over}
    over = [each for each in after.trials if each.id not in known and each.state.is_over]
    found = [Measure("sweep_trials", (each.reason or each.state.value,)) for each in over]
    if after.completion_time and not before.completion_time:
        found += lived("finetunesweep_seconds", after)
        found.append(Measure("sweep_saved_seconds", amount=after.saved_accelerator_seconds or 0))
    return tuple(found)


FINE_TUNE_SWEEP = Kind(
    crd=FINETUNESWEEP,
    ends=True,
    parse=FineTuneSweep.parse,
    indexes=_indexes,
    concerns=_concerns,
    observe=_observe,
    plan=plan,
    needs=_needs,
    measures=_measures,
    gauge="trimtab_finetunesweeps",
    makes=("FineTuneJob", "Evaluation"),
)
