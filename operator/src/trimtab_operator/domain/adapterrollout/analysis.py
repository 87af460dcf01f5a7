"""Whether the canary is worse than what was served: errors per request and mean latency, from the guards' counts.

The old revision is looked at on the stable pods in the same window. Where there are none, it is looked at on the canary
pods: beside the new one while the alias gives it a part of the requests, else before the alias moved.
"""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_agent.contract import Revision

from trimtab_operator.api.adapterrollout import STABLE_PODS_MARKED, CountMark, RolloutReason, RolloutStep

from .observed import Counts, Observed, ServingPod

NOTICEABLE_SECONDS = 0.05
"""A smaller difference of mean times is the machine's, whatever its ratio: a busy node doubles two milliseconds."""


@dataclass(frozen=True)
class Comparison:
    """What was found. `worse`: the reason in one word; `enough`: both sides had the requests for an answer."""

    enough: bool
    message: str
    worse: str | None = None


def zero(observed: Observed, canaries: list[str], new: Revision, old: Revision) -> list[CountMark]:
    """Return the marks of the moment when a canary begins."""
    chosen = [pod for pod in observed.matching if pod.uid in canaries]
    stable = [pod for pod in observed.matching if pod.uid not in canaries and pod.answers]
    marks = [_mark(pod, new) for pod in chosen]
    return marks + [_mark(pod, old) for pod in (stable or chosen)[:STABLE_PODS_MARKED]]


def _mark(pod: ServingPod, revision: Revision) -> CountMark:
    truth, counts = pod.truth, _counts(pod, revision.name)
    return CountMark(
        pod=pod.uid,
        instance=truth.instance[:64] if truth is not None else "",
        revision=revision.name,
        requests=counts.requests,
        errors=counts.errors,
        answers=counts.answers,
        seconds=round(counts.seconds, 3),
    )


def compare(observed: Observed, step: RolloutStep, new: Revision, old: Revision, *, over: bool) -> Comparison:
    """Hold the new revision against the old one; `over`: the canary's time is.

    Errors count at once. Times are looked at once the window is over: they have long tails, and looking at the mean of
    the first few again and again would find some moment at which a good adapter seems slow.
    """
    strategy, analysis = observed.rollout.spec.strategy, observed.rollout.spec.strategy.analysis
    fresh = _since(observed, step, new.name)
    on_canaries = all(mark.pod in step.canaries for mark in step.marks)
    if on_canaries and strategy.canary_weight == 100:
        known = sum((_marked(mark) for mark in step.marks if mark.revision == old.name), Counts())
    else:
        known = _since(observed, step, old.name)
    least = analysis.minimum_requests
    if fresh.requests < least or known.requests < least:
        message = (
            f"{fresh.requests} requests to {new.name} and {known.requests} to {old.name}, fewer than minimumRequests "
            f"{least}: decided by the probe"
        )
        return Comparison(False, message)
    new_ratio, old_ratio = fresh.errors / fresh.requests, known.errors / known.requests
    if new_ratio - old_ratio > analysis.maximum_error_ratio_increase:
        message = f"{new_ratio:.3f} errors per request ({fresh.requests}), the old revision {old_ratio:.3f}"
        return Comparison(True, message, RolloutReason.ERROR_RATIO)
    if over and fresh.answers and known.answers:
        new_mean, old_mean = fresh.seconds / fresh.answers, known.seconds / known.answers
        longest = max(old_mean * analysis.maximum_latency_ratio, old_mean + NOTICEABLE_SECONDS)
        if new_mean > longest:
            message = f"an answer takes {new_mean:.3f} s, {old_mean:.3f} s with the old revision"
            return Comparison(True, message, RolloutReason.LATENCY)
    return Comparison(True, f"{fresh.requests} requests, no worse than {old.name}")


def _since(observed: Observed, step: RolloutStep, name: str) -> Counts:
    """Return what was counted since the marks; an engine that started again counts from zero."""
    pods, total = {pod.uid: pod for pod in observed.matching}, Counts()
    for mark in step.marks:
        pod = pods.get(mark.pod)
        if mark.revision != name or pod is None or pod.truth is None:
            continue
        before = _marked(mark) if pod.truth.instance[:64] == mark.instance else Counts()
        total += _counts(pod, name) - before
    return total


def _counts(pod: ServingPod, name: str) -> Counts:
    return pod.truth.counts.get(name, Counts()) if pod.truth is not None else Counts()


def _marked(mark: CountMark) -> Counts:
    return Counts(mark.requests, mark.errors, mark.answers, mark.seconds)
