"""Which pods load an incoming revision: a few first, the others when it is proven there, one bad pod delays no other.

First use of a damaged adapter can harm a whole engine, base model and neighbours included, so it is never everywhere at
once.
"""

from __future__ import annotations

from datetime import datetime

from trimtab_agent.contract import Revision

from trimtab_operator.api.adapterrollout import RolloutStep

from ...views import parse_time
from ..observed import Observed, ServingPod

PATIENCE_SECONDS = 30.0
"""How long a pod that says nothing new may hold up those after it."""

OF_THE_POD = frozenset(
    {"DoesNotFit", "EngineFailed", "LoadingDisabled", "NameTaken", "StorageFailed", "AccessDenied", "VolumeNotShared"}
)
"""Failures that tell of the pod or its surroundings, not of the adapter."""


def seconds_in(step: RolloutStep, now: datetime) -> float:
    """Return how long a step has been in its phase."""
    since = parse_time(step.since)
    return max(0.0, (now - since).total_seconds()) if since is not None else 0.0


def choose_canaries(
    observed: Observed, revision: Revision, kept: list[str], now: datetime, *, in_traffic: bool
) -> list[str]:
    """Return the canary pods by uid: those of before while they are fit, then those that answer, ready ones first.

    In traffic a pod stays a canary over a restart of its engine and a short silence: another one would begin anew. So
    it does whenever the leader is new and has not heard of it yet.
    """
    name = observed.rollout.metadata.name
    fit = [pod for pod in observed.matching if _fit(pod, name, revision)]
    stays = {pod.uid for pod in fit if pod.answers or _unheard(pod) or (in_traffic and _back_soon(pod, now))}
    canaries = [uid for uid in kept if uid in stays]
    fresh = sorted((pod for pod in fit if pod.answers), key=lambda pod: (not pod.ready, pod.name))
    canaries += [pod.uid for pod in fresh if pod.uid not in canaries]
    return canaries[: observed.rollout.spec.strategy.canary_pods]


def _fit(pod: ServingPod, name: str, revision: Revision) -> bool:
    found = pod.revision(name, revision.name)
    failure = found.failure if found is not None else None
    return failure is None or not failure.permanent or failure.reason not in OF_THE_POD


def _back_soon(pod: ServingPod, now: datetime) -> bool:
    if pod.truth is not None:
        return True
    return pod.unreachable_since is not None and (now - pod.unreachable_since).total_seconds() < PATIENCE_SECONDS


def _unheard(pod: ServingPod) -> bool:
    return pod.truth is None and pod.unreachable_since is None


def canaries_prove(observed: Observed, revision: Revision, canaries: list[str]) -> bool:
    """Tell whether every canary pod has proven a revision; without canaries nothing is."""
    name = observed.rollout.metadata.name
    pods = [pod for pod in observed.matching if pod.uid in canaries]
    return bool(pods) and len(pods) == len(canaries) and all(pod.proves(name, revision.name) for pod in pods)


def holders(observed: Observed, step: RolloutStep, revision: Revision, now: datetime) -> set[str]:
    """Return the pods, by uid, that are to hold the incoming revision now. Who holds it keeps it."""
    name, strategy = observed.rollout.metadata.name, observed.rollout.spec.strategy
    holding = {pod.uid for pod in observed.matching if pod.revision(name, revision.name) is not None}
    wanted = holding | set(step.canaries)
    if observed.rollout.spec.paused:
        return holding
    if not canaries_prove(observed, revision, step.canaries):
        return wanted
    others = [pod for pod in observed.matching if pod.uid not in wanted and pod.truth is not None]
    if strategy.max_pods_at_once == 0:
        return wanted | {pod.uid for pod in others}
    # Since when a single pod hangs is not written down; every further patience lets as many again begin.
    waves = 1 + int(seconds_in(step, now) // PATIENCE_SECONDS)
    free = strategy.max_pods_at_once * waves - len(_in_flight(observed, revision))
    # An engine that is down brings nothing in now, so its pod takes no one's turn.
    down = {pod.uid for pod in others if not pod.answers}
    return wanted | down | {pod.uid for pod in [pod for pod in others if pod.answers][: max(0, free)]}


def settled(observed: Observed, step: RolloutStep, revision: Revision, now: datetime) -> bool:
    """Tell whether nothing is worth waiting for: the others have proven it, have failed, are silent, or hang."""
    name = observed.rollout.metadata.name
    wanted = holders(observed, step, revision, now)
    to_begin = [
        pod
        for pod in observed.matching
        if pod.answers and (pod.uid not in wanted or pod.revision(name, revision.name) is None)
    ]
    refused = [pod for pod in to_begin if pod.refusal is not None]
    if len(refused) < len(to_begin):
        return False
    return not _in_flight(observed, revision) or seconds_in(step, now) >= PATIENCE_SECONDS


def _in_flight(observed: Observed, revision: Revision) -> list[ServingPod]:
    """Return the pods that are bringing a revision in, without those that failed or whose engine is silent."""
    name = observed.rollout.metadata.name
    found = []
    for pod in observed.matching:
        held = pod.revision(name, revision.name)
        if held is not None and pod.answers and held.failure is None and not pod.proves(name, revision.name):
            found.append(pod)
    return found
