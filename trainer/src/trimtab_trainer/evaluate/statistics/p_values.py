"""One-sided tests of a resampled figure against a bound.

Percentile bounds of skewed figures are too narrow on the side that matters (1 wrong answer of 100 against a minimum of
0.95 gives p = 0.004, exactly it is 0.037). A p-value here inverts the BCa bound (Efron 1987; Efron and Tibshirani, An
Introduction to the Bootstrap, chapter 14): bias correction from the share of resamples below the estimate, acceleration
from leaving out one cluster at a time. Additions keep its level in small samples:

- its normal score is referred to Student's t with one degree less than clusters and the variance's n / (n - 1)
  (Hesterberg 2015), because a resample's spread is that of a sample whose mean is known;
- beyond the outermost resamples their tail is continued by an exponential, so that bounds far out give small p-values
  whatever the number of resamples;
- of the BCa and the percentile bound the more cautious one counts, and skewness towards the bound counts for more than
  the sample shows (`LONG_TAIL`);
- where no cluster shows the event that a bounded figure is tested for, resampling can show none either; the chance of
  that, were the truth at the bound, is then a lower limit of p (the rule of three);
- where a few clusters decide a figure without bounds, the next sample may hold a larger one than this: from a skewness
  of the estimate on, its score is lowered in proportion (`_hidden_tail`);
- where a bound is so far away that the score says nothing any more, and rows have a scale, the clusters that would
  have to make up the distance are what is tested: of so many one would have been drawn (`_far`);
- where clusters are of uneven size, their variance is what a smooth function of their sizes says if that is more than
  they show: when the few large ones happen to be calm, they show too little (`_by_size`).

Below `MINIMUM_CLUSTERS` clusters, or `MINIMUM_WEIGHT` of their weight, nothing is ever excluded: p is 1. Clusters of
uneven size count as so many equal ones as would tell as much (Kish), here and for the degrees of freedom.

Each constant is chosen by simulation, and what it is chosen for is measured by `make bench-gate`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np

from .arrays import Array
from .distribution import Distribution
from .student import normal_score

MINIMUM_CLUSTERS = 20
"""Fewer clusters are too few for any test; intervals are given, and are optimistic. Of uneven ones Kish's effective
number counts: a few large ones decide what is drawn."""
MINIMUM_WEIGHT = 5
"""Clusters of equal weight in the figure as would tell as much, below which a few texts are all of it. Between that and
MINIMUM_CLUSTERS the variance by weight (`_by_size`) keeps the level: 3 to 5 % of tests at 0.05 pass at a maximum of
perplexity on 32 rows whose tokens are lognormal with sigma 1.2 to 1.6, none of which would count as 20."""
ROUNDING = 1e-6
LONG_TAIL = 1.5
"""Factor of an acceleration towards the bound: samples show less of a long tail than there is. With it 5.5 % instead
of 6.3 % of tests at 0.05 pass on 200 lognormal differences at the bound, and as many as before on symmetric ones."""
LONG_TAIL_SKEWNESS, LONG_TAIL_OF_FEW = 0.15, 2.5
"""Skewness of an estimate from which on a long tail is suspected; of few units the second by the square root of their
number, because an exponential's is about 2 by it."""
LONG_TAIL_SCORE = 8.0
"""By how much a unit of skewness beyond that lowers the normal score. With it at most 6 % of tests at 0.05 pass at the
bound on lognormal errors of sigma 2 (12 to 19 % without), and as many as before on exponential ones."""
FAR_ERRORS = 8.0
"""Standard errors between estimate and bound, from which on resamples and the formula for skewed figures tell nothing:
the formula's score never exceeds one by the acceleration, so a skewed figure was tested alike at 5 errors and at 50."""
FAR_ROWS = 5.0
"""How many times as far out as the farthest cluster those may be that were not drawn, and make up such a distance."""
_NORMAL = NormalDist()


def p_at_least(
    distribution: Distribution,
    bound: float,
    *,
    edge: float | None = None,
    span: float | None = None,
    rows_have_scale: bool = False,
) -> float:
    """Return the p-value of "the truth is at least `bound`"; a small one excludes it.

    Args:
        edge: of a bounded figure, the value it has while the event that makes it larger was not seen.
        span: how much larger than `edge` one cluster's figure can be.
        rows_have_scale: of a figure without bounds, whether one row costs a finite amount however broken it is. Where
            it does not, as of errors, a row that was not drawn may be any number of times as far out as the others.
    """
    effective = distribution.effective_units
    if not math.isfinite(distribution.estimate) or effective < MINIMUM_CLUSTERS - ROUNDING:
        return 1.0
    if distribution.effective_weight < MINIMUM_WEIGHT - ROUNDING:
        return 1.0
    if not np.isfinite(distribution.left_out).all():
        return 1.0
    floor = _unseen(distribution, bound, edge, span)
    error = distribution.standard_error
    if not math.isfinite(error):
        return 1.0
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
    freedom = effective - 1
    score = normal_score(score * math.sqrt(freedom / effective), freedom)
    if score > 0:
        score /= _by_size(distribution)
    if span is None:
        score -= _hidden_tail(distribution)
        return min(_NORMAL.cdf(-score), _far(distribution, bound) if rows_have_scale else 1.0)
    return max(floor, _NORMAL.cdf(-score))


