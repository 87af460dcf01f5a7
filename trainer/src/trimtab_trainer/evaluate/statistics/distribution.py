"""A figure and how it is distributed under resampling, with the interval that people are shown.

Intervals are plain percentiles. Tests are not, and are in `p_values`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .arrays import Array

INTERVAL = 0.95
"""Confidence of the intervals that people are shown."""
UNDEFINED_SHARE = 0.05
"""Share of resamples in which a figure may be undefined before its interval is."""


def kish(sizes: Array) -> float:
    """Return how many of equal size tell as much as these (Kish 1965, 8.2); 0 of none."""
    largest = float(sizes.max(initial=0.0))
    if not largest > 0:
        return 0.0
    shares = sizes / largest  # squares of large numbers are beyond floats
    return float(shares.sum() ** 2 / (shares**2).sum())


@dataclass(frozen=True)
class Distribution:
    """A figure and its distribution under resampling.

    Attributes:
        estimate: on the rows as they are.
        resampled: [B]; NaN where it is undefined.
        left_out: [units], without one unit each.
        sizes: [units], how many rows each has; None: all the same.
        weights: [units], what each weighs in the figure, as its tokens in a perplexity; None: its rows.
    """

    estimate: float
    resampled: Array
    left_out: Array
    sizes: Array | None = None
    weights: Array | None = None

    def map(self, function: Callable[[Array], Array]) -> Distribution:
        """Return the distribution of a function of the figure."""
        estimate = float(function(np.array(self.estimate)))
        return Distribution(estimate, function(self.resampled), function(self.left_out), self.sizes, self.weights)

    def against(self, other: Distribution, function: Callable[[Array, Array], Array]) -> Distribution:
        """Return the distribution of a function of two figures of the same resamples."""
        estimate = float(function(np.array(self.estimate), np.array(other.estimate)))
        return Distribution(
            estimate,
            function(self.resampled, other.resampled),
            function(self.left_out, other.left_out),
            self.sizes,
            # What weighs nothing in one of them tells nothing of both.
            self.weights if self.weights is None or other.weights is None else np.minimum(self.weights, other.weights),
        )

    @property
    def units(self) -> int:
        return len(self.left_out)

    @property
    def effective_units(self) -> float:
        """Return how many units of equal size would tell as much (Kish 1965, 8.2); a few large ones tell little."""
        return self.units if self.sizes is None else kish(self.sizes)

    @property
    def effective_weight(self) -> float:
        """Return how many units of equal weight in the figure would tell as much."""
        return self.effective_units if self.weights is None else kish(self.weights)

    @property
    def weighs(self) -> Array:
        """Return what each unit weighs in the figure, [units]."""
        if self.weights is not None:
            return self.weights
        return np.ones(self.units) if self.sizes is None else self.sizes

    @cached_property
    def influence(self) -> Array:
        """Return by how much each unit raises the figure, [units]: the jackknife's."""
        return np.asarray(self.left_out.mean() - self.left_out, np.float64)

    @cached_property
    def standard_error(self) -> float:
        """Return the standard deviation under resampling, corrected for the number of units."""
        with np.errstate(all="ignore"):
            spread = float(np.nanstd(self.resampled)) if np.isfinite(self.resampled).any() else math.nan
        return spread * math.sqrt(self.units / max(self.units - 1, 1))

    def interval(self, confidence: float = INTERVAL) -> tuple[float, float]:
        """Return the percentile interval; NaN where the figure is undefined too often."""
        defined = self.resampled[np.isfinite(self.resampled)]
        if not math.isfinite(self.estimate) or len(defined) < (1 - UNDEFINED_SHARE) * len(self.resampled):
            return math.nan, math.nan
        low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
        return float(low), float(high)
