"""How far the probabilities of labels and choices can be believed: Brier score and expected calibration error.

Probabilities are the likelihoods of a row's choices, normalised over them: a softmax of summed log-likelihoods.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....contract import Metric
from ....contract.evaluation import RESULTS
from ...rows import EvaluationRow, RowScore
from ...statistics import Array
from ..measure import Measure, mean

BINS = 10
"""Of equal width, of the probability of the most likely choice (Guo et al. 2017, "On Calibration of Modern Neural
Networks", equation 3 and its 15 bins; fewer, because tests have fewer rows)."""


def calibration(metric: Metric, rows: Sequence[EvaluationRow], scores: Sequence[RowScore]) -> Measure:
    """Return a metric of probabilities.

    brierScore        mean over rows of the squared distance of the probabilities from the right answer (Brier 1950),
                      0 to 2
    calibrationError  mean over bins, weighted by their rows, of the distance between the most likely choice's mean
                      probability and how often it is right, 0 to 1

    Raises:
        ValueError: a row has no right answer, which preparing refuses.
    """
    likely, correct, squares = (np.full(len(rows), np.nan) for _ in range(3))
    for index, (row, score) in enumerate(zip(rows, scores, strict=True)):
        found = np.array(score.log_likelihoods, np.float64)
        if row.answer is None:
            raise ValueError(f"row {row.number} has no right answer")
        if len(found) and np.isfinite(found).all():
            probabilities = np.exp(found - found.max())
            probabilities /= probabilities.sum()
            likely[index], correct[index] = probabilities.max(), probabilities.argmax() == row.answer
            probabilities[row.answer] -= 1
            squares[index] = (probabilities**2).sum()
    (name,) = RESULTS[metric]
    if metric is Metric.BRIER_SCORE:
        return mean(name, squares, lower_is_better=True, range=(2.0, 0.0))
    at = np.clip(np.nan_to_num(likely) * BINS, 0, BINS - 1).astype(np.int64)
    statistics = np.zeros((len(rows), BINS + 1))
    statistics[np.arange(len(rows)), at] = likely - correct
    statistics[:, BINS] = 1.0
    distance = np.abs(likely - correct)
    return Measure((name,), statistics, _error, "distance", distance, lower_is_better=True, range=(1.0, 0.0))


def _error(sums: Array) -> Array:
    """Return the sum over bins of |sum of probability - right| by the number of rows: [..., BINS + 1] to [..., 1]."""
    with np.errstate(all="ignore"):
        return np.asarray(np.abs(sums[..., :BINS]).sum(axis=-1, keepdims=True) / sums[..., BINS:], np.float64)
