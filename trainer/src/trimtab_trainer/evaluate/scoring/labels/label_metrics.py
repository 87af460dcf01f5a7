"""Metrics of labels and choices: per-row sufficient statistics, and the figures that sums of them give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....contract import EvaluationTask, Metric
from ....contract.evaluation import RESULTS
from ...rows import EvaluationRow, RowScore
from ...statistics import Array
from ..measure import Measure, mean
from .predictions import NO_LABEL, UNKNOWN, most_likely, predictions


def choice_measure(
    metric: Metric, task: EvaluationTask, rows: Sequence[EvaluationRow], scores: Sequence[RowScore]
) -> Measure:
    """Return a metric of what was chosen: accuracy, or precision, recall or F1 over the labels.

    Raises:
        ValueError: a row has no right answer.
    """
    normalized = metric is Metric.ACCURACY_NORMALIZED
    chosen = most_likely(rows, scores, normalized=True) if normalized else predictions(task, rows, scores)
    answers = np.array([NO_LABEL if row.answer is None else row.answer for row in rows], np.float64)
    if (answers == NO_LABEL).any():
        raise ValueError(f"task {task.name}: a row without a right answer")
    correct = np.where(chosen == UNKNOWN, np.nan, chosen == answers)
    if metric in (Metric.ACCURACY, Metric.ACCURACY_NORMALIZED):
        return mean(RESULTS[metric][0], correct, range=(0.0, 1.0))
    count = len(task.labels or rows[0].choices)
    statistics = label_statistics(answers, chosen, count)
    at = (Metric.PRECISION, Metric.RECALL, Metric.F1).index(metric)

    def values(sums: Array) -> Array:
        by_label, micro = label_figures(sums)
        return np.stack([macro(by_label[..., at, :], sums), micro[..., at]], axis=-1)

    return Measure(
        RESULTS[metric], statistics, values, "accuracy", correct, range=(0.0, 1.0), kinds=answers, kinds_count=count
    )


def label_statistics(answers: Array, chosen: Array, labels: int) -> Array:
    """Return true positives, predictions and answers of each label: [rows, 3 * labels]."""
    each = np.arange(labels)
    answered, predicted = answers[:, None] == each, chosen[:, None] == each
    # Half of the memory of a float32: there may be 200 labels and many rows, and NaN must fit in.
    statistics = np.concatenate([answered & predicted, predicted, answered], axis=1).astype(np.float16)
    statistics[chosen == UNKNOWN] = np.nan
    return statistics  # type: ignore[return-value]  # widened when rows are summed


def label_figures(sums: Array) -> tuple[Array, Array]:
    """Return precision, recall and F1, by label and over all labels (micro), from sums of `label_statistics`.

    scikit-learn's definitions with zero_division=0: 0 where a label is neither predicted nor an answer.

    Returns:
        [..., 3, labels] and [..., 3].
    """
    parts = sums.reshape(*sums.shape[:-1], 3, -1)

    def figures(hits: Array, predicted: Array, answered: Array) -> Array:
        unknown = np.isnan(hits)
        with np.errstate(all="ignore"):
            found = np.stack([hits / predicted, hits / answered, 2 * hits / (predicted + answered)], axis=-1)
        return np.where(unknown[..., None], np.nan, np.nan_to_num(found))

    by_label = np.moveaxis(figures(parts[..., 0, :], parts[..., 1, :], parts[..., 2, :]), -1, -2)
    total = parts.sum(axis=-1)
    return by_label, figures(total[..., 0], total[..., 1], total[..., 2])


def macro(by_label: Array, sums: Array) -> Array:
    """Return the mean over the labels that are the answer or the prediction of some row, [...].

    What nobody asked for and nobody answered says nothing of a model (scikit-learn's default `labels`).

    Args:
        by_label: [..., labels].
        sums: of `label_statistics`, [..., 3 * labels].
    """
    parts = sums.reshape(*sums.shape[:-1], 3, -1)
    absent = parts[..., 1, :] + parts[..., 2, :] == 0  # of unknown predictions NaN, which stays
    with np.errstate(all="ignore"):
        return np.asarray(np.where(absent, 0.0, by_label).sum(axis=-1) / (~absent).sum(axis=-1), np.float64)
