"""The decision about one AdapterRollout: what each pod is to hold, where its alias is to point, and what is true."""

from __future__ import annotations

from datetime import datetime

from trimtab_operator.api import RolloutReason
from trimtab_operator.api.adapterrollout import READY, AdapterRolloutStatus, Phase

from ..cluster import Cluster, Key
from ..kind import Answers
from ..plan import AgentsOf, Document, Inquiry, IsMounted, MountedShare, Plan, Withdrawal
from .approvals import inquiries
from .conflicts import conflict
from .delivery.documents import documents, mounted, next_sequence, retired
from .delivery.sequence import milliseconds
from .delivery.waves import seconds_in
from .observed import Observed
from .phases import advance
from .source import Held
from .status import condition_of, notes, with_truth

LOOK_AGAIN_SECONDS = 1.0
RETIRE_AGAIN_SECONDS = 2.0
WITHOUT_KEY_SECONDS = 30.0
AT_REST_SECONDS = 60.0
"""Nothing waits for time then; a change of a pod, an object or an Evaluation calls for a look at once."""
POLICY_SECONDS = 10.0
"""While approvals are waited for: whether it is certain who wrote them is not watched."""


def plan(observed: Observed, now: datetime) -> Plan:
    """Decide. The same facts give the same plan, whoever asks, however often."""
    rollout, metadata = observed.rollout, observed.rollout.metadata
    wanted = (
        MountedShare(metadata.namespace, metadata.name),
        *_counts(observed),
        *inquiries(rollout.spec.strategy.approvals),
    )
    if unanswered := tuple(each for each in wanted if each not in observed.answers):
        return Plan(inquiries=unanswered)
    status = _of_this_generation(observed)
    held = without_key(observed) or conflict(observed)
    if held is not None:
        told = with_truth(observed, status, held, now)
        leaving = _left_behind(observed, now)
        return Plan(
            status=told.to_json(),
            documents=leaving,
            notes=notes(rollout, told),
            look_again_seconds=min(
                WITHOUT_KEY_SECONDS if not observed.can_sign else AT_REST_SECONDS, _refused_again(observed, now)
            ),
            confirm=bool(leaving),
            follows_up=False,
        )
    status, target = advance(observed, status, now)
    sequence = next_sequence(observed, now)
    sends = documents(observed, status, sequence, now)
    pending = {pod.uid: pod.pending for pod in observed.pods}
    fresh = [document for document in sends if document.share != pending[document.uid]]
    for_new_pods = mounted(observed, status, sequence)
    used = sequence if fresh or for_new_pods is not None else None
    if used is not None:
        status = status.model_copy(update={"sequence": list(used)})
    told = with_truth(observed, status, target, now)
    return Plan(
        status=told.to_json(),
        documents=(*sends, *retired(metadata.name, metadata.namespace, observed.unselected, sequence)),
        sequence=used,
        mounted=for_new_pods,
        notes=notes(rollout, told),
        look_again_seconds=_look_again(observed, told, bool(sends), now),
        confirm=any(document.moves for document in fresh),
        follows_up=False,
    )


def _look_again(observed: Observed, told: AdapterRolloutStatus, sends: bool, now: datetime) -> float:
    """Return when time alone may call for something; what pods tell calls for a look at once."""
    ready, step = condition_of(told, READY), told.step
    moving = bool(observed.matching) and ready is not None and ready.reason == RolloutReason.MOVING
    if sends or moving:
        return LOOK_AGAIN_SECONDS
    rest = min(_at_rest(told), _refused_again(observed, now))
    if step is None:
        return rest
    if step.phase is Phase.DRAINING and ready is not None and ready.reason == RolloutReason.SERVING:
        left = observed.rollout.spec.strategy.drain_seconds - seconds_in(step, now)
        return min(rest, max(LOOK_AGAIN_SECONDS, left))
    return LOOK_AGAIN_SECONDS


def _refused_again(observed: Observed, now: datetime) -> float:
    """Return in how many seconds a document that was refused, or not answered, is worth another try."""
    times = (pod.refusal.again for pod in observed.matching if pod.refusal is not None)
    left = [(again - now).total_seconds() for again in times if again is not None and again > now]
    return max(LOOK_AGAIN_SECONDS, min(left, default=AT_REST_SECONDS))


def _at_rest(status: AdapterRolloutStatus) -> float:
    return POLICY_SECONDS if status.approval is not None else AT_REST_SECONDS


def _left_behind(observed: Observed, now: datetime) -> tuple[Document, ...]:
    """Return what takes away shares of a deleted rollout of this name: nobody else does, because the name is not gone.

    A rollout that may serve sends its own in their place; one that may not would leave them the alias for ever.
    """
    if not observed.can_sign:
        return ()
    metadata = observed.rollout.metadata
    pods = tuple(
        pod
        for pod in observed.matching
        if (share := pod.share(metadata.name)) is not None and share.uid != metadata.uid
    )
    found = retired(metadata.name, metadata.namespace, pods, next_sequence(observed, now))
    refusals = {pod.uid: pod.refusal for pod in pods if pod.refusal is not None}
    return tuple(each for each in found if each.uid not in refusals or not refusals[each.uid].stands(each.share, now))


def without_key(observed: Observed) -> Held | None:
    """Agents take nothing that is not signed."""
    if observed.can_sign:
        return None
    message = "the operator has no key to sign documents with; set agentKey in the values of its chart"
    return Held(RolloutReason.AGENT_KEY_MISSING, message, final=True)


def retire(cluster: Cluster, key: Key, answers: Answers, now: datetime) -> Plan:
    """Return what takes a rollout that is gone out of every pod, and out of what new pods start from.

    An AdapterRollout needs no finalizer for that: what pods and ConfigMap still hold is found there, by its name.
    """
    if not cluster.can_sign:
        return Plan()
    inquiry = IsMounted(key.namespace, key.name)
    if inquiry not in answers:
        return Plan(inquiries=(inquiry,))
    _, pods = cluster.serving_pods(key.namespace, key.name)
    leaving = retired(key.name, key.namespace, pods, (cluster.term(key.namespace), milliseconds(now)))
    withdrawal = Withdrawal(key.namespace, key.name) if answers[inquiry] else None
    if not leaving and withdrawal is None:
        # A pod may tell of anything, so nothing is read or sent for one that was told lately.
        again = cluster.told_again_in(key.namespace, key.name)
        return Plan(look_again_seconds=max(RETIRE_AGAIN_SECONDS, again) if again is not None else None)
    return Plan(documents=leaving, mounted=withdrawal, look_again_seconds=RETIRE_AGAIN_SECONDS, confirm=True)


def _counts(observed: Observed) -> tuple[Inquiry, ...]:
    """Ask for the counts that decide about a canary: agents do not tell of every count by themselves."""
    step = observed.rollout.status.step
    if step is None or step.phase is not Phase.CANARY:
        return ()
    marked = {mark.pod for mark in step.marks}
    return (AgentsOf(tuple(pod.uid for pod in observed.matching if pod.uid in marked)),)


def _of_this_generation(observed: Observed) -> AdapterRolloutStatus:
    """Return the status without what was rejected before the spec changed."""
    status, generation = observed.rollout.status, observed.rollout.metadata.generation
    rejected = [each for each in status.rejected if each.generation == generation]
    return status.model_copy(update={"rejected": rejected})
