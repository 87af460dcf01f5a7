"""When an incoming revision is taken back without being asked, and how that is remembered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from trimtab_agent.contract import Revision

from trimtab_operator.api.adapterrollout import REJECTED_KEPT, TOLD_LENGTH, AdapterRolloutStatus, Phase, Rejected

from ..conditions import cut
from .canary.analysis import Comparison, compare
from .delivery.waves import OF_THE_POD, seconds_in
from .observed import Observed
from .revisions import served, without_incoming

HARM = frozenset({"BaseHarmed", "NeighbourHarmed"})
"""The engine itself took damage: one pod is enough to know, whichever it is."""


@dataclass(frozen=True)
class Fault:
    """Why a revision is taken back: a reason in one word, and what was seen."""

    reason: str
    message: str


def compared(observed: Observed, status: AdapterRolloutStatus, revision: Revision, now: datetime) -> Comparison | None:
    """Return what the requests of a canary tell; None while there is none, or nothing to compare it with."""
    step, old = status.step, served(observed.rollout, status)
    if step is None or step.phase is not Phase.CANARY or old is None:
        return None
    return compare(observed, step, revision, old, seconds=seconds_in(step, now))


def looked(status: AdapterRolloutStatus, found: Comparison | None) -> AdapterRolloutStatus:
    """Return the status with a look remembered: what it spent of the chance of a false alarm is spent."""
    if found is None or found.look is None or status.step is None:
        return status
    return status.model_copy(update={"step": status.step.model_copy(update={"look": found.look})})


def fault(
    observed: Observed, status: AdapterRolloutStatus, revision: Revision, found: Comparison | None
) -> Fault | None:
    """Return why an incoming revision must go: harm anywhere, a canary that refuses it, or worse traffic."""
    step, name = status.step, observed.rollout.metadata.name
    if step is None:
        return None
    for pod in observed.matching:
        held = pod.revision(name, revision.name)
        failure = held.failure if held is not None else None
        if failure is None or not failure.permanent or failure.reason in OF_THE_POD:
            continue
        if failure.reason in HARM or pod.uid in step.canaries:
            return Fault(failure.reason, f"pod {pod.name}: {failure.message}")
    if found is not None and found.worse is not None:
        return Fault(found.worse, found.message)
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
