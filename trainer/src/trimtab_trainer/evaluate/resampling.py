"""The paired cluster bootstrap: how far a figure could lie elsewhere on other rows of the same kind. Pure numpy.

Clusters of rows are drawn with replacement, as many as there are (multinomial counts: the number of clusters is part of
the design, so it stays fixed). One draw serves target, baseline and every metric of a task, so that what both models
find hard cancels out of their difference.

Intervals are plain percentiles. Tests are not: percentile bounds of skewed figures are too narrow on the side that
matters (1 wrong answer of 100 against a minimum of 0.95 gives p = 0.004, exactly it is 0.037). A p-value here inverts
the BCa bound (Efron 1987; Efron and Tibshirani, An Introduction to the Bootstrap, chapter 14): bias correction from the
share of resamples below the estimate, acceleration from leaving out one cluster at a time. Additions keep its level
in small samples:

- its normal score is referred to Student's t with one degree less than clusters and the variance's n / (n - 1)
  (Hesterberg 2015), because a resample's spread is that of a sample whose mean is known;
- beyond the outermost resamples their tail is continued by an exponential, so that bounds far out give small p-values
  whatever the number of resamples;
- of the BCa and the percentile bound the more cautious one counts, and skewness towards the bound counts for more than
  the sample shows (`LONG_TAIL`);
- where no cluster shows the event that a bounded figure is tested for, resampling can show none either; the chance of
  that, were the truth at the bound, is then a lower limit of p (the rule of three).

Below `MINIMUM_CLUSTERS` clusters nothing is ever excluded: p is 1. Close to it, with clusters of very uneven size,
tests at 0.05 are passed by 7 % at the bound (20 clusters) or 6 % (40).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

MINIMUM_CLUSTERS = 20
"""Fewer clusters are too few for any test; intervals are given, and are optimistic."""
MAXIMUM_UNITS = 10_000
"""More clusters are bundled at random into so many units: the variance of their sums is the same, and work bounded."""
LONG_TAIL = 1.5
"""Factor of an acceleration towards the bound: samples show less of a long tail than there is. With it 5.5 % instead
of 6.3 % of tests at 0.05 pass on 200 lognormal differences at the bound, and as many as before on symmetric ones."""
UNDEFINED_SHARE = 0.05
"""Share of resamples in which a figure may be undefined before its interval is."""
POWER = 0.80
ROWS_CAP = 10_000_000
_CHUNK = 4_000_000
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Part:
    """Statistics summed by unit, and the figures that their sums give.

    Attributes:
        units: [u] units that have rows in this part.
        sums: [u, k] of their rows' statistics.
        values: from sums [..., k] to figures [..., r].
    """

    units: Indices
    sums: Array
    values: Callable[[Array], Array]

    @property
    def total(self) -> Array:
        """Return the figures of all rows; [r]."""
        return self.values(self.sums.sum(axis=0))

    def left_out(self, count: int) -> Array:
        """Return the figures without one unit, for each of `count` units; [count, r]."""
        total = self.sums.sum(axis=0)
        without = np.repeat(self.values(total)[None], count, axis=0)
        without[self.units] = self.values(total - self.sums)
        return without


@dataclass(frozen=True)
class Distribution:
    """A figure and its distribution under resampling.

    Attributes:
        estimate: on the rows as they are.
        resampled: [B]; NaN where it is undefined.
        left_out: [units], without one unit each.
    """

    estimate: float
    resampled: Array
    left_out: Array

    def map(self, function: Callable[[Array], Array]) -> Distribution:
        """Return the distribution of a function of the figure."""
        estimate = float(function(np.array(self.estimate)))
        return Distribution(estimate, function(self.resampled), function(self.left_out))

    def against(self, other: Distribution, function: Callable[[Array, Array], Array]) -> Distribution:
        """Return the distribution of a function of two figures of the same resamples."""
        estimate = float(function(np.array(self.estimate), np.array(other.estimate)))
        return Distribution(
            estimate, function(self.resampled, other.resampled), function(self.left_out, other.left_out)
        )

    @property
    def units(self) -> int:
        return len(self.left_out)

    @cached_property
    def standard_error(self) -> float:
        """Return the standard deviation under resampling, corrected for the number of units."""
        with np.errstate(all="ignore"):
            spread = float(np.nanstd(self.resampled)) if np.isfinite(self.resampled).any() else math.nan
        return spread * math.sqrt(self.units / max(self.units - 1, 1))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the percentile interval; NaN where the figure is undefined too often."""
        defined = self.resampled[np.isfinite(self.resampled)]
        if not math.isfinite(self.estimate) or len(defined) < (1 - UNDEFINED_SHARE) * len(self.resampled):
            return math.nan, math.nan
        low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
        return float(low), float(high)


