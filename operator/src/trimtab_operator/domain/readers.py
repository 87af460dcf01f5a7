"""Who has still to read an object that has ended: its TTL waits for them.

Otherwise it would depend on who looks first whether there is a verdict, and with a TTL of a few seconds mostly there is
none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trimtab_operator.api import PASSED, AdapterRollout, Condition, Evaluation

from .adapterrollout.record import ranks_of
from .adapterrollout.source import may_be_followed, may_be_taken
from .cluster import Cluster
from .conditions import found
from .indexes import named_evaluation, passed_in, waiting_for
from .plan import Body, Note

READERS = ("Evaluation", "AdapterExport")
LOOKED_AT_SECONDS = 30.0
"""Between two looks whether somebody has still to read what has outlived its TTL: nobody tells when that is over."""
NAMED_AT_MOST = 5
"""Of those who wait, in a message."""


Readers = tuple[str, ...]
"""Kind and name of each, for messages, and how long it waits where that has no end of its own."""


def readers_of_job(cluster: Cluster, namespace: str, name: str, but_of: str | None = None) -> Readers:
    """Return the Evaluations and AdapterExports that wait for a FineTuneJob.

    Args:
        but_of: uid of a controller whose own do not count.
    """
    readers = _staying(cluster, READERS, waiting_for("FineTuneJob", namespace, name))
    return tuple(_called(each) for each in readers if but_of is None or but_of not in _owners(each))


def readers_of_evaluation(cluster: Cluster, evaluation: Evaluation) -> Readers:
    """Return who needs an Evaluation still.

    An AdapterRollout that names it does as long as it names it. One that follows such has read it when it took it, or
    a later one: what keeps it from that is waited for too, such as an adapter that has to be served first.
    """
    namespace, name = evaluation.metadata.namespace, evaluation.metadata.name
    if named := _staying(cluster, ("AdapterExport", "AdapterRollout"), named_evaluation(namespace, name)):
        told = f" (as long as it names Evaluation {name})"
        return tuple(_called(each) + (told if each["kind"] == "AdapterRollout" else "") for each in named)
    verdict, target = found(evaluation.status.conditions, PASSED), evaluation.status.target
    if verdict is None or verdict.status != "True" or target is None or target.digest is None:
        return ()
    followers: tuple[AdapterRollout, ...] = cluster.indexed("AdapterRollout", passed_in(namespace))
    ranks = ranks_of(cluster, namespace, (target.digest,))
    return tuple(
        f"AdapterRollout {rollout.metadata.name}"
        for rollout in followers
        if rollout.metadata.deletion_timestamp is None
        and _is_to_take(rollout, evaluation, verdict, target.digest)
        and may_be_taken(rollout, evaluation, ranks)
    )


def waits_for(readers: Iterable[str]) -> Note:
    """Return what is told of an object whose TTL is over while others have still to read it."""
    names = sorted(readers)
    who = ", ".join(names[:NAMED_AT_MOST]) + (f" and {more} more" if (more := len(names) - NAMED_AT_MOST) > 0 else "")
    what = "its ttlSecondsAfterFinished is over, and it is deleted once it is read by those that wait for it"
    return Note("Normal", "TTLWaits", f"{what}: {who}; let them go on, name another, or delete them")


def _called(body: Body) -> str:
    return f"{body['kind']} {body['metadata']['name']}"


def _owners(body: Body) -> list[str | None]:
    return [owner.get("uid") for owner in body["metadata"].get("ownerReferences") or ()]


def _staying(cluster: Cluster, kinds: Sequence[str], index: str) -> list[Body]:
    """Return what is looked up under a word, but for what is being deleted: it reads nothing any more."""
    there = (each for kind in kinds for each in cluster.bodies(kind, index))
    return [each for each in there if "deletionTimestamp" not in each["metadata"]]


def _is_to_take(rollout: AdapterRollout, evaluation: Evaluation, passed: Condition, digest: str) -> bool:
    follow, status = rollout.spec.source.follow, rollout.status
    if follow is None or not follow.selector.matches(evaluation.metadata.labels) or not may_be_followed(passed, follow):
        return False
    held = [each for each in (status.step, status.served) if each is not None]
    if digest in {each.digest for each in held}:
        return False
    newest = max((each.passed for each in held if each.passed is not None), default="")
    return newest < (evaluation.status.completion_time or "")
