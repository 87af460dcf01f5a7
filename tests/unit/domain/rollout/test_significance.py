"""The two tests of the canary and the spending of its level, against the laws that they claim."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from itertools import pairwise

import pytest
from scipy import stats
from trimtab_operator.domain.adapterrollout.canary.counts import Times
from trimtab_operator.domain.adapterrollout.canary.significance import more_often, slower, spent


def times(seconds: list[float]) -> Times:
    logs = [math.log(each) for each in seconds]
    return Times(len(logs), sum(logs), sum(log * log for log in logs))


def exact(new: int, of_new: int, old: int, of_old: int) -> Fraction:
    """Return the hypergeometric tail by counting."""
    events, everyone = new + old, of_new + of_old
    ways = sum(math.comb(of_new, x) * math.comb(of_old, events - x) for x in range(new, min(events, of_new) + 1))
    return Fraction(ways, math.comb(everyone, events))


def test_more_often_is_the_hypergeometric_tail() -> None:
    dice = random.Random(1)
    for _ in range(500):
        of_new, of_old = dice.randint(1, 300), dice.randint(1, 300)
        new, old = dice.randint(0, of_new), dice.randint(0, of_old)
        want = exact(new, of_new, old, of_old) if new * of_old > old * of_new else 1
        assert more_often(new, of_new, old, of_old) == pytest.approx(float(want), rel=1e-8), (new, of_new, old, of_old)


@pytest.mark.parametrize(
    ("table", "want"),
    {
        "nothing happened": ((0, 10, 0, 10), 1.0),
        "only the new ones fail, all of them": ((20, 20, 0, 20), 1 / math.comb(40, 20)),
        "millions": (
            (50_400, 1_000_000, 100_000, 2_000_000),
            stats.hypergeom.sf(50_399, 3_000_000, 150_400, 1_000_000),
        ),
        "smaller than any float": ((10**6, 10**6, 0, 10**6), 0.0),
    }.values(),
)
def test_more_often_at_its_ends(table: tuple[int, int, int, int], want: float) -> None:
    assert more_often(*table) == pytest.approx(want, rel=1e-4)


def test_slower_is_welchs_test_on_the_logarithms() -> None:
    dice = random.Random(2)
    for _ in range(50):
        new = [dice.lognormvariate(0.3, 1.0) for _ in range(dice.randint(60, 300))]
        old = [dice.lognormvariate(0.0, 0.5) for _ in range(dice.randint(60, 300))]
        logs = [[math.log(each) for each in side] for side in (new, old)]
        want = stats.ttest_ind(*logs, equal_var=False, alternative="greater").pvalue
        got = slower(times(new), times(old))
        assert got == pytest.approx(want if want < 0.5 else 1.0, rel=0.1)


def test_times_that_are_all_the_same_are_compared_as_they_are() -> None:
    same, longer = times([1.0] * 60), times([2.0] * 60)
    assert (slower(longer, same), slower(same, same), slower(same, longer)) == (0.0, 1.0, 1.0)


def test_what_may_be_spent_grows_and_never_exceeds_the_whole() -> None:
    moments = [0.0, 1e-6, 0.1, 0.5, 1.0, 1.5, 3.0, 100.0, 1e9]
    parts = [spent(moment) for moment in moments]
    assert all(a < b for a, b in pairwise(parts))
    assert parts[0] == 0
    assert parts[-1] <= 1


def test_sums_of_a_window_are_the_differences_of_sums() -> None:
    dice = random.Random(3)
    values = [dice.lognormvariate(1, 1) for _ in range(500)]
    window = times(values) - times(values[:300])
    assert window.n == 200
    assert window.mean == pytest.approx(times(values[300:]).mean)
    assert window.variance == pytest.approx(times(values[300:]).variance)
    assert times(values[:300]) - times(values) == Times()
