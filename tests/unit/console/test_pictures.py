"""Pictures as numbers: what is drawn where, and that nothing that is no number is drawn."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from hypothesis import example, given, settings
from hypothesis import strategies as st
from trimtab.console.addresses import ORDERS, STATES, Selection, within
from trimtab.console.pages.job import bars
from trimtab.console.pictures.curve import LARGEST, Series, plot, spark, ticks
from trimtab.console.pictures.intervals import Bound, span
from trimtab.console.pictures.scatter import scatter
from trimtab.objects import Attempt

FINITE = st.floats(-LARGEST, LARGEST)


def test_a_curve_ends_where_its_last_point_is() -> None:
    made = plot([Series("loss", ((0, 3.0), (50, math.nan), (100, 1.0)))])
    assert made is not None
    (path,) = made.paths
    assert path.d.count("L") == 1
    assert path.end[0] == made.right
    assert abs(path.end[1] - made.bottom) <= 1
    assert [word for _, word in made.up] == ["1", "1.5", "2", "2.5", "3"]


def test_nothing_to_draw_draws_nothing() -> None:
    assert plot([]) is None
    assert plot([Series("loss", ((1, math.inf),))]) is None
    assert spark([1.0]) == ""
    assert span(None, 1, 2, None, ()) is None
    assert scatter("a", [], "") is None


@settings(deadline=None)
@given(FINITE, FINITE)
def test_ticks_are_few_and_around(low: float, high: float) -> None:
    low, high = sorted((low, high))
    found = ticks(low, high)
    assert 1 <= len(found) <= 12
    room = 1e-6 * max(1.0, abs(low), abs(high))
    assert found[0] <= low + room
    assert found[-1] >= high - room


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**9), st.floats()), max_size=30))
def test_whatever_a_status_says_is_drawn_within_the_picture(points: list[tuple[int, float]]) -> None:
    made = plot([Series("loss", tuple(points))])
    if made is None:
        return
    for path in made.paths:
        assert "nan" not in path.d
        assert "inf" not in path.d
        assert -1 <= path.end[0] <= made.width + 1
        assert -1 <= path.end[1] <= made.height + 1


def test_what_a_threshold_forbids_is_beside_its_bound() -> None:
    made = span(12.6, 12.2, 13.0, 12.1, [Bound(12.4, True, "at most 12.4"), Bound(5.0, False, "at least 5")])
    assert made is not None
    assert made.value is not None
    (upper, end), (begin, lower) = made.barred
    assert upper < made.value < end
    assert begin < lower < made.value


def test_attempts_share_one_time_line() -> None:
    now = datetime(2026, 11, 28, 12, tzinfo=UTC)
    times = [("2026-11-28T10:00:00Z", "2026-11-28T10:30:00Z", "Completed"), ("2026-11-28T11:00:00Z", "", "")]
    attempts = [
        Attempt(number, "train", "j", reason=reason, start_time=start, end_time=end)
        for number, (start, end, reason) in enumerate(times)
    ]
    first, second = bars(attempts, now)
    assert (first.x, first.width, first.tone, first.took) == (0, 150, "done", "30m")
    assert (second.x, second.width, second.tone, second.took) == (300, 300, "running", "1h")
    assert bars([Attempt(0, "train", "j")], now)[0].width == 0


def test_the_best_so_far_only_gets_better() -> None:
    made = scatter("a", [(1, 3.0, "a"), (2, 4.0, "b"), (3, 1.0, "c")], "c", minimize=True)
    assert made is not None
    assert made.line.count("V") == 1
    assert [dot.best for dot in made.dots] == [False, False, True]


@example({"page": "1" * 5000})
@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["text", "state", "order", "page", "x"]), st.text(max_size=200)))
def test_any_address_is_a_selection(query: dict[str, str]) -> None:
    found = Selection.read(query)
    assert found.state in ("", *STATES)
    assert found.order in ORDERS
    assert found.page >= 1
    assert len(found.text) <= 100


@settings(deadline=None)
@given(st.text(max_size=50))
def test_no_redirect_leads_elsewhere(path: str) -> None:
    found = within(path)
    assert found.startswith("/")
    assert not found.startswith(("//", "/\\"))
    assert "\\" not in found
    assert found.isprintable()
