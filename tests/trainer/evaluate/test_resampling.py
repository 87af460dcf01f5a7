"""The bootstrap and its tests: known answers, and the level they promise."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]
from trimtab_trainer.evaluate import resampling as module
from trimtab_trainer.evaluate.metrics import ratio
from trimtab_trainer.evaluate.resampling import (
    MINIMUM_CLUSTERS,
    Array,
    Distribution,
    Resampling,
    normal_score,
    p_at_least,
    p_at_most,
    rows_needed,
    t_score,
)

Draw = Callable[[np.random.Generator, tuple[int, int]], Array]


def of_means(values: Array, *, resamples: int = 2_000, seed: int = 1) -> list[Distribution]:
    """Return the distribution of the mean of each column; every row is a cluster."""
    rows = len(values)
    part = Resampling(range(rows), seed=seed, resamples=resamples).part(values, lambda sums: sums / rows)
    return Resampling(range(rows), seed=seed, resamples=resamples).distributions([part])[0]


def of_mean(values: Array | list[float], **settings: int) -> Distribution:
    return of_means(np.asarray(values, np.float64)[:, None], **settings)[0]


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


def test_normal_data_are_tested_as_students_t_does() -> None:
    random = np.random.default_rng(6)
    for rows in (25, 100):
        values = random.normal(0.1, 1, rows)
        found = of_mean(values, resamples=20_000)
        for bound in (0.0, 0.2, 0.4):
            want = stats.ttest_1samp(values, bound, alternative="less").pvalue
            assert p_at_least(found, bound) == pytest.approx(want, abs=0.02)


def test_one_wrong_answer_of_a_hundred_is_judged_as_exactly_as_by_the_binomial() -> None:
    found = of_mean([0.0] + [1.0] * 99, resamples=20_000)
    exact = stats.binom.cdf(1, 100, 0.05)
    naive = (found.resampled <= 0.95).mean()
    assert naive < 0.01 < exact
    assert exact <= p_at_most(found, 0.95, edge=1.0, span=1.0) < 0.09


def test_what_was_never_seen_is_not_excluded_by_few_rows() -> None:
    all_right = {rows: of_mean([1.0] * rows) for rows in (20, 50, 200)}
    p = {rows: p_at_most(found, 0.95, edge=1.0, span=1.0) for rows, found in all_right.items()}
    assert p == {rows: pytest.approx(0.95**rows) for rows in (20, 50, 200)}
    no_loss = of_mean([0.0] * 97 + [-1.0] * 3)
    assert p_at_least(no_loss, 0.02, edge=0.0, span=1.0) >= 0.98**100


def test_figures_that_never_vary_are_on_one_side_of_a_bound_or_on_it() -> None:
    constant = of_mean([0.25] * 40)
    assert [p_at_least(constant, bound) for bound in (0.2, 0.25, 0.3)] == [1.0, 1.0, 0.0]
    assert [p_at_most(constant, bound) for bound in (0.2, 0.25, 0.3)] == [0.0, 1.0, 1.0]


def test_a_bound_beyond_all_resamples_has_a_small_p_with_few_resamples_too() -> None:
    values = np.random.default_rng(7).normal(0, 1, 400)
    found = of_mean(values, resamples=200)
    p = [p_at_least(found, bound) for bound in (0.1, 0.2, 0.3, 0.5, 1.0)]
    assert p == sorted(p, reverse=True)
    assert p[-1] < 1e-6 < p[0]


def test_too_few_clusters_exclude_nothing() -> None:
    for count, sure in ((MINIMUM_CLUSTERS - 1, False), (MINIMUM_CLUSTERS, True)):
        values = np.random.default_rng(8).normal(-5, 0.1, count)
        assert (p_at_least(of_mean(values), 0.0) < 0.05) is sure


def test_a_figure_that_is_no_number_excludes_nothing_and_has_no_interval() -> None:
    unknown = of_mean([math.nan] + [1.0] * 50)
    assert (p_at_least(unknown, 9.0), p_at_most(unknown, -9.0)) == (1.0, 1.0)
    assert np.isnan(unknown.interval()).all()
    assert rows_needed(unknown, 0.02, 0.02, rows=51, confidence=0.95) is None


def test_a_figure_that_a_row_alone_defines_excludes_nothing() -> None:
    # Of 40 rows one has a number: leaving it out, or not drawing it, leaves nothing.
    statistics = np.zeros((40, 2))
    statistics[7] = 3.0, 1.0
    resampling = Resampling(range(40), seed=1, resamples=500)
    found = resampling.distributions([resampling.part(statistics, ratio)])[0][0]
    assert found.estimate == 3.0
    assert p_at_least(found, 100.0) == 1.0
    assert np.isnan(found.interval()).all()


# Draws whose mean is exactly 0.02, the tolerance: rare losses, frequent changes, long tails to either side.
AT_THE_TOLERANCE: dict[str, tuple[Draw, float | None]] = {
    "rare losses": (lambda r, size: (r.random(size) < 0.02).astype(np.float64), 1.0),
    "losses and wins": (lambda r, size: _changes(r.random(size), 0.04, 0.02), 1.0),
    "normal": (lambda r, size: r.normal(0.02, 0.25, size), None),
    "long tail of losses": (lambda r, size: 0.02 + 0.25 * (r.exponential(1, size) - 1), None),
    "long tail of wins": (lambda r, size: 0.02 - 0.25 * (r.exponential(1, size) - 1), None),
}


def _changes(uniform: Array, lost: float, won: float) -> Array:
    return (uniform < lost).astype(np.float64) - (uniform > 1 - won)


@pytest.mark.parametrize("name", AT_THE_TOLERANCE)
@pytest.mark.parametrize("rows", [200, 500])
def test_a_loss_of_exactly_the_tolerance_passes_as_rarely_as_promised(name: str, rows: int) -> None:
    draw, span = AT_THE_TOLERANCE[name]
    draws = 1_500
    values = draw(np.random.default_rng(9), (rows, draws))
    edge = None if span is None else 0.0
    p = np.array([p_at_least(each, 0.02, edge=edge, span=span) for each in of_means(values, resamples=600)])
    # 6 % and twice the error that so many draws have.
    assert (p <= 0.05).mean() <= 0.06 + 2 * math.sqrt(0.06 * 0.94 / draws)


@pytest.mark.parametrize(("rows", "minimum"), [(50, 0.5), (100, 0.8), (200, 0.95), (200, 0.99)])
def test_an_accuracy_at_its_minimum_is_rarely_passed_and_rarely_failed(rows: int, minimum: float) -> None:
    passed = failed = 0.0
    for right in range(rows + 1):
        chance = stats.binom.pmf(right, rows, minimum)
        if chance > 1e-4:
            found = of_mean([1.0] * right + [0.0] * (rows - right), resamples=1_000)
            passed += chance * (p_at_most(found, minimum, edge=1.0, span=1.0) <= 0.05)
            failed += chance * (p_at_least(found, minimum, edge=0.0, span=1.0) <= 0.05)
    assert max(passed, failed) <= 0.05


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


@pytest.mark.parametrize("freedom", [19, 50, 1_000])
def test_scores_of_students_t_are_those_of_scipy(freedom: int) -> None:
    for t in (-3.0, -0.5, 1.7, 4.0):
        want = stats.norm.ppf(stats.t.cdf(t, freedom))
        assert normal_score(t, freedom) == pytest.approx(want, abs=2e-3)
        assert t_score(np.array(abs(want)), np.array(freedom)) == pytest.approx(abs(t), abs=5e-3)
