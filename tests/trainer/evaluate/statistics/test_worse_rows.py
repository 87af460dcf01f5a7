"""The share of rows that are worse: equal to the binomial's exact test, and held where a mean's test is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from trimtab_trainer.contract import Check, Threshold
from trimtab_trainer.evaluate.statistics import Array, Resampling, worse_check
from trimtab_trainer.evaluate.statistics.worse_rows import at_most


def check(loss: Array, clusters: list[int] | None = None, *, limit: float = 0.05, by: float = 0.5) -> Check:
    threshold = Threshold.model_validate(
        {"metric": "t/x", "maximumWorseRatio": limit, "worseBy": by, "confidence": 0.95}
    )
    resampling = Resampling(clusters or range(len(loss)), seed=1, resamples=400)
    return worse_check(0, threshold, loss, resampling)


@pytest.mark.parametrize(("count", "trials", "share"), [(0, 50, 0.05), (3, 200, 0.02), (40, 100, 0.4), (-1, 9, 0.5)])
def test_the_binomial_is_that_of_scipy(count: int, trials: int, share: float) -> None:
    assert at_most(count, trials, share) == pytest.approx(stats.binom.cdf(count, trials, share), rel=1e-9)


def test_independent_rows_are_tested_exactly() -> None:
    loss = np.zeros(200)
    loss[:3] = 4.0
    found = check(loss)
    assert found.estimate == pytest.approx(3 / 200)
    assert found.p_pass == pytest.approx(stats.binom.cdf(3, 200, 0.05), rel=1e-6)
    assert found.p_fail == pytest.approx(stats.binom.sf(2, 200, 0.05), rel=1e-6)


def test_a_loss_that_is_not_above_the_amount_does_not_count() -> None:
    assert check(np.full(100, 0.5)).estimate == 0.0
    assert check(np.full(100, 0.51)).estimate == 1.0


def test_a_row_without_a_figure_counts_as_worse() -> None:
    loss = np.zeros(100)
    loss[0] = math.nan
    assert check(loss).estimate == pytest.approx(0.01)


def test_fewer_rows_than_hold_one_of_the_share_do_not_pass() -> None:
    few, enough = check(np.zeros(50)), check(np.zeros(60))
    assert few.p_pass == pytest.approx(0.95**50)
    assert few.rows_needed == 59
    assert enough.p_pass is not None
    assert enough.p_pass <= 0.05


def test_rows_of_a_cluster_count_as_one() -> None:
    random = np.random.default_rng(5)
    passed = 0
    for _ in range(200):
        loss = np.repeat((random.random(60) < 0.05).astype(np.float64), 10)
        found = check(loss, np.repeat(np.arange(60), 10).tolist())
        assert found.p_pass is not None
        passed += found.p_pass <= 0.05
    assert passed / 200 <= 0.06


def test_a_share_at_the_limit_passes_as_rarely_as_promised_however_bad_its_rows() -> None:
    for rows in (20, 50, 100, 200, 500, 2_000):
        chances = stats.binom.pmf(np.arange(rows + 1), rows, 0.02)
        passed = sum(chance for k, chance in enumerate(chances) if at_most(k, rows, 0.02) <= 0.05)
        assert passed <= 0.05 + 1e-9
