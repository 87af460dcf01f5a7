"""What a mean over few rows does not hold: a small share of rows that are broken, when none of them was drawn.

Of a figure without bounds a few rows can decide everything, and no test can tell from rows without such a row that
there is none. What can be told is how large their share may be: of a share q, n rows hold none with the probability
(1 - q)^n. So a figure without bounds passes only if a share that would bring it to its limit would have been seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SMALLEST_SHARE = 0.02
"""Of rows that are broken beyond all measure; smaller shares no verdict on a mean speaks of. At a confidence of 0.95 it
takes 149 rows to see one."""


@dataclass(frozen=True)
class BrokenRow:
    """What one broken row costs of a figure without bounds.

    Attributes:
        cost: in the figure's unit, or in that of its logarithm; infinite where it has no scale, as that of an error.
        logarithmic: whether the figure is the exponential of a mean.
    """

    cost: float
    logarithmic: bool = False

    def share(self, value: float, limit: float) -> float:
        """Return which share of broken rows would bring a figure from its value to its limit, SMALLEST_SHARE to 1."""
        if self.logarithmic:
            if min(value, limit) <= 0:
                return SMALLEST_SHARE
            value, limit = math.log(value), math.log(limit)
        distance = abs(limit - value)
        if not math.isfinite(distance):
            return SMALLEST_SHARE
        return min(max(distance / self.cost, SMALLEST_SHARE), 1.0)


def unseen(share: float, rows: float) -> float:
    """Return the probability that so many rows hold none of a share of all."""
    return float((1 - share) ** rows)


def rows_to_see(share: float, confidence: float) -> float:
    """Return how many rows hold one of a share of all, at a confidence."""
    return math.log(1 - confidence) / math.log1p(-share) if share < 1 else 1.0
