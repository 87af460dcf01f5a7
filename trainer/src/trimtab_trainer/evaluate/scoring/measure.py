"""One metric of one model: statistics of rows whose sums suffice for its figures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..statistics import Array, BrokenRow, Indices


@dataclass(frozen=True)
class Measure:
    """One metric of one model on the rows of a task.

    Attributes:
        results: names of its figures.
        statistics: [rows, k]; their sums over rows suffice for the figures.
        values: from sums [..., k] to figures [..., len(results)]; NaN where they are undefined.
        row_figure: what `row_values` are, for people.
        row_values: one figure a row, [rows], for wins, losses and examples; NaN where it is undefined.
        lower_is_better: of the figures and of the row scores.
        range: worst and best value that the figures can take; None where there is no bound.
        broken_row: what one broken row costs of the figures, where they have no bound.
        least: the smallest value of figures that have no largest one; None where they have neither, or both.
        weights: [rows], what each row weighs in the figures; None: the same.
        kinds: [rows] index of the kind of each row where the first figure is a mean over so many kinds (`kinds_count`)
            however few rows they have; None of other metrics.
        taken: the rows that the figures are of, such as those with people's judgement; None: all.
    """

    results: tuple[str, ...]
    statistics: Array
    values: Callable[[Array], Array]
    row_figure: str
    row_values: Array
    lower_is_better: bool = False
    range: tuple[float, float] | None = None
    broken_row: BrokenRow | None = None
    weights: Array | None = None
    kinds: Array | None = None
    kinds_count: int = 0
    taken: Indices | None = None
    least: float | None = None

    @property
    def graded(self) -> bool:
        """Whether some row has a value between the ends of the range, as that of a text that is partly right."""
        values = self.row_values[np.isfinite(self.row_values)]
        return self.range is not None and not bool(np.isin(values, self.range).all())

    def among(self, rows: Indices) -> Indices:
        """Return those of some rows that the figures are of."""
        return rows if self.taken is None else np.intersect1d(rows, self.taken)

    def range_with(self, other: Measure) -> tuple[float, float] | None:
        """Return the range of both sides: of a harness metric it is guessed from values, so they have to agree."""
        return self.range if self.range == other.range else None

    def fewest(self, units: Indices, rows: Indices | None = None) -> int | None:
        """Return how many clusters have a row of the rarest kind; None of a figure that is no mean over kinds.

        Args:
            units: the cluster of each row, [rows].
            rows: those of a group, of which only the kinds that it has are counted; None: all rows and kinds.
        """
        if self.kinds is None:
            return None
        taken = slice(None) if rows is None else rows
        pairs = np.unique(np.stack([self.kinds.astype(np.int64)[taken], units[taken]], axis=1), axis=0)
        counts = np.bincount(pairs[:, 0], minlength=self.kinds_count)
        return int(counts.min() if rows is None else counts[counts > 0].min())


def ratio(sums: Array) -> Array:
    """Return the first column by the second: [..., 2] to [..., 1]; NaN where the second is 0."""
    with np.errstate(all="ignore"):
        return np.asarray(sums[..., :1] / sums[..., 1:2], np.float64)


def mean(name: str, values: Array, *, lower_is_better: bool = False, range: tuple[float, float] | None) -> Measure:  # noqa: A002 - the field of Measure that it fills
    """Return the metric that is the mean of one value a row, [rows]."""
    statistics = np.stack([values, np.ones(len(values))], axis=1)
    return Measure(
        (name,),
        statistics,
        ratio,
        name,
        values,
        lower_is_better,
        range,
        broken_row=BrokenRow(math.inf) if range is None else None,
    )
