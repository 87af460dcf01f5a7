"""Groups: pooling, and a gap that equal groups do not show."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from trimtab_trainer.evaluate.statistics import (
    MINIMUM_GROUP_CLUSTERS,
    Array,
    Gap,
    Partition,
    Resampling,
    gap,
    partition,
)


def gaps(
    sizes: list[int], values: Array, *, resamples: int = 600, minimum: int = 20, lower_is_better: bool = False
) -> tuple[Partition, list[Gap | None]]:
    """Return the gap of each column of values [rows, draws], rows in groups of these sizes."""
    names = [f"g{at:02}" for at, size in enumerate(sizes) for _ in range(size)]
    resampling = Resampling(range(len(names)), seed=1, resamples=resamples)
    groups = partition(names, resampling, minimum_rows=minimum)
    statistics = np.hstack([values, np.ones((len(names), 1))])
    parts = [resampling.part(statistics, _means, rows) for rows in groups.rows]
    drawn, totals = resampling.figures(parts), [each.total for each in parts]
    return groups, [
        gap(
            np.array([each[at] for each in totals]),
            np.stack([each[:, at] for each in drawn], axis=1),
            groups,
            lower_is_better=lower_is_better,
            confidence=0.95,
        )
        for at in range(values.shape[1])
    ]


def _means(sums: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return np.asarray(sums[..., :-1] / sums[..., -1:], np.float64)


def right(share: float | Array, rows: int, draws: int, seed: int = 1) -> Array:
    return (np.random.default_rng(seed).random((rows, draws)) < share).astype(np.float64)


@pytest.mark.parametrize(
    ("sizes", "share"),
    [([50] * 10, 0.80), ([50] * 10, 0.99), ([200, 200], 0.80), ([30, 30, 30, 300, 300, 1000], 0.95)],
    ids=["ten groups", "nearly all right", "two groups", "uneven groups"],
)
def test_equal_groups_rarely_show_a_gap(sizes: list[int], share: float) -> None:
    draws = 300
    _, found = gaps(sizes, right(share, sum(sizes), draws))
    shown = np.mean([each is not None and each.low > 0 for each in found])
    assert all(each is not None and each.low <= each.gap for each in found)
    assert shown <= 0.06 + 2 * math.sqrt(0.06 * 0.94 / draws)


def test_the_raw_gap_of_ten_equal_groups_is_large() -> None:
    _, found = gaps([50] * 10, right(0.80, 500, 300), resamples=100)
    assert np.mean([each is not None and each.gap > 0.10 for each in found]) > 0.9


def test_a_group_that_is_much_worse_is_shown_and_named() -> None:
    share = np.r_[np.full(450, 0.9), np.full(50, 0.5)][:, None]
    groups, found = gaps([50] * 10, right(share, 500, 60))
    assert np.mean([each is not None and each.low > 0.10 for each in found]) > 0.8
    assert {groups.names[each.worst] for each in found if each is not None} == {"g09"}


def test_the_worst_group_of_an_error_is_the_largest() -> None:
    values = np.r_[np.full(30, 1.0), np.full(30, 5.0), np.full(30, 2.0)][:, None]
    groups, found = gaps([30, 30, 30], values, lower_is_better=True)
    assert found == [Gap(4.0, 4.0, groups.names.index("g01"), groups.names.index("g00"), high=4.0)]


def test_small_groups_are_pooled_and_named() -> None:
    resampling = Resampling(range(100), seed=1, resamples=100)
    names = ["a"] * 40 + ["b"] * 40 + ["c"] * 12 + [None] * 8
    found = partition(names, resampling, minimum_rows=20)
    assert found.names == ("a", "b", "other")
    assert found.pooled == ("(none)", "c")
    assert [len(rows) for rows in found.rows] == [40, 40, 20]
    assert found.judged == (0, 1, 2)


def test_a_pooled_group_that_is_still_small_is_shown_but_not_judged() -> None:
    resampling = Resampling(range(90), seed=1, resamples=100)
    found = partition(["a"] * 40 + ["b"] * 40 + ["c"] * 10, resampling, minimum_rows=20)
    assert (found.names, found.judged) == (("a", "b", "other"), (0, 1))


def test_a_group_that_is_called_other_is_not_mixed_with_the_pooled_ones() -> None:
    resampling = Resampling(range(70), seed=1, resamples=100)
    found = partition(["other"] * 40 + ["b"] * 10 + ["c"] * 20, resampling, minimum_rows=30)
    assert (found.names, found.pooled) == (("other", "other groups"), ("b", "c"))


def test_a_group_of_few_clusters_is_pooled_however_many_rows_it_has() -> None:
    clusters = [0] * 100 + list(range(1, 101)) + list(range(101, 201))
    resampling = Resampling(clusters, seed=1, resamples=100)
    found = partition(["one cluster"] * 100 + ["a"] * 100 + ["b"] * 100, resampling, minimum_rows=30)
    assert (found.names, found.pooled, found.judged) == (("a", "b", "other"), ("one cluster",), (0, 1))
    assert found.clusters[2] < MINIMUM_GROUP_CLUSTERS


def test_one_group_has_no_gap() -> None:
    _, found = gaps([60, 5], right(0.5, 65, 1))
    assert found == [None]


def test_a_group_whose_figure_is_no_number_makes_the_gap_unknown() -> None:
    values = right(0.5, 60, 1)
    values[3] = math.nan
    assert gaps([30, 30], values)[1] == [None]


def test_groups_that_share_every_cluster_are_compared_row_by_row() -> None:
    # Each cluster has a row of both groups, the second 0.1 better; the noise is common to both and cancels.
    noise = np.random.default_rng(3).normal(0, 1, 60)
    values = np.concatenate([noise, noise + 0.1])[:, None]
    resampling = Resampling([*range(60), *range(60)], seed=1, resamples=500)
    groups = partition(["a"] * 60 + ["b"] * 60, resampling, minimum_rows=20)
    parts = [resampling.part(values, lambda sums: sums / 60, rows) for rows in groups.rows]
    drawn = np.stack([each[:, 0] for each in resampling.figures(parts)], axis=1)
    found = gap(np.array([each.total[0] for each in parts]), drawn, groups, lower_is_better=False, confidence=0.95)
    assert found is not None
    assert [found.gap, found.low] == pytest.approx([0.1, 0.1])


def test_hundreds_of_groups_take_bounded_work() -> None:
    _, found = gaps([20] * 300, right(0.8, 6_000, 1), resamples=2_000)
    assert found[0] is not None
    assert found[0].low == 0.0


def test_the_gap_lies_between_its_bounds_and_fewer_rows_show_less() -> None:
    visible = []
    for rows in (50, 800):
        names = [f"g{at // rows}" for at in range(2 * rows)]
        resampling = Resampling(range(2 * rows), seed=1, resamples=500)
        groups = partition(names, resampling, minimum_rows=20)
        values = (np.random.default_rng(4).random(2 * rows) < np.repeat([0.9, 0.7], rows)).astype(np.float64)
        statistics = np.stack([values, np.ones(2 * rows)], axis=1)
        parts = [resampling.part(statistics, lambda sums: sums[..., :1] / sums[..., 1:], each) for each in groups.rows]
        estimates = np.array([part.total[0] for part in parts])
        draws = np.stack([each[:, 0] for each in resampling.figures(parts)], axis=1)
        found = gap(estimates, draws, groups, lower_is_better=False, confidence=0.95)
        assert found is not None
        assert 0 <= found.low < found.gap < found.high
        visible.append(found.visible)
    assert visible[1] < 0.1 < visible[0]


def test_as_many_groups_as_rows_are_pooled_in_time_linear_in_them() -> None:
    names = [f"g{at}" for at in range(30_000)]
    resampling = Resampling(range(len(names)), seed=1, resamples=10)
    began = time.process_time()
    groups = partition(names, resampling, minimum_rows=2)
    assert time.process_time() - began < 5
    assert (groups.names, len(groups.pooled), groups.judged) == (("other",), len(names), (0,))
