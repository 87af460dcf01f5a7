"""Tests of a resampled figure against a bound: known answers, and the level they promise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from trimtab_trainer.contract import Threshold
from trimtab_trainer.evaluate.scoring.measure import ratio
from trimtab_trainer.evaluate.statistics import (
    MINIMUM_CLUSTERS,
    MINIMUM_WEIGHT,
    Array,
    BrokenRow,
    Distribution,
    Figure,
    Resampling,
    bound_checks,
    p_at_least,
    p_at_most,
    rows_needed,
)

from tests.trainer.evaluate.statistics.means import of_mean, of_means

Draw = Callable[[np.random.Generator, tuple[int, int]], Array]


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


@pytest.mark.parametrize("giant", [1e60, 1e110, 1e160, 1e306, 1e308])
def test_one_number_as_large_as_floats_go_hides_no_loss_of_the_others(giant: float) -> None:
    found = of_mean([-giant] + [5.0] * 299)
    assert found.estimate < 0
    assert p_at_least(found, 0.1) > 0.05
    assert p_at_most(found, 0.1) > 0.05
    assert rows_needed(found, 0.1, 0.1, rows=300, confidence=0.95) is None


@pytest.mark.parametrize("scale", [1e-150, 1e-100, 1e100, 1e150])
def test_a_test_is_the_same_in_every_unit(scale: float) -> None:
    values = np.random.default_rng(9).gamma(2, 0.5, 100)
    found, scaled = of_mean(values), of_mean(values * scale)
    for bound in (0.9, 1.1, 1.3):
        assert p_at_least(scaled, bound * scale) == pytest.approx(p_at_least(found, bound), abs=1e-9)
        needed = rows_needed(found, bound, None, rows=100, confidence=0.95)
        assert rows_needed(scaled, bound * scale, None, rows=100, confidence=0.95) == needed


def test_weights_as_large_as_floats_go_are_weights() -> None:
    for largest in (1.0, 1e200, 1e305):
        even = replace(of_mean([1.0] * 50), weights=np.full(50, largest))
        assert even.effective_weight == pytest.approx(50)
        heavy = replace(even, weights=np.array([largest, *[largest / 1e6] * 49]))
        assert heavy.effective_weight == pytest.approx(1, abs=1e-3)
        assert p_at_least(heavy, 9.0) == 1.0


UNEVEN = (
    6,
    7,
    8,
    8,
    10,
    11,
    12,
    14,
    14,
    14,
    19,
    22,
    23,
    30,
    32,
    35,
    37,
    37,
    39,
    39,
    46,
    49,
    66,
    72,
    82,
    88,
    91,
    128,
    151,
)
"""Numbers of tokens of answers to questions of a reference; three longer ones follow."""


def test_answers_of_uneven_length_decide_what_is_far_from_the_limit_and_nothing_at_it() -> None:
    tokens = np.array([*UNEVEN, 182, 244, 372], np.float64)
    random = np.random.default_rng(21)
    resampling = Resampling(range(len(tokens)), seed=1, resamples=1_000)
    nats = random.normal(3.4, 0.6, (400, len(tokens)))
    p = {0.0: [], 0.7: []}  # type: dict[float, list[float]]
    for each in nats:
        statistics = np.stack([each * tokens, tokens], axis=1)
        found = replace(resampling.distributions([resampling.part(statistics, ratio)])[0][0], weights=tokens)
        assert found.effective_weight < MINIMUM_CLUSTERS
        for distance, values in p.items():
            values.append(p_at_least(found, 3.4 + distance))
    passed = {distance: float(np.mean(np.array(values) <= 0.05)) for distance, values in p.items()}
    assert passed[0.0] <= 0.075  # 0.05, and two standard errors of so many draws
    assert passed[0.7] > 0.8


def test_fewer_rows_are_never_said_to_be_enough_than_exclude_anything() -> None:
    few = replace(of_mean([1.0 + number / 1000 for number in range(40)]), weights=np.array([1e3, *[1.0] * 39]))
    assert p_at_least(few, 9.0) == 1.0
    needed = rows_needed(few, 9.0, None, rows=40, confidence=0.95)
    assert needed is not None
    assert needed == pytest.approx(40 * MINIMUM_WEIGHT / few.effective_weight, abs=1)


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


def test_a_few_large_clusters_count_as_few() -> None:
    def tested(sizes: list[int]) -> tuple[float, float]:
        clusters = np.repeat(np.arange(len(sizes)), sizes)
        resampling = Resampling(clusters.tolist(), seed=1, resamples=1_000)
        values = np.random.default_rng(2).normal(1, 0.1, len(clusters))
        part = resampling.part(np.stack([values, np.ones(len(clusters))], axis=1), ratio)
        ((found,),) = resampling.distributions([part])
        return found.effective_units, p_at_most(found, 0.5)

    even, p_of_even = tested([5] * 20)
    assert even == pytest.approx(20)
    assert p_of_even < 0.01
    uneven, p_of_uneven = tested([300, 200, 100] + [1] * 97)
    assert uneven == pytest.approx(697**2 / (300**2 + 200**2 + 100**2 + 97))
    assert p_of_uneven == 1.0


def of_clusters(values: Array, sizes: list[int]) -> list[Distribution]:
    """Return the distributions of means of [rows, draws] in clusters of these sizes."""
    draws = values.shape[1]
    resampling = Resampling(np.repeat(np.arange(len(sizes)), sizes).tolist(), seed=1, resamples=400)
    statistics = np.hstack([values, np.ones((len(values), 1))])
    return resampling.distributions([resampling.part(statistics, lambda sums: sums[..., :draws] / sums[..., draws:])])[
        0
    ]


def test_uneven_clusters_at_the_bound_pass_as_rarely_as_promised() -> None:
    sizes = np.maximum(1, np.random.default_rng(1).pareto(1.0, 400) * 3).astype(int).clip(max=300).tolist()
    right = np.random.default_rng(2).random((len(sizes), 200)) < 0.9  # of a cluster all rows, or none
    found = of_clusters(np.repeat(right.astype(np.float64), sizes, axis=0), sizes)
    assert found[0].effective_units > MINIMUM_CLUSTERS
    assert np.mean([p_at_most(each, 0.9, edge=1.0, span=1.0) <= 0.05 for each in found]) <= 0.06


def test_even_clusters_are_tested_as_if_their_sizes_were_not_known() -> None:
    values = np.repeat(np.random.default_rng(3).normal(0, 1, (40, 1)), 5, axis=0)
    (found,) = of_clusters(values, [5] * 40)
    assert p_at_least(found, 0.4) == p_at_least(replace(found, sizes=None), 0.4)


@pytest.mark.parametrize("rows", [200, 500])
def test_a_very_long_tail_at_the_bound_passes_as_rarely_as_promised(rows: int) -> None:
    draws = 1_000
    values = np.random.default_rng(10).lognormal(0, 2, (rows, draws))
    passed = np.mean([p_at_least(each, math.exp(2)) <= 0.05 for each in of_means(values, resamples=400)])
    assert passed <= 0.06 + 2 * math.sqrt(0.06 * 0.94 / draws)


def test_a_tail_away_from_the_bound_costs_nothing() -> None:
    values = np.random.default_rng(11).lognormal(0, 1.5, 300)
    losses, wins = of_mean(values), of_mean(-values)
    assert p_at_least(wins, -values.mean() + 1) == pytest.approx(
        p_at_least(wins, -values.mean() + 1, edge=-1e9, span=1e9)
    )
    assert p_at_least(losses, values.mean() + 1) > p_at_least(losses, values.mean() + 1, edge=-1e9, span=1e9)


def skewed(shift: float) -> Distribution:
    """Return a mean that one row of 152 makes most of the spread of, so many standard errors below 0."""
    values = np.append(np.random.default_rng(8).normal(0, 1, 151), 45.0)
    found = of_mean(values)
    return of_mean(values - found.estimate - shift * found.standard_error)


def p_pass(found: Distribution, maximum: float, broken_row: BrokenRow) -> float:
    """Return p of a figure without bounds at its maximum, as the gate has it."""
    figure = Figure("t", "x", len(found.left_out), found, None, True, None, broken_row=broken_row)
    threshold = Threshold.model_validate({"metric": "t/x", "maximum": maximum, "confidence": 0.95})
    (check,) = bound_checks(0, threshold, figure)
    assert check.p_pass is not None
    return check.p_pass


def test_a_bound_far_beyond_all_that_one_row_tells_is_excluded() -> None:
    """As of an adapter that halves the perplexity of all rows, of which one has a tenth of all tokens."""
    assert p_at_least(skewed(25), 0.0, rows_have_scale=True) < 0.05
    assert p_at_most(skewed(25).map(np.negative), 0.0, rows_have_scale=True) < 0.05
    assert p_pass(skewed(25), 0.0, BrokenRow(1.0)) < 0.05


def test_a_bound_that_a_few_rows_like_the_farthest_reach_is_not() -> None:
    assert p_at_least(skewed(5), 0.0, rows_have_scale=True) > 0.3
    assert p_at_least(skewed(10), 0.0, rows_have_scale=True) > 0.05


def test_of_errors_without_any_scale_no_bound_is_so_far_away_that_no_row_reaches_it() -> None:
    assert p_at_least(skewed(25), 0.0) > 0.3
    assert p_pass(skewed(25), 0.0, BrokenRow(math.inf)) > 0.3


def test_squared_errors_at_their_maximum_pass_as_rarely_as_without_what_is_far() -> None:
    """Of lognormal errors, sigma 1.5: those are lognormal with sigma 3, and most samples are far below their mean."""
    draws = 1_000
    squares = np.random.default_rng(12).lognormal(0, 1.5, (200, draws)) ** 2
    p = [p_pass(found, math.exp(4.5), BrokenRow(math.inf)) for found in of_means(squares, resamples=400)]
    # 6 to 8 %: such a tail is longer than those of which 5 % is promised. And twice the error that so many draws have.
    assert np.mean(np.array(p) <= 0.05) <= 0.08 + 2 * math.sqrt(0.08 * 0.92 / draws)
