"""Figures as people read them: what is not there or not finite is "not measured", never a blank and never `nan`."""

from __future__ import annotations

import math

from ...contract import Check, Threshold
from ..results import EvaluatedModel

NOT_MEASURED = "not measured"
MINUS = "−"
SMALLEST, LARGEST = 1e-6, 1e9
"""Beyond these, figures are written with an exponent."""
SMALLEST_P = 0.0001
CONTROLS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
CONTROLS |= dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000)], 0xFFFD)
"""Characters that HTML or UTF-8 cannot hold, as ones that can be seen."""


def measured(value: float | None) -> bool:
    """Tell whether there is a finite figure."""
    return value is not None and math.isfinite(value)


def decimals(*values: float | None) -> int:
    """Return how many decimals show three to four significant digits of the largest of some figures."""
    largest = max((abs(value) for value in values if value is not None and math.isfinite(value)), default=0.0)
    if largest == 0:
        return 0
    exponent = math.floor(math.log10(largest))
    return 2 - exponent if exponent < 0 else max(0, 3 - exponent)


def figure(value: float | None, places: int | None = None, *, signed: bool = False) -> str:
    """Return a figure with its thousands apart, at `places` decimals if given: `12.34`, `0.812`, `−0.021`."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    if value and not SMALLEST <= abs(value) < LARGEST:
        text = f"{value:+.3e}" if signed else f"{value:.3e}"
    else:
        places = decimals(value) if places is None else places
        text = f"{value:+,.{places}f}" if signed else f"{value:,.{places}f}"
        if not any(digit in text for digit in "123456789"):
            text = text.lstrip("+-")  # no sign for what rounds to nothing
    return text.replace("-", MINUS)


def setting(value: float | None) -> str:
    """Return what a person wrote, with all its digits: `0.3`, `12`."""
    return NOT_MEASURED if value is None else f"{value:,.12g}".replace("-", MINUS)


def percent(value: float | None, places: int = 1) -> str:
    """Return a share as per cent: 0.05 is `5 %`."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    text = f"{value * 100:,.{places}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", MINUS) + " %"


def probability(value: float | None) -> str:
    """Return a p-value; small ones as a bound, for resampling cannot tell them apart."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    return f"< {SMALLEST_P:g}" if value < SMALLEST_P else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def interval(low: float | None, high: float | None, *, signed: bool = False) -> str:
    """Return an interval: `0.790 to 0.834`."""
    if not (measured(low) and measured(high)):
        return NOT_MEASURED
    places = decimals(low, high)
    return f"{figure(low, places, signed=signed)} to {figure(high, places, signed=signed)}"


def short(digest: str | None) -> str:
    """Return the first twelve characters of a digest, as `kubectl get` shows it."""
    return "no digest" if digest is None else digest.removeprefix("sha256:")[:12]


def called(side: EvaluatedModel) -> str:
    """Return what a model is called: `adapter 8f181a516715`, or `base model`."""
    return f"adapter {side.label}" if side.digest is not None and side.label == short(side.digest) else side.label


def visible(text: str) -> str:
    """Return text with control characters and lone surrogates made visible; tabs and ends of lines stay."""
    return text.translate(CONTROLS)


def shortened(text: str, limit: int) -> str:
    """Return at most `limit` characters of a text, and how many are missing."""
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text) - limit:,} characters more)"


def limit(threshold: Threshold, bound: str) -> str:
    """Return a bound as words."""
    match bound:
        case "minimum":
            return f"at least {setting(threshold.minimum)}"
        case "maximum":
            return f"at most {setting(threshold.maximum)}"
        case "maximumRegression":
            return f"at most {setting(threshold.maximum_regression)} worse than the baseline"
        case "maximumRelativeRegression":
            return f"at most {percent(threshold.maximum_relative_regression, 6)} worse than the baseline"
        case _:
            return f"at most {setting(threshold.maximum_group_gap)} between the best and the worst group"


def found(check: Check) -> str:
    """Return the estimate of a check in the words of its bound; a regression is positive where it is worse."""
    if check.estimate is None or not math.isfinite(check.estimate):
        return NOT_MEASURED
    if check.bound in ("minimum", "maximum"):
        return figure(check.estimate)
    if check.bound == "maximumGroupGap":
        return f"gap {figure(check.estimate)}"
    size = abs(check.estimate)
    amount = percent(size, 2) if check.bound == "maximumRelativeRegression" else figure(size)
    return f"{amount} {'worse' if check.estimate > 0 else 'better'}" if check.estimate else "no change"


def of_threshold(threshold: Threshold, bound: str) -> float | None:
    """Return the number of a bound."""
    return {
        "minimum": threshold.minimum,
        "maximum": threshold.maximum,
        "maximumRegression": threshold.maximum_regression,
        "maximumRelativeRegression": threshold.maximum_relative_regression,
        "maximumGroupGap": threshold.maximum_group_gap,
    }[bound]


def against_limit(check: Check, threshold: Threshold) -> str:
    """Return on which side of its limit the estimate lies; of a group gap, what noise does not explain of it."""
    value = check.low if check.bound == "maximumGroupGap" else check.estimate
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
