"""How many rows would decide."""

from __future__ import annotations

import numpy as np
import pytest
from trimtab_trainer.evaluate.statistics import MINIMUM_CLUSTERS, Array, p_at_least, p_at_most, rows_needed

from tests.trainer.evaluate.statistics.means import of_mean, of_means


def test_the_rows_that_are_said_to_be_needed_decide_four_times_of_five() -> None:
    random, tolerance = np.random.default_rng(10), 0.02
    pilot = of_mean(_centred(random.normal(0, 0.15, 200)))
    needed = rows_needed(pilot, tolerance, tolerance, rows=200, confidence=0.95)
    assert needed is not None
    assert needed == pytest.approx(((1.645 + 0.842) * 0.15 / tolerance) ** 2, rel=0.25)
    p = [p_at_least(each, tolerance) for each in of_means(random.normal(0, 0.15, (needed, 500)), resamples=500)]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.8, abs=0.08)


def test_as_many_rows_are_needed_as_decide_anything_at_all() -> None:
    certain = of_mean([1.0 + number / 1000 for number in range(10)])
    assert p_at_least(certain, 0.5) == 1  # with so few
    assert rows_needed(certain, 0.5, None, rows=30, confidence=0.95) == 3 * MINIMUM_CLUSTERS


@pytest.mark.parametrize("sigma", [0.3, 0.8, 1.5])
def test_what_a_test_does_not_decide_needs_more_rows_than_there_are(sigma: float) -> None:
    found = of_mean(np.random.default_rng(3).lognormal(0, sigma, 60))
    for limit in found.estimate * np.array([0.8, 0.95, 1.05, 1.1, 1.3, 1.6, 2.0, 2.5]):
        p = min(p_at_least(found, limit), p_at_most(found, limit))
        needed = rows_needed(found, limit, None, rows=60, confidence=0.95, p=p)
        assert needed is not None
        assert p <= 0.05 or needed > 60


def test_rows_needed_count_clusters_by_their_size() -> None:
    values = _centred(np.random.default_rng(11).normal(0, 0.15, 200))
    alone = rows_needed(of_mean(values), 0.02, 0.02, rows=200, confidence=0.95)
    five_alike = rows_needed(of_mean(values), 0.02, 0.02, rows=1_000, confidence=0.95)
    assert alone is not None
    assert five_alike == pytest.approx(5 * alone, abs=5)


def test_no_number_of_rows_decides_at_the_bound() -> None:
    found = of_mean([0.0, 1.0] * 50)
    assert rows_needed(found, found.estimate, None, rows=100, confidence=0.95) is None
    assert rows_needed(found, found.estimate + 1e-9, None, rows=100, confidence=0.95) is None


def _centred(values: Array) -> Array:
    return np.asarray(values - values.mean(), np.float64)
