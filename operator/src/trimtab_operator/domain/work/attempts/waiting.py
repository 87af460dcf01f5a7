"""Why a Job that is not finished is not running either: one word, the cluster's own words, and for how long to wait."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from trimtab_operator.api import State

from ...cluster import Refusal
from ...plan import EventsOf, Inquiry, PodsRefused, WarnedSince
from ...settings import Settings
from ...views import JobView, PodView
from ..observed import Observed
from .attempt import Attempt, not_found

UNEVENTFUL_SECONDS = 15
"""A pod is created, scheduled and started within this time; only later are events asked for the cause."""
ASKED_AGAIN_SECONDS = 300
"""Longest time between two such questions. The API server goes through all events of a namespace for each, and a pod
that comes is told by its watch: who has waited for long is asked about seldom."""

DEFAULT_SCHEDULER = "default-scheduler"
STARTING = frozenset({"", "ContainerCreating", "PodInitializing"})
"""Reasons of a container that waits and is in no trouble: whatever else a kubelet or a runtime says is one."""
IMAGE_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
HOPELESS_IMAGE_REASONS = frozenset({"ErrImageNeverPull", "InvalidImageName"})
VOLUME_EVENTS = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume"})
NODE_EVENTS = frozenset({"FailedCreatePodSandBox", "FailedPrepareDynamicResources"})
"""The node cannot set the pod up: its network, its runtime, the driver of its devices. Another one may."""
CONTAINER_EVENTS = frozenset({"Failed", "BackOff", "InspectFailed", "ErrImageNeverPull", "FailedPostStartHook"})
"""Of an image, or of the container that is made of it."""
BEGUN_EVENTS = frozenset({"Pulling", "Pulled", "Created", "Started"})
"""Whatever failed before one of these is mended: volumes are mounted first, then the network is made, then the image is
pulled."""
BEING_DELETED = "because it is being terminated"
"""Words of the API server about a namespace."""
WEBHOOK_DOWN = "failed calling webhook"
"""Of one that could not be asked: an outage, which ends nobody's work."""
NOT_COUNTED_YET = "status unknown for quota"
"""Words of the API server about a quota that is new, until its controller has counted."""
_OUT_OF_ORDER = re.compile(
    r"(Error creating: )?"
    r"(Internal error occurred: |etcdserver: |Timeout: request did not complete"
    r"|the server is currently unable to handle|the server has received too many requests"
    r"|[A-Z][a-z]+ \"https?://)"
)
"""First words of an API server that did not take a pod and had nothing against it, or, with the address that was asked,
of who got no answer from it: an event tells no more of it.
Further on they are somebody's who refused it, such as a webhook's."""
_NO_RIGHT = re.compile(r"\bUser \".*\" cannot [a-z]+ resource ")
"""Of the API server's own authorization: what the operator may not do is nothing that its users can mend."""
_COUNTED = re.compile(r"exceeded quota: [^,]*, requested: (count/[^,]*|pods|services|configmaps|secrets)=")
"""A quota of how many objects there may be, which smaller requests do not help."""


@dataclass(frozen=True)
class Waiting:
    """An attempt that does not run yet.

    Attributes:
        state: the word to show, None where nothing is unusual.
        since: when the trouble began; after Settings.pod_start_seconds it ends the job. None: may last for ever.
        inquiry: a question whose answer would say more.
        elsewhere: whether another node may do better; then it is tried there at the end of patience.
    """

    state: State | None = None
    message: str = ""
    since: datetime | None = None
    hopeless: bool = False
    look_again_seconds: float | None = None
    inquiry: Inquiry | None = None
    elsewhere: bool = False


def waiting_of(observed: Observed[Any], attempt: Attempt, now: datetime) -> Waiting | None:
    """Return why an attempt that has not ended has a pod that does not run, or None if all run, or have."""
    job, pod = attempt.job, attempt.waits
    if pod is None and not attempt.incomplete:
        return None
    if job.suspended:
        return None if attempt.runs else _suspended(attempt)
    if pod is None and job.scaled_down:
        return Waiting(State.QUEUED, f"somebody lowered the parallelism of Job {job.name}; set it to {job.pods} again")
    if (lost := attempt.astray) is not None and not attempt.runs:  # none of them can do without it
        return Waiting(State.POD_REFUSED, not_found(job, lost), hopeless=True)
    if pod is None:
        return _without_pod(observed, job, now)
    found = _not_running(observed, pod, now)
    if job.pods == 1 or not found.message:
        return found
    return replace(found, message=f"pod {pod.index} of {job.pods}, for which the others wait: {found.message}")


