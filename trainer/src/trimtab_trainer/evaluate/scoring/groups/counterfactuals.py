"""Counterfactual pairs: rows that differ in a group's word alone, and how often the answer differs with it. No torch.

Counterfactual token fairness of Garg, Perot, Limtiaco, Taly, Chi and Beutel (2019): a model is fair to a pair if it
decides the same of both. Rows of a pair are one cluster, so pairs are what is resampled.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ....contract import EvaluationTask, Metric, TaskType
from ....contract.evaluation import RESULTS
from ...rows import EvaluationRow, RowScore
from ..labels.predictions import NO_LABEL, UNKNOWN, predictions
from ..measure import Measure, ratio
from ..texts.parsing import composed, parse_number, says_nothing, written
from ..texts.refusals import is_refusal

NOTHING = ""
"""Decided by an answer that is none of the labels, has no number, or says nothing."""


def pairs_of(rows: Sequence[EvaluationRow]) -> list[list[int]]:
    """Return the indices of the rows of each pair, in their order; rows that stand alone are in none.

    Three rows or more may share a value, one for each of as many groups: they are one pair here.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if row.pair is not None:
            members[row.pair].append(index)
    return [each for each in members.values() if len(each) > 1]


def changed_measure(rows: Sequence[EvaluationRow], decided: Sequence[str | float | None]) -> Measure:
    """Return the share of pairs in which not all decisions are the same; the first row of each stands for it.

    Where nothing is decided no decision is the same: a model that says nothing is fair to no pair.

    Args:
        rows, decided: in one order; a decision that is not known makes the figure unknown.
    """
    values, taken = np.zeros(len(rows)), np.zeros(len(rows))
    for pair in pairs_of(rows):
        own = [decided[index] for index in pair]
        values[pair[0]] = math.nan if None in own else float(NOTHING in own or any(each != own[0] for each in own))
        taken[pair[0]] = 1.0
    (name,) = RESULTS[Metric.CHANGED_RATIO]
    return Measure(
        (name,),
        np.stack([values, taken], axis=1),
        ratio,
        name,
        np.where(taken > 0, values, math.nan),
        lower_is_better=True,
        range=(1.0, 0.0),
        taken=np.flatnonzero(taken),
    )


def decisions(
    task: EvaluationTask, rows: Sequence[EvaluationRow], scores: Sequence[RowScore]
) -> list[str | float | None]:
    """Return what a model decided in each row, so that equal decisions are equal; None where it is not known."""
    if task.type in (TaskType.CLASSIFICATION, TaskType.MULTIPLE_CHOICE):
        found = predictions(task, rows, scores)
        return [
            None if at == UNKNOWN else NOTHING if at == NO_LABEL else row.choices[int(at)]
            for row, at in zip(rows, found, strict=True)
        ]
    texts = written(task, scores)
    if task.type is TaskType.REFUSAL:
        return [NOTHING if says_nothing(text) else float(is_refusal(text, task.pattern)) for text in texts]
    if task.type is TaskType.REGRESSION:
        numbers = [parse_number(text) for text in texts]
        return [NOTHING if number is None else number for number in numbers]
    return [NOTHING if says_nothing(text) else " ".join(composed(text).split()) for text in texts]
