"""Whether a classifier's odds are equalised: the widest gap between groups of all its labels' rates, beyond chance.

Of each label there are two rates, of rows where it is right and of rows where it is not (`label_rates`), each with a
gap between the groups that have enough of these rows. Each gap's lower bound is simultaneous over the groups; over the
rates they are made so by Bonferroni: of m rates each has (1 - confidence) / m.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ....contract import Check, EvaluationTask, Threshold
from ....contract.evaluation import DEFAULT_GAP_CONFIDENCE, DEFAULT_GROUP_ROWS, FIGURE_LENGTH
from ...rows import EvaluationRow, RowScore
from ...statistics import Indices, Part, Partition, Resampling, gap, partition
from ..labels.label_rates import FALSE_RATE, TRUE_RATE
from ..labels.predictions import UNKNOWN, predictions
from ..measure import ratio

BOUND = "maximumOddsGap"


@dataclass(frozen=True)
class Rate:
    """How often a label is said where it is right, or where it is not.

    Attributes:
        figure: its name, that of the label included.
        rows: indices of the rows that it is of.
        groups: of these rows.
    """

    name: str
    label: int
    figure: str
    rows: Indices
    groups: Partition

    @property
    def compared(self) -> bool:
        """Whether at least two groups have enough of these rows."""
        return len(self.groups.judged) > 1


def rates(task: EvaluationTask, rows: Sequence[EvaluationRow], resampling: Resampling, minimum: int) -> Iterator[Rate]:
    """Yield every rate of a classification, with the groups that have at least `minimum` of its rows.

    It is known from labels and groups alone, before anything is answered.
    """
    answers = np.array([row.answer for row in rows], np.int64)
    groups, labels = [row.group for row in rows], list(task.labels or rows[0].choices)
    for label, said in enumerate(labels):
        right = answers == label
        # Of two labels each false positive rate is what is left of the other's true positive rate.
        for name, asked in ((TRUE_RATE, right), (FALSE_RATE, ~right))[: 1 if len(labels) == 2 else 2]:
            among = np.flatnonzero(asked)
            found = partition(groups, resampling, minimum_rows=minimum, among=among)
            yield Rate(name, label, f"{name} of {said}"[:FIGURE_LENGTH], among, found)


def odds_check(  # noqa: PLR0917 a bound, and the rows and answers that it is of
    index: int,
    threshold: Threshold,
    task: EvaluationTask,
    rows: Sequence[EvaluationRow],
    scores: Sequence[RowScore],
    resampling: Resampling,
) -> Check:
    """Return what is known about a threshold's gap of odds; without an estimate where no rate could be compared."""
    minimum = threshold.minimum_group_rows or DEFAULT_GROUP_ROWS
    judged = [each for each in rates(task, rows, resampling, minimum) if each.compared]
    chosen, nothing = predictions(task, rows, scores), Check(threshold=index, bound=BOUND)
    if not judged or (chosen == UNKNOWN).any():
        return nothing
    alpha = (1 - (threshold.confidence or DEFAULT_GAP_CONFIDENCE)) / len(judged)
    parts = [_parts(chosen == rate.label, rate.groups, resampling) for rate in judged]
    resampled = iter(resampling.figures([part for of_rate in parts for part in of_rate]))
    found = []
    for rate, of_rate in zip(judged, parts, strict=True):
        estimates = np.array([part.total[0] for part in of_rate])
        draws = np.concatenate([next(resampled) for _ in of_rate], axis=1)
        lower = rate.name == FALSE_RATE
        distance = gap(estimates, draws, rate.groups, lower_is_better=lower, confidence=1 - alpha)
        if distance is None:
            return nothing
        found.append((distance, rate))
    widest, rate = max(found, key=lambda each: (each[0].low, each[0].gap))
    return Check(
        threshold=index,
        bound=BOUND,
        estimate=widest.gap,
        low=widest.low,
        worst=rate.groups.names[widest.worst],
        best=rate.groups.names[widest.best],
        figure=rate.figure,
    )


def _parts(said: npt.NDArray[np.bool_], groups: Partition, resampling: Resampling) -> list[Part]:
    """Return of each group the share of its rows of which a label is said."""
    statistics = np.stack([said.astype(np.float64), np.ones(len(said))], axis=1)
    return [resampling.part(statistics, ratio, rows) for rows in groups.rows]
