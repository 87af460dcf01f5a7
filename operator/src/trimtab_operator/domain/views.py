"""Typed, frozen views of the Job and Pod fields that decisions need; the rest is not kept in memory.

Labels, annotations, owner references and messages are whatever a tenant wrote. What is no attempt of ours gives None,
nothing in an object of the right shape raises, and a view has at most a few kB of it.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice, pairwise
from sys import intern
from typing import Any

from trimtab_trainer.contract import TerminationMessage
from trimtab_trainer.contract.outcome import TERMINATION_MESSAGE_BYTES

from trimtab_operator.api.work import ACCELERATORS_MAXIMUM, ATTEMPTS_MAXIMUM

STAGE_LABEL = "trimtab.dev/stage"
SERVE = "serve"
"""The stage of pods that serve: not ours, but with our agent beside the engine."""
ATTEMPT_LABEL = "trimtab.dev/attempt"
JOB_LABEL = "trimtab.dev/finetunejob"
EVALUATION_LABEL = "trimtab.dev/evaluation"
EXPORT_LABEL = "trimtab.dev/adapterexport"
ACCELERATORS_LABEL = "trimtab.dev/accelerators"
"""On a Job: how many accelerators its pods hold together."""
SWEEP_LABEL = "trimtab.dev/finetunesweep"
"""On a FineTuneJob: the sweep whose trial it is. On a Job: the sweep whose page it writes."""
INPUTS_LABEL = "trimtab.dev/inputs"
"""On a Job: digits of what it was made from."""
OWNER_LABELS = {
    "FineTuneJob": JOB_LABEL,
    "Evaluation": EVALUATION_LABEL,
    "FineTuneSweep": SWEEP_LABEL,
    "AdapterExport": EXPORT_LABEL,
}
"""The label that says whose a child is, by the kind of the owner."""
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
QUEUE_TRACES = frozenset(
    f"kueue.x-k8s.io/{name}"
    for name in ("managed", "multikueue-origin", "parent-workload", "prebuilt-workload-name", "stopping")
)
"""What Kueue writes itself, or what can be true of one Job only."""
JOB_NAME_LABEL, JOB_UID_LABEL = "batch.kubernetes.io/job-name", "batch.kubernetes.io/controller-uid"
"""On the pods of a Job, by Kubernetes, and still there when they have lost it."""
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
"""On the pods of a Job of several, by Kubernetes, which has an annotation of the same name."""
PROGRESS_PORT = 9401
"""Where a work pod tells its progress and its metrics."""
PODS_MAXIMUM = 1024
"""Of a Job, as it is read."""
OWN_CONTROLLER = "kubernetes.io/job-controller"
QUEUE_PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
CONTAINER = "trainer"
"""Name of the container that does the work, in all stages."""
CONFIG_ARGUMENT, ATTEMPT_ARGUMENT = "--config", "--attempt"
"""What that is told: its stage is in front of the one, its attempt behind the other."""
CONFIG_VOLUME = "trimtab-config"
"""Name of the volume with what that does."""

TEXT_LENGTH = 1024
"""Of what a view keeps of a message."""
LABELS_KEPT, LABELS_LENGTH = 256, 16_384
"""Of one object: how many labels, and how many characters of them together. Selectors do not see what is beyond."""
WORDS_KEPT = 256
"""Termination messages whose typed form is kept: every round about a pod reads its own again."""

_NUMBER = re.compile(r"[0-9]{1,9}")
_DIGITS = re.compile(r"[0-9a-f]{8}")

STOPPED = frozenset({128 + signal.SIGTERM, 128 + signal.SIGKILL})
"""Exit codes of who was told to end, and of who took longer than its grace period."""
YEARS = range(2000, 3000)
"""What lies elsewhere is no time at all: a container that never started "began" in 1970, and sums would overflow."""


def parse_time(text: object) -> datetime | None:
    """Return a time in UTC from RFC 3339, None from anything else, and from what was before there were clusters."""
    if not isinstance(text, str):
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    if time.year not in YEARS:
        return None
    return time.astimezone(UTC) if time.tzinfo is not None else time.replace(tzinfo=UTC)


def parse_number(text: object) -> int | None:
    """Return a whole number of up to nine digits, None from anything else."""
    return int(text) if isinstance(text, str) and _NUMBER.fullmatch(text) else None


def format_time(time: datetime) -> str:
    """Return RFC 3339 with whole seconds, as metav1.Time writes it."""
    return time.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"  # a third of the time of strftime


def controller_of(body: dict[str, Any]) -> tuple[str, str, str] | None:
    """Return (kind, name, uid) of the controller of an object."""
    for owner in body["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            return owner["kind"], owner["name"], owner["uid"]
    return None


def queue_of(body: dict[str, Any]) -> str | None:
    """Return the queue that admits a Job: its name, "" where only its traces are there, None where there is none.

    A default queue is put on the Job alone, not on our object, and MultiKueue hands the whole Job to another cluster.
    """
    metadata = body["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    if labels.get(QUEUE_LABEL):
        return str(labels[QUEUE_LABEL])
    traces = any(key in QUEUE_TRACES for key in (*labels, *annotations))
    return "" if traces or _run_by(body.get("spec", {})) else None


def _run_by(spec: Mapping[str, Any]) -> str:
    by = spec.get("managedBy", OWN_CONTROLLER)
    return "" if by == OWN_CONTROLLER else _text(by)


def _text(told: object) -> str:
    """Return a message as far as it is kept."""
    return str(told or "")[:TEXT_LENGTH]


def labels_kept(labels: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the first labels of an object, as many as fit into what is kept of one."""
    kept, room = dict[str, str](), LABELS_LENGTH
    for key, value in islice(labels, LABELS_KEPT):
        room -= len(key) + len(value)
        if room < 0:
            break
        kept[key] = value
    return kept


