"""One figure of target and baseline on the same resamples: what a result shows and a threshold is held against."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from .arrays import Array
from .broken_rows import BrokenRow
from .distribution import Distribution


@dataclass(frozen=True)
class Figure:
    """One figure of target and baseline on the same resamples.

    Attributes:
        rows: how many rows it is of.
        range: worst and best value it can take; None where there is no bound.
        clusters: in how many clusters its rows are; None where each stands alone.
        broken_row: what one broken row costs, where there is no bound; None where there is.
        graded: whether rows have values between the ends of its range. If all are at one of them, what is seen tells
            how many are broken; if not, a few may be broken beyond all that is seen.
        least: of a figure without a largest value the smallest one; None where it has neither, or both (`range`).
        fewest: clusters with a row of the rarest kind, where it is a mean over kinds of rows; None of other figures.
    """

    task: str
    name: str
    rows: int
    target: Distribution
    baseline: Distribution | None
    lower_is_better: bool
    range: tuple[float, float] | None
    fewest: int | None = None
    broken_row: BrokenRow | None = None
    clusters: int | None = None
    graded: bool = False
    least: float | None = None

    @property
    def ends(self) -> tuple[float | None, float | None]:
        """Return the smallest and the largest value it can take."""
        return (None, None) if self.range is None else (min(self.range), max(self.range))

    @property
    def span(self) -> float | None:
        """Return how far apart they are."""
        return None if self.range is None else max(self.range) - min(self.range)

    @property
    def rows_have_scale(self) -> bool:
        """Tell whether it has no bound, and one row costs a finite amount of it however broken that is."""
        return self.broken_row is not None and math.isfinite(self.broken_row.cost)

    @property
    def change(self) -> Distribution | None:
        """Return target - baseline."""
        return None if self.baseline is None else self.target.against(self.baseline, np.subtract)

    def value_at(self, loss: float, *, relative: bool) -> float:
        """Return the target's value at a loss against the baseline.

        Raises:
            ValueError: there is no baseline.
        """
        if self.baseline is None:
            raise ValueError(f"{self.task}/{self.name}: a regression needs a baseline")
        base = self.baseline.estimate
        return base + (1.0 if self.lower_is_better else -1.0) * (loss * abs(base) if relative else loss)

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
