"""How an attempt ended, and which budget pays for it.

The Job's Failed condition is read first: it names the podFailurePolicy rule that matched and outlives the pod, which
after an eviction, a deletion or a suspension is gone within seconds. Pod and termination message only add detail.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from trimtab_trainer.contract import ExitCode, Reason, Stage, TerminationMessage

from trimtab_operator.api import AttemptReason, State

from ...views import CONTAINER, STOPPED, JobView, PodView
from .attempt import Attempt, not_found

POD_FAILURE_RULES: tuple[tuple[str, tuple[ExitCode, ...]], ...] = (
    ("DisruptionTarget", ()),
    ("Interrupted", (ExitCode.INTERRUPTED,)),
    ("Invalid", (ExitCode.SETTINGS_INVALID, ExitCode.DATA_INVALID)),
    ("OutOfMemory", (ExitCode.OUT_OF_MEMORY,)),
    ("StorageFailed", (ExitCode.STORAGE_FAILED,)),
)
"""In the order of the podFailurePolicy: the Job's Failed condition says what matched, and so survives the pod; by its
words and not by the index, because a policy of the cluster may put rules of its own before ours. Never action Ignore:
the Job would start a second pod by itself."""


class Verdict(Enum):
    """What the end of an attempt means for the whole."""

    SUCCEEDED = "Succeeded"
    FINAL = "Final"
    """It would end the same way again: never retried, charged to no budget."""
    FAILURE = "Failure"
    DISRUPTION = "Disruption"
    SUSPENDED = "Suspended"
    SKIPPED = "Skipped"
    """Its image is of a version that cannot do it, and it is gone on without: charged to no budget."""


@dataclass(frozen=True)
class Ending:
    """The end of an attempt."""

    verdict: Verdict
    reason: str
    message: str
    ended: datetime
    words: TerminationMessage | None = None
    told_to: bool = False
    """Whether the trainer ended because it was told to: in time, or killed because it took too long."""


GENERAL_REASONS = {
    ExitCode.SETTINGS_INVALID: Reason.SETTINGS_INVALID,
    ExitCode.DATA_INVALID: Reason.DATASET_INVALID,
    ExitCode.OUT_OF_MEMORY: Reason.OUT_OF_MEMORY,
    ExitCode.STORAGE_FAILED: Reason.STORAGE_FAILED,
    ExitCode.INTERRUPTED: Reason.INTERRUPTED,
    ExitCode.BUG: Reason.BUG,
}
"""The word for an exit code whose termination message is lost."""

VERDICTS = {
    ExitCode.SETTINGS_INVALID: Verdict.FINAL,
    ExitCode.DATA_INVALID: Verdict.FINAL,
    ExitCode.OUT_OF_MEMORY: Verdict.FINAL,
    ExitCode.STORAGE_FAILED: Verdict.FAILURE,
    ExitCode.INTERRUPTED: Verdict.DISRUPTION,
    ExitCode.BUG: Verdict.FAILURE,
}

_DISRUPTED = re.compile(r"has condition DisruptionTarget\b")
_EXIT_CODE = re.compile(r"failed with exit code (\d{1,9})\b")
_VOLUME = re.compile(r'(?i)emptydir volume "([^"]*)"')
_OF_CONTAINER = re.compile(r"(?i)container (\S+) exceeded its local ephemeral storage")
MORE_ROOM = {
    "trimtab-work": "raise the operator's scratchSize or use less data",
    "trimtab-tmp": "the size of /tmp is fixed: in spec.template.env of a new {} set what writes there (TMPDIR, HOME, "
    "TORCHINDUCTOR_CACHE_DIR) to /work",
    "trimtab-shm": "raise the operator's shmSize",
}
"""What to do about an eviction over a volume of ours."""
_SCRATCH = re.compile(r"(?i)emptydir volume|ephemeral.storage (usage|limit)|ephemeral local storage")


NAMED_CAUSES = frozenset(
    {ExitCode.SETTINGS_INVALID, ExitCode.DATA_INVALID, ExitCode.OUT_OF_MEMORY, ExitCode.STORAGE_FAILED}
)
"""Exit codes of what nobody else can have caused."""


MISSED = frozenset({Reason.INTERRUPTED, Reason.PROCESS_LOST})
"""How several that train together end where some do not come."""
OUT_OF_SIGHT = frozenset({"ContainerStatusUnknown", "Unknown"})
"""Reasons of a container whose end nobody saw, from a kubelet and from containerd: its node was restarted."""
OUT_OF_TIME = "DeadlineExceeded"
"""Reason of a Job, and of a pod, that reached the activeDeadlineSeconds of its own."""


def cause_of(pods: Sequence[PodView]) -> PodView | None:
    """Return the pod that tells what an attempt ended of.

    What one dies of the others only notice, as a process that was lost, or because they are told to stop.
    """

    def order(pod: PodView) -> tuple[int, bool, float, int]:
        ended = pod.terminated_time
        return _precedence(pod), ended is None, ended.timestamp() if ended is not None else 0.0, pod.index

    return min(pods, key=order, default=None)


def _precedence(pod: PodView) -> int:
    lost = pod.last_words is not None and pod.last_words.reason is Reason.PROCESS_LOST
    out_of_scratch = pod.reason == "Evicted" and not pod.disruption and _SCRATCH.search(pod.message) is not None
    if pod.exit_code in NAMED_CAUSES or pod.terminated_reason == "OOMKilled" or out_of_scratch:
        return 0
    if pod.disruption:
        return 1
    if pod.exit_code is None:
        return 2 if pod.phase == "Failed" else 5
    if pod.exit_code == ExitCode.DONE:
        return 6
    if pod.exit_code == ExitCode.INTERRUPTED or (pod.exit_code in STOPPED and pod.deletion_time is not None):
        return 3
    return 4 if lost else 2


def _exit_code(job: JobView, pod: PodView | None) -> int | None:
    """Return the container's exit code, from the pod or else from the words of the Job's condition."""
    if pod is not None and pod.exit_code is not None:
        return pod.exit_code
    match = _EXIT_CODE.search(job.failed_message)
    return int(match.group(1)) if match else None


def _disrupted(job: JobView, pod: PodView | None) -> str:
    """Return why the cluster took the pod away, or "" if it did not."""
    if pod is not None and pod.disruption:
        return pod.disruption
    return AttemptReason.DISRUPTION_TARGET if _DISRUPTED.search(job.failed_message) else ""


def ending_of(
    attempt: Attempt, tells_result: Callable[[str, TerminationMessage], bool], kind: str, now: datetime
) -> Ending:
    """Return how an attempt ended.

    Args:
        attempt: one that has.
        tells_result: says of a stage and last words whether they hold what the stage is run for.
        kind: name of the kind of resource, for messages.
        now: the time of the end where nothing tells it.
    """
    job, pod = attempt.job, attempt.pod
    if not (job.complete or (pod is not None and pod.terminated and pod.exit_code == ExitCode.DONE)):
        pod = cause_of(attempt.current)
    ended = min(job.ended or attempt.stopped or now, now)
    words = pod.last_words if pod is not None else None
    if words is not None and words.attempt != job.attempt:
        words = None
    # The trainer's end is the attempt's, whatever became of what is beside it: a sidecar that fails makes the Job fail.
    done = pod is not None and pod.terminated and pod.exit_code == ExitCode.DONE
    if (job.complete or done) and words is not None and tells_result(job.stage, words):
        return Ending(Verdict.SUCCEEDED, words.reason.value, words.message, ended, words)
    if job.complete or (done and not _disrupted(job, pod)):
        message = (
            "its container exited with code 0, and what it came to is not in its termination message"
            if done
            else "its result was lost with its pod"
        )
        if job.run_by:
            message = f"its pods are made by {job.run_by}, which tells nothing of them; keep it out of that queue"
        message += "; the next attempt finds in object storage what it published"
        return Ending(Verdict.DISRUPTION, AttemptReason.RESULT_LOST, message, ended)

    if pod is not None and pod.reason == "Evicted" and not pod.disruption and _SCRATCH.search(pod.message):
        message = f"{pod.message.strip()}; {_more_room(pod.message, job.stage, kind)}"
        return Ending(Verdict.FINAL, State.SCRATCH_SPACE_EXCEEDED.value, message, ended, words)
    if disruption := _disrupted(job, pod):
        return Ending(
            Verdict.DISRUPTION, disruption, _detail(words, pod, "the cluster took the pod away"), ended, words
        )
    if pod is not None and pod.terminated_reason == "OOMKilled":
        message = f"the container reached its memory limit; raise {_limits(job.stage)}.memory in a new {kind}"
        return Ending(Verdict.FINAL, Reason.OUT_OF_MEMORY.value, message, ended, words)

    code = _exit_code(job, pod)
    if code is None and (by := _out_of_time(job, pod)):
        what = "the trainer never began" if pod is not None and pod.started is None else "its pod left no evidence"
        return Ending(Verdict.DISRUPTION, AttemptReason.POD_FAILED, f"{by}; {what}", ended, words)
    if code is None and pod is not None and pod.beside:
        message = f"{pod.beside}, and the trainer never began"
        return Ending(Verdict.FAILURE, AttemptReason.CONTAINER_FAILED, message, ended, words)
    if code is None and pod is not None and pod.phase == "Failed" and (message := _stopped_by(pod)):
        return Ending(Verdict.DISRUPTION, AttemptReason.POD_FAILED, message, ended, words)
    if code is None:
        message = "the pod vanished and left no evidence"
        message += f"; its Job says: {job.failed_message}" if job.failed_message else ""
        return Ending(Verdict.DISRUPTION, AttemptReason.POD_VANISHED, message, ended, words)
    if code in set(ExitCode) and code != ExitCode.DONE:
        known = ExitCode(code)
        reason = words.reason if words is not None else GENERAL_REASONS[known]
        if reason in MISSED and (lost := attempt.astray) is not None and words is not None and not words.summary.step:
            message = f"{not_found(job, lost)}; {words.message}"
            return Ending(Verdict.FINAL, State.POD_REFUSED.value, message, ended, words)
        message = words.message if words is not None else _detail(None, pod, job.failed_message)
        if known is ExitCode.INTERRUPTED and (by := _out_of_time(job, pod)):
            message = f"{by}; {message}"
        return Ending(VERDICTS[known], reason.value, message, ended, words, told_to=known is ExitCode.INTERRUPTED)
    if pod is not None and pod.terminated_reason in OUT_OF_SIGHT:
        message = _detail(words, pod, "its node restarted, or lost sight of the container")
        return Ending(Verdict.DISRUPTION, AttemptReason.NODE_LOST, message, ended, words)
    what = f"the container exited with code {code}"
    if code - 128 in set(signal.Signals):
        what = f"the container was killed by signal {code - 128}"
    message, stopped = _detail(words, pod, what), code in STOPPED
    if stopped and pod is not None and (by := _out_of_time(job, pod) or _stopped_by(pod)):
        return Ending(Verdict.DISRUPTION, AttemptReason.POD_FAILED, f"{by}; {message}", ended, words, told_to=True)
    return Ending(Verdict.FAILURE, AttemptReason.CONTAINER_FAILED, message, ended, words, told_to=stopped)


def _limits(stage: str) -> str:
    """Return where the limits of a stage's container are given."""
    prepares = stage in (Stage.MIRROR.value, Stage.PREPARE.value, Stage.JUDGE.value)
    return f"spec.template.{'prepareResources' if prepares else 'resources'}.limits"


