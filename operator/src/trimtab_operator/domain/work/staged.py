"""The record of a kind that works in stages: what `Kind` wants of it, from its particulars."""

from __future__ import annotations

from collections.abc import Callable, Set
from datetime import datetime
from functools import partial
from typing import Any

from trimtab_trainer.contract import Reason, Stage

from trimtab_operator.api import WorkStatus
from trimtab_operator.api.definitions.customresource import CustomResource
from trimtab_operator.api.tracking import TRACKED

from ..cluster import Cluster, Key
from ..ended import lived
from ..kind import Kind, Needs
from ..measures import Measure
from ..plan import Body, Create, Plan
from ..readers import Readers
from ..views import PodView
from .attempts.attempt import attempts_of
from .building.names import job_names_to_confirm
from .conditions import is_over
from .decide import plan
from .observed import Observed
from .particulars import Particulars, References
from .subject import J, Work

AFTERWARDS = frozenset({Stage.TRACK.value})
"""Stages of what is done after the end: no attempts, and left alone by whoever ends those."""


def no_verdict(status: WorkStatus) -> tuple[Measure, ...]:
    """Return nothing: most kinds end without one."""
    return ()


def nobody_waits(cluster: Cluster, job: Work) -> Readers:
    """Return that nobody reads it: most kinds."""
    return ()


def staged(
    particulars: Particulars[J, Any],
    crd: CustomResource,
    *,
    parse: Callable[[Body], J],
    indexes: Callable[[Body, bool], tuple[str, ...]],
    concerns: Callable[[Key, bool, tuple[str, ...]], tuple[str, ...]],
    gauge: str,
    seconds: str,
    verdict: Callable[[WorkStatus], tuple[Measure, ...]] = no_verdict,
    later: frozenset[str] = frozenset(),
    awaited: Callable[[Cluster, J], Readers] = nobody_waits,
) -> Kind[J, Observed[J]]:
    """Return the record. `seconds` is the histogram of lives; `verdict` tells more of an object that has just ended,
    `later` are the types of conditions that are written after the end, and `awaited` tells who has still to read
    it."""
    return Kind(
        crd=crd,
        ends=True,
        parse=parse,
        indexes=indexes,
        concerns=concerns,
        observe=partial(_observe, particulars, awaited),
        plan=plan,
        needs=needs,
        measures=partial(_measures, seconds, verdict),
        gauge=gauge,
        rests=_rests,
        later=later,
    )


def _observe(
    kind: Particulars[J, Any], awaited: Callable[[Cluster, J], Readers], cluster: Cluster, job: J
) -> Observed[J]:
    metadata = job.metadata
    key = Key(kind.name, metadata.namespace, metadata.name)
    recorded = {attempt.job_uid: (attempt.stage, attempt.number) for attempt in job.status.attempts}
    every = cluster.jobs_of(key)
    there = {view.uid for view in every}
    gone = [view for view in cluster.departed(key) if view.uid not in there]
    # Whose owner reference was taken away is ours all the same: no other object has the uid that we wrote down.
    mine = [v for v in (*every, *gone) if v.owner_uid == metadata.uid or recorded.get(v.uid) == (v.stage, v.attempt)]
    jobs = [view for view in mine if view.stage not in AFTERWARDS]
    after = [view for view in mine if view.stage in AFTERWARDS]
    uids = [view.uid for view in jobs]
    uids_there = there | {view.uid for view in gone}
    others = {other: cluster.named(other, metadata.namespace, name) for other, name in _refers(kind, job)}
    return Observed(
        kind=kind,
        job=job,
        settings=cluster.settings,
        attempts=attempts_of(
            jobs,
            [pod for uid in uids for pod in cluster.pods_of(uid)],
            {uid: found for uid in uids if (found := cluster.progress(uid)) is not None},
            [uid for uid in uids if cluster.silent(uid)],
        ),
        afterwards=attempts_of(after, [pod for view in after for pod in cluster.pods_of(view.uid)]),
        claiming=tuple(view for view in every if view not in mine and view.stage not in AFTERWARDS),
        left_behind=_left_behind(cluster, key, gone=recorded.keys() - uids_there, there=uids_there),
        taken=cluster.taken(key),
        refused=cluster.refused(key),
        references=References(others.get("FineTuneJob"), others.get("AdapterRollout"), others.get("Evaluation")),
        awaited=awaited(cluster, job) if job.spec.ttl_seconds_after_finished is not None and is_over(job) else (),
    )


