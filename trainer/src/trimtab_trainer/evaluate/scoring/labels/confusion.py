"""The confusion matrix of a classification, and its figures by label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....contract import EvaluationTask
from ...results import Confusion, LabelFigure
from ...rows import EvaluationRow, RowScore
from ...statistics import Array, finite
from .label_metrics import label_figures, label_statistics
from .predictions import predictions


def confusion(
    task: EvaluationTask,
    rows: Sequence[EvaluationRow],
    target: Sequence[RowScore],
    baseline: Sequence[RowScore] | None,
) -> Confusion:
    """Return counts by right and predicted label; the last column is of answers that are no label, or unknown."""
    labels = list(task.labels or rows[0].choices)
    answers = np.array([row.answer for row in rows], np.float64)
    chosen = predictions(task, rows, target)
    by_label, _ = label_figures(label_statistics(answers, chosen, len(labels)).astype(np.float64).sum(axis=0))
    support = np.bincount(answers.astype(np.int64), minlength=len(labels))
    return Confusion(
        labels=labels,
        target=_counts(answers, chosen, len(labels)),
        baseline=None if baseline is None else _counts(answers, predictions(task, rows, baseline), len(labels)),
        per_label=[
            LabelFigure(
                label=label,
                support=int(support[at]),
                precision=finite(by_label[0, at]),
                recall=finite(by_label[1, at]),
                f1=finite(by_label[2, at]),
            )
            for at, label in enumerate(labels)
        ],
    )


def _counts(answers: Array, chosen: Array, labels: int) -> list[list[int]]:
    column = np.where(chosen < 0, labels, chosen).astype(np.int64)
    counts = np.zeros((labels, labels + 1), np.int64)
    np.add.at(counts, (answers.astype(np.int64), column), 1)
    return [[int(each) for each in row] for row in counts]