def _not_running(observed: Observed[Any], pod: PodView, now: datetime) -> Waiting:
    if pod.unschedulable:
        return Waiting(State.QUEUED, f"no node can take the pod: {pod.unschedulable}")
    words = ": ".join(filter(None, (pod.waiting_reason, pod.waiting_message)))
    if pod.blocked_by and pod.waiting_reason not in STARTING:
        message = f"container {pod.blocked_by}, which has to start before the trainer, does not: {words}"
        image = pod.waiting_reason in IMAGE_REASONS
        state = State.IMAGE_UNAVAILABLE if image else State.CONTAINER_INVALID
        return _bounded(state, message, pod, observed, now)
    if pod.waiting_reason in IMAGE_REASONS:
        message = f"{pod.waiting_message or pod.waiting_reason}; check spec.template.image and imagePullSecrets"
        hopeless = pod.waiting_reason in HOPELESS_IMAGE_REASONS
        return _bounded(State.IMAGE_UNAVAILABLE, message, pod, observed, now, hopeless=hopeless)
    if pod.waiting_reason not in STARTING:
        return _bounded(State.CONTAINER_INVALID, words, pod, observed, now)
    return _creating(observed, pod, now)


def _suspended(attempt: Attempt) -> Waiting:
    """Something other than this operator holds the Job; to write against it would go round and round."""
    if attempt.queue is not None:
        queue = f"queue {attempt.queue}" if attempt.queue else "its queue"
        return Waiting(State.QUEUED, f"waiting for {queue} to admit Job {attempt.name}")
    message = (
        f"Job {attempt.name} is suspended, and not by this object's spec.suspend: by a queue that manages Jobs without "
        "its label, a policy or a person; it goes on when that lets it. To let it go on by hand, set spec.suspend to "
        "true and then to false"
    )
    return Waiting(State.QUEUED, message)


def refused(what: str, words: str, since: datetime, settings: Settings, now: datetime) -> Waiting:
    """Return the state of what an API server, a quota or a policy does not let in, the Job itself or its pod."""
    if (waited_for := _waited_for(what, words)) is not None:
        return waited_for
    left = (since + timedelta(seconds=settings.pod_start_seconds) - now).total_seconds()
    again = max(1.0, min(left, 30.0))
    return Waiting(State.POD_REFUSED, f"the namespace refuses the {what}: {words}", since, look_again_seconds=again)


def has_an_end(what: str, words: str) -> bool:
    """Tell whether what is refused so is given up in the end."""
    return _waited_for(what, words) is None


def _waited_for(what: str, words: str) -> Waiting | None:
    """Return the state of what is refused and waited for without a limit, None of anything else."""
    if BEING_DELETED in words:
        return Waiting(State.PENDING, "the namespace is being deleted, so nothing can begin in it")
    if "exceeded quota" in words:
        less = "raise it" if _COUNTED.search(words) else "ask for less in spec.template.resources"
        return Waiting(State.QUOTA_EXCEEDED, f"{words}; free some of the quota, or {less}")
    if NOT_COUNTED_YET in words:
        return Waiting(State.QUOTA_EXCEEDED, f"{words}; it is tried again")
    if what != "pod" and _NO_RIGHT.search(words):
        message = f"the operator has no right to do what is next: {words}; give it the chart's roles, it is waited for"
        return Waiting(State.POD_REFUSED, message, look_again_seconds=30.0)
    if WEBHOOK_DOWN in words:
        message = f"the namespace refuses the {what}: {words}; it is waited for"
        return Waiting(State.POD_REFUSED, message, look_again_seconds=30.0)
    if _OUT_OF_ORDER.match(words):
        return Waiting(State.PENDING, f"the API server does not take the {what}: {words}; it is tried again")
    return None


def _without_pod(observed: Observed[Any], job: JobView, now: datetime) -> Waiting:
    begun = max((each for each in (job.created, job.resumed) if each is not None), default=now)
    age = (now - begun).total_seconds()
    if (left := _uneventful(age)) > 0:
        return Waiting(look_again_seconds=left)
    if job.run_by and not job.active:
        message = (
            f"Job {job.name} has no pods: {job.run_by} is to make them, by spec.managedBy, and has made none so far"
        )
        return Waiting(State.QUEUED, message)
    inquiry = PodsRefused(job.namespace, job.uid)
    refusal = observed.answers.get(inquiry)
    if not isinstance(refusal, Refusal):
        return Waiting(inquiry=inquiry, look_again_seconds=patience(age))
    found = refused("pod", refusal.words, max(begun, refusal.since), observed.settings, now)
    again = patience(age) if found.since is None else found.look_again_seconds
    return replace(found, inquiry=inquiry, look_again_seconds=again)


def _uneventful(age: float) -> float:
    """Return for how many seconds more nothing is asked about what has waited for `age`.

    That is below 0 where the API server's clock is ahead: it may be by hours, which nobody waits for.
    """
    return min(UNEVENTFUL_SECONDS - age, UNEVENTFUL_SECONDS) if age > -UNEVENTFUL_SECONDS else 0.0


