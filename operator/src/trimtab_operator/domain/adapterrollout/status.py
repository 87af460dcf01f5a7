"""What the status says: counted from what the engines' lists were read to hold, never from what was sent."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime

from trimtab_agent.contract import Revision

from trimtab_operator.api import Condition
from trimtab_operator.api.adapterrollout import (
    POD_REASONS_KEPT,
    PROGRESSING,
    READY,
    TOLD_LENGTH,
    VERIFIED,
    AdapterRollout,
    AdapterRolloutStatus,
    ConditionType,
    CountMark,
    Phase,
    PodCounts,
    PodReason,
    RevisionState,
)
from trimtab_operator.api.status.rollout_reasons import RolloutReason as Reason

from ..conditions import ConditionStatus, condition, cut, found, note_of
from ..plan import Note
from ..views import format_time
from .approvals import standing, waits
from .delivery.traffic import incoming, positive
from .observed import Observed, ServingPod
from .revisions import served
from .source import Held

STATUS_BYTES = 9_500
MESSAGE_LENGTH = 400
QUIET = frozenset(
    {
        Reason.SERVING,
        Reason.LOADING,
        Reason.CANARY,
        Reason.MOVING,
        Reason.PAUSED,
        Reason.NO_PODS,
        Reason.AWAITING_APPROVAL,
    }
)
"""Reasons that are no warnings."""


WAITS = frozenset({Reason.PAUSED, Reason.NO_PODS, Reason.AWAITING_APPROVAL, Reason.AUTHORS_NOT_BOUND})
"""Reasons of a revision that is wanted and does not get on by itself."""


Said = tuple[ConditionStatus, str, str]
"""Of a condition: status, reason, message."""


def with_truth(
    observed: Observed, status: AdapterRolloutStatus, target: Revision | Held, now: datetime
) -> AdapterRolloutStatus:
    """Return the status with pods, reasons and conditions, small enough for an object of 10 kB."""
    name, pods = observed.rollout.metadata.name, observed.matching
    looked_for = target if isinstance(target, Revision) else _looked_for(observed, status)
    reasons = [reason for pod in pods if (reason := pod_reason(observed, looked_for, pod)) is not None]
    updated = [pod for pod in pods if looked_for is not None and pod.proves(name, looked_for.name)]
    ready = [pod for pod in pods if looked_for is not None and answers_with(observed, pod, looked_for)]
    status = status.model_copy(
        update={
            "observed_generation": observed.rollout.metadata.generation,
            "pods": PodCounts(desired=len(pods), updated=len(updated), ready=len(ready)),
            "revisions": [
                each.model_copy(update={"pods": sum(pod.proves(name, each.name) for pod in pods)})
                for each in status.revisions
            ],
            "pod_reasons": reasons[:POD_REASONS_KEPT],
            "pod_reasons_omitted": max(0, len(reasons) - POD_REASONS_KEPT),
        }
    )
    return fitted(status.model_copy(update={"conditions": _conditions(observed, status, target, now)}))


def _looked_for(observed: Observed, status: AdapterRolloutStatus) -> Revision | None:
    """Return what pods are measured by while nothing new is wanted."""
    return incoming(observed, status) or served(observed.rollout, status)


def answers_with(observed: Observed, pod: ServingPod, revision: Revision) -> bool:
    """Tell whether a pod's alias answers with a revision alone, as read back."""
    share = pod.share(observed.rollout.metadata.name)
    if share is None or share.uid != observed.rollout.metadata.uid or not pod.proves(share.rollout, revision.name):
        return False
    return set(positive(share.aliases.get(observed.rollout.spec.adapter_name, {}))) == {revision.name}


def pod_reason(observed: Observed, revision: Revision | None, pod: ServingPod) -> PodReason | None:
    """Return why a pod does not answer with a revision, None where nothing is wrong with it."""
    if pod.truth is None:
        since = f" since {format_time(pod.unreachable_since)}" if pod.unreachable_since is not None else ""
        why = f": {pod.unreachable_why}" if pod.unreachable_why else ""
        port = pod.port or observed.rollout.spec.serving.port
        return _reason(pod, Reason.UNREACHABLE, f"no answer of its agent on port {port}{since}{why}")
    if pod.truth.harmed is not None:
        return _reason(pod, Reason.ENGINE_HARMED, pod.truth.harmed)
    if not pod.truth.engine_answers:
        return _reason(pod, Reason.ENGINE_DOWN, pod.truth.engine_error)
    if revision is None:
        return None
    held = pod.revision(observed.rollout.metadata.name, revision.name)
    if held is not None and held.failure is not None:
        return _reason(pod, held.failure.reason, held.failure.message)
    if pod.refusal is not None:
        return _reason(pod, pod.refusal.reason, pod.refusal.message)
    return None


def _reason(pod: ServingPod, reason: str, message: str) -> PodReason:
    return PodReason(pod=pod.name, reason=reason[:64], message=cut(message, TOLD_LENGTH))


def _conditions(
    observed: Observed, status: AdapterRolloutStatus, target: Revision | Held, now: datetime
) -> list[Condition]:
    rollout, generation = observed.rollout, observed.rollout.metadata.generation
    said = {
        READY: _ready(observed, status, target),
        PROGRESSING: _progressing(observed, status, target),
        VERIFIED: _verified(observed, status, target),
    }
    return [
        *(
            condition(rollout.status.conditions, kind, *each, generation=generation, now=now, length=MESSAGE_LENGTH)
            for kind, each in said.items()
        ),
        *(each for each in status.conditions if each.type not in said),
    ]


