"""Scores of Student's t against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from trimtab_trainer.evaluate.statistics.student import normal_score, t_score


@pytest.mark.parametrize("freedom", [19, 50, 1_000])
def test_scores_of_students_t_are_those_of_scipy(freedom: int) -> None:
    for t in (-3.0, -0.5, 1.7, 4.0):
        want = stats.norm.ppf(stats.t.cdf(t, freedom))
        assert normal_score(t, freedom) == pytest.approx(want, abs=2e-3)
        assert t_score(np.array(abs(want)), np.array(freedom)) == pytest.approx(abs(t), abs=5e-3)
