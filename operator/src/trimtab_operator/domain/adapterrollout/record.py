"""The record of AdapterRollouts: how they are looked up, what their snapshot is made of, and what tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from trimtab_operator.api import AdapterRollout, AdapterRolloutStatus, Evaluation
from trimtab_operator.api.adapterrollout import ADAPTERROLLOUT, REJECTED_KEPT, Phase

from ..cluster import Cluster, Key
from ..indexes import gated_in, named_evaluation, names_claimed, of_adapter_name, of_artifact, passed_in, waiting_for
from ..kind import Kind, Needs
from ..measures import Measure
from ..plan import Body, Plan
from ..views import parse_time
from .claims import Claim
from .decide import plan, retire
from .observed import Observed

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
    return tuple(found)


def _concerns(key: Key, ended: bool, indexes: tuple[str, ...]) -> tuple[str, ...]:
    return (waiting_for(*key), *names_claimed(indexes))


def _selects(body: Body) -> Mapping[str, str]:
    labels: Mapping[str, str] = body.get("spec", {}).get("serving", {}).get("selector", {}).get("matchLabels", {})
    return labels


def _observe(cluster: Cluster, rollout: AdapterRollout) -> Observed:
    namespace, name = rollout.metadata.namespace, rollout.metadata.name
    evaluations = _evaluations(cluster, rollout)
    selected, others = cluster.serving_pods(namespace, name, rollout.spec.serving.selector.match_labels)
    claims = map(Claim.of, cluster.bodies("AdapterRollout", of_adapter_name(namespace, rollout.spec.adapter_name)))
    return Observed(
        rollout=rollout,
        evaluations=evaluations,
        others=tuple(claim for claim in claims if claim.uid != rollout.metadata.uid),
        pods=selected,
        unselected=others,
        lease_transitions=cluster.term(namespace),
        can_sign=cluster.can_sign,
        ranks=_ranks(cluster, rollout, evaluations),
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


def _ranks(cluster: Cluster, rollout: AdapterRollout, evaluations: tuple[Evaluation, ...]) -> dict[str, int]:
    targets = [evaluation.status.target for evaluation in evaluations]
    digests = {target.digest for target in targets if target is not None and target.digest is not None}
    if rollout.spec.source.artifact is not None:
        digests.add(rollout.spec.source.artifact.digest)
    ranks = {}
    for digest in digests:
        for job in cluster.indexed("FineTuneJob", of_artifact(rollout.metadata.namespace, digest)):
            if job.status.artifact is not None:
                ranks[digest] = job.status.artifact.rank
    return ranks


def _needs(observed: Observed, planned: Plan) -> Needs:
    """Where requests are about to move, source and agents are asked anew."""
    source, namespace = observed.rollout.spec.source, observed.rollout.metadata.namespace
    named = (Key("Evaluation", namespace, source.evaluation_name),) if source.evaluation_name is not None else ()
    return Needs(objects=named, agents=tuple(pod.uid for pod in observed.pods))


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
    step = before.step
    if step is None or step.phase is Phase.DRAINING:
        return tuple(found)
    if after.step is not None and after.step.phase is not Phase.DRAINING and after.step.digest == step.digest:
        return tuple(found)
    served = after.served is not None and after.served.digest == step.digest
    outcome = "Served" if served else "RolledBack" if any(each.digest == step.digest for each in news) else "Superseded"
    if (began := parse_time(step.began)) is not None:
        found.append(Measure("adapterrollout_seconds", (outcome,), max(0.0, (now - began).total_seconds())))
    return tuple(found)


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
    selects=_selects,
    retire=retire,
)
