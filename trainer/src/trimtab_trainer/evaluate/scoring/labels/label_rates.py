"""How often each label is said where it is right and where it is not: equal in all groups, odds are equalised.

Hardt, Price, Srebro 2016, "Equality of Opportunity in Supervised Learning": a prediction that depends on the group only
through the right answer has, of every label, one true positive rate and one false positive rate in all groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....contract import EvaluationTask
from ...rows import EvaluationRow, RowScore
from ...statistics import Array
from ..measure import Measure
from .label_metrics import label_statistics
from .predictions import UNKNOWN, predictions

RATED_LABELS = 10
"""Labels that are told of, those with the most rows: each has two tables."""
TRUE_RATE, FALSE_RATE = "truePositiveRate", "falsePositiveRate"


def label_rates(task: EvaluationTask, rows: Sequence[EvaluationRow], scores: Sequence[RowScore]) -> list[Measure]:
    """Return the true and the false positive rate of the labels with the most rows; NaN where no row is asked for it.

    The figures of each are called `truePositiveRate of <label>`, and likewise.
    """
    labels = list(task.labels or rows[0].choices)
    answers = np.array([row.answer for row in rows], np.float64)
    chosen = predictions(task, rows, scores)
    counts = np.bincount(answers.astype(np.int64), minlength=len(labels))
    rated = sorted(np.argsort(-counts, kind="stable")[:RATED_LABELS].tolist())
    every = label_statistics(answers, chosen, len(labels)).astype(np.float64)
    one = np.where(chosen == UNKNOWN, np.nan, 1.0)[:, None]
    columns = [at + part * len(labels) for part in range(3) for at in rated]
    statistics = np.concatenate([every[:, columns], one], axis=1)

    def rates(sums: Array) -> tuple[Array, Array]:
        hits, said, asked = np.split(sums[..., :-1], 3, axis=-1)
        with np.errstate(all="ignore"):
            return hits / asked, (said - hits) / (sums[..., -1:] - asked)

    return [
        Measure(
            tuple(f"{name} of {labels[at]}" for at in rated),
            statistics,
            values,
            name,
            np.full(len(rows), np.nan),
            lower_is_better=name == FALSE_RATE,
            range=(1.0, 0.0) if name == FALSE_RATE else (0.0, 1.0),
        )
        for name, values in ((TRUE_RATE, lambda sums: rates(sums)[0]), (FALSE_RATE, lambda sums: rates(sums)[1]))
    ]