def p_at_most(
    distribution: Distribution,
    bound: float,
    *,
    edge: float | None = None,
    span: float | None = None,
    rows_have_scale: bool = False,
) -> float:
    """Return the p-value of "the truth is at most `bound`"; the mirror image of `p_at_least`."""
    edge = None if edge is None else -edge
    return p_at_least(distribution.map(np.negative), -bound, edge=edge, span=span, rows_have_scale=rows_have_scale)


def _hidden_tail(distribution: Distribution) -> float:
    """Return by how much the normal score is lowered for a tail towards the bound that decides the figure."""
    skewness = 6 * _acceleration(distribution.left_out)
    usual = max(LONG_TAIL_SKEWNESS, LONG_TAIL_OF_FEW / math.sqrt(distribution.effective_units))
    return LONG_TAIL_SCORE * max(skewness - usual, 0.0)


def _far(distribution: Distribution, bound: float) -> float:
    """Return the chance to draw none of the clusters that would make up a distance of many standard errors; else 1.

    If the truth is at the bound, clusters that were not drawn make up what is between it and the estimate. Each that
    is FAR_ROWS times as far out as the farthest one here makes up so much of it; of so many as it takes, the mean
    of a Poisson number, none was drawn.
    """
    distance, farthest = bound - distribution.estimate, float(distribution.influence.max())
    if not distance >= FAR_ERRORS * distribution.standard_error * _by_size(distribution) or not farthest > 0:
        return 1.0
    return math.exp(-distance / (FAR_ROWS * farthest))


def _by_size(distribution: Distribution) -> float:
    """Return the standard error by a model of the units' sizes over the one that they show, at least 1.

    A unit's size is its rows, or what it weighs in the figure. The variance of its share is taken as
    a * size + b * size^2 with a, b >= 0: independent rows have b = 0, rows that stand and fall together a = 0. By least
    squares of the squared shares by squared size, so that the small units, of which there are many, say what the few
    large ones would show on other draws.
    """
    weights = distribution.weighs
    there = weights > 0
    sizes, shares = weights[there], distribution.influence[there]
    largest = np.abs(shares).max(initial=0.0)
    if len(sizes) < 2 or np.ptp(sizes) <= 1e-9 * sizes.max() or not largest > 0:
        return 1.0
    sizes, shares = sizes / sizes.mean(), shares / largest
    squares = (shares / sizes) ** 2
    model = max(_fitted(squares, sizes), key=lambda fit: fit[0])[1]
    return max(math.sqrt(float((model * sizes**2).sum() / (shares**2).sum())), 1.0)


def _fitted(squares: Array, sizes: Array) -> Iterator[tuple[float, Array]]:
    """Return the least-squares fits of a / size + b with a, b >= 0, and how much of the squares each explains."""
    each = np.stack([1 / sizes, np.ones(len(sizes))], axis=1)
    for columns in ([0], [1], [0, 1]):
        found = np.linalg.lstsq(each[:, columns], squares, rcond=None)[0]
        if (found >= 0).all():
            model = each[:, columns] @ found
            yield -float(((squares - model) ** 2).sum()), model


def _unseen(distribution: Distribution, bound: float, edge: float | None, span: float | None) -> float:
    """Return the chance of no cluster beyond the edge if the truth were at the bound; 0 where one was seen.

    A mean of figures that are at most edge + span is at least the bound only if the share of figures beyond the edge
    is at least (bound - edge) / span.
    """
    if edge is None or span is None:
        return 0.0
    shares = distribution.left_out
    if distribution.sizes is not None:
        shares = shares[distribution.sizes > 0]  # of a group its own clusters, not those that have none of its rows
    count = len(shares)
    pseudo = count * distribution.estimate - (count - 1) * shares
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
    largest = float(np.abs(influence).max())
    if not largest > 0:
        return 0.0
    influence = influence / largest  # cubes of large numbers are beyond floats
    return float((influence**3).sum() / (6 * (influence**2).sum() ** 1.5))
