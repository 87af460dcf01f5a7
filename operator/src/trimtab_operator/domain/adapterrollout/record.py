"""The record of AdapterRollouts: how they are looked up, what their snapshot is made of, and what tells of them."""

from __future__ import annotations

from datetime import datetime

from trimtab_operator.api import AdapterRollout, AdapterRolloutStatus, Evaluation, FineTuneJob, RolloutReason
from trimtab_operator.api.adapterrollout import ADAPTERROLLOUT, READY, REJECTED_KEPT, Phase
from trimtab_operator.api.review import Review

from ..cluster import Cluster, Key
from ..indexes import (
    decided_on,
    decisions_about,
    gated_in,
    named_evaluation,
    names_claimed,
    of_adapter_name,
    of_artifact,
    passed_in,
    waiting_for,
)
from ..kind import Kind, Needs, Serving
from ..measures import Measure
from ..plan import Body, Plan
from ..review.policies import AUTHOR_ANNOTATION
from ..views import parse_time
from .approvals import REVIEWS_AT_MOST
from .claims import Claim
from .decide import plan, retire
from .observed import Maker, Observed
from .status import condition_of

REVIEWS_READ_ANEW = 32
"""The newest decisions, where requests are about to move."""
PASSED_LOOKED_AT = REJECTED_KEPT + 2
"""Of the Evaluations that a rollout follows, newest first: those that were taken back, the next, and the one served."""


def _indexes(body: Body, ended: bool) -> tuple[str, ...]:
    namespace, spec = body["metadata"]["namespace"], body.get("spec", {})
    source = spec.get("source", {})
    found = [namespace, of_adapter_name(namespace, spec.get("adapterName", ""))]
    if source.get("evaluationName"):
        found.append(named_evaluation(namespace, source["evaluationName"]))
    if source.get("follow"):
        found.append(passed_in(namespace))
    if spec.get("strategy", {}).get("approvals"):
        found.append(decisions_about(namespace, body["metadata"]["name"]))
    return tuple(found)


def _concerns(key: Key, ended: bool, indexes: tuple[str, ...]) -> tuple[str, ...]:
    return (waiting_for(*key), *names_claimed(indexes))


def _serves(body: Body) -> Serving:
    serving, pods = body.get("spec", {}).get("serving", {}), body.get("status", {}).get("pods", {})
    return Serving(
        labels=serving.get("selector", {}).get("matchLabels", {}),
        port=_whole(serving.get("port")),
        ready=_whole(pods.get("ready")) or 0,
        desired=_whole(pods.get("desired")) or 0,
    )


def _whole(value: object) -> int | None:
    """Return a whole number, None of what a later version may have in its place: this is read of every object."""
    return value if isinstance(value, int) else None


def _observe(cluster: Cluster, rollout: AdapterRollout) -> Observed:
    namespace, name = rollout.metadata.namespace, rollout.metadata.name
    evaluations = _evaluations(cluster, rollout)
    selected, others = cluster.serving_pods(namespace, name, rollout.spec.serving.selector.match_labels)
    digests = _digests(rollout, evaluations)
    claims = map(Claim.of, cluster.bodies("AdapterRollout", of_adapter_name(namespace, rollout.spec.adapter_name)))
    return Observed(
        rollout=rollout,
        evaluations=evaluations,
        others=tuple(claim for claim in claims if claim.uid != rollout.metadata.uid),
        pods=selected,
        unselected=others,
        lease_transitions=cluster.term(namespace),
        can_sign=cluster.can_sign,
        ranks=ranks_of(cluster, namespace, digests),
        reviews=_reviews(cluster, rollout, digests),
        makers=_makers(cluster, rollout, digests),
    )


def _evaluations(cluster: Cluster, rollout: AdapterRollout) -> tuple[Evaluation, ...]:
    """Return those that the source may refer to."""
    source, namespace = rollout.spec.source, rollout.metadata.namespace
    if source.evaluation_name is not None:
        return cluster.called("Evaluation", namespace, source.evaluation_name)
    if source.follow is None:
        return ()
    # Those that are not followed are left out before the newest are taken: they could be many, and made on purpose.
    passed = gated_in if source.follow.require_thresholds else passed_in
    labels = source.follow.selector.match_labels
    return cluster.indexed("Evaluation", passed(namespace), labels=labels, newest=PASSED_LOOKED_AT)


def _digests(rollout: AdapterRollout, evaluations: tuple[Evaluation, ...]) -> tuple[str, ...]:
    """Return the digests of the adapters that it may want, or has on their way."""
    targets = [evaluation.status.target for evaluation in evaluations]
    digests = {target.digest for target in targets if target is not None and target.digest is not None}
    if rollout.spec.source.artifact is not None:
        digests.add(rollout.spec.source.artifact.digest)
    if rollout.status.step is not None:
        digests.add(rollout.status.step.digest)
    return tuple(sorted(digests))


