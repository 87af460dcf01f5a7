"""Whether the canary is worse than what was served, from the guards' counts of requests by the alias: a pure decision.

The old revision is looked at on the stable pods in the same window. Where there are none, it is looked at on the canary
pods: beside the new one while the alias gives it a part of the requests, else before the alias moved.

A revision is taken back if what it does worse is both more than chance, by a test, and beyond the margin of the spec.
The operator has new counts every second, and a test at every second would find some moment at which a good adapter
seems bad. So it is tested whenever there are twice the requests of the look before, and when the canary's time is over,
and all looks together share one chance of a false alarm.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

from trimtab_agent.contract import Revision

from trimtab_operator.api.adapterrollout import (
    MARK_TIMES,
    STABLE_PODS_MARKED,
    Analysis,
    CanaryLook,
    CountMark,
    RolloutStep,
)
from trimtab_operator.api.status.rollout_reasons import RolloutReason

from ..observed import Observed, ServingPod
from .counts import Counts, Times
from .significance import more_often, slower, spent

FALSE_ERRORS, FALSE_LATENCY = 0.010, 0.002
"""Chance that a canary as good as the old one is taken back for its errors, for its times: of all looks together."""
LATENCY_REQUESTS = 60
"""Answers on either side below which times are not compared: Welch's test needs means that are nearly normal."""
HOLD_LEVEL = 0.05
"""Level of the tests that only make a canary last longer, and are asked again until they say nothing any more."""
NOTICEABLE_SECONDS = {"first": 0.05, "whole": 0.05, "chunk": 0.005, "token": 0.005}
"""A smaller difference of mean times is the machine's, whatever its ratio: a busy node doubles two milliseconds."""


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        enough: both sides had the requests for an answer.
        worse: the reason in one word.
        held: why it is not good enough to be served everywhere yet, though it is not shown to be worse.
        look: what this look has spent; None if it was too early for one.
    """

    enough: bool
    message: str
    worse: str | None = None
    held: str | None = None
    look: CanaryLook | None = None


def zero(observed: Observed, canaries: list[str], new: Revision, old: Revision) -> list[CountMark]:
    """Return the marks of the moment when a canary begins."""
    chosen = [pod for pod in observed.matching if pod.uid in canaries]
    stable = [pod for pod in observed.matching if pod.uid not in canaries and pod.answers]
    marks = [_mark(pod, new) for pod in chosen]
    return marks + [_mark(pod, old) for pod in (stable or chosen)[:STABLE_PODS_MARKED]]


def compare(observed: Observed, step: RolloutStep, new: Revision, old: Revision, *, seconds: float) -> Comparison:
    """Hold the new revision against the old one, `seconds` after the canary began."""
    strategy = observed.rollout.spec.strategy
    time = seconds / strategy.canary_seconds if strategy.canary_seconds else 1.0
    fresh = _since(observed, step, new.name)
    before = strategy.canary_weight == 100 and all(mark.pod in step.canaries for mark in step.marks)
    known = _at_marks(step, old.name) if before else _since(observed, step, old.name)
    if not (fresh.told and known.told):
        message = "guards of an earlier version tell no counts by alias: decided by the probe"
        return Comparison(False, message)
    held = _held(fresh, known, strategy.analysis, before=before)
    least = strategy.analysis.minimum_requests
    if fresh.requests < least or known.requests < least:
        message = (
            f"{fresh.requests} requests to {new.name} and {known.requests} to {old.name}, fewer than minimumRequests "
            f"{least}: decided by the probe"
        )
        return Comparison(False, message, held=held)
    look = _look(step.look, time, fresh.requests)
    message = f"{fresh.requests} requests, no worse than {old.name}"
    if look is None:
        return Comparison(True, message, held=held)
    level = spent(look.time) - (spent(step.look.time) if step.look is not None else 0.0)
    why = _more_errors(fresh, known, strategy.analysis, FALSE_ERRORS * level)
    if why is not None:
        return Comparison(True, why, RolloutReason.ERROR_RATIO, held, look)
    why = _more_time(fresh, known, strategy.analysis, FALSE_LATENCY * level)
    if why is not None:
        return Comparison(True, why, RolloutReason.LATENCY, held, look)
    return Comparison(True, message, None, held, look)


def _look(last: CanaryLook | None, time: float, requests: int) -> CanaryLook | None:
    """Return the look that is due now: the first, one at twice the requests, or the one when the time is over."""
    if last is None or requests >= 2 * last.requests or last.time < 1 <= time:
        return CanaryLook(time=round(time, 6), requests=requests)
    return None


def _more_errors(new: Counts, old: Counts, analysis: Analysis, level: float) -> str | None:
    increase = new.errors / new.requests - old.errors / old.requests
    if increase <= analysis.maximum_error_ratio_increase:
        return None
    if more_often(new.errors, new.requests, old.errors, old.requests) > level:
        return None
    return (
        f"{new.errors} errors in {new.requests} requests, {old.errors} in {old.requests} with the old revision: "
        f"{increase:.3f} more per request"
    )


def _more_time(new: Counts, old: Counts, analysis: Analysis, level: float) -> str | None:
    """Return what takes longer. Three questions share the level: streams may begin later or go on more slowly, and
    answers in one piece take longer only if both they and each of their tokens do, for their length is no fault."""
    each = level / 3
    for name, what in (("first", "the first byte comes after"), ("chunk", "the next event of a stream comes after")):
        if (found := _longer(name, new, old, analysis, each)) is not None:
            return f"{what} {found}"
    token = _longer("token", new, old, analysis, each)
    whole = _longer("whole", new, old, analysis, each)
    return f"a token takes {token}" if token is not None and whole is not None else None


def _longer(name: str, new: Counts, old: Counts, analysis: Analysis, level: float) -> str | None:
    fresh: Times = getattr(new, name)
    known: Times = getattr(old, name)
    if fresh.n < LATENCY_REQUESTS or known.n < LATENCY_REQUESTS:
        return None
    took, before = exp(fresh.mean), exp(known.mean)
    if took <= max(before * analysis.maximum_latency_ratio, before + NOTICEABLE_SECONDS[name]):
        return None
    if slower(fresh, known) > level:
        return None
    return f"{took:.3f} s, {before:.3f} s with the old revision"


def _held(new: Counts, old: Counts, analysis: Analysis, *, before: bool) -> str | None:
    """Return why a revision that nothing is proven against should not be served everywhere: requests that end nowhere.

    Whether clients leave because of the adapter or for reasons of their own, and whether what runs would end well, no
    count says. So it is not taken back for that, and not promoted either while more of its requests are so: by more
    than the margin, and by more than chance. Where the old revision was looked at `before`, what ran when the alias
    moved is compared with what runs now, as parts of as many requests; its counts are of a longer time.
    """
    margin = analysis.maximum_error_ratio_increase
    left = _larger(new.disconnected, new.requests + new.disconnected, old.disconnected, old.requests + old.disconnected)
    if left is not None and left > margin:
        return (
            f"{new.disconnected} of {new.seen} requests were left by their clients, far more than with the old revision"
        )
    among = max(new.seen, old.running) if before else old.seen
    runs = _larger(new.running, new.seen, old.running, among)
    if runs is not None and runs > margin:
        return f"{new.running} of {new.seen} requests have not ended, far more than with the old revision"
    return None


def _larger(new: int, of_new: int, old: int, of_old: int) -> float | None:
    """Return how much larger the new part is, if that is more than chance."""
    if not of_new or not of_old or more_often(new, of_new, old, of_old) > HOLD_LEVEL:
        return None
    return new / of_new - old / of_old


def _mark(pod: ServingPod, revision: Revision) -> CountMark:
    truth, counts = pod.truth, _counts(pod, revision.name)
    sums = [part for times in (counts.first, counts.chunk, counts.token, counts.whole) for part in _sums(times)]
    return CountMark(
        pod=pod.uid,
        instance=truth.instance[:64] if truth is not None else "",
        revision=revision.name,
        requests=counts.requests,
        errors=counts.errors,
        disconnected=counts.disconnected,
        running=counts.running,
        times=sums if counts.told else None,
    )


def _sums(times: Times) -> tuple[float, float, float]:
    return times.n, round(times.total, 2), round(times.squares, 2)


def _marked(mark: CountMark) -> Counts:
    if mark.times is None:
        return Counts(told=False)
    first, chunk, token, whole = (
        Times(int(mark.times[at]), *mark.times[at + 1 : at + 3]) for at in range(0, MARK_TIMES, 3)
    )
    return Counts(mark.requests, mark.errors, mark.disconnected, mark.running, first, chunk, token, whole)


def _at_marks(step: RolloutStep, name: str) -> Counts:
    """Return what had been counted when the canary began."""
    return sum((_marked(mark) for mark in step.marks if mark.revision == name), Counts())


def _since(observed: Observed, step: RolloutStep, name: str) -> Counts:
    """Return what was counted since the marks; an engine that started again counts from zero."""
    pods, total = {pod.uid: pod for pod in observed.matching}, Counts()
    for mark in step.marks:
        pod = pods.get(mark.pod)
        if mark.revision != name or pod is None or pod.truth is None:
            continue
        before = _marked(mark) if pod.truth.instance[:64] == mark.instance else Counts()
        total += _counts(pod, name).since(before)
    return total


def _counts(pod: ServingPod, name: str) -> Counts:
    return pod.truth.counts.get(name, Counts()) if pod.truth is not None else Counts()
