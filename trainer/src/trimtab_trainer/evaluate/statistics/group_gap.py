"""Figures by group, and the gap between the best and the worst beyond sampling noise: the bias check. Pure numpy.

The raw gap of equal groups is never 0: among ten groups of 50 rows with an accuracy of 0.80 it is above 0.10 in 93 % of
draws. What the noise does not explain is the lower simultaneous confidence bound of the largest pairwise difference:

    gap_low = max over pairs (i, j) of  d_ij - c_ij * se_ij,   at least 0

where c is the quantile of the largest |d*_ij - d_ij| / se_ij of all pairs under resampling (the studentised range by
the bootstrap, as Tukey's test has it for normal means). Clusters are resampled within the whole sample, as everywhere.
c_ij refers c to Student's t with Welch's degrees of freedom of the pair, and each group's variance has its n / (n - 1);
a group's variance is at least half of what the groups' common variance would give it, because a group of all right
answers shows none (with groups of 30 and of 1,000 rows at 0.95, 49 % of draws would else show a gap).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...contract.evaluation import OTHER_GROUPS
from .arrays import Array, Indices
from .bootstrap import Resampling
from .student import t_score

NO_GROUP = "(none)"
"""Name of the rows without a value in the groupBy column."""
MINIMUM_GROUP_CLUSTERS = 5
"""A group of fewer clusters is pooled too, whatever its rows: it cannot show its own noise."""
COMMON_SHARE = 0.5
_PAIRS_AT_ONCE = 4_000_000
_PAIRS = 400_000_000
_POWER = 0.8416
"""Normal score of 80 %."""


@dataclass(frozen=True)
class Partition:
    """Rows by group, small groups pooled.

    Attributes:
        names: of the groups, sorted; the pooled one last.
        rows: indices of the rows of each.
        clusters: how many clusters (units of resampling) each has.
        pooled: names of the groups that were pooled, sorted.
        judged: indices of the groups that take part in the gap: the pooled one only if it is large enough itself.
    """

    names: tuple[str, ...]
    rows: tuple[Indices, ...]
    clusters: tuple[int, ...]
    pooled: tuple[str, ...]
    judged: tuple[int, ...]


@dataclass(frozen=True)
class Gap:
    """The difference between the best and the worst group.

    Attributes:
        gap: raw, at least 0.
        low: its lower simultaneous confidence bound, at least 0.
        high: its upper one: no two groups differ by more, as far as these rows tell.
        visible: a gap of any two groups that would have been shown with a probability of 80 %: below it a gap can be
            there and not be shown.
        worst, best: indices of the groups.
    """

    gap: float
    low: float
    worst: int
    best: int
    high: float = 0.0
    visible: float = 0.0


def large_enough(rows: int, clusters: int, *, minimum_rows: int) -> bool:
    """Tell whether a group of so many rows and clusters is judged by itself."""
    return rows >= minimum_rows and clusters >= MINIMUM_GROUP_CLUSTERS


def partition(
    groups: Sequence[str | None], resampling: Resampling, *, minimum_rows: int, among: Indices | None = None
) -> Partition:
    """Return the rows by group; groups of fewer rows, or of fewer than MINIMUM_GROUP_CLUSTERS clusters, as one.

    Args:
        among: the rows that count; all if absent.
    """
    taken = range(len(groups)) if among is None else among.tolist()
    members: dict[str, list[int]] = defaultdict(list)
    for row in taken:
        members[NO_GROUP if groups[row] is None else str(groups[row])].append(row)
    found = {name: np.array(rows, np.int64) for name, rows in sorted(members.items())}

    def clusters(rows: Indices) -> int:
        return len(np.unique(resampling.unit_of_row[rows]))

    def enough(rows: Indices) -> bool:
        return large_enough(len(rows), clusters(rows), minimum_rows=minimum_rows)

    kept = {name: rows for name, rows in found.items() if enough(rows)}
    pooled = tuple(name for name in found if name not in kept)
    if pooled:
        rest = np.sort(np.concatenate([found[name] for name in pooled]))
        # A group may really be called that.
        kept[OTHER_GROUPS if OTHER_GROUPS not in kept else f"{OTHER_GROUPS} groups"] = rest
    return Partition(
        tuple(kept),
        tuple(kept.values()),
        tuple(clusters(rows) for rows in kept.values()),
        pooled,
        tuple(index for index, rows in enumerate(kept.values()) if enough(rows)),
    )


def gap(estimates: Array, resampled: Array, part: Partition, *, lower_is_better: bool, confidence: float) -> Gap | None:
    """Return the gap between the groups that are judged, or None if it is not known.

    Args:
        estimates: [groups], of a partition's groups.
        resampled: [B, groups].

    Returns:
        None where fewer than two groups are judged, or one of their figures is no number.
    """
    judged = np.array(part.judged, np.int64)
    if len(judged) < 2 or not np.isfinite(estimates[judged]).all():
        return None
    values, draws = estimates[judged], resampled[:, judged]
    draws = draws[np.isfinite(draws).all(axis=1)]
    if len(draws) < len(resampled) / 2:
        return None
    clusters = np.array(part.clusters, np.float64)[judged]
    low, high, visible = bounds_of(values, draws, clusters, confidence=confidence)
    worst, best = (values.argmax(), values.argmin()) if lower_is_better else (values.argmin(), values.argmax())
    return Gap(float(values.max() - values.min()), low, int(judged[worst]), int(judged[best]), high, visible)


def bounds_of(values: Array, draws: Array, clusters: Array, *, confidence: float) -> tuple[float, float, float]:
    """Return the simultaneous confidence bounds of the largest pairwise difference, and what would have been shown.

    Args:
        values: [groups].
        draws: [B, groups], finite.
        clusters: [groups], at least 2 each.
    """
    first, second = np.triu_indices(len(values), 1)
    small = np.sqrt(clusters / (clusters - 1))
    covariance = np.atleast_2d(np.cov(draws, rowvar=False)) * np.outer(small, small)
    own = np.diag(covariance)
    common = (own * clusters * clusters).sum() / clusters.sum() / clusters
    variance = np.maximum(own, COMMON_SHARE * common)
    # Groups that share clusters are not independent; the covariance is what resampling shows.
    squares = variance[first] + variance[second] - 2 * covariance[first, second]
    used = squares > 1e-12 * variance.max()  # less is rounding: groups that differ by a constant
    errors = np.sqrt(np.maximum(squares, 0.0))
    difference = np.abs(values[first] - values[second])
    if not used.any():
        return float(difference.max()), float(difference.max()), 0.0
    first, second, errors = first[used], second[used], errors[used]
    critical = _critical(draws - values, first, second, errors, confidence)
    freedom = (variance[first] + variance[second]) ** 2 / (
        variance[first] ** 2 / (clusters[first] - 1) + variance[second] ** 2 / (clusters[second] - 1)
    )
    noise = t_score(np.full(len(errors), critical), freedom) * errors
    certain = float(difference[~used].max(initial=0.0))
    low = max(float((difference[used] - noise).max()), 0.0, certain)
    high = max(float((difference[used] + noise).max()), certain)
    return low, high, float((noise + _POWER * errors).max())


def _critical(deviations: Array, first: Indices, second: Indices, errors: Array, confidence: float) -> float:
    """Return the quantile of the largest studentised difference over all pairs; deviations are [B, groups]."""
    # Hundreds of groups have very many pairs; a thousand resamples give the quantile to about its third digit.
    enough = max(1_000, _PAIRS // len(first))
    deviations = deviations[:enough]
    largest = np.empty(len(deviations))
    size = max(1, _PAIRS_AT_ONCE // len(first))
    for start in range(0, len(deviations), size):
        chunk = deviations[start : start + size]
        largest[start : start + size] = (np.abs(chunk[:, first] - chunk[:, second]) / errors).max(axis=1)
    return float(np.quantile(largest, confidence))