def _creating(observed: Observed[Any], pod: PodView, now: datetime) -> Waiting:
    begun = pod.scheduled_time or pod.created or now
    age = (now - begun).total_seconds()
    if (left := _uneventful(age)) > 0:
        return Waiting(look_again_seconds=left)
    inquiry = EventsOf(pod.namespace, pod.uid)
    if pod.scheduled_time is None:
        return replace(_unscheduled(observed, pod, inquiry), inquiry=inquiry, look_again_seconds=patience(age))
    if pod.starts_since is not None:
        message = (
            f"container {pod.blocked_by}, which comes before the trainer and stays beside it, runs and has not "
            "started; look at its startupProbe"
        )
        since = max(pod.starts_since, begun) if pod.starts_since <= now else begun  # by the node's clock, maybe ahead
        left = (since + timedelta(seconds=observed.settings.pod_start_seconds) - now).total_seconds()
        again = max(1.0, min(left, ASKED_AGAIN_SECONDS))
        return Waiting(State.PENDING, message, since, look_again_seconds=again, elsewhere=True)
    if pod.blocked_by:
        message = f"container {pod.blocked_by}, which comes before the trainer, has not ended or is not ready"
        return Waiting(State.PENDING, message)
    trouble = _trouble(observed, inquiry, VOLUME_EVENTS | NODE_EVENTS, mended_by=BEGUN_EVENTS)
    if trouble is None:
        return Waiting(inquiry=inquiry, look_again_seconds=patience(age))
    reason, words = trouble
    if reason in NODE_EVENTS:
        waiting = _bounded(State.CONTAINER_INVALID, f"{reason}: {words}", pod, observed, now, warnings=NODE_EVENTS)
        return replace(waiting, inquiry=waiting.inquiry or inquiry, elsewhere=True)
    message = f"{words}; create what is missing, the pod then starts by itself"
    waiting = _bounded(State.VOLUME_UNAVAILABLE, message, pod, observed, now, warnings=VOLUME_EVENTS)
    return replace(waiting, inquiry=waiting.inquiry or inquiry)


def _unscheduled(observed: Observed[Any], pod: PodView, inquiry: EventsOf) -> Waiting:
    """A pod whose claims are not there is not looked at by the scheduler, nor one that names a scheduler of nobody's:
    nothing is said of either."""
    trouble = _trouble(observed, inquiry, frozenset({"FailedResourceClaimCreation"}))
    message = trouble[1] if trouble is not None else "the scheduler has not looked at the pod yet"
    template = observed.job.spec.template
    if template.resource_claims:
        message += "; create what spec.template.resourceClaims names, if it is missing"
    if template.scheduler_name:
        message += f"; look whether {template.scheduler_name} runs, which spec.template.schedulerName names"
    elif pod.scheduler not in ("", DEFAULT_SCHEDULER):
        message += f"; look whether {pod.scheduler} runs, whose name a policy or a webhook wrote into the pod"
    return Waiting(State.QUEUED, message)


def _bounded(
    state: State,
    message: str,
    pod: PodView,
    observed: Observed[Any],
    now: datetime,
    *,
    warnings: frozenset[str] = CONTAINER_EVENTS,
    hopeless: bool = False,
) -> Waiting:
    """Return what is waited for no longer than a pod has to start.

    An image may have been on its way for longer when the first fault comes: then the first warning of this kind counts.
    Not one of anything else, such as of hours without a node, a volume that was late or a probe.
    """
    since, most = pod.scheduled_time or pod.created or now, timedelta(seconds=observed.settings.pod_start_seconds)
    inquiry = WarnedSince(pod.namespace, pod.uid, warnings) if now - since >= most and not hopeless else None
    warned = observed.answers.get(inquiry) if inquiry is not None else None
    since = max(since, warned) if isinstance(warned, datetime) else since
    left = (since + most - now).total_seconds()
    return Waiting(state, message, since, hopeless, look_again_seconds=max(1.0, min(left, 30.0)), inquiry=inquiry)


def patience(age: float) -> float:
    """Return the seconds until it is asked again about what has waited for `age` seconds."""
    return min(max(age / 4, UNEVENTFUL_SECONDS), ASKED_AGAIN_SECONDS)


def _trouble(
    observed: Observed[Any], inquiry: EventsOf, reasons: frozenset[str], *, mended_by: frozenset[str] = frozenset()
) -> tuple[str, str] | None:
    """Return reason and words of the last event of trouble that nothing has mended since, None without any."""
    answer = observed.answers.get(inquiry, ())
    told = [each for each in (answer if isinstance(answer, tuple) else ()) if each[0] in reasons | mended_by]
    return told[-1] if told and told[-1][0] in reasons else None