def _more_room(words: str, stage: str, kind: str) -> str:
    """Return what to do about an eviction over a disk: a volume has its own limit, and each container another.

    An injector may have added some of both.
    """
    if (volume := _VOLUME.search(words)) is not None:
        if (ours := MORE_ROOM.get(volume.group(1))) is not None:
            return ours.format(kind)
        where = f"in spec.template.volumes of a new {kind}, or, where it is not there, in what adds it to pods"
        return f"raise the sizeLimit of {volume.group(1)} {where}"
    container = _OF_CONTAINER.search(words)
    if container is not None and container.group(1) != CONTAINER:
        beside = f"of {container.group(1)} in what adds it to pods, or in a LimitRange of the namespace"
        return f"raise the limit of ephemeral-storage {beside}"
    told = (
        f"raise {_limits(stage)}.ephemeral-storage in a new {kind}: where that names none, the operator's defaults "
        "or a LimitRange of the namespace have set it"
    )
    return told if container is not None else f"{told}; containers that are added to pods count too"


def _out_of_time(job: JobView, pod: PodView | None) -> str:
    """Return what to say of a deadline of a Job or a pod, "" where none ended it. We give them none."""
    by, said = "", ""
    if job.failed_reason == OUT_OF_TIME:
        by, said = "its Job", job.failed_message
    elif pod is not None and pod.reason == OUT_OF_TIME:
        by, said = "its pod", pod.message
    return by and f"activeDeadlineSeconds of {by}, set by something in the cluster: {said.strip()}"


