"""Rows joined into connected components, by a forest of numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]


class Components:
    """Rows joined into connected components (union-find, path halving)."""

    def __init__(self, count: int) -> None:
        self._parents = np.arange(count, dtype=np.int64)

    def root(self, row: int) -> int:
        """Return the row that stands for a row's component: the first of it."""
        parents = self._parents
        while (parent := int(parents[row])) != row:
            parents[row] = row = int(parents[parent])
        return row

    def join(self, left: int, right: int) -> None:
        """Make one component of two rows' components."""
        left, right = self.root(left), self.root(right)
        self._parents[max(left, right)] = min(left, right)

    def roots(self) -> Int64:
        """Return the first row of each row's component, int64[rows]."""
        roots = self._parents
        while not np.array_equal(roots, above := roots[roots]):
            roots = above
        self._parents = roots
        return roots.copy()
