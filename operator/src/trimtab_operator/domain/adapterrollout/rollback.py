"""When an incoming revision is taken back without being asked, and how that is remembered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from trimtab_agent.contract import Revision

from trimtab_operator.api.adapterrollout import REJECTED_KEPT, TOLD_LENGTH, AdapterRolloutStatus, Phase, Rejected

from ..conditions import cut
from .analysis import compare
from .observed import Observed
from .revisions import served, without_incoming
from .waves import OF_THE_POD, seconds_in

HARM = frozenset({"BaseHarmed", "NeighbourHarmed"})
"""The engine itself took damage: one pod is enough to know, whichever it is."""


@dataclass(frozen=True)
class Fault:
    """Why a revision is taken back: a reason in one word, and what was seen."""

    reason: str
    message: str


def fault(observed: Observed, status: AdapterRolloutStatus, revision: Revision, now: datetime) -> Fault | None:
    """Return why an incoming revision must go: harm anywhere, a canary that refuses it, or worse traffic."""
    step, name = status.step, observed.rollout.metadata.name
    if step is None:
        return None
    for pod in observed.matching:
        found = pod.revision(name, revision.name)
        failure = found.failure if found is not None else None
        if failure is None or not failure.permanent or failure.reason in OF_THE_POD:
            continue
        if failure.reason in HARM or pod.uid in step.canaries:
            return Fault(failure.reason, f"pod {pod.name}: {failure.message}")
    old = served(observed.rollout, status)
    if step.phase is Phase.CANARY and old is not None:
        over = seconds_in(step, now) >= observed.rollout.spec.strategy.canary_seconds
        found_worse = compare(observed, step, revision, old, over=over)
        if found_worse.worse is not None:
            return Fault(found_worse.worse, found_worse.message)
    return None


def taken_back(
    observed: Observed, status: AdapterRolloutStatus, revision: Revision, why: Fault
) -> AdapterRolloutStatus:
    """Return the status with a revision rejected: the alias is on the old one again, and it is not tried again."""
    mark = Rejected(
        digest=revision.digest,
        reason=why.reason,
        generation=observed.rollout.metadata.generation,
        message=cut(why.message, TOLD_LENGTH),
    )
    others = [each for each in status.rejected if each.digest != revision.digest]
    return status.model_copy(
        update={
            "step": None,
            "revisions": without_incoming(status.revisions),
            "rejected": [*others, mark][-REJECTED_KEPT:],
        }
    )
