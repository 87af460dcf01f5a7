"""FineTuneSweeps: searches whose trials are FineTuneJobs. There is no other record than the objects and the bucket."""

from __future__ import annotations

from datetime import datetime

from trimtab_trainer.contract.sweep import TrialState

from trimtab_operator.api import FineTuneJob, FineTuneSweep, FineTuneSweepStatus
from trimtab_operator.api.finetunesweep import FINETUNESWEEP

from ..cluster import Cluster, Key
from ..ended import lived
from ..indexes import of_sweep
from ..kind import Kind, Needs
from ..measures import Measure
from ..plan import Body, Create, Delete, Plan
from .decide import plan
from .observed import Observed

__all__ = ["FINE_TUNE_SWEEP"]


def _indexes(body: Body, ended: bool) -> tuple[str, ...]:
    metadata = body["metadata"]
    return (of_sweep(metadata["namespace"], metadata["name"]),)


def _concerns(key: Key, ended: bool, indexes: tuple[str, ...]) -> tuple[str, ...]:
    return ()


def _observe(cluster: Cluster, sweep: FineTuneSweep) -> Observed:
    me = sweep.metadata
    key = Key("FineTuneSweep", me.namespace, me.name)
    labelled: tuple[FineTuneJob, ...] = cluster.indexed("FineTuneJob", of_sweep(me.namespace, me.name))
    reports = cluster.jobs_of(me.uid)
    pods = [pod for report in reports for pod in cluster.pods_of(report.uid)]
    return Observed(
        sweep=sweep,
        settings=cluster.settings,
        jobs={job.metadata.name: job for job in labelled if job.metadata.controller == me.uid},
        reports={report.name: report for report in reports},
        last_words={pod.job_name: pod.last_words for pod in pods if pod.last_words is not None},
        taken=cluster.taken(key),
        refused=cluster.refused(key),
    )


def _needs(observed: Observed, planned: Plan) -> Needs:
    """Return what the actions are about, and the sweep itself: whoever led before may have begun other trials."""
    namespace = observed.sweep.metadata.namespace
    created = [action.body for action in planned.actions if isinstance(action, Create)]
    names = [body["metadata"]["name"] for body in created if body["kind"] == "FineTuneJob"]
    names += [
        action.name
        for action in planned.actions
        if not isinstance(action, Create) and not (isinstance(action, Delete) and action.kind == "FineTuneSweep")
    ]
    jobs: dict[str, str | None] = {body["metadata"]["name"]: None for body in created if body["kind"] == "Job"}
    jobs |= {report.name: report.uid for report in observed.reports.values() if not report.finished}
    return Needs(objects=tuple(Key("FineTuneJob", namespace, name) for name in names), jobs=jobs)


def _measures(before: FineTuneSweepStatus, after: FineTuneSweepStatus, now: datetime) -> tuple[Measure, ...]:
    """Return trials that are over, and the end of the sweep."""
    known = {each.id for each in before.trials if each.state is not TrialState.RUNNING}
    over = [each for each in after.trials if each.id not in known and each.state is not TrialState.RUNNING]
    found = [Measure("sweep_trials", (each.reason or each.state.value,)) for each in over]
    if after.completion_time and not before.completion_time:
        found += lived("finetunesweep_seconds", after)
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
    makes=("FineTuneJob",),
)
