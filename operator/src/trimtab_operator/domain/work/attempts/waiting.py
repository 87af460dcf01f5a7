"""Why a Job that is not finished is not running either: one word, the cluster's own words, and for how long to wait."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from trimtab_operator.api import State

from ...plan import EventsOf, Inquiry
from ...settings import Settings
from ...views import JobView, PodView
from ..observed import Observed
from .attempt import Attempt

UNEVENTFUL_SECONDS = 15
"""A pod is created, scheduled and started within this time; only later are events asked for the cause."""
ASKED_AGAIN_SECONDS = 300
"""Longest time between two such questions. The API server goes through all events of a namespace for each, and a pod
that comes is told by its watch: who has waited for long is asked about seldom."""

IMAGE_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"}
)
HOPELESS_IMAGE_REASONS = frozenset({"ErrImageNeverPull", "InvalidImageName"})
CONTAINER_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"})
CRASHES = "CrashLoopBackOff"
"""Of a native sidecar; the container that does the work is not started twice."""
VOLUME_EVENTS = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume"})
BEING_DELETED = "because it is being terminated"
"""Words of the API server about a namespace."""
WEBHOOK_DOWN = "failed calling webhook"
"""Of one that could not be asked: an outage, which ends nobody's work."""
_COUNTED = re.compile(r"exceeded quota: [^,]*, requested: (count/[^,]*|pods|services|configmaps|secrets)=")
"""A quota of how many objects there may be, which smaller requests do not help."""


@dataclass(frozen=True)
class Waiting:
    """An attempt that does not run yet.

    Attributes:
        state: the word to show, None where nothing is unusual.
        since: when the trouble began; after Settings.pod_start_seconds it ends the job. None: may last for ever.
        inquiry: a question whose answer would say more.
    """

    state: State | None = None
    message: str = ""
    since: datetime | None = None
    hopeless: bool = False
    look_again_seconds: float | None = None
    inquiry: Inquiry | None = None


def waiting_of(observed: Observed[Any], attempt: Attempt, now: datetime) -> Waiting | None:
    """Return why an attempt that has not ended has a pod that does not run, or None if all run, or have."""
    job, pod = attempt.job, attempt.waits
    if pod is None and not attempt.incomplete:
        return None
    if job.suspended:
        return None if attempt.runs else _suspended(attempt)
    if pod is None:
        return _without_pod(observed, job, now)
    found = _not_running(observed, pod, now)
    if job.pods == 1 or not found.message:
        return found
    return replace(found, message=f"pod {pod.index} of {job.pods}, for which the others wait: {found.message}")


def _not_running(observed: Observed[Any], pod: PodView, now: datetime) -> Waiting:
    if pod.unschedulable:
        return Waiting(State.QUEUED, f"no node can take the pod: {pod.unschedulable}")
    if pod.blocked_by and pod.waiting_reason in IMAGE_REASONS | CONTAINER_REASONS | {CRASHES}:
        words = ": ".join(filter(None, (pod.waiting_reason, pod.waiting_message)))
        message = f"container {pod.blocked_by}, which has to start before the trainer, does not: {words}"
        image = pod.waiting_reason in IMAGE_REASONS
        state = State.IMAGE_UNAVAILABLE if image else State.CONTAINER_INVALID
        return _bounded(state, message, pod, observed.settings, now)
    if pod.waiting_reason in IMAGE_REASONS:
        words = pod.waiting_message or pod.waiting_reason
        message = f"{words}; check spec.template.image and imagePullSecrets"
        hopeless = pod.waiting_reason in HOPELESS_IMAGE_REASONS
        return _bounded(State.IMAGE_UNAVAILABLE, message, pod, observed.settings, now, hopeless=hopeless)
    if pod.waiting_reason in CONTAINER_REASONS:
        message = f"{pod.waiting_reason}: {pod.waiting_message}"
        return _bounded(State.CONTAINER_INVALID, message, pod, observed.settings, now)
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
    if BEING_DELETED in words:
        return Waiting(State.PENDING, "the namespace is being deleted, so nothing can begin in it")
    if "exceeded quota" in words:
        less = "raise it" if _COUNTED.search(words) else "ask for less in spec.template.resources"
        return Waiting(State.QUOTA_EXCEEDED, f"{words}; free some of the quota, or {less}")
    message = f"the namespace refuses the {what}: {words}"
    if WEBHOOK_DOWN in words:
        return Waiting(State.POD_REFUSED, f"{message}; it is waited for", look_again_seconds=30.0)
    left = (since + timedelta(seconds=settings.pod_start_seconds) - now).total_seconds()
    return Waiting(State.POD_REFUSED, message, since, look_again_seconds=max(1.0, min(left, 30.0)))


