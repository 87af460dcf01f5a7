"""Who depends on whom among our kinds: the words under which the cache looks an object up when another one changes.

An object is told of another's change if it still waits for it, names it as its source, or claims the same name.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..api import PASSED, SUCCEEDED
from ..api.adapterrollout import READY
from .kube import ADAPTERROLLOUTS, EVALUATIONS, FINETUNEJOBS, Body

SUMMARY_CONDITIONS = {
    FINETUNEJOBS.kind: SUCCEEDED,
    EVALUATIONS.kind: SUCCEEDED,
    ADAPTERROLLOUTS.kind: READY,
}
"""The condition of each kind whose reason is its state."""
CLAIMED = "name/"


def waiting_for(kind: str, namespace: str, name: str) -> str:
    """Return the index of those who cannot start without an object."""
    return f"waits/{kind}/{namespace}/{name}"


def named_evaluation(namespace: str, name: str) -> str:
    """Return the index of the AdapterRollouts whose source is an Evaluation."""
    return f"source/{namespace}/{name}"


def passed_in(namespace: str) -> str:
    """Return the index of the Evaluations that passed, and of the AdapterRollouts that follow such."""
    return f"passed/{namespace}"


def of_adapter_name(namespace: str, name: str) -> str:
    """Return the index of the AdapterRollouts that claim a name."""
    return f"{CLAIMED}{namespace}/{name}"


def names_claimed(indexes: Iterable[str]) -> list[str]:
    """Return those of an object's indexes that are of a name it claims."""
    return [index for index in indexes if index.startswith(CLAIMED)]


def of_artifact(namespace: str, digest: str) -> str:
    """Return the index of the FineTuneJobs that published an adapter."""
    return f"artifact/{namespace}/{digest}"


def indexes_of(kind: str, body: Body, *, over: bool) -> tuple[str, ...]:
    """Return everything that an object is looked up under; `over`: it has ended."""
    namespace, spec, status = body["metadata"]["namespace"], body.get("spec", {}), body.get("status", {})
    found: list[str] = []
    if kind == FINETUNEJOBS.kind and (digest := status.get("artifact", {}).get("digest")):
        found.append(of_artifact(namespace, digest))
    if kind == EVALUATIONS.kind:
        if over:
            verdicts = [c for c in status.get("conditions", ()) if c.get("type") == PASSED]
            return (passed_in(namespace),) if verdicts and verdicts[0].get("status") == "True" else ()
        if "resolved" in status:
            return ()
        wanted = {
            FINETUNEJOBS.kind: spec.get("target", {}).get("fineTuneJobName"),
            ADAPTERROLLOUTS.kind: spec.get("baseline", {}).get("rolloutName"),
        }
        found += [waiting_for(upstream, namespace, name) for upstream, name in wanted.items() if name]
    if kind == ADAPTERROLLOUTS.kind:
        source = spec.get("source", {})
        found += [namespace, of_adapter_name(namespace, spec.get("adapterName", ""))]
        if source.get("evaluationName"):
            found.append(named_evaluation(namespace, source["evaluationName"]))
        if source.get("follow"):
            found.append(passed_in(namespace))
    return tuple(found)