def _owner_by(labels: Mapping[str, str]) -> tuple[str, str] | None:
    """Return kind and name of whose object something says by its labels that it is of."""
    return next(((kind, labels[label]) for kind, label in OWNER_LABELS.items() if label in labels), None)


def _accelerators(labels: Mapping[str, object]) -> int | None:
    held = parse_number(labels.get(ACCELERATORS_LABEL))
    return None if held is None else min(held, ACCELERATORS_MAXIMUM)


def _inputs(labels: Mapping[str, object]) -> str:
    """Return the digits of what a Job was made from, "" where the label has none: whoever wrote over it knows not."""
    digits = str(labels.get(INPUTS_LABEL, ""))
    return digits if _DIGITS.fullmatch(digits) else ""


def _does(spec: Mapping[str, Any], labels: Mapping[str, str]) -> tuple[str, int] | None:
    """Return the stage of a Job and the number of its attempt, None where nothing tells them.

    What the trainer is told is what it does, and no policy has a reason to touch it; labels are written over.
    """
    containers = spec.get("template", {}).get("spec", {}).get("containers") or ()
    told = next((each.get("args") for each in containers if each.get("name") == CONTAINER), None) or ()
    follows = {before: after for before, after in pairwise(told) if before == ATTEMPT_ARGUMENT}
    stage = next((before for before, after in pairwise(told) if after == CONFIG_ARGUMENT), labels.get(STAGE_LABEL))
    attempt = parse_number(follows.get(ATTEMPT_ARGUMENT, labels.get(ATTEMPT_LABEL)))
    return (_text(stage), attempt) if stage is not None and attempt is not None else None


def task_of(body: Mapping[str, Any]) -> tuple[str, int, str] | None:
    """Return the stage of a Job, the number of its attempt and the digits of what it was made from, as its view has
    them; None where nothing tells stage and number."""
    metadata, spec = body["metadata"], body.get("spec", {})
    does = _does(spec, _labels_of(metadata, spec))
    return (*does, _inputs(metadata.get("labels") or {})) if does is not None else None


