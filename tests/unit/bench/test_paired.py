"""The difference of two medians and its interval, on series whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.serving.paired import Difference, difference, percentile


def latencies(count: int, more: float, seed: int = 0) -> tuple[list[float], list[float]]:
    """Return pairs around 50 that share most of their noise; the first of each has so much `more`."""
    random = np.random.default_rng(seed)
    shared = 50 + random.exponential(5, count)
    return list(shared + more + random.normal(0, 0.2, count)), list(shared + random.normal(0, 0.2, count))


def test_a_constant_difference_is_found_whatever_both_share() -> None:
    found = difference(*latencies(300, 1.0), resamples=1000)
    assert found.value == pytest.approx(1.0, abs=0.3)
    assert found.low < 1.0 < found.high
    assert found.of_pairs == pytest.approx(1.0, abs=0.1)
    assert found.share == pytest.approx(found.value / np.median(latencies(300, 1.0)[1]))
    assert found.share_low < found.share < found.share_high


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    drawn = [difference(*latencies(60, 1.0, seed), resamples=200) for seed in range(100)]
    assert 0.9 <= np.mean([each.low <= 1.0 <= each.high for each in drawn]) <= 1.0


def test_pairs_that_are_alike_make_the_interval_narrower_than_series_that_are_not() -> None:
    first, second = latencies(300, 1.0)
    shuffled = list(np.random.default_rng(1).permutation(second))
    paired, unpaired = (difference(first, each, resamples=1000) for each in (second, shuffled))
    assert paired.value == unpaired.value
    assert paired.high - paired.low < (unpaired.high - unpaired.low) / 2


def test_the_same_seed_gives_the_same_interval() -> None:
    first, second = latencies(50, 0.0)
    assert difference(first, second, resamples=200) == difference(first, second, resamples=200)


def test_series_that_are_no_pairs_are_refused() -> None:
    for first, second in (([], []), ([1.0, 2.0], [1.0])):
        with pytest.raises(ValueError, match="no pairs"):
            difference(first, second)


@pytest.mark.parametrize(
    ("high", "share_high", "below"),
    [(1.9, 0.10, True), (9.0, 0.04, True), (9.0, 0.10, False), (2.0, 0.05, False), (-1.0, -0.02, True)],
)
def test_the_interval_ends_below_a_value_or_below_a_share(high: float, share_high: float, below: bool) -> None:
    found = Difference(value=0, low=0, high=high, share=0, share_low=0, share_high=share_high, of_pairs=0)
    assert found.below(2.0, 0.05) is below


def test_percentiles_lie_between_the_elements() -> None:
    values = [4.0, 1.0, 3.0, 2.0]
    assert [percentile(values, percent) for percent in (0, 50, 100)] == [1.0, 2.5, 4.0]
