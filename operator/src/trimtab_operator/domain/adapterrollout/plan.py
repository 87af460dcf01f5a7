"""The decision about one AdapterRollout: what each pod is to hold, where its alias is to point, and what is true."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from trimtab_agent.contract import Share

from trimtab_operator.api.adapterrollout import READY, AdapterRolloutStatus

from ..plan import Body, Note
from .conflicts import conflict
from .documents import Document, documents, mounted, next_sequence
from .observed import Observed
from .phases import advance
from .sequence import Sequence
from .status import condition_of, notes, with_truth

LOOK_AGAIN_SECONDS = 1.0
AT_REST_SECONDS = 60.0
"""Nothing waits for time then; a change of a pod, an object or an Evaluation calls for a look at once."""


@dataclass(frozen=True)
class RolloutPlan:
    """What to do about one AdapterRollout. The runtime writes the status first, and sends only if that succeeded.

    So whoever goes on after a crash knows which revision was taken back, which is served, and which sequence was used;
    what was not sent differs from the pods' truth, and is sent then.

    Attributes:
        documents: shares to sign and send, each to its pod, all at once: no answer is waited for by another.
        sequence: of the documents, None where there are none.
        mounted: the document for new pods, to be put into the ConfigMap after the others were sent; None: leave it.
        status: the whole desired status, written if it differs.
        notes: events, posted after the status was written, and only if it was.
        look_again_seconds: when to plan again if no pod, object or agent says anything.
        confirm: decide again on the agents' answers of this moment before any of this is done: requests move by it.
    """

    status: Body
    documents: tuple[Document, ...] = ()
    mounted: Share | None = None
    sequence: Sequence | None = None
    notes: tuple[Note, ...] = ()
    look_again_seconds: float = AT_REST_SECONDS
    confirm: bool = False


def plan(observed: Observed, now: datetime) -> RolloutPlan:
    """Decide. The same facts give the same plan, whoever asks, however often."""
    rollout = observed.rollout
    status = _of_this_generation(observed)
    held = conflict(observed)
    if held is not None:
        told = with_truth(observed, status, held, now)
        return RolloutPlan(told.to_json(), notes=notes(rollout, told))
    status, target = advance(observed, status, now)
    sequence = next_sequence(observed, now)
    sends = documents(observed, status, sequence, now)
    for_new_pods = mounted(observed, status, sequence)
    used = sequence if sends or for_new_pods is not None else None
    if used is not None:
        status = status.model_copy(update={"sequence": list(used)})
    told = with_truth(observed, status, target, now)
    ready = condition_of(told, READY)
    busy = (
        bool(sends) or status.step is not None or (observed.matching and ready is not None and ready.reason == "Moving")
    )
    return RolloutPlan(
        status=told.to_json(),
        documents=sends,
        mounted=for_new_pods,
        sequence=used,
        notes=notes(rollout, told),
        look_again_seconds=LOOK_AGAIN_SECONDS if busy else AT_REST_SECONDS,
        confirm=any(document.moves for document in sends),
    )


def _of_this_generation(observed: Observed) -> AdapterRolloutStatus:
    """Return the status without what was rejected before the spec changed."""
    status, generation = observed.rollout.status, observed.rollout.metadata.generation
    rejected = [each for each in status.rejected if each.generation == generation]
    return status.model_copy(update={"rejected": rejected})
