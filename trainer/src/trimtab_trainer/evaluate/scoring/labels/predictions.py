"""Which label or choice a model gave: by its likelihoods, or read from what it wrote."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....contract import EvaluationTask
from ...rows import EvaluationRow, RowScore
from ...statistics import Array
from ..texts.parsing import parse_label, written

NO_LABEL = -1
"""Predicted index of an answer that is none of the labels, or as likely one as another."""
UNKNOWN = -2
"""Predicted index where the likelihoods are not finite numbers."""


def predictions(task: EvaluationTask, rows: Sequence[EvaluationRow], scores: Sequence[RowScore]) -> Array:
    """Return the index of the choice each row's answer is, NO_LABEL or UNKNOWN; [rows].

    By likelihood the choice of the largest summed log-likelihood; where two share it none was chosen, as by a model
    that says nothing: where the right answer is often listed first, the first of equals would be right.
    """
    if task.generates:
        texts = written(task, scores)
        found = [parse_label(text, row.choices) for text, row in zip(texts, rows, strict=True)]
        return np.array([NO_LABEL if each is None else each for each in found], np.float64)
    return most_likely(rows, scores, normalized=False)


def most_likely(rows: Sequence[EvaluationRow], scores: Sequence[RowScore], *, normalized: bool) -> Array:
    """Return the same of likelihoods, summed or by the characters of each choice; [rows]."""
    chosen = np.full(len(rows), float(UNKNOWN))
    for index, (row, score) in enumerate(zip(rows, scores, strict=True)):
        likelihoods = np.array(score.log_likelihoods, np.float64)
        if len(likelihoods) and np.isfinite(likelihoods).all():
            if normalized:
                likelihoods = likelihoods / np.array([max(each.characters, 1) for each in row.sequences])
            best = np.flatnonzero(likelihoods == likelihoods.max())
            chosen[index] = best[0] if len(best) == 1 else NO_LABEL
    return chosen