def ranks_of(cluster: Cluster, namespace: str, digests: tuple[str, ...]) -> dict[str, int | None]:
    """Return the ranks of adapters by digest, where a FineTuneJob tells it; None of what is a whole model."""
    ranks: dict[str, int | None] = {}
    for digest in digests:
        for job in cluster.indexed("FineTuneJob", of_artifact(namespace, digest)):
            if job.status.artifact is not None:
                ranks[digest] = job.status.artifact.rank
    return ranks


def _reviews(cluster: Cluster, rollout: AdapterRollout, digests: tuple[str, ...]) -> tuple[Review, ...]:
    """Return the decisions about these adapters, of each one more than are counted at most."""
    if rollout.spec.strategy.approvals is None:
        return ()
    where = (decided_on(rollout.metadata.namespace, rollout.metadata.name, digest) for digest in digests)
    return tuple(each for index in where for each in cluster.indexed("Review", index, newest=REVIEWS_AT_MOST + 1))


def _makers(cluster: Cluster, rollout: AdapterRollout, digests: tuple[str, ...]) -> dict[str, tuple[Maker, ...]]:
    approvals, namespace = rollout.spec.strategy.approvals, rollout.metadata.namespace
    if approvals is None or not approvals.not_by_author_of_the_job:
        return {}
    jobs = {digest: cluster.indexed("FineTuneJob", of_artifact(namespace, digest)) for digest in digests}
    return {digest: tuple(_maker(job) for job in found) for digest, found in jobs.items()}


def _maker(job: FineTuneJob) -> Maker:
    me = job.metadata
    return Maker(me.name, me.annotations.get(AUTHOR_ANNOTATION, ""), me.creation_timestamp)


def _needs(observed: Observed, planned: Plan) -> Needs:
    """Where requests are about to move, source, approvals and agents are asked anew."""
    source, namespace = observed.rollout.spec.source, observed.rollout.metadata.namespace
    named = (Key("Evaluation", namespace, source.evaluation_name),) if source.evaluation_name is not None else ()
    newest = sorted(observed.reviews, key=lambda each: each.metadata.creation_timestamp, reverse=True)
    decisions = tuple(Key("Review", namespace, each.metadata.name) for each in newest[:REVIEWS_READ_ANEW])
    return Needs(objects=(*named, *decisions), agents=tuple(pod.uid for pod in observed.pods))


def _measures(before: AdapterRolloutStatus, after: AdapterRolloutStatus, now: datetime) -> tuple[Measure, ...]:
    """Return what pods said of revisions, what was taken back, and the end of a revision's way."""
    known = {(each.pod, each.reason) for each in before.pod_reasons}
    rejected = {each.digest for each in before.rejected}
    news = [each for each in after.rejected if each.digest not in rejected]
    found = [
        Measure("revision_failures", (each.reason,))
        for each in after.pod_reasons
        if (each.pod, each.reason) not in known
    ]
    found += [Measure("rollbacks", (each.reason,)) for each in news]
    found += _waited(before, after, now)
    step = before.step
    if step is None or step.phase is Phase.DRAINING:
        return tuple(found)
    if after.step is not None and after.step.phase is not Phase.DRAINING and after.step.digest == step.digest:
        return tuple(found)
    served = after.served is not None and after.served.digest == step.digest
    ready = condition_of(after, READY)
    if served:
        outcome = "Served"
    elif any(each.digest == step.digest for each in news):
        outcome = "RolledBack"
    else:
        rejected_by_people = ready is not None and ready.reason == RolloutReason.REJECTED
        outcome = "Rejected" if rejected_by_people else "Superseded"
    if (began := parse_time(step.began)) is not None:
        found.append(Measure("adapterrollout_seconds", (outcome,), max(0.0, (now - began).total_seconds())))
    return tuple(found)


def _waited(before: AdapterRolloutStatus, after: AdapterRolloutStatus, now: datetime) -> list[Measure]:
    """Return how long a revision waited for nothing but approvals, when that is over."""
    waited = before.approval
    if waited is None or (since := parse_time(waited.since)) is None:
        return []
    if after.approval is not None and after.approval.digest == waited.digest and after.approval.since is not None:
        return []
    return [Measure("approval_seconds", amount=max(0.0, (now - since).total_seconds()))]


ADAPTER_ROLLOUT = Kind(
    crd=ADAPTERROLLOUT,
    ends=False,
    parse=AdapterRollout.parse,
    indexes=_indexes,
    concerns=_concerns,
    observe=_observe,
    plan=plan,
    needs=_needs,
    measures=_measures,
    gauge="trimtab_adapterrollouts",
    serves=_serves,
    retire=retire,
)