def _left_behind(cluster: Cluster, key: Key, *, gone: Set[str], there: Set[str]) -> tuple[PodView, ...]:
    """Return the pods whose Job is gone: those that say so, and those of a recorded attempt that do not say whose they
    are. What says that it is another's is: a status may have been copied."""
    found = [pod for uid in sorted(gone) for pod in cluster.pods_of(uid) if not pod.owner_name]
    found += [pod for pod in cluster.pods_saying(key) if pod.job_uid not in there]
    return tuple(sorted(found, key=lambda pod: pod.name))


def _refers(kind: Particulars[J, Any], job: J) -> tuple[tuple[str, str], ...]:
    """Return kind and name of each object that is referred to."""
    named = (
        ("FineTuneJob", kind.waits_for(job)),
        ("AdapterRollout", kind.follows_rollout(job)),
        ("Evaluation", kind.follows_evaluation(job)),
    )
    return tuple((other, name) for other, name in named if name is not None)


def _rests(body: Body) -> bool:
    """Tell whether an object that has ended was looked at since it changed last, and nothing of it comes later."""
    status, spec, generation = body.get("status", {}), body.get("spec", {}), body["metadata"].get("generation")
    told: Body = next((each for each in status.get("conditions") or () if each.get("type") == TRACKED), {})
    tracked = told.get("status", "Unknown") != "Unknown" and told.get("observedGeneration") == generation
    left = spec.get("ttlSecondsAfterFinished") is not None or ("tracking" in spec and not tracked)
    return status.get("observedGeneration") == generation and not left


def needs(observed: Observed[Any], planned: Plan) -> Needs:
    """Return the attempts whose end is not recorded, what a creation may meet, and the objects that are referred to.

    Attempts whose end is recorded are left out, for nothing depends on them any more, as are those that are settled.
    What has the very name of what is to be created is met by the creation itself. Before that, the Job of the attempt
    that was given up last is looked for where nobody has told of it: it may still hold its accelerators, and has to go.
    """
    job, kind = observed.job, observed.kind
    if is_over(job) and any(isinstance(action, Create) for action in planned.actions):
        return Needs()  # what there is of what comes after the end is met by its creation
    closed = {attempt.job_uid for attempt in job.status.attempts if attempt.reason is not None}
    closed |= {seen.uid for seen in observed.attempts if seen.settled}
    jobs: dict[str, str | None] = {seen.name: seen.uid for seen in observed.attempts if seen.uid not in closed}
    for attempt in job.status.attempts:
        if attempt.job_uid not in closed:
            jobs.setdefault(attempt.job_name, attempt.job_uid)
    created = {action.body["metadata"]["name"] for action in planned.actions if isinstance(action, Create)}
    if created:
        known = {*created, *(seen.name for seen in observed.attempts)}
        for name in job_names_to_confirm(kind, job, observed.highest_number, observed.names_claimed):
            if name not in known:
                jobs.setdefault(name, None)
        for attempt in job.status.attempts[-1:]:
            if attempt.reason != Reason.COMPLETED and attempt.job_name not in known:
                jobs.setdefault(attempt.job_name, attempt.job_uid)
    objects = tuple(Key(other, job.metadata.namespace, name) for other, name in _refers(kind, job))
    return Needs(bool(planned.actions), objects, jobs)


def _measures(
    seconds: str,
    verdict: Callable[[WorkStatus], tuple[Measure, ...]],
    before: WorkStatus,
    after: WorkStatus,
    now: datetime,
) -> tuple[Measure, ...]:
    """Return attempts that ended, accelerator time, the end and the verdict."""
    ended = {attempt.number for attempt in before.attempts if attempt.reason is not None}
    found = [
        Measure("attempts", (attempt.stage, attempt.reason))
        for attempt in after.attempts
        if attempt.reason is not None and attempt.number not in ended
    ]
    held = after.accelerator_seconds - before.accelerator_seconds
    lost = after.lost_accelerator_seconds - before.lost_accelerator_seconds
    found += [Measure("accelerator_seconds", (), held)] if held > 0 else []
    found += [Measure("lost_accelerator_seconds", (), lost)] if lost > 0 else []
    if after.completion_time and not before.completion_time:
        found += [*verdict(after), *lived(seconds, after)]
    return tuple(found)
