"""The rule of the gate: from thresholds and facts to a verdict. A pure function; what is not known never opens it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from trimtab_trainer.contract import Check, EvaluationOutcome, Result, Threshold

from trimtab_operator.api import RESULTS_KEPT, FailedCheck, PassedReason, ResultStatus

from .checks import Bound, Finding, judge_bounds

SIGNIFICANT_DIGITS = 5
"""Of figures in the status; the report has all of them."""


@dataclass(frozen=True)
class Verdict:
    """Whether the thresholds are kept, and the figures for the status.

    Attributes:
        message: one sentence that names what failed.
        omitted: how many results are in the report only.
    """

    passed: bool
    reason: PassedReason
    message: str
    results: tuple[ResultStatus, ...] = ()
    omitted: int = 0


def judge(thresholds: list[Threshold], outcome: EvaluationOutcome, room: int = 10_000) -> Verdict:
    """Return the verdict, with results of at most `room` bytes of JSON.

    Where several bounds fail, the reason is that of a missing metric first, then of the first bound in the order of the
    spec that is missed, then of too few rows.
    """
    bounds = judge_bounds(thresholds, outcome.checks)
    results, omitted = _results(thresholds, outcome, bounds, room)
    if not bounds:
        message = "no threshold is set: the figures were measured and not judged"
        return Verdict(True, PassedReason.NO_THRESHOLDS, message, results, omitted)
    worst = max(bound.finding for bound in bounds)
    if worst is Finding.KEPT:
        message = f"every threshold is kept: {_counted(len(bounds), 'bound')} on {_counted(outcome.rows, 'row')}"
        return Verdict(True, PassedReason.PASSED, message, results, omitted)
    first = next(bound for bound in bounds if bound.finding is worst)
    others = sum(bound.finding is not Finding.KEPT for bound in bounds) - 1
    message = _sentence(first, _rows(first, outcome))
    if others:
        message += f"; {_counted(others, 'other bound')} {'is' if others == 1 else 'are'} not kept either"
    return Verdict(False, reason_of(first), message, results, omitted)


def reason_of(bound: Bound) -> PassedReason:
    """Return the one word for what is found about a bound."""
    if bound.finding is Finding.KEPT:
        return PassedReason.PASSED
    if bound.finding is Finding.UNKNOWN:
        return PassedReason.METRIC_MISSING
    if bound.finding is Finding.UNDECIDED:
        return PassedReason.INSUFFICIENT_ROWS
    if bound.name == "maximumGroupGap":
        return PassedReason.GROUP_GAP
    return PassedReason.THRESHOLD_MISSED if bound.name in ("minimum", "maximum") else PassedReason.REGRESSED


def _sentence(bound: Bound, rows: int) -> str:
    check = bound.check or Check.model_validate({"threshold": bound.threshold, "bound": bound.name})
    metric, limit = bound.metric, f"{bound.name} {_text(bound.limit)}"
    estimate = _text(check.estimate)
    match reason_of(bound):
        case PassedReason.METRIC_MISSING:
            return f"{metric} could not be computed as {limit} needs it, see the report"
        case PassedReason.INSUFFICIENT_ROWS:
            on = f" with {_counted(rows, 'row')}" if rows else ""
            needed = f"; about {_counted(check.rows_needed, 'row')} would decide it" if check.rows_needed else ""
            confidence = f"at confidence {bound.confidence:g}"
            return f"{metric} is neither certain to keep nor to miss {limit}{on} {confidence}{needed}"
        case PassedReason.GROUP_GAP:
            groups = f" between the groups {check.best!r} and {check.worst!r}" if check.best and check.worst else ""
            explained = f"of which chance does not explain {_text(check.low)}"
            return f"{metric} differs by {estimate}{groups}, {explained}, and the {limit} is exceeded"
        case PassedReason.REGRESSED if bound.name == "maximumWorseRatio":
            return f"{estimate} of the rows of {bound.metric} are worse than the baseline's, above {limit}"
        case PassedReason.REGRESSED:
            than = "relative to the baseline" if bound.name == "maximumRelativeRegression" else "than the baseline"
            than += f" in the group {check.worst!r}" if check.worst else ""
            return f"{metric} is worse by {estimate} {than}, beyond {limit}"
        case _:
            return f"{metric} is {estimate}, {'below' if bound.name == 'minimum' else 'above'} its {limit}"


def _results(
    thresholds: list[Threshold], outcome: EvaluationOutcome, bounds: list[Bound], room: int
) -> tuple[tuple[ResultStatus, ...], int]:
    """Return the results for the status: with thresholds first, then each task's headline, then the rest."""
    by_name: dict[str, Result] = {}
    for result in outcome.results:
        by_name.setdefault(f"{result.task}/{result.metric}", result)
    headlines: dict[str, str] = {}
    for name, result in by_name.items():
        headlines.setdefault(result.task, name)
    order: dict[tuple[str, str], str] = {}  # the list is a map by what is shown
    for name in (*(t.metric for t in thresholds), *headlines.values(), *by_name):
        order.setdefault(_cut(name), name)
    shown: list[ResultStatus] = []
    left_out = len(by_name)
    for name in list(order.values())[:RESULTS_KEPT]:
        entry = _shown(name, by_name.get(name), [bound for bound in bounds if bound.metric == name])
        room -= len(json.dumps(entry.to_json(), separators=(",", ":"))) + 1
        if room < 0:
            break
        shown.append(entry)
        left_out -= name in by_name
    return tuple(shown), outcome.omitted + left_out


def _cut(name: str) -> tuple[str, str]:
    """Return task and metric as far as a status shows them."""
    task, _, metric = name.partition("/")
    return task[:40], metric[:64]


def _shown(name: str, result: Result | None, bounds: list[Bound]) -> ResultStatus:
    task, metric = _cut(name)
    figures = result or Result(task=task, metric=metric)
    failed: dict[str, FailedCheck] = {}
    for bound in bounds:
        if bound.finding is not Finding.KEPT:
            failed.setdefault(bound.name, _failed(bound))
    return ResultStatus(
        task=task,
        metric=metric,
        value=_figure(figures.value),
        low=_figure(figures.low),
        high=_figure(figures.high),
        count=figures.count,
        baseline=_figure(figures.baseline),
        change=_figure(figures.change),
        passed=not failed if bounds else None,
        failed=list(failed.values()),
    )


def _failed(bound: Bound) -> FailedCheck:
    check = bound.check
    undecided = bound.finding is Finding.UNDECIDED
    return FailedCheck.model_validate(
        {
            "bound": bound.name,
            "limit": bound.limit,
            "estimate": _figure(check.estimate) if check is not None else None,
            "reason": reason_of(bound).value,
            "rowsNeeded": check.rows_needed if check is not None and undecided else None,
        }
    )


def _rows(bound: Bound, outcome: EvaluationOutcome) -> int:
    return next((r.count for r in outcome.results if f"{r.task}/{r.metric}" == bound.metric), 0)


def _figure(value: float | None) -> float | None:
    """Return a figure for JSON, which has no NaN and no infinity."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count:,} {noun}s"
