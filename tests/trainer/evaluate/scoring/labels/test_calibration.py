"""Brier score and calibration error: worked by hand, and scikit-learn's where it has them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss
from trimtab_trainer.contract import Metric
from trimtab_trainer.evaluate.rows import EvaluationRow, RowScore
from trimtab_trainer.evaluate.scoring.labels.calibration import calibration


def rows_of(answers: list[int]) -> list[EvaluationRow]:
    return [
        EvaluationRow(number, f"line {number}", number, None, False, "p", "r", choices=("no", "yes"), answer=answer)
        for number, answer in enumerate(answers)
    ]


def scores_of(probabilities: list[float]) -> list[RowScore]:
    """Return scores of two choices; a constant in the likelihoods changes no probability."""
    return [RowScore(number, (math.log(1 - p) - 40.0, math.log(p) - 40.0)) for number, p in enumerate(probabilities)]


def figure(metric: Metric, answers: list[int], probabilities: list[float]) -> float:
    measure = calibration(metric, rows_of(answers), scores_of(probabilities))
    return float(measure.values(measure.statistics.sum(axis=0))[0])


def test_the_brier_score_of_two_labels_is_twice_that_of_scikit_learn() -> None:
    random = np.random.default_rng(1)
    probabilities, answers = random.uniform(0.01, 0.99, 200), random.integers(0, 2, 200)
    ours = figure(Metric.BRIER_SCORE, answers.tolist(), probabilities.tolist())
    assert ours == pytest.approx(2 * brier_score_loss(answers, probabilities))


def test_the_calibration_error_is_worked_by_hand() -> None:
    # In the bin from 0.9: twice 0.95, one of them right. In the bin from 0.6: 0.65, right.
    error = figure(Metric.CALIBRATION_ERROR, [1, 0, 1], [0.95, 0.95, 0.65])
    assert error == pytest.approx((abs(2 * 0.95 - 1) + abs(0.65 - 1)) / 3)


def test_probabilities_that_come_true_are_calibrated() -> None:
    answers = [1] * 75 + [0] * 25
    assert figure(Metric.CALIBRATION_ERROR, answers, [0.75] * 100) == pytest.approx(0.0, abs=1e-9)


def test_a_likelihood_that_is_no_number_makes_the_figures_unknown() -> None:
    scores = [*scores_of([0.5]), RowScore(1, (math.nan, -1.0))]
    for metric in (Metric.BRIER_SCORE, Metric.CALIBRATION_ERROR):
        measure = calibration(metric, rows_of([1, 1]), scores)
        assert math.isnan(measure.values(measure.statistics.sum(axis=0))[0])
