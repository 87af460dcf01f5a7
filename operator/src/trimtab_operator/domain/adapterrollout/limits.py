"""What the engines hold: refused before anything is touched, where it cannot fit."""

from __future__ import annotations

from trimtab_agent.contract import Revision

from trimtab_operator.api.status.rollout_reasons import RolloutReason as Reason

from .observed import Observed, ServingPod
from .source import Held


def room(pod: ServingPod, rollout: str) -> int | None:
    """Return how many revisions of a rollout a pod can hold beside those of others; None if it does not say."""
    if pod.truth is None or pod.truth.max_cpu_loras is None:
        return None
    others = {each.name for share in pod.truth.shares if share.rollout != rollout for each in share.revisions}
    return max(0, pod.truth.max_cpu_loras - len(others))


def does_not_fit(observed: Observed, current: Revision | None, incoming: Revision) -> Held | None:
    """Refuse what a single pod cannot hold: current and incoming stand side by side until traffic has moved."""
    needed = len({each.name for each in (current, incoming) if each is not None})
    rank = observed.ranks.get(incoming.digest)
    for pod in observed.matching:
        space = room(pod, observed.rollout.metadata.name)
        if space is not None and needed > space:
            message = (
                f"pod {pod.name} has room for {space} of the {needed} revisions that stand side by side during a "
                "rollout; start its engine with a higher --max-cpu-loras, or retire another adapter"
            )
            return Held(Reason.DOES_NOT_FIT, message, final=True)
        highest = pod.truth.max_lora_rank if pod.truth is not None else None
        if rank is not None and highest is not None and rank > highest:
            message = (
                f"the adapter has rank {rank}, the engine of pod {pod.name} serves up to {highest}; start it with a "
                "higher --max-lora-rank"
            )
            return Held(Reason.RANK_TOO_HIGH, message, final=True)
    return None
