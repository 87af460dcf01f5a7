"""The paired cluster bootstrap: how far a figure could lie elsewhere on other rows of the same kind.

Clusters of rows are drawn with replacement, as many as there are (multinomial counts: the number of clusters is part of
the design, so it stays fixed). One draw serves target, baseline and every metric of a task, so that what both models
find hard cancels out of their difference.

A figure is a function of sums over rows, so a resample needs only the sums of each unit and how often it was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .arrays import Array, Indices
from .distribution import Distribution

MAXIMUM_UNITS = 10_000
"""More clusters are bundled at random into so many units: the variance of their sums is the same, and work bounded."""
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Part:
    """Statistics summed by unit, and the figures that their sums give.

    Attributes:
        units: [u] units that have rows in this part.
        sizes: [u] how many rows each has.
        weights: [u] what each weighs in the figures; None: its rows.
        sums: [u, k] of their rows' statistics.
        values: from sums [..., k] to figures [..., r].
    """

    units: Indices
    sizes: Array
    sums: Array
    values: Callable[[Array], Array]
    weights: Array | None = None

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


class Resampling:
    """Resamples of the rows of one task; the same seed, clusters and number give the same resamples."""

    def __init__(self, clusters: Sequence[int], *, seed: int, resamples: int) -> None:
        """Take the cluster of each row, [rows]."""
        names, self.unit_of_row = np.unique(np.asarray(clusters, np.int64), return_inverse=True)
        self.clusters = len(names)
        self._cluster_of_row = self.unit_of_row
        self.units = min(self.clusters, MAXIMUM_UNITS)
        self.resamples = resamples
        self._seed = seed
        if self.clusters > self.units:
            bundle = np.random.default_rng([seed, 1]).permutation(self.clusters) % self.units
            self.unit_of_row = bundle[self.unit_of_row]

    def part(
        self,
        statistics: npt.NDArray[np.floating],
        values: Callable[[Array], Array],
        rows: Indices | None = None,
        *,
        weights: Array | None = None,
    ) -> Part:
        """Sum statistics [rows, k] by unit.

        Args:
            rows: the rows that take part; the statistics are of all rows.
            weights: [rows], what each of all rows weighs in the figures; None: the same.
        """
        taken = np.arange(len(self.unit_of_row)) if rows is None else rows
        units, place = np.unique(self.unit_of_row[taken], return_inverse=True)
        sums = np.empty((len(units), statistics.shape[1]))
        for column in range(statistics.shape[1]):
            sums[:, column] = np.bincount(place, statistics[taken, column].astype(np.float64), len(units))
        sizes = np.bincount(place, minlength=len(units)).astype(np.float64)
        if weights is None:
            return Part(units, sizes, sums, values)
        weighed = np.bincount(place, weights[taken], len(units)).astype(np.float64)
        return Part(units, sizes, sums, values, weighed)

    def clusters_of(self, rows: Indices | None = None) -> int | None:
        """Return in how many clusters rows are, all if absent; None where each of them stands alone."""
        taken = self._cluster_of_row if rows is None else self._cluster_of_row[rows]
        count = len(np.unique(taken))
        return count if count < len(taken) else None

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
            sizes = np.zeros(self.units)
            sizes[part.units] = part.sizes
            weights = None
            if part.weights is not None:
                weights = np.zeros(self.units)
                weights[part.units] = part.weights
            found.append(
                [
                    Distribution(float(estimates[at]), resampled[:, at], without[:, at], sizes, weights)
                    for at in range(len(estimates))
                ]
            )
        return found
