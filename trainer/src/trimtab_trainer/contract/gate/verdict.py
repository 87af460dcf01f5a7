"""The rule of the gate: from thresholds and facts to a verdict in words. Pure; what is not known never opens it.

The operator writes it into the status, the trainer onto the report: one function, so that they cannot differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from ..evaluation import GAPS, Against, Check, EvaluationOutcome, Threshold
from .bounds import Bound, Finding, judge_bounds


class VerdictReason(StrEnum):
    """The verdict in one word."""

    PASSED = "Passed"
    THRESHOLD_MISSED = "ThresholdMissed"
    REGRESSED = "Regressed"
    GROUP_GAP = "GroupGap"
    INSUFFICIENT_ROWS = "InsufficientRows"
    METRIC_MISSING = "MetricMissing"
    NO_THRESHOLDS = "NoThresholds"
    JUDGE_UNRELIABLE = "JudgeUnreliable"


@dataclass(frozen=True)
class Verdict:
    """Whether the thresholds are kept.

    Attributes:
        message: one sentence that names what failed.
        bounds: every bound with what is found about it, in the order of the spec.
    """

    passed: bool
    reason: VerdictReason
    message: str
    bounds: tuple[Bound, ...] = ()


def judge(thresholds: list[Threshold], outcome: EvaluationOutcome, *, anchored: bool = False) -> Verdict:
    """Return the verdict; `anchored` says that there is an anchor beside the baseline, which must be kept to as well.

    Where a judge is not to be relied on, nothing is decided, whatever its figures say. Where several bounds fail, the
    reason is that of a missing metric first, then of the first bound in the order of the spec that is missed, then of
    too few rows.
    """
    bounds = judge_bounds(thresholds, outcome.checks, anchored=anchored)
    if outcome.unreliable is not None:
        return Verdict(False, VerdictReason.JUDGE_UNRELIABLE, outcome.unreliable, tuple(bounds))
    if not bounds:
        message = "no threshold is set: the figures were measured and not judged"
        return Verdict(True, VerdictReason.NO_THRESHOLDS, message)
    worst = max(bound.finding for bound in bounds)
    if worst is Finding.KEPT:
        against = ", against baseline and anchor" if anchored else ""
        message = (
            f"every threshold is kept: {_counted(len(bounds), 'bound')} on {_counted(outcome.rows, 'row')}{against}"
        )
        return Verdict(True, VerdictReason.PASSED, message, tuple(bounds))
    first = next(bound for bound in bounds if bound.finding is worst)
    others = sum(bound.finding is not Finding.KEPT for bound in bounds) - 1
    message = _sentence(first, _rows(first, outcome), clusters_needed(first, outcome))
    if others:
        message += f"; {_counted(others, 'other bound')} {'is' if others == 1 else 'are'} not kept either"
    return Verdict(False, reason_of(first), message, tuple(bounds))


def reason_of(bound: Bound) -> VerdictReason:
    """Return the one word for what is found about a bound."""
    if bound.finding is Finding.KEPT:
        return VerdictReason.PASSED
    if bound.finding is Finding.UNKNOWN:
        return VerdictReason.METRIC_MISSING
    if bound.finding is Finding.UNDECIDED:
        return VerdictReason.INSUFFICIENT_ROWS
    if bound.name in GAPS:
        return VerdictReason.GROUP_GAP
    return VerdictReason.THRESHOLD_MISSED if bound.name in ("minimum", "maximum") else VerdictReason.REGRESSED


def _sentence(bound: Bound, rows: int, clusters: int | None) -> str:
    check = bound.check or Check.model_validate({"threshold": bound.threshold, "bound": bound.name})
    metric, limit = bound.metric, f"{bound.name} {_text(bound.limit)}"
    estimate, other = _text(check.estimate), bound.against.value.lower()
    match reason_of(bound):
        case VerdictReason.METRIC_MISSING:
            return f"{metric} could not be computed as {limit}{_beside(bound)} needs it, see the report"
        case VerdictReason.INSUFFICIENT_ROWS:
            on = f" with {_counted(rows, 'row')}" if rows else ""
            on += f" in {_counted(check.clusters, 'cluster')}" if rows and check.clusters else ""
            needed = (
                f"; about {_enough(check.rows_needed, clusters)} would decide it"
                if check.rows_needed
                else "; no number of rows is known to decide it: look at the worst rows in the report, or give the "
                "bound more room"
            )
            confidence = f"at confidence {bound.confidence:g}"
            return f"{metric} is neither certain to keep nor to miss {limit}{_beside(bound)}{on} {confidence}{needed}"
        case VerdictReason.GROUP_GAP:
            groups = f" between the groups {check.best!r} and {check.worst!r}" if check.best and check.worst else ""
            explained = f"of which chance does not explain {_text(check.low)}"
            what = f"{check.figure} in {metric.partition('/')[0]}" if check.figure else metric
            return f"{what} differs by {estimate}{groups}, {explained}, and the {limit} is exceeded"
        case VerdictReason.REGRESSED if bound.name == "maximumWorseRatio":
            return f"{estimate} of the rows of {bound.metric} are worse than the {other}'s, above {limit}"
        case VerdictReason.REGRESSED:
            than = f"relative to the {other}" if bound.name == "maximumRelativeRegression" else f"than the {other}"
            than += f" in the group {check.worst!r}" if check.worst else ""
            return f"{metric} is worse by {estimate} {than}, beyond {limit}"
        case _:
            side = "below" if bound.name == "minimum" else "above"
            return f"{metric} is {estimate}{_beside(bound)}, {side} its {limit}"


def clusters_needed(bound: Bound, outcome: EvaluationOutcome) -> int | None:
    """Return in how many clusters the rows have to be that would decide; None where rows stand alone, or none would."""
    check, rows = bound.check, _rows(bound, outcome)
    if check is None or not (check.rows_needed and check.clusters and rows):
        return None
    return math.ceil(check.rows_needed * check.clusters / rows)


def _enough(rows: int, clusters: int | None) -> str:
    """Return how many rows would do; of those in clusters these count, for more rows of the same ones tell little."""
    counted = _counted(rows, "row")
    return counted if clusters is None else f"{_counted(clusters, 'cluster')} like these ({counted})"


def _beside(bound: Bound) -> str:
    """Return the word for what a bound is held against where the metric alone does not tell it."""
    return " against the anchor" if bound.against is Against.ANCHOR else ""


def _rows(bound: Bound, outcome: EvaluationOutcome) -> int:
    return next((r.count for r in outcome.results if f"{r.task}/{r.metric}" == bound.metric), 0)


def _text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count:,} {noun}s"