class Resampling:
    """Resamples of the rows of one task; the same seed, clusters and number give the same resamples."""

    def __init__(self, clusters: Sequence[int], *, seed: int, resamples: int) -> None:
        """Take the cluster of each row, [rows]."""
        names, self.unit_of_row = np.unique(np.asarray(clusters, np.int64), return_inverse=True)
        self.clusters = len(names)
        self.units = min(self.clusters, MAXIMUM_UNITS)
        self.resamples = resamples
        self._seed = seed
        if self.clusters > self.units:
            bundle = np.random.default_rng([seed, 1]).permutation(self.clusters) % self.units
            self.unit_of_row = bundle[self.unit_of_row]

    def part(
        self, statistics: npt.NDArray[np.floating], values: Callable[[Array], Array], rows: Indices | None = None
    ) -> Part:
        """Sum statistics [rows, k] by unit.

        Args:
            rows: the rows that take part; the statistics are of all rows.
        """
        taken = np.arange(len(self.unit_of_row)) if rows is None else rows
        units, place = np.unique(self.unit_of_row[taken], return_inverse=True)
        sums = np.empty((len(units), statistics.shape[1]))
        for column in range(statistics.shape[1]):
            sums[:, column] = np.bincount(place, statistics[taken, column].astype(np.float64), len(units))
        return Part(units, sums, values)

    def figures(self, parts: Sequence[Part]) -> list[Array]:
        """Return the figures of each part in each resample, all of the same resamples; [B, r] each."""
        found: list[list[Array]] = [[] for _ in parts]
        random = np.random.default_rng([self._seed, 0])
        done = 0
        while done < self.resamples:
            size = min(max(1, _CHUNK // self.units), self.resamples - done)
            drawn = random.integers(0, self.units, (size, self.units))
            drawn += np.arange(size)[:, None] * self.units
            counts = np.bincount(drawn.ravel(), minlength=size * self.units).reshape(size, self.units)
            weights = counts.astype(np.float64)
            for part, chunks in zip(parts, found, strict=True):
                whole = len(part.units) == self.units
                chunks.append(part.values((weights if whole else weights[:, part.units]) @ part.sums))
            done += size
        return [np.concatenate(chunks) for chunks in found]

    def distributions(self, parts: Sequence[Part]) -> list[list[Distribution]]:
        """Return the distribution of every figure of each part."""
        found = []
        for part, resampled in zip(parts, self.figures(parts), strict=True):
            estimates, without = part.total, part.left_out(self.units)
            found.append(
                [Distribution(float(estimates[at]), resampled[:, at], without[:, at]) for at in range(len(estimates))]
            )
        return found


def p_at_least(
    distribution: Distribution, bound: float, *, edge: float | None = None, span: float | None = None
) -> float:
    """Return the p-value of "the truth is at least `bound`"; a small one excludes it.

    Args:
        edge: of a bounded figure, the value it has while the event that makes it larger was not seen.
        span: how much larger than `edge` one cluster's figure can be.
    """
    if not math.isfinite(distribution.estimate) or distribution.units < MINIMUM_CLUSTERS:
        return 1.0
    if not np.isfinite(distribution.left_out).all():
        return 1.0
    floor = _unseen(distribution, bound, edge, span)
    error = distribution.standard_error
    scale = 1e-9 * max(abs(bound), abs(distribution.estimate), 1e-300)
    if not error > scale:
        return max(floor, 0.0 if distribution.estimate < bound - scale else 1.0)
    # Resamples at the bound exclude nothing; but of those at the estimate half count, or counts would seem biased.
    percentile = _score(_share_below(distribution, bound, scale, ties=0.0))
    bias = _score(_share_below(distribution, distribution.estimate, scale, ties=0.5))
    shift = percentile - bias
    acceleration = _acceleration(distribution.left_out)
    if acceleration > 0:
        acceleration *= LONG_TAIL
    # A pole of the formula: at the near end nothing is excluded; at the far end a short tail must not be trusted.
    stretch = 1 + acceleration * shift
    if stretch <= 0 and shift < 0:
        return 1.0
    # BCa and percentile bounds differ by terms of higher order where the tail is short; the farther one is taken.
    score = min(shift / max(stretch, 0.5) - bias, percentile)
    freedom = distribution.units - 1
    return max(floor, _NORMAL.cdf(-normal_score(score * math.sqrt(freedom / distribution.units), freedom)))


def p_at_most(
    distribution: Distribution, bound: float, *, edge: float | None = None, span: float | None = None
) -> float:
    """Return the p-value of "the truth is at most `bound`"; the mirror image of `p_at_least`."""
    return p_at_least(distribution.map(np.negative), -bound, edge=None if edge is None else -edge, span=span)


def rows_needed(
    distribution: Distribution, bound: float, tolerance: float | None, *, rows: int, confidence: float
) -> int | None:
    """Return how many rows would decide at POWER, about ((z_a + z_b) * sd / margin)^2; None if no number would.

    Args:
        bound: what the figure is compared with.
        tolerance: of a regression what is allowed: the margin is the part of it that is left, at least a quarter of
            it and at most all of it, as for an unchanged model. None: the distance from the bound.
        rows: rows behind the distribution; clusters count by their mean size.
        confidence: of the test, one-sided.
    """
    error, margin = distribution.standard_error, abs(bound - distribution.estimate)
    if tolerance:
        margin = min(max(margin, tolerance / 4), tolerance)
    if not (math.isfinite(error) and math.isfinite(margin)) or margin <= 0:
        return None
    scores = _NORMAL.inv_cdf(confidence) + _NORMAL.inv_cdf(POWER)
    # sd^2 / rows = error^2, whatever the size of the clusters; fewer than MINIMUM_CLUSTERS decide nothing at all.
    needed = math.ceil(rows * max((scores * error / margin) ** 2, MINIMUM_CLUSTERS / distribution.units))
    return needed if needed <= ROWS_CAP else None


def normal_score(t: float, freedom: float) -> float:
    """Return the normal score with the tail probability of Student's t (Wallace 1959, to about 1e-3)."""
    size = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))
    return math.copysign(size, t)