def _ready(observed: Observed, status: AdapterRolloutStatus, target: Revision | Held) -> Said:
    """Ready only if every matching pod serves the wanted digest, as read back from its engine."""
    if isinstance(target, Held):
        return "False", target.reason, target.message
    pods = observed.matching
    if not pods:
        labels = observed.rollout.spec.serving.selector.match_labels
        return "False", Reason.NO_PODS, f"no pod has the labels {dict(labels)}; the adapter waits for one"
    behind = [pod for pod in pods if not answers_with(observed, pod, target)]
    if not behind and status.served is not None and status.served.digest == target.digest:
        told = f"; {status.served.canary}" if status.served.canary is not None else ""
        return "True", Reason.SERVING, f"{target.name} answers in {len(pods)} pods{told}"
    moved = status.served is not None and status.served.digest == target.digest
    if not moved:
        return "False", *_under_way(observed, status, target)
    bad = [each for pod in behind if (each := pod_reason(observed, target, pod)) is not None]
    count = f"{len(pods) - len(behind)} of {len(pods)} pods answer with {target.name}"
    if bad:
        return "False", Reason.POD_NOT_UPDATED, f"{count}; {bad[0].pod}: {bad[0].reason}: {bad[0].message}"
    return "False", Reason.MOVING, count


def _under_way(observed: Observed, status: AdapterRolloutStatus, target: Revision) -> tuple[str, str]:
    name, pods, step = observed.rollout.metadata.name, observed.matching, status.step
    proven = sum(pod.proves(name, target.name) for pod in pods)
    if observed.rollout.spec.paused:
        return Reason.PAUSED, f"{target.name} is proven in {proven} of {len(pods)} pods; set paused to false to go on"
    if (asked := standing(observed, target)) is not None and status.approval is not None and status.approval.since:
        reason, message = waits(observed, target, asked)
        in_traffic = step is not None and step.phase is Phase.CANARY
        return reason, f"{message}; its canary was good and goes on" if in_traffic else message
    if step is not None and step.phase is Phase.CANARY:
        seconds = observed.rollout.spec.strategy.canary_seconds
        names = ", ".join(pod.name for pod in pods if pod.uid in step.canaries)
        if step.held is not None:
            return Reason.CANARY, f"{target.name} stays in {names}, not yet served by the others: {step.held}"
        told = f"; {len(asked.approved_by)} of {asked.required} approvals" if asked is not None else ""
        return Reason.CANARY, f"{target.name} takes traffic in {names} for {seconds} s since {step.since}{told}"
    message = f"{target.name} is proven in {proven} of {len(pods)} pods"
    bad = [each for pod in pods if (each := pod_reason(observed, target, pod)) is not None]
    if bad:
        message += f"; {bad[0].pod}: {bad[0].reason}: {bad[0].message}"
    return Reason.LOADING, message


def _progressing(observed: Observed, status: AdapterRolloutStatus, target: Revision | Held) -> Said:
    if isinstance(target, Held):
        return "False", target.reason, target.message
    truth, reason, message = _ready(observed, status, target)
    if truth == "True" or reason in WAITS:
        return "False", reason, message
    return "True", reason, message


def _verified(observed: Observed, status: AdapterRolloutStatus, target: Revision | Held) -> Said:
    """Verified: loaded and proven under its own name in every pod, whether or not requests go there yet."""
    revision = target if isinstance(target, Revision) else _looked_for(observed, status)
    if revision is None:
        return "Unknown", Reason.WAITING_FOR_SOURCE, "there is no revision to verify yet"
    name, pods = observed.rollout.metadata.name, observed.matching
    proven = [pod for pod in pods if pod.proves(name, revision.name)]
    message = f"{revision.name} is proven in {len(proven)} of {len(pods)} pods"
    if pods and len(proven) == len(pods):
        return "True", Reason.SERVING if status.step is None else Reason.MOVING, message
    return "False", Reason.LOADING if pods else Reason.NO_PODS, message


def condition_of(status: AdapterRolloutStatus, kind: ConditionType) -> Condition | None:
    """Return a condition as it is."""
    return found(status.conditions, kind)


def notes(rollout: AdapterRollout, status: AdapterRolloutStatus) -> tuple[Note, ...]:
    """Return the event of a transition: one when the state's word changes, none otherwise.

    None either of an alias that moves: what came of it is told a moment later, and for each rollout that is a write.
    """
    before, after = condition_of(rollout.status, READY), condition_of(status, READY)
    if after is not None and after.reason == Reason.MOVING:
        return ()
    return note_of(before, after, trouble=after.reason not in QUIET) if after is not None else ()


def fitted(status: AdapterRolloutStatus) -> AdapterRolloutStatus:
    """Drop the oldest retired revisions, then pods' reasons, then marks, until the status is small enough."""
    while len(json.dumps(status.to_json())) > STATUS_BYTES:
        retired = [each for each in status.revisions if each.state is RevisionState.RETIRED]
        if retired:
            kept = [each for each in status.revisions if each is not retired[-1]]
            status = status.model_copy(update={"revisions": kept})
        elif status.pod_reasons:
            omitted = status.pod_reasons_omitted + 1
            status = status.model_copy(update={"pod_reasons": status.pod_reasons[:-1], "pod_reasons_omitted": omitted})
        elif status.step is not None and (marks := _fewer(status.step.marks)) is not None:
            status = status.model_copy(update={"step": status.step.model_copy(update={"marks": marks})})
        else:
            break
    return status


def _fewer(marks: list[CountMark]) -> list[CountMark] | None:
    """Return the marks without the last pod of the revision that has most; None if each has only one left.

    What is seen on fewer pods is seen later, and is no less true.
    """
    most, pods = max(Counter(mark.revision for mark in marks).items(), key=lambda each: each[1], default=("", 0))
    if pods < 2:
        return None
    last = max(at for at, mark in enumerate(marks) if mark.revision == most)
    return [*marks[:last], *marks[last + 1 :]]
