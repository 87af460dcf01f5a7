"""The documents of a decision: one share a pod, one for pods that start unasked, and their sequence."""

from __future__ import annotations

from datetime import datetime

from trimtab_agent.contract import Probe, Share

from trimtab_operator.api.adapterrollout import AdapterRollout, AdapterRolloutStatus

from ...plan import Document
from ..observed import Observed, ServingPod
from ..revisions import previous, served
from .sequence import Sequence, beyond, credible, milliseconds
from .traffic import alias, held, incoming, positive
from .waves import holders


def next_sequence(observed: Observed, now: datetime) -> Sequence:
    """Return a sequence above all that this or any former operator is seen to have used for this name.

    Seen are the status, the document for new pods, what the pods hold of the rollout, and the highest that each pod
    holds of any: the mark of a rollout that was retired under the same name is not told by itself.
    """
    rollout = observed.rollout
    used = [seen for pod in observed.pods for seen in held_by(pod, rollout.metadata.name)]
    if rollout.status.sequence is not None:
        term, number = rollout.status.sequence
        used.append((term, number))
    if observed.mounted is not None:
        used.append(observed.mounted.sequence)
    return beyond(observed.lease_transitions, filter(credible, used), milliseconds(now))


def held_by(pod: ServingPod, rollout: str) -> tuple[Sequence, ...]:
    """Return the sequences that a pod tells, of a rollout and of all that it ever took."""
    share = pod.share(rollout)
    highest = (pod.truth.sequence,) if pod.truth is not None else ()
    return (share.sequence, *highest) if share is not None else highest


def documents(
    observed: Observed, status: AdapterRolloutStatus, sequence: Sequence, now: datetime
) -> tuple[Document, ...]:
    """Return what to send to which pods: only where the pod's truth differs, and only if its truth is known.

    What is on its way already and still wanted is among them, as it is.
    """
    found, coming, loading = [], incoming(observed, status), set[str]()
    if coming is not None and status.step is not None:
        loading = holders(observed, status.step, coming, now)
    for pod in observed.matching:
        if pod.truth is None:
            continue
        targets = alias(observed, status, pod)
        above = max(sequence, beyond(sequence[0], held_by(pod, observed.rollout.metadata.name), sequence[1]))
        share = _share(observed.rollout, above).model_copy(
            update={
                "revisions": held(observed, status, pod, targets, loading),
                "aliases": {observed.rollout.spec.adapter_name: targets} if targets else {},
            }
        )
        share = Share.model_validate(share.to_json())  # model_copy checks nothing
        if pod.refusal is not None and pod.refusal.stands(share, now):
            continue
        unwanted = pod.pending is not None and pod.pending.retired  # by which it would go although it is wanted again
        if unwanted or differs(pod, share):
            before = pod.share(share.rollout)
            aliases = before.aliases if before is not None else {}
            answering = {each: positive(aliases.get(each, {})) for each in share.aliases}
            moved = [each for each in share.aliases if answering[each] != dict(share.aliases[each])]
            if is_pending(pod, share) and pod.pending is not None:
                share = pod.pending
            leaves = any(answering[each] for each in moved)
            found.append(Document(pod.name, pod.uid, pod.address, share, bool(moved), leaves))
    return tuple(found)


def is_pending(pod: ServingPod, share: Share) -> bool:
    """Tell whether a share is on its way to a pod, with whatever sequence."""
    return pod.pending is not None and pod.pending.model_copy(update={"sequence": share.sequence}) == share


def differs(pod: ServingPod, share: Share) -> bool:
    """Tell whether a pod has to hear of a share. An alias that is still pending there is the agent's to move."""
    truth = pod.share(share.rollout)
    if truth is None:
        return bool(share.revisions)
    if truth.uid != share.uid or {(r.name, r.uri) for r in truth.revisions} != {
        (r.name, r.uri) for r in share.revisions
    }:
        return True
    if set(truth.aliases) != set(share.aliases):
        return True
    for name, weighted in share.aliases.items():
        proven = all(pod.proves(share.rollout, target) for target in weighted)
        if proven and positive(truth.aliases[name]) != dict(weighted):
            return True
    return False


def mounted(observed: Observed, status: AdapterRolloutStatus, sequence: Sequence) -> Share | None:
    """Return the document for pods that start while nobody can call them, None if the ConfigMap holds it already."""
    rollout = observed.rollout
    current = served(rollout, status)
    if current is None:
        return None
    before = previous(rollout, status)
    share = _share(rollout, sequence).model_copy(
        update={
            "revisions": (current,) if before is None else (current, before),
            "aliases": {rollout.spec.adapter_name: {current.name: 100}},
            "match_labels": dict(rollout.spec.serving.selector.match_labels),
        }
    )
    share = Share.model_validate(share.to_json())
    now = observed.mounted
    return None if now is not None and now.model_copy(update={"sequence": sequence}) == share else share


def retired(rollout: str, namespace: str, pods: tuple[ServingPod, ...], sequence: Sequence) -> tuple[Document, ...]:
    """Return the documents after an AdapterRollout was deleted: pods that still hold its share want nothing of it."""
    found = []
    for pod in pods:
        share = pod.share(rollout)
        if share is None or not share.ours or pod.deleting:
            continue
        name = share.revisions[0].name.rpartition("@")[0] if share.revisions else rollout
        wants_nothing = Share(
            namespace=namespace,
            rollout=rollout,
            uid=share.uid,
            sequence=beyond(sequence[0], (share.sequence,), sequence[1]),
            adapter_name=name,
            retired=True,
        )
        found.append(Document(pod.name, pod.uid, pod.address, wants_nothing, bool(share.aliases), bool(share.aliases)))
    return tuple(found)


def _share(rollout: AdapterRollout, sequence: Sequence) -> Share:
    return Share(
        namespace=rollout.metadata.namespace,
        rollout=rollout.metadata.name,
        uid=rollout.metadata.uid,
        sequence=sequence,
        adapter_name=rollout.spec.adapter_name,
        probe=Probe.model_validate(rollout.spec.probe.to_json()),
    )
