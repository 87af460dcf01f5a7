"""The bootstrap: what is drawn, and that the spread of it is the known one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from trimtab_trainer.evaluate.scoring.measure import ratio
from trimtab_trainer.evaluate.statistics import Resampling
from trimtab_trainer.evaluate.statistics import bootstrap as module

from tests.trainer.evaluate.statistics.means import of_mean


def test_the_spread_is_that_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    found = of_mean(values, resamples=10_000)
    error = values.std(ddof=1) / math.sqrt(400)
    assert found.estimate == pytest.approx(values.mean())
    assert found.standard_error == pytest.approx(error, rel=0.03)
    low, high = found.interval()
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.1 * error)


def test_rows_of_a_cluster_are_drawn_together() -> None:
    values = np.repeat(np.random.default_rng(2).normal(0, 1, 50), 8)[:, None]
    clusters = np.repeat(np.arange(50), 8)
    resampling = Resampling(clusters.tolist(), seed=1, resamples=4_000)
    part = resampling.part(np.hstack([values, np.ones((400, 1))]), ratio)
    found = resampling.distributions([part])[0][0]
    assert resampling.clusters == found.units == 50
    assert found.standard_error == pytest.approx(values[::8].std(ddof=1) / math.sqrt(50), rel=0.05)


def test_the_same_seed_gives_the_same_resamples_and_another_one_others() -> None:
    values = np.random.default_rng(3).normal(0, 1, 100)
    first, again, other = (of_mean(values, seed=seed).resampled for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_two_figures_come_from_the_same_resamples() -> None:
    values = np.random.default_rng(4).normal(0, 1, (100, 1))
    resampling = Resampling(range(100), seed=1, resamples=500)
    parts = [resampling.part(values + shift, lambda sums: sums / 100) for shift in (0.0, 5.0)]
    (one,), (other,) = resampling.distributions(parts)
    assert one.against(other, np.subtract).resampled == pytest.approx(-5.0)


def test_a_part_of_the_rows_is_resampled_with_the_whole() -> None:
    values = np.arange(60, dtype=np.float64)[:, None]
    resampling = Resampling((np.arange(60) // 2).tolist(), seed=1, resamples=300)
    rows = np.arange(1, 60, 3)
    some = resampling.part(values, lambda sums: sums, rows)
    rest = resampling.part(values, lambda sums: sums, np.setdiff1d(np.arange(60), rows))
    whole = resampling.part(values, lambda sums: sums)
    of_some, of_rest, of_whole = resampling.figures([some, rest, whole])
    assert of_some + of_rest == pytest.approx(of_whole)


def test_many_clusters_are_bundled_without_changing_the_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(5).exponential(1, (3_000, 1))
    statistics = np.hstack([values, np.ones((3_000, 1))])
    monkeypatch.setattr(module, "MAXIMUM_UNITS", 700)
    resampling = Resampling(range(3_000), seed=1, resamples=4_000)
    found = resampling.distributions([resampling.part(statistics, ratio)])[0][0]
    assert (resampling.clusters, found.units) == (3_000, 700)
    assert found.estimate == pytest.approx(values.mean())
    assert found.standard_error == pytest.approx(values.std() / math.sqrt(3_000), rel=0.1)
