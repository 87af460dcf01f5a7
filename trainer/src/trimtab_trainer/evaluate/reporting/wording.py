"""The words of an evaluation's report: its models, bounds, checks and changes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...contract import Check, Threshold
from ...contract.evaluation import GAPS, Against
from ...contract.gate.bounds import Finding
from ...pages.wording import NOT_MEASURED, figure, percent, setting, short
from ..results import EvaluatedModel

SMALLEST_P = 0.0001
FINDINGS = {
    Finding.KEPT: "kept",
    Finding.UNDECIDED: "undecided",
    Finding.MISSED: "missed",
    Finding.UNKNOWN: "not known",
}
"""What was found of a bound, in a word."""


CHECKS = {"answers": "answer", "groups": "group", "prompts": "prompt", "texts": "text"}
"""What of a row is compared with what was trained on, for people."""


def trained(rows: int, compared: Sequence[str], role: str) -> str:
    """Return what is known of the rows of a task that a model was trained on, and what was not checked.

    Args:
        rows: how many of them were.
        compared: what of them was compared with what it was trained on.
        role: target, baseline or anchor.
    """
    if not compared:
        return f"whether the {role} was trained on any of them was not checked"
    found = f"{rows:,} of them" if rows else "none of them"
    told = f"{found} {'is' if rows < 2 else 'are'} among what the {role} was trained on, by {_listed(compared)}"
    # A group is a column that data may have or not; prompts and texts are what every row has.
    missing = [CHECKS[each] for each in ("prompts", "texts") if each not in compared]
    return f"{told}; by {' and '.join(missing)} it was not checked" if missing else told


def _listed(compared: Sequence[str]) -> str:
    names = [CHECKS.get(each, each) for each in compared]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def probability(value: float | None) -> str:
    """Return a p-value; small ones as a bound, for resampling cannot tell them apart."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    return f"< {SMALLEST_P:g}" if value < SMALLEST_P else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def called(side: EvaluatedModel) -> str:
    """Return what a model is called: `adapter 8f181a516715`, or `base model`."""
    return f"adapter {side.label}" if side.digest is not None and side.label == short(side.digest) else side.label


def limit(threshold: Threshold, bound: str, against: Against = Against.BASELINE) -> str:
    """Return a bound as words; `against` is what it is held against, where it compares."""
    other = against.value.lower()
    beside = " against the anchor" if against is Against.ANCHOR else ""
    match bound:
        case "minimum":
            return f"at least {setting(threshold.minimum)}{beside}"
        case "maximum":
            return f"at most {setting(threshold.maximum)}{beside}"
        case "maximumRegression":
            return f"at most {setting(threshold.maximum_regression)} worse than the {other}"
        case "maximumRelativeRegression":
            return f"at most {percent(threshold.maximum_relative_regression, 6)} worse than the {other}"
        case "maximumWorseRatio":
            by = f" by more than {setting(threshold.worse_by)}" if threshold.worse_by else ""
            return f"at most {percent(threshold.maximum_worse_ratio, 6)} of the rows worse than the {other}'s{by}"
        case "maximumGroupRegression":
            return f"no group more than {setting(threshold.maximum_group_regression)} worse than the {other}"
        case "maximumOddsGap":
            return f"at most {setting(threshold.maximum_odds_gap)} between groups in every label's rates"
        case _:
            return f"at most {setting(threshold.maximum_group_gap)} between the best and the worst group"


def found(check: Check) -> str:
    """Return the estimate of a check in the words of its bound; a regression is positive where it is worse."""
    if check.estimate is None or not math.isfinite(check.estimate):
        return NOT_MEASURED
    if check.bound in ("minimum", "maximum"):
        return figure(check.estimate)
    if check.bound in GAPS:
        return f"gap {figure(check.estimate)}" + (f" in {check.figure}" if check.figure else "")
    if check.bound == "maximumWorseRatio":
        return f"{percent(check.estimate, 2)} of the rows worse"
    size = abs(check.estimate)
    amount = percent(size, 2) if check.bound == "maximumRelativeRegression" else figure(size)
    return f"{amount} {'worse' if check.estimate > 0 else 'better'}" if check.estimate else "no change"


def of_threshold(threshold: Threshold, bound: str) -> float | None:
    """Return the number of a bound."""
    return threshold.limits.get(bound)


def against_limit(check: Check, threshold: Threshold) -> str:
    """Return on which side of its limit the estimate lies; of a group gap, what noise does not explain of it."""
    value = check.low if check.bound in GAPS else check.estimate
    allowed = of_threshold(threshold, check.bound)
    if value is None or allowed is None or not math.isfinite(value):
        return NOT_MEASURED
    return "within" if (value >= allowed if check.bound == "minimum" else value <= allowed) else "beyond"


def difference(low: float | None, high: float | None, lower_is_better: bool) -> str:
    """Return what the interval of a change says: better, worse, or neither of them clearly."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return NOT_MEASURED
    if low <= 0 <= high:
        return "no clear difference"
    return "better" if (high < 0) == lower_is_better else "worse"
