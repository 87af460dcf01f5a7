"""`Attempt`: one try at one stage, as decisions see it: a Job, with one pod or with several that train as one.

The pod of index 0 has the leader, which tells progress and has the result. One that fails ends all: the Job's
controller deletes the others then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from trimtab_trainer.contract import Progress, Stage

from ...plan import Adopt, Body, Delete, Suspend
from ...views import ATTEMPT_LABEL, MANAGED_BY_LABEL, OWNER_LABELS, STAGE_LABEL, JobView, PodView

LINGER_SECONDS = 5.0
"""What is beside the trainer in its pod has this time to end once the trainer has: a native sidecar is stopped by the
kubelet, a log shipper may send its last lines. An ordinary sidecar that an injector added stays for ever."""


@dataclass(frozen=True)
class Attempt:
    """A snapshot of one attempt.

    Attributes:
        progress: the newest answer of the pod that speaks for all.
        silent: whether that runs, is asked for its progress and has never answered.
    """

    job: JobView
    pods: tuple[PodView, ...] = ()
    progress: Progress | None = None
    silent: bool = False

    @property
    def number(self) -> int:
        return self.job.attempt

    @property
    def stage(self) -> str:
        return self.job.stage

    @property
    def uid(self) -> str:
        return self.job.uid

    @property
    def name(self) -> str:
        return self.job.name

    @property
    def accelerators(self) -> int | None:
        """How many its pods hold together; None of one that an older operator made."""
        return self.job.accelerators

    @property
    def inputs(self) -> str:
        """Digits of what it was made from."""
        return self.job.inputs

    @property
    def created(self) -> datetime | None:
        return self.job.created

    @property
    def suspended(self) -> bool:
        return self.job.suspended

    @property
    def queue(self) -> str | None:
        """The name of the queue that admits it, "" of one that does not say, None where nobody but us suspends it."""
        return self.job.queue

    @property
    def resumed(self) -> datetime | None:
        """When it was last let go on after it had been suspended."""
        return self.job.resumed

    @property
    def held(self) -> bool:
        """Whether its Job says that it is suspended; what failed while it was says so for ever."""
        return self.job.held

    @property
    def publishing(self) -> bool:
        """Whether its pod last said that the work is done and its result being stored."""
        told = self.progress
        return told is not None and told.attempt == self.number and told.activity == "Publishing"

    def progress_in(self, stage: Stage) -> Progress | None:
        """Return what its pod last said of this stage, once it knows how many steps there are."""
        told = self.progress
        if told is None or told.stage is not stage or told.attempt != self.number or told.total_steps == 0:
            return None
        return told

    @property
    def current(self) -> tuple[PodView, ...]:
        """The newest pod of each index, before those that are being deleted, in the order of the indexes."""
        newest: dict[int, PodView] = {}
        for pod in sorted(
            self.pods, key=lambda p: (p.deletion_time is None, p.created.timestamp() if p.created else 0), reverse=True
        ):
            newest.setdefault(pod.index, pod)
        return tuple(newest[index] for index in sorted(newest))

    @property
    def pod(self) -> PodView | None:
        """The pod that speaks for all."""
        return next((pod for pod in self.current if pod.index == 0), None)

    @property
    def incomplete(self) -> bool:
        """Whether some of its pods are not there."""
        return len(self.current) < self.job.pods

    @property
    def waits(self) -> PodView | None:
        """The first pod that does not run yet."""
        return next((pod for pod in self.current if not (pod.running or pod.over)), None)

    @property
    def runs(self) -> bool:
        """Whether any pod runs, or has."""
        return any(pod.running or pod.over for pod in self.current)

    @property
    def astray(self) -> PodView | None:
        """The first of several pods that the others do not find, nor let in, because its labels are not its Job's."""
        job = self.job
        if job.pods == 1 or job.run_by:
            return None
        told = (job.owner_kind, job.owner_name, job.stage)
        return next((pod for pod in self.current if (pod.owner_kind, pod.owner_name, pod.stage) != told), None)

    @property
    def live(self) -> bool:
        """Whether it holds anything of the cluster, or may again."""
        return not self.job.finished and not self.job.deleting

    @property
    def at_rest(self) -> bool:
        """Whether nothing runs: there is no pod, or all are over."""
        return all(pod.over for pod in self.current)

    @property
    def stopped(self) -> datetime | None:
        """When the last trainer of its pods ended, if they still tell."""
        times = [pod.terminated_time for pod in self.current if pod.terminated_time is not None]
        return max(times) if times and self.at_rest else None

    def left_alone(self) -> bool:
        """Tell whether all trainers have ended and something beside one keeps its pod, and with it what that holds."""
        ended = self.at_rest and not self.incomplete
        kept = any(pod.terminated and pod.phase not in ("Succeeded", "Failed") for pod in self.current)
        return self.live and ended and kept

    @property
    def settled(self) -> bool:
        """Whether nothing can be otherwise any more: its Job has ended, and the last words of its pods are spoken."""
        return self.job.finished and not self.incomplete and all(pod.over for pod in self.pods)

    def ended(self, now: datetime) -> bool:
        """Tell whether it is over: by its Job, or because its trainers are and nothing else in the pods ends.

        A Job that is deleted and held by a finalizer of somebody's makes no more of it.
        """
        gone = self.job.deleting and self.at_rest and bool(self.pods)
        return self.job.finished or gone or (self.left_alone() and self.lingers(now) <= 0)

    @property
    def vanished(self) -> bool:
        """Whether nothing is left of it but a Job that somebody has deleted and a finalizer holds."""
        return self.job.deleting and not self.job.finished and not self.pods

    def lingers(self, now: datetime) -> float:
        """Return for how many seconds what is beside the trainer may still take to end."""
        left = ((self.stopped or now) + timedelta(seconds=LINGER_SECONDS) - now).total_seconds()
        return left if left <= 2 * LINGER_SECONDS else 0.0  # by a node whose clock is ahead it ends who knows when

    def overdue(self, node_loss_seconds: float) -> tuple[PodView, datetime] | None:
        """Return the pod that is being deleted and should have gone first, and when; None if none is."""
        times = [
            (pod.deletion_time + timedelta(seconds=node_loss_seconds), pod.index, pod)
            for pod in self.current
            if pod.deletion_time is not None and not pod.over
        ]
        if not times:
            return None
        time, _, pod = min(times, key=lambda each: each[:2])
        return pod, time

    def delete(self) -> Delete:
        """Return the action that ends it and gives back what it holds."""
        return Delete("Job", self.job.namespace, self.job.name, self.job.uid)

    def adopt(self, label: str, owner: Body) -> Adopt:
        """Return the action that makes its Job known as ours again.

        Args:
            label: that says whose it is.
            owner: the reference to the object.
        """
        job = self.job
        labels = {
            MANAGED_BY_LABEL: "trimtab",
            label: job.owner_name,
            STAGE_LABEL: job.stage,
            ATTEMPT_LABEL: str(job.attempt),
        }
        metadata = {"namespace": job.namespace, "name": job.name, "uid": job.uid, "labels": labels}
        return Adopt({"kind": "Job", "metadata": {**metadata, "ownerReferences": [owner]}})

    def suspend(self, suspend: bool) -> Suspend:
        """Return the action that stops it after a checkpoint, or lets it go on."""
        return Suspend(self.job.namespace, self.job.name, self.job.uid, suspend)


def not_found(job: JobView, pod: PodView) -> str:
    """Return what to say of a pod that those beside it do not find."""
    labels = f"{OWNER_LABELS[job.owner_kind]}: {job.owner_name} and {STAGE_LABEL}: {job.stage}"
    return (
        f"a policy or a webhook writes over labels of pods: {pod.name} has not {labels}, by which the {job.pods} pods "
        f"of Job {job.name} find each other and let each other in; exempt these labels there, and create it again"
    )


def attempts_of(
    jobs: Iterable[JobView],
    pods: Iterable[PodView],
    progress: Mapping[str, Progress] | None = None,
    silent: Iterable[str] = (),
) -> tuple[Attempt, ...]:
    """Return attempts in the order of their numbers. `progress` and `silent` are by the Job's uid."""
    children, quiet, told = sorted(pods, key=lambda pod: pod.name), set(silent), progress or {}
    return tuple(
        Attempt(job, tuple(pod for pod in children if pod.job_uid == job.uid), told.get(job.uid), job.uid in quiet)
        for job in sorted(jobs, key=lambda job: (job.attempt, job.stage))
    )
