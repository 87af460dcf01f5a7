"""The verdict for the status: that of the rule of the gate, which the report says too, and the figures behind it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab_trainer.contract import EvaluationOutcome, Result, Threshold
from trimtab_trainer.contract.evaluation import Against
from trimtab_trainer.contract.gate import verdict
from trimtab_trainer.contract.gate.bounds import Bound, Finding

from trimtab_operator.api import RESULTS_KEPT, FailedCheck, PassedReason, ResultStatus

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


def judge(
    thresholds: list[Threshold], outcome: EvaluationOutcome, room: int = 10_000, *, anchored: bool = False
) -> Verdict:
    """Return the verdict, with results of at most `room` bytes of JSON; `anchored`: there is an anchor."""
    found = verdict.judge(thresholds, outcome, anchored=anchored)
    results, omitted = _results(thresholds, outcome, found.bounds, room)
    return Verdict(found.passed, PassedReason(found.reason.value), found.message, results, omitted)


def _results(
    thresholds: list[Threshold], outcome: EvaluationOutcome, bounds: Sequence[Bound], room: int
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
        entry = _shown(name, by_name.get(name), [bound for bound in bounds if bound.metric == name], outcome)
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


def _shown(name: str, result: Result | None, bounds: list[Bound], outcome: EvaluationOutcome) -> ResultStatus:
    task, metric = _cut(name)
    figures = result or Result(task=task, metric=metric)
    failed: dict[tuple[str, Against], FailedCheck] = {}
    for bound in bounds:
        if bound.finding is not Finding.KEPT:
            failed.setdefault((bound.name, bound.against), _failed(bound, outcome))
    return ResultStatus(
        task=task,
        metric=metric,
        value=_figure(figures.value),
        low=_figure(figures.low),
        high=_figure(figures.high),
        count=figures.count,
        baseline=_figure(figures.baseline),
        change=_figure(figures.change),
        anchor=_figure(figures.anchor),
        anchor_change=_figure(figures.anchor_change),
        passed=not failed if bounds else None,
        failed=list(failed.values()),
    )


def _failed(bound: Bound, outcome: EvaluationOutcome) -> FailedCheck:
    check = bound.check
    undecided = bound.finding is Finding.UNDECIDED
    return FailedCheck.model_validate(
        {
            "bound": bound.name,
            "limit": bound.limit,
            "estimate": _figure(check.estimate) if check is not None else None,
            "reason": verdict.reason_of(bound).value,
            "against": bound.against if bound.against is Against.ANCHOR else None,
            "rowsNeeded": check.rows_needed if check is not None and undecided else None,
            "clustersNeeded": verdict.clusters_needed(bound, outcome) if undecided else None,
        }
    )


def _figure(value: float | None) -> float | None:
    """Return a figure for JSON, which has no NaN and no infinity."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
