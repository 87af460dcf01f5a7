"""How many rows would decide, where those that there are do not."""

from __future__ import annotations

import math
from statistics import NormalDist

from .broken_rows import times_to_see
from .distribution import Distribution
from .p_values import MINIMUM_CLUSTERS, MINIMUM_WEIGHT

POWER = 0.80
ROWS_CAP = 10_000_000
LEAST_SCORE = 0.5
"""Normal score of a test that tells next to nothing: from less no number of rows can be told."""
_NORMAL = NormalDist()


def rows_needed(
    distribution: Distribution,
    bound: float,
    tolerance: float | None,
    *,
    rows: int,
    confidence: float,
    p: float | None = None,
    share: float | None = None,
) -> int | None:
    """Return how many rows would decide at POWER, about ((z_a + z_b) * sd / margin)^2; None if no number would.

    Args:
        bound: what the figure is compared with.
        tolerance: of a regression what is allowed: the margin is the part of it that is left, at least a quarter of
            it and at most all of it, as for an unchanged model. None: the distance from the bound.
        rows: rows behind the distribution; clusters count by their mean size.
        confidence: of the test, one-sided.
        p: of the truth beyond the bound or within it, the smaller, as a test found it: skewed figures are less certain
            than their errors say. None: not known.
        share: of broken rows that has to be seen if there is one; None: no such share.
    """
    error, margin = distribution.standard_error, abs(bound - distribution.estimate)
    if tolerance:
        margin = min(max(margin, tolerance / 4), tolerance)
    if not (math.isfinite(error) and math.isfinite(margin)) or margin <= 0:
        return None
    scores = _NORMAL.inv_cdf(confidence) + _NORMAL.inv_cdf(POWER)
    errors = error / margin
    if p is not None and not tolerance and error > 0:
        errors = max(errors, 1 / max(-_NORMAL.inv_cdf(min(max(p, 1e-15), 0.5)), LEAST_SCORE))
    # sd^2 / rows = error^2, whatever the size of the clusters; too few clusters, or too little weight, decide nothing.
    weight = distribution.effective_weight
    fewest = max(MINIMUM_CLUSTERS / distribution.effective_units, MINIMUM_WEIGHT / weight if weight else math.inf)
    if share is not None:
        fewest = max(fewest, times_to_see(share, confidence, distribution.weighs))
    needed = rows * max(min(scores * errors, ROWS_CAP) ** 2, fewest)
    return math.ceil(needed) if needed <= ROWS_CAP else None