def _labels_of(metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels of a Job, those of its pods before its own."""
    return {**(metadata.get("labels") or {}), **(spec.get("template", {}).get("metadata", {}).get("labels") or {})}


def _pods(completions: object) -> int:
    return min(max(1, completions), PODS_MAXIMUM) if isinstance(completions, int) else 1


def _config_of(spec: Mapping[str, Any]) -> str:
    volumes = spec.get("template", {}).get("spec", {}).get("volumes") or ()
    named = ((each.get("configMap") or {}).get("name") for each in volumes if each.get("name") == CONFIG_VOLUME)
    return str(next(named, None) or "")


@dataclass(frozen=True, slots=True)
class JobView:
    """A batch/v1 Job that says that it is of a FineTuneJob, an Evaluation, a FineTuneSweep or an AdapterExport.

    It says so by its controller, or by the labels of its pod template, which nobody can change once it has begun. What
    it does is in its arguments: a policy may write over every label, of Jobs as of pods.
    """

    namespace: str
    name: str
    uid: str
    owner_name: str
    owner_uid: str
    """Of its controller, "" where that is none of our kinds."""
    stage: str
    attempt: int
    created: datetime | None
    owner_kind: str = "FineTuneJob"
    suspended: bool = False
    queue: str | None = None
    """What admits it, see `queue_of`: then `suspend` is the queue's to write."""
    resumed: datetime | None = None
    """When it was last let go on after it had been suspended."""
    held: bool = False
    """Whether it says that it is suspended. What fails while it is says so for ever, whoever lets it go on."""
    deleting: bool = False
    active: int = 0
    complete: bool = False
    failed: bool = False
    failed_reason: str = ""
    failed_message: str = ""
    ended: datetime | None = None
    accelerators: int | None = None
    """How many its pods hold together; None: it was made by an operator that did not say so."""
    inputs: str = ""
    """Digits of what it was made from, likewise."""
    config: str = ""
    """Name of the ConfigMap that its pods mount."""
    pods: int = 1
    """How many work together."""
    scaled_down: bool = False
    """Whether somebody wants fewer pods of it than it needs."""
    managed: bool = True
    """Whether it has the labels that our watches select."""
    run_by: str = ""
    """Who makes its pods, where that is not Kubernetes' own controller: MultiKueue does in another cluster."""

    @property
    def finished(self) -> bool:
        return self.complete or self.failed

    @classmethod
    def of(cls, body: dict[str, Any]) -> JobView | None:
        """Return the view of a Job, or None if it does not say that it is an attempt of ours."""
        metadata, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
        own = metadata.get("labels") or {}
        labels = _labels_of(metadata, spec)
        controller = controller_of(body)
        if controller is not None and controller[0] not in OWNER_LABELS:
            controller = None
        owner = controller[:2] if controller is not None else _owner_by(labels)
        does, parallelism = _does(spec, labels), spec.get("parallelism")
        if owner is None or does is None or does[1] >= ATTEMPTS_MAXIMUM:  # beyond that the next would have no number
            return None
        every = {c["type"]: c for c in status.get("conditions", ())}
        conditions = {kind: c for kind, c in every.items() if c["status"] == "True"}
        failed, complete, suspended = conditions.get("Failed"), conditions.get("Complete"), every.get("Suspended", {})
        end = complete or failed
        return cls(
            namespace=intern(metadata["namespace"]),
            name=metadata["name"],
            uid=metadata["uid"],
            owner_name=intern(owner[1]),
            owner_uid=intern(controller[2]) if controller is not None else "",
            stage=intern(does[0]),
            attempt=does[1],
            created=parse_time(metadata.get("creationTimestamp")),
            owner_kind=intern(owner[0]),
            suspended=bool(spec.get("suspend")),
            queue=queue_of(body),
            resumed=parse_time(suspended.get("lastTransitionTime")) if suspended.get("status") == "False" else None,
            held=suspended.get("status") == "True",
            deleting="deletionTimestamp" in metadata,
            active=int(status.get("active", 0)),
            complete=complete is not None,
            failed=failed is not None,
            failed_reason=_text(failed.get("reason", "")) if failed else "",
            failed_message=_text(failed.get("message", "")) if failed else "",
            ended=parse_time(end.get("lastTransitionTime")) if end else None,
            accelerators=_accelerators(own),
            inputs=_inputs(own),
            config=intern(_config_of(spec)),
            pods=_pods(spec.get("completions")),
            scaled_down=_pods(spec.get("completions")) > parallelism if isinstance(parallelism, int) else False,
            managed=own.get(MANAGED_BY_LABEL) == "trimtab",
            run_by=_run_by(spec),
        )


@lru_cache(maxsize=WORDS_KEPT)
def _words_of(said: str) -> TerminationMessage | None:
    return TerminationMessage.decode(said)


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod of such a Job. `terminated_*` are of the one container that works, `waiting_*` see `blocked_by`."""

    namespace: str
    name: str
    uid: str
    job_uid: str
    job_name: str
    owner_name: str
    """By its label, which counts where its Job is gone; "" where it has none."""
    created: datetime | None
    owner_kind: str = "FineTuneJob"
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    ip: str = ""
    node: str = ""
    scheduler: str = ""
    """Who is to find a node for it: a policy may have written another name than the template has."""
    deletion_time: datetime | None = None
    """When the grace period ends: deletionTimestamp lies in the future by the grace period."""
    scheduled_time: datetime | None = None
    unschedulable: str = ""
    """The words of whoever keeps it from a node: the scheduler that found none, or a gate of the pod's."""
    disruption: str = ""
    """Reason of the DisruptionTarget condition."""
    waiting_reason: str = ""
    waiting_message: str = ""
    blocked_by: str = ""
    """Which container it is that waits so, where it has to start before the one that does the work."""
    starts_since: datetime | None = None
    """Of one that is to stay beside it, a native sidecar: since when it runs without having started."""
    started: datetime | None = None
    running: bool = False
    terminated: bool = False
    exit_code: int | None = None
    terminated_reason: str = ""
    terminated_time: datetime | None = None
    said: str = field(default="", repr=False)
    """Termination message, as it was written."""
    beside: str = ""
    """Of a pod that failed: which other container did."""
    index: int = 0
    """Which of the Job's pods it is: that of 0 speaks for all."""
    stage: str = ""
    """By its label, as the owner."""

    @property
    def last_words(self) -> TerminationMessage | None:
        """The termination message, if it is one of ours."""
        return _words_of(self.said) if self.said else None

    @property
    def other_contract(self) -> str | None:
        """Version of the contract that the message is of, where it is not ours: what it says is not known."""
        return TerminationMessage.other_contract(self.said) if self.said and not self.last_words else None

    @property
    def last_text(self) -> str:
        """The end of one that is not ours, such as the last lines of a crash's log."""
        return "" if self.last_words else self.said[-512:]

    @property
    def over(self) -> bool:
        return self.phase in ("Succeeded", "Failed") or self.terminated

    @classmethod
    def of(cls, body: dict[str, Any]) -> PodView | None:
        """Return the view of a pod, or None if it is not a Job's."""
        metadata, status = body["metadata"], body.get("status", {})
        labels = metadata.get("labels") or {}
        job, owner = controller_of(body), _owner_by(labels) or ("", "")
        if job is None and JOB_UID_LABEL in labels:  # its Job was deleted without it
            job = ("Job", labels.get(JOB_NAME_LABEL, ""), labels[JOB_UID_LABEL])
        if job is None or job[0] != "Job":
            return None
        conditions = {c["type"]: c for c in status.get("conditions", ())}
        scheduled = conditions.get("PodScheduled", {})
        disruption = conditions.get("DisruptionTarget", {})
        statuses = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
        state = _state_of(next((c for c in statuses if c["name"] == CONTAINER), {}))
        waiting = state.get("waiting") or {}
        blocked = _blocked_by(body.get("spec", {}), status) if waiting else {}
        waiting = blocked.get("state", {}).get("waiting") or waiting
        running = state.get("running") or {}
        terminated = state.get("terminated") or {}
        return cls(
            namespace=intern(metadata["namespace"]),
            name=metadata["name"],
            uid=metadata["uid"],
            job_uid=intern(job[2]),
            job_name=intern(job[1]),
            owner_name=intern(owner[1]),
            created=parse_time(metadata.get("creationTimestamp")),
            owner_kind=owner[0],
            phase=intern(status.get("phase", "Pending")),
            reason=_text(status.get("reason", "")),
            message=_text(status.get("message", "")),
            ip=status.get("podIP", ""),
            node=body.get("spec", {}).get("nodeName", ""),
            scheduler=intern(_text(body.get("spec", {}).get("schedulerName", ""))),
            deletion_time=parse_time(metadata.get("deletionTimestamp")),
            scheduled_time=parse_time(scheduled.get("lastTransitionTime"))
            if scheduled.get("status") == "True"
            else None,
            unschedulable=_text(scheduled.get("message") or scheduled.get("reason"))
            if scheduled.get("status") == "False"
            else "",
            disruption=_text(disruption.get("reason", "")) if disruption.get("status") == "True" else "",
            waiting_reason=_text(waiting.get("reason", "")),
            waiting_message=_text(waiting.get("message", "")),
            blocked_by=_text(blocked.get("name", "")),
            starts_since=_starts_since(body.get("spec", {}), blocked),
            started=parse_time(running.get("startedAt") or terminated.get("startedAt")),
            running=bool(running),
            terminated=bool(terminated),
            exit_code=terminated.get("exitCode"),
            terminated_reason=_text(terminated.get("reason", "")),
            terminated_time=parse_time(terminated.get("finishedAt")),
            said=str(terminated.get("message") or "")[-TERMINATION_MESSAGE_BYTES:],
            beside=_failed_beside(body, statuses) if status.get("phase") == "Failed" else "",
            index=_index_of(metadata),
            stage=intern(_text(labels.get(STAGE_LABEL))),
        )


def _index_of(metadata: Mapping[str, Any]) -> int:
    """Return which of a Job's pods a pod is: its annotation says so, and a label that policies write over."""
    told = (each.get(INDEX_LABEL) for each in (metadata.get("annotations") or {}, metadata.get("labels") or {}))
    return next((number for number in map(parse_number, told) if number is not None), 0)


def _state_of(container: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of the container that does the work. One that is started again has ended once, and that counts.

    No pod of ours starts it again by itself; a policy that writes over the pod's restartPolicy makes it do so.
    """
    before = (container.get("lastState") or {}).get("terminated")
    return {"terminated": before} if before else dict(container.get("state") or {})


def _blocked_by(spec: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the init container that does not start, or has not ended; nothing where all have.

    A native sidecar is one too, that has started when it says so. Others say so as soon as they run, and have to end.
    """
    stay = _native_sidecars(spec)
    for each in status.get("initContainerStatuses") or ():
        state = each.get("state", {})
        waits = (state.get("waiting") or {}).get("reason", "PodInitializing") != "PodInitializing"
        has_to_end = each.get("name") not in stay
        if waits or (state.get("running") and (has_to_end or not each.get("started"))):
            return dict(each)
    return {}


def _native_sidecars(spec: Mapping[str, Any]) -> set[object]:
    return {each.get("name") for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"}


def _starts_since(spec: Mapping[str, Any], blocked: Mapping[str, Any]) -> datetime | None:
    running = (blocked.get("state") or {}).get("running") or {}
    return parse_time(running.get("startedAt")) if blocked.get("name") in _native_sidecars(spec) else None


def _failed_beside(body: Mapping[str, Any], statuses: list[dict[str, Any]]) -> str:
    """Return which container other than the one that does the work has failed, the first of them, "" if none has.

    What was told to end with its pod has not failed, and a native sidecar never fails one, whatever its exit code.
    """
    others, deleted = {CONTAINER, *_native_sidecars(body.get("spec", {}))}, "deletionTimestamp" in body["metadata"]
    for each in statuses:
        ended = each.get("state", {}).get("terminated") or {}
        told_to = deleted and ended.get("exitCode") in STOPPED and ended.get("reason") != "OOMKilled"
        if each["name"] not in others and ended.get("exitCode") and not told_to:
            return f"container {each['name']} exited with code {ended['exitCode']}"
    return ""


AGENT_CONTAINER, AGENT_PORT = "trimtab-agent", "agent"
"""Name of the agent's container, and of its port there; a port of the container's own name counts in any container."""


def agent_port(spec: dict[str, Any]) -> int | None:
    """Return the port that a pod names for its agent, None where it names none."""
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        for port in container.get("ports") or ():
            ours = container.get("name") == AGENT_CONTAINER and port.get("name") == AGENT_PORT
            if ours or port.get("name") == AGENT_CONTAINER:
                number = port.get("containerPort")
                return number if isinstance(number, int) else None
    return None


@dataclass(frozen=True, slots=True)
class ServingPodView:
    """A pod with an engine and our agent in it."""

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    ip: str = ""
    ready: bool = False
    deleting: bool = False
    """Whether it is on its way out, or has ended."""
    port: int | None = None
    """Of its agent, where the pod says so."""

    @classmethod
    def of(cls, body: dict[str, Any]) -> ServingPodView | None:
        """Return the view of a pod, or None if it does not say that it serves."""
        metadata, status = body["metadata"], body.get("status", {})
        labels = metadata.get("labels") or {}
        if labels.get(STAGE_LABEL) != SERVE:
            return None
        conditions = status.get("conditions", ())
        return cls(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            labels=labels_kept(labels.items()),
            ip=status.get("podIP", ""),
            ready=any(c["type"] == "Ready" and c["status"] == "True" for c in conditions),
            deleting="deletionTimestamp" in metadata or status.get("phase") in ("Succeeded", "Failed"),
            port=agent_port(body.get("spec") or {}),
        )
