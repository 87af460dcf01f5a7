"""Means of values of rows, resampled: every row is a cluster."""

from __future__ import annotations

import numpy as np
from trimtab_trainer.evaluate.statistics import Array, Distribution, Resampling


def of_means(values: Array, *, resamples: int = 2_000, seed: int = 1) -> list[Distribution]:
    """Return the distribution of the mean of each column; every row is a cluster."""
    rows = len(values)
    part = Resampling(range(rows), seed=seed, resamples=resamples).part(values, lambda sums: sums / rows)
    return Resampling(range(rows), seed=seed, resamples=resamples).distributions([part])[0]


def of_mean(values: Array | list[float], **settings: int) -> Distribution:
    return of_means(np.asarray(values, np.float64)[:, None], **settings)[0]
