"""Names: one adapterName has one rollout on a pod, and never that of the base model."""

from __future__ import annotations

from trimtab_agent.contract import Revision

from trimtab_operator.api.status.rollout_reasons import RolloutReason as Reason

from .observed import Observed
from .source import Held


def conflict(observed: Observed) -> Held | None:
    """Return why this rollout must not touch its pods at all."""
    return held_by_older(observed) or name_is_base_model(observed)


def held_by_older(observed: Observed) -> Held | None:
    """The older of two rollouts with one adapterName keeps it, on pods that both select."""
    metadata, spec = observed.rollout.metadata, observed.rollout.spec
    for other in sorted(observed.others, key=lambda each: (each.created, each.uid)):
        if other.adapter_name != spec.adapter_name or not other.is_older(metadata.creation_timestamp, metadata.uid):
            continue
        if other.may_share_pods(spec.serving.selector.match_labels):
            message = (
                f"AdapterRollout {other.name} is older and serves {spec.adapter_name} on these pods; "
                "choose another adapterName or selector, or delete one of them"
            )
            return Held(Reason.ADAPTER_NAME_CONFLICT, message, final=True)
    return None


def name_is_base_model(observed: Observed) -> Held | None:
    """Clients that ask for the base model must get it."""
    name = observed.rollout.spec.adapter_name
    for pod in observed.matching:
        if pod.truth is not None and name in pod.truth.base_models:
            message = f"the engine of pod {pod.name} serves its base model as {name}; choose another adapterName"
            return Held(Reason.NAME_IS_BASE_MODEL, message, final=True)
    return None


def name_taken(observed: Observed, revision: Revision) -> Held | None:
    """Two digests that begin alike have one name: rare, and never to be loaded over each other."""
    status = observed.rollout.status
    known = [(each.name, each.digest) for each in status.revisions]
    known += [
        (each.name, each.digest)
        for pod in observed.matching
        if pod.truth is not None
        for share in pod.truth.shares
        for each in share.revisions
    ]
    if any(name == revision.name and digest != revision.digest for name, digest in known):
        message = f"{revision.name} is another adapter's name already: their digests begin alike; train once more"
        return Held(Reason.NAME_TAKEN, message, final=True)
    return None
