"""Metrics of pairs: whether, and by how much, the chosen answer is preferred to the rejected one. No torch.

A score of a pair has four summed log-likelihoods: of the chosen and the rejected answer by the model that is asked, and
of both by the base model alone. What an answer gained over the base is its implicit reward (arXiv 2305.18290, eq. 5,
without the factor beta, which training chose and a comparison does not need).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...contract import Metric
from ..rows import EvaluationRow, RowScore
from ..statistics import Array

LIKELIHOODS = 4
"""Of a pair: chosen and rejected by the model, chosen and rejected by its base."""


@dataclass(frozen=True)
class PairValues:
    """One value a pair [rows], NaN where a likelihood is no finite number.

    Attributes:
        difference: summed log-likelihood of the chosen answer minus that of the rejected one, in nats.
        mean_difference: the same of mean log-likelihoods of a token.
        reward_difference: by how much more the chosen answer gained over the base, in nats.
    """

    difference: Array
    mean_difference: Array
    reward_difference: Array

    @classmethod
    def of(cls, rows: Sequence[EvaluationRow], scores: Sequence[RowScore]) -> PairValues:
        """Return the values of pairs.

        Raises:
            ValueError: a row is no pair, or its score is not that of one.
        """
        found = np.full((len(rows), LIKELIHOODS), np.nan)
        for index, (row, score) in enumerate(zip(rows, scores, strict=True)):
            if len(row.sequences) != 2 or len(score.log_likelihoods) != LIKELIHOODS:
                raise ValueError(f"row {row.number} is no pair with a score of it and of its base")
            found[index] = score.log_likelihoods
        found[~np.isfinite(found).all(axis=1)] = np.nan
        tokens = np.array([[max(each.counted, 1) for each in row.sequences] for row in rows], np.float64)
        means = found[:, :2] / tokens
        gained = found[:, :2] - found[:, 2:]
        return cls(*(each[:, 0] - each[:, 1] for each in (found, means, gained)))


def pair_values(metric: Metric, rows: Sequence[EvaluationRow], scores: Sequence[RowScore]) -> Array:
    """Return the figure of each pair [rows]; of an accuracy 1, 0, or a half where both answers are as likely."""
    values = PairValues.of(rows, scores)
    match metric:
        case Metric.PAIR_ACCURACY:
            return right(values.difference)
        case Metric.PAIR_ACCURACY_NORMALIZED:
            return right(values.mean_difference)
        case Metric.PAIR_MARGIN:
            return values.difference
        case Metric.REWARD_ACCURACY:
            return right(values.reward_difference)
        case _:
            return values.reward_difference


def right(differences: Array) -> Array:
    """Return 1 where a difference is positive, 0 where it is negative, and a half where there is none; NaN stays."""
    return np.where(np.isnan(differences), np.nan, (np.sign(differences) + 1) / 2)