def t_score(normal: Array, freedom: Array) -> Array:
    """Return Student's t with the tail probability of a normal score: the inverse of `normal_score`."""
    scaled = normal * (8 * freedom + 3) / (8 * freedom + 1)
    with np.errstate(over="ignore"):
        return np.asarray(np.sqrt(freedom * np.expm1(scaled**2 / freedom)), np.float64)


def _unseen(distribution: Distribution, bound: float, edge: float | None, span: float | None) -> float:
    """Return the chance of no cluster beyond the edge if the truth were at the bound; 0 where one was seen.

    A mean of figures that are at most edge + span is at least the bound only if the share of figures beyond the edge
    is at least (bound - edge) / span.
    """
    if edge is None or span is None:
        return 0.0
    count = distribution.units
    pseudo = count * distribution.estimate - (count - 1) * distribution.left_out
    if (pseudo > edge + 1e-6 * span).any():
        return 0.0
    return float((1 - min(max((bound - edge) / span, 0.0), 1.0)) ** count)


def _share_below(distribution: Distribution, bound: float, scale: float, *, ties: float) -> float:
    """Return the share of resamples below a bound, and of ties; in the upper tail continued by an exponential.

    Undefined resamples count as above: they exclude nothing.
    """
    values = np.where(np.isfinite(distribution.resampled), distribution.resampled, np.inf)
    count = len(values)
    least = 0.5 / count
    below = float((values < bound - scale).mean() + ties * (np.abs(values - bound) <= scale).mean())
    tail = max(10, count // 100)
    outermost = np.sort(np.partition(values, count - tail - 1)[count - tail - 1 :])
    start = outermost[0]
    if not np.isfinite(outermost[-1]) or bound <= start:
        return max(below, least)
    # Normal tails are lighter than exponential ones: the continuation is on the safe side.
    excess = max(float(outermost[1:].mean() - start), 0.2 * distribution.standard_error)
    return max(min(below, 1 - least), 1 - tail / count * math.exp(-(bound - start) / excess))


def _score(share: float) -> float:
    return _NORMAL.inv_cdf(min(max(share, 1e-15), 1 - 1e-15))


def _acceleration(left_out: Array) -> float:
    """Return a sixth of the skewness of the estimate, by the jackknife."""
    influence = left_out.mean() - left_out
    spread = float((influence**2).sum())
    return float((influence**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
