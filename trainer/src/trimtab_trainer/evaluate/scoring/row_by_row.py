"""Rows beside each other: histograms of a per-row figure, wins and losses, and examples to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...contract import EvaluationTask, TaskType
from ..results import Example, Histogram
from ..rows import EvaluationRow, RowScore
from ..statistics import Array, finite
from .labels.predictions import NO_LABEL, UNKNOWN, predictions
from .measure import Measure

BINS = 24
OUTERMOST = 0.005
"""Share of rows on either side that are counted in the outermost bin, so that a few do not flatten the rest."""
EXAMPLES = 10
EXAMPLE_CHARACTERS = 2_000
TIE = 1e-6
"""Relative difference of a row's figure that rounding alone can make."""


def histogram(target: Measure, baseline: Measure | None) -> Histogram | None:
    """Return how often a per-row figure lies between two edges, or None where no row has one."""
    sides = [each.row_values[np.isfinite(each.row_values)] for each in (target, baseline) if each is not None]
    together = np.concatenate(sides)
    if len(together) == 0:
        return None
    if np.isin(together, (0.0, 1.0)).all():
        edges = np.array([0.0, 0.5, 1.0])
    else:
        low, high = np.quantile(together, [OUTERMOST, 1 - OUTERMOST])
        if not high > low:
            low, high = together.min() - 0.5, together.max() + 0.5
        edges = np.linspace(low, high, BINS + 1)
    counts = [np.histogram(np.clip(side, edges[0], edges[-1]), edges)[0].tolist() for side in sides]
    return Histogram(
        figure=target.row_figure,
        edges=edges.tolist(),
        target=counts[0],
        baseline=counts[1] if baseline is not None else None,
    )


@dataclass(frozen=True)
class RowByRow:
    """Wins, losses and ties against the baseline, and the rows that tell most."""

    wins: int
    losses: int
    ties: int
    best_wins: list[Example]
    worst_losses: list[Example]
    worst: list[Example]


def row_by_row(
    task: EvaluationTask,
    rows: Sequence[EvaluationRow],
    target: tuple[Measure, Sequence[RowScore]],
    baseline: tuple[Measure, Sequence[RowScore]] | None,
) -> RowByRow:
    """Compare rows by the headline metric's per-row figure; a row without one counts as the worst there is.

    Rows of equal figures are ordered by the log-likelihood of the right answer where there is one, then by number.
    """
    better = _goodness(target[0])
    sure = _right_likelihood(rows, target[1])
    answers = [_answers(task, rows, each[1], each[0]) for each in (target, baseline) if each is not None]
    figures = [each[0].row_values for each in (target, baseline) if each is not None]

    def examples(order: Array, second: Array, chosen: npt.NDArray[np.bool_]) -> list[Example]:
        numbers = np.arange(len(rows))
        ranked = np.lexsort((numbers, second, order))
        return [
            _example(rows[at], [each[at] for each in answers], [float(each[at]) for each in figures])
            for at in ranked[chosen[ranked]][:EXAMPLES]
        ]

    everything = np.ones(len(rows), np.bool_)
    worst = examples(better, sure, everything)
    if baseline is None:
        return RowByRow(0, 0, 0, [], [], worst)
    other = _goodness(baseline[0])
    with np.errstate(invalid="ignore"):
        gain = np.where(better == other, 0.0, better - other)
        size = np.maximum(np.abs(better), np.abs(other))
        gain[np.abs(gain) <= TIE * np.where(np.isfinite(size), size, 0.0)] = 0.0
        surer = np.nan_to_num(sure - _right_likelihood(rows, baseline[1]))
    return RowByRow(
        wins=int((gain > 0).sum()),
        losses=int((gain < 0).sum()),
        ties=int((gain == 0).sum()),
        best_wins=examples(-gain, -surer, gain > 0),
        worst_losses=examples(gain, surer, gain < 0),
        worst=worst,
    )


def _goodness(measure: Measure) -> Array:
    """Return the per-row figure, more is better, -inf where there is none."""
    signed = -measure.row_values if measure.lower_is_better else measure.row_values
    return np.where(np.isnan(signed), -np.inf, signed)


def _right_likelihood(rows: Sequence[EvaluationRow], scores: Sequence[RowScore]) -> Array:
    found = np.zeros(len(rows))
    for index, (row, score) in enumerate(zip(rows, scores, strict=True)):
        if row.answer is not None and row.answer < len(score.log_likelihoods):
            value = score.log_likelihoods[row.answer]
            found[index] = value if math.isfinite(value) else -np.inf
    return found


def _answers(
    task: EvaluationTask, rows: Sequence[EvaluationRow], scores: Sequence[RowScore], measure: Measure
) -> list[str]:
    """Return what each row was answered, for people."""
    if task.type in (TaskType.CLASSIFICATION, TaskType.MULTIPLE_CHOICE) and not task.generates:
        return [_choice(*each) for each in zip(rows, scores, predictions(task, rows, scores), strict=True)]
    if task.type is TaskType.PREFERENCE:
        return [_pair(score) for score in scores]
    return [
        score.text if score.text is not None else _likelihood(task, row, score, float(figure), measure.row_figure)
        for row, score, figure in zip(rows, scores, measure.row_values, strict=True)
    ]


def _choice(row: EvaluationRow, score: RowScore, chosen: float) -> str:
    if chosen == NO_LABEL:
        return "two choices that are as likely as each other"
    if chosen == UNKNOWN or row.answer is None:
        return "log-likelihoods that are not finite numbers"
    own, right = score.log_likelihoods[int(chosen)], score.log_likelihoods[row.answer]
    return f"{row.choices[int(chosen)]} (log-likelihood {own:.3f}; of the right answer {right:.3f})"


def _pair(score: RowScore) -> str:
    chosen, rejected, *base = score.log_likelihoods
    if not all(map(math.isfinite, score.log_likelihoods)):
        return "log-likelihoods that are not finite numbers"
    told = "the chosen" if chosen > rejected else "the rejected" if chosen < rejected else "neither"
    gained = [own - before for own, before in zip((chosen, rejected), base, strict=True)]
    return (
        f"{told} (log-likelihoods: chosen {chosen:.3f}, rejected {rejected:.3f}; "
        f"gained over the base {gained[0]:+.3f}, {gained[1]:+.3f})"
    )


def _likelihood(task: EvaluationTask, row: EvaluationRow, score: RowScore, figure: float, name: str) -> str:
    if task.type is TaskType.HARNESS:
        return ", ".join(f"{key} {value:g}" for key, value in sorted((score.figures or {}).items()))
    if not math.isfinite(figure):
        return "a log-likelihood that is not a finite number"
    return f"{figure:.3f} {name}, over {sum(each.counted for each in row.sequences)} tokens"


def _example(row: EvaluationRow, answers: list[str], figures: list[float]) -> Example:
    return Example(
        number=row.number,
        place=row.place,
        prompt=_cut(row.prompt),
        reference=_cut(row.reference),
        target=_cut(answers[0]),
        baseline=_cut(answers[1]) if len(answers) > 1 else None,
        target_score=finite(figures[0]),
        baseline_score=finite(figures[1]) if len(figures) > 1 else None,
    )


def _cut(text: str) -> str:
    return text if len(text) <= EXAMPLE_CHARACTERS else text[: EXAMPLE_CHARACTERS - 1] + "\u2026"
