"""Two series of latencies, measured in pairs, compared: what one side's median exceeds the other's by, and how surely.

Pairs are resampled whole, so that what slows both of a pair, for example another program, counts on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 1


@dataclass(frozen=True)
class Difference:
    """The first side's median less the second's, in the unit of the series, with its interval.

    Attributes:
        share, share_low, share_high: the same by the second side's median.
        of_pairs: the median of the pairs' own differences.
    """

    value: float
    low: float
    high: float
    share: float
    share_low: float
    share_high: float
    of_pairs: float

    def below(self, value: float, share: float) -> bool:
        """Tell whether the interval ends below a value, or below a share of the second side's median."""
        return self.high < value or self.share_high < share


def difference(
    first: Sequence[float], second: Sequence[float], *, resamples: int = RESAMPLES, seed: int = SEED
) -> Difference:
    """Return how the medians of two series differ, whose elements are pairs; the interval is of bootstrap percentiles.

    Raises:
        ValueError: there are no pairs, or not every element has one.
    """
    if not first or len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} elements are no pairs")
    pairs = np.array([first, second])
    random = np.random.default_rng(seed)
    drawn = [np.median(pairs[:, random.integers(0, len(first), len(first))], axis=1) for _ in range(resamples)]
    medians = np.median(pairs, axis=1)
    firsts, seconds = np.transpose(drawn)
    beyond = (1 - CONFIDENCE) / 2
    low, high = np.quantile(firsts - seconds, (beyond, 1 - beyond))
    share_low, share_high = np.quantile(firsts / seconds - 1, (beyond, 1 - beyond))
    return Difference(
        value=float(medians[0] - medians[1]),
        low=float(low),
        high=float(high),
        share=float(medians[0] / medians[1] - 1),
        share_low=float(share_low),
        share_high=float(share_high),
        of_pairs=float(np.median(pairs[0] - pairs[1])),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile of a series."""
    return float(np.percentile(values, percent))
