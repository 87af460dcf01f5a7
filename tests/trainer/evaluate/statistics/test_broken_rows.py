"""What a mean over few rows does not hold, and how many rows it takes to see it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from trimtab_trainer.contract import Check, Threshold
from trimtab_trainer.evaluate.scoring.measure import ratio
from trimtab_trainer.evaluate.statistics import Array, BrokenRow, Figure, Resampling, bound_checks
from trimtab_trainer.evaluate.statistics.broken_rows import LEAST_SEEN, SMALLEST_SHARE, STEPS, times_to_see, unseen


def perplexity_check(target: Array, baseline: Array, limit: float, confidence: float = 0.95) -> Check:
    """Return what is known of a relative regression of perplexity, from nats of rows of one token."""
    count = len(target)
    resampling = Resampling(range(count), seed=1, resamples=500)
    ones = np.ones(count)
    parts = [
        resampling.part(np.stack([nats, ones], axis=1), lambda s: np.exp(ratio(s)), weights=ones)
        for nats in (target, baseline)
    ]
    (ours,), (theirs,) = resampling.distributions(parts)
    figure = Figure("t", "perplexity", count, ours, theirs, True, None, broken_row=BrokenRow(1.0, logarithmic=True))
    threshold = Threshold.model_validate(
        {"metric": "t/perplexity", "maximumRelativeRegression": limit, "confidence": confidence}
    )
    (check,) = bound_checks(0, threshold, figure)
    return check


def test_so_many_rows_hold_a_broken_one() -> None:
    assert unseen(0.02, np.ones(149)) <= 0.05 < unseen(0.02, np.ones(148))
    assert unseen(0.02, np.ones(149)) == pytest.approx(0.98**149)
    assert math.ceil(50 * times_to_see(0.02, 0.95, np.ones(50))) == 149
    assert unseen(0.02, np.concatenate([np.ones(30), np.zeros(900)])) == pytest.approx(0.98**30)
    assert (unseen(0.02, np.zeros(9)), times_to_see(0.02, 0.95, np.zeros(9))) == (1.0, math.inf)
    assert unseen(1.0, np.ones(100_000)) < 1e-9


def test_broken_rows_that_weigh_little_are_taken_for_unseen() -> None:
    for share in (0.02, 0.3, 0.5):
        weights = np.random.default_rng(4).lognormal(0, 1.2, 12)
        steps = np.floor(np.minimum(weights / weights.mean() / LEAST_SEEN, 1) * STEPS)
        exact = sum(
            share ** sum(broken) * (1 - share) ** (12 - sum(broken))
            for broken in itertools.product((0, 1), repeat=12)
            if steps @ np.array(broken) < STEPS
        )
        assert unseen(share, weights) == pytest.approx(exact)
        assert exact > (1 - share) ** 12


def test_as_many_rows_of_uneven_weight_as_are_said_show_a_share() -> None:
    weights = np.random.default_rng(5).lognormal(0, 1.2, 200)
    times = times_to_see(0.02, 0.95, weights)
    assert 1 < times < 1.5
    assert unseen(0.02, weights, times) == pytest.approx(0.05, rel=1e-3)
    assert unseen(0.02, np.tile(weights, 2)) == pytest.approx(unseen(0.02, weights, 2.0))


def test_the_share_to_see_is_what_would_bring_the_figure_to_its_limit() -> None:
    nats = BrokenRow(1.0, logarithmic=True)
    assert nats.share(10.0, 10.0 * math.exp(0.3)) == pytest.approx(0.3)
    assert nats.share(10.0, 10.1) == SMALLEST_SHARE
    assert nats.share(10.0, 100.0) == 1.0
    assert nats.share(10.0, 0.0) == SMALLEST_SHARE
    assert BrokenRow(8.0).share(1.0, 3.0) == pytest.approx(0.25)
    assert BrokenRow(math.inf).share(0.0, 3.0) == SMALLEST_SHARE


def test_rows_too_few_to_hold_a_broken_one_do_not_pass_and_say_how_many_would() -> None:
    random = np.random.default_rng(1)
    baseline = random.gamma(8, 0.25, 400)
    target = baseline + random.normal(0, 0.02, 400)
    few, enough = (perplexity_check(target[:rows], baseline[:rows], 0.02) for rows in (100, 400))
    assert few.p_pass is not None
    assert few.p_pass > 0.05
    assert few.rows_needed == 149
    assert enough.p_pass is not None
    assert enough.p_pass < 0.01


def test_a_model_that_is_much_better_passes_with_few_rows() -> None:
    random = np.random.default_rng(2)
    baseline = random.gamma(8, 0.25, 30)
    check = perplexity_check(baseline - 0.5 + random.normal(0, 0.05, 30), baseline, 0.02)
    assert check.p_pass is not None
    assert check.p_pass < 0.01


def test_a_lower_confidence_takes_fewer_rows() -> None:
    random = np.random.default_rng(3)
    baseline = random.gamma(8, 0.25, 60)
    target = baseline + random.normal(0, 0.01, 60)
    assert perplexity_check(target, baseline, 0.02, confidence=0.9).rows_needed == 114
