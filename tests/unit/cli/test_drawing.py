"""Curves as characters."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.drawing import BARS, Series, plot, sparkline


def text_of(series: list[Series], width: int, height: int) -> list[str]:
    return ["".join(cell.character for cell in row).rstrip() for row in plot(series, width, height)]


def test_a_sparkline_goes_from_the_lowest_bar_to_the_highest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == BARS
    assert sparkline([7, 0]) == "█▁"
    assert sparkline([1, 1, 1]) == "▄▄▄"
    assert sparkline([]) == ""
    assert sparkline([math.nan, math.inf]) == ""


def test_more_values_than_there_is_room_for_are_means() -> None:
    assert sparkline([0, 2, 3, 5, 6, 8], width=3) == "▁▅█"
    assert len(sparkline(list(range(64)))) == 12


def test_a_falling_line_falls() -> None:
    assert text_of([Series("loss", ((0, 3.0), (10, 1.0)), "cyan")], 14, 4) == [
        "   3 ┤⠑⢄",
        "     │  ⠑⢄",
        "     │    ⠑⢄",
        "   1 ┤      ⠑⢄",
        "     └────────",
        "      0     10",
    ]


def test_nothing_to_draw_draws_nothing() -> None:
    assert plot([]) == []
    assert plot([Series("loss", ((1, math.nan),), "cyan")]) == []


numbers = st.floats(-1e9, 1e9) | st.sampled_from([math.nan, math.inf])


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 10**9), numbers), max_size=70), max_size=3), st.integers(20, 120))
def test_whatever_the_numbers_a_plot_keeps_to_its_width(sides: list[list[tuple[int, float]]], width: int) -> None:
    lines = text_of([Series("x", tuple(points), "cyan") for points in sides], width, 10)
    assert all(len(line) <= width for line in lines)
    known = any(math.isfinite(value) for points in sides for _, value in points)
    assert len(lines) == (12 if known else 0)