def _stopped_by(pod: PodView) -> str:
    """Return what stopped a pod as a whole, "" where nothing is known to have."""
    said = ": ".join(each for each in (pod.reason, pod.message.strip()) if each)
    return said or ("somebody deleted the pod" if pod.deletion_time is not None else "")


def _detail(words: TerminationMessage | None, pod: PodView | None, otherwise: str) -> str:
    if words is not None and words.message:
        return words.message
    if pod is not None and pod.last_text:
        return f"{otherwise}: {pod.last_text.strip()}"
    return otherwise


def vanished(now: datetime) -> Ending:
    """Return the end of an attempt whose Job somebody deleted."""
    return Ending(
        Verdict.DISRUPTION,
        AttemptReason.JOB_DELETED,
        "its Job was deleted, by a person or by a policy that sweeps Jobs",
        now,
    )


LOST = {
    "NotReady": "node {} is not ready and its pod does not end",
    "Gone": "node {} is gone and its pod does not end",
    # Nobody can tell a lost node from a slow one then, and the first would hold its job up for ever.
    "Forbidden": "its pod on {} never ends; nodes may not be read",
}
"""By what is known of the node of a pod that should have ended long ago."""


def lost(node: str, answer: object, now: datetime) -> Ending:
    """Return the end of an attempt whose node does not come back. Its pod may: checkpoints are keyed by attempt."""
    return Ending(Verdict.DISRUPTION, AttemptReason.NODE_LOST, LOST[str(answer)].format(node), now)