def _without_pod(observed: Observed[Any], job: JobView, now: datetime) -> Waiting:
    begun = max((each for each in (job.created, job.resumed) if each is not None), default=now)
    age = (now - begun).total_seconds()
    if age < UNEVENTFUL_SECONDS:
        return Waiting(look_again_seconds=UNEVENTFUL_SECONDS - age)
    inquiry = EventsOf(job.namespace, job.uid)
    refusals = [message for reason, message in _events(observed, inquiry) if reason == "FailedCreate"]
    if not refusals:
        return Waiting(inquiry=inquiry, look_again_seconds=_patience(age))
    found = refused("pod", refusals[-1], begun, observed.settings, now)
    again = _patience(age) if found.since is None else found.look_again_seconds
    return replace(found, inquiry=inquiry, look_again_seconds=again)


def _creating(observed: Observed[Any], pod: PodView, now: datetime) -> Waiting:
    begun = pod.scheduled_time
    if begun is None:
        return _without_claims(observed, pod, now) if observed.job.spec.template.resource_claims else Waiting()
    age = (now - begun).total_seconds()
    if age < UNEVENTFUL_SECONDS:
        return Waiting(look_again_seconds=UNEVENTFUL_SECONDS - age)
    inquiry = EventsOf(pod.namespace, pod.uid)
    troubles = [message for reason, message in _events(observed, inquiry) if reason in VOLUME_EVENTS]
    if not troubles:
        return Waiting(inquiry=inquiry, look_again_seconds=_patience(age))
    message = f"{troubles[-1]}; create what is missing, the pod then starts by itself"
    waiting = _bounded(State.VOLUME_UNAVAILABLE, message, pod, observed.settings, now)
    return replace(waiting, inquiry=inquiry)


def _without_claims(observed: Observed[Any], pod: PodView, now: datetime) -> Waiting:
    """A pod whose claims are not there is not looked at by the scheduler, which says nothing of it."""
    age = (now - pod.created).total_seconds() if pod.created else 0.0
    if age < UNEVENTFUL_SECONDS:
        return Waiting(look_again_seconds=UNEVENTFUL_SECONDS - age)
    inquiry = EventsOf(pod.namespace, pod.uid)
    troubles = [message for reason, message in _events(observed, inquiry) if reason == "FailedResourceClaimCreation"]
    words = troubles[-1] if troubles else "the scheduler has not looked at the pod yet"
    message = f"{words}; create what spec.template.resourceClaims names, if it is missing"
    return Waiting(State.QUEUED, message, inquiry=inquiry, look_again_seconds=_patience(age))


def _bounded(
    state: State, message: str, pod: PodView, settings: Settings, now: datetime, *, hopeless: bool = False
) -> Waiting:
    since = pod.scheduled_time or pod.created or now
    left = (since + timedelta(seconds=settings.pod_start_seconds) - now).total_seconds()
    return Waiting(state, message, since, hopeless, look_again_seconds=max(1.0, min(left, 30.0)))


def _patience(age: float) -> float:
    """Return the seconds until events are asked for again, about what has waited for `age` seconds."""
    return min(max(age / 4, UNEVENTFUL_SECONDS), ASKED_AGAIN_SECONDS)


def _events(observed: Observed[Any], inquiry: EventsOf) -> tuple[tuple[str, str], ...]:
    answer = observed.answers.get(inquiry, ())
    return tuple(answer) if isinstance(answer, tuple) else ()
