"""The share of rows that are worse than under the baseline by more than an amount: a bounded figure, tested exactly.

However bad a row is, it counts once. So the promise holds for any rows, also where a mean is decided by a few of them.
Of independent rows the test is the binomial's (Clopper and Pearson 1934). Rows in clusters count as so many independent
ones as have the variance that clusters show (Korn and Graubard 1998), and the bootstrap's test has to agree.
"""

from __future__ import annotations

import math

import numpy as np

from ...contract import Check, Threshold
from .arrays import Array
from .bootstrap import Resampling
from .distribution import Distribution
from .p_values import MINIMUM_CLUSTERS, p_at_least, p_at_most
from .sample_size import rows_needed

NAME = "maximumWorseRatio"


def worse_check(
    index: int, threshold: Threshold, loss: Array, resampling: Resampling, *, unknown: bool = False
) -> Check:
    """Return what is known about a threshold's `maximumWorseRatio`.

    Args:
        index: of the threshold in the configuration.
        loss: [rows], by how much the target's row is worse than the baseline's; NaN of a row that neither or only one
            side has a figure of, which counts as worse.
        unknown: some likelihood is no number, so nothing is known.
    """
    limit = threshold.limits[NAME]
    if unknown:
        return Check(threshold=index, bound=NAME)
    worse = np.where(np.isfinite(loss), loss > (threshold.worse_by or 0.0), True).astype(np.float64)
    rows = len(worse)
    statistics = np.stack([worse, np.ones(rows)], axis=1)
    ((found,),) = resampling.distributions([resampling.part(statistics, _share)])
    check = Check(threshold=index, bound=NAME, estimate=found.estimate)
    if threshold.confidence is None:
        return check
    units = _independent(found, rows, clustered=resampling.clusters < rows)
    count = found.estimate * units
    p_pass = at_most(math.ceil(count - 1e-9), math.floor(units), limit)
    p_fail = 1.0 - at_most(math.floor(count + 1e-9) - 1, math.ceil(units), limit)
    if resampling.clusters < rows:
        p_pass = max(p_pass, p_at_least(found, limit, edge=0.0, span=1.0))
        p_fail = max(p_fail, p_at_most(found, limit, edge=1.0, span=1.0))
    if found.effective_units < MINIMUM_CLUSTERS:
        p_pass = p_fail = 1.0
    needed = rows_needed(found, limit, limit, rows=rows, confidence=threshold.confidence, share=limit or None)
    facts = {"rows_needed": needed, "clusters": resampling.clusters_of()}
    return check.model_copy(update={"p_pass": p_pass, "p_fail": min(p_fail, 1.0), **facts})


def at_most(count: int, trials: int, share: float) -> float:
    """Return the probability of at most so many successes of a binomial."""
    if count < 0:
        return 0.0
    if count >= trials or share <= 0:
        return 1.0
    if share >= 1:
        return 0.0
    each = np.arange(count + 1)
    ways = np.array([math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) for k in each])
    return min(float(np.exp(ways + each * math.log(share) + (trials - each) * math.log1p(-share)).sum()), 1.0)


def _independent(found: Distribution, rows: int, *, clustered: bool) -> float:
    """Return how many independent rows have the variance that is seen; of no event at all, as the clusters count."""
    if not clustered:
        return rows
    variance, share = found.standard_error**2, found.estimate
    if variance <= 0:
        return found.effective_units
    return min(max(share * (1 - share) / variance, 1.0), float(rows))


def _share(sums: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(sums[..., :1] / sums[..., 1:2], np.float64)
