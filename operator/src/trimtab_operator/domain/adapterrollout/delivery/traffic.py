"""Where the alias of each pod is to point, and which revisions a pod holds: never one without its proof."""

from __future__ import annotations

from collections.abc import Mapping

from trimtab_agent.contract import Revision

from trimtab_operator.api.adapterrollout import AdapterRolloutStatus, Phase, RevisionState

from ..limits import room
from ..observed import Observed, ServingPod
from ..revisions import previous, revision_of, served

HELD_AT_MOST = 3
"""Current, previous, incoming."""

NOT_VERIFIED = "NotVerified"
"""The agent's word for an alias that was to move to what is not proven there."""


def incoming(observed: Observed, status: AdapterRolloutStatus) -> Revision | None:
    """Return the revision on its way, None if there is none."""
    step = status.step
    if step is None or step.phase is Phase.DRAINING:
        return None
    return revision_of(observed.rollout, step.uri, step.digest)


def weights(observed: Observed, status: AdapterRolloutStatus, pod: ServingPod) -> dict[str, int]:
    """Return where the alias of a pod is to point, by weight of requests; empty before anything is served."""
    rollout, step = observed.rollout, status.step
    old, new = served(rollout, status), incoming(observed, status)
    if step is not None and step.phase is Phase.CANARY and new is not None and pod.uid in step.canaries:
        share = rollout.spec.strategy.canary_weight
        if old is None or share == 100:
            return {new.name: 100}
        return {new.name: share, old.name: 100 - share}
    return {old.name: 100} if old is not None else {}


def alias(observed: Observed, status: AdapterRolloutStatus, pod: ServingPod) -> dict[str, int]:
    """Return the alias to send to a pod: what is wanted once it is proven there, until then what it has."""
    name, alias_name = observed.rollout.metadata.name, observed.rollout.spec.adapter_name
    wanted = weights(observed, status, pod)
    if wanted and all(pod.proves(name, target) for target in wanted):
        return wanted
    fallback = served(observed.rollout, status)
    if fallback is not None and pod.proves(name, fallback.name):
        return {fallback.name: 100}
    share = pod.share(name)
    if share is None or alias_name not in share.aliases:
        return {}
    now = positive(share.aliases[alias_name])
    if now and set(now) <= {each.name for each in share.revisions if each.name.rpartition("@")[0] == alias_name}:
        return now
    # It waits for what its document names, which most likely is what is served; if it is not, it waits for what is
    # served from now on. An earlier agent refuses that, and only a document without the alias brings the revision in.
    if fallback is None or (pod.refusal is not None and pod.refusal.reason == NOT_VERIFIED):
        return {}
    return {fallback.name: 100}


def positive(weighted: Mapping[str, int]) -> dict[str, int]:
    """Return the revisions that get requests."""
    return {name: weight for name, weight in weighted.items() if weight > 0}


def held(
    observed: Observed, status: AdapterRolloutStatus, pod: ServingPod, targets: Mapping[str, int], loading: set[str]
) -> tuple[Revision, ...]:
    """Return the revisions that a pod is to hold, the most needed first: what answers, what is served, what comes,
    what was served before, and what drains. As many as are allowed, and as the engine has room for.

    `loading`: the pods, by uid, that are to hold what comes.
    """
    rollout, step = observed.rollout, status.step
    name, coming = rollout.metadata.name, incoming(observed, status)
    share = pod.share(name)
    told = [Revision(name=r.name, uri=r.uri, digest=r.digest) for r in share.revisions] if share is not None else []
    wanted = [served(rollout, status)]
    if coming is not None and pod.uid in loading:
        wanted.append(coming)
    wanted.append(previous(rollout, status))
    by_name = {each.name: each for each in [*wanted, *told] if each is not None}
    order = [*targets, *(each.name for each in wanted if each is not None)]
    if step is not None and step.phase is Phase.DRAINING:
        retired = [each.name for each in status.revisions if each.state is RevisionState.RETIRED]
        order += [each.name for each in told if each.name in retired]
    space = room(pod, name)
    limit = max(len(targets), HELD_AT_MOST if space is None else min(space, HELD_AT_MOST))
    return tuple(by_name[each] for each in dict.fromkeys(order))[:limit]
