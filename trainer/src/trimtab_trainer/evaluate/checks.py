"""Facts for the gate: what is known about each bound of a threshold. Whether it is kept is for the operator to say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..contract import Check, Threshold
from .resampling import Array, Distribution, p_at_least, p_at_most, rows_needed


@dataclass(frozen=True)
class Figure:
    """One figure of target and baseline on the same resamples.

    Attributes:
        rows: how many rows it is of.
        range: worst and best value it can take; None where there is no bound.
    """

    task: str
    name: str
    rows: int
    target: Distribution
    baseline: Distribution | None
    lower_is_better: bool
    range: tuple[float, float] | None

    @property
    def change(self) -> Distribution | None:
        """Return target - baseline."""
        return None if self.baseline is None else self.target.against(self.baseline, np.subtract)

    def loss(self, *, relative: bool) -> Distribution:
        """Return how much worse the target is than the baseline, as a share of the baseline's value if relative.

        Raises:
            ValueError: there is no baseline.
        """
        if self.baseline is None:
            raise ValueError(f"{self.task}/{self.name}: a regression needs a baseline")
        return self.target.against(
            self.baseline, partial(_loss, sign=1.0 if self.lower_is_better else -1.0, relative=relative)
        )


def _loss(target: Array, baseline: Array, *, sign: float, relative: bool) -> Array:
    difference = sign * (target - baseline)
    if not relative:
        return np.asarray(difference, np.float64)
    with np.errstate(all="ignore"):
        # Of nothing there is no share: NaN where the baseline is 0.
        return np.where(baseline == 0, np.nan, difference / np.abs(baseline))


def finite(value: float) -> float | None:
    """Return a number, or None for what is none: NaN and infinities do not leave this package."""
    return float(value) if math.isfinite(value) else None


def bound_checks(index: int, threshold: Threshold, figure: Figure) -> list[Check]:
    """Return what is known about the bounds of one threshold, but for its group gap.

    The estimate is None where the figure is not a finite number; nothing is known then, and nothing excluded.

    Raises:
        ValueError: a bound needs a baseline and there is none.
    """
    low, high = (None, None) if figure.range is None else (min(figure.range), max(figure.range))
    span = None if low is None or high is None else high - low
    found = []
    below, above = partial(p_at_most, edge=high, span=span), partial(p_at_least, edge=low, span=span)
    for name, bound, excluded in (
        ("minimum", threshold.minimum, (below, above)),
        ("maximum", threshold.maximum, (above, below)),
    ):
        if bound is not None:
            found.append(
                _check(
                    index,
                    name,
                    distribution=figure.target,
                    limit=bound,
                    tolerance=None,
                    excluded=excluded,
                    threshold=threshold,
                    rows=figure.rows,
                )
            )
    for name, bound, relative in (
        ("maximumRegression", threshold.maximum_regression, False),
        ("maximumRelativeRegression", threshold.maximum_relative_regression, True),
    ):
        if bound is not None:
            loss = figure.loss(relative=relative)
            scale = span
            if span is not None and relative and figure.baseline is not None and figure.baseline.estimate:
                scale = span / abs(figure.baseline.estimate)
            # One row can lose all of the range; while no row lost anything, the loss was not seen.
            excluded = (
                partial(p_at_least, edge=0.0, span=scale),
                partial(p_at_most, edge=scale, span=None if scale is None else 2 * scale),
            )
            found.append(
                _check(
                    index,
                    name,
                    distribution=loss,
                    limit=bound,
                    tolerance=bound,
                    excluded=excluded,
                    threshold=threshold,
                    rows=figure.rows,
                )
            )
    return found


def _check(
    index: int,
    bound: str,
    *,
    distribution: Distribution,
    limit: float,
    tolerance: float | None,
    excluded: tuple[partial[float], partial[float]],
    threshold: Threshold,
    rows: int,
) -> Check:
    facts: dict[str, float | int | None] = {"estimate": finite(distribution.estimate)}
    if threshold.confidence is not None and facts["estimate"] is not None:
        worse, better = excluded
        facts["p_pass"] = worse(distribution, limit)
        facts["p_fail"] = better(distribution, limit)
        facts["rows_needed"] = rows_needed(distribution, limit, tolerance, rows=rows, confidence=threshold.confidence)
    return Check.model_validate({"threshold": index, "bound": bound, **facts})
